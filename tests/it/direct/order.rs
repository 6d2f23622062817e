//! The order of `--via direct` for any topology, and whatever is down at the start: a quorum of etcd and an API server stay.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use certroll::facts::{Facts, NodeFacts};
use certroll::gather::facts_of;
use certroll::inventory::{Inventory, NodeName, Role};
use certroll::pki::Service;
use certroll::plan::{Action, Gate, Policy, Renewal, Stage, StageName};
use proptest::prelude::*;

use super::{LEGACY, MODERN, file, outline, planned, policy, with_health};
use crate::golden::Golden;

/// A node of a made-up cluster: its roles, and whether etcd and the API server on it are well.
#[derive(Debug, Clone)]
struct Sketch {
    roles: Vec<Role>,
    etcd_is_well: bool,
    api_is_well: bool,
}

fn sketches() -> impl Strategy<Value = Vec<Sketch>> {
    let node = (1_u8..8, proptest::bool::weighted(0.7), proptest::bool::weighted(0.7)).prop_map(
        |(bits, etcd_is_well, api_is_well)| Sketch {
            roles: Role::ALL
                .into_iter()
                .enumerate()
                .filter(|(bit, _)| bits & (1 << bit) != 0)
                .map(|(_, role)| role)
                .collect(),
            etcd_is_well,
            api_is_well,
        },
    );
    proptest::collection::vec(node, 1..8).prop_filter("a cluster has etcd and a control plane", |nodes| {
        let has = |role| nodes.iter().any(|node: &Sketch| node.roles.contains(&role));
        has(Role::Etcd) && has(Role::ControlPlane)
    })
}

/// Makes the cluster of some sketches, out of what a golden node shows.
fn drawn(golden: &Golden, sketches: &[Sketch]) -> (Inventory, Facts) {
    let mut text = "nodes:\n".to_owned();
    for (index, sketch) in sketches.iter().enumerate() {
        let roles: Vec<&str> = sketch.roles.iter().map(|role| role.as_str()).collect();
        let _ = write!(
            text,
            "- address: 10.0.0.{index}\n  hostname_override: m{index}\n  user: root\n  role: [{}]\n",
            roles.join(", ")
        );
    }
    let inventory = Inventory::parse(&text, "cluster.yml").unwrap().inventory;
    let template = golden.facts().nodes.first().unwrap().observation().unwrap().clone();
    let nodes = inventory.nodes.iter().map(|node| {
        let mut seen = template.clone();
        let etcd = file(&mut seen, "kube-etcd-10-77-0-11.pem").clone();
        let key = file(&mut seen, "kube-etcd-10-77-0-11-key.pem").clone();
        seen.files.retain(|file| !file.file_name.starts_with("kube-etcd-"));
        if !node.has(Role::ControlPlane) {
            let own = ["kube-ca.pem", "kube-node", "kube-proxy"];
            seen.files.retain(|file| own.iter().any(|name| file.file_name.starts_with(name)));
            let control_plane = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
            seen.containers.retain(|container| !control_plane.contains(&container.name.as_str()));
        }
        if node.has(Role::Etcd) {
            for member in inventory.with_role(Role::Etcd) {
                for (half, ending) in [(&etcd, ".pem"), (&key, "-key.pem")] {
                    let mut half = half.clone();
                    half.file_name = format!("kube-etcd-{}{ending}", member.file_name_address());
                    half.path = format!("/etc/kubernetes/ssl/{}", half.file_name);
                    seen.files.push(half);
                }
            }
        }
        facts_of(node, Ok(seen))
    });
    let facts = Facts { observed_at: golden.now, nodes: nodes.collect() };
    let facts = with_health(facts, |node, service| {
        let sketch = &sketches[inventory.nodes.iter().position(|found| found.name == node.name).unwrap()];
        match service {
            Service::Etcd => sketch.etcd_is_well,
            Service::KubeApiserver => sketch.api_is_well,
            _ => true,
        }
    });
    (inventory, facts)
}

/// The nodes on which a component is well, as a plan goes on.
struct Wellness {
    well: BTreeSet<NodeName>,
    count: usize,
}

impl Wellness {
    fn of(facts: &Facts, role: Role, service: Service) -> Self {
        let nodes: Vec<&NodeFacts> = facts.nodes.iter().filter(|node| node.has(role)).collect();
        let is_well = |node: &&&NodeFacts| {
            node.observation().unwrap().health_of(service).unwrap().healthy == Some(true)
        };
        Self {
            well: nodes.iter().filter(is_well).map(|node| node.name.clone()).collect(),
            count: nodes.len(),
        }
    }

    /// Takes a node away and gives it back, as a restart does; `least` must stay well if they were, and the gate must hold.
    fn restart(&mut self, node: &NodeName, gate: &[NodeName], least: usize) {
        assert!(gate.iter().all(|name| self.well.contains(name)), "the gate could never open: {gate:?}");
        let others: BTreeSet<NodeName> = self.well.iter().filter(|name| *name != node).cloned().collect();
        let asked: BTreeSet<NodeName> = gate.iter().filter(|name| *name != node).cloned().collect();
        assert_eq!(asked, others, "all that are well are asked before {node} goes");
        if self.well.contains(node) {
            assert!(others.len() >= least, "{node} may not go: {others:?} are too few");
        }
        self.well.insert(node.clone());
    }
}

/// Follows a stage of etcd.
fn follow_etcd(stage: &Stage, etcd: &mut Wellness) {
    let quorum = etcd.count / 2 + 1;
    let restarts: Vec<_> = stage
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Switch { containers, gate, .. } if containers == &["etcd"] => {
                Some((step.node.clone().unwrap(), gate))
            }
            _ => None,
        })
        .collect();
    if stage.name == StageName::EtcdQuorum {
        assert!(etcd.well.len() < quorum, "there is a quorum to lose");
        assert_eq!(etcd.well.len() + restarts.len(), quorum, "as few as needed");
        assert_eq!(stage.max_unavailable, restarts.len());
        for (node, _) in restarts {
            assert!(!etcd.well.contains(&node), "a member that is well is not needed for it");
            etcd.well.insert(node);
        }
        return;
    }
    assert_eq!(stage.max_unavailable, 1);
    for (node, gate) in restarts {
        let Gate::Etcd { members } = gate else { panic!("{node} has no gate") };
        // Of two members one always is the quorum's last.
        let least = if etcd.count <= 2 { etcd.count - 1 } else { quorum.min(etcd.count - 1) };
        etcd.restart(&node, members, least);
    }
}

/// Follows the stage of the control plane.
fn follow_api_servers(stage: &Stage, api: &mut Wellness) {
    assert_eq!(stage.max_unavailable, 1);
    for step in &stage.steps {
        let Action::Switch { containers, gate, .. } = &step.action else { panic!("{step:?}") };
        if containers.iter().any(|name| name == "kube-apiserver") {
            assert_eq!(containers[0], "kube-apiserver", "it is healthy before the next component goes");
            let Gate::ApiServers { nodes } = gate else { panic!("{step:?}") };
            let least = usize::from(api.well.len() > 1);
            api.restart(step.node.as_ref().unwrap(), nodes, least);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// For any topology, and whatever is down at the start: a quorum of etcd and an API server stay at every step.
    #[test]
    fn no_order_breaks_a_quorum_or_leaves_no_api_server(sketches in sketches(), legacy in any::<bool>()) {
        let golden = Golden::read(if legacy { LEGACY } else { MODERN });
        let (inventory, facts) = drawn(&golden, &sketches);
        let policy = Policy { renewal: Renewal::All, ..policy(&golden) };
        let plan = planned(&inventory, &facts, &policy);
        prop_assert!(plan.blockers.is_empty(), "{}", outline(&plan));
        let mut etcd = Wellness::of(&facts, Role::Etcd, Service::Etcd);
        let mut api = Wellness::of(&facts, Role::ControlPlane, Service::KubeApiserver);
        if etcd.well.len() <= etcd.count / 2 {
            // Without etcd they are about to end, whatever they answer.
            api.well.clear();
        }
        for stage in &plan.stages {
            match stage.name {
                StageName::EtcdQuorum | StageName::Etcd => follow_etcd(stage, &mut etcd),
                StageName::ControlPlane => follow_api_servers(stage, &mut api),
                _ => {}
            }
        }
        prop_assert_eq!(etcd.well.len(), etcd.count, "all members are well in the end");
        prop_assert_eq!(api.well.len(), api.count);
        let staged = |node: &NodeName, path: &str| plan.stage(StageName::Staging).unwrap().steps.iter().any(|step| {
            step.node.as_ref() == Some(node)
                && matches!(&step.action, Action::LayAside { files } if files.iter().any(|file| file.path == path))
        });
        for step in plan.steps() {
            if let Action::Switch { files, .. } = &step.action {
                for file in files {
                    prop_assert!(staged(step.node.as_ref().unwrap(), &file.path), "{} is not laid aside", file.path);
                }
            }
        }
    }
}
