//! Nodes behind a bastion or a chain of jump hosts.

use std::time::Duration;

use certroll::transport::{Backoff, Endpoint, Jump, Phase, Settings, Transport, TransportError};
use futures::future::{join_all, try_join_all};

use super::operator::*;
use super::proxy::{Fate, Proxy};
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

#[tokio::test]
async fn a_crowd_is_spread_over_a_few_connections() {
    let operator = Operator::new();
    let (gate, server) = (operator.server().await, operator.server().await);
    let transport = Transport::new(operator.settings(), Some(&bastion(gate.address))).unwrap();
    let nodes = vec![node(server.address); 150];
    let sessions = try_join_all(nodes.iter().map(|node| transport.connect(node))).await.unwrap();
    assert_eq!((gate.accepted(), server.accepted()), (3, 150), "64, 64 and the rest");
    for session in sessions {
        session.close().await;
    }
    transport.connect(&nodes[0]).await.unwrap();
    assert_eq!(gate.accepted(), 3);
}

#[tokio::test]
async fn a_bastion_without_room_is_waited_for() {
    let operator = Operator::new();
    let (gate, server) = (operator.server_with(Forwarding::AtMost(2)).await, operator.server().await);
    // Nothing that is tried again helps here.
    let settings = Settings { reconnect: Backoff::once(), ..operator.settings() };
    let transport = Transport::new(settings, Some(&bastion(gate.address))).unwrap();
    let node = node(server.address);
    let greet = async || {
        let session = transport.connect(&node).await?;
        let output = session.run_line("hello", None, None).await?;
        session.close().await;
        Ok::<_, TransportError>(output.succeeded())
    };
    let greeted = try_join_all((0..8).map(|_| greet())).await.unwrap();
    assert!(greeted.into_iter().all(|greeted| greeted));
    assert_eq!((gate.accepted(), gate.forwarded_at_once()), (1, 2));
    assert!(gate.forwarded() > 8, "some were turned away");
}

#[tokio::test]
async fn a_bastion_that_never_has_room_is_an_error_in_the_end() {
    let operator = Operator::new();
    let (gate, server) = (operator.server_with(Forwarding::AtMost(0)).await, operator.server().await);
    let settings = Settings {
        reconnect: Backoff::once(),
        command_timeout: Duration::from_millis(50),
        ..operator.settings()
    };
    let transport = Transport::new(settings, Some(&bastion(gate.address))).unwrap();
    let error = transport.connect(&node(server.address)).await.unwrap_err();
    assert!(matches!(error, TransportError::NoRoom { .. }), "{error}");
    assert!(error.hint().unwrap().contains("--parallel"));
}

#[tokio::test]
async fn a_bastion_that_hangs_up_on_a_crowd_is_waited_for() {
    let operator = Operator::new();
    let (gate, server) = (operator.server().await, operator.server().await);
    let proxy = Proxy::start(gate.address, [Fate::Closed; 4]);
    operator.know_as(proxy.address, &gate);
    let reconnect = Backoff { attempts: 3, pause: Duration::from_millis(1) };
    let transport =
        Transport::new(Settings { reconnect, ..operator.settings() }, Some(&bastion(proxy.address))).unwrap();
    transport.connect(&node(server.address)).await.unwrap();
    assert_eq!(proxy.accepted(), 5);
}

#[tokio::test]
async fn a_silent_bastion_is_not_waited_for_by_one_node_after_the_other() {
    let operator = Operator::new();
    let gate = server::silent().await;
    let settings = Settings { connect_timeout: Duration::from_millis(300), ..operator.settings() };
    let transport = Transport::new(settings, Some(&bastion(gate))).unwrap();
    let node = node(gate);
    transport.connect(&node).await.unwrap_err();
    let began = std::time::Instant::now();
    transport.connect(&node).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_millis(300));
}

#[tokio::test]
async fn a_bastion_that_lets_nobody_in_is_asked_once_in_a_run() {
    let operator = Operator::new();
    let gate = operator.server().await;
    operator.write_key(&ed25519().to_openssh(russh::keys::ssh_key::LineEnding::LF).unwrap());
    let settings = Settings { connect_timeout: Duration::from_secs(60), ..operator.settings() };
    let transport = Transport::new(settings, Some(&bastion(gate.address))).unwrap();
    // More than one connection carries.
    let nodes = vec![node(gate.address); 150];
    for _ in 0..2 {
        for result in join_all(nodes.iter().map(|node| transport.connect(node))).await {
            let error = result.unwrap_err();
            let TransportError::Jump { cause, .. } = &error else { panic!("{error}") };
            assert!(matches!(**cause, TransportError::AuthenticationRefused { .. }), "{error}");
        }
    }
    assert_eq!(gate.accepted(), 1);
}

#[tokio::test]
async fn a_bastion_that_refuses_all_attempts_is_left_alone_for_a_while() {
    let operator = Operator::new();
    let gate = operator.server().await;
    let proxy = Proxy::start(gate.address, [Fate::Closed; 99]);
    operator.know_as(proxy.address, &gate);
    let reconnect = Backoff { attempts: 3, pause: Duration::from_millis(1) };
    let settings = Settings { reconnect, connect_timeout: Duration::from_secs(60), ..operator.settings() };
    let transport = Transport::new(settings, Some(&bastion(proxy.address))).unwrap();
    let node = node(gate.address);
    for _ in 0..3 {
        transport.connect(&node).await.unwrap_err();
    }
    assert_eq!(proxy.accepted(), 5);
}

#[tokio::test]
async fn a_jump_host_that_is_the_bastion_keeps_its_port() {
    let operator = Operator::new();
    let (gate, server) = (operator.server().await, operator.server().await);
    let jumps = vec![gate.address.ip().to_string().parse().unwrap()];
    let settings = Settings { jumps: Some(jumps), ..operator.settings() };
    let transport = Transport::new(settings, Some(&bastion(gate.address))).unwrap();
    transport.connect(&node(server.address)).await.unwrap();
    assert_eq!(gate.accepted(), 1);
}

#[tokio::test]
async fn a_further_connection_that_cannot_be_made_is_done_without() {
    let operator = Operator::new();
    let (gate, server) = (operator.server().await, operator.server().await);
    let fates = std::iter::once(Fate::ClosedAfter(u64::MAX)).chain([Fate::Closed; 99]);
    let proxy = Proxy::start(gate.address, fates);
    operator.know_as(proxy.address, &gate);
    let reconnect = Backoff { attempts: 3, pause: Duration::from_millis(1) };
    let settings = Settings { reconnect, ..operator.settings() };
    let transport = Transport::new(settings, Some(&bastion(proxy.address))).unwrap();
    let nodes = vec![node(server.address); 64];
    let _carried = try_join_all(nodes.iter().map(|node| transport.connect(node))).await.unwrap();
    for node in nodes.iter().take(3) {
        transport.connect(node).await.unwrap();
    }
    assert_eq!(proxy.accepted(), 1 + 5);
}
