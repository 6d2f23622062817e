use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What was read of a private key to find out whether it matches its certificate.
///
/// Of a PKCS#1 RSA key of 2048 bits the first 364 base64 characters hold version, modulus and exponent, and nothing
/// private (RFC 8017, A.1.2); of a longer key they hold a part of the modulus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicPrefix {
    /// The modulus without leading zeros; cut short where the key is longer than 2048 bits.
    Rsa {
        /// Bytes of the modulus, most significant first.
        modulus: Vec<u8>,
    },
    /// The whole public key, of a key that was read with `--read-keys`.
    PublicKey {
        /// The bit string of the SubjectPublicKeyInfo.
        subject_public_key: Vec<u8>,
    },
    /// No public part could be read.
    Unknown {
        /// What kind of key it says it is.
        kind: KeyKind,
    },
}

/// What the first lines of a key file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// `RSA PRIVATE KEY`: RKE's own.
    Pkcs1,
    /// `PRIVATE KEY`.
    Pkcs8,
    /// `EC PRIVATE KEY`.
    Sec1,
    /// One that a passphrase protects: `ENCRYPTED PRIVATE KEY`, or a `Proc-Type:` beneath the first line.
    Encrypted,
    /// No key at all.
    NotAKey,
}

impl PublicPrefix {
    /// Reads what the probe printed of a key file: the first line, and base64 text where the probe found it safe to print.
    pub fn from_probe(text: &str) -> Self {
        let mut lines = text.lines();
        let head = lines.next().unwrap_or_default().trim();
        let is_protected = lines.clone().next().is_some_and(|line| line.starts_with("Proc-Type:"));
        let kind = match head {
            "-----BEGIN ENCRYPTED PRIVATE KEY-----" => KeyKind::Encrypted,
            "-----BEGIN RSA PRIVATE KEY-----" | "-----BEGIN EC PRIVATE KEY-----" if is_protected => {
                KeyKind::Encrypted
            }
            "-----BEGIN RSA PRIVATE KEY-----" => KeyKind::Pkcs1,
            "-----BEGIN PRIVATE KEY-----" => KeyKind::Pkcs8,
            "-----BEGIN EC PRIVATE KEY-----" => KeyKind::Sec1,
            _ => KeyKind::NotAKey,
        };
        // A whole key may be given; of memory that grows copies would stay behind.
        let mut body = Zeroizing::new(String::with_capacity(text.len()));
        lines.take_while(|line| !line.starts_with("-----")).for_each(|line| body.push_str(line.trim()));
        let whole = body.len() / 4 * 4;
        let modulus = (kind == KeyKind::Pkcs1)
            .then(|| STANDARD.decode(body.get(..whole)?).ok().map(Zeroizing::new))
            .flatten()
            .and_then(|der| rsa_modulus(&der));
        match modulus {
            Some(modulus) => Self::Rsa { modulus },
            None if text.contains("-----END") => Self::from_whole_key(text, kind),
            None => Self::Unknown { kind },
        }
    }

    /// Derives the public key of a key that was read as a whole.
    fn from_whole_key(text: &str, kind: KeyKind) -> Self {
        match super::pem::read_key(text).map(Zeroizing::new) {
            Ok(pair) => Self::PublicKey { subject_public_key: pair.public_key_raw().to_vec() },
            Err(_) => Self::Unknown { kind },
        }
    }
}

/// Returns the modulus of the beginning of an RSAPrivateKey: SEQUENCE, version 0, INTEGER of at least 256 bytes.
fn rsa_modulus(der: &[u8]) -> Option<Vec<u8>> {
    let rest = der.strip_prefix(&[0x30, 0x82])?.get(2..)?;
    let rest = rest.strip_prefix(&[0x02, 0x01, 0x00, 0x02, 0x82])?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let modulus: Vec<u8> = rest.get(..length)?.iter().copied().skip_while(|byte| *byte == 0).collect();
    (modulus.len() >= 250).then_some(modulus)
}
