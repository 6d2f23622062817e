//! Certificates of hosts, the good and the bad.

use russh::keys::PrivateKey;
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::certificate::Builder;

use super::*;

const NOW: u64 = 1_800_000_000;

fn key() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

/// Returns a good certificate of `node-1` and `*.example.net`, which a test makes bad.
fn certificate(kind: CertType, change: impl FnOnce(&mut Builder)) -> Certificate {
    let host_key = key().public_key().key_data().clone();
    let mut builder =
        Builder::new_with_random_nonce(&mut safe_rng(), host_key, NOW - 100, NOW + 100).unwrap();
    builder.cert_type(kind).unwrap();
    change(&mut builder);
    builder.sign(&key()).unwrap()
}

fn names(builder: &mut Builder) {
    builder.valid_principal("node-1").unwrap();
    builder.valid_principal("*.example.net").unwrap();
}

fn flaw_at(certificate: &Certificate, host: &str, seconds: u64) -> Option<CertificateFlaw> {
    flaw(certificate, host, time(seconds))
}

#[test]
fn names_may_have_wildcards_and_hosts_may_shout() {
    let certificate = certificate(CertType::Host, names);
    for host in ["node-1", "NODE-1", "a.example.net", "A.Example.NET"] {
        assert_eq!(flaw_at(&certificate, host, NOW), None, "{host}");
    }
    for host in ["node-2", "node-11", "example.net", "10.0.0.1", ""] {
        let expected = vec!["node-1".to_owned(), "*.example.net".to_owned()];
        assert_eq!(flaw_at(&certificate, host, NOW), Some(CertificateFlaw::OtherNames(expected)), "{host}");
    }
}

#[test]
fn it_is_valid_from_its_first_second_to_the_one_before_its_last() {
    let certificate = certificate(CertType::Host, names);
    let at = |seconds| flaw_at(&certificate, "node-1", seconds);
    assert_eq!(at(NOW - 101), Some(CertificateFlaw::NotYetValid(time(NOW - 100))));
    assert_eq!(at(NOW - 100), None);
    assert_eq!(at(NOW + 99), None);
    assert_eq!(at(NOW + 100), Some(CertificateFlaw::Expired(time(NOW + 100))));
}

#[test]
fn other_flaws() {
    let for_users = certificate(CertType::User, names);
    let conditional = certificate(CertType::Host, |builder| {
        names(builder);
        builder.critical_option("force-command", "true").unwrap();
    });
    let nameless = certificate(CertType::Host, |builder| {
        builder.all_principals_valid().unwrap();
    });
    let good = certificate(CertType::Host, names);
    let mut forged = good.to_bytes().unwrap();
    // The serial number's last byte: everything but the signature stays readable.
    let name_length = good.algorithm().to_certificate_type().len();
    let serial_end = 4 + name_length + 4 + good.nonce().len() + 4 + 32 + 8;
    forged[serial_end - 1] ^= 1;
    let forged = Certificate::from_bytes(&forged).unwrap();
    assert_ne!(forged.serial(), good.serial());
    for (certificate, expected) in [
        (for_users, CertificateFlaw::ForUsers),
        (conditional, CertificateFlaw::CriticalOptions(vec!["force-command".to_owned()])),
        (nameless, CertificateFlaw::NoNames),
        (forged, CertificateFlaw::WrongSignature),
    ] {
        assert_eq!(flaw_at(&certificate, "node-1", NOW), Some(expected));
    }
}
