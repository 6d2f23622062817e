use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyUsagePurpose,
    PKCS_RSA_SHA256, SerialNumber,
};
use zeroize::Zeroizing;

use super::certificate::{Certificate, CertificateError};

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The CA's key cannot be used.
    #[error("the key of kube-ca cannot be used: {0}")]
    CaKey(String),
    /// The key is not the CA's.
    #[error("kube-ca-key.pem does not belong to kube-ca.pem")]
    CaMismatch,
    /// The CA's certificate cannot be read.
    #[error("kube-ca.pem cannot be read: {0}")]
    CaCertificate(#[from] CertificateError),
    /// The signing itself failed.
    #[error("a certificate could not be made: {0}")]
    Signing(String),
}

/// A CA that is ready to sign: its certificate and its key were found to belong together.
pub struct Signer {
    certificate: Certificate,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl Signer {
    /// Takes a CA's certificate and key (PEM) into use; the key must be the certificate's.
    pub fn new(certificate_pem: &[u8], key_pem: &str) -> Result<Self, IssueError> {
        let certificate = Certificate::from_pem(certificate_pem)?;
        let key = rcgen::KeyPair::from_pem(key_pem).map_err(|error| IssueError::CaKey(error.to_string()))?;
        let public = super::PublicPrefix::PublicKey { subject_public_key: key.public_key_raw().to_vec() };
        if certificate.matches_key(&public) != Some(true) {
            return Err(IssueError::CaMismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate.der.clone().into(), key)
            .map_err(|error| IssueError::CaKey(error.to_string()))?;
        Ok(Self { certificate, issuer })
    }

    /// Returns the CA's certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

/// A certificate with its private key, both as the PEM that RKE writes; the key is wiped when it is dropped.
pub struct KeyPair {
    /// The certificate.
    pub certificate: Certificate,
    /// The PKCS#1 private key.
    pub key_pem: Zeroizing<String>,
}

/// Makes an RSA key of 2048 bits, PKCS#1 in PEM, as RKE does (`pki/util.go`).
pub fn new_rsa_key() -> Result<Zeroizing<String>, IssueError> {
    let pair = rcgen::KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
        .map_err(|error| IssueError::Signing(error.to_string()))?;
    let pkcs8 = Zeroizing::new(pair.serialize_der());
    let pkcs1 = pkcs1_of_pkcs8(&pkcs8).ok_or_else(|| IssueError::Signing("not an RSA key".to_owned()))?;
    Ok(pem("RSA PRIVATE KEY", pkcs1))
}

/// Signs a kube-admin certificate (CN=kube-admin, O=system:masters; RKE `pki/services.go` `GenerateKubeAdminCertificate`)
/// for a key.
///
/// `NotBefore` is the CA's, as RKE has it, so that a clock which is behind does not matter.
pub fn issue_kube_admin(
    signer: &Signer,
    key_pem: Zeroizing<String>,
    serial: u64,
    validity: SignedDuration,
    now: Timestamp,
) -> Result<KeyPair, IssueError> {
    let failed = |error: &dyn std::fmt::Display| IssueError::Signing(error.to_string());
    let key = rcgen::KeyPair::from_pem(&key_pem).map_err(|error| failed(&error))?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "system:masters");
    name.push(DnType::CommonName, super::KUBE_ADMIN);
    params.distinguished_name = name;
    params.serial_number = Some(SerialNumber::from(serial));
    params.key_usages = vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let not_after = (now + validity).min(signer.certificate.not_after);
    params.not_before = offset_date_time(signer.certificate.not_before);
    params.not_after = offset_date_time(not_after);
    let leaf = params.signed_by(&key, &signer.issuer).map_err(|error| failed(&error))?;
    Ok(KeyPair { certificate: Certificate::from_der(leaf.der())?, key_pem })
}

/// Returns a time as rcgen wants it.
fn offset_date_time(timestamp: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(timestamp.as_second())
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

/// Returns the PKCS#1 key inside a PKCS#8 RSA key: the inner octet string.
fn pkcs1_of_pkcs8(pkcs8: &[u8]) -> Option<&[u8]> {
    // SEQUENCE(4) INTEGER 0 (3) SEQUENCE rsaEncryption NULL (15) OCTET STRING header(4): RFC 5208 with lengths of two bytes.
    let header = pkcs8.get(..26)?;
    let inner = pkcs8.get(26..)?;
    (header.starts_with(&[0x30, 0x82]) && header.get(22) == Some(&0x04) && inner.first() == Some(&0x30))
        .then_some(inner)
}

/// Returns a DER document as PEM with lines of 64 characters.
pub(super) fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 80));
    for part in ["-----BEGIN ", label, "-----\n"] {
        text.push_str(part);
    }
    for line in body.as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).unwrap_or_default());
        text.push('\n');
    }
    for part in ["-----END ", label, "-----\n"] {
        text.push_str(part);
    }
    text
}
