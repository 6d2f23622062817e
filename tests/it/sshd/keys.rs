//! What proves who the operator is: agents with many keys, encrypted keys, and what is said where it is not enough.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use russh::keys::ssh_key::LineEnding;
use russh::keys::{HashAlg, PrivateKey};

use super::daemon::{Daemon, write_secret};
use super::operator::{Operator, ed25519};

/// A real ssh-agent, which ends with its test.
struct Agent {
    process: Child,
    socket: PathBuf,
}

impl Agent {
    /// Starts an agent that holds some keys, and tells the operator's programs of it.
    fn start(operator: &mut Operator, keys: &[&PrivateKey]) -> Self {
        let socket = operator.path("agent");
        let mut command = Command::new("ssh-agent");
        command.args(["-D", "-a"]).arg(&socket).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        // It says where it listens once it does.
        let mut said = [0; 1];
        std::io::Read::read_exact(process.stdout.as_mut().unwrap(), &mut said).unwrap();
        operator.set("SSH_AUTH_SOCK", socket.display().to_string());
        let agent = Self { process, socket };
        for (index, key) in keys.iter().enumerate() {
            agent.add(&operator.path(&format!("agent-key-{index}")), key);
        }
        agent
    }

    fn add(&self, path: &Path, key: &PrivateKey) {
        write_secret(path, &key.to_openssh(LineEnding::LF).unwrap());
        let mut command = Command::new("ssh-add");
        command.arg("-q").arg(path).env("SSH_AUTH_SOCK", &self.socket).stderr(Stdio::null());
        assert!(command.status().unwrap().success());
        std::fs::remove_file(path).unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn the_named_key_comes_before_those_of_a_full_agent() {
    let Some(mut operator) = Operator::new() else { return };
    let others: Vec<PrivateKey> = (0..5).map(|_| ed25519()).collect();
    let _agent = Agent::start(&mut operator, &others.iter().collect::<Vec<_>>());
    let daemon = Daemon::start(&operator, "MaxAuthTries 2");
    operator.cluster(&[daemon.address]);
    operator.reaches(&["--ssh-agent"]).await;
    let log = daemon.finish();
    assert!(!log.contains("Failed publickey"), "{log}");
}

#[tokio::test]
async fn a_key_that_the_agent_holds_alone() {
    let Some(mut operator) = Operator::new() else { return };
    let (other, right) = (ed25519(), operator.key.clone());
    let _agent = Agent::start(&mut operator, &[&other, &right]);
    let daemon = Daemon::start(&operator, "MaxAuthTries 3");
    operator.cluster(&[daemon.address]);
    operator.write("id_key", "");
    operator.reaches(&["--ssh-agent"]).await;
}

#[tokio::test]
async fn an_agent_whose_right_key_comes_too_late() {
    let Some(mut operator) = Operator::new() else { return };
    let others: Vec<PrivateKey> = (0..5).map(|_| ed25519()).collect();
    let mut keys: Vec<&PrivateKey> = others.iter().collect();
    let right = operator.key.clone();
    keys.push(&right);
    let _agent = Agent::start(&mut operator, &keys);
    let daemon = Daemon::start(&operator, "MaxAuthTries 2");
    operator.cluster(&[daemon.address]);
    std::fs::remove_file(operator.path("id_key")).unwrap();
    let error = operator.fails(&["--ssh-agent"]).await;
    for part in [
        "does not let",
        "Too many authentication failures",
        &others[0].fingerprint(HashAlg::Sha256).to_string(),
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let log = daemon.finish();
    assert_eq!(log.matches("Connection from ").count(), 1, "it is not tried again: {log}");
}
