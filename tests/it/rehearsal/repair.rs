//! The first step alone: the legacy bundle on nodes that have none.

use certroll::pki::Certificate;
use certroll::sim::Layout;
use jiff::{SignedDuration, Timestamp};

use super::{KUBERNETES, Rehearsal, rehearse};

const GROUP: [&str; 3] = ["cp-1", "cp-2", "etcd-1"];

/// Repairs, and expects whole bundles beneath a directory.
async fn repairs(lab: &Rehearsal, directory: &str) {
    lab.certroll(&["plan", "repair"]).await.expect(0).shows("gains the private key of kube-ca");
    lab.is_untouched();
    let ssl = GROUP.map(|node| lab.files(node, &format!("{directory}/ssl")));
    lab.certroll(&["apply", "repair", "--yes"]).await.expect(0).shows("steps done");

    let tmp = GROUP.map(|node| lab.files(node, &format!("{directory}/.tmp")));
    assert_eq!(GROUP.map(|node| lab.files(node, &format!("{directory}/ssl"))), ssl, "ssl is as it was");
    assert_eq!((&tmp[0], &tmp[0]), (&tmp[1], &tmp[2]), "one bundle");
    assert!(tmp[0].values().all(|(mode, uid, gid, _)| (*mode, *uid, *gid) == (0o600, 0, 0)), "{:?}", tmp[0]);
    for authority in ["kube-ca.pem", "kube-ca-key.pem"] {
        assert_eq!(tmp[2][authority], ssl[0][authority], "{authority}");
    }
    assert_eq!(lab.root("cp-1", &format!("stat -c '%a %u' {directory}/.tmp")).await, "700 0\n");

    let certificate = |file: &str| {
        Certificate::from_pem(&lab.file("etcd-1", &format!("{directory}/.tmp/{file}")).unwrap()).unwrap()
    };
    let (admin, authority) = (certificate("kube-admin.pem"), certificate("kube-ca.pem"));
    assert!(admin.is_signed_by(&authority));
    assert!(
        admin.subject.contains("O=system:masters") && admin.subject.contains("CN=kube-admin"),
        "{}",
        admin.subject
    );
    let left = admin.not_after.duration_since(Timestamp::now());
    let day = SignedDuration::from_hours(24);
    assert!(left > day * 29 && left <= day * 30, "{left}");
    let check = lab.certroll(&["check", "-o", "json"]).await.expect(3).json();
    let all = check["nodes"].as_array().unwrap();
    let pair = |node: &serde_json::Value| {
        let all = node["certificates"].as_array().unwrap();
        all.iter().find(|one| one["path"] == format!("{directory}/.tmp/kube-admin.pem")).cloned()
    };
    let pairs: Vec<_> = all.iter().filter_map(pair).map(|pair| pair["key_matches"].clone()).collect();
    assert_eq!(pairs, [true, true, true]);

    let effects = lab.effects();
    lab.certroll(&["apply", "repair", "--yes"]).await.expect(0).says("Nothing to do");
    assert_eq!(lab.effects(), effects);
}

#[test]
fn a_missing_bundle_is_made_once_and_the_same_on_every_node() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::LegacyTmpMissing).await;
        repairs(&lab, KUBERNETES).await;
    });
}

#[test]
fn a_prefix_moves_everything() {
    rehearse(async {
        let lab = Rehearsal::with(Layout::LegacyTmpMissing, "/opt/rke", |_| {}).await;
        repairs(&lab, "/opt/rke/etc/kubernetes").await;
        let strays = lab.effects().into_iter().filter(|effect| !effect.contains(" /opt/rke/etc/kubernetes/"));
        assert_eq!(strays.collect::<Vec<_>>(), Vec::<String>::new());
    });
}
