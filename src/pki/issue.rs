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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::PublicPrefix;

    /// Makes a CA as RKE's: certificate and key in PEM.
    fn authority(not_before: &str, not_after: &str) -> (String, Zeroizing<String>) {
        let key_pem = new_rsa_key().unwrap();
        let key = rcgen::KeyPair::from_pem(&key_pem).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "kube-ca");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = offset_date_time(not_before.parse().unwrap());
        params.not_after = offset_date_time(not_after.parse().unwrap());
        (params.self_signed(&key).unwrap().pem(), key_pem)
    }

    #[test]
    fn kube_admin_is_what_rke_makes() {
        let (certificate, key) = authority("2018-03-01T00:00:00Z", "2028-02-27T00:00:00Z");
        let signer = Signer::new(certificate.as_bytes(), &key).unwrap();
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let thirty_days = SignedDuration::from_hours(30 * 24);
        let pair = issue_kube_admin(&signer, new_rsa_key().unwrap(), 7, thirty_days, now).unwrap();
        assert_eq!(pair.certificate.subject, "O=system:masters, CN=kube-admin");
        assert!(pair.certificate.is_signed_by(signer.certificate()));
        assert!(!pair.certificate.is_ca);
        assert_eq!(pair.certificate.not_before, signer.certificate().not_before, "as RKE has it");
        assert_eq!(pair.certificate.not_after, now + thirty_days);
        assert!(
            pair.key_pem.starts_with("-----BEGIN RSA PRIVATE KEY-----\nMII"),
            "PKCS#1, which Go 1.9 reads"
        );
        let read_back = Certificate::from_pem(pair.certificate.to_pem().as_bytes()).unwrap();
        assert_eq!(read_back, pair.certificate);
        let whole_key = PublicPrefix::from_probe(&pair.key_pem);
        assert_eq!(pair.certificate.matches_key(&whole_key), Some(true));
        assert_eq!(signer.certificate().matches_key(&whole_key), Some(false));
    }

    #[test]
    fn a_leaf_never_outlives_its_authority() {
        let (certificate, key) = authority("2018-03-01T00:00:00Z", "2026-12-01T00:00:00Z");
        let signer = Signer::new(certificate.as_bytes(), &key).unwrap();
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let pair =
            issue_kube_admin(&signer, new_rsa_key().unwrap(), 7, SignedDuration::from_hours(30 * 24), now)
                .unwrap();
        assert_eq!(pair.certificate.not_after, signer.certificate().not_after);
    }

    #[test]
    fn a_key_of_another_authority_is_refused() {
        let (certificate, _) = authority("2018-03-01T00:00:00Z", "2028-02-27T00:00:00Z");
        let (_, other_key) = authority("2018-03-01T00:00:00Z", "2028-02-27T00:00:00Z");
        let refused = Signer::new(certificate.as_bytes(), &other_key);
        assert!(matches!(refused, Err(IssueError::CaMismatch)));
    }

    /// The probe prints 364 characters of a key of 2048 bits: exactly version, modulus and exponent.
    #[test]
    fn the_public_prefix_of_a_key_tells_whose_it_is() {
        let (certificate, key) = authority("2018-03-01T00:00:00Z", "2028-02-27T00:00:00Z");
        let certificate = Certificate::from_pem(certificate.as_bytes()).unwrap();
        let mut lines = key.lines();
        let head = lines.next().unwrap();
        let body: String = lines.collect();
        let prefix = PublicPrefix::from_probe(&format!("{head}\n{}\n", &body[..364]));
        assert_eq!(certificate.matches_key(&prefix), Some(true));
        let headless = PublicPrefix::from_probe(&format!("{head}\n"));
        assert_eq!(certificate.matches_key(&headless), None);
    }
}
