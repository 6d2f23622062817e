//! What a fleet tells of its changes, and of what served meanwhile.

use certroll::sim::{Layout, Serving};

use super::network::Leaf;
use super::{SSL, lab, run};

#[test]
fn effects_tell_order_and_what_served_meanwhile() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        let ca = lab.pair("cp-1", "kube-ca");
        let all = Serving { etcd_members: 3, api_servers: 2 };
        assert_eq!(lab.fleet.serving(), all);
        lab.root("etcd-1", "mkdir -p /staging; umask 077; cat > /staging/x.pem", "x").await;
        lab.install("etcd-1", "kube-etcd-10-0-0-3", &Leaf::ETCD.sign(&ca)).await;
        lab.restart("etcd-1", "etcd").await;
        lab.restart("cp-1", "kube-apiserver").await;
        lab.root("etcd-1", &format!("rm -f {SSL}/kube-proxy.pem; rm -rf /staging"), "").await;
        let told: Vec<_> = lab
            .fleet
            .effects()
            .into_iter()
            .map(|effect| {
                let serving = effect.serving.map(|serving| (serving.etcd_members, serving.api_servers));
                (format!("{}: {}", effect.node, effect.description), serving)
            })
            .collect();
        let pair = format!("{SSL}/kube-etcd-10-0-0-3");
        let line = |text: String, serving| (text, serving);
        let mut told = told.into_iter();
        for expected in [
            line("etcd-1: make folder /staging".to_owned(), None),
            line("etcd-1: create /staging/x.pem".to_owned(), None),
            line(format!("etcd-1: create {pair}.pem.new"), Some((3, 2))),
            // Certificate and key do not match between the two moves.
            line(format!("etcd-1: move {pair}.pem.new to {pair}.pem"), Some((2, 2))),
            line(format!("etcd-1: create {pair}-key.pem.new"), Some((2, 2))),
            line(format!("etcd-1: move {pair}-key.pem.new to {pair}-key.pem"), Some((3, 2))),
            line("etcd-1: restart container etcd".to_owned(), Some((2, 2))),
        ] {
            assert_eq!(told.next(), Some(expected));
        }
        let (restart, serving) = told.next().unwrap();
        assert_eq!(restart, "cp-1: restart container kube-apiserver");
        assert_eq!(serving.unwrap().1, 1);
        let rest: Vec<String> = told.map(|(line, _)| line).collect();
        assert_eq!(
            rest,
            [
                format!("etcd-1: remove {SSL}/kube-proxy.pem"),
                "etcd-1: remove /staging/x.pem".to_owned(),
                "etcd-1: remove folder /staging".to_owned(),
            ]
        );
        lab.eventually("all is back", || async { lab.fleet.serving() == all }).await;
    });
}

#[test]
fn a_restart_of_all_members_at_once_shows_as_a_lost_quorum() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        for node in ["cp-1", "etcd-1"] {
            lab.root(node, "docker stop etcd", "").await;
        }
        let least = lab
            .fleet
            .effects()
            .iter()
            .filter_map(|effect| effect.serving)
            .min_by_key(|serving| serving.etcd_members);
        assert_eq!(least, Some(Serving { etcd_members: 1, api_servers: 0 }));
    });
}
