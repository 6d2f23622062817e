//! Hosts that fail: one run over all of them ends in time, with one clear line a node.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::daemon::{Daemon, Setup, own_address, skipped};
use super::hosts::{self, Manner, Server, Service, slow_link};
use super::operator::Operator;

/// Starts a server of which known_hosts knows.
async fn serve(operator: &Operator, service: Service) -> SocketAddr {
    let server = Server::new(service);
    let address = server.listen((own_address(), 0).into(), || ()).await;
    operator.know(address, server.host_key.public_key());
    address
}

/// What hosts that are none do, and what is said of them.
const STRANGERS: [(Manner, &str); 8] = [
    (Manner::Silent, "unreachable NODE: HOST did not answer within 4s (key exchange)"),
    (Manner::Closes, "unreachable NODE: the connection to HOST was lost: it hung up during the handshake"),
    (Manner::HalfVersion, "unreachable NODE: HOST did not answer within 4s (key exchange)"),
    (
        Manner::HalfVersionAndCloses,
        "unreachable NODE: the connection to HOST was lost: it hung up during the handshake",
    ),
    (
        Manner::AnotherProtocol,
        "unreachable NODE: the connection to HOST was lost: it hung up during the handshake",
    ),
    (
        Manner::EndlessLines,
        "unreachable NODE: the SSH handshake with HOST failed: invalid SSH version string",
    ),
    (Manner::EndlessLine, "unreachable NODE: the SSH handshake with HOST failed: invalid SSH version string"),
    (Manner::GarbageForPackets, "unreachable NODE: the SSH handshake with HOST failed: Bad packet size"),
];

/// What servers do with those whom they let in, and what is said of them.
const SERVICES: [(Service, &str); 4] = [
    (Service::ClosesAfterLogin, "failed NODE: the connection to HOST was lost: it closed the connection"),
    (
        Service::DiesInOutput,
        "failed NODE: the connection to HOST was lost before a command answered, which may have run all the same: it closed the connection",
    ),
    (Service::OpensNothing, "failed NODE: HOST did not answer within 4s (opening a channel)"),
    (Service::Hangs, "timed out NODE: a command on HOST did not end within 5s"),
];

#[tokio::test]
async fn every_bad_host_has_its_line_and_holds_up_no_other() {
    let Some(operator) = Operator::new() else { return };
    let good = Daemon::start(&operator, "");
    let dies = Daemon::start(&operator, "ForceCommand head -c 100000 /dev/zero; kill -9 $PPID");
    let (mut nodes, mut expected) = (vec![good.address], vec![""]);
    for (manner, line) in STRANGERS {
        nodes.push(hosts::start(manner).await);
        expected.push(line);
    }
    for (service, line) in SERVICES {
        nodes.push(serve(&operator, service).await);
        expected.push(line);
    }
    nodes.push(dies.address);
    expected.push("failed NODE: the connection to HOST was lost before a command answered, which may have run all the same: it hung up");
    operator.cluster(&nodes);

    let began = Instant::now();
    let words = ["exec", "--connect-timeout", "4s", "--command-timeout", "5s", "--", "echo good"];
    let ended = operator.certroll(&words).await;
    // The longest of them takes 9 s; the bound is for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    ended.expect(1);
    for (number, (at, expected)) in (1..).zip(nodes.iter().zip(expected)) {
        let name = format!(" n-{number}: ");
        let lines: Vec<String> =
            ended.stderr.lines().filter(|line| line.contains(&name)).map(str::to_owned).collect();
        let expected = expected.replace("HOST", &at.to_string()).replace("NODE", &format!("n-{number}"));
        let is_good =
            if number == 1 { lines.is_empty() } else { lines.len() == 1 && lines[0].starts_with(&expected) };
        assert!(is_good, "{expected}\n{lines:#?}");
    }
    assert!(
        ended.stdout.lines().any(|line| line.starts_with("n-1:") && line.ends_with("good")),
        "{}",
        ended.stdout
    );
}

#[tokio::test]
async fn a_node_that_prints_for_ever_is_stopped_and_the_others_are_not() {
    let Some(operator) = Operator::new() else { return };
    let endless = serve(&operator, Service::WritesForEver).await;
    let good = Daemon::start(&operator, "");
    operator.cluster(&[endless, good.address]);
    let (status, heard) = operator.exec(&["--command-timeout", "5s"], "echo good").await;
    assert_eq!((status, heard.len()), (1, 2));
    assert!(heard[0].error.is_some() && heard[0].stdout.len() <= 8 << 20, "{:?}", heard[0].error);
    assert_eq!((heard[1].status, heard[1].stdout.as_str()), (Some(0), "good\n"));
}

#[tokio::test]
async fn a_network_that_holds_back_every_packet_for_a_second() {
    let Some(mut operator) = Operator::new() else { return };
    let delay = |time: &str| {
        let script = format!("ip link set lo up; tc qdisc add dev lo root netem delay {time}; exec \"$@\"");
        ["unshare", "--net", "sh", "-ec", &script, "network"].map(str::to_owned)
    };
    let [unshare, words @ ..] = delay("1ms");
    let tried = std::process::Command::new(unshare).args(words).arg("true").output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        return skipped(
            "a network with a delay: this takes root, `unshare --net` and tc's netem (sch_netem)",
        );
    }
    let wrapper = delay("1s");
    let wrapper = wrapper.each_ref().map(String::as_str);
    let daemon = Daemon::known(&operator, &Setup { wrapper: &wrapper, ..Setup::default() });
    operator.joins(daemon.process());
    operator.cluster(&[daemon.address]);
    let (impatient, ()) = tokio::join!(
        operator.fails(&["--connect-timeout", "3s"]),
        operator.reaches(&["--connect-timeout", "60s"]),
    );
    assert!(impatient.starts_with(&format!("{} did not answer within 3s (", daemon.address)), "{impatient}");
}

#[tokio::test]
async fn a_link_on_which_every_answer_takes_two_seconds() {
    let Some(operator) = Operator::new() else { return };
    let daemon = Daemon::start(&operator, "");
    let link = slow_link(daemon.address, Duration::from_secs(1)).await;
    operator.know(link, daemon.host_key.public_key());
    operator.cluster(&[link]);
    let (impatient, ()) = tokio::join!(
        operator.fails(&["--connect-timeout", "3s"]),
        operator.reaches(&["--connect-timeout", "60s"]),
    );
    assert!(impatient.starts_with(&format!("{link} did not answer within 3s (")), "{impatient}");
}
