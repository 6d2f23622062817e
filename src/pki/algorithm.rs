use std::fmt;

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize};
use serde::{Deserialize, Serialize};
use x509_parser::der_parser::asn1_rs::Oid;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use zeroize::Zeroizing;

use super::certificate::Certificate;
use super::issue::IssueError;
use super::pem::pem;

/// A kind of key that a leaf can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyAlgorithm {
    /// RKE's own.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
    /// ECDSA on the curve P-256.
    EcdsaP256,
    /// ECDSA on the curve P-384.
    EcdsaP384,
}

impl KeyAlgorithm {
    /// Returns the algorithm of a certificate's own key; `None` for one that no new key is made of.
    pub fn of(certificate: &Certificate) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(&certificate.der).ok()?;
        match parsed.public_key().parsed().ok()? {
            PublicKey::RSA(rsa) => match rsa.key_size() {
                2048 => Some(Self::Rsa2048),
                3072 => Some(Self::Rsa3072),
                4096 => Some(Self::Rsa4096),
                _ => None,
            },
            PublicKey::EC(_) => {
                let curve: Oid<'_> = parsed.public_key().algorithm.parameters.as_ref()?.as_oid().ok()?;
                [Self::EcdsaP256, Self::EcdsaP384]
                    .into_iter()
                    .find(|algorithm| algorithm.curve().is_some_and(|own| own == curve.as_bytes()))
            }
            _ => None,
        }
    }

    /// Returns the object identifier of an EC key's curve (RFC 5480, 2.1.1.1), as DER has it.
    fn curve(self) -> Option<&'static [u8]> {
        match self {
            Self::EcdsaP256 => Some(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]),
            Self::EcdsaP384 => Some(&[0x2b, 0x81, 0x04, 0x00, 0x22]),
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => None,
        }
    }

    /// Makes a key of this kind.
    fn generate(self) -> Result<rcgen::KeyPair, rcgen::Error> {
        let rsa = |size| rcgen::KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size);
        match self {
            Self::Rsa2048 => rsa(RsaKeySize::_2048),
            Self::Rsa3072 => rsa(RsaKeySize::_3072),
            Self::Rsa4096 => rsa(RsaKeySize::_4096),
            Self::EcdsaP256 => rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Self::EcdsaP384 => rcgen::KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Rsa2048 => "RSA 2048",
            Self::Rsa3072 => "RSA 3072",
            Self::Rsa4096 => "RSA 4096",
            Self::EcdsaP256 => "ECDSA P-256",
            Self::EcdsaP384 => "ECDSA P-384",
        })
    }
}

/// Makes a key in the PEM that Go 1.9 reads: RSA as PKCS#1, as RKE does (`pki/util.go`), EC as SEC1.
///
/// It takes a processor for some 100 ms (RSA): an asynchronous caller gives it a thread of its own.
pub fn new_key(algorithm: KeyAlgorithm) -> Result<Zeroizing<String>, IssueError> {
    let pair = Zeroizing::new(
        algorithm
            .generate()
            .map_err(|error| IssueError::Signing(format!("no key could be made: {error}")))?,
    );
    let key = match algorithm.curve() {
        None => pkcs8_content(pair.serialized_der()).map(|pkcs1| pem("RSA PRIVATE KEY", pkcs1)),
        Some(curve) => {
            sec1(pair.serialized_der(), pair.public_key_raw(), curve).map(|der| pem("EC PRIVATE KEY", &der))
        }
    };
    key.ok_or_else(|| IssueError::Signing("a new key is not PKCS#8".to_owned()))
}

/// Returns the key inside a PKCS#8 document: version, algorithm, and an octet string that holds it (RFC 5208, 5).
fn pkcs8_content(pkcs8: &[u8]) -> Option<&[u8]> {
    let (content, _) = element(pkcs8)?;
    let (_version, rest) = element(content)?;
    let (_algorithm, rest) = element(rest)?;
    element(rest).map(|(key, _)| key)
}

/// Returns an EC key as SEC1 (RFC 5915, 3), with its curve: inside PKCS#8 the curve stands beside the key, and Go needs it.
fn sec1(pkcs8: &[u8], public: &[u8], curve: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (fields, _) = element(pkcs8_content(pkcs8)?)?;
    let (_version, rest) = element(fields)?;
    let (scalar, _) = element(rest)?;
    // Reserved at once, far beyond what P-384 takes: a buffer that grows would leave copies behind.
    let mut body = Zeroizing::new(Vec::with_capacity(512));
    write_element(&mut body, 0x02, &[&[1]])?;
    write_element(&mut body, 0x04, &[scalar])?;
    write_element(&mut body, 0xa0, &[&[0x06, u8::try_from(curve.len()).ok()?], curve])?;
    let mut public_key = Vec::with_capacity(128);
    write_element(&mut public_key, 0x03, &[&[0], public])?;
    write_element(&mut body, 0xa1, &[&public_key])?;
    let mut whole = Zeroizing::new(Vec::with_capacity(512));
    write_element(&mut whole, 0x30, &[&body])?;
    Some(whole)
}

/// Writes a DER element of less than 256 bytes.
fn write_element(to: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) -> Option<()> {
    let length = u8::try_from(parts.iter().map(|part| part.len()).sum::<usize>()).ok()?;
    to.push(tag);
    if length >= 0x80 {
        to.push(0x81);
    }
    to.push(length);
    for part in parts {
        to.extend_from_slice(part);
    }
    Some(())
}

/// Returns the content of the DER element at the beginning, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = usize::from(*der.get(1)?);
    let (length, begin) = if first < 0x80 {
        (first, 2)
    } else {
        let end = 2 + (first & 0x7f);
        (der.get(2..end)?.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte)), end)
    };
    Some((der.get(begin..begin.checked_add(length)?)?, der.get(begin + length..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::pem::read_key;

    #[test]
    fn a_new_key_is_in_the_form_that_old_components_read() {
        for (algorithm, head) in [
            (KeyAlgorithm::Rsa2048, "-----BEGIN RSA PRIVATE KEY-----\nMII"),
            (KeyAlgorithm::EcdsaP256, "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE"),
            (KeyAlgorithm::EcdsaP384, "-----BEGIN EC PRIVATE KEY-----\nMIGkAgEB"),
        ] {
            let pem = new_key(algorithm).unwrap();
            assert!(pem.starts_with(head), "{algorithm}");
            assert!(read_key(&pem).is_ok(), "{algorithm}");
        }
    }

    #[test]
    fn each_algorithm_is_known_again_in_a_certificate() {
        for algorithm in [
            KeyAlgorithm::Rsa2048,
            KeyAlgorithm::Rsa3072,
            KeyAlgorithm::Rsa4096,
            KeyAlgorithm::EcdsaP256,
            KeyAlgorithm::EcdsaP384,
        ] {
            let key = algorithm.generate().unwrap();
            let der = rcgen::CertificateParams::default().self_signed(&key).unwrap();
            assert_eq!(KeyAlgorithm::of(&Certificate::from_der(der.der()).unwrap()), Some(algorithm));
        }
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let der = rcgen::CertificateParams::default().self_signed(&other).unwrap();
        assert_eq!(KeyAlgorithm::of(&Certificate::from_der(der.der()).unwrap()), None);
    }
}
