//! Accounts as they are on nodes: login shells that are not POSIX or none at all, sudo with a password, sudo that demands a terminal.
//!
//! The accounts exist for one sshd alone: it has its own /etc/passwd, /etc/shadow and /etc/sudoers, mounted over those of this
//! machine where nobody else sees them. That takes root.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::daemon::{Daemon, Setup, can_mount, skipped};
use super::operator::Operator;

/// The password of every account, and its hash.
pub(super) const PASSWORD: &str = "open-sesame";
const HASH: &str =
    "$6$certroll$c2xpuqXCVfyg.EYHdpeamyfODeouGmIE3hz7QELWE2IZDVyguDhAD43x.TueQuzW/RYe4Ej5QC1EI7ZdlRJBF0";

/// The first id of the accounts, which nobody has here.
const FIRST_ID: usize = 47_000;

/// An account: its name, its shell, and the line of sudoers that follows its name.
pub(super) type Account = (&'static str, &'static str, &'static str);

const NO_PASSWORD: &str = "ALL=(ALL) NOPASSWD: ALL";

/// An sshd with an address for each account.
pub(super) struct Accounts {
    pub(super) daemon: Daemon,
    names: Vec<&'static str>,
}

impl Accounts {
    /// Starts an sshd that knows the accounts, with lines of sudoers; says so where it cannot.
    fn start(operator: &Operator, accounts: &[Account], sudoers: &str) -> Option<Self> {
        Self::new(operator, accounts, sudoers, "")
    }

    /// Starts an sshd that knows the accounts, with lines of `sshd_config`.
    pub(super) fn configured(operator: &Operator, accounts: &[Account], config: &str) -> Option<Self> {
        Self::new(operator, accounts, "", config)
    }

    fn new(operator: &Operator, accounts: &[Account], sudoers: &str, config: &str) -> Option<Self> {
        if !can_mount() || !Path::new("/etc/sudoers").exists() {
            skipped(
                "accounts with shells and sudo of their own: this takes root, `unshare --mount` and sudo",
            );
            return None;
        }
        let (mut passwd, mut shadow) = (contents("/etc/passwd"), contents("/etc/shadow"));
        let mut sudoers = format!("{sudoers}\nroot ALL=(ALL) ALL\n");
        for (index, (name, shell, rights)) in accounts.iter().enumerate() {
            let id = FIRST_ID + index;
            writeln!(passwd, "{name}:x:{id}:{id}::/:{shell}").unwrap();
            writeln!(shadow, "{name}:{HASH}:20000:0:99999:7:::").unwrap();
            if !rights.is_empty() {
                writeln!(sudoers, "{name} {rights}").unwrap();
            }
        }
        let files = [("/etc/passwd", passwd), ("/etc/shadow", shadow), ("/etc/sudoers", sudoers)];
        let setup = Setup { config, files: &files, further: accounts.len() - 1, ..Setup::default() };
        let daemon = Daemon::known(operator, &setup);
        let names: Vec<_> = accounts.iter().map(|(name, ..)| *name).collect();
        let logins: Vec<(SocketAddr, &str)> = daemon.addresses.iter().copied().zip(names.clone()).collect();
        operator.cluster_of("", &logins);
        Some(Self { daemon, names })
    }

    /// Looks at the nodes, and returns for each account how root is reached, or what is said.
    async fn check(&self, operator: &Operator, options: &[&str], status: i32) -> Vec<(&'static str, String)> {
        let seen =
            operator.certroll(&[&["check", "-o", "json"], options].concat()).await.expect(status).json();
        let nodes = seen["nodes"].as_array().unwrap();
        let told = nodes.iter().map(|node| {
            let access = node["access"].as_str().or(node["error"].as_str());
            access.unwrap_or_default().to_owned()
        });
        self.names.iter().copied().zip(told).collect()
    }
}

fn contents(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap();
    if text.ends_with('\n') { text } else { text + "\n" }
}

/// Returns the accounts whose shells are here; says which are not.
fn with_shells(accounts: &[Account]) -> Vec<Account> {
    let (here, missing): (Vec<Account>, Vec<Account>) =
        accounts.iter().partition(|(_, shell, _)| Path::new(shell).exists());
    for (_, shell, _) in missing {
        skipped(&format!("an account whose shell is `{shell}`, which is not installed"));
    }
    here
}

#[tokio::test]
async fn login_shells_that_are_not_posix() {
    let Some(operator) = Operator::new() else { return };
    let accounts = with_shells(&[
        ("in-sh", "/bin/sh", NO_PASSWORD),
        ("in-bash", "/bin/bash", NO_PASSWORD),
        ("in-fish", "/usr/bin/fish", NO_PASSWORD),
        ("in-csh", "/bin/csh", NO_PASSWORD),
        ("in-tcsh", "/bin/tcsh", NO_PASSWORD),
    ]);
    let Some(sshd) = Accounts::start(&operator, &accounts, "") else { return };
    for (name, access) in sshd.check(&operator, &[], 3).await {
        assert_eq!(access, "sudo", "{name}");
    }
    let (status, heard) = operator.exec(&[], "echo here; exit 0").await;
    for (node, (name, ..)) in heard.iter().zip(&accounts) {
        assert_eq!((node.status, node.stdout.as_str()), (Some(0), "here\n"), "{name}: {node:?}");
    }
    assert_eq!(status, 0);
    let (status, heard) = operator.exec(&["--as-root"], "id -u; a=b; echo \"$a\"").await;
    for (node, (name, ..)) in heard.iter().zip(&accounts) {
        assert_eq!((node.status, node.stdout.as_str()), (Some(0), "0\nb\n"), "{name}: {node:?}");
    }
    assert_eq!(status, 0);
}

#[tokio::test]
async fn accounts_that_let_nobody_work() {
    let Some(operator) = Operator::new() else { return };
    let accounts = [
        ("no-login", "/usr/sbin/nologin", NO_PASSWORD),
        ("false", "/bin/false", NO_PASSWORD),
        ("no-shell", "/nonexistent/sh", NO_PASSWORD),
        ("no-rights", "/bin/sh", ""),
    ];
    let Some(sshd) = Accounts::start(&operator, &accounts, "") else { return };
    let told = sshd.check(&operator, &[], 1).await;
    for ((name, told), part) in told.iter().zip([
        "This account is currently not available",
        "did not run what it was given",
        "does not let `no-shell` in",
        "no way to root",
    ]) {
        assert!(told.contains(part) && told.lines().count() == 1, "{name}: {told}");
    }
    let log = sshd.daemon.finish();
    assert!(log.contains("shell /nonexistent/sh does not exist"), "{log}");
}

#[tokio::test]
async fn sudo_that_asks_for_a_password_or_demands_a_terminal() {
    let Some(operator) = Operator::new() else { return };
    let with_password = "ALL=(ALL) ALL";
    let accounts = with_shells(&[
        ("asked", "/bin/sh", with_password),
        ("asked-bash", "/bin/bash", with_password),
        ("asked-fish", "/usr/bin/fish", with_password),
        ("asked-csh", "/bin/csh", with_password),
        ("not-asked", "/bin/sh", NO_PASSWORD),
    ]);
    operator.write("password", &format!("{PASSWORD}\n"));
    for sudoers in ["", "Defaults requiretty", "Defaults use_pty", "Defaults requiretty,use_pty"] {
        let Some(sshd) = Accounts::start(&operator, &accounts, sudoers) else { return };
        for (name, access) in sshd.check(&operator, &["--become-password-file", "password"], 3).await {
            assert_eq!(access, "sudo", "`{sudoers}`: {name}");
        }
        for (name, access) in sshd.check(&operator, &[], 1).await {
            let expected = if name == "not-asked" { "sudo" } else { "password" };
            assert!(access.contains(expected) && !access.contains(PASSWORD), "`{sudoers}`: {name}: {access}");
        }
        let options = ["--as-root", "--become-password-file", "password"];
        let (status, heard) = operator.exec(&options, "id -u").await;
        for (node, (name, ..)) in heard.iter().zip(&accounts) {
            assert_eq!(
                (node.status, node.stdout.as_str()),
                (Some(0), "0\n"),
                "`{sudoers}`: {name}: {node:?}"
            );
        }
        assert_eq!(status, 0);
    }
}

#[tokio::test]
async fn a_wrong_password_of_sudo_is_given_once() {
    let Some(operator) = Operator::new() else { return };
    let accounts = [("asked", "/bin/sh", "ALL=(ALL) ALL")];
    operator.write("password", "wrong-and-secret\n");
    let Some(sshd) = Accounts::start(&operator, &accounts, "") else { return };
    let told = sshd.check(&operator, &["--become-password-file", "password"], 1).await;
    assert!(told[0].1.contains("password") && !told[0].1.contains("secret"), "{told:?}");
    assert!(!sshd.daemon.finish().contains("wrong-and-secret"));
}
