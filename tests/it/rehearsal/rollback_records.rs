//! The way back of what is no file of `/etc/kubernetes`: rke's own records in the API, and the pairs that kubelets serve.

use std::collections::BTreeMap;

use certroll::sim::{Layout, StateObject, StoredKind};
use serde_json::Value;

use super::direct::{BRISK, SMALL, restarts};
use super::{KUBERNETES, Rehearsal, Trace, rehearse};

const APPLY: [&str; 5] = ["apply", "--via", "direct", "--yes", "--force"];
const BACK: [&str; 2] = ["rollback", "--yes"];
const KUBELET_PKI: &str = "/var/lib/kubelet/pki";
const NODES: [&str; 3] = ["cp-1", "w-1", "w-2"];

/// Returns what the objects of a kind hold that rke keeps, by name.
fn records(lab: &Rehearsal, kind: StoredKind) -> BTreeMap<String, Value> {
    let is_of_rke = |name: &String| name.starts_with("kube-") || name == "full-cluster-state";
    let names = lab.fleet.stored_names(kind).into_iter().filter(is_of_rke);
    names.map(|name| (name.clone(), lab.fleet.stored(kind, &name).unwrap()["data"].clone())).collect()
}

#[test]
fn the_full_state_in_the_api_comes_back_and_goes_forward_again() {
    rehearse(async {
        for (object, kind) in
            [(StateObject::ConfigMap, StoredKind::ConfigMap), (StateObject::Secret, StoredKind::Secret)]
        {
            let lab = Rehearsal::of(SMALL, Layout::Healthy, |options| {
                options.state_object = object;
                options.pace = BRISK;
            })
            .await;
            let old = records(&lab, kind);
            assert!(old.contains_key("full-cluster-state"), "{:?}", old.keys());
            lab.certroll(&APPLY).await.expect(0);
            let new = records(&lab, kind);
            assert_ne!(new, old);
            lab.certroll(&BACK).await.expect(0).says("1 object put back");
            assert_eq!(records(&lab, kind), old, "{kind:?}");
            lab.certroll(&BACK).await.expect(0);
            assert_eq!(records(&lab, kind), new, "{kind:?}: the rollback of a rollback");
        }
    });
}

#[test]
fn the_secrets_of_rke_0_1_come_back() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::LegacyTmpMissing, |options| options.pace = BRISK).await;
        // What it begins with has expired, and is no place to come back to.
        lab.certroll(&APPLY).await.expect(0);
        let old = records(&lab, StoredKind::Secret);
        assert!(old.len() > 8, "{:?}", old.keys());
        lab.certroll(&APPLY).await.expect(0);
        let new = records(&lab, StoredKind::Secret);
        let changed: Vec<&String> = old.keys().filter(|name| old[*name] != new[*name]).collect();
        assert!(changed.len() > 5, "{changed:?}");
        lab.certroll(&BACK).await.expect(0);
        assert_eq!(records(&lab, StoredKind::Secret), old);
        lab.certroll(&["check"]).await.expect(0);
        lab.certroll(&BACK).await.expect(0);
        assert_eq!(records(&lab, StoredKind::Secret), new, "the rollback of a rollback");
    });
}

/// Returns the pairs of the kubelets, with owners and modes.
fn pairs(lab: &Rehearsal) -> [BTreeMap<String, Trace>; 3] {
    NODES.map(|node| lab.files(node, KUBELET_PKI))
}

/// Returns what the kubelets serve.
async fn served(lab: &Rehearsal) -> BTreeMap<String, Value> {
    let seen = lab.certroll(&["check", "-o", "json"]).await.expect(0).json();
    let of = |node: &Value| {
        let port = node["served"].as_array()?.iter().find(|port| port["service"] == "kubelet")?;
        Some((node["name"].as_str()?.to_owned(), port["sha256"].clone()))
    };
    let served: BTreeMap<String, Value> = seen["nodes"].as_array().unwrap().iter().filter_map(of).collect();
    assert_eq!(served.len(), NODES.len(), "{seen}");
    assert!(served.values().all(Value::is_string), "{served:?}");
    served
}

#[test]
fn the_retired_pairs_of_kubelets_come_back_and_are_served() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Healthy, |options| options.pace = BRISK).await;
        let (old, old_served) = (pairs(&lab), served(&lab).await);
        let files = NODES.map(|node| lab.files(node, KUBERNETES));
        lab.certroll(&["apply", "--via", "direct", "--kubelet-serving", "--yes"]).await.expect(0);
        let (new, new_served) = (pairs(&lab), served(&lab).await);
        assert!(old.iter().zip(&new).all(|(old, new)| old != new), "{new:?}");
        assert!(old_served.iter().all(|(node, sha256)| new_served[node] != *sha256), "{new_served:?}");
        let before = restarts(&lab).len();

        lab.certroll(&BACK).await.expect(0);
        assert_eq!(pairs(&lab), old);
        assert_eq!(served(&lab).await, old_served);
        assert_eq!(restarts(&lab)[before..], NODES.map(|node| format!("{node} kubelet")));

        lab.certroll(&BACK).await.expect(0);
        assert_eq!(pairs(&lab), new, "the rollback of a rollback");
        assert_eq!(served(&lab).await, new_served);
        assert_eq!(NODES.map(|node| lab.files(node, KUBERNETES)), files, "nothing else was touched");
    });
}
