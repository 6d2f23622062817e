//! The operator: a home folder with a key, known hosts and a cluster.yml, where the program is started.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey, PublicKeyBase64 as _};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use super::daemon::{can_mount, program, write_secret};

/// How long one command may take; each has limits of its own that are far shorter.
pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// Returns a new key.
pub(super) fn ed25519() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

/// A home folder and what lies there.
pub(super) struct Operator {
    home: TempDir,
    /// The key that sshds let in.
    pub(super) key: PrivateKey,
    /// Who runs the tests: the one user that an sshd can let in which does not run as root.
    pub(super) user: String,
    environment: Vec<(&'static str, String)>,
    /// What the program is started by, in a view of the machine of its own.
    wrapper: Vec<String>,
}

impl Operator {
    /// Returns nothing, and says so, where there is no sshd.
    pub(super) fn new() -> Option<Self> {
        program()?;
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".ssh")).unwrap();
        let key = ed25519();
        write_secret(&home.path().join("id_key"), &key.to_openssh(LineEnding::LF).unwrap());
        let name = std::process::Command::new("id").arg("-un").output().unwrap();
        let user = String::from_utf8(name.stdout).unwrap().trim().to_owned();
        Some(Self { home, key, user, environment: Vec::new(), wrapper: Vec::new() })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        write_secret(&self.path(name), text);
    }

    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Sets a variable of the environment in which the program is started.
    pub(super) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.environment.push((name, value.into()));
    }

    /// Has the program alone find addresses under a name; returns whether that can be.
    pub(super) fn resolves(&mut self, name: &str, addresses: &[&str]) -> bool {
        let lines: Vec<String> = addresses.iter().map(|address| format!("{address} {name}")).collect();
        self.write("hosts", &(lines.join("\n") + "\n"));
        let script = "mount --bind \"$0\" /etc/hosts; exec \"$@\"";
        let hosts = self.path("hosts").display().to_string();
        let words = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, &hosts];
        self.wrapper = words.map(str::to_owned).to_vec();
        can_mount()
    }

    /// Has the program use the network of a process.
    pub(super) fn joins(&mut self, process: u32) {
        self.wrapper = vec!["nsenter".to_owned(), format!("--net=/proc/{process}/ns/net")];
    }

    /// Returns the line of `authorized_keys` that lets the key in.
    pub(super) fn public_line(&self) -> String {
        self.key.public_key().to_openssh().unwrap() + "\n"
    }

    /// Adds a host to known_hosts.
    pub(super) fn know(&self, address: SocketAddr, key: &PublicKey) {
        let before = self.read(".ssh/known_hosts");
        let line =
            format!("[{}]:{} {} {}", address.ip(), address.port(), key.algorithm(), key.public_key_base64());
        self.write(".ssh/known_hosts", &format!("{before}{line}\n"));
    }

    /// Writes a cluster.yml with nodes `n-1`, `n-2`, ... at some addresses.
    pub(super) fn cluster(&self, addresses: &[SocketAddr]) {
        self.cluster_with("", addresses);
    }

    /// Writes a cluster.yml with further lines.
    pub(super) fn cluster_with(&self, lines: &str, addresses: &[SocketAddr]) {
        let logins: Vec<_> = addresses.iter().map(|at| (*at, self.user.as_str())).collect();
        self.cluster_of(lines, &logins);
    }

    /// Writes a cluster.yml with further lines, and a user of its own for each node.
    pub(super) fn cluster_of(&self, lines: &str, logins: &[(SocketAddr, &str)]) {
        let mut text = format!("cluster_name: test\nssh_key_path: ~/id_key\n{lines}\nnodes:\n");
        for (number, (at, user)) in (1..).zip(logins) {
            let role = if number == 1 { "controlplane, etcd, worker" } else { "worker" };
            let (ip, port) = (at.ip(), at.port());
            writeln!(
                text,
                "- {{address: '{ip}', port: {port}, hostname_override: n-{number}, user: {user}, role: [{role}]}}"
            )
            .unwrap();
        }
        self.write("cluster.yml", &text);
    }

    /// Returns the program with an environment that has nothing of this machine in it.
    pub(super) fn program(&self, words: &[&str]) -> tokio::process::Command {
        let certroll = env!("CARGO_BIN_EXE_certroll");
        let mut command = match self.wrapper.split_first() {
            None => self.command(certroll),
            Some((wrapper, arguments)) => {
                let mut command = self.command(&format!("/usr/bin/{wrapper}"));
                command.args(arguments).arg(certroll);
                command
            }
        };
        command.args(words);
        command
    }

    /// Returns any program in that environment.
    pub(super) fn command(&self, program: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(program);
        command.env_clear().env("HOME", self.home.path()).env("USER", "operator");
        command.env("PATH", "/usr/bin:/bin").env("TMPDIR", self.home.path()).current_dir(self.home.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs the program until it ends.
    pub(super) async fn certroll(&self, words: &[&str]) -> Ended {
        let output = tokio::time::timeout(LIMIT, self.program(words).output()).await;
        Ended::of(output.unwrap_or_else(|_| panic!("{words:?} does not end")).unwrap())
    }

    /// Runs a command on all nodes and returns the exit status and what was heard of each node, in the order of the cluster.yml.
    pub(super) async fn exec(&self, options: &[&str], command: &str) -> (i32, Vec<Heard>) {
        let ended = self.certroll(&[&["exec", "-o", "json"], options, &["--", command]].concat()).await;
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}\n{}", ended.stderr));
        let mut heard: Vec<Heard> = ended.stdout.lines().map(parse).collect();
        assert!(ended.status < 2, "{}", ended.stderr);
        heard.sort_by_key(|heard| heard.node.trim_start_matches("n-").parse::<u16>().unwrap());
        (ended.status, heard)
    }

    /// Expects that a command runs on every node of the cluster.yml.
    pub(super) async fn reaches(&self, options: &[&str]) {
        let (status, heard) = self.exec(options, "echo here").await;
        for node in &heard {
            assert_eq!((node.status, node.stdout.as_str()), (Some(0), "here\n"), "{node:?}");
        }
        assert_eq!(status, 0);
        assert!(!heard.is_empty());
    }

    /// Expects that the only node cannot be worked with, and returns what is said of it.
    pub(super) async fn fails(&self, options: &[&str]) -> String {
        let (status, mut heard) = self.exec(options, "echo here").await;
        assert_eq!((status, heard.len()), (1, 1), "{heard:?}");
        let node = heard.remove(0);
        assert_eq!((node.status, node.stdout.as_str()), (None, ""), "{node:?}");
        node.error.unwrap()
    }
}

/// What `exec` says of one node.
#[derive(Debug, Deserialize)]
pub(super) struct Heard {
    pub(super) node: String,
    pub(super) status: Option<u32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) error: Option<String>,
}

/// What a command left on the terminal.
pub(super) struct Ended {
    pub(super) status: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Ended {
    pub(super) fn of(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Expects an exit status.
    #[track_caller]
    pub(super) fn expect(&self, status: i32) -> &Self {
        assert_eq!(self.status, status, "{}{}", self.stdout, self.stderr);
        self
    }

    /// Returns stdout as one JSON document.
    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{}{}", self.stdout, self.stderr))
    }
}
