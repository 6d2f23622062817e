use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Why a text holds no private key that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no block of a private key.
    #[error("the file holds no PEM private key")]
    NotPem,
    /// A passphrase protects it (`Proc-Type: 4,ENCRYPTED`, or `ENCRYPTED PRIVATE KEY`).
    #[error("the private key is encrypted")]
    Encrypted,
    /// The block has no end, or its body is not base64.
    #[error("the PEM private key is cut short or damaged")]
    Damaged,
    /// The block is whole, but it holds no key of a kind that is used.
    #[error("the private key is damaged, or neither RSA nor EC on P-256 or P-384")]
    Unsupported,
}

/// Reads the private key of a PEM text: RSA (PKCS#1), EC (SEC1) or either in PKCS#8.
pub(super) fn read_key(text: &str) -> Result<rcgen::KeyPair, KeyError> {
    rcgen::KeyPair::try_from(private_key(text)?.as_slice()).map_err(|_| KeyError::Unsupported)
}

/// Returns the DER of the first private key; what stands before it, such as `EC PARAMETERS`, does not matter.
fn private_key(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let mut lines = text.lines().map(str::trim);
    let label = lines.by_ref().find_map(begun_key).ok_or(KeyError::NotPem)?;
    if label == "ENCRYPTED PRIVATE KEY" {
        return Err(KeyError::Encrypted);
    }
    // Reserved at once: a text that grows would leave copies behind.
    let mut body = Zeroizing::new(String::with_capacity(text.len()));
    for line in lines {
        if line.starts_with("Proc-Type:") && line.contains("ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        if line.starts_with("-----") {
            if line.strip_prefix("-----END ").and_then(|rest| rest.strip_suffix("-----")) != Some(label) {
                return Err(KeyError::Damaged);
            }
            let mut der = Zeroizing::new(vec![0; body.len() / 4 * 3 + 3]);
            let length = STANDARD.decode_slice(body.as_bytes(), &mut der).map_err(|_| KeyError::Damaged)?;
            der.truncate(length);
            return Ok(der);
        }
        body.push_str(line);
    }
    Err(KeyError::Damaged)
}

/// Returns the label of the line that begins a private key.
fn begun_key(line: &str) -> Option<&str> {
    let label = line.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
    label.ends_with("PRIVATE KEY").then_some(label)
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

    #[test]
    fn a_key_that_cannot_be_used_says_why() {
        let cases = [
            ("", KeyError::NotPem),
            ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", KeyError::NotPem),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMAA=\n-----END RSA PRIVATE KEY-----\n",
                KeyError::Encrypted,
            ),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n",
                KeyError::Encrypted,
            ),
            ("-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n", KeyError::Damaged),
            ("-----BEGIN PRIVATE KEY-----\nMA=A\n-----END PRIVATE KEY-----\n", KeyError::Damaged),
            ("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END CERTIFICATE-----\n", KeyError::Damaged),
            ("-----BEGIN DSA PRIVATE KEY-----\nMAA=\n-----END DSA PRIVATE KEY-----\n", KeyError::Unsupported),
        ];
        for (text, error) in cases {
            assert_eq!(read_key(text).err(), Some(error), "{text}");
        }
    }
}
