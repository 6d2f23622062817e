//! A login is where one hop is entered, as whom, and with which keys.
//!
//! It is made from a node, a bastion or a `--jump` under the settings; the connector carries it out.

use std::path::PathBuf;

use crate::inventory::{Bastion, Node, Secret, SshCredentials};

use super::jump::Jump;
use super::{AgentUse, Endpoint, Settings};

/// The names of the keys that OpenSSH tries when nobody names one, in `~/.ssh/`.
const DEFAULT_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// One hop: an address, a user, and what proves that it is them.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) at: Endpoint,
    pub(super) user: String,
    /// The private keys in the order in which they are tried.
    pub(super) keys: Vec<KeySource>,
    /// The OpenSSH certificate that belongs to the key.
    pub(super) certificate: Option<CertificateSource>,
    pub(super) agent: AgentUse,
}

/// Where a private key comes from.
#[derive(Debug, Clone)]
pub(super) enum KeySource {
    /// `ssh_key` of the inventory.
    Inline(Secret),
    /// A file, and who named it.
    File { path: PathBuf, origin: &'static str },
    /// A file that nobody named: it may be missing.
    DefaultFile(PathBuf),
}

/// Where an OpenSSH certificate comes from.
#[derive(Debug, Clone)]
pub(super) enum CertificateSource {
    /// `ssh_cert` of the inventory.
    Inline(String),
    /// `ssh_cert_path` of the inventory.
    File(PathBuf),
}

impl Login {
    /// Returns the login of a node; `--ssh-user` and `--ssh-key` outrank the inventory.
    pub(super) fn for_node(node: &Node, settings: &Settings) -> Self {
        let user = settings.user.clone().unwrap_or_else(|| node.user.clone());
        let login = Self::new(Endpoint::new(&node.address, node.port), user, &node.ssh, settings);
        match &settings.key_path {
            Some(path) => login.with_key(path.clone()),
            None => login,
        }
    }

    /// Returns the login of the inventory's bastion, which keeps the user and the key that the inventory gives it.
    fn for_bastion(bastion: &Bastion, settings: &Settings) -> Self {
        let at = Endpoint::new(&bastion.address, bastion.port);
        Self::new(at, bastion.user.clone(), &bastion.ssh, settings)
    }

    /// Returns the login of a `--jump`: `--ssh-user` and `--ssh-key`, else what the inventory says of its bastion, else what
    /// OpenSSH would try.
    fn for_jump(jump: &Jump, settings: &Settings, bastion: Option<&Bastion>) -> Self {
        let user = jump.user.clone().or_else(|| settings.user.clone());
        let user = user.or_else(|| bastion.map(|bastion| bastion.user.clone()));
        let user = user.unwrap_or_else(|| settings.login_name.clone());
        let credentials = bastion.map(|bastion| bastion.ssh.clone()).unwrap_or_default();
        let mut login =
            Self::new(Endpoint::new(&jump.host, jump.port.unwrap_or(22)), user, &credentials, settings);
        if let Some(path) = &settings.key_path {
            return login.with_key(path.clone());
        }
        if login.keys.is_empty() {
            let default_key = |name| KeySource::DefaultFile(settings.home.join(".ssh").join(name));
            login.keys = DEFAULT_KEYS.into_iter().map(default_key).collect();
        }
        login
    }

    fn new(at: Endpoint, user: String, credentials: &SshCredentials, settings: &Settings) -> Self {
        let from_home = |path: &String| match path.strip_prefix("~/") {
            Some(rest) => settings.home.join(rest),
            None => PathBuf::from(path),
        };
        // RKE reads the path only where the file has no key itself, and its default path is always filled in.
        let key = match (&credentials.key, &credentials.key_path) {
            (Some(key), _) => Some(KeySource::Inline(key.clone())),
            (None, Some(path)) => Some(KeySource::File { path: from_home(path), origin: "`ssh_key_path`" }),
            (None, None) => None,
        };
        let inline = credentials.certificate.clone().map(CertificateSource::Inline);
        let in_file = || credentials.certificate_path.as_ref().map(from_home).map(CertificateSource::File);
        let agent = if credentials.agent { AgentUse::Always } else { settings.agent };
        Self { at, user, keys: key.into_iter().collect(), certificate: inline.or_else(in_file), agent }
    }

    fn with_key(self, path: PathBuf) -> Self {
        Self { keys: vec![KeySource::File { path, origin: "`--ssh-key`" }], certificate: None, ..self }
    }
}

/// Returns the jump hosts in the order in which they are passed.
pub(super) fn jump_logins(settings: &Settings, bastion: Option<&Bastion>) -> Vec<Login> {
    match &settings.jumps {
        Some(jumps) => jumps.iter().map(|jump| Login::for_jump(jump, settings, bastion)).collect(),
        None => bastion.map(|bastion| Login::for_bastion(bastion, settings)).into_iter().collect(),
    }
}
