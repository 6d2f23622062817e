//! Keys are the private keys that certroll logs in with, and the OpenSSH certificates that belong to them.
//!
//! The connector has one [`KeyRing`], which reads and decrypts each key once for all nodes.
#![expect(clippy::disallowed_methods, reason = "this module owns the files of SSH keys")]

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, PublicKey, decode_secret_key};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::KeyError;
use super::login::{CertificateSource, KeySource};
use super::question::{Question, Questions};

/// How often a passphrase is asked for, as `ssh` does.
const PASSPHRASE_ATTEMPTS: usize = 3;

/// A private key that can sign.
#[derive(Clone)]
pub(super) struct LoadedKey {
    pub(super) key: Arc<PrivateKey>,
    /// What people call it: its path in backticks, or `ssh_key`.
    pub(super) name: String,
}

impl fmt::Display for LoadedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.name, describe(self.key.public_key()))
    }
}

/// Returns the kind and the fingerprint of a key, as `ssh-keygen -l` prints them.
pub(super) fn describe(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

/// The keys that were read so far.
pub(super) struct KeyRing {
    questions: Questions,
    loaded: Mutex<HashMap<KeyIdentity, Result<LoadedKey, KeyError>>>,
    looks: Mutex<HashMap<KeyIdentity, Arc<KeyLook>>>,
}

/// What can be seen of a key without a passphrase.
#[derive(Debug)]
pub(super) struct KeyLook {
    pub(super) form: Result<KeyForm, KeyError>,
    /// The public half, from the key itself or from `FILE.pub`.
    pub(super) public: Option<PublicKey>,
    /// The certificate beside the key, `FILE-cert.pub`.
    pub(super) certificate: Option<Certificate>,
}

/// What a text that should be a private key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyForm {
    /// It can be read, or what is wrong shows when it is.
    Plain,
    /// It needs a passphrase.
    Encrypted,
    /// It only points to a key in a FIDO token.
    SecurityKey,
    /// It is a public key.
    PublicHalf,
}

/// What tells two sources of keys apart without holding a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum KeyIdentity {
    File(PathBuf),
    Inline([u8; 32]),
}

impl KeyRing {
    pub(super) fn new(questions: Questions) -> Self {
        Self { questions, loaded: Mutex::default(), looks: Mutex::default() }
    }

    /// Returns what can be seen of a key; files are looked at once for all hosts.
    pub(super) async fn look(&self, source: &KeySource) -> Arc<KeyLook> {
        let mut looks = self.looks.lock().await;
        Arc::clone(looks.entry(source.identity()).or_insert_with(|| Arc::new(source.look())))
    }

    /// Returns a key, asking for its passphrase where it has one. Whoever wants a key meanwhile waits: one question at a time.
    pub(super) async fn load(&self, source: &KeySource) -> Result<LoadedKey, KeyError> {
        let mut loaded = self.loaded.lock().await;
        let identity = source.identity();
        if let Some(known) = loaded.get(&identity) {
            return known.clone();
        }
        let result = read_key(source, &self.questions).await;
        loaded.insert(identity, result.clone());
        result
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeyRing").finish_non_exhaustive()
    }
}

impl KeySource {
    fn identity(&self) -> KeyIdentity {
        match self {
            Self::Inline(secret) => KeyIdentity::Inline(Sha256::digest(secret.expose()).into()),
            Self::File { path, .. } | Self::DefaultFile(path) => KeyIdentity::File(path.clone()),
        }
    }

    /// Returns what people call the key.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Inline(_) => "`ssh_key`".to_owned(),
            Self::File { path, .. } | Self::DefaultFile(path) => format!("`{}`", path.display()),
        }
    }

    /// Returns what can be seen of the key without a passphrase.
    fn look(&self) -> KeyLook {
        let beside = || PublicKey::from_openssh(self.beside(".pub")?.trim()).ok();
        let certificate =
            self.beside("-cert.pub").and_then(|text| Certificate::from_openssh(text.trim()).ok());
        let (form, public) = match self.text() {
            Ok(text) => {
                let (form, public) = look_at(&text);
                (Ok(form), public.or_else(beside))
            }
            Err(error) => (Err(error), beside()),
        };
        KeyLook { form, public, certificate }
    }

    /// Returns the text of a file beside the key's.
    fn beside(&self, suffix: &str) -> Option<String> {
        let (Self::File { path, .. } | Self::DefaultFile(path)) = self else { return None };
        let mut path = path.clone().into_os_string();
        path.push(suffix);
        std::fs::read_to_string(path).ok()
    }

    /// Returns the text without the indentation that YAML may have left.
    fn text(&self) -> Result<Zeroizing<String>, KeyError> {
        let text = match self {
            Self::Inline(secret) => Zeroizing::new(secret.expose().to_owned()),
            Self::File { path, .. } | Self::DefaultFile(path) => self.read(path)?,
        };
        let mut lines = Zeroizing::new(String::with_capacity(text.len() + 1));
        for line in text.lines() {
            lines.push_str(line.trim());
            lines.push('\n');
        }
        Ok(lines)
    }

    fn read(&self, path: &Path) -> Result<Zeroizing<String>, KeyError> {
        std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| match (error.kind(), self) {
            (std::io::ErrorKind::NotFound, Self::File { path, origin }) => {
                KeyError::Missing { path: path.clone(), origin: origin.clone() }
            }
            _ => KeyError::Unreadable { key: self.name(), reason: error.to_string() },
        })
    }
}

async fn read_key(source: &KeySource, questions: &Questions) -> Result<LoadedKey, KeyError> {
    let name = source.name();
    let text = Arc::new(source.text()?);
    check_form(&text).map_err(|reason| KeyError::Invalid { key: name.clone(), reason })?;
    if !is_encrypted(&text) {
        return match decode_secret_key(&text, None) {
            Ok(key) => Ok(LoadedKey { key: Arc::new(key), name }),
            Err(error) => Err(KeyError::Invalid { key: name, reason: error.to_string() }),
        };
    }
    for _ in 0..PASSPHRASE_ATTEMPTS {
        let Some(passphrase) = questions.ask(Question::Passphrase { key: name.clone() }).await else {
            return Err(KeyError::NoPassphrase { key: name });
        };
        let text = Arc::clone(&text);
        // The derivation of a key takes long on purpose.
        let decoding =
            tokio::task::spawn_blocking(move || decode_secret_key(&text, Some(passphrase.expose())));
        if let Ok(Ok(key)) = decoding.await {
            return Ok(LoadedKey { key: Arc::new(key), name });
        }
    }
    Err(KeyError::WrongPassphrase { key: name })
}

/// Returns what is wrong with a text that the decoder would only misunderstand.
fn check_form(text: &str) -> Result<(), String> {
    let has = |part: &str| text.contains(part);
    if !has("PRIVATE KEY-----") && !has("PuTTY-User-Key-File-") {
        let public = has("ssh-") || has("ecdsa-") || has("BEGIN PUBLIC KEY") || has("BEGIN SSH2 PUBLIC KEY");
        return Err(if public { "it is a public key" } else { "it is not a PEM file" }.to_owned());
    }
    if has("BEGIN DSA PRIVATE KEY") {
        return Err("DSA keys are obsolete".to_owned());
    }
    if has("Proc-Type: 4,ENCRYPTED") && (!has("DEK-Info: AES-128-CBC") || has("BEGIN EC PRIVATE KEY")) {
        return Err("it is encrypted in an old way that is not understood".to_owned());
    }
    Ok(())
}

/// Returns what a text is, and the public half where it stands in it.
fn look_at(text: &str) -> (KeyForm, Option<PublicKey>) {
    if let Ok(key) = PublicKey::from_openssh(text.trim()) {
        return (KeyForm::PublicHalf, Some(key));
    }
    let public = PrivateKey::from_openssh(text.as_bytes()).ok().map(|key| key.public_key().clone());
    let form = match public.as_ref().map(PublicKey::algorithm) {
        Some(Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256) => KeyForm::SecurityKey,
        _ if is_encrypted(text) => KeyForm::Encrypted,
        _ => KeyForm::Plain,
    };
    (form, public)
}

fn is_encrypted(text: &str) -> bool {
    if text.contains("BEGIN OPENSSH PRIVATE KEY") {
        return PrivateKey::from_openssh(text.as_bytes()).is_ok_and(|key| key.is_encrypted());
    }
    let putty = text.contains("PuTTY-User-Key-File-") && !text.contains("\nEncryption: none");
    putty || text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// Returns the certificate of a key, which people call by a name.
pub(super) fn read_certificate(
    source: &CertificateSource,
    key: &PublicKey,
    key_name: &str,
) -> Result<Certificate, KeyError> {
    let name = match source {
        CertificateSource::Inline(_) => "`ssh_cert`".to_owned(),
        CertificateSource::File(path) => format!("`{}`", path.display()),
    };
    let unusable = |reason: String| KeyError::Certificate { certificate: name.clone(), reason };
    let text = match source {
        CertificateSource::Inline(text) => text.clone(),
        CertificateSource::File(path) => {
            std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?
        }
    };
    let certificate = Certificate::from_openssh(text.trim()).map_err(|error| unusable(error.to_string()))?;
    if certificate.public_key() != key.key_data() {
        return Err(unusable(format!("it belongs to another key than {key_name}")));
    }
    Ok(certificate)
}

#[cfg(test)]
mod tests;
