use jiff::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm, SigningKey, SubjectPublicKeyInfo,
};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};
use zeroize::Zeroizing;

use super::certificate::{Certificate, CertificateError};
use super::leaf::{Leaf, Usage, address};
use super::pem::{KeyError, read_key};

/// Why a certificate could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The CA's certificate cannot be read.
    #[error("the CA's certificate cannot be read: {0}")]
    CaCertificate(#[from] CertificateError),
    /// The CA's file holds more than one certificate.
    #[error("the CA's file holds {0} certificates: which of them is the cluster's CA cannot be told")]
    SeveralCertificates(usize),
    /// The certificate may not sign others.
    #[error("`{0}` is not the certificate of a CA: it may not sign others")]
    NotAnAuthority(String),
    /// The CA's key cannot be used.
    #[error("the CA's key cannot be used: {0}")]
    CaKey(KeyError),
    /// The key is not the CA's.
    #[error("the key is not that of the CA's certificate")]
    CaMismatch,
    /// The key that a certificate was asked for cannot be used.
    #[error("the certificate's own key cannot be used: {0}")]
    LeafKey(KeyError),
    /// A name cannot stand in a certificate.
    #[error("`{0}` cannot be a name in a certificate")]
    Name(String),
    /// The signing itself failed.
    #[error("a certificate could not be made: {0}")]
    Signing(String),
}

impl IssueError {
    /// Returns the way out.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::CaCertificate(CertificateError::NotPem) => {
                "RKE keeps PEM: `openssl x509 -inform der -in FILE` makes it of a file in DER"
            }
            Self::CaKey(KeyError::NotPem) => {
                "RKE keeps PEM: `openssl rsa -inform der -in FILE` makes it of a file in DER"
            }
            Self::CaKey(KeyError::Encrypted) => {
                "RKE keeps the CA's key unencrypted: put it there as `openssl rsa -in FILE` prints it"
            }
            Self::CaKey(KeyError::Damaged | KeyError::Unsupported) | Self::CaMismatch => {
                "look for the CA's key on another control plane node, or in a backup of `/etc/kubernetes`"
            }
            Self::CaCertificate(_) | Self::NotAnAuthority(_) => {
                "look for the CA's certificate on another node, or in a backup of `/etc/kubernetes`"
            }
            Self::SeveralCertificates(_) => {
                "leave the certificate alone in the file that signed the cluster's certificates"
            }
            Self::Name(_) => "correct it in the cluster.yml",
            Self::LeafKey(_) | Self::Signing(_) => return None,
        };
        Some(hint.to_owned())
    }
}

/// What a CA may sign with: the Go of old components reads no Ed25519, and certroll could not judge signatures of P-521.
const SIGNING: [&SignatureAlgorithm; 3] =
    [&PKCS_RSA_SHA256, &PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384];

/// A CA that is ready to sign: its certificate and its key were found to belong together.
pub struct Signer {
    certificate: Certificate,
    issuer: Issuer<'static, AuthorityKey>,
    /// Whether the CA's certificate has a key identifier, which its leaves repeat then, as Go has them do.
    has_key_identifier: bool,
}

/// A CA's private key, which is wiped when it is dropped.
struct AuthorityKey(Zeroizing<rcgen::KeyPair>);

impl PublicKeyData for AuthorityKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for AuthorityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

/// The key that a certificate is made for.
#[derive(Clone, Copy)]
pub enum SubjectKey<'a> {
    /// A private key, in PEM.
    Pem(&'a str),
    /// The key of a present certificate, whose private half is not needed.
    ///
    /// kube-apiserver of clusters from before rke 0.2 keeps its key, which signs the tokens of service accounts, too.
    OfCertificate(&'a Certificate),
}

impl Signer {
    /// Takes a CA's certificate and key (PEM, RSA or EC) into use; the key must be the certificate's.
    pub fn new(certificate_pem: &[u8], key_pem: &str) -> Result<Self, IssueError> {
        let certificate = Certificate::from_pem(certificate_pem)?;
        let count = Certificate::count_in_pem(certificate_pem);
        if count > 1 {
            return Err(IssueError::SeveralCertificates(count));
        }
        let (_, parsed) = X509Certificate::from_der(&certificate.der)
            .map_err(|error| CertificateError::Der(error.to_string()))?;
        if !may_sign(&parsed) {
            return Err(IssueError::NotAnAuthority(certificate.subject));
        }
        let key = Zeroizing::new(read_key(key_pem).map_err(IssueError::CaKey)?);
        if !SIGNING.contains(&key.algorithm()) {
            return Err(IssueError::CaKey(KeyError::Unsupported));
        }
        let public = super::PublicPrefix::PublicKey { subject_public_key: key.public_key_raw().to_vec() };
        if certificate.matches_key(&public) != Some(true) {
            return Err(IssueError::CaMismatch);
        }
        let has_key_identifier = parsed.extensions().iter().any(|extension| {
            matches!(extension.parsed_extension(), ParsedExtension::SubjectKeyIdentifier(_))
        });
        let issuer = Issuer::from_ca_cert_der(&certificate.der.as_slice().into(), AuthorityKey(key))
            .map_err(|error| CertificateError::Der(error.to_string()))?;
        Ok(Self { certificate, issuer, has_key_identifier })
    }

    /// Returns the CA's certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Makes a leaf certificate for a key.
    ///
    /// `NotBefore` is the CA's, as RKE has it (v0.1.18 `pki/util.go` `newSignedCert`), so that a clock which is behind does not
    /// matter; `NotAfter` is never beyond the CA's. RKE's serial numbers are random, positive and of at most 63 bits.
    pub fn issue(
        &self,
        leaf: &Leaf,
        key: SubjectKey<'_>,
        serial: u64,
        not_after: Timestamp,
    ) -> Result<Certificate, IssueError> {
        let public = public_key(key)?;
        let mut params = self.params(leaf)?;
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_after = offset_date_time(not_after.min(self.certificate.not_after));
        let failed = |error: &dyn std::fmt::Display| IssueError::Signing(error.to_string());
        let made = params.signed_by(&public, &self.issuer).map_err(|error| failed(&error))?;
        let made = Certificate::from_der(made.der()).map_err(|error| failed(&error))?;
        // Go compares the names byte by byte; a name with two parts of one type would lose one on its way through rcgen.
        if !made.is_signed_by(&self.certificate) {
            return Err(failed(&"the CA's name cannot be repeated as it is"));
        }
        Ok(made)
    }

    /// Returns what a leaf says, apart from its serial number and its end.
    fn params(&self, leaf: &Leaf) -> Result<CertificateParams, IssueError> {
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        if let Some(organization) = &leaf.organization {
            name.push(DnType::OrganizationName, organization.as_str());
        }
        name.push(DnType::CommonName, leaf.common_name.as_str());
        params.distinguished_name = name;
        params.key_usages = vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match leaf.usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::ClientAndServer => {
                vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth]
            }
        };
        params.subject_alt_names =
            leaf.sans.iter().map(|name| alternative_name(name)).collect::<Result<_, _>>()?;
        params.not_before = offset_date_time(self.certificate.not_before);
        params.use_authority_key_identifier_extension = self.has_key_identifier;
        Ok(params)
    }
}

/// Returns whether a certificate may sign others, by its basic constraints and its key usage.
fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    let usage = certificate.key_usage().ok().flatten();
    certificate.is_ca() && usage.is_none_or(|usage| usage.value.key_cert_sign())
}

/// Returns the public key that a certificate is made for.
fn public_key(key: SubjectKey<'_>) -> Result<SubjectPublicKeyInfo, IssueError> {
    let unsupported = |_| IssueError::LeafKey(KeyError::Unsupported);
    let der = match key {
        SubjectKey::Pem(pem) => {
            let pair = Zeroizing::new(read_key(pem).map_err(IssueError::LeafKey)?);
            pair.subject_public_key_info()
        }
        SubjectKey::OfCertificate(certificate) => {
            let (_, parsed) = X509Certificate::from_der(&certificate.der)
                .map_err(|_| IssueError::LeafKey(KeyError::Unsupported))?;
            parsed.public_key().raw.to_vec()
        }
    };
    SubjectPublicKeyInfo::from_der(&der).map_err(unsupported)
}

/// Returns a name as a certificate holds it: an address as one, anything else as a DNS name.
fn alternative_name(name: &str) -> Result<SanType, IssueError> {
    match address(name) {
        Some(address) => Ok(SanType::IpAddress(address)),
        None => name.try_into().map(SanType::DnsName).map_err(|_| IssueError::Name(name.to_owned())),
    }
}

/// A certificate with its private key, both as the PEM that RKE writes; the key is wiped when it is dropped.
pub struct KeyPair {
    /// The certificate.
    pub certificate: Certificate,
    /// The private key: PKCS#1 or SEC1.
    pub key_pem: Zeroizing<String>,
}

/// Returns a time as rcgen wants it.
fn offset_date_time(timestamp: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(timestamp.as_second())
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, KeyAlgorithm, PublicPrefix, new_key};

    /// Makes a CA as RKE's: certificate and key in PEM.
    fn authority(not_before: &str, not_after: &str) -> (String, Zeroizing<String>) {
        let key_pem = new_key(KeyAlgorithm::Rsa2048).unwrap();
        (certificate_of(&key_pem, "kube-ca", [not_before, not_after]), key_pem)
    }

    fn certificate_of(key_pem: &str, name: &str, times: [&str; 2]) -> String {
        let key = read_key(key_pem).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = offset_date_time(times[0].parse().unwrap());
        params.not_after = offset_date_time(times[1].parse().unwrap());
        params.self_signed(&key).unwrap().pem()
    }

    fn kube_admin() -> Leaf {
        Leaf {
            name: "kube-admin".to_owned(),
            common_name: "kube-admin".to_owned(),
            organization: Some("system:masters".to_owned()),
            usage: Usage::Client,
            sans: Vec::new(),
            authority: Authority::KubeCa,
        }
    }

    #[test]
    fn kube_admin_is_what_rke_makes() {
        let (certificate, key) = authority("2018-03-01T00:00:00Z", "2028-02-27T00:00:00Z");
        let signer = Signer::new(certificate.as_bytes(), &key).unwrap();
        let end: Timestamp = "2026-12-21T12:00:00Z".parse().unwrap();
        let leaf_key = new_key(KeyAlgorithm::Rsa2048).unwrap();
        let made = signer.issue(&kube_admin(), SubjectKey::Pem(&leaf_key), 7, end).unwrap();
        assert_eq!(made.subject, "O=system:masters, CN=kube-admin");
        assert!(made.is_signed_by(signer.certificate()));
        assert!(!made.is_ca);
        assert_eq!(made.serial, "07");
        assert_eq!(made.not_before, signer.certificate().not_before, "as RKE has it");
        assert_eq!(made.not_after, end);
        let read_back = Certificate::from_pem(made.to_pem().as_bytes()).unwrap();
        assert_eq!(read_back, made);
        let whole_key = PublicPrefix::from_probe(&leaf_key);
        assert_eq!(made.matches_key(&whole_key), Some(true));
        assert_eq!(signer.certificate().matches_key(&whole_key), Some(false));
    }

    #[test]
    fn a_leaf_never_outlives_its_authority() {
        let (certificate, key) = authority("2018-03-01T00:00:00Z", "2026-12-01T00:00:00Z");
        let signer = Signer::new(certificate.as_bytes(), &key).unwrap();
        let end: Timestamp = "2026-12-21T12:00:00Z".parse().unwrap();
        let leaf_key = new_key(KeyAlgorithm::EcdsaP256).unwrap();
        let made = signer.issue(&kube_admin(), SubjectKey::Pem(&leaf_key), u64::MAX >> 1, end).unwrap();
        assert_eq!(made.not_after, signer.certificate().not_after);
    }

    /// kube-apiserver of an old cluster keeps its key: what is known of it is its certificate alone.
    #[test]
    fn a_present_key_gets_a_new_certificate() {
        let (certificate, key) = authority("2018-03-01T00:00:00Z", "2028-02-27T00:00:00Z");
        let signer = Signer::new(certificate.as_bytes(), &key).unwrap();
        let times = ["2018-03-01T00:00:00Z", "2019-03-01T00:00:00Z"];
        for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP384] {
            let kept = new_key(algorithm).unwrap();
            let present =
                Certificate::from_pem(certificate_of(&kept, "kube-apiserver", times).as_bytes()).unwrap();
            let end: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
            let made = signer.issue(&kube_admin(), SubjectKey::OfCertificate(&present), 9, end).unwrap();
            assert_eq!(made.matches_key(&PublicPrefix::from_probe(&kept)), Some(true), "{algorithm}");
        }
    }

    #[test]
    fn a_name_that_no_certificate_can_hold_is_named() {
        let (certificate, key) = authority("2018-03-01T00:00:00Z", "2028-02-27T00:00:00Z");
        let signer = Signer::new(certificate.as_bytes(), &key).unwrap();
        let leaf = Leaf { sans: vec!["bücher.example".to_owned()], ..kube_admin() };
        let refused = signer.issue(&leaf, SubjectKey::Pem(&key), 1, Timestamp::UNIX_EPOCH);
        assert_eq!(refused, Err(IssueError::Name("bücher.example".to_owned())));
    }

    #[test]
    fn an_authority_whose_name_would_change_is_refused() {
        let key_pem = new_key(KeyAlgorithm::EcdsaP256).unwrap();
        let key = read_key(&key_pem).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationalUnitName, "one");
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 11]), "two");
        let certificate = params.self_signed(&key).unwrap().pem();
        let signer = Signer::new(certificate.as_bytes(), &key_pem).unwrap();
        let refused = signer.issue(&kube_admin(), SubjectKey::Pem(&key_pem), 1, Timestamp::UNIX_EPOCH);
        assert!(matches!(refused, Err(IssueError::Signing(_))), "{refused:?}");
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
