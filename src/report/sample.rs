//! A sample is a small cluster with its plan and its runs, made by hand, from which the tests of reports draw their pictures.

mod direct;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::command::{Access, DEFAULT_DOCKER_SOCKET};
use crate::event::{Event, EventKind, Outcome, RunOutcome, StageOutline};
use crate::facts::{Facts, NodeFacts, Observation, Standing, Unseen};
use crate::inventory::{Bastion, Inventory, MaxUnavailable, Node, NodeName, Role, SshCredentials};
use crate::pki::Fingerprint;
use crate::plan::{
    Action, CertificateBefore, FileCopy, Guard, HEALTH_TIMEOUT, KubeAdminSource, LeftOut, NotHandled,
    PLAN_VERSION, Plan, Procedure, Stage, StageName, Step, StepId, TmpFolder, Via,
};

pub(super) use direct::{
    direct_done_run, direct_facts, direct_plan, direct_run_failing, direct_run_resumed_in_vain,
};

/// The name of every sample run.
pub(super) const RUN: &str = "20261121-190502-7f3a";

/// Returns the time so many milliseconds after a run began.
pub(super) fn at(milliseconds: u64) -> Timestamp {
    let start: Timestamp = "2026-11-21T19:05:02Z".parse().unwrap();
    start + Duration::from_millis(milliseconds)
}

fn name(text: &str) -> NodeName {
    NodeName::new(text)
}

fn node(text: &str, last: u8, roles: &[Role]) -> Node {
    let address = format!("10.0.0.{last}");
    Node {
        name: name(text),
        internal_address: address.clone(),
        address,
        port: 22,
        user: "rancher".to_owned(),
        roles: roles.to_vec(),
        docker_socket: DEFAULT_DOCKER_SOCKET.to_owned(),
        ssh: SshCredentials { key_path: Some("~/.ssh/id_rsa".to_owned()), ..SshCredentials::default() },
        labels: BTreeMap::new(),
    }
}

/// Returns two nodes of the control plane and two workers, behind a bastion host.
pub(super) fn inventory() -> Inventory {
    let mut odd = node("w-2", 22, &[Role::Worker]);
    odd.port = 2222;
    odd.docker_socket = "/run/docker.sock".to_owned();
    odd.ssh = SshCredentials { key_path: Some("/srv/my keys/it's".to_owned()), ..SshCredentials::default() };
    Inventory {
        cluster_name: "prod".to_owned(),
        kubernetes_version: Some("v1.11.6-rancher1-1".to_owned()),
        prefix_path: "/".to_owned(),
        nodes: vec![
            node("cp-1", 11, &[Role::ControlPlane, Role::Etcd]),
            node("cp-2", 12, &[Role::ControlPlane, Role::Etcd]),
            node("w-1", 21, &[Role::Worker]),
            odd,
        ],
        bastion: Some(Bastion {
            address: "bastion.example.net".to_owned(),
            port: 2022,
            user: "ops".to_owned(),
            ssh: SshCredentials { key_path: Some("~/.ssh/bastion".to_owned()), ..SshCredentials::default() },
        }),
        authentication_sans: Vec::new(),
        service_cluster_ip_ranges: vec!["10.43.0.0/16".to_owned()],
        cluster_domain: "cluster.local".to_owned(),
        generate_serving_certificate: false,
        ignore_docker_version: false,
        external_etcd_urls: Vec::new(),
        etcd_owner: None,
        max_unavailable_worker: MaxUnavailable::DEFAULT,
        system_images: BTreeMap::new(),
    }
}

fn observation(access: Access) -> Observation {
    Observation {
        access,
        clock_skew_seconds: 0,
        kubernetes_directory: "/etc/kubernetes".to_owned(),
        has_tmp: true,
        free_kibibytes: None,
        used_kibibytes: None,
        free_inodes: None,
        is_writable: true,
        folders: Vec::new(),
        labels: None,
        containers: Vec::new(),
        docker_error: None,
        files: Vec::new(),
        served: Vec::new(),
        health: Vec::new(),
        backups: Vec::new(),
        unfinished_runs: Vec::new(),
        service_account_key_file: None,
        agent: None,
        lock: None,
    }
}

/// Returns what was seen: every way to root, and a node that was not seen.
pub(super) fn facts() -> Facts {
    let seen = [
        Ok(observation(Access::Docker { image: "sha256:0123".to_owned() })),
        Ok(observation(Access::Sudo)),
        Ok(observation(Access::Root)),
        Ok(observation(Access::Sudo)),
    ];
    let of = |(node, result): (Node, Result<Observation, Unseen>)| NodeFacts {
        name: node.name,
        address: node.address,
        roles: node.roles,
        result,
        standing: Standing::default(),
    };
    Facts { observed_at: at(0), nodes: inventory().nodes.into_iter().zip(seen).map(of).collect() }
}

fn before(node: &str, certificates: &[&str]) -> Vec<CertificateBefore> {
    let before = |certificate: &&str| CertificateBefore {
        node: name(node),
        name: (*certificate).to_owned(),
        sha256: Fingerprint::of(certificate.as_bytes()),
    };
    certificates.iter().map(before).collect()
}

fn copy(source: &str, destination: &str) -> FileCopy {
    let path = |file: &str| format!("/etc/kubernetes/{file}");
    FileCopy { source: path(source), destination: path(destination), reason: "it is missing".to_owned() }
}

type Planned = (Option<&'static str>, Action, &'static str);

fn stage(name_of_stage: StageName, title: &str, planned: Vec<Planned>) -> Stage {
    let mut steps: Vec<Step> = Vec::new();
    for (node, action, reason) in planned {
        let number = steps.iter().filter(|step| step.node.as_ref().map(NodeName::as_str) == node).count() + 1;
        let id = StepId(format!("{name_of_stage}/{}/{number}", node.unwrap_or("cluster")));
        let retry = action.retry();
        steps.push(Step { id, node: node.map(name), action, reason: reason.to_owned(), retry });
    }
    Stage { name: name_of_stage, title: title.to_owned(), max_unavailable: 1, steps }
}

fn restart(node: &str) -> Action {
    let guard = Guard::IfNeeded {
        patience: Duration::from_secs(240),
        before: before(node, &["kube-node", "kube-proxy"]),
    };
    Action::Restart {
        containers: vec!["kubelet".to_owned(), "kube-proxy".to_owned()],
        guard,
        timeout: HEALTH_TIMEOUT,
    }
}

fn verify(node: &str) -> Action {
    Action::Verify { before: before(node, &["kube-node"]), timeout: Duration::from_secs(180) }
}

/// Returns the stage that has the certificates made by Rancher.
pub(super) fn rotation(timeout: Duration) -> Action {
    Action::RotateByRancher {
        url: "https://rancher.example.net".to_owned(),
        cluster_id: "c-x7k2p".to_owned(),
        service: None,
        timeout,
    }
}

/// Returns the stage that completes the legacy bundle, by files with and without private keys.
fn repair() -> Stage {
    let folder = TmpFolder::Present;
    stage(
        StageName::Repair,
        "complete the legacy bundle",
        vec![
            (
                Some("cp-1"),
                Action::CopyFiles {
                    folder,
                    copies: vec![
                        copy(".tmp/kube-ca.pem", ".tmp/kube-apiserver-requestheader-ca.pem"),
                        copy(".tmp/kube-ca-key.pem", ".tmp/kube-apiserver-requestheader-ca-key.pem"),
                    ],
                },
                "copy of .tmp: it is missing",
            ),
            (
                Some("cp-1"),
                Action::AddKubeAdmin {
                    folder,
                    source: KubeAdminSource::Made {
                        signer: name("cp-1"),
                        directory: "/etc/kubernetes/ssl".to_owned(),
                    },
                },
                "made from kube-ca-key of cp-1: rke 0.2 asks for it",
            ),
            (
                Some("cp-2"),
                Action::BringFiles {
                    folder: TmpFolder::Made,
                    from: name("cp-1"),
                    copies: vec![copy("ssl/kube-ca.pem", ".tmp/kube-ca.pem")],
                },
                "copy of ssl of cp-1",
            ),
            (
                Some("cp-2"),
                Action::BringFiles {
                    folder: TmpFolder::Present,
                    from: name("cp-1"),
                    copies: vec![copy("ssl/kube-ca-key.pem", ".tmp/kube-ca-key.pem")],
                },
                "copy of ssl of cp-1",
            ),
        ],
    )
}

/// Returns a plan with every kind of action.
pub(super) fn plan() -> Plan {
    let timeout = Duration::from_secs(300);
    let confirm = |node: &str| Action::Confirm { before: before(node, &["kube-apiserver"]), timeout };
    let why = "nothing may have moved since the plan was made";
    let stages = vec![
        stage(
            StageName::Preflight,
            "look again: nothing has moved, docker answers",
            ["cp-1", "cp-2", "w-1", "w-2"].map(|node| (Some(node), Action::Preflight, why)).to_vec(),
        ),
        stage(
            StageName::Backup,
            "save `/etc/kubernetes`, and compare the copy",
            ["cp-1", "cp-2"].map(|node| (Some(node), Action::Backup, "the way back")).to_vec(),
        ),
        repair(),
        stage(
            StageName::Rotate,
            "all services, by Rancher",
            vec![(None, rotation(Duration::from_secs(1200)), "6 certificates are due")],
        ),
        stage(
            StageName::Confirm,
            "wait until the nodes serve what is on disk",
            vec![(Some("cp-1"), confirm("cp-1"), "proof"), (Some("cp-2"), confirm("cp-2"), "proof")],
        ),
        stage(
            StageName::Workers,
            "kubelet and kube-proxy of workers, where they need it",
            vec![
                (Some("w-1"), restart("w-1"), "where they started before their certificate was written"),
                (Some("w-2"), restart("w-2"), "where they started before their certificate was written"),
                (
                    Some("w-2"),
                    Action::RestartAgent {
                        container: "k8s_agent_cattle-node-agent-x_cattle-system".to_owned(),
                    },
                    "the Rancher agent says that it cannot connect",
                ),
            ],
        ),
        stage(
            StageName::Verify,
            "certificates, what is served, health",
            vec![(Some("cp-1"), verify("cp-1"), "proof"), (Some("w-1"), verify("w-1"), "proof")],
        ),
    ];
    Plan {
        version: PLAN_VERSION,
        id: "7f3a".to_owned(),
        cluster: "prod".to_owned(),
        procedure: Procedure::Rotate,
        undoes: None,
        via: Some(Via::Rancher),
        services: Vec::new(),
        created_at: at(0),
        observed_at: at(0),
        kube_ca: Some(Fingerprint::of(b"kube-ca")),
        fingerprint: Fingerprint::of(b"plan"),
        basis: BTreeMap::new(),
        certificates: Vec::new(),
        ca_keys: Vec::new(),
        stages,
        blockers: Vec::new(),
        findings: Vec::new(),
        not_handled: vec![NotHandled {
            node: name("w-5"),
            reason: "unreachable: it keeps its old certificates".to_owned(),
            hint: "run `certroll plan restart -n w-5` when it is back".to_owned(),
            left_out: LeftOut::ForNow,
        }],
        lock_nodes: vec![name("cp-1"), name("cp-2")],
        majority: crate::plan::Majority::Needed,
        expected_seconds: (150, 700),
        deadline: None,
    }
}

/// Returns an event at a time of a run, in milliseconds.
pub(super) fn event(sequence: u64, elapsed_ms: u64, kind: EventKind) -> Event {
    Event { sequence, at: at(elapsed_ms), elapsed_ms, kind }
}

/// Returns what the first worker says.
pub(super) fn progress(sequence: u64, message: &str) -> Event {
    let kind = EventKind::StepProgress {
        stage: StageName::Workers,
        step: StepId("workers/w-1/1".to_owned()),
        node: Some(name("w-1")),
        message: message.to_owned(),
    };
    event(sequence, 60_000, kind)
}

/// The events of a run that is being made up.
struct Story {
    events: Vec<Event>,
    elapsed_ms: u64,
}

impl Story {
    fn begin(plan: &Plan) -> Self {
        let mut story = Self { events: Vec::new(), elapsed_ms: 0 };
        story.happens(EventKind::RunStarted {
            run: RUN.to_owned(),
            cluster: plan.cluster.clone(),
            owner: "ops@bastion".to_owned(),
            pid: Some(4711),
            stages: StageOutline::of(plan),
        });
        story.happens(EventKind::LockTaken { nodes: plan.lock_nodes.clone() });
        story
    }

    fn happens(&mut self, kind: EventKind) {
        let sequence = self.events.len() as u64 + 1;
        self.events.push(event(sequence, self.elapsed_ms, kind));
    }

    fn start(&mut self, step: &Step, stage: StageName) {
        self.happens(EventKind::StepStarted { stage, step: step.id.clone(), node: step.node.clone() });
    }

    fn end(&mut self, step: &Step, stage: StageName, outcome: Outcome) {
        let (step, node) = (step.id.clone(), step.node.clone());
        self.happens(EventKind::StepFinished { stage, step, node, outcome });
    }

    /// Runs a stage whose steps all end well, one and a half seconds each.
    fn run(&mut self, stage: &Stage) {
        self.happens(EventKind::StageStarted { stage: stage.name });
        for step in &stage.steps {
            self.start(step, stage.name);
            self.elapsed_ms += 1500;
            self.end(step, stage.name, Outcome::Done { message: "it went well".to_owned() });
        }
        self.happens(EventKind::StageFinished { stage: stage.name });
    }

    fn finish(mut self, outcome: RunOutcome) -> Vec<Event> {
        let lock_nodes = plan().lock_nodes;
        self.happens(EventKind::LockReleased { nodes: lock_nodes });
        let counts = crate::event::RunState::of(&self.events).counts();
        self.happens(EventKind::RunFinished {
            run: RUN.to_owned(),
            outcome,
            done: counts.0,
            failed: counts.1,
            not_run: counts.2,
            exit_status: u8::from(outcome != RunOutcome::Done),
        });
        self.events
    }
}

/// Returns a run in which everything went well.
pub(super) fn done_run() -> Vec<Event> {
    let plan = plan();
    let mut story = Story::begin(&plan);
    plan.stages.iter().for_each(|stage| story.run(stage));
    story.finish(RunOutcome::Done)
}

/// Returns a run whose first worker fails after 252 s; it is busy from second 60 on.
pub(super) fn failed_run() -> Vec<Event> {
    let plan = plan();
    let mut story = Story::begin(&plan);
    let early: BTreeSet<StageName> = [StageName::Workers, StageName::Verify].into();
    plan.stages.iter().filter(|stage| !early.contains(&stage.name)).for_each(|stage| story.run(stage));
    story.elapsed_ms = 60_000;
    let workers = plan.stage(StageName::Workers).unwrap();
    story.happens(EventKind::StageStarted { stage: workers.name });
    let (first, later) = workers.steps.split_first().unwrap();
    story.start(first, workers.name);
    story.happens(progress(0, "kubelet: waiting for healthz").kind);
    story.elapsed_ms = 252_000;
    let failed = Outcome::Failed {
        error: "kube-proxy is not healthy 120 s after its restart: connection refused\nlast line of its log: no such file"
            .to_owned(),
        hint: Some("look at `docker logs kube-proxy` on w-1".to_owned()),
    };
    story.end(first, workers.name, failed);
    for step in later {
        let reason = "a step before it failed".to_owned();
        story.end(step, workers.name, Outcome::NotRun { reason });
    }
    for step in &plan.stage(StageName::Verify).unwrap().steps {
        let reason = "a step of an earlier stage failed".to_owned();
        story.end(step, StageName::Verify, Outcome::NotRun { reason });
    }
    story.finish(RunOutcome::Failed)
}

/// Returns the beginning of a run that waits for the operator.
pub(super) fn operator_run() -> Vec<Event> {
    let mut plan = plan();
    plan.stages.retain(|stage| stage.name >= StageName::Rotate);
    let mut story = Story::begin(&plan);
    let step = plan.stages[0].steps[0].clone();
    story.happens(EventKind::StageStarted { stage: StageName::Rotate });
    story.start(&step, StageName::Rotate);
    story.happens(EventKind::WaitingForOperator {
        step: step.id.clone(),
        instructions: vec!["Rancher: the cluster's menu, Rotate Certificates".to_owned()],
        until: at(3_600_000),
    });
    story.happens(EventKind::StepProgress {
        stage: StageName::Rotate,
        step: step.id,
        node: None,
        message: "0 of 12 certificates have changed".to_owned(),
    });
    story.events
}
