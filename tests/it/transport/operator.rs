//! The operator's side: a home folder with a key and known hosts, and nodes that are reached from there.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use certroll::command::DEFAULT_DOCKER_SOCKET;
use certroll::inventory::{Bastion, Node, NodeName, Role, Secret, SshCredentials};
use certroll::transport::{AskSecret, Settings, Transport};
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey, PublicKeyBase64 as _};
use tempfile::TempDir;

use super::server::{Forwarding, Server};

/// Answers every question for a passphrase, and counts them.
pub(super) struct Passphrases {
    pub(super) answer: Option<&'static str>,
    pub(super) asked: AtomicUsize,
}

impl AskSecret for Passphrases {
    fn passphrase(&self, key: &str) -> Option<Secret> {
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

impl Operator {
    pub(super) fn new() -> Self {
        Self::with_answer(None)
    }

    pub(super) fn with_answer(answer: Option<&'static str>) -> Self {
        let operator = Self {
            home: TempDir::new().unwrap(),
            key: ed25519(),
            passphrases: Arc::new(Passphrases { answer, asked: AtomicUsize::new(0) }),
        };
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

    pub(super) fn write_key(&self, text: &str) {
        self.write("id_key", text);
    }

    pub(super) fn know(&self, address: SocketAddr, key: &PublicKey) {
        let line = known_line(address, key);
        let before = read(&self.path("known_hosts")).unwrap_or_default();
        self.write("known_hosts", &format!("{before}{line}\n"));
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

pub(super) fn node(address: SocketAddr) -> Node {
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
