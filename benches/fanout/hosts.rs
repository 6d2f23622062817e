//! The hosts: sshd on every address of 127.0.0.0/8, with the files of RKE and a stand-in of docker, and the files that clients need.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use certroll::inventory::Inventory;
use certroll::pki::{KeyAlgorithm, Signer, SubjectKey, leaf, new_key};
use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa};

use super::{PARALLEL, certroll};

/// A folder of this run, which goes with it.
#[derive(Debug)]
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    /// Makes the folder; all may pass through it, for sshd gives up its rights.
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self(folder))
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Which key exchange a server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyExchange {
    /// Whatever the client prefers.
    Default,
    /// curve25519-sha256 alone.
    Curve25519,
}

impl KeyExchange {
    /// Returns what a heading says of it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Default => "everybody with their own key exchange",
            Self::Curve25519 => "curve25519-sha256 for everybody",
        }
    }
}

/// A number of hosts, and the files in which clients find them.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) port: u16,
    pub(crate) addresses: Vec<String>,
    /// An address a line.
    pub(crate) list: PathBuf,
    pub(crate) cluster_yml: PathBuf,
}

/// An sshd that ends with this value.
#[derive(Debug)]
struct Daemon {
    process: Child,
    port: u16,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Three servers: two key exchanges, and a bastion that logs who comes.
#[derive(Debug)]
pub(crate) struct Hosts<'a> {
    folder: &'a Folder,
    pub(crate) user: String,
    default: Daemon,
    curve25519: Daemon,
    bastion: Daemon,
}

impl<'a> Hosts<'a> {
    /// Makes keys, files of RKE and a stand-in of docker, and starts the servers, which are known by so many addresses.
    pub(crate) fn start(folder: &'a Folder, most: usize) -> Result<Self> {
        ensure!(most <= MOST, "at most {MOST} hosts");
        for name in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
                .arg(folder.join(name))
                .status()
                .context("ssh-keygen (openssh-client) cannot be run")?;
            ensure!(made.success(), "ssh-keygen failed: {made}");
        }
        rke_files(folder)?;
        docker(folder)?;
        fs::create_dir_all(folder.join("home"))?;
        fs::create_dir_all("/run/sshd")?;
        let user = String::from_utf8(Command::new("id").arg("-un").output()?.stdout)?.trim().to_owned();
        let default = daemon(folder, "default", "")?;
        let curve25519 = daemon(folder, "curve25519", "KexAlgorithms curve25519-sha256\n")?;
        let bastion = daemon(folder, "bastion", "")?;
        let hosts = Self { folder, user, default, curve25519, bastion };
        hosts.write_known_hosts(most)?;
        Ok(hosts)
    }

    /// Returns the private key of the user.
    pub(crate) fn key(&self) -> PathBuf {
        self.folder.join("user")
    }

    /// Returns the known_hosts file, which has a line for every address and port.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.folder.join("known_hosts")
    }

    /// Returns the path of a new file of this run.
    pub(crate) fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    fn write_known_hosts(&self, count: usize) -> Result<()> {
        let key = fs::read_to_string(self.folder.join("host.pub"))?;
        let key = key.trim();
        let mut text = format!("[{BASTION}]:{} {key}\n", self.bastion.port);
        for port in [self.default.port, self.curve25519.port] {
            for address in addresses(count) {
                writeln!(text, "[{address}]:{port} {key}")?;
            }
        }
        fs::write(self.known_hosts(), text)?;
        Ok(())
    }

    /// Returns a number of hosts of one key exchange.
    pub(crate) fn list(&self, exchange: KeyExchange, count: usize) -> Result<Crowd> {
        let port = match exchange {
            KeyExchange::Default => self.default.port,
            KeyExchange::Curve25519 => self.curve25519.port,
        };
        self.crowd(port, count, "")
    }

    /// Returns a number of hosts behind the bastion.
    pub(crate) fn list_behind_bastion(&self, count: usize) -> Result<Crowd> {
        let bastion = format!(
            "bastion_host: {{address: {BASTION}, port: {}, user: {}, ssh_key_path: {}}}\n",
            self.bastion.port,
            self.user,
            self.key().display()
        );
        self.crowd(self.default.port, count, &bastion)
    }

    fn crowd(&self, port: u16, count: usize, more: &str) -> Result<Crowd> {
        let addresses = addresses(count);
        let prefix = self.folder.join("rke");
        let mut text = format!(
            "kubernetes_version: v1.11.6-rancher1-1\nprefix_path: {}\nssh_key_path: {}\n{more}nodes:\n",
            prefix.display(),
            self.key().display()
        );
        for (index, address) in addresses.iter().enumerate() {
            let role = if index < 3 { "controlplane, etcd" } else { "worker" };
            let user = &self.user;
            writeln!(text, "- {{address: {address}, port: {port}, user: {user}, role: [{role}]}}")?;
        }
        let name = if more.is_empty() { format!("{port}-{count}") } else { format!("{port}-{count}-behind") };
        Ok(Crowd {
            port,
            list: self.file(&format!("{name}.list"), &format!("{}\n", addresses.join("\n")))?,
            cluster_yml: self.file(&format!("{name}.yml"), &text)?,
            addresses,
        })
    }

    /// Returns the command that runs `true` on all hosts.
    pub(crate) fn exec(&self, crowd: &Crowd) -> Command {
        let mut command = self.certroll("exec", crowd);
        command.args(["--quiet", "--", "true"]);
        command
    }

    /// Returns the command that looks at all hosts.
    pub(crate) fn check(&self, crowd: &Crowd) -> Command {
        let mut command = self.certroll("check", crowd);
        command.arg("--quiet");
        command
    }

    fn certroll(&self, name: &str, crowd: &Crowd) -> Command {
        let mut command = Command::new(certroll());
        command
            .arg(name)
            .arg("--config")
            .arg(&crowd.cluster_yml)
            .arg("--known-hosts")
            .arg(self.known_hosts());
        command.args(["--progress", "none", "--parallel"]).arg(PARALLEL.to_string());
        command.env_remove("SSH_AUTH_SOCK").env("HOME", self.folder.join("home"));
        command
    }

    /// Returns the `prefix_path` under which the files of RKE lie.
    pub(crate) fn prefix_path(&self) -> String {
        self.folder.join("rke").display().to_string()
    }

    /// Returns the `PATH` of a login, on which the stand-in of docker comes first.
    pub(crate) fn path(&self) -> String {
        path(self.folder)
    }

    /// Returns how many connections the bastion has had.
    pub(crate) fn bastion_connections(&self) -> Result<usize> {
        let log = fs::read_to_string(self.folder.join("bastion.log"))?;
        Ok(log.lines().filter(|line| line.starts_with("Accepted publickey")).count())
    }
}

/// The address of the bastion.
const BASTION: &str = "127.200.0.1";

/// How many hosts there may be.
const MOST: usize = 2000;

fn addresses(count: usize) -> Vec<String> {
    (0..count)
        .map(|index| format!("127.{}.{}.{}", 1 + index / 60_000, index / 250 % 240, 1 + index % 250))
        .collect()
}

fn path(folder: &Folder) -> String {
    format!("{}:/usr/local/bin:/usr/bin:/bin", folder.join("bin").display())
}

/// Starts an sshd on all addresses of this namespace, and waits until it answers.
fn daemon(folder: &Folder, name: &str, more: &str) -> Result<Daemon> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let path = path(folder);
    let configuration = format!(
        "Port {port}\nListenAddress 0.0.0.0\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\n\
         PermitRootLogin prohibit-password\nMaxStartups 2000\nUseDNS no\nPrintMotd no\nSetEnv PATH={path} HOME={}\n{more}",
        folder.join("host").display(),
        folder.join("user.pub").display(),
        folder.join("home").display(),
    );
    let file = folder.join(&format!("{name}.conf"));
    fs::write(&file, configuration)?;
    // sshd wants to be called by its whole path.
    let sshd = ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let sshd = sshd.context("sshd (openssh-server) is not installed")?;
    let mut command = Command::new(sshd);
    command.arg("-D").arg("-E").arg(folder.join(&format!("{name}.log"))).arg("-f").arg(&file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let daemon = Daemon { process: command.spawn()?, port };
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(begun.elapsed() < Duration::from_secs(10), "sshd does not answer");
        std::thread::yield_now();
    }
    Ok(daemon)
}

/// The certificates of a node that holds every role (rke v0.2.8 `pki/util.go` `getCertKeys`), but for etcd's.
const NAMES: [&str; 10] = [
    "kube-ca",
    "kube-apiserver",
    "kube-apiserver-requestheader-ca",
    "kube-apiserver-proxy-client",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kube-node",
    "kube-admin",
    "kube-service-account-token",
];

/// Lays out what RKE puts on a node that holds every role, in a cluster of three etcd members.
fn rke_files(folder: &Folder) -> Result<()> {
    let members = addresses(3).into_iter().fold(String::new(), |text, address| {
        format!("{text}- {{address: {address}, user: u, role: [controlplane, etcd, worker]}}\n")
    });
    let inventory = Inventory::parse(&format!("nodes:\n{members}"), "cluster.yml")?.inventory;
    let etcd = inventory.nodes.iter().map(|node| format!("kube-etcd-{}", node.file_name_address()));
    let ssl = folder.join("rke/etc/kubernetes/ssl");
    fs::create_dir_all(&ssl)?;
    let authority_key = new_key(KeyAlgorithm::Rsa2048)?;
    let authority = authority(&authority_key)?;
    let signer = Signer::new(authority.as_bytes(), &authority_key)?;
    // One key serves for all: its size is what counts here.
    let key = new_key(KeyAlgorithm::Rsa2048)?;
    let not_after = Timestamp::now() + SignedDuration::from_hours(24 * 3650);
    for (name, serial) in NAMES.into_iter().map(str::to_owned).chain(etcd).zip(1..) {
        let (certificate, key) = match leaf(&name, &inventory) {
            Some(leaf) => (signer.issue(&leaf, SubjectKey::Pem(&key), serial, not_after)?.to_pem(), &key),
            None => (authority.clone(), &authority_key),
        };
        fs::write(ssl.join(format!("{name}.pem")), certificate)?;
        fs::write(ssl.join(format!("{name}-key.pem")), key.as_bytes())?;
    }
    Ok(())
}

/// Makes the certificate of a CA.
fn authority(key: &str) -> Result<String> {
    let key = rcgen::KeyPair::from_pem(key)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "kube-ca");
    Ok(params.self_signed(&key)?.pem())
}

/// Writes a stand-in of docker, which answers what a node's would to the look; it costs a shell a call, as docker costs a process.
fn docker(folder: &Folder) -> Result<()> {
    let kubernetes = folder.join("rke/etc/kubernetes");
    let components =
        ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"];
    let (mut names, mut states) = (String::new(), String::new());
    for (name, id) in components.into_iter().zip(1..) {
        writeln!(names, "{id:064x} {name}")?;
        writeln!(
            states,
            "\"/{name}\"\t\"rancher/hyperkube:v1.11.6-rancher1\"\t{{\"Status\":\"running\",\"StartedAt\":\"2099-01-01T00:00:00Z\"}}\t0"
        )?;
        if ["etcd", "kube-apiserver", "kubelet", "kube-proxy"].contains(&name) {
            writeln!(states, "mount /{name} {}", kubernetes.display())?;
        }
    }
    let script = format!(
        "#!/bin/sh\ncase $* in\n'ps -a --no-trunc'*) cat <<'EOF'\n{names}EOF\n;;\n\
         'inspect --format {{{{json'*) cat <<'EOF'\n{states}EOF\n;;\n\
         exec*) echo 'https://127.0.0.1:2379 is healthy: successfully committed proposal: took = 1ms' ;;\nesac\n"
    );
    fs::create_dir_all(folder.join("bin"))?;
    let path = folder.join("bin/docker");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
