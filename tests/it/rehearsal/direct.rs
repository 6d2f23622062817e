//! Rotations with the cluster's own CA on a healthy cluster: nobody who asks it notices.

use std::collections::{BTreeMap, BTreeSet};

use certroll::pki::Certificate;
use certroll::sim::Layout;
use serde_json::Value;

use super::{KUBERNETES, Rehearsal, Trace, of_kind, rehearse};

/// The cluster that most people have, with files of etcd's own user.
pub(super) const TRIO: &str = "\
cluster_name: prod
kubernetes_version: v1.14.6-rancher1-1
services:
  etcd: {uid: 52034, gid: 52034}
nodes:
- {address: 10.0.0.1, hostname_override: cp-1, user: rancher, role: [controlplane, etcd]}
- {address: 10.0.0.2, hostname_override: cp-2, user: rancher, role: [controlplane, etcd]}
- {address: 10.0.0.3, hostname_override: cp-3, user: rancher, role: [controlplane, etcd]}
- {address: 10.0.0.4, hostname_override: w-1, user: rancher, role: [worker]}
- {address: 10.0.0.5, hostname_override: w-2, user: rancher, role: [worker]}
";

/// The smallest cluster with workers.
pub(super) const SMALL: &str = "\
cluster_name: small
kubernetes_version: v1.14.6-rancher1-1
nodes:
- {address: 10.0.0.1, hostname_override: cp-1, user: rancher, role: [controlplane, etcd]}
- {address: 10.0.0.4, hostname_override: w-1, user: rancher, role: [worker]}
- {address: 10.0.0.5, hostname_override: w-2, user: rancher, role: [worker]}
";

pub(super) const MEMBERS: [&str; 3] = ["cp-1", "cp-2", "cp-3"];
pub(super) const ALL: [&str; 5] = ["cp-1", "cp-2", "cp-3", "w-1", "w-2"];

/// The pace of fleets where nothing depends on how long components take to come back.
pub(super) const BRISK: f64 = 0.002;

/// The components of a control plane node in the order in which they are restarted.
pub(super) const CONTROL_PLANE: [&str; 5] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"];

/// What certroll never makes anew.
const NEVER: [&str; 3] = ["kube-ca", "kube-apiserver-requestheader-ca", "kube-service-account-token"];

/// Returns all restarts since the fleet began, as `node component`.
pub(super) fn restarts(lab: &Rehearsal) -> Vec<String> {
    let restart = |effect: String| {
        let (node, container) = effect.split_once(": restart container ")?;
        Some(format!("{node} {container}"))
    };
    lab.effects().into_iter().filter_map(restart).collect()
}

/// Returns the restarts that a whole rotation promises after those of etcd.
pub(super) fn after_etcd() -> Vec<String> {
    let of = |nodes: &[&str], components: &[&str]| {
        let node = |node: &&str| components.iter().map(|one| format!("{node} {one}")).collect::<Vec<_>>();
        nodes.iter().flat_map(node).collect::<Vec<_>>()
    };
    [of(&MEMBERS, &CONTROL_PLANE), of(&["w-1", "w-2"], &["kubelet", "kube-proxy"])].concat()
}

/// Returns the certificates in `ssl` of a node by name.
pub(super) fn certificates(lab: &Rehearsal, node: &str) -> BTreeMap<String, Certificate> {
    in_folder(lab, node, &format!("{KUBERNETES}/ssl"))
}

/// Returns the certificates in a folder of a node by name.
pub(super) fn in_folder(lab: &Rehearsal, node: &str, folder: &str) -> BTreeMap<String, Certificate> {
    let read = |path: String| {
        let name = path.strip_suffix(".pem")?;
        let is_certificate = !name.contains('/') && !name.ends_with("-key");
        let text = lab.file(node, &format!("{folder}/{path}")).unwrap();
        is_certificate.then(|| (name.to_owned(), Certificate::from_pem(&text).unwrap()))
    };
    lab.files(node, folder).into_keys().filter_map(read).collect()
}

/// Returns the fingerprints that the ports serve, by node, service and port; each is the one on disk.
pub(super) fn served(check: &Value) -> BTreeMap<String, String> {
    let mut ports = BTreeMap::new();
    for node in check["nodes"].as_array().unwrap() {
        for port in node["served"].as_array().unwrap() {
            assert_eq!(port["matches_disk"], true, "{port}");
            let place = format!("{} {} {}", node["name"], port["service"], port["port"]).replace('"', "");
            ports.insert(place, port["sha256"].as_str().unwrap().to_owned());
        }
    }
    ports
}

/// Expects that at every restart and at every change of a file in use at least so many etcd members and API servers served, and
/// that there was a moment with no more of each: what judges can see a restart.
#[track_caller]
pub(super) fn kept_serving(lab: &Rehearsal, members: usize, servers: usize) {
    let (mut fewest_members, mut fewest_servers) = (usize::MAX, usize::MAX);
    for effect in lab.fleet.effects() {
        let Some(serving) = effect.serving else { continue };
        assert!(
            serving.etcd_members >= members && serving.api_servers >= servers,
            "{}: {}: {serving:?}",
            effect.node,
            effect.description
        );
        fewest_members = fewest_members.min(serving.etcd_members);
        fewest_servers = fewest_servers.min(serving.api_servers);
    }
    assert_eq!((fewest_members, fewest_servers), (members, servers));
}

/// Expects no private key in any folder of a run but in its backups.
#[track_caller]
pub(super) fn staging_is_gone(lab: &Rehearsal) {
    for node in &lab.inventory.nodes {
        for file in lab.fleet.node(&node.name).unwrap().files() {
            assert!(
                !file.path.contains("/staged/") && !file.path.ends_with(".certroll"),
                "{}: {}",
                node.name,
                file.path
            );
        }
    }
}

/// Returns the lines of `files` that differ, by path.
pub(super) fn changed(before: &BTreeMap<String, Trace>, after: &BTreeMap<String, Trace>) -> BTreeSet<String> {
    let paths = before.keys().chain(after.keys());
    paths.filter(|path| before.get(*path) != after.get(*path)).cloned().collect()
}

/// Expects that every leaf of a node is new, and all else as it was, with the owner and mode that it had.
#[track_caller]
fn is_renewed(before: &BTreeMap<String, Trace>, after: &BTreeMap<String, Trace>) {
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (path, trace) in before {
        let (mode, user, group, sha256) = &after[path];
        assert_eq!((mode, user, group), (&trace.0, &trace.1, &trace.2), "{path}");
        let name = path.trim_start_matches("ssl/").trim_end_matches(".pem").trim_end_matches("-key");
        let stays = NEVER.contains(&name) || name.starts_with("kubecfg-") || name.starts_with("certs/");
        assert_eq!(*sha256 == trace.3, stays, "{path}");
    }
}

#[test]
fn a_healthy_cluster_is_renewed_and_nobody_who_asks_it_notices() {
    rehearse(async {
        let lab = Rehearsal::of(TRIO, Layout::Healthy, |_| {}).await;
        let ports = served(&lab.certroll(&["check", "-o", "json"]).await.expect(0).json());
        let before = ALL.map(|node| lab.files(node, KUBERNETES));
        let saved = lab.path("direct.plan");
        let saved = saved.to_str().unwrap();
        lab.certroll(&["plan", "--via", "direct", "--detailed-exitcode"]).await.expect(0);
        lab.certroll(&["plan", "--via", "direct", "--force", "--save", saved]).await.expect(0);
        lab.is_untouched();

        let applied = lab.certroll(&["apply", "--plan", saved, "--yes", "-o", "json"]).await.expect(0);

        kept_serving(&lab, 2, 2);
        let etcd = MEMBERS.map(|node| format!("{node} etcd")).to_vec();
        assert_eq!(restarts(&lab), [etcd, after_etcd()].concat());
        stages_before_it_switches(&lab);
        staging_is_gone(&lab);
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
        for (node, before) in ALL.iter().zip(&before) {
            is_renewed(before, &lab.files(node, KUBERNETES));
            let files = lab.saved(node).into_keys().filter(|path| !path.starts_with(".certroll"));
            assert_eq!(
                files.collect::<BTreeSet<_>>(),
                before.keys().cloned().collect(),
                "{node}: the backup is whole"
            );
        }
        let now = served(&lab.certroll(&["check", "-o", "json"]).await.expect(0).json());
        assert_eq!(ports.keys().collect::<Vec<_>>(), now.keys().collect::<Vec<_>>());
        for (port, sha256) in &ports {
            // The kubelet's own serving pair is nobody's but its own.
            assert_eq!(now[port] == *sha256, port.contains(" kubelet "), "{port}");
        }
        let events = applied.events();
        assert_eq!(of_kind(&events, "run_finished")[0]["exit_status"], 0);

        let effects = lab.effects();
        lab.certroll(&["plan", "--via", "direct", "--detailed-exitcode"]).await.expect(0);
        lab.certroll(&["apply", "--via", "direct", "--yes"]).await.expect(0).says("Nothing to do");
        lab.certroll(&["apply", "--plan", saved, "--yes"]).await.expect(4).says("the plan is stale");
        assert_eq!(lab.effects(), effects);
    });
}

/// Expects that the last file was laid aside before the first one in use was changed.
fn stages_before_it_switches(lab: &Rehearsal) {
    let effects = lab.effects();
    let staged =
        effects.iter().rposition(|effect| effect.contains(": create ") && effect.contains("/staged/"));
    let switched = effects.iter().position(|effect| effect.contains(&format!(" {KUBERNETES}/ssl/")));
    assert!(staged.unwrap() < switched.unwrap(), "{effects:#?}");
}
