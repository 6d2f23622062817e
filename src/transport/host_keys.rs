//! Host keys are what hosts prove themselves with; here they are compared with known_hosts under the policy of the settings.
//!
//! The connector has one [`HostKeys`] for each list of files; the handshake of each connection asks its own.
#![expect(clippy::disallowed_methods, reason = "this module owns the known_hosts files")]

use std::collections::HashMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use russh::keys::{Algorithm, Certificate, EcdsaCurve, HashAlg, PublicKey, PublicKeyBase64 as _};

use super::error::{ChangedHost, HostKey, RefusedCertificate, UnknownHost};
use super::host_certificates::flaw;
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

/// What is known of hosts, for each list of files that some host has; each list is read once for all of them.
#[derive(Debug, Default)]
pub(super) struct KnownKeys {
    read: Mutex<HashMap<Vec<PathBuf>, Reading>>,
}

/// What came of reading a list of files.
type Reading = Result<Arc<HostKeys>, TransportError>;

impl KnownKeys {
    /// Returns what the files say.
    pub(super) fn of(&self, files: &[PathBuf]) -> Result<Arc<HostKeys>, TransportError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = read.get(files) {
            return keys.clone();
        }
        let keys = HostKeys::read(files).map(Arc::new);
        read.insert(files.to_owned(), keys.clone());
        keys
    }
}

/// The files of one list, read once.
#[derive(Debug)]
pub(super) struct HostKeys {
    /// Where new keys go, and what messages name.
    first_file: PathBuf,
    known: Mutex<KnownHosts>,
}

impl HostKeys {
    /// Reads the files. One that does not exist is empty; one that cannot be read is an error, for it may hold a revocation.
    fn read(files: &[PathBuf]) -> Result<Self, TransportError> {
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
        Ok(Self { first_file, known: Mutex::new(known) })
    }

    /// Returns the kinds of keys to ask a host for: those it is known by come first, so that it shows a key that can be compared.
    pub(super) fn preferred(&self, at: &Endpoint) -> Vec<Algorithm> {
        let known = self.known().algorithms(at);
        let is_known = |offered: &Algorithm| {
            // An RSA key signs with any of the three hashes.
            let same_rsa = |kind| matches!((kind, offered), (&Algorithm::Rsa { .. }, Algorithm::Rsa { .. }));
            known.iter().any(|kind| kind == offered || same_rsa(kind))
        };
        let (mut first, rest): (Vec<_>, Vec<_>) = ALGORITHMS.into_iter().partition(is_known);
        first.extend(rest);
        first
    }

    /// Returns the kinds of certificates to ask a host for: all where known_hosts names an authority over it, and none elsewhere, for
    /// then it shows its key.
    pub(super) fn preferred_certificates(&self, at: &Endpoint) -> Vec<Algorithm> {
        let mut kinds = if self.known().has_authority(at) { ALGORITHMS.to_vec() } else { Vec::new() };
        kinds.retain(|kind| *kind != Algorithm::Rsa { hash: None });
        kinds
    }

    /// Decides on the certificate that a host shows. One that no authority over the host has signed says nothing, and one with a flaw is
    /// not believed: then the key in it has to be known by itself, as with OpenSSH.
    pub(super) fn check_certificate(
        &self,
        login: &Login,
        certificate: &Certificate,
        now: Timestamp,
    ) -> Result<(), TransportError> {
        let at = &login.known_as;
        let authority = certificate.signature_key();
        let place = {
            let known = self.known();
            if let Some((key, place)) = known.revoked(at, [certificate.public_key(), authority]) {
                let (at, key) = (login.at.clone(), HostKey::of(&key.clone().into()));
                return Err(TransportError::HostKeyRevoked { at, key, place });
            }
            known.authority(at, authority).cloned()
        };
        let flaw = match &place {
            Some(_) => match flaw(certificate, &at.host, now) {
                None => return Ok(()),
                flaw => flaw,
            },
            None => None,
        };
        let authority = HostKey::of(&authority.clone().into());
        let refused = self.check(login, &certificate.public_key().clone().into());
        refused.map_err(|error| match (error, place.zip(flaw)) {
            (TransportError::HostKeyUnknown(unknown), Some((place, flaw))) => {
                TransportError::HostCertificateRefused(Box::new(RefusedCertificate {
                    unknown: *unknown,
                    authority,
                    place,
                    flaw,
                }))
            }
            (TransportError::HostKeyUnknown(mut unknown), None) => {
                unknown.signed_by = Some(authority);
                TransportError::HostKeyUnknown(unknown)
            }
            (error, _) => error,
        })
    }

    /// Decides on the key that a host shows; with `accept-new`, a new host's key is appended to the first file.
    pub(super) fn check(&self, login: &Login, key: &PublicKey) -> Result<(), TransportError> {
        let (at, listed_as) = (login.at.clone(), login.known_as.clone());
        let mut known = self.known();
        match (known.verdict(&listed_as, key), login.host_keys) {
            (Verdict::Revoked { place }, _) => {
                Err(TransportError::HostKeyRevoked { at, key: HostKey::of(key), place })
            }
            (Verdict::Known, _) | (_, HostKeyPolicy::Off) => Ok(()),
            (Verdict::Changed { place, algorithm }, _) => {
                Err(TransportError::HostKeyChanged(Box::new(ChangedHost {
                    at,
                    listed_as,
                    key: HostKey::of(key),
                    known_as: algorithm.to_string(),
                    place,
                })))
            }
            (Verdict::Unknown { .. }, HostKeyPolicy::AcceptNew) => {
                let line =
                    format!("{} {} {}", lookup_name(&listed_as), key.algorithm(), key.public_key_base64());
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
                    listed_as,
                    user: login.user.clone(),
                    key: HostKey::of(key),
                    file: self.first_file.clone(),
                    authority,
                    signed_by: None,
                })))
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, KnownHosts> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
