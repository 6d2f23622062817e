//! Networks that fail: what is tried again, what is not, and how soon a dead connection is noticed.

use std::time::Duration;

use certroll::transport::{Backoff, Phase, Session, Settings, Transport, TransportError};
use futures::future::{join_all, try_join_all};
use tokio::net::TcpSocket;

use super::operator::*;
use super::proxy::{Fate, Proxy};
use super::server::{self, Forwarding, Server};

/// A keepalive that makes a dead connection known in 120 ms, where the program takes 40 s.
const FAST: Duration = Duration::from_millis(30);

/// Three attempts with next to no pause.
const EAGER: Backoff = Backoff { attempts: 3, pause: Duration::from_millis(1) };

/// Starts a server behind a proxy, which the operator knows by the proxy's address.
async fn behind_proxy(operator: &Operator, fates: impl IntoIterator<Item = Fate>) -> (Server, Proxy) {
    let host_key = ed25519();
    let server = Server::start(vec![host_key.clone()], operator.key.public_key(), Forwarding::Allowed).await;
    let proxy = Proxy::start(server.address, fates);
    operator.know(proxy.address, host_key.public_key());
    (server, proxy)
}

fn transport(operator: &Operator, reconnect: Backoff) -> Transport {
    let settings = Settings { reconnect, keepalive: FAST, ..operator.settings() };
    Transport::new(settings, None).unwrap()
}

/// Waits until a session knows that its connection has ended.
async fn noticed(session: &Session) {
    let looks = async {
        while !session.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looks).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_is_dropped_in_the_handshake_is_made_again() {
    let operator = Operator::new();
    // Before the version, amid the version, amid the key exchange.
    for fates in [[Fate::Closed, Fate::Closed], [Fate::ClosedAfter(4), Fate::ClosedAfter(200)]] {
        let (server, proxy) = behind_proxy(&operator, fates).await;
        let session = transport(&operator, EAGER).connect(&node(proxy.address)).await.unwrap();
        assert!(session.run_line("hello", None, None).await.unwrap().succeeded());
        assert_eq!(proxy.accepted(), 3);
        drop(server);
    }
}

#[tokio::test]
async fn attempts_come_to_an_end() {
    let operator = Operator::new();
    let (_, proxy) = behind_proxy(&operator, [Fate::Closed; 9]).await;
    let error = transport(&operator, EAGER).connect(&node(proxy.address)).await.unwrap_err();
    assert!(matches!(error, TransportError::ConnectionLost { .. }), "{error}");
    assert!(error.is_transient(), "{error}");
    assert_eq!(proxy.accepted(), 3);
    let error = transport(&operator, Backoff::once()).connect(&node(proxy.address)).await.unwrap_err();
    assert!(error.to_string().contains("MaxStartups"), "{error}");
    assert_eq!(proxy.accepted(), 4);
}

#[tokio::test]
async fn a_port_that_refuses_for_a_moment_is_tried_again() {
    let operator = Operator::new();
    let server = operator.server().await;
    let place = TcpSocket::new_v4().unwrap();
    place.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let node = {
        let mut node = node(server.address);
        // Bound, so that nobody else takes it, and not listening, so that it refuses.
        node.port = place.local_addr().unwrap().port();
        node
    };
    let once = transport(&operator, Backoff::once()).connect(&node).await.unwrap_err();
    assert!(matches!(once, TransportError::Refused { .. }), "{once}");

    let patient = transport(&operator, Backoff { attempts: 9, pause: Duration::from_millis(20) });
    let mut connecting = Box::pin(patient.connect(&node));
    let begun = tokio::time::timeout(Duration::from_millis(60), &mut connecting).await;
    assert!(begun.is_err(), "nothing listens yet");
    let listener = place.listen(8).unwrap();
    let accepting = async {
        let (socket, _) = listener.accept().await.unwrap();
        drop(socket);
    };
    // That it was asked once more is what matters; what it says then is another matter.
    tokio::select! {
        _ = &mut connecting => panic!("it gave up"),
        () = accepting => {}
    }
}

#[tokio::test]
async fn what_does_not_pass_is_not_tried_again() {
    let operator = Operator::new();
    let unknown = Server::start(vec![ed25519()], operator.key.public_key(), Forwarding::Allowed).await;
    let error = transport(&operator, EAGER).connect(&node(unknown.address)).await.unwrap_err();
    assert!(matches!(error, TransportError::HostKeyUnknown(_)) && !error.is_transient(), "{error}");
    assert_eq!(unknown.accepted(), 1);

    let stranger = operator.server().await;
    operator.write_key(&ed25519().to_openssh(russh::keys::ssh_key::LineEnding::LF).unwrap());
    let error = transport(&operator, EAGER).connect(&node(stranger.address)).await.unwrap_err();
    assert!(matches!(error, TransportError::AuthenticationRefused { .. }), "{error}");
    assert!(!error.is_transient(), "{error}");
    assert_eq!(stranger.accepted(), 1);

    // A host that is silent has had its time; another time as long would keep everybody waiting.
    let mute = Proxy::start(stranger.address, [Fate::SilentAfter(0); 9]);
    let settings =
        Settings { connect_timeout: Duration::from_millis(150), reconnect: EAGER, ..operator.settings() };
    let error = Transport::new(settings, None).unwrap().connect(&node(mute.address)).await.unwrap_err();
    assert!(matches!(error, TransportError::TimedOut { phase: Phase::KeyExchange, .. }), "{error}");
    assert_eq!(mute.accepted(), 1);
}

#[tokio::test]
async fn a_bastion_that_drops_a_login_is_tried_again_once_for_all_nodes() {
    let operator = Operator::new();
    let server = operator.server().await;
    let (gate, proxy) = behind_proxy(&operator, [Fate::Closed]).await;
    let settings = Settings { reconnect: EAGER, ..operator.settings() };
    let transport = Transport::new(settings, Some(&bastion(proxy.address))).unwrap();
    let nodes = vec![node(server.address); 20];
    try_join_all(nodes.iter().map(|node| transport.connect(node))).await.unwrap();
    assert_eq!((proxy.accepted(), gate.accepted(), server.accepted()), (2, 1, 20));
}

#[tokio::test]
async fn a_dead_bastion_is_tried_a_few_times_and_not_once_more_for_every_node() {
    let operator = Operator::new();
    let (_, proxy) = behind_proxy(&operator, [Fate::Closed; 99]).await;
    let settings = Settings { reconnect: EAGER, ..operator.settings() };
    let transport = Transport::new(settings, Some(&bastion(proxy.address))).unwrap();
    let nodes = vec![node(proxy.address); 20];
    for result in join_all(nodes.iter().map(|node| transport.connect(node))).await {
        let error = result.unwrap_err();
        assert!(matches!(error, TransportError::Jump { .. }) && error.is_transient(), "{error}");
    }
    assert_eq!(proxy.accepted(), 5, "twice as often as once more, for all nodes wait for it");
}

#[tokio::test]
async fn a_half_open_connection_is_noticed_while_nothing_is_asked() {
    let operator = Operator::new();
    let (server, proxy) = behind_proxy(&operator, []).await;
    let session = transport(&operator, EAGER).connect(&node(proxy.address)).await.unwrap();
    assert!(session.run_line("hello", None, None).await.unwrap().succeeded());
    proxy.fall_silent();
    noticed(&session).await;
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_dies_amid_a_write_is_noticed() {
    let operator = Operator::new();
    let (_, proxy) = behind_proxy(&operator, [Fate::SilentAfter(1 << 20)]).await;
    let settings =
        Settings { keepalive: FAST, connect_timeout: Duration::from_millis(400), ..operator.settings() };
    let session = Transport::new(settings, None).unwrap().connect(&node(proxy.address)).await.unwrap();
    let archive = vec![7; 32 << 20];
    let error = session.run_line("cat", Some(&archive), None).await.unwrap_err();
    assert!(matches!(error, TransportError::AnswerLost { .. }), "{error}");
    assert!(session.is_closed());
}

#[tokio::test]
async fn a_session_that_opens_no_channel_is_not_used_again() {
    let operator = Operator::new();
    let (_, proxy) = behind_proxy(&operator, []).await;
    // The keepalive is the program's: what is noticed here is noticed without it.
    let settings = Settings { connect_timeout: Duration::from_millis(300), ..operator.settings() };
    let session = Transport::new(settings, None).unwrap().connect(&node(proxy.address)).await.unwrap();
    proxy.fall_silent();
    let error = session.run_line("hello", None, None).await.unwrap_err();
    assert!(matches!(error, TransportError::TimedOut { phase: Phase::Channel, .. }), "{error}");
    assert!(error.is_transient() && session.is_closed());
}

#[tokio::test]
async fn a_bastion_that_fell_silent_is_connected_to_again() {
    let operator = Operator::new();
    let server = operator.server().await;
    let (_, proxy) = behind_proxy(&operator, []).await;
    let settings = Settings {
        connect_timeout: Duration::from_millis(500),
        // Of the two that watch over the connection, the one that waits for an answer is meant.
        keepalive: Duration::from_millis(300),
        ..operator.settings()
    };
    let transport = Transport::new(settings, Some(&bastion(proxy.address))).unwrap();
    let node = node(server.address);
    transport.connect(&node).await.unwrap();
    proxy.fall_silent();
    let error = transport.connect(&node).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let again = async {
        while let Err(error) = transport.connect(&node).await {
            assert!(error.is_transient(), "{error}");
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.unwrap();
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn a_dead_connection_is_noticed_before_a_command_is_out_of_time() {
    let settings = Operator::new().settings();
    // Four intervals of silence, or five when the program hangs in a write.
    assert!(settings.keepalive * 5 < settings.command_timeout, "{settings:?}");
    assert!(settings.connect_timeout < settings.command_timeout);
    // A lock's lease is valid for 90 s: who holds it has to know in time that it cannot be renewed.
    assert!(settings.keepalive * 5 < Duration::from_secs(90));
}

#[tokio::test]
async fn a_closed_port_behind_a_bastion_is_tried_again() {
    let operator = Operator::new();
    let gate = operator.server().await;
    let settings = Settings { reconnect: EAGER, ..operator.settings() };
    let transport = Transport::new(settings, Some(&bastion(gate.address))).unwrap();
    let mut closed = node(gate.address);
    closed.port = server::closed_port().await;
    let error = transport.connect(&closed).await.unwrap_err();
    assert!(matches!(error, TransportError::Unreachable { .. }) && error.is_transient(), "{error}");
    assert_eq!(gate.forwarded(), 3);
}
