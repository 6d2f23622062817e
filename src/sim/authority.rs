//! Keys and certificates as RKE makes them: the simulated cluster's certificate authority.
//!
//! The layout fills nodes with them, the embedded RKE renews them, and ports judge them. It is independent of `pki` on purpose.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, RsaKeySize, SanType, SerialNumber,
};
use sha2::{Digest, Sha256};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::SimError;
use super::clock::lock;

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// What a leaf certificate says, apart from its times.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) common_name: String,
    pub(crate) organization: Option<&'static str>,
    pub(crate) usage: Usage,
    pub(crate) names: Vec<String>,
}

/// What a leaf certificate is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    Client,
    ClientAndServer,
    Server,
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

impl Validity {
    /// Reads the times of a PEM certificate.
    pub(crate) fn of(pem: &[u8]) -> Option<Self> {
        with_certificate(pem, |certificate| {
            let validity = certificate.validity();
            let time = |seconds| Timestamp::from_second(seconds).ok();
            Some(Self {
                not_before: time(validity.not_before.timestamp())?,
                not_after: time(validity.not_after.timestamp())?,
            })
        })?
    }

    /// Returns whether an instant lies in it.
    pub(crate) fn holds(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

fn with_certificate<T>(pem: &[u8], read: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let (_, pem) = parse_x509_pem(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
    Some(read(&certificate))
}

/// Returns whether a certificate is valid at an instant and signed by a certificate authority that is valid then, too.
pub(crate) fn is_valid(pem: &[u8], authority: &[u8], now: Timestamp) -> bool {
    let times =
        [pem, authority].iter().all(|pem| Validity::of(pem).is_some_and(|validity| validity.holds(now)));
    let signed = with_certificate(authority, |authority| {
        with_certificate(pem, |certificate| {
            certificate.verify_signature(Some(authority.public_key())).is_ok()
        })
    });
    times && signed.flatten().unwrap_or(false)
}

/// Who a client certificate says that its holder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) user: String,
    pub(crate) groups: Vec<String>,
}

/// Returns who holds a client certificate (DER) that an authority (PEM) signed; `None` where it is not valid or not for clients.
pub(crate) fn client(der: &[u8], authority: &[u8], now: Timestamp) -> Option<Identity> {
    if !is_valid(armour("CERTIFICATE", der).as_bytes(), authority, now) {
        return None;
    }
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let usages = certificate.extended_key_usage().ok()?;
    if usages.is_some_and(|usages| !usages.value.client_auth && !usages.value.any) {
        return None;
    }
    let subject = certificate.subject();
    let groups = subject.iter_organization().filter_map(|group| Some(group.as_str().ok()?.to_owned()));
    let groups = groups.collect();
    Some(Identity { user: subject.iter_common_name().next()?.as_str().ok()?.to_owned(), groups })
}

/// Returns whether a key belongs to a certificate: of RSA both hold the same modulus.
pub(crate) fn belong_together(pem: &[u8], key: &[u8]) -> bool {
    if let Some(point) = with_certificate(pem, elliptic_point).flatten() {
        let pair = std::str::from_utf8(key).ok().and_then(|key| KeyPair::from_pem(key).ok());
        return pair.is_some_and(|pair| pair.public_key_raw() == point);
    }
    let Ok((_, key)) = parse_x509_pem(key) else { return false };
    let inner = if key.label == "PRIVATE KEY" { pkcs1(&key.contents) } else { Some(key.contents.as_slice()) };
    let private =
        inner.and_then(element).and_then(|(fields, _)| element(fields)).and_then(|(_, rest)| element(rest));
    let public = with_certificate(pem, |certificate| {
        let data = certificate.public_key().subject_public_key.data.to_vec();
        element(&data).and_then(|(fields, _)| element(fields)).map(|(modulus, _)| modulus.to_vec())
    });
    matches!((private, public), (Some((private, _)), Some(Some(public))) if private == public)
}

/// Returns the public point of a certificate whose key is of an elliptic curve.
fn elliptic_point(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    match certificate.public_key().parsed().ok()? {
        PublicKey::EC(point) => Some(point.data().to_vec()),
        _ => None,
    }
}

/// Makes a key on the curve P-256 in PKCS#8, as `openssl genpkey` does.
pub(crate) fn make_elliptic_key() -> Result<String, SimError> {
    Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?.serialize_pem())
}

/// The RSA keys that a fleet makes while it lives, in the order in which they are wanted.
///
/// Fleets that begin with the same certificates share them: the keys of one fleet differ from each other, and that is what counts.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    made: Arc<Mutex<Vec<String>>>,
    taken: Mutex<usize>,
}

impl Keys {
    /// Returns the keys of another fleet, to be taken from the first one on.
    pub(crate) fn anew(&self) -> Self {
        Self { made: Arc::clone(&self.made), taken: Mutex::default() }
    }

    /// Takes keys that nobody in this fleet has taken before.
    pub(crate) fn take(&self, count: usize) -> Result<Vec<String>, SimError> {
        let mut taken = lock(&self.taken);
        let mut made = lock(&self.made);
        let (begin, end) = (*taken, *taken + count);
        if end > made.len() {
            let missing = end - made.len();
            made.extend(make_keys(missing)?);
        }
        *taken = end;
        Ok(made.get(begin..end).unwrap_or_default().to_vec())
    }
}

/// Makes RSA keys of 2048 bits in PKCS#1, as RKE does, on as many threads as there are processors.
pub(crate) fn make_keys(count: usize) -> Result<Vec<String>, SimError> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(count.max(1));
    let shares = (0..threads).map(|thread| count / threads + usize::from(thread < count % threads));
    std::thread::scope(|scope| {
        let workers: Vec<_> = shares
            .map(|share| scope.spawn(move || (0..share).map(|_| make_key()).collect::<Result<Vec<_>, _>>()))
            .collect();
        let mut keys = Vec::new();
        for worker in workers {
            keys.extend(
                worker.join().map_err(|_| SimError::Internal("a thread that makes keys ended early"))??,
            );
        }
        Ok(keys)
    })
}

fn make_key() -> Result<String, SimError> {
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    let inner = pkcs1(key.serialized_der()).ok_or(SimError::Internal("a key is not PKCS#8"))?;
    Ok(armour("RSA PRIVATE KEY", inner))
}

/// Returns the PKCS#1 key inside a PKCS#8 one: version, algorithm, and an octet string that is the key.
fn pkcs1(pkcs8: &[u8]) -> Option<&[u8]> {
    let (content, _) = element(pkcs8)?;
    let (_, rest) = element(content)?;
    let (_, rest) = element(rest)?;
    element(rest).map(|(key, _)| key)
}

/// Returns the content of the DER element at the beginning, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = usize::from(*der.get(1)?);
    let (length, begin) = if first < 0x80 {
        (first, 2)
    } else {
        let end = 2 + (first & 0x7f);
        (der.get(2..end)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), end)
    };
    Some((der.get(begin..begin + length)?, der.get(begin + length..)?))
}

fn armour(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn parameters(common_name: &str, validity: Validity) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    parameters.distinguished_name = name;
    let time = |at: Timestamp| {
        let seconds = u64::try_from(at.as_second()).unwrap_or(0);
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    parameters.not_before = time(validity.not_before);
    parameters.not_after = time(validity.not_after);
    parameters
}

/// Makes a certificate authority that signs itself; its serial number is 0, as RKE's is.
pub(crate) fn make_authority(common_name: &str, key: String, validity: Validity) -> Result<Pair, SimError> {
    let mut parameters = parameters(common_name, validity);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    parameters.serial_number = Some(SerialNumber::from_slice(&[0]));
    let certificate = parameters.self_signed(&KeyPair::from_pem(&key)?)?;
    Ok(Pair { certificate: lines(&certificate.pem()), key })
}

/// Makes a leaf certificate that an authority signs.
pub(crate) fn make_leaf(
    authority: &Pair,
    subject: &Subject,
    key: String,
    validity: Validity,
) -> Result<Pair, SimError> {
    let mut parameters = parameters(&subject.common_name, validity);
    if let Some(organization) = subject.organization {
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, organization);
        name.push(DnType::CommonName, subject.common_name.as_str());
        parameters.distinguished_name = name;
    }
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    parameters.extended_key_usages = match subject.usage {
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::ClientAndServer => {
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth]
        }
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
    };
    for name in &subject.names {
        let name = match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        };
        parameters.subject_alt_names.push(name);
    }
    let pair = KeyPair::from_pem(&key)?;
    let seed = Sha256::new().chain_update(pair.public_key_raw()).chain_update(validity.not_after.to_string());
    let mut serial = seed.finalize().to_vec();
    serial.truncate(8);
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x3f) | 0x10;
    }
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters.use_authority_key_identifier_extension = true;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let certificate = parameters.signed_by(&pair, &issuer)?;
    Ok(Pair { certificate: lines(&certificate.pem()), key })
}

/// Returns a text with the line ends that RKE writes.
fn lines(pem: &str) -> String {
    pem.replace("\r\n", "\n")
}
