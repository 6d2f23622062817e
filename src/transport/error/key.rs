//! A key error is why a private key or its certificate is not offered to a host.

use std::path::PathBuf;

/// Why a private key or its certificate could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file does not exist.
    #[error("the key `{}`, named by {origin}, does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The option, the field or the line that names it.
        origin: String,
    },
    /// The file cannot be read.
    #[error("{key} cannot be read: {reason}")]
    Unreadable {
        /// The key, for people.
        key: String,
        /// What the operating system says.
        reason: String,
    },
    /// The key is encrypted, and nobody knew its passphrase.
    #[error("{key} is encrypted and no passphrase was given")]
    NoPassphrase {
        /// The key, for people.
        key: String,
    },
    /// The key is encrypted, and the agent was asked instead of its owner.
    #[error("{key} is encrypted and was left to the SSH agent")]
    LeftToAgent {
        /// The key, for people.
        key: String,
    },
    /// The key lies in a FIDO token, and no agent speaks with it.
    #[error("{key} is a FIDO security key, with which only the SSH agent can sign")]
    SecurityKey {
        /// The key, for people.
        key: String,
    },
    /// The key is a public one, and no agent holds its private half.
    #[error("{key} is a public key, whose private half no SSH agent holds")]
    PublicHalf {
        /// The key, for people.
        key: String,
    },
    /// Every passphrase was wrong.
    #[error("the passphrase of {key} is wrong")]
    WrongPassphrase {
        /// The key, for people.
        key: String,
    },
    /// The key is not in a form that is understood.
    #[error("{key} is not a private key that can be used: {reason}")]
    Invalid {
        /// The key, for people.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The certificate cannot be used with the key.
    #[error("the certificate {certificate} cannot be used: {reason}")]
    Certificate {
        /// The certificate, for people.
        certificate: String,
        /// What is wrong.
        reason: String,
    },
    /// The agent cannot be asked.
    #[error("the SSH agent cannot be used: {reason}")]
    Agent {
        /// What is wrong.
        reason: String,
    },
    /// Nobody named a key, and none of the usual ones is there.
    #[error("neither a key nor the SSH agent is named")]
    NoneNamed,
}
