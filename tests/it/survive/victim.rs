//! A victim: a fleet with an operator whose program is killed at a boundary, and who then resumes.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use certroll::inventory::{Inventory, NodeName};
use certroll::sim::{Boundary, Fleet, FleetOptions, Layout, Pairs, RancherFailure, RancherOptions, RkeFiles};
use jiff::Timestamp;

use super::end::{Beginning, End};

/// How long one command may take; most need a few seconds, and many run side by side.
const LIMIT: Duration = Duration::from_mins(8);

/// The pace of the fleets: nothing depends on how long components take to come back.
const BRISK: f64 = 0.001;

/// One node of each kind.
const SMALL: &str = "\
cluster_name: small
kubernetes_version: v1.14.6-rancher1-1
nodes:
- {address: 10.0.0.1, hostname_override: cp-1, user: rancher, role: [controlplane, etcd]}
- {address: 10.0.0.4, hostname_override: w-1, user: rancher, role: [worker]}
";

/// Several of each kind: nodes wait for each other, and pairs are shared.
const LARGE: &str = "\
cluster_name: large
kubernetes_version: v1.14.6-rancher1-1
nodes:
- {address: 10.0.0.1, hostname_override: cp-1, user: rancher, role: [controlplane, etcd]}
- {address: 10.0.0.2, hostname_override: cp-2, user: rancher, role: [controlplane, etcd]}
- {address: 10.0.0.3, hostname_override: etcd-1, user: rancher, role: [etcd]}
- {address: 10.0.0.4, hostname_override: w-1, user: rancher, role: [worker]}
- {address: 10.0.0.5, hostname_override: w-2, user: rancher, role: [worker]}
";

/// The pairs that have keys of an elliptic curve, and get such again: RSA keys for all of them would take most of the time.
/// kube-node's is an RSA key as RKE makes it, so that the switches of control plane nodes and of workers meet both kinds.
const ELLIPTIC: [&str; 9] = [
    "kube-admin",
    "kube-apiserver",
    "kube-apiserver-proxy-client",
    "kube-controller-manager",
    "kube-etcd-10-0-0-1",
    "kube-etcd-10-0-0-2",
    "kube-etcd-10-0-0-3",
    "kube-proxy",
    "kube-scheduler",
];

/// Three etcd members, of which all have expired: two have to be switched before there is a quorum, and the third one then has
/// to wait until the others are well.
const MEMBERS: &str = "\
cluster_name: members
kubernetes_version: v1.14.6-rancher1-1
nodes:
- {address: 10.0.0.1, hostname_override: cp-1, user: rancher, role: [controlplane, etcd]}
- {address: 10.0.0.2, hostname_override: etcd-2, user: rancher, role: [etcd]}
- {address: 10.0.0.3, hostname_override: etcd-3, user: rancher, role: [etcd]}
";

/// Who makes the new certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Direct,
    Rancher,
}

/// What is rotated, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cluster {
    method: Method,
    layout: Layout,
    yml: &'static str,
    failure: Option<RancherFailure>,
}

impl Cluster {
    /// A cluster of the `rke` command, whose files lie on the bastion too.
    pub(crate) fn direct() -> Self {
        Self { method: Method::Direct, layout: Layout::ExpiringSoon, yml: yml(), failure: None }
    }

    /// An expired cluster of the legacy layout, one worker of which Rancher leaves on its old certificates.
    pub(crate) fn rancher() -> Self {
        Self { method: Method::Rancher, layout: Layout::LegacyExpired, yml: yml(), failure: None }
    }

    /// The same with a Rancher that fails.
    pub(crate) fn failing(self, failure: RancherFailure) -> Self {
        Self { failure: Some(failure), ..self }
    }

    /// A cluster whose etcd has lost its quorum because its certificates have expired.
    pub(crate) fn without_quorum() -> Self {
        Self { method: Method::Direct, layout: Layout::Expired028, yml: MEMBERS, failure: None }
    }

    pub(crate) fn name(self) -> String {
        let method = if self.method == Method::Direct { "direct" } else { "rancher" };
        format!("{method}, {:?}", self.layout)
    }
}

fn yml() -> &'static str {
    if std::env::var("CERTROLL_SURVIVE").is_ok_and(|size| size == "large") { LARGE } else { SMALL }
}

/// A process that can be killed from any thread while another one waits for it.
#[derive(Default)]
struct Slot {
    state: Mutex<SlotState>,
    changed: Condvar,
}

#[derive(Default)]
struct SlotState {
    process: Option<u32>,
    ended: bool,
}

impl Slot {
    fn set(&self, change: impl FnOnce(&mut SlotState)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    /// Kills the process as soon as there is one, and returns when it has ended.
    fn kill(&self) {
        let state = self.state.lock().unwrap();
        let state = self.changed.wait_while(state, |state| state.process.is_none() && !state.ended).unwrap();
        if let (Some(process), false) = (state.process, state.ended) {
            let line = format!("kill -KILL {process}");
            assert!(Command::new("/bin/sh").args(["-c", &line]).status().unwrap().success());
        }
        drop(self.changed.wait_while(state, |state| !state.ended).unwrap());
    }
}

/// How a command ended, and what it said.
pub(crate) struct Ended {
    /// `None` where it was killed.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A fleet, and what its operator has.
pub(crate) struct Victim {
    pub(crate) fleet: Fleet,
    pub(crate) folder: tempfile::TempDir,
    cluster: Cluster,
    pub(crate) beginning: Beginning,
}

/// Where a course is disturbed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trial {
    /// The run is killed.
    Once(Boundary),
    /// The run is killed, and its resumption as well, somewhere in what is left of so many effects.
    Twice(Boundary, usize),
    /// The run comes to its end, and its rollback is killed: the first effect of the rollback has number 1.
    Rollback(Boundary),
}

/// How an attempt has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Killed,
    Done,
}

/// One command of a course.
struct Attempt {
    words: &'static [&'static str],
    fate: Fate,
    ended: Ended,
}

/// What came of a run, or of its rollback, and of the resumption.
pub(crate) struct Course {
    pub(crate) end: End,
    pub(crate) pairs: Pairs,
    /// The effects of what can be killed, in order.
    pub(crate) log: Vec<String>,
    attempts: Vec<Attempt>,
}

const RESUME: &[&str] = &["apply", "--resume", "--yes", "--progress", "lines"];
const ROLLBACK: &[&str] = &["rollback", "--yes", "--progress", "lines"];

impl Victim {
    pub(crate) async fn start(cluster: Cluster, pairs: Option<Pairs>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inventory = Inventory::parse(cluster.yml, "prod").unwrap().inventory;
        let mut options = FleetOptions::new(&inventory, cluster.layout, Timestamp::now());
        options.pace = BRISK;
        options.pairs = pairs;
        match cluster.method {
            Method::Direct => {
                options.rke_files = RkeFiles::Beside;
                options.elliptic = ELLIPTIC.map(str::to_owned).to_vec();
            }
            Method::Rancher => {
                options.rancher = Some(RancherOptions {
                    stale_workers: vec![NodeName::new("w-1")],
                    failure: cluster.failure,
                    ..RancherOptions::default()
                });
            }
        }
        let fleet = Fleet::start(options, folder.path()).await.unwrap();
        let beginning = Beginning::of(&fleet, folder.path());
        Self { fleet, folder, cluster, beginning }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Runs the program until it ends or is killed.
    pub(crate) async fn certroll(&self, words: &[&str]) -> Ended {
        self.run(words, &Arc::default()).await
    }

    async fn run(&self, words: &[&str], slot: &Arc<Slot>) -> Ended {
        let paths = self.fleet.paths();
        let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_certroll"));
        command.args(words).env_clear().env("HOME", self.folder.path()).env("USER", "operator");
        command.env("PATH", "/usr/bin:/bin").env("HOSTNAME", "bastion").current_dir(self.folder.path());
        command.arg("--config").arg(&paths.cluster_yml).arg("--known-hosts").arg(&paths.known_hosts);
        command.arg("--state-dir").arg(self.state());
        if let (Some(url), Some(token), Some(ca)) =
            (self.fleet.rancher_url(), self.fleet.rancher_token(), &paths.rancher_ca)
        {
            command.env("RANCHER_URL", url).env("RANCHER_TOKEN", token);
            if words.first() == Some(&"apply") {
                command.arg("--rancher-ca").arg(ca);
            }
        }
        command.stdin(Stdio::null());
        command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
        let mut child = command.spawn().unwrap();
        let process = child.id();
        slot.set(|state| state.process = Some(process));
        let waiting = Arc::clone(slot);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // A thread of its own: whoever kills waits for it, wherever the fleet has stopped.
        std::thread::spawn(move || {
            let status = child.wait().unwrap();
            waiting.set(|state| state.ended = true);
            let _ = sender.send(status.code());
        });
        let status = match tokio::time::timeout(LIMIT, receiver).await {
            Ok(status) => status.unwrap(),
            // It is as if somebody had lost patience; what it said tells where it was.
            Err(_) => {
                slot.kill();
                None
            }
        };
        Ended { status, stdout: text(out), stderr: text(err) }
    }

    /// Returns the words of the run.
    pub(crate) fn apply(&self) -> Vec<&'static str> {
        self.words().to_vec()
    }

    fn words(&self) -> &'static [&'static str] {
        match self.cluster.method {
            Method::Direct => &["apply", "--via", "direct", "--yes", "--progress", "lines"],
            Method::Rancher => &["apply", "--via", "rancher", "--yes", "--progress", "lines"],
        }
    }

    /// Runs to the end, which must be a good one.
    pub(crate) async fn run_undisturbed(self) -> Course {
        let attempts = vec![self.finish(self.words()).await];
        self.conclude(attempts, 0)
    }

    /// Runs and takes the run back, undisturbed.
    pub(crate) async fn roll_back_undisturbed(self) -> Course {
        let mut attempts = vec![self.finish(self.words()).await];
        let begun = self.fleet.effects().len();
        attempts.push(self.finish(ROLLBACK).await);
        self.conclude(attempts, begun)
    }

    /// Kills where a trial says, and resumes.
    pub(crate) async fn tried(self, trial: Trial) -> Course {
        let mut attempts = Vec::new();
        let mut begun = 0;
        match trial {
            Trial::Once(boundary) => attempts.push(self.kill(self.words(), boundary).await),
            Trial::Twice(first, all) => {
                attempts.push(self.kill(self.words(), first).await);
                let happened = self.fleet.effects().len();
                // What the script did that the kill came upon is not done again; and a step that has no common divisor with what is
                // left spreads the second kill over it.
                let left = all.saturating_sub(happened) * 4 / 5;
                let effect = happened + 1 + first.effect * 37 % left.max(1);
                attempts.push(self.kill(RESUME, Boundary { effect, side: first.side }).await);
            }
            Trial::Rollback(boundary) => {
                attempts.push(self.attempt(self.words(), Fate::Done, &Arc::default()).await);
                begun = self.fleet.effects().len();
                let boundary = Boundary { effect: begun + boundary.effect, ..boundary };
                attempts.push(self.kill(ROLLBACK, boundary).await);
            }
        }
        attempts.push(self.attempt(RESUME, Fate::Done, &Arc::default()).await);
        self.conclude(attempts, begun)
    }

    async fn attempt(&self, words: &'static [&'static str], fate: Fate, slot: &Arc<Slot>) -> Attempt {
        Attempt { words, fate, ended: self.run(words, slot).await }
    }

    async fn finish(&self, words: &'static [&'static str]) -> Attempt {
        let attempt = self.attempt(words, Fate::Done, &Arc::default()).await;
        let Ended { status, stdout, stderr } = &attempt.ended;
        assert_eq!(*status, Some(0), "{words:?}\n{stdout}\n{stderr}");
        attempt
    }

    /// Kills a command at a boundary, and lets what it has left running on nodes come to its end.
    async fn kill(&self, words: &'static [&'static str], boundary: Boundary) -> Attempt {
        let slot = Arc::new(Slot::default());
        let killer = Arc::clone(&slot);
        self.fleet.stop_at(boundary, move || killer.kill());
        let attempt = self.attempt(words, Fate::Killed, &slot).await;
        self.fleet.rest().await;
        attempt
    }

    fn conclude(self, attempts: Vec<Attempt>, begun: usize) -> Course {
        let log =
            self.fleet.effects().into_iter().map(|effect| format!("{}: {}", effect.node, effect.description));
        let log: Vec<String> = log.skip(begun).collect();
        let mut end = End::of(&self, &self.beginning);
        let restart = |line: &String| {
            let (node, container) = line.split_once(": restart container ")?;
            Some(format!("{node} {container}"))
        };
        end.restarts = log.iter().filter_map(restart).collect();
        if self.cluster.yml == MEMBERS {
            end.forget_quorum(&["cp-1", "etcd-2"]);
        }
        Course { end, pairs: self.fleet.pairs(), attempts, log }
    }
}

fn text(mut file: std::fs::File) -> String {
    use std::io::{Read as _, Seek as _};
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

impl Course {
    /// Says in what the end differs from that of an undisturbed course.
    pub(crate) fn difference(&self, undisturbed: &End) -> Option<String> {
        for Attempt { words, fate, ended } in &self.attempts {
            let as_meant = match fate {
                Fate::Killed => ended.status.is_none(),
                Fate::Done => ended.status == Some(0),
            };
            if !as_meant {
                return Some(format!("`{}` ended with {:?}, not {fate:?}", words.join(" "), ended.status));
            }
        }
        self.end.difference(undisturbed)
    }

    /// Returns all effects with their numbers.
    pub(crate) fn numbered(&self) -> String {
        let lines = (1..).zip(&self.log).map(|(number, line)| format!("{number} {line}"));
        lines.collect::<Vec<String>>().join("\n")
    }

    /// Returns what happened, for whoever has to find out why.
    pub(crate) fn told(&self) -> String {
        let mut told = String::new();
        for Attempt { words, ended, .. } in &self.attempts {
            let last = |text: &str| {
                let lines: Vec<&str> = text.lines().collect();
                lines[lines.len().saturating_sub(25)..].join("\n    ")
            };
            let _ = write!(
                told,
                "  {}: {:?}\n    {}\n    {}\n",
                words.join(" "),
                ended.status,
                last(&ended.stdout),
                last(&ended.stderr)
            );
        }
        let _ = write!(told, "  effects: {}", self.log.len());
        told
    }
}
