//! What goes wrong in a rotation with the cluster's own CA: it stops where nothing is lost, and goes on from there.

use certroll::sim::{Fault, Layout};

use super::direct::{BRISK, MEMBERS, SMALL, TRIO, certificates, kept_serving, restarts, staging_is_gone};
use super::{Ended, KUBERNETES, Rehearsal, name, rehearse};

const APPLY: [&str; 6] = ["apply", "--via", "direct", "--yes", "--health-timeout", "2s"];

/// Where nothing is in the way any more, a busy machine has its time.
const MENDED: [&str; 4] = ["apply", "--via", "direct", "--yes"];

/// Expects that no file in use was changed, and nothing was restarted.
#[track_caller]
fn cluster_is_untouched(lab: &Rehearsal) {
    let in_use = |effect: &String| {
        effect.contains("/ssl/") && !effect.contains("/.certroll/") || effect.contains("container")
    };
    assert_eq!(lab.effects().into_iter().filter(in_use).collect::<Vec<_>>(), Vec::<String>::new());
    assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
}

/// Returns the serial numbers of the etcd pairs on a node.
fn etcd_serials(lab: &Rehearsal, node: &str) -> Vec<String> {
    let all = certificates(lab, node).into_iter().filter(|(name, _)| name.starts_with("kube-etcd-"));
    all.map(|(_, certificate)| certificate.serial).collect()
}

#[test]
fn a_run_that_stops_half_way_loses_nothing_and_the_next_spreads_the_pairs_that_are_there() {
    rehearse(async {
        let lab = Rehearsal::of(TRIO, Layout::ExpiringSoon, |_| {}).await;

        let full = Fault::NoSpaceBeneath { folder: format!("{KUBERNETES}/.certroll/*/staged") };
        lab.fleet.inject(&name("w-1"), full);
        lab.certroll(&APPLY)
            .await
            .expect(1)
            .shows("No space left on device")
            .shows("w-1")
            .shows("nothing was switched or restarted on any node: put this node right");
        lab.fleet.mend(&name("w-1"));
        cluster_is_untouched(&lab);

        let deaf = Fault::CommandFails {
            pattern: "tar -C / -cf -".to_owned(),
            status: 1,
            stderr: "tar: input/output error".to_owned(),
        };
        lab.fleet.inject(&name("cp-1"), deaf);
        let ended = lab.certroll(&APPLY).await.expect(1).shows("cp-1: tar: input/output error");
        assert!(
            !ended.stdout.contains("was not made"),
            "the cause is told, not what follows from it:\n{}",
            ended.stdout
        );
        lab.fleet.mend(&name("cp-1"));
        cluster_is_untouched(&lab);

        let old = etcd_serials(&lab, "cp-3");
        lab.fleet.inject(&name("cp-2"), Fault::UnhealthyAfterRestart { container: "etcd".to_owned() });
        stops_at_the_second_member(&lab, &old).await;
        let new = etcd_serials(&lab, "cp-1");

        lab.certroll(&APPLY).await.expect(4).shows("cp-2").shows("this etcd member is not healthy");
        lab.fleet.mend(&name("cp-2"));
        let before = restarts(&lab).len();
        lab.certroll(&MENDED).await.expect(0);
        assert_eq!(MEMBERS.map(|node| etcd_serials(&lab, node)), [new.clone(), new.clone(), new]);
        let again = restarts(&lab).split_off(before);
        let etcd: Vec<&String> = again.iter().filter(|restart| restart.ends_with(" etcd")).collect();
        assert_eq!(etcd, ["cp-3 etcd"], "what is done is not done again");
        kept_serving(&lab, 2, 2);
        staging_is_gone(&lab);
        lab.certroll(&["check"]).await.expect(0);
        lab.certroll(&["plan", "--via", "direct", "--detailed-exitcode"]).await.expect(0);
    });
}

/// Applies, and expects that the run stops after the member that does not come back.
async fn stops_at_the_second_member(lab: &Rehearsal, old: &[String]) -> Ended {
    let ended = lab
        .certroll(&APPLY)
        .await
        .expect(1)
        .shows("cp-2")
        .shows("etcd is not healthy 2 s after its restart")
        .shows("docker logs etcd");
    assert_eq!(restarts(lab), ["cp-1 etcd", "cp-2 etcd"]);
    let serving = lab.fleet.serving();
    assert_eq!((serving.etcd_members, serving.api_servers), (2, 3));
    assert_eq!(etcd_serials(lab, "cp-3"), old);
    assert_eq!(etcd_serials(lab, "cp-1"), etcd_serials(lab, "cp-2"));
    assert!(etcd_serials(lab, "cp-1").iter().all(|serial| !old.contains(serial)));
    assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
    ended
}

#[test]
fn a_worker_that_was_away_gets_the_pairs_that_the_others_have() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Expired028, |options| options.pace = BRISK).await;
        lab.fleet.inject(&name("w-2"), Fault::Unreachable);
        lab.certroll(&["plan", "--via", "direct"]).await.expect(1).shows("w-2");
        lab.certroll(&MENDED).await.expect(1).shows("left out").shows("w-2");
        let effects = lab.effects();
        assert!(!effects.iter().any(|effect| effect.starts_with("w-2: ")), "{effects:#?}");
        lab.fleet.mend(&name("w-2"));
        let of = |node: &str| {
            let all = certificates(&lab, node);
            ["kube-node", "kube-proxy"].map(|name| all[name].serial.clone())
        };
        let (spread, stale) = (of("w-1"), of("w-2"));
        assert_ne!(spread, stale);
        assert_eq!(of("cp-1"), spread);
        lab.certroll(&["check"]).await.expect(3);

        let before = restarts(&lab).len();
        lab.certroll(&MENDED).await.expect(0);
        assert_eq!([of("cp-1"), of("w-1"), of("w-2")], [spread.clone(), spread.clone(), spread]);
        assert_eq!(restarts(&lab).split_off(before), ["w-2 kubelet", "w-2 kube-proxy"]);
        staging_is_gone(&lab);
        lab.certroll(&["check"]).await.expect(0);
    });
}
