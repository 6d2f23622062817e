//! The operator's side: a home folder with a key and known hosts, and nodes that are reached from there.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certroll::command::DEFAULT_DOCKER_SOCKET;
use certroll::inventory::{Bastion, Node, NodeName, Role, Secret, SshCredentials};
use certroll::transport::{AskSecret, Question, Settings, Transport};
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey, PublicKeyBase64 as _};
use tempfile::TempDir;

use super::server::{Forwarding, Server};

/// Answers every question for a passphrase and counts them; what hosts ask has an answer each.
#[derive(Default)]
pub(super) struct Passphrases {
    pub(super) answer: Option<&'static str>,
    pub(super) asked: AtomicUsize,
    /// What hosts asked, as the operator read it.
    pub(super) prompts: Mutex<Vec<String>>,
    /// What is answered to the prompts of hosts, one after the other.
    pub(super) codes: Mutex<VecDeque<&'static str>>,
    /// How long the operator thinks about a prompt of a host.
    pub(super) thinks: Duration,
}

impl AskSecret for Passphrases {
    fn ask(&self, question: &Question) -> Option<Secret> {
        let Question::Passphrase { key } = question else {
            self.prompts.lock().unwrap().push(format!("{question} {:?}", question.echo()));
            std::thread::sleep(self.thinks);
            return self.codes.lock().unwrap().pop_front().map(|code| Secret::new(code.to_owned()));
        };
        assert!(key.contains("id_key"), "{key}");
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.answer.map(|answer| Secret::new(answer.to_owned()))
    }
}

/// A home folder with a key, and what is set there.
pub(super) struct Operator {
    pub(super) home: TempDir,
    pub(super) key: PrivateKey,
    pub(super) passphrases: Arc<Passphrases>,
}

pub(super) fn random(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), algorithm).unwrap()
}

pub(super) fn ed25519() -> PrivateKey {
    random(Algorithm::Ed25519)
}

/// Returns a certificate for the user of the nodes.
pub(super) fn user_certificate(key: &PrivateKey, authority: &PrivateKey) -> Certificate {
    let public = key.public_key().key_data().clone();
    let mut builder = Builder::new_with_random_nonce(&mut safe_rng(), public, 0, u64::MAX - 1).unwrap();
    builder.cert_type(CertType::User).unwrap();
    builder.valid_principal("rke").unwrap();
    builder.sign(authority).unwrap()
}

impl Operator {
    pub(super) fn new() -> Self {
        Self::with_answer(None)
    }

    pub(super) fn with_answer(answer: Option<&'static str>) -> Self {
        let passphrases = Passphrases { answer, ..Passphrases::default() };
        Self::asking(passphrases)
    }

    pub(super) fn asking(passphrases: Passphrases) -> Self {
        let operator =
            Self { home: TempDir::new().unwrap(), key: ed25519(), passphrases: Arc::new(passphrases) };
        operator.write_key(&operator.key.to_openssh(LineEnding::LF).unwrap());
        operator
    }

    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    #[expect(clippy::disallowed_methods, reason = "the test lays out the operator's home")]
    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(super) fn remove(&self, name: &str) {
        let _ = std::fs::remove_file(self.path(name));
    }

    pub(super) fn write_key(&self, text: &str) {
        self.write("id_key", text);
    }

    pub(super) fn know(&self, address: SocketAddr, key: &PublicKey) {
        let line = known_line(address, key);
        let before = read(&self.path("known_hosts")).unwrap_or_default();
        self.write("known_hosts", &format!("{before}{line}\n"));
    }

    /// Notes the keys of a server under the address at which something in front of it listens.
    pub(super) fn know_as(&self, address: SocketAddr, server: &Server) {
        let known = read(&self.path("known_hosts")).unwrap();
        let own = format!("[{}]:{} ", server.address.ip(), server.address.port());
        let line = known.lines().find_map(|line| line.strip_prefix(&own)).unwrap();
        self.write("known_hosts", &format!("{known}[{}]:{} {line}\n", address.ip(), address.port()));
    }

    /// Starts a server that the operator knows and may enter.
    pub(super) async fn server(&self) -> Server {
        self.server_with(Forwarding::Allowed).await
    }

    pub(super) async fn server_with(&self, forwarding: Forwarding) -> Server {
        let host_key = ed25519();
        let server = Server::start(vec![host_key.clone()], self.key.public_key(), forwarding).await;
        self.know(server.address, host_key.public_key());
        server
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            known_hosts: vec![self.path("known_hosts")],
            ..Settings::new(self.home.path(), Arc::clone(&self.passphrases) as Arc<dyn AskSecret>)
        }
    }

    pub(super) fn transport(&self) -> Transport {
        Transport::new(self.settings(), None).unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "the test looks into the operator's home")]
pub(super) fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

pub(super) fn known_line(address: SocketAddr, key: &PublicKey) -> String {
    format!("[{}]:{} {} {}", address.ip(), address.port(), key.algorithm(), key.public_key_base64())
}

pub(super) fn credentials() -> SshCredentials {
    SshCredentials { key_path: Some("~/id_key".to_owned()), ..SshCredentials::default() }
}

pub(crate) fn node(address: SocketAddr) -> Node {
    Node {
        name: NodeName::new("node-1"),
        address: address.ip().to_string(),
        internal_address: address.ip().to_string(),
        port: address.port(),
        user: "rke".to_owned(),
        roles: vec![Role::Worker],
        docker_socket: DEFAULT_DOCKER_SOCKET.to_owned(),
        ssh: credentials(),
        labels: std::collections::BTreeMap::new(),
    }
}

pub(super) fn bastion(address: SocketAddr) -> Bastion {
    Bastion {
        address: address.ip().to_string(),
        port: address.port(),
        user: "rke".to_owned(),
        ssh: credentials(),
    }
}
