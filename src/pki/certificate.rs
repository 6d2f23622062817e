use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use x509_parser::error::PEMError;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::key::PublicPrefix;

/// The SHA-256 of a certificate's DER, in lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Returns the fingerprint of a DER document.
    pub fn of(der: &[u8]) -> Self {
        Self(hex(&Sha256::digest(der)))
    }

    /// Returns all 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first 12 hex digits, which name a cluster's state folder.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// Returns bytes as lower-case hex digits.
fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Why a text is not a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The file holds nothing.
    #[error("the file is empty")]
    Empty,
    /// There is no `BEGIN CERTIFICATE` block.
    #[error("the file holds no PEM certificate")]
    NotPem,
    /// The PEM block has no end, or its body is not base64.
    #[error("the PEM certificate is cut short or damaged")]
    Damaged,
    /// The DER inside cannot be read.
    #[error("the certificate cannot be parsed: {0}")]
    Der(String),
}

/// The public side of a certificate, as far as certroll needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The subject, as `CN=system:node, O=system:nodes` in the order of the certificate.
    pub subject: String,
    /// The issuer in the same form.
    pub issuer: String,
    /// The serial number in lower-case hex digits.
    pub serial: String,
    /// The SHA-256 of the DER.
    pub sha256: Fingerprint,
    /// From when it is valid. RKE copies the CA's, so it tells nothing about a rotation.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// DNS names and addresses, in the order of the certificate.
    pub sans: Vec<String>,
    /// Whether it may sign certificates.
    pub is_ca: bool,
    /// The DER document.
    pub der: Vec<u8>,
    /// Where its public key lies in the DER.
    pub(crate) public_key: PublicKeyPlace,
}

/// Where parts of a public key lie in the DER of a certificate: keys are compared far more often than certificates are parsed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PublicKeyPlace {
    /// The bits of the key.
    bits: Range<usize>,
    /// The modulus of an RSA key, without leading zeros.
    modulus: Option<Range<usize>>,
}

impl PublicKeyPlace {
    /// Finds the public key of a certificate that was parsed from this DER.
    fn find(der: &[u8], parsed: &X509Certificate<'_>) -> Result<Self, CertificateError> {
        let bits = place_of(&parsed.public_key().subject_public_key.data, der);
        let bits = bits.ok_or_else(|| CertificateError::Der("it has no public key".to_owned()))?;
        let modulus = match parsed.public_key().parsed() {
            Ok(PublicKey::RSA(rsa)) => {
                let zeros = rsa.modulus.iter().take_while(|byte| **byte == 0).count();
                rsa.modulus.get(zeros..).and_then(|modulus| place_of(modulus, der))
            }
            _ => None,
        };
        Ok(Self { bits, modulus })
    }
}

/// Returns where a part of a slice lies in it; `None` for what is no part of it.
fn place_of(part: &[u8], whole: &[u8]) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    let place = start..start.checked_add(part.len())?;
    (whole.get(place.clone())? == part).then_some(place)
}

/// The pairs of certificate and CA that were judged, and whether the CA's key signed the certificate.
type Verdicts = HashMap<(Fingerprint, Fingerprint), bool>;

/// The nodes of a cluster hold the same certificates, and each is judged several times in a run: checking an RSA signature takes
/// longer than all the rest of what is thought about a worker.
static VERDICTS: LazyLock<Mutex<Verdicts>> = LazyLock::new(Mutex::default);

/// How many verdicts are kept: enough for a serving certificate of its own on each of the kubelets of the largest clusters.
const MOST_VERDICTS: usize = 65_536;

impl Certificate {
    /// Parses the first certificate of a PEM text.
    pub fn from_pem(text: &[u8]) -> Result<Self, CertificateError> {
        if text.iter().all(u8::is_ascii_whitespace) {
            return Err(CertificateError::Empty);
        }
        for pem in x509_parser::pem::Pem::iter_from_buffer(text) {
            let pem = pem.map_err(|error| match error {
                PEMError::IncompletePEM | PEMError::Base64DecodeError => CertificateError::Damaged,
                _ => CertificateError::NotPem,
            })?;
            if pem.label == "CERTIFICATE" {
                return Self::from_der(&pem.contents);
            }
        }
        Err(CertificateError::NotPem)
    }

    /// Returns how many certificates a PEM text holds, whole or not.
    pub fn count_in_pem(text: &[u8]) -> usize {
        text.split(|byte| *byte == b'\n')
            .filter(|line| line.trim_ascii().starts_with(b"-----BEGIN CERTIFICATE-----"))
            .count()
    }

    /// Parses a DER document.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let (rest, parsed) =
            X509Certificate::from_der(der).map_err(|error| CertificateError::Der(error.to_string()))?;
        if !rest.is_empty() {
            return Err(CertificateError::Der(format!("{} bytes too many", rest.len())));
        }
        Ok(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            serial: hex(&parsed.tbs_certificate.serial.to_bytes_be()),
            sha256: Fingerprint::of(der),
            not_before: timestamp(parsed.validity().not_before.timestamp())?,
            not_after: timestamp(parsed.validity().not_after.timestamp())?,
            sans: alternative_names(&parsed),
            is_ca: parsed.is_ca(),
            public_key: PublicKeyPlace::find(der, &parsed)?,
            der: der.to_vec(),
        })
    }

    /// Returns the common name of the subject.
    pub fn common_name(&self) -> Option<&str> {
        self.subject.split(", ").find_map(|part| part.strip_prefix("CN="))
    }

    /// Returns whether a CA's key signed this certificate: names chain and the signature holds.
    pub fn is_signed_by(&self, authority: &Self) -> bool {
        let pair = (self.sha256.clone(), authority.sha256.clone());
        let verdicts = || VERDICTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdict) = verdicts().get(&pair) {
            return *verdict;
        }
        let verdict = self.verify_against(authority);
        let mut verdicts = verdicts();
        if verdicts.len() >= MOST_VERDICTS {
            verdicts.clear();
        }
        verdicts.insert(pair, verdict);
        verdict
    }

    fn verify_against(&self, authority: &Self) -> bool {
        let (Ok((_, leaf)), Ok((_, signer))) =
            (X509Certificate::from_der(&self.der), X509Certificate::from_der(&authority.der))
        else {
            return false;
        };
        leaf.issuer() == signer.subject() && leaf.verify_signature(Some(signer.public_key())).is_ok()
    }

    /// Returns whether two certificates are for the same key.
    pub fn has_same_key_as(&self, other: &Self) -> bool {
        self.public_key_bits() == other.public_key_bits()
    }

    /// Returns whether a private key with this public prefix belongs to this certificate; `None` where the prefix cannot tell.
    pub fn matches_key(&self, key: &PublicPrefix) -> Option<bool> {
        match key {
            PublicPrefix::Rsa { modulus } => {
                let own = self.public_key.modulus.clone().and_then(|place| self.der.get(place));
                Some(own.is_some_and(|own| own.starts_with(modulus)))
            }
            PublicPrefix::PublicKey { subject_public_key } => {
                Some(self.public_key_bits() == Some(subject_public_key.as_slice()))
            }
            PublicPrefix::Unknown { .. } => None,
        }
    }

    /// Returns the certificate as PEM, as RKE writes it.
    pub fn to_pem(&self) -> String {
        super::pem::pem("CERTIFICATE", &self.der).to_string()
    }

    /// Returns the bits of the public key.
    fn public_key_bits(&self) -> Option<&[u8]> {
        self.der.get(self.public_key.bits.clone())
    }
}

/// Returns a time of a certificate.
fn timestamp(seconds: i64) -> Result<Timestamp, CertificateError> {
    Timestamp::from_second(seconds).map_err(|error| CertificateError::Der(error.to_string()))
}

/// Returns the DNS names and addresses of a certificate.
fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    names.into_iter().flatten().filter_map(alternative_name).collect()
}

/// Returns one alternative name as people write it.
fn alternative_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
            bytes => {
                <[u8; 16]>::try_from(bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string())
            }
        },
        _ => None,
    }
}
