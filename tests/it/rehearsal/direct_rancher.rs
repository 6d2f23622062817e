//! Clusters that Rancher launched: its agents would put the old certificates back, so Rancher has the last word or is known to revert.

use certroll::sim::Layout;

use super::direct::{BRISK, SMALL, certificates, restarts, staging_is_gone};
use super::{KUBERNETES, Rehearsal, of_kind, rancher, rehearse};

#[test]
fn rancher_has_the_last_word_or_its_revert_is_accepted() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Expired028, |options| {
            options.rancher = Some(rancher(&["w-2"]));
            options.pace = BRISK;
        })
        .await;
        let blocked = lab.certroll(&["apply", "--via", "direct", "--yes"]).await.expect(4);
        blocked
            .shows("its agents write the old ones back within minutes")
            .shows("--then rancher")
            .shows("--accept-rancher-revert");
        lab.is_untouched();

        let accept = ["apply", "--via", "direct", "--yes", "--accept-rancher-revert"];
        lab.certroll(&accept)
            .await
            .expect(0)
            .shows("have Rancher rotate as soon as it reaches the cluster again");
        lab.certroll(&["check"]).await.expect(0);
        let direct = certificates(&lab, "cp-1");

        let then = ["apply", "--via", "direct", "--force", "--then", "rancher", "--yes", "-o", "json"];
        let first = restarts(&lab).len();
        let applied = lab.with_token(&then).await.expect(0);
        let events = applied.events();
        let stages: Vec<&str> =
            of_kind(&events, "stage_started").iter().map(|event| event["stage"].as_str().unwrap()).collect();
        let place = |name: &str| stages.iter().position(|stage| *stage == name);
        assert!(place("workers") < place("state") && place("state") < place("rotate"), "{stages:?}");
        assert!(place("rotate") < place("verify") && place("state").is_some(), "{stages:?}");
        let restarted = restarts(&lab).split_off(first);
        let etcd = restarted.iter().filter(|restart| *restart == "cp-1 etcd").count();
        assert_eq!(etcd, 2, "certroll's restart and Rancher's: {restarted:?}");
        let last = certificates(&lab, "cp-1");
        assert_ne!(last["kube-node"].serial, direct["kube-node"].serial);
        for node in ["w-1", "w-2"] {
            assert_eq!(certificates(&lab, node)["kube-node"].serial, last["kube-node"].serial, "{node}");
        }
        staging_is_gone(&lab);
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
        lab.certroll(&["check"]).await.expect(0);
    });
}

#[test]
fn an_expired_legacy_cluster_of_rancher_is_repaired_renewed_and_handed_over() {
    rehearse(async {
        let lab = Rehearsal::with(Layout::LegacyExpired, "/", |options| {
            options.rancher = Some(rancher(&["w-1"]));
            options.pace = BRISK;
        })
        .await;
        let then = ["apply", "--via", "direct", "--then", "rancher", "--yes"];
        lab.with_token(&then).await.expect(0);
        lab.certroll(&["check"]).await.expect(0);
        let last = certificates(&lab, "cp-1");
        for node in ["cp-2", "etcd-1", "w-1", "w-2", "w-3"] {
            assert_eq!(certificates(&lab, node)["kube-node"].serial, last["kube-node"].serial, "{node}");
        }
        staging_is_gone(&lab);
        let effects = lab.effects();
        lab.with_token(&then).await.expect(0).says("Nothing to do");
        assert_eq!(lab.effects(), effects);
    });
}
