//! Nodes behind a bastion or a chain of jump hosts.

use std::time::Duration;

use certroll::transport::{Endpoint, Jump, Phase, Settings, Transport, TransportError};
use futures::future::{join_all, try_join_all};

use super::operator::*;
use super::server::{self, Forwarding, Server};

#[tokio::test]
async fn all_nodes_share_one_connection_to_the_bastion() {
    let operator = Operator::new();
    let (gate, server) = (operator.server().await, operator.server().await);
    let transport = Transport::new(operator.settings(), Some(&bastion(gate.address))).unwrap();
    let nodes = vec![node(server.address); 20];
    let sessions = try_join_all(nodes.iter().map(|node| transport.connect(node))).await.unwrap();
    for session in &sessions {
        let output = session.run_line(&format!("big {}", 1 << 20), None, None).await.unwrap();
        assert_eq!(output.stdout.len(), 1 << 20);
    }
    assert_eq!((gate.accepted(), server.accepted()), (1, 20));

    gate.cut();
    let lost = sessions[0].run_line("hang", None, None).await.unwrap_err();
    assert!(lost.is_transient(), "{lost}");
}

#[tokio::test]
async fn a_lost_bastion_is_connected_to_again() {
    let operator = Operator::new();
    let (gate, server) = (operator.server().await, operator.server().await);
    let transport = Transport::new(operator.settings(), Some(&bastion(gate.address))).unwrap();
    let node = node(server.address);
    let first = transport.connect(&node).await.unwrap();
    gate.cut();
    first.run_line("hang", None, None).await.unwrap_err();
    transport.connect(&node).await.unwrap();
    assert_eq!(gate.accepted(), 2);
}

#[tokio::test]
async fn a_silent_bastion_fails_all_nodes_in_one_time_limit() {
    let operator = Operator::new();
    let gate = server::silent().await;
    let settings = Settings { connect_timeout: Duration::from_millis(100), ..operator.settings() };
    let transport = Transport::new(settings, Some(&bastion(gate))).unwrap();
    let nodes = vec![node(gate); 100];
    let started = std::time::Instant::now();
    for result in join_all(nodes.iter().map(|node| transport.connect(node))).await {
        let error = result.unwrap_err();
        let TransportError::Jump { at, cause } = &error else { panic!("{error}") };
        assert_eq!(*at, Endpoint::new("127.0.0.1", gate.port()));
        assert!(matches!(**cause, TransportError::TimedOut { phase: Phase::KeyExchange, .. }), "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn the_bastions_key_is_verified_too() {
    let operator = Operator::new();
    let gate = Server::start(vec![ed25519()], operator.key.public_key(), Forwarding::Allowed).await;
    let server = operator.server().await;
    let transport = Transport::new(operator.settings(), Some(&bastion(gate.address))).unwrap();
    let error = transport.connect(&node(server.address)).await.unwrap_err();
    let TransportError::Jump { cause, .. } = &error else { panic!("{error}") };
    assert!(matches!(**cause, TransportError::HostKeyUnknown(_)), "{error}");
    assert!(error.hint().unwrap().contains("ssh-keyscan"), "{error}");
}

#[tokio::test]
async fn jumps_replace_the_bastion_and_are_passed_in_turn() {
    let operator = Operator::new();
    let (first, second, server) = (operator.server().await, operator.server().await, operator.server().await);
    let jumps: Vec<Jump> =
        [&first, &second].iter().map(|jump| format!("rke@{}", jump.address).parse().unwrap()).collect();
    let settings =
        Settings { jumps: Some(jumps), key_path: Some(operator.path("id_key")), ..operator.settings() };
    let transport = Transport::new(settings, Some(&bastion(server::silent().await))).unwrap();
    let session = transport.connect(&node(server.address)).await.unwrap();
    assert!(session.run_line("hello", None, None).await.unwrap().succeeded());
    assert_eq!((first.accepted(), second.accepted(), server.accepted()), (1, 1, 1));

    let mut node = node(server.address);
    node.port = server::closed_port().await;
    let error = transport.connect(&node).await.unwrap_err();
    assert!(matches!(error, TransportError::Unreachable { .. }), "{error}");
}
