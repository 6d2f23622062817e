//! One cell: a fault that begins in a stage, and what is asked of what comes of it.

use std::collections::BTreeSet;
use std::path::Path;

use certroll::inventory::NodeName;
use certroll::pki::{Certificate, PublicPrefix};
use certroll::sim::Pairs;
use serde_json::Value;

use super::fault::{Begin, Wrong};
use crate::survive::end::{KUBERNETES, archive};
use crate::survive::victim::{Cluster, Ended, Victim};

/// Who makes the new certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Direct,
    Rancher,
}

/// A stage, and what a fault needs to know of it.
#[derive(Debug)]
pub(super) struct Stage {
    /// Its name in the journal.
    pub(super) name: &'static str,
    /// The node on which something goes wrong.
    node: &'static str,
    /// What the command lines hold, in order, of which the last is the stage's first on that node.
    pub(super) lines: &'static [&'static str],
    /// A command of the stage on that node.
    pub(super) script: Option<&'static str>,
    /// A command of the stage on that node that writes something there.
    pub(super) write: Option<&'static str>,
    /// A container whose restart belongs to the stage, or else to a later one.
    pub(super) container: &'static str,
    /// A file that the stage works with.
    pub(super) file: &'static str,
}

const PROBE: &str = "Looks at this node as root";
/// What writes down what a run leaves.
const RECORD: &str = "-exec cksum {} +";
const NODE_PAIR: &str = "/etc/kubernetes/ssl/kube-node.pem";

const PREFLIGHT: Stage = Stage {
    name: "preflight",
    node: "cp-1",
    lines: &["lock.2", PROBE],
    script: Some(PROBE),
    write: Some("lock.2"),
    container: "kube-proxy",
    file: NODE_PAIR,
};

const BACKUP: Stage = Stage {
    name: "backup",
    node: "cp-1",
    lines: &["backup.tar.new"],
    script: Some("backup.tar.new"),
    write: Some("backup.tar.new"),
    container: "kube-proxy",
    file: NODE_PAIR,
};

const DIRECT: [Stage; 8] = [
    PREFLIGHT,
    BACKUP,
    Stage {
        name: "staging",
        node: "w-1",
        lines: &["/staged -xf -"],
        script: Some("/staged -xf -"),
        write: Some("/staged -xf -"),
        container: "kubelet",
        file: NODE_PAIR,
    },
    Stage {
        name: "etcd",
        node: "cp-1",
        lines: &["place ssl/kube-etcd-"],
        script: Some("place ssl/kube-etcd-"),
        write: Some("place ssl/kube-etcd-"),
        container: "etcd",
        file: "/etc/kubernetes/ssl/kube-etcd-10-0-0-1.pem",
    },
    Stage {
        name: "control_plane",
        node: "cp-1",
        lines: &["place ssl/kube-apiserver.pem"],
        script: Some("place ssl/kube-apiserver.pem"),
        write: Some("place ssl/kube-apiserver.pem"),
        container: "kube-apiserver",
        file: "/etc/kubernetes/ssl/kube-apiserver.pem",
    },
    Stage {
        name: "workers",
        node: "w-1",
        lines: &["place ssl/kube-node.pem"],
        script: Some("place ssl/kube-node.pem"),
        write: Some("place ssl/kube-node.pem"),
        container: "kubelet",
        file: NODE_PAIR,
    },
    Stage {
        name: "state",
        node: "cp-1",
        lines: &["full-cluster-state"],
        script: Some("full-cluster-state"),
        write: Some("full-cluster-state"),
        container: "kube-apiserver",
        file: NODE_PAIR,
    },
    Stage {
        name: "verify",
        node: "cp-1",
        lines: &["full-cluster-state", PROBE],
        script: Some(PROBE),
        write: Some(RECORD),
        container: "kubelet",
        file: NODE_PAIR,
    },
];

const RANCHER: [Stage; 7] = [
    PREFLIGHT,
    BACKUP,
    Stage {
        name: "repair",
        node: "cp-1",
        lines: &[".tmp/kube-apiserver-requestheader-ca.pem"],
        script: Some(".tmp/kube-apiserver-requestheader-ca.pem"),
        write: Some(".tmp/kube-apiserver-requestheader-ca.pem"),
        container: "kube-proxy",
        file: "/etc/kubernetes/.tmp/kube-node.pem",
    },
    Stage {
        name: "rotate",
        node: "cp-1",
        lines: &["rotateCertificates"],
        script: None,
        write: None,
        container: "kube-apiserver",
        file: NODE_PAIR,
    },
    Stage {
        name: "confirm",
        node: "cp-1",
        lines: &["rotateCertificates", PROBE],
        script: Some(PROBE),
        write: None,
        container: "kubelet",
        file: NODE_PAIR,
    },
    Stage {
        name: "workers",
        node: "w-1",
        lines: &["docker restart -t 5 kubelet"],
        script: Some("docker restart -t 5 kubelet"),
        write: Some("docker restart -t 5 kubelet"),
        container: "kubelet",
        file: NODE_PAIR,
    },
    Stage {
        name: "verify",
        node: "w-1",
        lines: &["docker restart -t 5 kube-proxy", PROBE],
        script: Some(PROBE),
        write: Some(RECORD),
        container: "kubelet",
        file: NODE_PAIR,
    },
];

/// The stages of both in their order. That of `control_plane` in a rotation through Rancher has no column: it does on these nodes
/// what `workers` does on the others, and nothing where Rancher has restarted their components.
const ORDER: [&str; 11] = [
    "preflight",
    "backup",
    "repair",
    "staging",
    "rotate",
    "confirm",
    "etcd",
    "control_plane",
    "workers",
    "state",
    "verify",
];

impl Method {
    pub(super) fn stages(self) -> &'static [Stage] {
        match self {
            Self::Direct => &DIRECT,
            Self::Rancher => &RANCHER,
        }
    }
}

/// Returns the place of a stage in a rotation. Rancher's word is held against the nodes within `rotate` already: a fault that begins
/// with the first look after the call shows there or in `confirm`.
fn place(name: &str) -> Option<usize> {
    let name = if name == "confirm" { "rotate" } else { name };
    ORDER.iter().position(|stage| *stage == name)
}

/// A fault in a stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) method: Method,
    pub(super) wrong: Wrong,
    pub(super) stage: &'static Stage,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) word: String,
    /// What is not as it must be.
    pub(super) complaint: Option<String>,
    /// How long it took, and what the run said, for whoever looks at one cell.
    pub(super) told: String,
}

/// Short times: what does not come is not waited for.
const TIMES: [&str; 6] = ["--health-timeout", "4s", "--connect-timeout", "4s", "--command-timeout", "20s"];

impl Cell {
    pub(super) fn name(&self) -> String {
        format!("{:?}/{}/{}", self.method, self.stage.name, self.wrong.name()).to_lowercase()
    }

    pub(super) async fn try_it(self, cluster: Cluster, pairs: Pairs) -> Outcome {
        let begin = match self.wrong.begin(self.stage) {
            Ok(begin) => begin,
            Err(reason) => {
                return Outcome { word: format!("- ({reason})"), complaint: None, told: String::new() };
            }
        };
        let start = std::time::Instant::now();
        let node = NodeName::new(self.stage.node);
        let victim = match begin {
            Begin::OnNode { fault, lines } => {
                let victim = Victim::start(cluster, Some(pairs)).await;
                victim.fleet.arm(&node, &lines, fault);
                victim
            }
            Begin::InRancher(failure) => Victim::start(cluster.failing(failure), Some(pairs)).await,
        };
        let mut words = victim.apply();
        words.extend(TIMES);
        if self.method == Method::Rancher {
            words.extend(["--wait", "30s"]);
        }
        let ended = victim.certroll(&words).await;
        let has_begun = !victim.fleet.is_pending(&node);
        let times: [&str; 7] = ["check", "-o", "json", "--connect-timeout", "4s", "--command-timeout", "20s"];
        let check = victim.certroll(&times).await;
        let events = journal(&victim.state());
        let word = self.word(&ended, &events);
        let mut complaints = Vec::new();
        if !has_begun {
            complaints.push("the fault never began".to_owned());
        }
        complaints.extend(self.status_is_right(&ended, &events));
        complaints.extend(self.says_what_is_wrong(&ended, &events));
        complaints.extend(backups_are_whole(&victim, self.wrong));
        complaints.extend(pairs_are_whole(&victim, self));
        complaints.extend(is_explained(&check));
        let told = format!(
            "{}: {word} after {:.1} s\n{}\n{}",
            self.name(),
            start.elapsed().as_secs_f64(),
            indented(&ended.stdout),
            indented(&ended.stderr)
        );
        let complaint = (!complaints.is_empty()).then(|| format!("{}\n{told}", complaints.join("\n  ")));
        Outcome { word, complaint, told }
    }

    fn word(&self, ended: &Ended, events: &[Value]) -> String {
        let retried = events.iter().any(|event| event["kind"] == "step_retried");
        match (ended.status, failed_stage(events)) {
            (Some(0), _) if retried => "retried".to_owned(),
            (Some(0), _) => "done".to_owned(),
            (Some(4), _) => "refused".to_owned(),
            (Some(1), Some(stage)) if stage == self.stage.name => "failed".to_owned(),
            (Some(1), Some(stage)) => format!("failed at {stage}"),
            (Some(1), None) => "failed before".to_owned(),
            (status, _) => format!("status {status:?}"),
        }
    }

    fn status_is_right(&self, ended: &Ended, events: &[Value]) -> Option<String> {
        let begun = events.iter().any(|event| event["kind"] == "run_started");
        let failed = failed_stage(events);
        match (ended.status, &failed) {
            (Some(0), None) => None,
            (Some(4), None) if !changed(events) => None,
            (Some(1), None) if !begun => None,
            (Some(1), Some(stage)) => {
                let (found, own) = (place(stage), place(self.stage.name));
                (found < own).then(|| format!("it failed at {stage}, before the fault began"))
            }
            (status, failed) => Some(format!("status {status:?}, failed stage {failed:?}")),
        }
    }

    /// The message names the node, the step's own words and the way out.
    fn says_what_is_wrong(&self, ended: &Ended, events: &[Value]) -> Vec<String> {
        if ended.status == Some(0) {
            return Vec::new();
        }
        let said = format!("{}\n{}", ended.stdout, ended.stderr);
        let mut missing = Vec::new();
        let mut expect = |what: &str, holds: bool| {
            if !holds {
                missing.push(format!("{what} is not named"));
            }
        };
        expect("the node", said.contains(self.stage.node));
        expect("the way out", said.contains("hint:"));
        for event in events.iter().filter(|event| event["outcome"]["outcome"] == "failed") {
            let error = event["outcome"]["error"].as_str().unwrap_or_default();
            let begin: String = error.chars().take(24).collect();
            let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            expect("the step's failure", squeezed(&said).contains(squeezed(&begin).as_str()));
            expect(
                "the step's way out",
                event["outcome"]["hint"].is_string() || said.contains("`certroll apply --resume"),
            );
        }
        missing
    }
}

/// Returns the events of the one run, if there is one.
fn journal(state: &Path) -> Vec<Value> {
    let mut events = Vec::new();
    for path in files(state).into_iter().filter(|path| path.ends_with("journal.jsonl")) {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        events.extend(text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()));
    }
    events
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries =
        std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn failed_stage(events: &[Value]) -> Option<String> {
    let failed = events.iter().find(|event| event["outcome"]["outcome"] == "failed")?;
    failed["stage"].as_str().map(str::to_owned)
}

fn changed(events: &[Value]) -> bool {
    let is_later = |event: &&Value| event["stage"].as_str().is_some_and(|stage| stage != "preflight");
    events.iter().filter(is_later).any(|event| event["kind"] == "step_started")
}

/// Every backup is byte for byte what was there, and there is one wherever something was changed.
fn backups_are_whole(victim: &Victim, wrong: Wrong) -> Vec<String> {
    let mut complaints = Vec::new();
    for node in victim.fleet.nodes() {
        let own = node.name().to_string();
        let beginning: Vec<_> = victim
            .beginning
            .files
            .iter()
            .filter(|((of, path), _)| *of == own && path.starts_with(KUBERNETES))
            .collect();
        let is_changed =
            beginning.iter().any(|((_, path), content)| node.file(path).as_ref() != Some(*content));
        let backups: Vec<_> =
            node.files().into_iter().filter(|file| file.path.ends_with("/backup.tar")).collect();
        if backups.is_empty() && is_changed && !wrong.damages() {
            complaints.push(format!("{own} was changed without a backup"));
        }
        for backup in backups {
            let saved = archive(&node.file(&backup.path).unwrap_or_default());
            let lost: Vec<&String> = beginning
                .iter()
                .filter(|((_, path), content)| {
                    saved.get(path.trim_start_matches(KUBERNETES)) != Some(*content)
                })
                .map(|((_, path), _)| path)
                .collect();
            // A file that was damaged before it was saved is saved as it was then.
            if lost.len() > usize::from(wrong.damages()) {
                complaints.push(format!("the backup of {own} lacks {lost:?}"));
            }
            if backup.mode & 0o077 != 0 || backup.uid != 0 {
                complaints.push(format!("others can read the backup of {own}"));
            }
        }
    }
    complaints
}

/// Every certificate in use has its own key beside it.
fn pairs_are_whole(victim: &Victim, cell: Cell) -> Vec<String> {
    let mut complaints = Vec::new();
    if cell.wrong == Wrong::DiskFull && cell.stage.script.is_none() {
        // Rancher writes there itself, and leaves halves: `check` has to name them.
        return complaints;
    }
    for node in victim.fleet.nodes() {
        let paths: BTreeSet<String> = node.files().into_iter().map(|file| file.path).collect();
        let ssl = format!("{KUBERNETES}ssl/");
        for path in paths.iter().filter(|path| path.starts_with(&ssl) && path.ends_with("-key.pem")) {
            let stem = path.trim_end_matches("-key.pem");
            let certificate = node.file(&format!("{stem}.pem")).unwrap_or_default();
            let key = String::from_utf8(node.file(path).unwrap_or_default()).unwrap_or_default();
            let fits = Certificate::from_pem(&certificate)
                .ok()
                .and_then(|certificate| certificate.matches_key(&PublicPrefix::from_probe(&key)));
            let is_damaged = cell.wrong.damages() && format!("{stem}.pem") == cell.stage.file;
            if fits != Some(true) && !is_damaged {
                complaints.push(format!(
                    "{}: {stem}.pem and its key do not belong together: {fits:?}",
                    node.name()
                ));
            }
        }
    }
    complaints
}

/// `check` ends, and what is not well is named with its node.
fn is_explained(check: &Ended) -> Vec<String> {
    let document: Value = match serde_json::from_str(&check.stdout) {
        Ok(document) => document,
        Err(error) => return vec![format!("check prints no document: {error}: {}", indented(&check.stderr))],
    };
    let list = |field: &str| document[field].as_array().cloned().unwrap_or_default();
    let unreachable =
        list("nodes").iter().any(|node| node["reachable"] == false && node["error"].is_string());
    let finding = list("findings").iter().any(|finding| {
        finding["severity"] == "error" && finding["node"].is_string() && finding["message"].is_string()
    });
    let expiring = list("nodes").iter().any(|node| {
        let certificates = node["certificates"].as_array().cloned().unwrap_or_default();
        certificates.iter().any(|certificate| certificate["status"] != "ok")
    });
    match check.status {
        Some(0) => Vec::new(),
        Some(1) if unreachable || finding => Vec::new(),
        Some(3) if finding || expiring => Vec::new(),
        status => {
            vec![format!("check ends with {status:?} and does not say why: {}", indented(&check.stdout))]
        }
    }
}

fn indented(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(30);
    lines.iter().skip(skipped).map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
