//! Trust is what a Rancher server's certificate must be signed by.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate as Root, ClientBuilder};
use sha2::{Digest, Sha256};

use super::RancherError;
use super::answer::Setting;
use super::client::{exchange, read_setting};
use super::origin::Origin;
use crate::pki::Certificate;

/// What the certificate of a Rancher server must be signed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// An authority that this machine trusts.
    SystemRoots,
    /// One of these authorities alone: PEM.
    CertificateAuthority(Vec<u8>),
    /// The server's own authority, if its SHA-256 is this one: hexadecimal, as in the `--ca-checksum` of Rancher's agents.
    Checksum(String),
}

/// Makes the HTTP client for a server.
///
/// For a checksum the server is asked for its authority first, without verification and without the token.
pub(super) async fn http_client(
    origin: &Origin,
    trust: &Trust,
    timeout: Duration,
) -> Result<reqwest::Client, RancherError> {
    let builder = builder(origin, timeout);
    match trust {
        // No certificate will be looked at, so that a machine without any authorities will do.
        _ if origin.is_plain() => builder.tls_certs_only([]).build().map_err(RancherError::Client),
        // A machine without any authorities trusts none, and says so of the certificate.
        Trust::SystemRoots => match builder.build() {
            Ok(client) => Ok(client),
            Err(_) => self::builder(origin, timeout).tls_certs_only([]).build().map_err(RancherError::Client),
        },
        Trust::CertificateAuthority(pem) => trusting(builder, pem),
        Trust::Checksum(expected) => {
            let expected = checksum(expected)?;
            trusting(builder, own_authority(origin, &expected, timeout).await?.as_bytes())
        }
    }
}

fn builder(origin: &Origin, timeout: Duration) -> ClientBuilder {
    let builder = reqwest::Client::builder()
        .timeout(timeout)
        .redirect(Policy::none())
        .user_agent(concat!("certroll/", env!("CARGO_PKG_VERSION")));
    // A proxy reaches its own loopback interface and not ours, and would read what is sent in clear text.
    if origin.is_loopback() { builder.no_proxy() } else { builder }
}

fn trusting(builder: ClientBuilder, pem: &[u8]) -> Result<reqwest::Client, RancherError> {
    let unusable = |reason: String| RancherError::CertificateAuthority(reason);
    let authorities = Root::from_pem_bundle(pem).map_err(|error| unusable(error.to_string()))?;
    if authorities.is_empty() {
        return Err(unusable("it holds no PEM certificate".to_owned()));
    }
    builder.tls_certs_only(authorities).build().map_err(|error| unusable(error.to_string()))
}

/// The authority that a server names as its own (`/v3/settings/cacerts`), as a stranger hears of it: nothing vouches for it but
/// whoever compares its checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAuthority {
    /// What it is, PEM.
    pub pem: String,
    /// Its SHA-256 as Rancher's agents are given it (`CATTLE_CA_CHECKSUM`), hexadecimal.
    pub checksum: String,
    /// The first certificate of it, where it can be read.
    pub certificate: Option<Certificate>,
}

impl OwnAuthority {
    fn new(pem: String) -> Self {
        // Agents take the checksum of the value with one newline at its end, which the value itself may have or lack.
        let checksum = hexadecimal(format!("{}\n", pem.trim_end()).as_bytes());
        let certificate = Certificate::from_pem(pem.as_bytes()).ok();
        Self { pem, checksum, certificate }
    }
}

/// Asks a server which authority it names as its own: without verification, and without a token. Returns nothing where it names none.
pub async fn first_look(url: &str, timeout: Duration) -> Result<Option<OwnAuthority>, RancherError> {
    look(&Origin::parse(url)?, timeout).await
}

async fn look(origin: &Origin, timeout: Duration) -> Result<Option<OwnAuthority>, RancherError> {
    let stranger = builder(origin, timeout)
        .tls_danger_accept_invalid_certs(true)
        .build()
        .map_err(RancherError::Client)?;
    let request = stranger.get(origin.at(&["v3", "settings", "cacerts"]));
    let pem = read_setting("cacerts", &exchange(origin, request).await?).map(Setting::into_value)?;
    Ok((!pem.trim().is_empty()).then(|| OwnAuthority::new(pem)))
}

/// Returns the authority that the server names as its own, PEM, if it has the checksum.
async fn own_authority(origin: &Origin, expected: &str, timeout: Duration) -> Result<String, RancherError> {
    let Some(own) = look(origin, timeout).await? else {
        return Err(RancherError::NoOwnAuthority(origin.to_string()));
    };
    if own.checksum != expected && hexadecimal(own.pem.as_bytes()) != expected {
        return Err(RancherError::ChecksumMismatch {
            origin: origin.to_string(),
            expected: expected.to_owned(),
            found: own.checksum,
        });
    }
    Ok(own.pem)
}

fn checksum(text: &str) -> Result<String, RancherError> {
    let digits = text.trim().to_ascii_lowercase();
    if digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        Ok(digits)
    } else {
        Err(RancherError::NotAChecksum(text.to_owned()))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
