//! With which keys a login succeeds, and what is said when none does.

use std::sync::atomic::Ordering;

use certroll::inventory::Secret;
use certroll::transport::{Settings, Transport, TransportError};
use futures::future::try_join_all;
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};

use super::operator::*;
use super::server::{Forwarding, Server};

#[tokio::test]
async fn a_refused_key_is_named() {
    let operator = Operator::new();
    let server = operator.server().await;
    let stranger = ed25519();
    operator.write_key(&stranger.to_openssh(LineEnding::LF).unwrap());
    let error = operator.transport().connect(&node(server.address)).await.unwrap_err();
    assert!(matches!(error, TransportError::AuthenticationRefused { .. }), "{error}");
    let fingerprint = stranger.fingerprint(HashAlg::Sha256).to_string();
    for part in ["id_key", &fingerprint, "`rke`", &server.address.to_string()] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_missing_key_is_named_with_who_named_it() {
    let operator = Operator::new();
    let server = operator.server().await;
    let mut node = node(server.address);
    node.ssh.key_path = Some("~/nowhere".to_owned());
    let error = operator.transport().connect(&node).await.unwrap_err();
    let path = operator.path("nowhere");
    let expected = format!(
        "no key to log in to {} as `rke`: the key `{}`, named by `ssh_key_path`, does not exist",
        server.address,
        path.display()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn every_kind_and_form_of_key_logs_in() {
    let operator = Operator::new();
    let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_pem();
    let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    let p384 = random(Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 });
    let mut texts = vec![rsa.clone(), p256, p384.to_openssh(LineEnding::CRLF).unwrap().to_string()];
    texts.push(
        russh::keys::decode_secret_key(&rsa, None).unwrap().to_openssh(LineEnding::LF).unwrap().to_string(),
    );
    for text in texts {
        let key = russh::keys::decode_secret_key(&text, None).unwrap();
        let host_key = ed25519();
        let server = Server::start(vec![host_key.clone()], key.public_key(), Forwarding::Allowed).await;
        operator.know(server.address, host_key.public_key());
        let mut node = node(server.address);
        let indented = text.lines().fold(String::new(), |indented, line| indented + "    " + line + "\n");
        node.ssh.key = Some(Secret::new(indented));
        operator.transport().connect(&node).await.unwrap();
        let is_rsa = matches!(key.algorithm(), Algorithm::Rsa { .. });
        assert_eq!(server.signed_with(), [is_rsa.then_some(HashAlg::Sha512)], "never SHA-1");
    }
}

#[tokio::test]
async fn a_certificate_is_offered_before_its_key() {
    let operator = Operator::new();
    let authority = ed25519();
    let host_key = ed25519();
    let server = Server::start(vec![host_key.clone()], authority.public_key(), Forwarding::Allowed).await;
    operator.know(server.address, host_key.public_key());
    let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_pem();
    for text in [operator.key.to_openssh(LineEnding::LF).unwrap().to_string(), rsa] {
        let key = russh::keys::decode_secret_key(&text, None).unwrap();
        let certificate = user_certificate(&key, &authority).to_openssh().unwrap();
        let mut node = node(server.address);
        node.ssh.key = Some(Secret::new(text));
        node.ssh.certificate = Some(certificate);
        operator.transport().connect(&node).await.unwrap();
    }
}

#[tokio::test]
async fn a_passphrase_is_asked_for_once() {
    let operator = Operator::with_answer(Some("open sesame"));
    let encrypted = operator.key.encrypt(&mut safe_rng(), "open sesame").unwrap();
    operator.write_key(&encrypted.to_openssh(LineEnding::LF).unwrap());
    let server = operator.server().await;
    let transport = operator.transport();
    let nodes = vec![node(server.address); 5];
    try_join_all(nodes.iter().map(|node| transport.connect(node))).await.unwrap();
    assert_eq!(operator.passphrases.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_encrypted_key_without_its_passphrase_is_named() {
    for (answer, expected) in
        [(None, "is encrypted and no passphrase was given"), (Some("wrong"), "the passphrase of")]
    {
        let operator = Operator::with_answer(answer);
        let encrypted = operator.key.encrypt(&mut safe_rng(), "open sesame").unwrap();
        operator.write_key(&encrypted.to_openssh(LineEnding::LF).unwrap());
        let server = operator.server().await;
        let error = operator.transport().connect(&node(server.address)).await.unwrap_err();
        assert!(matches!(error, TransportError::NoKey { .. }), "{error}");
        assert!(error.to_string().contains(expected) && error.to_string().contains("id_key"), "{error}");
    }
}

#[tokio::test]
async fn the_command_lines_user_and_key_outrank_the_inventory() {
    let operator = Operator::new();
    let server = operator.server().await;
    let mut node = node(server.address);
    node.user = "nobody".to_owned();
    node.ssh.key_path = Some("~/nowhere".to_owned());
    let settings = Settings {
        user: Some("rke".to_owned()),
        key_path: Some(operator.path("id_key")),
        ..operator.settings()
    };
    Transport::new(settings, None).unwrap().connect(&node).await.unwrap();
}
