//! Rehearsals: the built program as an operator runs it, against a simulated fleet, judged by what it leaves on the nodes.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics; it starts processes and reads files itself"
)]

mod agents;
mod away;
mod direct;
mod direct_faults;
mod direct_rancher;
mod direct_secrets;
mod direct_services;
mod direct_state;
mod direct_transcript;
mod exec;
mod faults;
mod halves;
mod import;
mod imports;
mod leaks;
mod lock;
mod procedure;
mod rancher;
mod refusals;
mod repair;
mod rescue;
mod resume;
mod rke;
mod rke_faults;
mod rollback;
mod rollback_records;
mod rollback_transcript;
mod rotate;
mod runbook;
mod secrets;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use certroll::command::{Access, Command, Output};
use certroll::inventory::{Inventory, NodeName, Secret};
use certroll::sim::{FileView, Fleet, FleetOptions, Layout, Privilege, RancherOptions};
use certroll::transport::{AskSecret, HostKeyPolicy, Question, Settings, Transport};
use jiff::Timestamp;
use serde_json::Value;

/// A cluster with every role: of both kinds of control plane nodes, one of etcd alone, and workers.
const CLUSTER: &str = "\
cluster_name: prod
kubernetes_version: v1.11.6-rancher1-1
prefix_path: PREFIX
nodes:
- {address: 10.0.0.1, hostname_override: cp-1, user: rancher, role: [controlplane, etcd]}
- {address: 10.0.0.2, hostname_override: cp-2, user: rancher, role: [controlplane]}
- {address: 10.0.0.3, hostname_override: etcd-1, user: rancher, role: [etcd]}
- {address: 10.0.0.4, hostname_override: w-1, user: rancher, role: [worker]}
- {address: 10.0.0.5, hostname_override: w-2, user: rancher, role: [worker]}
- {address: 10.0.0.6, hostname_override: w-3, user: rancher, role: [worker]}
";

const KUBERNETES: &str = "/etc/kubernetes";

/// The program that is rehearsed.
const PROGRAM: &str = env!("CARGO_BIN_EXE_certroll");

/// How long one command may take; most need a few seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// A fleet, and the folder of the operator who works on it.
struct Rehearsal {
    fleet: Fleet,
    inventory: Inventory,
    folder: tempfile::TempDir,
}

/// How a command ended, and what it said.
struct Ended {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn of(output: std::process::Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Expects an exit status; shows everything where it is another.
    #[track_caller]
    fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// Expects a text on stderr.
    #[track_caller]
    fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no `{text}` in\n{}\n--- stdout\n{}", self.stderr, self.stdout);
        self
    }

    /// Expects a text on stdout.
    #[track_caller]
    fn shows(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "no `{text}` in\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Returns the events of an `apply -o json`.
    fn events(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A file as far as it matters: mode, user, group, SHA-256.
type Trace = (u32, u32, u32, String);

impl Rehearsal {
    async fn start(layout: Layout) -> Self {
        Self::with(layout, "/", |_| {}).await
    }

    /// Starts a fleet that Rancher launched.
    async fn with_rancher(layout: Layout, rancher: RancherOptions) -> Self {
        Self::with(layout, "/", |options| options.rancher = Some(rancher)).await
    }

    async fn with(layout: Layout, prefix: &str, change: impl FnOnce(&mut FleetOptions<'_>)) -> Self {
        Self::of(&CLUSTER.replace("PREFIX", prefix), layout, change).await
    }

    /// Starts a fleet in the image of a cluster.yml.
    async fn of(cluster: &str, layout: Layout, change: impl FnOnce(&mut FleetOptions<'_>)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inventory = Inventory::parse(cluster, "prod").unwrap().inventory;
        let mut options = FleetOptions::new(&inventory, layout, Timestamp::now());
        // Nodes differ in their way to root.
        options.users = BTreeMap::from([(name("cp-1"), Privilege::Sudo), (name("w-1"), Privilege::Sudo)]);
        change(&mut options);
        let fleet = Fleet::start(options, folder.path()).await.unwrap();
        Self { fleet, inventory, folder }
    }

    /// Returns the program with the options that lead to the fleet, and an environment that has nothing else in it.
    fn program(&self, words: &[&str]) -> tokio::process::Command {
        self.started_by(tokio::process::Command::new(PROGRAM), words)
    }

    /// Returns the program as it hears hangups, which it would not where these tests were started with `nohup`.
    fn hearing_hangups(&self, words: &[&str]) -> tokio::process::Command {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
        if u64::from_str_radix(ignored.trim(), 16).is_ok_and(|signals| signals & 1 == 1) {
            let mut env = tokio::process::Command::new("env");
            env.args(["--default-signal=HUP", PROGRAM]);
            return self.started_by(env, words);
        }
        self.program(words)
    }

    /// Returns the command that starts the program, with its options and environment.
    fn started_by(&self, mut command: tokio::process::Command, words: &[&str]) -> tokio::process::Command {
        let paths = self.fleet.paths();
        command.args(words).env_clear().env("HOME", self.folder.path()).env("USER", "operator");
        command.env("PATH", "/usr/bin:/bin").env("HOSTNAME", "bastion").current_dir(self.folder.path());
        command.arg("--config").arg(&paths.cluster_yml);
        command.arg("--known-hosts").arg(&paths.known_hosts);
        command.arg("--state-dir").arg(self.state());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs the program until it ends.
    async fn certroll(&self, words: &[&str]) -> Ended {
        let output = tokio::time::timeout(LIMIT, self.program(words).output()).await;
        Ended::of(output.unwrap_or_else(|_| panic!("{words:?} does not end")).unwrap())
    }

    /// Runs the program with the simulated Rancher at hand.
    async fn with_token(&self, words: &[&str]) -> Ended {
        let mut command = self.program(words);
        self.reach_rancher(&mut command);
        let output = tokio::time::timeout(LIMIT, command.output()).await;
        Ended::of(output.unwrap_or_else(|_| panic!("{words:?} does not end")).unwrap())
    }

    fn reach_rancher(&self, command: &mut tokio::process::Command) {
        command.env("RANCHER_URL", self.fleet.rancher_url().unwrap());
        command.env("RANCHER_TOKEN", self.fleet.rancher_token().unwrap());
        command.arg("--rancher-ca").arg(self.fleet.paths().rancher_ca.as_ref().unwrap());
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns every effect as `node: what`.
    fn effects(&self) -> Vec<String> {
        let line = |effect: certroll::sim::Effect| format!("{}: {}", effect.node, effect.description);
        self.fleet.effects().into_iter().map(line).collect()
    }

    /// Expects that no node was changed.
    #[track_caller]
    fn is_untouched(&self) {
        assert_eq!(self.effects(), Vec::<String>::new());
    }

    /// Returns the files of a node beneath a folder, by their path in it, without certroll's own.
    fn files(&self, node: &str, folder: &str) -> BTreeMap<String, Trace> {
        let folder = format!("{folder}/");
        let file = |file: FileView| {
            let path = file.path.strip_prefix(&folder)?.to_owned();
            Some((path, (file.mode & 0o7777, file.uid, file.gid, file.sha256)))
        };
        let mut files: BTreeMap<_, _> =
            self.fleet.node(&name(node)).unwrap().files().into_iter().filter_map(file).collect();
        files.retain(|path, _| !path.starts_with(".certroll/"));
        files
    }

    fn file(&self, node: &str, path: &str) -> Option<Vec<u8>> {
        self.fleet.node(&name(node)).unwrap().file(path)
    }

    /// Returns the nodes that have a lock.
    fn locks(&self, directory: &str) -> Vec<String> {
        let nodes = self.inventory.nodes.iter().map(|node| node.name.to_string());
        nodes.filter(|node| self.file(node, &format!("{directory}/.certroll/lock")).is_some()).collect()
    }

    /// Gives a line to the shell of a node's user.
    async fn shell(&self, node: &str, line: &str) -> Output {
        let yml = std::fs::read_to_string(&self.fleet.paths().cluster_yml).unwrap();
        let inventory = Inventory::parse(&yml, "fleet").unwrap().inventory;
        let mut settings = Settings::new(self.folder.path(), Arc::new(Nobody));
        settings.host_keys = HostKeyPolicy::Strict;
        settings.known_hosts = vec![self.fleet.paths().known_hosts.clone()];
        let transport = Transport::new(settings, None).unwrap();
        let session = transport.connect(inventory.node(&name(node)).unwrap()).await.unwrap();
        let output = session.run_line(line, None, None).await.unwrap();
        session.close().await;
        output
    }

    /// Returns what the backup of a node holds, by path.
    fn saved(&self, node: &str) -> BTreeMap<String, Vec<u8>> {
        let backups = self.fleet.node(&name(node)).unwrap().files();
        let backup = backups.iter().find(|file| file.path.ends_with("/backup.tar")).unwrap();
        let bytes = self.file(node, &backup.path).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.header().entry_type().is_file() {
                let path = entry.path().unwrap().display().to_string();
                let mut content = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
                files.insert(path.trim_start_matches("./").to_owned(), content);
            }
        }
        files
    }

    /// Runs a script as root on a node, and returns what it printed.
    async fn root(&self, node: &str, script: &str) -> String {
        let command = Command::new(script);
        let access = if ["cp-1", "w-1"].contains(&node) {
            Access::Sudo
        } else {
            let images = self.shell(node, "docker images -q --no-trunc").await;
            Access::Docker { image: images.stdout_text().lines().next().unwrap().to_owned() }
        };
        let output = self.shell(node, &access.wrap(&command.script, "/var/run/docker.sock")).await;
        assert!(output.succeeded(), "{script}: {}", output.stderr_text());
        output.stdout_text().into_owned()
    }
}

struct Nobody;

impl AskSecret for Nobody {
    fn ask(&self, _: &Question) -> Option<Secret> {
        None
    }
}

fn name(text: &str) -> NodeName {
    NodeName::new(text)
}

fn rehearse<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

/// Returns Rancher with agents that ask every second, and workers that it leaves on old certificates.
fn rancher(stale: &[&str]) -> RancherOptions {
    RancherOptions {
        agent_check_interval: Duration::from_secs(50),
        stale_workers: stale.iter().map(|node| name(node)).collect(),
        ..RancherOptions::default()
    }
}

/// Returns the events of a kind.
fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["kind"] == kind).collect()
}

/// Returns every text file beneath a folder, with its path.
fn texts(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            texts.extend(self::texts(&entry.path()));
        } else {
            texts.push((entry.path(), std::fs::read_to_string(entry.path()).unwrap()));
        }
    }
    texts
}
