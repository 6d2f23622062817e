//! CAs that cannot sign say why, and what helps.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certroll::pki::{Certificate, CertificateError, IssueError, KeyError, Signer};
use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};

use super::authority::{authority, params};

/// Returns why a CA is refused; each refusal that a person can mend says how.
fn refusal(certificate: &[u8], key: &str) -> IssueError {
    let error = Signer::new(certificate, key).err().unwrap();
    assert!(error.hint().is_some(), "{error}");
    error
}

#[test]
fn a_certificate_that_cannot_be_read_is_refused() {
    let pair = authority(&rcgen::PKCS_ECDSA_P256_SHA256);
    let der = Certificate::from_pem(pair.certificate.as_bytes()).unwrap().der;
    let whole = pair.certificate.as_str();
    let cut = &whole[..whole.len() / 2];
    let cases: [(&[u8], CertificateError); 5] = [
        (b"", CertificateError::Empty),
        (&der, CertificateError::NotPem),
        (cut.as_bytes(), CertificateError::Damaged),
        (pair.key.as_bytes(), CertificateError::NotPem),
        (b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", CertificateError::Damaged),
    ];
    for (certificate, error) in cases {
        assert_eq!(refusal(certificate, &pair.key), IssueError::CaCertificate(error));
    }
    let short = whole.replacen("MII", "MIA", 1);
    let refused = refusal(short.as_bytes(), &pair.key);
    assert!(matches!(refused, IssueError::CaCertificate(CertificateError::Der(_))), "{refused}");
}

#[test]
fn a_key_that_cannot_be_used_is_refused() {
    let pair = authority(&rcgen::PKCS_ECDSA_P256_SHA256);
    let encrypted = pair.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let body: String = pair.key.lines().filter(|line| !line.starts_with("-----")).collect();
    let old = format!(
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0011\n\n{body}\n-----END EC PRIVATE KEY-----\n"
    );
    let cut = &pair.key[..pair.key.len() / 2];
    let cases = [
        (encrypted.as_str(), KeyError::Encrypted),
        (&old, KeyError::Encrypted),
        (cut, KeyError::Damaged),
        ("", KeyError::NotPem),
        (&pair.certificate, KeyError::NotPem),
        ("-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----\n", KeyError::Unsupported),
    ];
    for (key, error) in cases {
        assert_eq!(refusal(pair.certificate.as_bytes(), key), IssueError::CaKey(error));
    }
}

#[test]
fn a_pair_that_is_no_authority_is_refused() {
    let pair = authority(&rcgen::PKCS_ECDSA_P256_SHA256);
    let other = authority(&rcgen::PKCS_ECDSA_P256_SHA256);
    assert_eq!(refusal(pair.certificate.as_bytes(), &other.key), IssueError::CaMismatch);
    let two = format!("{}{}", pair.certificate, other.certificate);
    assert_eq!(refusal(two.as_bytes(), &pair.key), IssueError::SeveralCertificates(2));

    let key = KeyPair::generate().unwrap();
    let mut leaf = params("kube-node");
    leaf.is_ca = IsCa::NoCa;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut signs_nothing = params("kube-ca");
    signs_nothing.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    for (params, name) in [(leaf, "CN=kube-node"), (signs_nothing, "CN=kube-ca")] {
        let certificate = params.self_signed(&key).unwrap().pem();
        assert_eq!(
            refusal(certificate.as_bytes(), &key.serialize_pem()),
            IssueError::NotAnAuthority(name.to_owned())
        );
    }

    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P521_SHA512] {
        let unread = authority(algorithm);
        let refused = refusal(unread.certificate.as_bytes(), &unread.key);
        assert_eq!(refused, IssueError::CaKey(KeyError::Unsupported), "{algorithm:?}");
    }
}

/// No message holds a part of the key.
#[test]
fn a_refusal_tells_nothing_of_the_key() {
    let pair = authority(&rcgen::PKCS_RSA_SHA256);
    let body: String = pair.key.lines().filter(|line| !line.starts_with("-----")).collect();
    let cut = format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n", &body[..400]);
    let error = refusal(pair.certificate.as_bytes(), &cut);
    let shown = format!("{error} {error:?} {:?}", error.hint());
    let secret = STANDARD.decode(&body).unwrap();
    assert!(!shown.contains(&body[..16]) && secret.len() > 1000, "{shown}");
}
