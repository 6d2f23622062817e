//! Forms of keys, the good and the bad.

use russh::keys::Algorithm;
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;

use super::*;
use crate::inventory::Secret;
use crate::transport::AskSecret;

struct Answers(Option<&'static str>);

impl AskSecret for Answers {
    fn ask(&self, _: &Question) -> Option<Secret> {
        self.0.map(|answer| Secret::new(answer.to_owned()))
    }
}

fn read(text: &str) -> Result<LoadedKey, KeyError> {
    let source = KeySource::Inline(Secret::new(text.to_owned()));
    let questions = Questions::new(Arc::new(Answers(Some("secret"))));
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(read_key(&source, &questions))
}

#[test]
fn texts_that_are_no_usable_keys_say_what_they_are() {
    let public = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
    let public = public.public_key().to_openssh().unwrap();
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,00\n\nAAAA\n";
    for (text, expected) in [
        (public.as_str(), "public key"),
        ("", "not a PEM"),
        ("-----BEGIN DSA PRIVATE KEY-----\nAAAA\n", "obsolete"),
        (old, "old way"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n????\n", "not a private key"),
    ] {
        let error = read(text).map(|key| key.name).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn an_encrypted_key_shows_its_public_half_without_a_passphrase() {
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
    let encrypted = key.encrypt(&mut safe_rng(), "secret").unwrap().to_openssh(LineEnding::LF).unwrap();
    let source = KeySource::Inline(Secret::new(encrypted.to_string()));
    let look = source.look();
    assert_eq!(look.form, Ok(KeyForm::Encrypted));
    assert_eq!(look.public.unwrap().key_data(), key.public_key().key_data());
    assert_eq!(read(&encrypted).unwrap().key.public_key().key_data(), key.public_key().key_data());
}

#[test]
fn a_passphrase_opens_keys_of_other_forms() {
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
    let mut pem = Vec::new();
    russh::keys::encode_pkcs8_pem_encrypted(&key, b"secret", 100, &mut pem).unwrap();
    let loaded = read(&String::from_utf8(pem).unwrap()).unwrap();
    assert_eq!(loaded.key.public_key().key_data(), key.public_key().key_data());
}
