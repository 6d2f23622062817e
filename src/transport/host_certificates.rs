//! A host certificate is what an authority says of the key of a host: under which names it is known, and until when.
//!
//! `host_keys` asks here whether one may be believed once known_hosts has named its authority (`PROTOCOL.certkeys` of OpenSSH).

use jiff::Timestamp;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, HashAlg};

use super::known_hosts::matches_pattern;

/// Why a certificate of a host is not believed although its authority is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFlaw {
    /// It was made for a user.
    #[error("it is for users, not for hosts")]
    ForUsers,
    /// Its time has not come.
    #[error("it is not valid before {0}")]
    NotYetValid(Timestamp),
    /// Its time is over.
    #[error("it expired on {0}")]
    Expired(Timestamp),
    /// It names nobody; OpenSSH before 10.3 took that for everybody.
    #[error("it names no host")]
    NoNames,
    /// It is for others.
    #[error("it is for {}", .0.join(", "))]
    OtherNames(Vec<String>),
    /// It holds under conditions that nobody here understands.
    #[error("it has critical options, which no host certificate has: {}", .0.join(", "))]
    CriticalOptions(Vec<String>),
    /// It is signed in a way that can be forged.
    #[error("it is signed with SHA-1")]
    WeakSignature,
    /// It is forged or damaged.
    #[error("its signature is wrong")]
    WrongSignature,
}

/// Returns what is wrong with a certificate of a host, as OpenSSH judges it (`sshkey_cert_check_host`).
pub(super) fn flaw(certificate: &Certificate, host: &str, now: Timestamp) -> Option<CertificateFlaw> {
    if certificate.cert_type() != CertType::Host {
        return Some(CertificateFlaw::ForUsers);
    }
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    if seconds < certificate.valid_after() {
        return Some(CertificateFlaw::NotYetValid(time(certificate.valid_after())));
    }
    if seconds >= certificate.valid_before() {
        return Some(CertificateFlaw::Expired(time(certificate.valid_before())));
    }
    let names = certificate.valid_principals();
    if names.is_empty() {
        return Some(CertificateFlaw::NoNames);
    }
    let host = host.to_lowercase();
    if !names.iter().any(|name| matches_pattern(name.as_bytes(), host.as_bytes())) {
        return Some(CertificateFlaw::OtherNames(names.to_vec()));
    }
    if !certificate.critical_options().is_empty() {
        return Some(CertificateFlaw::CriticalOptions(
            certificate.critical_options().keys().cloned().collect(),
        ));
    }
    if matches!(certificate.signature().algorithm(), Algorithm::Rsa { hash: None } | Algorithm::Dsa) {
        return Some(CertificateFlaw::WeakSignature);
    }
    let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
    let verified = certificate.validate_at(seconds, [&authority]);
    verified.is_err().then_some(CertificateFlaw::WrongSignature)
}

/// Returns a time of a certificate; one beyond all calendars is the last one.
fn time(seconds: u64) -> Timestamp {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
