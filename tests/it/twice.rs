//! Twice: each script that a step or a command of certroll runs on a node is run two times from the same start, with what a real
//! shell and real tools make of it, and leaves what it leaves when it is run once.
//!
//! That is what allows to run a command again whose answer was lost. That nothing is restarted twice either is the business of
//! the executor, which looks before (`rehearsal/resume.rs`); actions without a script have their proof there and in `survive`.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics; its nodes are files, and their scripts run for real"
)]

mod node;

use std::collections::BTreeSet;
use std::time::Duration;

use certroll::command::Command;
use certroll::facts::Observation;
use certroll::inventory::NodeName;
use certroll::plan::{
    Action, FileCopy, Gate, Guard, Half, Health, KeptState, KubeAdminSource, NewFile, Restoration, RkeState,
    Saved, TmpFolder, not_restored, prune_command,
};
use zeroize::Zeroizing;

use crate::golden::Golden;
use node::{Node, RUN, difference};

/// A run that came before.
const EARLIER: &str = "20261101-000000-aaaa";

/// Another one.
const EARLIEST: &str = "20261001-000000-bbbb";

/// An action, what its first script reads, and what it must change: nothing else may be different after it.
struct Case {
    action: Action,
    stdin: Option<Vec<u8>>,
    changes: Vec<&'static str>,
    restarts: &'static [&'static str],
}

impl Case {
    fn of(action: Action, changes: &[&'static str]) -> Self {
        Self { action, stdin: None, changes: changes.to_vec(), restarts: &[] }
    }

    fn reading(self, stdin: Vec<u8>) -> Self {
        Self { stdin: Some(stdin), ..self }
    }

    fn restarting(self, restarts: &'static [&'static str]) -> Self {
        Self { restarts, ..self }
    }
}

/// Returns an archive of files that root alone may read.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o600);
        header.set_size(content.len() as u64);
        header.set_mtime(1_700_000_000);
        archive.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Returns what was seen on the node.
fn observation(node: &Node) -> Observation {
    let facts = Golden::read("rke-v0.2.8").facts();
    let mut seen = facts.nodes.into_iter().next().unwrap().result.unwrap();
    seen.kubernetes_directory = node.directory();
    seen
}

fn name(text: &str) -> NodeName {
    NodeName::new(text)
}

/// Lays a node out that has its pairs, and a backup of an earlier run that added files since.
fn laid_out() -> Node {
    let node = Node::new();
    for (path, content) in [
        ("ssl/kube-ca.pem", "authority"),
        ("ssl/kube-node.pem", "certificate"),
        ("ssl/kube-node-key.pem", "key"),
        (".tmp/kube-ca.pem", "authority"),
    ] {
        node.write(&format!("etc/kubernetes/{path}"), content);
    }
    node.write("var/lib/kubelet/pki/kubelet.crt", "serving certificate");
    node.write("var/lib/kubelet/pki/kubelet.key", "serving key");
    node
}

fn staged() -> Vec<u8> {
    archive(&[
        ("ssl/kube-node.pem", "new certificate"),
        ("ssl/kube-node-key.pem", "new key"),
        ("ssl/kube-proxy.pem", "added"),
    ])
}

fn new_file(node: &Node, path: &str, half: Half) -> NewFile {
    let certificate = if path.contains("proxy") { "kube-proxy" } else { "kube-node" };
    NewFile { certificate: certificate.to_owned(), half, path: path.to_owned(), otherwise: node.owner(0o604) }
}

fn lay_aside() -> Action {
    Action::LayAside { files: Vec::new() }
}

fn switch(node: &Node) -> Action {
    Action::Switch {
        files: vec![
            new_file(node, "ssl/kube-node.pem", Half::Certificate),
            new_file(node, "ssl/kube-node-key.pem", Half::Key),
            new_file(node, "ssl/kube-proxy.pem", Half::Certificate),
        ],
        retired: ["kubelet.crt", "kubelet.key"]
            .map(|file| node.path(&format!("var/lib/kubelet/pki/{file}")))
            .to_vec(),
        containers: vec!["kubelet".to_owned(), "kube-proxy".to_owned()],
        gate: Gate::Open,
        timeout: Duration::ZERO,
    }
}

/// Does what an earlier run did: it saved, switched, and added a folder.
fn switched_before(node: &Node) {
    let seen = observation(node);
    for command in Action::Backup.commands(&seen) {
        node.run_well(EARLIER, &command);
    }
    for command in lay_aside().commands(&seen) {
        node.run_well(EARLIER, &command.with_stdin(Zeroizing::new(staged())));
    }
    for command in switch(node).commands(&seen) {
        node.run_well(EARLIER, &command);
    }
    node.told();
    node.write("etc/kubernetes/made/file.pem", "made");
    // The kubelet has made a pair of its own since.
    node.write("var/lib/kubelet/pki/kubelet.crt", "another serving certificate");
    node.write("var/lib/kubelet/pki/kubelet.key", "another serving key");
}

fn restoration(node: &Node) -> Restoration {
    let saved = |path: &str| Saved { path: path.to_owned(), owner: node.owner(0o640), certificate: None };
    Restoration {
        run: EARLIER.to_owned(),
        folders: Vec::new(),
        files: vec![saved("ssl/kube-node.pem"), saved("ssl/kube-node-key.pem")],
        removed: vec!["ssl/kube-proxy.pem".to_owned(), "made/file.pem".to_owned()],
        emptied: vec!["made".to_owned()],
        retired: ["kubelet.crt", "kubelet.key"]
            .map(|file| node.path(&format!("var/lib/kubelet/pki/{file}")))
            .to_vec(),
    }
}

fn copies(node: &Node) -> Vec<FileCopy> {
    let copy = |from: &str, to: &str| FileCopy {
        source: node.path(&format!("etc/kubernetes/{from}")),
        destination: node.path(&format!("etc/kubernetes/{to}")),
        reason: "it is missing".to_owned(),
    };
    vec![
        copy("ssl/kube-node.pem", ".tmp/kube-node.pem"),
        copy("ssl/kube-node-key.pem", ".tmp/kube-node-key.pem"),
    ]
}

/// Returns one action of each kind, laid out on a node; an action without a script needs none of what it names.
fn cases(node: &Node) -> Vec<Case> {
    let timeout = Duration::ZERO;
    let files = |name: &str| name.to_owned();
    let all = [
        Action::Preflight,
        Action::Backup,
        Action::CopyFiles { folder: TmpFolder::Present, copies: copies(node) },
        Action::BringFiles { folder: TmpFolder::Present, from: name("cp-1"), copies: copies(node) },
        Action::AddKubeAdmin {
            folder: TmpFolder::Made,
            source: KubeAdminSource::Node { node: name("cp-1"), directory: files("/etc/kubernetes/.tmp") },
        },
        Action::RotateByRancher { url: files(""), cluster_id: files(""), service: None, timeout },
        Action::RotateByRke {
            program: files(""),
            version: files(""),
            arguments: Vec::new(),
            folder: files(""),
            files: Vec::new(),
            state: RkeState::Absent,
            timeout,
        },
        Action::KeepBastionFiles { paths: Vec::new() },
        Action::RotateByOperator { instructions: Vec::new(), timeout, before: Vec::new() },
        Action::Confirm { before: Vec::new(), timeout },
        Action::Restart {
            containers: vec![files("kubelet"), files("kube-proxy")],
            guard: Guard::Always,
            timeout,
        },
        lay_aside(),
        switch(node),
        Action::UpdateClusterState { nodes: Vec::new(), names: Vec::new() },
        Action::UpdateStateFile { path: files(""), names: Vec::new() },
        Action::UpdateKubeConfig { path: files(""), server: files("") },
        Action::Restore {
            wanted: restoration(node),
            containers: vec![files("kubelet")],
            gate: Gate::Open,
            health: Health::Awaited,
            timeout,
        },
        Action::RestoreClusterState {
            nodes: Vec::new(),
            run: files(EARLIER),
            kept: vec![KeptState { node: name("cp-1"), file_name: files("full-cluster-state.json") }],
            names: Vec::new(),
        },
        Action::RestoreBastionFile { path: files(""), copy: None },
        Action::VerifyRestored {
            wanted: vec![restoration(node)],
            containers: Vec::new(),
            health: Health::Awaited,
            timeout,
        },
        Action::Prove { names: Vec::new(), timeout },
        Action::ClearStaging { run: files(RUN) },
        Action::RestartAgent { container: files("k8s_agent_cattle-node-agent-x") },
        Action::Verify { before: Vec::new(), timeout },
    ];
    all.into_iter().map(case).collect()
}

/// Says what an action must do on a node. Each kind has its arm: a new one is looked at by whoever adds it.
fn case(action: Action) -> Case {
    match &action {
        // These look, ask others, or write on the bastion: what they run on a node is none of a plan's scripts.
        Action::Preflight
        | Action::Confirm { .. }
        | Action::RotateByRancher { .. }
        | Action::RotateByRke { .. }
        | Action::KeepBastionFiles { .. }
        | Action::RotateByOperator { .. }
        | Action::UpdateClusterState { .. }
        | Action::UpdateStateFile { .. }
        | Action::UpdateKubeConfig { .. }
        | Action::RestoreClusterState { .. }
        | Action::RestoreBastionFile { .. } => Case::of(action, &[]),
        Action::Backup => {
            Case::of(action, &["+ RUN", "+ RUN/backup.index", "+ RUN/backup.sum", "+ RUN/backup.tar"])
        }
        Action::CopyFiles { .. } => {
            Case::of(action, &["+ .tmp/kube-node-key.pem", "+ .tmp/kube-node.pem", "+ RUN", "+ RUN/written"])
        }
        Action::BringFiles { .. } => {
            Case::of(action, &["+ .tmp/kube-node-key.pem", "+ .tmp/kube-node.pem", "+ RUN", "+ RUN/written"])
                .reading(archive(&[("kube-node.pem", "certificate"), ("kube-node-key.pem", "key")]))
        }
        Action::AddKubeAdmin { .. } => Case::of(
            action,
            &["+ .tmp", "+ .tmp/kube-admin-key.pem", "+ .tmp/kube-admin.pem", "+ RUN", "+ RUN/written"],
        )
        .reading(archive(&[("kube-admin.pem", "certificate"), ("kube-admin-key.pem", "key")])),
        Action::Restart { .. } => {
            Case::of(action, &[]).restarting(&["restart -t 5 kubelet", "restart -t 5 kube-proxy"])
        }
        Action::RestartAgent { .. } => {
            Case::of(action, &[]).restarting(&["restart -t 5 k8s_agent_cattle-node-agent-x"])
        }
        // What an earlier run has laid aside goes.
        Action::LayAside { .. } => Case::of(
            action,
            &[
                "+ RUN",
                "+ RUN/staged",
                "+ RUN/staged/ssl",
                "+ RUN/staged/ssl/kube-node-key.pem",
                "+ RUN/staged/ssl/kube-node.pem",
                "+ RUN/staged/ssl/kube-proxy.pem",
            ],
        )
        .reading(staged()),
        Action::Switch { .. } => Case::of(
            action,
            &[
                "+ RUN/retired",
                "+ RUN/retired/kubelet.crt",
                "+ RUN/retired/kubelet.key",
                "+ RUN/written",
                "+ ssl/kube-proxy.pem",
                "- /var/lib/kubelet/pki/kubelet.crt",
                "- /var/lib/kubelet/pki/kubelet.key",
                "~ ssl/kube-node-key.pem",
                "~ ssl/kube-node.pem",
            ],
        )
        .restarting(&["restart -t 5 kubelet", "restart -t 5 kube-proxy"]),
        Action::Restore { .. } => Case::of(
            action,
            &[
                "+ RUN",
                "+ RUN/retired",
                "+ RUN/retired/kubelet.crt",
                "+ RUN/retired/kubelet.key",
                "+ RUN/written",
                "- made",
                "- made/file.pem",
                "- ssl/kube-proxy.pem",
                "~ /var/lib/kubelet/pki/kubelet.crt",
                "~ /var/lib/kubelet/pki/kubelet.key",
                "~ ssl/kube-node-key.pem",
                "~ ssl/kube-node.pem",
            ],
        )
        .restarting(&["restart -t 5 kubelet"]),
        Action::Prove { .. } | Action::ClearStaging { .. } => Case::of(action, &STAGED_GOES),
        Action::VerifyRestored { .. } => {
            let mut changes = STAGED_GOES.to_vec();
            changes.push("+ RUN/written");
            Case::of(action, &changes)
        }
        Action::Verify { .. } => Case::of(action, &["+ RUN/written"]),
    }
}

const STAGED_GOES: [&str; 5] = [
    "- RUN/staged",
    "- RUN/staged/ssl",
    "- RUN/staged/ssl/kube-node-key.pem",
    "- RUN/staged/ssl/kube-node.pem",
    "- RUN/staged/ssl/kube-proxy.pem",
];

/// Makes what an action finds when its turn comes.
fn prepare(node: &Node, action: &Action) {
    let is_staged = matches!(
        action,
        Action::Switch { .. }
            | Action::Prove { .. }
            | Action::ClearStaging { .. }
            | Action::Verify { .. }
            | Action::VerifyRestored { .. }
    );
    if matches!(action, Action::AddKubeAdmin { folder: TmpFolder::Made, .. }) {
        node.remove("etc/kubernetes/.tmp/kube-ca.pem");
        std::fs::remove_dir(node.path("etc/kubernetes/.tmp")).unwrap();
    }
    match action {
        Action::Restore { .. } => switched_before(node),
        _ if is_staged => {
            let command = lay_aside().commands(&observation(node)).remove(0);
            node.run_well(RUN, &command.with_stdin(Zeroizing::new(staged())));
        }
        // The folder of the runs is there from the first lock on.
        _ => drop(node.run_well(RUN, &Command::new(format!("mkdir -m 700 {}/.certroll", node.directory())))),
    }
}

/// Runs an action's scripts, and returns what docker was told.
fn perform(node: &Node, case: &Case) -> Vec<String> {
    let mut stdin = case.stdin.clone();
    for command in case.action.commands(&observation(node)) {
        let command = match stdin.take() {
            Some(stdin) => command.with_stdin(Zeroizing::new(stdin)),
            None => command,
        };
        node.run_well(RUN, &command);
    }
    node.told()
}

/// Names a change of a tree shortly.
fn short(change: &str) -> String {
    let (sign, path) = change.split_once(' ').unwrap();
    let path = match path.strip_prefix("etc/kubernetes/") {
        Some(path) => path.replace(&format!(".certroll/{RUN}"), "RUN"),
        None => format!("/{path}"),
    };
    format!("{sign} {path}")
}

fn kind(action: &Action) -> String {
    serde_json::to_value(action).unwrap()["kind"].as_str().unwrap().to_owned()
}

#[test]
fn every_kind_of_action_has_its_case() {
    let unknown = serde_json::from_str::<Action>(r#"{"kind":"?"}"#).unwrap_err().to_string();
    let (_, known) = unknown.split_once("expected one of ").unwrap();
    let known: BTreeSet<String> = known.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let node = laid_out();
    let tried: BTreeSet<String> = cases(&node).iter().map(|case| kind(&case.action)).collect();
    assert_eq!(tried, known);
}

#[test]
fn scripts_that_run_twice_leave_what_they_leave_when_they_run_once() {
    for place in 0..cases(&laid_out()).len() {
        let node = laid_out();
        let case = cases(&node).remove(place);
        let told = kind(&case.action);
        prepare(&node, &case.action);
        let before = node.tree();
        let restarts = perform(&node, &case);
        let once = node.tree();
        let mut changes: BTreeSet<String> =
            difference(&before, &once).iter().map(|line| short(line)).collect();
        // Where there is a getfacl, a backup tells ACLs too.
        changes.remove("+ RUN/backup.acls");
        let expected: BTreeSet<String> = case.changes.iter().map(|&line| line.to_owned()).collect();
        assert_eq!(changes, expected, "{told}");
        assert_eq!(restarts, case.restarts, "{told}");
        let again = perform(&node, &case);
        assert_eq!(difference(&once, &node.tree()), [] as [String; 0], "{told}: the second time");
        assert_eq!(again, restarts, "{told}: the script restarts what it restarted before, and nothing else");
    }
}

#[test]
fn a_rollback_that_is_asked_twice_finds_everything_as_it_was() {
    let node = laid_out();
    switched_before(&node);
    let asked = not_restored(&node.directory(), &restoration(&node));
    let before = node.tree();
    let missing = node.run_well(RUN, &asked);
    assert_eq!(missing.lines().count(), 6, "{missing}");
    assert_eq!(difference(&before, &node.tree()), [] as [String; 0], "whoever asks changes nothing");
    let restore =
        cases(&node).into_iter().find(|case| matches!(case.action, Action::Restore { .. })).unwrap();
    for _ in 0..2 {
        perform(&node, &restore);
        assert_eq!(node.run_well(RUN, &asked), "");
    }
    assert_eq!(node.read("etc/kubernetes/ssl/kube-node.pem").as_deref(), Some("certificate"));
    assert_eq!(node.read("var/lib/kubelet/pki/kubelet.key").as_deref(), Some("serving key"));
}

#[test]
fn backups_are_pruned_once() {
    let node = laid_out();
    for run in [EARLIEST, EARLIER, RUN] {
        for command in Action::Backup.commands(&observation(&node)) {
            node.run_well(run, &command);
        }
    }
    let prune = prune_command(&node.directory(), &[EARLIEST, EARLIER]);
    node.run_well(RUN, &prune);
    let once = node.tree();
    node.run_well(RUN, &prune);
    assert_eq!(difference(&once, &node.tree()), [] as [String; 0]);
    let kept = node.read(&format!("etc/kubernetes/.certroll/{RUN}/backup.sum"));
    assert!(kept.is_some() && !once.keys().any(|path| path.contains(EARLIER) || path.contains(EARLIEST)));
}
