//! What forbids a run before it begins: how the probe tells it, and what the planner says of it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a case that is not as it should be fails its test"
)]

use std::time::Duration;

use certroll::facts::probe::read;
use certroll::facts::{Container, Facts, Folder, Health, Labels, Observation, SavedRun, Unseen};
use certroll::finding::Finding;
use certroll::inventory::{MaxUnavailable, Role};
use certroll::pki::Service;
use certroll::plan::{
    HEALTH_TIMEOUT, Majority, Plan, Policy, Procedure, RancherTarget, RancherWork, Renewal, RotationOffer,
    Via, clock_blocker, node_blockers, plan,
};
use jiff::{SignedDuration, Timestamp};

use crate::golden::Golden;

const LEGACY: &str = "rke-v0.1.17";

/// Returns what the probe saw of a node that says so besides the least that it must.
fn seen(frames: &str) -> Observation {
    let text =
        format!("Hello!\n\nM access sudo\n\nM clock 1000\n\nM directory /etc/kubernetes\n{frames}\nM end\n");
    read(&text, "M", Timestamp::from_second(1000).unwrap()).unwrap()
}

fn container(name: &str, state: &str) -> String {
    format!(
        "\"/{name}\"\t\"rancher/rke-tools:v0.1.42\"\t{{\"Status\":\"{state}\",\"StartedAt\":\"2026-11-21T19:15:00Z\"}}\t0\n"
    )
}

#[test]
fn the_probe_tells_folders_labels_backups_and_locks() {
    let seen = seen(
        "\nM lock 1774000100 1774000040\n{\"run\":\"r\",\"owner\":\"eve@bastion\",\"pid\":7,\"since\":\"2026\"}\n\
         \nM folder no /etc/kubernetes/ssl\n\
         \nM folder yes /etc/kubernetes/.tmp\n\
         \nM space\n100 4096 50 9 /etc/kubernetes\n30 4096 50 7 /etc/kubernetes/ssl\n30 ? 0 0 /etc/kubernetes/.tmp\n\
         \nM selinux\nsystem_u:object_r:etc_t:s0 /etc/kubernetes\n\
         system_u:object_r:svirt_sandbox_file_t:s0:c1,c2 /etc/kubernetes/ssl\n\
         unconfined_u:object_r:cert_t:s0 /etc/kubernetes/ssl/kube-ca.pem\n\
         \nM backups\n20481 /etc/kubernetes/.certroll/20261121-190502-7f3a/backup.tar\n",
    );
    let lock = seen.lock.unwrap();
    assert_eq!((lock.holder.owner.as_str(), lock.age_seconds), ("eve@bastion", 60));
    let folder = |path: &str, is_writable, free_kibibytes, free_inodes| Folder {
        path: format!("/etc/kubernetes/{path}"),
        is_writable,
        free_kibibytes,
        free_inodes,
    };
    assert_eq!((seen.free_kibibytes, seen.free_inodes), (Some(400), Some(9)));
    assert_eq!(seen.folders, [folder("ssl", false, Some(120), Some(7)), folder(".tmp", true, None, None)]);
    let labels = Labels {
        directory: "etc_t:s0".to_owned(),
        ssl: "svirt_sandbox_file_t:s0:c1,c2".to_owned(),
        file: "cert_t:s0".to_owned(),
    };
    assert_eq!(seen.labels, Some(labels));
    assert_eq!(seen.backups, [SavedRun { run: "20261121-190502-7f3a".to_owned(), kibibytes: 21 }]);
}

#[test]
fn selinux_that_is_not_enforcing_or_shows_no_labels_says_nothing() {
    assert_eq!(seen("").labels, None);
    assert_eq!(seen("\nM selinux\n? /etc/kubernetes\n? /etc/kubernetes/ssl\n").labels, None);
}

#[test]
fn a_writer_of_certificates_counts_while_it_runs() {
    let names = |state: &str| {
        let frames: String = ["cert-deployer", "cluster-state-deployer", "share-mnt", "kubelet"]
            .map(|name| container(name, state))
            .concat();
        let seen = seen(&format!("\nM containers\n{frames}"));
        let codes: Vec<String> = blockers(&seen).into_iter().map(|finding| finding.message).collect();
        (seen.containers.into_iter().map(|container| container.name).collect::<Vec<_>>().join(" "), codes)
    };
    let (running, told) = names("running");
    assert_eq!(running, "cert-deployer cluster-state-deployer share-mnt kubelet");
    assert_eq!(
        told,
        [
            "another program is writing certificates here: `cert-deployer`, `cluster-state-deployer`, `share-mnt` runs"
        ]
    );
    let (exited, told) = names("exited");
    assert_eq!(exited, "share-mnt kubelet", "what rke left behind is nothing that could move");
    assert_eq!(told, Vec::<String>::new());
}

/// Returns what forbids to restart containers on a node.
fn blockers(seen: &Observation) -> Vec<Finding> {
    node_blockers(seen, Procedure::Restart, Timestamp::from_second(1000).unwrap())
}

fn policy(golden: &Golden, procedure: Procedure, via: Via) -> Policy {
    Policy {
        procedure,
        via: Some(via),
        services: Vec::new(),
        renew_within: SignedDuration::from_hours(24 * 90),
        renewal: Renewal::WhereNeeded,
        max_unavailable_worker: MaxUnavailable::DEFAULT,
        selected: None,
        rancher: None,
        wait: Duration::from_secs(3600),
        health_timeout: HEALTH_TIMEOUT,
        direct: None,
        rke: None,
        break_lock: None,
        majority: Majority::Needed,
        now: golden.now,
    }
}

fn change(facts: &mut Facts, node: usize) -> &mut Observation {
    facts.nodes[node].result.as_mut().unwrap()
}

/// Tells the blockers of a plan: code, node, message and way out.
fn told(plan: &Plan) -> Vec<String> {
    let tell = |finding: &Finding| {
        let node = finding.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
        assert!(finding.hint.is_some(), "each names the way out: {finding:?}");
        format!("{} {node}{}", finding.code, finding.message)
    };
    plan.blockers.iter().map(tell).collect()
}

type Spoil = fn(&mut Observation);

#[test]
fn what_a_node_lacks_is_named_with_the_way_out() {
    let cases: [(&str, Spoil); 10] = [
        ("disk-full n1: 300 KiB are free at `/etc/kubernetes`, backup and staging need 1496 KiB", |seen| {
            seen.free_kibibytes = Some(300);
        }),
        ("inodes-used-up n1: 3 inodes are free at `/etc/kubernetes`, backup and staging need 134", |seen| {
            seen.free_inodes = Some(3);
        }),
        ("read-only n1: `/etc/kubernetes` cannot be written to", |seen| seen.is_writable = false),
        ("read-only n1: `/etc/kubernetes/ssl` cannot be written to", |seen| {
            seen.folders = vec![ssl(false, Some(100_000))];
        }),
        ("disk-full n1: 10 KiB are free at `/etc/kubernetes/ssl`, new files need 100 KiB", |seen| {
            seen.folders = vec![ssl(true, Some(10))];
        }),
        (
            "selinux-labels-differ n1: SELinux is enforcing, and `/etc/kubernetes/ssl` is labelled b, the files in it c: new ones would get the folder's label",
            |seen| {
                seen.labels = Some(labels("b", "b", "c"));
            },
        ),
        (
            "selinux-labels-differ n1: SELinux is enforcing, and `/etc/kubernetes` is labelled a, its folder `ssl` b: what is made beside `ssl` would get the former",
            |seen| {
                seen.labels = Some(labels("a", "b", "b"));
            },
        ),
        ("docker-unavailable n1: docker does not answer: Cannot connect", |seen| {
            seen.docker_error = Some("Cannot connect".to_owned());
        }),
        (
            "certificate-writer n1: another program is writing certificates here: `cert-deployer` runs",
            |seen| {
                let writer = Container { name: "cert-deployer".to_owned(), ..seen.containers[0].clone() };
                seen.containers.push(writer);
            },
        ),
        ("clock-outside-validity n1: the clock says 1977-", |seen| {
            seen.clock_skew_seconds = -50 * 365 * 86_400;
        }),
    ];
    let golden = Golden::read(LEGACY).days_later(368);
    let mut wrong = Vec::new();
    for (expected, spoil) in cases {
        let mut facts = golden.facts();
        spoil(change(&mut facts, 0));
        let plan = plan(&golden.inventory, &facts, &policy(&golden, Procedure::Rotate, Via::Manual));
        let told = told(&plan);
        if told.len() != 1 || !told[0].starts_with(expected) {
            wrong.push((expected, told));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn ssl(is_writable: bool, free_kibibytes: Option<u64>) -> Folder {
    Folder { path: "/etc/kubernetes/ssl".to_owned(), is_writable, free_kibibytes, free_inodes: None }
}

fn labels(directory: &str, ssl: &str, file: &str) -> Labels {
    Labels { directory: directory.to_owned(), ssl: ssl.to_owned(), file: file.to_owned() }
}

#[test]
fn a_clock_that_takes_what_stays_for_expired_forbids_and_one_that_is_off_warns() {
    let golden = Golden::read(LEGACY);
    let mut facts = golden.facts();
    change(&mut facts, 3).clock_skew_seconds = 90;
    let restart =
        |facts: &Facts| plan(&golden.inventory, facts, &policy(&golden, Procedure::Restart, Via::Manual));
    let warned = restart(&facts);
    assert_eq!(told(&warned), Vec::<String>::new());
    assert!(warned.findings.iter().any(|finding| finding.code == "clock-skew"), "{:?}", warned.findings);

    // Leaves of rke 0.1 last a year: two years ahead they have expired, the CA has not.
    change(&mut facts, 3).clock_skew_seconds = 2 * 365 * 86_400;
    let plan = restart(&facts);
    let told = told(&plan);
    assert!(
        told.len() == 1 && told[0].starts_with("clock-outside-validity n4: the clock says 2028-"),
        "{told:#?}"
    );
}

/// The clock may go wrong between the plan and its preflight step, which judges what the plan leaves in use.
#[test]
fn the_preflight_step_judges_the_clock_by_what_stays() {
    let golden = Golden::read(LEGACY);
    let mut facts = golden.facts();
    let now = facts.observed_at;
    let restart = plan(&golden.inventory, &facts, &policy(&golden, Procedure::Restart, Via::Manual));
    let rotate = Policy { renewal: Renewal::All, ..policy(&golden, Procedure::Rotate, Via::Manual) };
    let rotate = plan(&golden.inventory, &facts, &rotate);
    let seen = change(&mut facts, 0);
    assert_eq!(clock_blocker(&restart, seen, now), None);
    seen.clock_skew_seconds = 2 * 365 * 86_400;
    assert_eq!(clock_blocker(&restart, seen, now).unwrap().code, "clock-outside-validity");
    assert_eq!(clock_blocker(&rotate, seen, now), None, "none of them stays");
}

/// Says how the etcd members of some nodes are.
fn with_etcd(golden: &Golden, healthy: &[usize]) -> Facts {
    let mut facts = golden.facts();
    let members: Vec<usize> =
        (0..facts.nodes.len()).filter(|index| facts.nodes[*index].has(Role::Etcd)).collect();
    for index in members {
        let health = Health {
            service: Service::Etcd,
            healthy: Some(healthy.contains(&index)),
            detail: "asked".to_owned(),
        };
        change(&mut facts, index).health.push(health);
    }
    facts
}

#[test]
fn etcd_without_a_quorum_forbids_all_but_what_gives_it_back() {
    let fresh = Golden::read(LEGACY);
    let expired = Golden::read(LEGACY).days_later(368);
    let codes = |golden: &Golden, facts: &Facts, procedure| {
        let plan = plan(&golden.inventory, facts, &policy(golden, procedure, Via::Manual));
        let told = told(&plan);
        told.into_iter().filter(|line| line.starts_with("etcd-")).collect::<Vec<_>>()
    };
    let lost = "etcd-without-quorum etcd has no quorum: 2 of 3 members are not healthy (n2, n3), and this plan would not change that";
    assert_eq!(codes(&fresh, &with_etcd(&fresh, &[0]), Procedure::Restart), [lost]);
    assert_eq!(codes(&fresh, &with_etcd(&fresh, &[0, 1]), Procedure::Restart), Vec::<String>::new());
    let mut forced = policy(&fresh, Procedure::Rotate, Via::Manual);
    forced.renewal = Renewal::All;
    let plan = plan(&fresh.inventory, &with_etcd(&fresh, &[0]), &forced);
    assert!(told(&plan).contains(&lost.to_owned()), "its pairs are good: new ones change nothing");

    // The certificates are the cause: a rotation is what helps, and so is what comes before it.
    assert_eq!(codes(&expired, &with_etcd(&expired, &[]), Procedure::Rotate), Vec::<String>::new());
    assert_eq!(codes(&expired, &with_etcd(&expired, &[]), Procedure::Repair), Vec::<String>::new());
    assert!(!codes(&expired, &with_etcd(&expired, &[]), Procedure::Restart).is_empty());
    let mut away = with_etcd(&expired, &[]);
    for node in &mut away.nodes[..2] {
        node.result = Err(Unseen::fault(false, "no route".to_owned(), None));
    }
    let told = codes(&expired, &away, Procedure::Rotate);
    assert!(told.len() == 1, "one member with a new certificate is no quorum: {told:?}");
}

/// Returns a Rancher that has launched the cluster.
fn rancher(golden: &Golden) -> RancherTarget {
    RancherTarget {
        url: "https://rancher.example.net".to_owned(),
        version: "v2.2.8".to_owned(),
        cluster_id: "c-abcde".to_owned(),
        rotation: RotationOffer::Offered,
        state: "updating".to_owned(),
        work: RancherWork::None,
        nodes: golden.rancher_nodes(),
        agent_check_interval: Duration::from_secs(120),
    }
}

/// The id of Rancher's own cluster, `local`, is also the name of a cluster.yml that gives itself none.
#[test]
fn a_cluster_of_rancher_that_has_other_nodes_is_not_rotated() {
    let golden = Golden::read(LEGACY).days_later(368);
    let told_with = |nodes| {
        let mut policy = policy(&golden, Procedure::Rotate, Via::Rancher);
        policy.rancher = Some(RancherTarget { nodes, cluster_id: "local".to_owned(), ..rancher(&golden) });
        told(&plan(&golden.inventory, &golden.facts(), &policy))
    };
    assert_eq!(
        told_with(Vec::new()),
        [
            "rancher-other-cluster cluster `local` of https://rancher.example.net is another one: Rancher knows no n1, n2, n3 in it"
        ]
    );
    let known = golden.rancher_nodes();
    let without = |names: &[&str]| {
        let mut nodes = known.clone();
        nodes.retain(|node| !names.contains(&node.names[0].as_str()));
        nodes
    };
    assert_eq!(told_with(without(&["n2"])).len(), 1, "one that it does not know is enough");
    assert_eq!(told_with(without(&["n4", "n5"])), Vec::<String>::new(), "it may have lost workers");
}

#[test]
fn a_rancher_that_is_at_work_is_waited_for() {
    let golden = Golden::read(LEGACY).days_later(368);
    let said = || "[certificates] Deploying".to_owned();
    let codes = |work: RancherWork, procedure, via| {
        let mut policy = policy(&golden, procedure, via);
        policy.rancher = Some(RancherTarget { work, ..rancher(&golden) });
        let plan = plan(&golden.inventory, &golden.facts(), &policy);
        let codes = told(&plan).into_iter().filter(|line| line.starts_with("rancher-"));
        (codes.collect::<Vec<_>>(), plan.findings)
    };
    for via in [Via::Rancher, Via::Manual] {
        let (rotating, _) = codes(RancherWork::Rotating { message: said() }, Procedure::Rotate, via);
        assert_eq!(
            rotating,
            [
                "rancher-is-rotating Rancher is rotating the certificates of this cluster: [certificates] Deploying"
            ]
        );
        let (provisioning, _) = codes(RancherWork::Provisioning { message: said() }, Procedure::Rotate, via);
        assert_eq!(
            provisioning,
            [
                "rancher-is-provisioning Rancher is working on this cluster (it is updating): [certificates] Deploying"
            ]
        );
        let (authority, _) =
            codes(RancherWork::RotatingAuthority { message: said() }, Procedure::Rotate, via);
        assert_eq!(
            authority,
            [
                "rancher-rotates-ca Rancher has been told to give this cluster a new CA: [certificates] Deploying"
            ]
        );
        let (failing, findings) =
            codes(RancherWork::RotationFails { message: said() }, Procedure::Rotate, via);
        assert_eq!(failing, Vec::<String>::new(), "the run repairs what it complains of, and waits for it");
        assert!(findings.iter().any(|finding| finding.code == "rancher-rotation-fails"));
    }
    let (repair, _) = codes(RancherWork::Rotating { message: said() }, Procedure::Repair, Via::Rancher);
    assert_eq!(repair, Vec::<String>::new(), "what helps a rotation that hangs is not forbidden by it");
    let (idle, _) = codes(RancherWork::None, Procedure::Rotate, Via::Rancher);
    assert_eq!(idle, Vec::<String>::new());
}
