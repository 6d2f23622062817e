//! The sample cluster with a rotation by its own CA: its plan, and runs that stopped at different places.

use super::{
    BTreeMap, Duration, Event, EventKind, Facts, Fingerprint, NodeName, Outcome, PLAN_VERSION, Plan,
    Procedure, RUN, RunOutcome, Stage, StageName, StageOutline, Story, Timestamp, Via, at, facts, name,
    stage, verify,
};
use crate::facts::{Content, File};
use crate::pki::{Authority, Certificate, KeyAlgorithm, Leaf, Location, PublicKeyPlace, Usage};
use crate::plan::{
    Action, CaKey, CertificateSource, Gate, Half, KeySource, NewCertificate, NewFile, Ownership,
};

const TIMEOUT: Duration = Duration::from_secs(120);

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn made(certificate: &str, subject: (&str, Option<&str>), sans: &[&str]) -> NewCertificate {
    let leaf = Leaf {
        name: certificate.to_owned(),
        common_name: subject.0.to_owned(),
        organization: subject.1.map(str::to_owned),
        usage: Usage::Client,
        sans: sans.iter().map(|san| (*san).to_owned()).collect(),
        authority: Authority::KubeCa,
    };
    let key = if certificate == "kube-apiserver" {
        KeySource::Kept { sha256: Fingerprint::of(b"kube-apiserver") }
    } else {
        KeySource::Made { algorithm: KeyAlgorithm::Rsa2048 }
    };
    let not_after = time("2036-11-18T19:05:02Z");
    NewCertificate {
        name: certificate.to_owned(),
        source: CertificateSource::Made { leaf, key, not_after },
        replaces: BTreeMap::new(),
    }
}

fn certificates() -> Vec<NewCertificate> {
    let kubernetes = ["kubernetes", "localhost", "127.0.0.1", "10.43.0.1"];
    vec![
        made("kube-admin", ("kube-admin", Some("system:masters")), &[]),
        made("kube-apiserver", ("kube-apiserver", None), &kubernetes),
        made("kube-node", ("system:node", Some("system:nodes")), &[]),
        NewCertificate {
            name: "kube-proxy".to_owned(),
            source: CertificateSource::Node {
                node: name("w-2"),
                directory: "/etc/kubernetes/ssl".to_owned(),
                sha256: Fingerprint::of(b"kube-proxy"),
            },
            replaces: BTreeMap::new(),
        },
        made("kube-etcd-10-0-0-11", ("kube-etcd", None), &kubernetes),
        made("kube-etcd-10-0-0-12", ("kube-etcd", None), &kubernetes),
    ]
}

fn files(names: &[&str]) -> Vec<NewFile> {
    let halves = |certificate: &&str| {
        let halves: &[Half] = if *certificate == "kube-apiserver" {
            &[Half::Certificate]
        } else {
            &[Half::Certificate, Half::Key]
        };
        let file = |half: &Half| NewFile {
            certificate: (*certificate).to_owned(),
            half: *half,
            path: match half {
                Half::Certificate => format!("ssl/{certificate}.pem"),
                Half::Key => format!("ssl/{certificate}-key.pem"),
            },
            otherwise: Ownership::ROOT,
        };
        halves.iter().map(file).collect::<Vec<NewFile>>()
    };
    names.iter().flat_map(halves).collect()
}

const ETCD: [&str; 2] = ["kube-etcd-10-0-0-11", "kube-etcd-10-0-0-12"];
const CONTROL_PLANE: [&str; 3] = ["kube-apiserver", "kube-node", "kube-proxy"];

/// Returns the names of the certificates that a node has.
fn names_of(node: &str) -> Vec<&'static str> {
    match node {
        "w-1" | "w-2" => vec!["kube-node", "kube-proxy"],
        _ => [CONTROL_PLANE.as_slice(), &ETCD].concat(),
    }
}

fn switch(names: &[&str], containers: &[&str], gate: Gate) -> Action {
    Action::Switch {
        files: files(names),
        retired: Vec::new(),
        containers: containers.iter().map(|name| (*name).to_owned()).collect(),
        gate,
        timeout: TIMEOUT,
    }
}

fn stages() -> Vec<Stage> {
    let everybody = ["cp-1", "cp-2", "w-1", "w-2"];
    let each = |of: &dyn Fn(&'static str) -> Action, why: &'static str| {
        everybody.map(|node| (Some(node), of(node), why)).to_vec()
    };
    let members = Gate::Etcd { members: vec![name("cp-1"), name("cp-2")] };
    let api = |other: &str| Gate::ApiServers { nodes: vec![name(other)] };
    let control_plane = ["kube-apiserver", "kubelet", "kube-proxy"];
    let worker = |names: &[&str]| {
        let mut action = switch(names, &["kubelet"], Gate::Open);
        if let Action::Switch { retired, .. } = &mut action {
            retired.extend(["crt", "key"].map(|end| format!("/var/lib/kubelet/pki/kubelet.{end}")));
        }
        action
    };
    let names: Vec<String> = certificates().into_iter().map(|certificate| certificate.name).collect();
    let path = |file: &str| format!("/srv/prod/{file}");
    let state = vec![
        (
            None,
            Action::UpdateClusterState { nodes: vec![name("cp-1"), name("cp-2")], names: names.clone() },
            "the next `rke up` would put the old ones back",
        ),
        (
            None,
            Action::UpdateStateFile { path: path("cluster.rkestate"), names: names.clone() },
            "rke reads it first",
        ),
        (
            None,
            Action::UpdateKubeConfig {
                path: path("kube_config_cluster.yml"),
                server: "https://10.0.0.11:6443".to_owned(),
            },
            "kubectl needs the new kube-admin pair",
        ),
    ];
    let mut proof = each(&|node| verify(node), "proves that it worked");
    proof.extend(each(
        &|_| Action::Prove { names: names.clone(), timeout: TIMEOUT },
        "every new pair is shown to those that must take it",
    ));
    let etcd = |node| (Some(node), switch(&ETCD, &["etcd"], members.clone()), "new kube-etcd pairs");
    vec![
        stage(StageName::Preflight, "look again", each(&|_| Action::Preflight, "nothing may have moved")),
        stage(StageName::Backup, "save `/etc/kubernetes`", each(&|_| Action::Backup, "the way back")),
        stage(
            StageName::Staging,
            "make certificates, lay them aside on the nodes, read them back",
            each(
                &|node| Action::LayAside { files: files(&names_of(node)) },
                "nothing is switched anywhere before every node has its files",
            ),
        ),
        stage(StageName::Etcd, "switch etcd members", vec![etcd("cp-1"), etcd("cp-2")]),
        stage(
            StageName::ControlPlane,
            "switch control plane nodes",
            vec![
                (Some("cp-1"), switch(&CONTROL_PLANE, &control_plane, api("cp-2")), "new pairs"),
                (Some("cp-2"), switch(&CONTROL_PLANE, &control_plane, api("cp-1")), "new pairs"),
            ],
        ),
        stage(
            StageName::Workers,
            "switch workers",
            vec![
                (Some("w-1"), worker(&["kube-node", "kube-proxy"]), "new pairs"),
                (Some("w-2"), worker(&["kube-node"]), "new kube-node"),
            ],
        ),
        stage(StageName::State, "write the new certificates into what rke keeps", state),
        stage(StageName::Verify, "certificates, what is served, health, each new pair taken", proof),
    ]
}

/// Returns a plan that makes certificates with the cluster's own CA, with every action that it needs.
pub(in crate::report) fn direct_plan() -> Plan {
    Plan {
        version: PLAN_VERSION,
        id: "7f3a".to_owned(),
        cluster: "prod".to_owned(),
        procedure: Procedure::Rotate,
        undoes: None,
        via: Some(Via::Direct),
        services: Vec::new(),
        created_at: at(0),
        observed_at: at(0),
        kube_ca: Some(Fingerprint::of(b"kube-ca")),
        fingerprint: Fingerprint::of(b"plan"),
        basis: BTreeMap::new(),
        certificates: certificates(),
        ca_keys: vec![CaKey {
            authority: Authority::KubeCa,
            node: name("cp-1"),
            directory: "/etc/kubernetes/ssl".to_owned(),
            sha256: Fingerprint::of(b"kube-ca"),
        }],
        stages: stages(),
        blockers: Vec::new(),
        findings: Vec::new(),
        not_handled: Vec::new(),
        lock_nodes: vec![name("cp-1"), name("cp-2")],
        majority: crate::plan::Majority::Needed,
        expected_seconds: (40, 190),
        deadline: None,
    }
}

/// Returns what the plan was made from: certificates that end soon, and a good kube-proxy pair on one worker.
pub(in crate::report) fn direct_facts() -> Facts {
    let mut facts = facts();
    for node in &mut facts.nodes {
        let names = names_of(node.name.as_str());
        let is_renewed = node.name.as_str() == "w-2";
        if let Ok(seen) = &mut node.result {
            seen.files =
                names.into_iter().map(|name| file(name, is_renewed && name == "kube-proxy")).collect();
        }
    }
    facts
}

fn file(certificate: &str, is_renewed: bool) -> File {
    let not_after = time(if is_renewed { "2036-11-11T08:00:00Z" } else { "2026-12-05T08:00:00Z" });
    let content = Certificate {
        subject: format!("CN={certificate}"),
        issuer: "CN=kube-ca".to_owned(),
        serial: "01".to_owned(),
        sha256: Fingerprint::of(certificate.as_bytes()),
        not_before: time("2025-12-05T08:00:00Z"),
        not_after,
        sans: Vec::new(),
        is_ca: false,
        der: Vec::new(),
        public_key: PublicKeyPlace::default(),
    };
    File {
        location: Location::Ssl,
        path: format!("/etc/kubernetes/ssl/{certificate}.pem"),
        file_name: format!("{certificate}.pem"),
        mode: 0o600,
        user_id: 0,
        group_id: 0,
        size: 1000,
        modified_at: time("2025-12-05T08:00:00Z"),
        certificates: 1,
        content: Content::Certificate(Ok(content)),
    }
}

/// Returns a run of the plan that fails at the first step of a stage on a node; nothing after it is run.
pub(in crate::report) fn direct_run_failing(at_stage: StageName, node: Option<&str>) -> Vec<Event> {
    let plan = direct_plan();
    failing(Story::begin(&plan), &plan, at_stage, node).finish(RunOutcome::Failed)
}

/// Returns a run of the plan whose process died at the first step of a control plane node, and whose resume fails at the preflight of
/// another node.
pub(in crate::report) fn direct_run_resumed_in_vain(died_on: &str, fails_on: &str) -> Vec<Event> {
    let plan = direct_plan();
    let mut story = failing(Story::begin(&plan), &plan, StageName::ControlPlane, Some(died_on));
    let is_end =
        |event: &Event| matches!(event.kind, EventKind::StepFinished { outcome: Outcome::Failed { .. }, .. });
    if let Some(end) = story.events.iter().position(is_end) {
        story.events.truncate(end);
    }
    story.happens(EventKind::RunResumed {
        run: RUN.to_owned(),
        cluster: plan.cluster.clone(),
        attempt: 2,
        owner: "ops@bastion".to_owned(),
        pid: 4712,
        stages: StageOutline::of(&plan),
    });
    failing(story, &plan, StageName::Preflight, Some(fails_on)).finish(RunOutcome::Failed)
}

/// Goes on with a story until the first step of a stage on a node fails; nothing after it is run.
fn failing(mut story: Story, plan: &Plan, at_stage: StageName, node: Option<&str>) -> Story {
    let mut has_failed = false;
    for stage in &plan.stages {
        if !has_failed {
            story.happens(EventKind::StageStarted { stage: stage.name });
        }
        for step in &stage.steps {
            if has_failed {
                let reason = "a step before it failed".to_owned();
                story.end(step, stage.name, Outcome::NotRun { reason });
                continue;
            }
            story.start(step, stage.name);
            story.elapsed_ms += 1500;
            if stage.name == at_stage && step.node.as_ref().map(NodeName::as_str) == node {
                has_failed = true;
                let error = "it did not come back".to_owned();
                story.end(step, stage.name, Outcome::Failed { error, hint: None });
            } else {
                story.end(step, stage.name, Outcome::Done { message: "it went well".to_owned() });
            }
        }
    }
    story
}

/// Returns a run of the plan in which everything went well.
pub(in crate::report) fn direct_done_run() -> Vec<Event> {
    let plan = direct_plan();
    let mut story = Story::begin(&plan);
    plan.stages.iter().for_each(|stage| story.run(stage));
    story.finish(RunOutcome::Done)
}
