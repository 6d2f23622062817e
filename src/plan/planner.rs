mod direct;
mod findings;
mod refusals;
mod restarts;
mod rke;
mod rollback;

use std::collections::HashMap;

use super::action::{Action, CertificateBefore};
use super::estimate::expected_seconds;
use super::instructions::instructions;
use super::policy::{Policy, Renewal};
use super::repair::{has_any_bundle, is_legacy_layout, repair, signs_tokens_with_its_own_key};
use super::{
    CaKey, NewCertificate, NotHandled, PLAN_VERSION, Plan, Procedure, Stage, StageName, Step, StepId, Via,
    basis, blockers,
};
use crate::facts::{CertificateStatus, Facts, NodeFacts, Observation, Thresholds, certificate_status};
use crate::finding::Finding;
use crate::inventory::{Inventory, NodeName, Role};
use crate::pki::{Certificate, Class, KUBE_CA, Location, expected_names, services_of};
use findings::{due_finding, what_rke_does_with_bundles};
pub use rollback::{Objections, RancherFiles, Undoing, UndoneRun, rollback};

/// Makes a plan: pure, and the same plan whenever the same things are known.
pub fn plan(inventory: &Inventory, facts: &Facts, policy: &Policy) -> Plan {
    let mut draft = Draft::new(inventory, facts, policy);
    draft.refuse_what_cannot_be();
    match policy.procedure {
        Procedure::Rotate => draft.rotate(),
        Procedure::Repair => draft.repair_by_name(),
        Procedure::Restart => draft.restart(),
        // It is planned from more than facts: see [`rollback`].
        Procedure::Rollback => {}
    }
    draft.finish()
}

/// A plan that is being made.
struct Draft<'a> {
    inventory: &'a Inventory,
    facts: &'a Facts,
    policy: &'a Policy,
    thresholds: Thresholds,
    /// What [`Facts::is_rancher_launched`] says: it asks every node, and the planner asks it for every node.
    is_rancher_launched: bool,
    stages: Vec<Stage>,
    blockers: Vec<Finding>,
    findings: Vec<Finding>,
    not_handled: Vec<NotHandled>,
    certificates: Vec<NewCertificate>,
    ca_keys: Vec<CaKey>,
}

impl<'a> Draft<'a> {
    fn new(inventory: &'a Inventory, facts: &'a Facts, policy: &'a Policy) -> Self {
        let thresholds = Thresholds { now: policy.now, expiring_within: policy.renew_within };
        Self {
            inventory,
            facts,
            policy,
            thresholds,
            is_rancher_launched: facts.is_rancher_launched(),
            stages: Vec::new(),
            blockers: Vec::new(),
            findings: Vec::new(),
            not_handled: Vec::new(),
            certificates: Vec::new(),
            ca_keys: Vec::new(),
        }
    }

    /// Returns the nodes that were seen and selected.
    fn scope(&self) -> Vec<(&'a NodeFacts, &'a Observation)> {
        self.facts.seen().filter(|(node, _)| self.is_selected(&node.name)).collect()
    }

    fn is_selected(&self, node: &NodeName) -> bool {
        self.policy.selected.as_ref().is_none_or(|selected| selected.contains(node))
    }

    /// Returns the command that handles a node later: certroll gives it the pairs that the others have by then, Rancher and rke
    /// write files without restarting for them.
    fn command_for_later(&self, node: &NodeName) -> String {
        match self.policy.direct {
            Some(_) => "certroll plan --via direct".to_owned(),
            None => format!("certroll plan restart -n {node}"),
        }
    }

    /// A rotation renews the files of every node; a worker that `-n` leaves out is not restarted onto them. Rke is not run then.
    fn name_left_out(&mut self) {
        if self.policy.rke.is_some() {
            return;
        }
        let workers = self.facts.nodes.iter().filter(|node| node.is_worker_only());
        let left_out: Vec<_> = workers.filter(|node| !self.is_selected(&node.name)).collect();
        let message = if self.policy.direct.is_some() {
            "`-n` leaves it out: it keeps its old certificates"
        } else {
            "`-n` leaves it out: it may get new certificates all the same, and keep using the old ones"
        };
        let findings = left_out.into_iter().map(|node| {
            Finding::warning("worker-left-out", message)
                .on(&node.name)
                .hint(format!("`{}` later", self.command_for_later(&node.name)))
        });
        let findings: Vec<Finding> = findings.collect();
        self.findings.extend(findings);
    }

    /// Plans the whole procedure.
    fn rotate(&mut self) {
        if let Some(direct) = &self.policy.direct {
            self.rotate_directly(direct);
            return;
        }
        let due = self.due();
        if due.is_empty() && self.policy.renewal == Renewal::WhereNeeded {
            self.restart();
            return;
        }
        self.refuse_authority_that_ends(KUBE_CA, self.facts.kube_ca());
        self.name_left_out();
        let scope = self.scope();
        self.stages.push(preflight(&scope));
        self.stages.push(self.backup_before_rotation(&scope));
        if self.wants_bundles() {
            self.add_repair();
        }
        self.findings.push(due_finding(&due, self.policy));
        self.add_rotation();
        self.add_confirmation();
        self.add_restarts(&scope, true);
        self.add_verification(&scope);
    }

    /// Returns the certificates of selected services that have ended, end soon, or cannot be used.
    fn due(&self) -> Vec<(&'a NodeName, String, CertificateStatus)> {
        let mut due = Vec::new();
        for (node, observation) in self.facts.seen() {
            for name in self.rotated_names(node, observation) {
                let Some(file) = observation.certificate_file(Location::Ssl, &name) else {
                    due.push((&node.name, name, CertificateStatus::Missing));
                    continue;
                };
                let (status, _) = certificate_status(observation, file, &self.thresholds);
                if status != CertificateStatus::Ok {
                    due.push((&node.name, name, status));
                }
            }
        }
        due
    }

    /// Returns the names of the certificates on a node that a rotation of the selected services renews.
    fn rotated_names(&self, node: &NodeFacts, observation: &Observation) -> Vec<String> {
        let mut names = expected_names(&node.roles, self.inventory);
        names.retain(|name| name != KUBE_CA);
        if observation.certificate_file(Location::Ssl, "kube-apiserver-proxy-client").is_some() {
            names.push("kube-apiserver-proxy-client".to_owned());
        }
        if self.inventory.generate_serving_certificate {
            let serving = observation.files.iter().filter(|file| {
                file.location == Location::Ssl
                    && file.class() == Class::Leaf
                    && file.file_name.starts_with("kube-kubelet-")
            });
            names.extend(serving.filter_map(|file| file.certificate_name()).map(str::to_owned));
        }
        let selected = &self.policy.services;
        if !selected.is_empty() {
            names.retain(|name| services_of(name).iter().any(|service| selected.contains(service)));
        }
        names
    }

    /// A new leaf of an expired CA is worth nothing.
    fn refuse_authority_that_ends(&mut self, name: &str, authority: Option<&Certificate>) {
        let Some(authority) = authority else { return };
        if authority.not_after <= self.policy.now + self.policy.renew_within {
            let message = format!("{name} itself ends on {}", authority.not_after.strftime("%Y-%m-%d"));
            self.blockers.push(
                Finding::error("ca-expiring", message)
                    .hint("a new CA is needed, which certroll does not make yet: `rke cert rotate --rotate-ca` does, and restarts everything"),
            );
        }
    }

    /// Returns how many workers may be unavailable at a time.
    fn max_unavailable_workers(&self) -> usize {
        let workers = self.inventory.nodes.iter().filter(|node| node.roles == [Role::Worker]).count();
        self.policy.max_unavailable_worker.of(workers)
    }

    /// Plans the legacy bundles alone.
    fn repair_by_name(&mut self) {
        let expired = self.facts.seen().any(|(node, observation)| {
            self.rotated_names(node, observation).iter().any(|name| {
                let file = observation.certificate_file(Location::Ssl, name);
                file.is_some_and(|file| {
                    certificate_status(observation, file, &self.thresholds).0 == CertificateStatus::Expired
                })
            })
        });
        let wanted = expired || is_legacy_layout(self.facts) || has_any_bundle(self.facts);
        if !wanted && self.policy.renewal == Renewal::WhereNeeded {
            self.findings.push(
                Finding::info(
                    "bundle-not-needed",
                    "the cluster is healthy and was laid out by rke 0.2 or later: it needs no `.tmp`, and one would spread the CA's key",
                )
                .hint("`--force` makes the bundles all the same"),
            );
            return;
        }
        let steps_before = self.stages.len();
        self.add_repair();
        let Some(stage) = self.stages.get(steps_before) else { return };
        let nodes: Vec<NodeName> = stage.nodes().into_iter().cloned().collect();
        let changed: Vec<_> =
            self.scope().into_iter().filter(|(node, _)| nodes.contains(&node.name)).collect();
        self.stages.insert(steps_before, preflight(&changed));
        self.stages.insert(steps_before + 1, backup(&changed));
    }

    /// Adds the stage that completes the legacy bundles, if there is anything to complete.
    fn add_repair(&mut self) {
        let repair = repair(self.inventory, self.facts);
        if !repair.steps.is_empty() {
            self.findings.extend(what_rke_does_with_bundles(self.facts));
        }
        self.blockers.extend(repair.blockers);
        self.findings.extend(repair.findings);
        let selected = repair.steps.into_iter().filter(|(node, ..)| self.is_selected(node));
        let steps = selected.map(|(node, action, reason)| (Some(node), action, reason)).collect();
        self.add_stage(StageName::Repair, "complete the legacy bundle `.tmp`", usize::MAX, steps);
    }

    /// Adds the stage in which somebody else makes the certificates.
    fn add_rotation(&mut self) {
        match self.policy.via {
            Some(Via::Rancher) => self.add_rancher_rotation(),
            Some(Via::Rke) => self.add_rke_rotation(),
            Some(Via::Manual) => {
                let action = Action::RotateByOperator {
                    instructions: instructions(self.policy, self.is_rancher_launched),
                    timeout: self.policy.wait,
                    before: self.control_plane_before(),
                };
                let reason = "certificates are due; the operator has them made".to_owned();
                self.add_stage(
                    StageName::Rotate,
                    "the operator has the certificates rotated",
                    1,
                    vec![(None, action, reason)],
                );
            }
            Some(Via::Direct) | None => {}
        }
    }

    fn add_rancher_rotation(&mut self) {
        let Some(rancher) = &self.policy.rancher else { return };
        self.blockers.extend(blockers::of_rancher(rancher, self.inventory, self.policy));
        let calls: Vec<Option<_>> = match self.policy.services.as_slice() {
            [] => vec![None],
            services => services.iter().copied().map(Some).collect(),
        };
        let steps = calls.into_iter().map(|service| {
            let action = Action::RotateByRancher {
                url: rancher.url.clone(),
                cluster_id: rancher.cluster_id.clone(),
                service,
                timeout: self.policy.wait,
            };
            (None, action, "certificates are due; Rancher makes new ones from the cluster's CA".to_owned())
        });
        let title = format!("Rancher {} rotates the certificates", rancher.version);
        let steps = steps.collect();
        self.add_stage(StageName::Rotate, &title, 1, steps);
    }

    /// Returns the certificates of etcd and control plane nodes that a rotation must change.
    fn control_plane_before(&self) -> Vec<CertificateBefore> {
        let group = self.facts.seen().filter(|(node, _)| !node.is_worker_only());
        group.flat_map(|(node, observation)| self.before(node, observation)).collect()
    }

    /// Returns the certificates of a node that a rotation must change, as they are now.
    fn before(&self, node: &NodeFacts, observation: &Observation) -> Vec<CertificateBefore> {
        let names = self.rotated_names(node, observation).into_iter();
        names
            .filter_map(|name| {
                let sha256 = observation.certificate(Location::Ssl, &name)?.sha256.clone();
                Some(CertificateBefore { node: node.name.clone(), name, sha256 })
            })
            .collect()
    }

    fn add_confirmation(&mut self) {
        let steps = self
            .scope()
            .into_iter()
            .filter(|(node, _)| !node.is_worker_only())
            .map(|(node, observation)| {
                let action = Action::Confirm {
                    before: self.before(node, observation),
                    timeout: self.policy.confirm_timeout(),
                };
                let reason = match self.policy.via {
                    Some(Via::Rke) => "rke ends with status 0 whatever becomes of a node",
                    _ => "Rancher says \"active\" too early (rancher#19661)",
                };
                (Some(node.name.clone()), action, reason.to_owned())
            })
            .collect();
        self.add_stage(StageName::Confirm, "certificates are new on disk, and served", usize::MAX, steps);
    }

    fn add_verification(&mut self, nodes: &[(&'a NodeFacts, &'a Observation)]) {
        let rotates = self.stages.iter().any(|stage| stage.name == StageName::Rotate);
        let steps = nodes
            .iter()
            .map(|(node, observation)| {
                let before = if rotates { self.before(node, observation) } else { Vec::new() };
                let action = Action::Verify { before, timeout: self.policy.verify_timeout() };
                (Some(node.name.clone()), action, "proves that it worked".to_owned())
            })
            .collect();
        self.add_stage(
            StageName::Verify,
            "certificates, what is served, health, each node active",
            usize::MAX,
            steps,
        );
    }

    /// Adds a stage, unless it would be empty.
    fn add_stage(&mut self, name: StageName, title: &str, max_unavailable: usize, steps: Vec<PlannedStep>) {
        if !steps.is_empty() {
            self.stages.push(stage(name, title, max_unavailable, steps));
        }
    }

    fn finish(mut self) -> Plan {
        let control_plane = self.facts.seen().filter(|(node, _)| node.has(Role::ControlPlane));
        let lock_nodes = control_plane.map(|(node, _)| node.name.clone()).collect();
        self.findings.sort_by_key(|finding| finding.severity);
        let basis = basis::basis(self.inventory, self.facts);
        let fingerprint = basis::fingerprint(&basis, self.policy);
        let expected_seconds = expected_seconds(&self.stages);
        let mut plan = Plan {
            version: PLAN_VERSION,
            id: fingerprint.as_str().chars().take(4).collect(),
            cluster: self.inventory.cluster_name.clone(),
            procedure: self.policy.procedure,
            undoes: None,
            via: self.policy.via.filter(|_| self.policy.procedure == Procedure::Rotate),
            services: self.policy.services.clone(),
            created_at: self.policy.now,
            observed_at: self.facts.observed_at,
            kube_ca: self.facts.kube_ca().map(|authority| authority.sha256.clone()),
            fingerprint,
            basis,
            certificates: self.certificates,
            ca_keys: self.ca_keys,
            stages: self.stages,
            blockers: self.blockers,
            findings: self.findings,
            not_handled: self.not_handled,
            lock_nodes,
            majority: self.policy.majority,
            expected_seconds,
            deadline: None,
        };
        if !plan.has_work() {
            plan.certificates.clear();
            plan.ca_keys.clear();
            plan.stages.clear();
        }
        plan
    }
}

type PlannedStep = (Option<NodeName>, Action, String);

/// Makes a stage; the steps are named after stage, node and number.
fn stage(name: StageName, title: &str, max_unavailable: usize, planned: Vec<PlannedStep>) -> Stage {
    let mut steps: Vec<Step> = Vec::with_capacity(planned.len());
    let mut numbers: HashMap<Option<NodeName>, usize> = HashMap::new();
    for (node, action, reason) in planned {
        let number = numbers.entry(node.clone()).or_default();
        *number += 1;
        let place = node.as_ref().map_or("cluster", NodeName::as_str);
        let id = StepId(format!("{}/{place}/{number}", name.as_str().replace(' ', "-")));
        let retry = action.retry();
        steps.push(Step { id, node, action, reason, retry });
    }
    let mut stage = Stage { name, title: title.to_owned(), max_unavailable, steps };
    stage.max_unavailable = stage.max_unavailable.min(stage.nodes().len()).max(1);
    stage
}

fn preflight(nodes: &[(&NodeFacts, &Observation)]) -> Stage {
    let steps = nodes.iter().map(|(node, _)| {
        (
            Some(node.name.clone()),
            Action::Preflight,
            "nothing may have moved since the plan was made".to_owned(),
        )
    });
    stage(
        StageName::Preflight,
        "look again: nothing has moved, docker answers, there is space",
        usize::MAX,
        steps.collect(),
    )
}

fn backup(nodes: &[(&NodeFacts, &Observation)]) -> Stage {
    let steps =
        nodes.iter().map(|(node, _)| (Some(node.name.clone()), Action::Backup, "the way back".to_owned()));
    stage(StageName::Backup, "save `/etc/kubernetes`, and compare the copy", usize::MAX, steps.collect())
}
