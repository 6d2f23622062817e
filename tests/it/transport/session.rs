//! Commands and forwarded connections, and connections that end.

use std::net::SocketAddr;
use std::time::Duration;

use certroll::command::{Access, Command, DEFAULT_DOCKER_SOCKET};
use certroll::transport::{Full, Phase, Settings, Sink, Stream, Transport, TransportError};
use futures::future::try_join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::operator::*;
use super::server::{self, Forwarding, Server};

#[tokio::test]
async fn a_command_reads_stdin_and_its_status_and_stderr_come_back() {
    let operator = Operator::new();
    let server = operator.server().await;
    let session = operator.transport().connect(&node(server.address)).await.unwrap();

    let output = session.run_line("cat", Some(b"PRIVATE"), None).await.unwrap();
    assert_eq!((output.status, output.stdout.as_slice()), (Some(0), b"PRIVATE".as_slice()));

    let output = session.run_line("fail", None, None).await.unwrap();
    assert_eq!((output.status, output.stderr_text().as_str()), (Some(3), "no such container"));

    let killed = session.run_line("signal", None, None).await.unwrap();
    assert_eq!(killed.status, None);

    let output = session.run(&Command::new("id -u"), &Access::Sudo, DEFAULT_DOCKER_SOCKET).await.unwrap();
    assert_eq!(output.stdout_text(), "exec sudo -n /bin/sh -c 'id -u'");

    let error = session.run_line("refuse", None, None).await.unwrap_err();
    assert!(matches!(error, TransportError::ChannelRefused { .. }), "{error}");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_command_that_does_not_read_its_stdin_ends_all_the_same() {
    let operator = Operator::new();
    let server = operator.server().await;
    let session = operator.transport().connect(&node(server.address)).await.unwrap();
    let more_than_any_window = vec![0; 8 << 20];
    let output = session.run_line("fail", Some(&more_than_any_window), None).await.unwrap();
    assert_eq!(output.status, Some(3));
}

#[tokio::test]
async fn output_is_whole_up_to_its_limit() {
    let operator = Operator::new();
    let server = operator.server().await;
    let settings = Settings { max_output: 5 << 20, ..operator.settings() };
    let session = Transport::new(settings, None).unwrap().connect(&node(server.address)).await.unwrap();

    let output = session.run_line(&format!("big {}", 5 << 20), None, None).await.unwrap();
    assert_eq!(output.stdout.len(), 5 << 20);

    let error = session.run_line(&format!("big {}", 50 << 20), None, None).await.unwrap_err();
    assert!(matches!(error, TransportError::OutputTooLarge { .. }), "{error}");
    let output = session.run_line("still here", None, None).await.unwrap();
    assert_eq!(output.stdout_text(), "still here");
}

/// Takes the first piece for as long as it takes until somebody lets it go on.
struct Slow<'a> {
    has_begun: &'a Notify,
    goes_on: &'a Notify,
    taken: usize,
}

impl Sink for Slow<'_> {
    async fn take(&mut self, _: Stream, bytes: &[u8]) -> Result<(), Full> {
        if self.taken == 0 {
            self.has_begun.notify_one();
            self.goes_on.notified().await;
        }
        self.taken += bytes.len();
        Ok(())
    }
}

#[tokio::test]
async fn output_that_is_not_read_holds_up_nobody_and_does_not_use_up_the_time() {
    let operator = Operator::new();
    let (gate, server) = (operator.server().await, operator.server().await);
    let transport = Transport::new(operator.settings(), Some(&bastion(gate.address))).unwrap();
    let unread = transport.connect(&node(server.address)).await.unwrap();
    let other = transport.connect(&node(server.address)).await.unwrap();
    assert_eq!(gate.accepted(), 1);
    let (has_begun, goes_on) = (Notify::new(), Notify::new());
    let mut slow = Slow { has_begun: &has_begun, goes_on: &goes_on, taken: 0 };
    let line = format!("big {}", 16 << 20);
    let limit = Duration::from_secs(20);
    let printing = unread.stream_line(&line, &[][..], Some(limit), &mut slow);
    let beside = async {
        has_begun.notified().await;
        for number in 0..50 {
            let output = other.run_line(&format!("command {number}"), None, Some(limit)).await;
            assert!(output.unwrap().succeeded());
        }
        goes_on.notify_one();
    };
    let (ended, ()) = tokio::join!(printing, beside);
    assert_eq!((ended.unwrap().status, slow.taken), (Some(0), 16 << 20));
}

#[tokio::test]
async fn sudo_is_not_given_data_for_a_password() {
    let operator = Operator::new();
    let server = operator.server().await;
    let session = operator.transport().connect(&node(server.address)).await.unwrap();
    let command = Command::new("cat").with_stdin(b"PRIVATE".to_vec().into());
    let error = session.run(&command, &Access::SudoWithPassword, DEFAULT_DOCKER_SOCKET).await.unwrap_err();
    assert!(matches!(error, TransportError::NoPassword { .. }), "{error}");
    assert!(error.hint().is_some(), "{error}");
}

#[tokio::test]
async fn many_commands_share_a_connection() {
    let operator = Operator::new();
    let server = operator.server().await;
    let session = operator.transport().connect(&node(server.address)).await.unwrap();
    let lines: Vec<String> = (0..50).map(|number| format!("command {number}")).collect();
    let outputs = try_join_all(lines.iter().map(|line| session.run_line(line, None, None))).await.unwrap();
    let texts: Vec<String> = outputs.iter().map(|output| output.stdout_text().into_owned()).collect();
    assert_eq!(texts, lines);
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_command_out_of_time_is_closed_and_the_session_goes_on() {
    let operator = Operator::new();
    let server = operator.server().await;
    let session = operator.transport().connect(&node(server.address)).await.unwrap();
    let limit = Duration::from_millis(20);
    let error = session.run_line("hang", None, Some(limit)).await.unwrap_err();
    assert!(
        matches!(&error, TransportError::CommandTimedOut { limit: told, .. } if *told == limit),
        "{error}"
    );
    assert!(error.to_string().contains(&server.address.to_string()), "{error}");
    server.channel_closed().await;
    assert!(session.run_line("next", None, None).await.unwrap().succeeded());
}

#[tokio::test]
async fn a_dropped_command_closes_its_channel() {
    let operator = Operator::new();
    let server = operator.server().await;
    let session = operator.transport().connect(&node(server.address)).await.unwrap();
    let command = tokio::time::timeout(Duration::from_millis(50), session.run_line("hang", None, None));
    assert!(command.await.is_err());
    server.channel_closed().await;
}

#[tokio::test]
async fn a_host_connects_on_our_behalf() {
    let operator = Operator::new();
    let server = operator.server().await;
    let session = operator.transport().connect(&node(server.address)).await.unwrap();
    let mut channel = session.open_tcp("127.0.0.1", server::echo().await).await.unwrap();
    channel.write_all(b"GET /healthz").await.unwrap();
    channel.shutdown().await.unwrap();
    let mut answer = Vec::new();
    channel.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"GET /healthz");

    let error = session.open_tcp("127.0.0.1", server::closed_port().await).await.unwrap_err();
    assert!(matches!(error, TransportError::ForwardRefused { .. }), "{error}");
}

#[tokio::test]
async fn forbidden_forwarding_is_told_from_a_closed_port() {
    let operator = Operator::new();
    let server = operator.server_with(Forwarding::Prohibited).await;
    let session = operator.transport().connect(&node(server.address)).await.unwrap();
    let error = session.open_tcp("127.0.0.1", 2379).await.unwrap_err();
    assert!(matches!(error, TransportError::ForwardingProhibited { .. }), "{error}");
    assert!(error.hint().unwrap().contains("AllowTcpForwarding"), "{error}");
}

#[tokio::test]
async fn a_cut_connection_ends_its_commands() {
    let operator = Operator::new();
    let server = operator.server().await;
    let session = operator.transport().connect(&node(server.address)).await.unwrap();
    let command = session.run_line("freeze", None, None);
    let cut = async {
        // The command runs: the server has seen it.
        session.run_line("another", None, None).await.unwrap();
        server.cut();
    };
    let (result, ()) = tokio::join!(command, cut);
    let error = result.unwrap_err();
    // It was running: whether it has done its work is not known, and the error says so.
    assert!(matches!(error, TransportError::AnswerLost { .. }), "{error}");
    assert!(error.to_string().contains("which may have run all the same"), "{error}");
    assert!(error.is_transient() && error.hint().is_some(), "{error}");
    assert!(session.is_closed());
    let error = session.run_line("late", None, None).await.unwrap_err();
    assert!(matches!(error, TransportError::ConnectionLost { .. }), "{error}");
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_noticed() {
    let operator = Operator::new();
    let host_key = ed25519();
    let server = Server::start(vec![host_key.clone()], operator.key.public_key(), Forwarding::Allowed).await;
    let proxy = server::freezing_proxy(&server).await;
    operator.know(proxy, host_key.public_key());
    let settings = Settings { keepalive: Duration::from_millis(30), ..operator.settings() };
    let session = Transport::new(settings, None).unwrap().connect(&node(proxy)).await.unwrap();
    let error = session.run_line("freeze", None, None).await.unwrap_err();
    let TransportError::AnswerLost { reason, .. } = &error else { panic!("{error}") };
    assert_eq!(reason, "Keepalive timeout");
}

#[tokio::test]
async fn a_silent_command_outlives_many_keepalives() {
    let operator = Operator::new();
    let server = operator.server().await;
    let settings = Settings {
        keepalive: Duration::from_millis(10),
        connect_timeout: Duration::from_secs(1),
        ..operator.settings()
    };
    let session = Transport::new(settings, None).unwrap().connect(&node(server.address)).await.unwrap();
    let error = session.run_line("hang", None, Some(Duration::from_millis(1500))).await.unwrap_err();
    assert!(matches!(error, TransportError::CommandTimedOut { .. }), "{error}");
}

#[tokio::test]
async fn hosts_that_do_not_answer_are_told_apart() {
    let operator = Operator::new();
    let settings = Settings { connect_timeout: Duration::from_millis(200), ..operator.settings() };
    let transport = Transport::new(settings, None).unwrap();

    let silent = transport.connect(&node(server::silent().await)).await.unwrap_err();
    assert!(matches!(silent, TransportError::TimedOut { phase: Phase::KeyExchange, .. }), "{silent}");

    let mut closed = node(server::silent().await);
    closed.port = server::closed_port().await;
    let refused = transport.connect(&closed).await.unwrap_err();
    assert!(matches!(refused, TransportError::Refused { .. }), "{refused}");

    let not_ssh = transport.connect(&node(SocketAddr::from(([127, 0, 0, 1], server::echo().await)))).await;
    let error = not_ssh.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn a_closed_session_is_closed_for_all() {
    let operator = Operator::new();
    let server = operator.server().await;
    let session = operator.transport().connect(&node(server.address)).await.unwrap();
    let clone = session.clone();
    session.close().await;
    let error = clone.run_line("late", None, None).await.unwrap_err();
    assert!(matches!(error, TransportError::ConnectionLost { .. }), "{error}");
}
