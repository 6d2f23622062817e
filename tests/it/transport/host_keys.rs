//! Which hosts are trusted, and what is said of the others.

use std::os::unix::fs::PermissionsExt as _;

use certroll::transport::{HostKeyPolicy, Settings, Transport, TransportError};
use futures::future::try_join_all;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};

use super::operator::*;
use super::server::{Forwarding, Server};

#[tokio::test]
async fn an_unknown_host_is_refused_with_its_fingerprint_and_the_way_out() {
    let operator = Operator::new();
    let host_key = ed25519();
    let server = Server::start(vec![host_key.clone()], operator.key.public_key(), Forwarding::Allowed).await;
    let error = operator.transport().connect(&node(server.address)).await.unwrap_err();
    let fingerprint = host_key.fingerprint(HashAlg::Sha256).to_string();
    assert!(matches!(error, TransportError::HostKeyUnknown(_)), "{error}");
    assert_eq!(
        error.to_string(),
        format!("the host key of {} is not known: ssh-ed25519 {fingerprint}", server.address)
    );
    let hint = error.hint().unwrap();
    for part in ["ssh-keyscan -p", "known_hosts", "--host-keys accept-new", "rke@127.0.0.1"] {
        assert!(hint.contains(part), "{hint}");
    }
}

#[tokio::test]
async fn accept_new_writes_the_key_down_for_the_owner_alone() {
    let operator = Operator::new();
    let host_key = ed25519();
    let server = Server::start(vec![host_key.clone()], operator.key.public_key(), Forwarding::Allowed).await;
    let file = operator.path("new/.ssh/known_hosts");
    let accepting = Settings {
        host_keys: HostKeyPolicy::AcceptNew,
        known_hosts: vec![file.clone()],
        ..operator.settings()
    };
    let transport = Transport::new(accepting, None).unwrap();
    let node = node(server.address);
    try_join_all(vec![transport.connect(&node), transport.connect(&node)]).await.unwrap();
    assert_eq!(read(&file).unwrap(), known_line(server.address, host_key.public_key()) + "\n");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(file.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);

    let strict = Settings { known_hosts: vec![file], ..operator.settings() };
    Transport::new(strict, None).unwrap().connect(&node).await.unwrap();
}

#[tokio::test]
async fn a_changed_key_is_refused_even_by_accept_new() {
    let operator = Operator::new();
    let server = Server::start(vec![ed25519()], operator.key.public_key(), Forwarding::Allowed).await;
    operator.know(server.address, ed25519().public_key());
    let before = read(&operator.path("known_hosts"));
    let settings = Settings { host_keys: HostKeyPolicy::AcceptNew, ..operator.settings() };
    let error = Transport::new(settings, None).unwrap().connect(&node(server.address)).await.unwrap_err();
    assert!(matches!(error, TransportError::HostKeyChanged(_)), "{error}");
    let place = format!("{}:1", operator.path("known_hosts").display());
    assert!(error.to_string().contains(&place), "{error}");
    let hint = error.hint().unwrap();
    assert!(hint.contains(&format!("ssh-keygen -R '[127.0.0.1]:{}'", server.address.port())), "{hint}");
    assert_eq!(read(&operator.path("known_hosts")), before);

    let off = Settings { host_keys: HostKeyPolicy::Off, ..operator.settings() };
    Transport::new(off, None).unwrap().connect(&node(server.address)).await.unwrap();
}

#[tokio::test]
async fn a_revoked_key_is_refused_by_every_policy() {
    let operator = Operator::new();
    let host_key = ed25519();
    let server = Server::start(vec![host_key.clone()], operator.key.public_key(), Forwarding::Allowed).await;
    let line = known_line(server.address, host_key.public_key());
    operator.write("known_hosts", &format!("{line}\n@revoked {line}\n"));
    let settings = Settings { host_keys: HostKeyPolicy::Off, ..operator.settings() };
    let error = Transport::new(settings, None).unwrap().connect(&node(server.address)).await.unwrap_err();
    assert!(matches!(error, TransportError::HostKeyRevoked { .. }), "{error}");
}

#[tokio::test]
async fn a_host_shows_the_kind_of_key_that_is_known() {
    let operator = Operator::new();
    let known = random(Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 });
    let keys = vec![ed25519(), known.clone()];
    let server = Server::start(keys, operator.key.public_key(), Forwarding::Allowed).await;
    operator.know(server.address, known.public_key());
    operator.transport().connect(&node(server.address)).await.unwrap();
}

#[tokio::test]
async fn a_known_hosts_file_that_cannot_be_read_is_an_error() {
    let operator = Operator::new();
    let settings = Settings { known_hosts: vec![operator.home.path().to_owned()], ..operator.settings() };
    let error = Transport::new(settings, None).unwrap_err();
    assert!(matches!(error, TransportError::KnownHosts { .. }), "{error}");
}
