//! What `check` says of serving certificates that lack names which cluster.yml asks for.

use certroll::facts::{Thresholds, assess};
use jiff::SignedDuration;

use crate::golden::Golden;

/// Returns the findings of a code, each with its node.
fn findings(golden: &Golden) -> Vec<String> {
    let thresholds = Thresholds { now: golden.now, expiring_within: SignedDuration::from_hours(24) };
    assess(&golden.inventory, &golden.facts(), &thresholds)
        .into_iter()
        .filter(|finding| finding.code == "san-drift")
        .map(|finding| format!("{}: {}", finding.node.unwrap(), finding.message))
        .collect()
}

#[test]
fn clusters_as_rke_left_them_lack_no_name() {
    for version in ["rke-v0.1.17", "rke-v0.2.8"] {
        assert_eq!(findings(&Golden::read(version)), Vec::<String>::new(), "{version}");
    }
}

#[test]
fn a_name_that_was_added_to_cluster_yml_is_lacking_on_each_control_plane_node() {
    let mut golden = Golden::read("rke-v0.2.8");
    golden.inventory.authentication_sans = vec!["api.example.com".to_owned(), "N1".to_owned()];
    let expected = ["n1", "n2", "n3"].map(|node| {
        format!("{node}: `ssl/kube-apiserver.pem` lacks names that cluster.yml asks for: api.example.com")
    });
    assert_eq!(findings(&golden), expected);
}

#[test]
fn another_domain_is_lacking_in_etcd_too() {
    let mut golden = Golden::read("rke-v0.2.8");
    golden.inventory.cluster_domain = "example.org".to_owned();
    let found = findings(&golden);
    assert_eq!(found.len(), 6, "the API server's and the node's own member's, on each of three: {found:?}");
    assert!(
        found.contains(
            &"n2: `ssl/kube-etcd-10-77-0-12.pem` lacks names that cluster.yml asks for: kubernetes.default.svc.example.org"
                .to_owned()
        ),
        "{found:?}"
    );
}

#[test]
fn names_beyond_those_of_cluster_yml_are_no_finding() {
    let mut golden = Golden::read("rke-v0.2.8");
    golden.inventory.nodes.retain(|node| node.name.as_str() != "n3");
    assert_eq!(findings(&golden), Vec::<String>::new());
}
