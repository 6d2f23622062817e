//! Host keys are what hosts prove themselves with; here they are compared with known_hosts under the policy of the settings.
//!
//! The connector makes one [`HostKeys`] for all connections; the handshake of each asks it.
#![expect(clippy::disallowed_methods, reason = "this module owns the known_hosts files")]

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey, PublicKeyBase64 as _};

use super::error::{ChangedHost, HostKey, UnknownHost};
use super::known_hosts::{KnownHosts, Place, Verdict, lookup_name};
use super::login::Login;
use super::{Endpoint, HostKeyPolicy, TransportError};

/// The kinds of host keys that are accepted, the preferred ones first. SHA-1 signatures come last: OpenSSH before 7.2 has no
/// others for RSA keys.
const ALGORITHMS: [Algorithm; 7] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    Algorithm::Rsa { hash: None },
];

/// The known_hosts files, read once, and the policy for keys that they do not name.
#[derive(Debug)]
pub(super) struct HostKeys {
    /// Where new keys go, and what messages name.
    first_file: PathBuf,
    policy: HostKeyPolicy,
    known: Mutex<KnownHosts>,
}

impl HostKeys {
    /// Reads the files. One that does not exist is empty; one that cannot be read is an error, for it may hold a revocation.
    pub(super) fn read(files: &[PathBuf], policy: HostKeyPolicy) -> Result<Self, TransportError> {
        let mut known = KnownHosts::default();
        for file in files {
            match fs::read(file) {
                Ok(bytes) => known.extend(file, &String::from_utf8_lossy(&bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(TransportError::KnownHosts { path: file.clone(), reason: error.to_string() });
                }
            }
        }
        let first_file = files.first().cloned().unwrap_or_default();
        Ok(Self { first_file, policy, known: Mutex::new(known) })
    }

    /// Returns the kinds of keys to ask a host for: those it is known by come first, so that it shows a key that can be compared.
    pub(super) fn preferred(&self, at: &Endpoint) -> Vec<Algorithm> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).algorithms(at);
        let is_known = |offered: &Algorithm| {
            // An RSA key signs with any of the three hashes.
            let same_rsa = |kind| matches!((kind, offered), (&Algorithm::Rsa { .. }, Algorithm::Rsa { .. }));
            known.iter().any(|kind| kind == offered || same_rsa(kind))
        };
        let (mut first, rest): (Vec<_>, Vec<_>) = ALGORITHMS.into_iter().partition(is_known);
        first.extend(rest);
        first
    }

    /// Decides on the key that a host shows; with `accept-new`, a new host's key is appended to the first file.
    pub(super) fn check(&self, login: &Login, key: &PublicKey) -> Result<(), TransportError> {
        let at = login.at.clone();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match (known.verdict(&at, key), self.policy) {
            (Verdict::Revoked { place }, _) => {
                Err(TransportError::HostKeyRevoked { at, key: HostKey::of(key), place })
            }
            (Verdict::Known, _) | (_, HostKeyPolicy::Off) => Ok(()),
            (Verdict::Changed { place, algorithm }, _) => {
                Err(TransportError::HostKeyChanged(Box::new(ChangedHost {
                    at,
                    key: HostKey::of(key),
                    known_as: algorithm.to_string(),
                    place,
                })))
            }
            (Verdict::Unknown { .. }, HostKeyPolicy::AcceptNew) => {
                let line = format!("{} {} {}", lookup_name(&at), key.algorithm(), key.public_key_base64());
                let file = self.first_file.clone();
                match append_line(&file, &line) {
                    Ok(number) => {
                        known.add(Place { file, line: number }, &line);
                        Ok(())
                    }
                    Err(error) => Err(TransportError::KnownHosts { path: file, reason: error.to_string() }),
                }
            }
            (Verdict::Unknown { authority }, HostKeyPolicy::Strict) => {
                Err(TransportError::HostKeyUnknown(Box::new(UnknownHost {
                    at,
                    user: login.user.clone(),
                    key: HostKey::of(key),
                    file: self.first_file.clone(),
                    authority,
                })))
            }
        }
    }
}

/// Appends a line in one write, so that a concurrent `ssh` cannot split it, and returns its number; makes the file and its folder
/// for the owner alone.
fn append_line(path: &Path, line: &str) -> io::Result<usize> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut before = Vec::new();
    file.read_to_end(&mut before)?;
    let separator = if before.last().is_none_or(|byte| *byte == b'\n') { "" } else { "\n" };
    file.write_all(format!("{separator}{line}\n").as_bytes())?;
    Ok(String::from_utf8_lossy(&before).lines().count() + 1)
}
