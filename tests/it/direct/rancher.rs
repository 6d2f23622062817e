//! `--via direct` on clusters that Rancher launched, whose own copy of the certificates must follow.

use std::time::Duration;

use certroll::facts::Container;
use certroll::plan::{AfterDirect, Policy, RancherTarget, RancherWork, Renewal, RotationOffer, StageName};

use super::{LEGACY, MODERN, change, codes, healthy, outline, planned, policy};
use crate::golden::Golden;

#[test]
fn a_cluster_that_rancher_launched_needs_rancher_afterwards() {
    let golden = Golden::read(MODERN);
    let mut facts = healthy(&golden);
    let kubelet = change(&mut facts, "n4").container("kubelet").unwrap().clone();
    let agent = Container { name: "share-mnt".to_owned(), state: "exited".to_owned(), ..kubelet };
    change(&mut facts, "n4").containers.push(agent);
    let mut policy = Policy { renewal: Renewal::All, ..policy(&golden) };
    let refused = planned(&golden.inventory, &facts, &policy);
    assert_eq!(codes(&refused.blockers), ["rancher-would-revert"]);
    policy.direct.as_mut().unwrap().after = AfterDirect::RevertAccepted;
    let accepted = planned(&golden.inventory, &facts, &policy);
    assert_eq!(accepted.blockers, []);
    assert!(codes(&accepted.findings).contains(&"rancher-would-revert"), "it is still said");
}

/// Rancher needs the legacy bundle complete, and writes to every node: all are saved, though one alone gets files of certroll's.
#[test]
fn every_node_is_saved_where_rancher_follows() {
    let golden = Golden::read(LEGACY)
        .without(&["n2"], |path| path.contains("proxy-client"))
        .without(&["n4"], |path| path.contains("kube-proxy"));
    let mut policy = policy(&golden);
    policy.direct.as_mut().unwrap().after = AfterDirect::Rancher;
    policy.rancher = Some(RancherTarget {
        url: "https://rancher.example.net".to_owned(),
        version: "v2.2.8".to_owned(),
        cluster_id: "c-abcde".to_owned(),
        rotation: RotationOffer::Offered,
        state: "active".to_owned(),
        work: RancherWork::None,
        nodes: golden.rancher_nodes(),
        agent_check_interval: Duration::from_secs(120),
    });
    let plan = planned(&golden.inventory, &healthy(&golden), &policy);
    assert!(plan.stage(StageName::Repair).is_some(), "{}", outline(&plan));
    assert_eq!(plan.stage(StageName::Backup).unwrap().nodes().len(), 5, "{}", outline(&plan));
    assert_eq!(plan.stages.last().unwrap().name, StageName::Verify);
}
