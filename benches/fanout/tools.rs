//! The tools of the field, and how each runs `true` on a list of hosts; none takes a host key that known_hosts does not name, but
//! for the two Python libraries' own ways.

use std::path::PathBuf;
use std::process::Command;

use super::hosts::{Crowd, Hosts};
use super::{PARALLEL, floor};

/// A program that runs a command on many hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Floor,
    Certroll,
    XargsSsh,
    Pdsh,
    Clush,
    Pssh,
    ParallelSsh,
    Pyinfra,
    Ansible,
    Bssh,
}

impl Tool {
    /// Every tool, the floor first.
    pub(crate) const ALL: [Self; 10] = [
        Self::Floor,
        Self::Certroll,
        Self::Bssh,
        Self::ParallelSsh,
        Self::Pyinfra,
        Self::Pssh,
        Self::Pdsh,
        Self::Clush,
        Self::XargsSsh,
        Self::Ansible,
    ];

    /// Returns what people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "bare loop",
            Self::Certroll => "certroll exec",
            Self::XargsSsh => "xargs and ssh",
            Self::Pdsh => "pdsh",
            Self::Clush => "clush",
            Self::Pssh => "pssh",
            Self::ParallelSsh => "parallel-ssh",
            Self::Pyinfra => "pyinfra",
            Self::Ansible => "ansible raw",
            Self::Bssh => "bssh",
        }
    }

    /// Returns where it comes from.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Floor | Self::Certroll => "this program",
            Self::XargsSsh => "findutils, openssh-client",
            Self::Pdsh => "apt-get install pdsh",
            Self::Clush => "apt-get install clustershell",
            Self::Pssh => "apt-get install pssh",
            Self::ParallelSsh => "pip install parallel-ssh, for the python3 in PATH",
            Self::Pyinfra => "pip install pyinfra",
            Self::Ansible => "apt-get install ansible-core",
            Self::Bssh => "cargo install bssh",
        }
    }

    fn is_installed(self) -> bool {
        match self {
            Self::Floor | Self::Certroll => true,
            Self::XargsSsh => installed("xargs") && installed("ssh"),
            Self::Pdsh => installed("pdsh"),
            Self::Clush => installed("clush"),
            // Debian's name for it; the library of the same name has no such command.
            Self::Pssh => installed("parallel-ssh"),
            Self::ParallelSsh => quiet("python3", &["-c", "import pssh.clients"]),
            Self::Pyinfra => installed("pyinfra"),
            Self::Ansible => installed("ansible"),
            Self::Bssh => installed("bssh"),
        }
    }

    /// Returns the command that runs `true` on all hosts, where the tool is installed.
    pub(crate) fn command(self, hosts: &Hosts<'_>, crowd: &Crowd) -> Option<Command> {
        self.is_installed().then(|| self.installed_command(hosts, crowd).ok()).flatten()
    }

    fn installed_command(self, hosts: &Hosts<'_>, crowd: &Crowd) -> anyhow::Result<Command> {
        let port = crowd.port.to_string();
        let parallel = PARALLEL.to_string();
        let mut command;
        match self {
            Self::Floor => {
                command = Command::new(std::env::current_exe()?);
                command.arg(floor::WORD).arg(&crowd.list).arg(hosts.key());
                command.args([&hosts.user, &port, &parallel]);
            }
            Self::Certroll => command = hosts.exec(crowd),
            Self::XargsSsh => {
                command = Command::new("xargs");
                command.arg("-a").arg(&crowd.list).args(["-P", &parallel, "-I", "{}", "ssh"]);
                command.args(ssh_options(hosts, &port)).args(["{}", "true"]);
            }
            Self::Pdsh => {
                command = Command::new("pdsh");
                command.args([
                    "-R",
                    "ssh",
                    "-S",
                    "-f",
                    &parallel,
                    "-w",
                    &format!("^{}", crowd.list.display()),
                    "true",
                ]);
                command.env("PDSH_SSH_ARGS_APPEND", ssh_options(hosts, &port).join(" "));
            }
            Self::Clush => {
                command = Command::new("clush");
                command.args(["-S", "-q", "-f", &parallel, "--hostfile"]).arg(&crowd.list);
                command.args(["-o", &ssh_options(hosts, &port).join(" "), "true"]);
            }
            Self::Pssh => {
                command = Command::new("parallel-ssh");
                command.arg("-h").arg(&crowd.list).args([
                    "-p",
                    &parallel,
                    "-x",
                    &ssh_options(hosts, &port).join(" "),
                    "true",
                ]);
            }
            Self::ParallelSsh => {
                let script = hosts.file("parallel_ssh.py", PARALLEL_SSH)?;
                command = Command::new("python3");
                command.arg(script).arg(&crowd.list).arg(hosts.key()).args([&hosts.user, &port, &parallel]);
            }
            Self::Pyinfra => {
                command = Command::new("pyinfra");
                command
                    .args(["--parallel", &parallel])
                    .arg(pyinfra_inventory(hosts, crowd)?)
                    .args(["exec", "--", "true"]);
            }
            Self::Ansible => {
                command = Command::new("ansible");
                command
                    .args(["all", "-f", &parallel, "-m", "raw", "-a", "true", "-i"])
                    .arg(ansible_inventory(hosts, crowd)?);
                let known_hosts = hosts.known_hosts();
                // Each host is asked once here: a master connection would only cost.
                command.env(
                    "ANSIBLE_SSH_ARGS",
                    format!("-F none -o ControlMaster=no -o UserKnownHostsFile={}", known_hosts.display()),
                );
            }
            Self::Bssh => {
                command = Command::new("bssh");
                let targets: Vec<String> = crowd
                    .addresses
                    .iter()
                    .map(|address| format!("{}@{address}:{port}", hosts.user))
                    .collect();
                command.arg("-H").arg(targets.join(",")).arg("-i").arg(hosts.key());
                command.args(["--parallel", &parallel, "--strict-host-key-checking", "no", "exec", "true"]);
            }
        }
        // Tools that read these would find keys and settings of their own.
        command.env_remove("SSH_AUTH_SOCK");
        Ok(command)
    }
}

/// The whole of a program for the library parallel-ssh.
const PARALLEL_SSH: &str = "\
import sys
from pssh.clients import ParallelSSHClient

hosts, key, user, port, parallel = sys.argv[1:]
client = ParallelSSHClient(
    open(hosts).read().split(), user=user, port=int(port), pkey=key, pool_size=int(parallel), allow_agent=False
)
output = client.run_command('true')
client.join()
sys.exit(any(host.exit_code for host in output))
";

fn ssh_options(hosts: &Hosts<'_>, port: &str) -> Vec<String> {
    let options = [
        "-F none -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes -o LogLevel=ERROR"
            .to_owned(),
        format!("-o UserKnownHostsFile={}", hosts.known_hosts().display()),
        format!("-i {} -p {port} -l {}", hosts.key().display(), hosts.user),
    ];
    options.join(" ").split(' ').map(str::to_owned).collect()
}

fn ansible_inventory(hosts: &Hosts<'_>, crowd: &Crowd) -> anyhow::Result<PathBuf> {
    let text = format!(
        "{}\n[all:vars]\nansible_port={}\nansible_user={}\nansible_ssh_private_key_file={}\n",
        crowd.addresses.join("\n"),
        crowd.port,
        hosts.user,
        hosts.key().display()
    );
    hosts.file(&format!("ansible-{}-{}.ini", crowd.port, crowd.addresses.len()), &text)
}

fn pyinfra_inventory(hosts: &Hosts<'_>, crowd: &Crowd) -> anyhow::Result<PathBuf> {
    let data = format!(
        "{{'ssh_port': {}, 'ssh_user': '{}', 'ssh_key': '{}', 'ssh_known_hosts_file': '{}', 'ssh_strict_host_key_checking': 'yes'}}",
        crowd.port,
        hosts.user,
        hosts.key().display(),
        hosts.known_hosts().display()
    );
    let names: Vec<String> = crowd.addresses.iter().map(|address| format!("'{address}'")).collect();
    let text = format!("DATA = {data}\nhosts = [(name, DATA) for name in [{}]]\n", names.join(", "));
    hosts.file(&format!("pyinfra_{}_{}.py", crowd.port, crowd.addresses.len()), &text)
}

fn installed(program: &str) -> bool {
    quiet("sh", &["-c", &format!("command -v {program}")])
}

fn quiet(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// Returns the first line of what a program says of its version.
pub(crate) fn version(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else { return String::new() };
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned()
}

/// Returns the versions of all tools that are installed.
pub(crate) fn versions() -> String {
    let parallel_ssh =
        "from importlib.metadata import version; print('parallel-ssh', version('parallel-ssh'))";
    let asked: [(Tool, &str, &[&str]); 8] = [
        (Tool::Bssh, "bssh", &["--version"]),
        (Tool::ParallelSsh, "python3", &["-c", parallel_ssh]),
        (Tool::Pyinfra, "pyinfra", &["--version"]),
        (Tool::Pssh, "parallel-ssh", &["--version"]),
        (Tool::Pdsh, "pdsh", &["-V"]),
        (Tool::Clush, "clush", &["--version"]),
        (Tool::XargsSsh, "ssh", &["-V"]),
        (Tool::Ansible, "ansible", &["--version"]),
    ];
    let versions = asked.iter().filter(|(tool, ..)| tool.is_installed());
    let lines: Vec<String> = versions
        .map(|(tool, program, arguments)| format!("{}: {}", tool.name(), version(program, arguments)))
        .collect();
    lines.join("\n")
}
