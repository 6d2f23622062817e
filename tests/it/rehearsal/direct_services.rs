//! Parts of a rotation with the cluster's own CA: one service, etcd alone, the kubelets' own serving pairs.

use std::collections::BTreeSet;

use certroll::sim::Layout;

use super::direct::{ALL, BRISK, MEMBERS, TRIO, changed, kept_serving, restarts, served, staging_is_gone};
use super::{KUBERNETES, Rehearsal, rehearse};

const KUBELET_PKI: &str = "/var/lib/kubelet/pki";

/// Applies, and returns the files in `ssl` that changed on each node, with the restarts that it took.
async fn apply(lab: &Rehearsal, words: &[&str]) -> (Vec<BTreeSet<String>>, Vec<String>) {
    let before = ALL.map(|node| lab.files(node, KUBERNETES));
    let count = restarts(lab).len();
    let words = [&["apply", "--via", "direct", "--yes"], words].concat();
    lab.certroll(&words).await.expect(0);
    let files = ALL.iter().zip(&before).map(|(node, before)| changed(before, &lab.files(node, KUBERNETES)));
    (files.collect(), restarts(lab).split_off(count))
}

fn pair(name: &str) -> [String; 2] {
    [format!("ssl/{name}-key.pem"), format!("ssl/{name}.pem")]
}

#[test]
fn a_service_takes_its_own_files_and_its_own_restarts_alone() {
    rehearse(async {
        let lab = Rehearsal::of(TRIO, Layout::Healthy, |options| options.pace = BRISK).await;
        let none = BTreeSet::new();

        let (files, restarted) = apply(&lab, &["--force", "--service", "kube-scheduler"]).await;
        let own = BTreeSet::from(pair("kube-scheduler"));
        assert_eq!(files, [&own, &own, &own, &none, &none].map(Clone::clone));
        assert_eq!(restarted, MEMBERS.map(|node| format!("{node} kube-scheduler")));

        let (files, restarted) = apply(&lab, &["--force", "--service", "etcd"]).await;
        let own: BTreeSet<String> = ["10-0-0-1", "10-0-0-2", "10-0-0-3"]
            .iter()
            .flat_map(|node| pair(&format!("kube-etcd-{node}")))
            .collect();
        assert_eq!(files, [&own, &own, &own, &none, &none].map(Clone::clone));
        assert_eq!(restarted, MEMBERS.map(|node| format!("{node} etcd")));

        let before = served(&lab.certroll(&["check", "-o", "json"]).await.expect(0).json());
        let pairs = ALL.map(|node| lab.files(node, KUBELET_PKI));
        // The kubelets' pairs end in 41 days, all others in years.
        let (files, restarted) = apply(&lab, &["--kubelet-serving"]).await;
        assert_eq!(files, vec![none; 5]);
        assert_eq!(restarted, ALL.map(|node| format!("{node} kubelet")));
        let after = served(&lab.certroll(&["check", "-o", "json"]).await.expect(0).json());
        for (port, sha256) in before {
            assert_eq!(after[&port] != sha256, port.contains(" kubelet "), "{port}");
        }
        for (node, before) in ALL.iter().zip(pairs) {
            let new = lab.files(node, KUBELET_PKI);
            assert!(
                new["kubelet.crt"].3 != before["kubelet.crt"].3
                    && new["kubelet.key"].3 != before["kubelet.key"].3
            );
            let files = lab.fleet.node(&super::name(node)).unwrap().files();
            let retired = files.iter().find(|file| file.path.ends_with("/retired/kubelet.key")).unwrap();
            assert_eq!((&retired.sha256, retired.mode & 0o7777), (&before["kubelet.key"].3, 0o600), "{node}");
        }
        kept_serving(&lab, 2, 3);
        staging_is_gone(&lab);
        lab.certroll(&["plan", "--via", "direct", "--kubelet-serving", "--detailed-exitcode"])
            .await
            .expect(0);
    });
}
