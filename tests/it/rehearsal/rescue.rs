//! A cluster of which a controlplane node is down for good: rescued where that takes nothing away, else left alone.

use certroll::sim::{Fault, Layout};

use super::direct::{BRISK, TRIO, certificates, restarts, staging_is_gone};
use super::{KUBERNETES, Rehearsal, name, rehearse};

/// Takes a node away for good: nothing on it runs, and nobody reaches it.
fn dies(lab: &Rehearsal, node: &str) {
    let gone =
        ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"];
    for container in gone {
        lab.fleet.inject(&name(node), Fault::ContainerMissing { container: container.to_owned() });
    }
    lab.fleet.inject(&name(node), Fault::Unreachable);
}

#[test]
fn an_expired_cluster_with_a_dead_control_plane_node_is_rescued_without_a_majority() {
    rehearse(async {
        let lab = Rehearsal::of(TRIO, Layout::Expired028, |options| options.pace = BRISK).await;
        dies(&lab, "cp-3");
        assert_eq!(lab.fleet.serving().etcd_members, 0);
        lab.certroll(&["plan", "--via", "direct"])
            .await
            .expect(4)
            .shows("a node of etcd or the control plane cannot be looked at")
            .shows("`--without-majority` leaves it as it is");

        let rescue = ["--via", "direct", "--without-majority"];
        lab.certroll(&[&["plan"], rescue.as_slice()].concat())
            .await
            .expect(1)
            .shows("2 of 3 members at once: none is healthy, so there is no quorum to lose")
            .shows("its etcd member counts as down")
            .shows("the lock is taken on 2 of 3 controlplane nodes")
            .shows("--without-majority");
        lab.is_untouched();
        let old = certificates(&lab, "cp-3");
        lab.certroll(&[&["apply", "--yes"], rescue.as_slice()].concat()).await.expect(1).shows("cp-3");
        let serving = lab.fleet.serving();
        assert_eq!((serving.etcd_members, serving.api_servers), (2, 2));
        for node in ["cp-1", "cp-2", "w-1", "w-2"] {
            assert_ne!(certificates(&lab, node)["kube-node"].serial, old["kube-node"].serial, "{node}");
        }
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
        staging_is_gone(&lab);
        let plan = [&["plan", "--detailed-exitcode"], rescue.as_slice()].concat();
        lab.certroll(&plan).await.expect(1).shows("cp-3");
    });
}

#[test]
fn a_quorum_that_one_more_member_would_lose_is_not_risked() {
    rehearse(async {
        let lab = Rehearsal::of(TRIO, Layout::ExpiringSoon, |options| options.pace = BRISK).await;
        dies(&lab, "cp-3");
        let words = ["plan", "--via", "direct", "--without-majority"];
        lab.certroll(&words)
            .await
            .expect(4)
            .shows("etcd has 2 of 3 members without cp-3: to restart one of them would lose its quorum")
            .shows("etcdctl member remove");
        lab.certroll(&["apply", "restart", "--yes"]).await.expect(1).shows("cp-3");

        dies(&lab, "cp-2");
        lab.certroll(&["plan", "restart"])
            .await
            .expect(4)
            .shows("1 of 3 controlplane nodes can be reached")
            .shows("--without-majority");
        lab.certroll(&["plan", "restart", "--without-majority"])
            .await
            .expect(4)
            .shows("etcd has no quorum: 3 of 3 members are not healthy");
        lab.certroll(&words).await.expect(4).shows("no new certificate of theirs would change that");
        lab.is_untouched();
    });
}

/// Five members, and nothing else.
const FIVE: &str = "\
cluster_name: five
kubernetes_version: v1.14.6-rancher1-1
nodes:
- {address: 10.0.0.1, hostname_override: cp-1, user: rancher, role: [controlplane, etcd]}
- {address: 10.0.0.2, hostname_override: cp-2, user: rancher, role: [etcd]}
- {address: 10.0.0.3, hostname_override: cp-3, user: rancher, role: [etcd]}
- {address: 10.0.0.4, hostname_override: cp-4, user: rancher, role: [etcd]}
- {address: 10.0.0.5, hostname_override: cp-5, user: rancher, role: [etcd]}
";

/// One member is down when the plan is made, and asked by no gate of it; another one is when the run goes on.
#[test]
fn a_member_that_dies_beside_one_that_was_down_before_leaves_no_other_to_restart() {
    rehearse(async {
        let lab = Rehearsal::of(FIVE, Layout::Healthy, |options| options.pace = BRISK).await;
        dies(&lab, "cp-5");
        let fault = Fault::CommandFails {
            pattern: "prepare()".to_owned(),
            status: 1,
            stderr: "mv: Input/output error".to_owned(),
        };
        lab.fleet.inject(&name("cp-1"), fault);
        let words = ["apply", "--via", "direct", "--force", "--without-majority", "--health-timeout", "2s"];
        lab.certroll(&[&words[..], &["--yes"]].concat()).await.expect(1);
        lab.fleet.mend(&name("cp-1"));
        dies(&lab, "cp-4");

        lab.certroll(&["apply", "--resume", "--yes", "--without-majority"])
            .await
            .expect(1)
            .shows("etcd on cp-4 cannot be asked, and without it a restart loses the quorum");
        assert_eq!(restarts(&lab), Vec::<String>::new());
        assert_eq!(lab.fleet.serving().etcd_members, 3);
    });
}
