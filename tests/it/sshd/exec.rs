//! Commands on real hosts: what comes while they run, what is too long or too much, and the operator who ends them.

use std::process::Stdio;
use std::sync::Arc;

use certroll::inventory::{Inventory, Secret};
use certroll::transport::{AskSecret, Question, Settings, Transport};
use futures::future::try_join_all;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::daemon::Daemon;
use super::operator::Operator;

#[tokio::test]
async fn output_comes_while_input_goes_on() {
    let Some(operator) = Operator::new() else { return };
    let daemon = Daemon::start(&operator, "");
    operator.cluster(&[daemon.address]);
    let mut child = operator.program(&["exec", "--", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in ["first", "second"] {
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        assert_eq!(stdout.next_line().await.unwrap().unwrap(), format!("n-1: {line}"));
    }
    drop(stdin);
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_told_apart() {
    let Some(operator) = Operator::new() else { return };
    let daemon = Daemon::start(&operator, "");
    operator.cluster(&[daemon.address]);
    let ended =
        operator.certroll(&["exec", "--command-timeout", "1s", "--", "echo begun; exec sleep 600"]).await;
    ended.expect(1);
    assert_eq!(ended.stdout, "n-1: begun\n");
    assert!(ended.stderr.contains("timed out n-1: a command on"), "{}", ended.stderr);
    assert!(ended.stderr.contains(": 1 timed out\n"), "{}", ended.stderr);
}

#[tokio::test]
async fn workers_that_run_windows_are_left_alone() {
    let Some(operator) = Operator::new() else { return };
    // They say so in their version: what that names is not logged in to.
    let daemons =
        [Daemon::start(&operator, ""), Daemon::start(&operator, "VersionAddendum OpenSSH_for_Windows")];
    operator.cluster(&[daemons[0].address, daemons[1].address]);
    let labelled = "  labels: {kubernetes.io/os: windows}\n";
    let third =
        format!("- address: 127.0.0.1\n  hostname_override: n-3\n  user: rke\n  role: [worker]\n{labelled}");
    operator.write("cluster.yml", &(operator.read("cluster.yml") + &third));
    let ended = operator.certroll(&["exec", "--", "echo here"]).await;
    assert_eq!(ended.expect(0).stdout, "n-1: here\n");
    assert!(
        ended.stderr.contains("left alone n-2: it runs Windows (its SSH server is `"),
        "{}",
        ended.stderr
    );
    let label = "left alone n-3: it runs Windows (its label `kubernetes.io/os` says so)";
    assert!(ended.stderr.contains(label), "{}", ended.stderr);
    assert!(ended.stderr.contains("1 done, 2 left alone\nleft alone   n-[2-3]\n"), "{}", ended.stderr);
    let [_, windows] = daemons;
    assert!(!windows.finish().contains("Accepted"));
}

#[tokio::test]
async fn what_is_more_than_is_kept_is_counted() {
    let Some(operator) = Operator::new() else { return };
    let daemon = Daemon::start(&operator, "");
    operator.cluster(&[daemon.address]);
    let printing = "head -c 3000000 /dev/zero | tr '\\0' x";
    let ended = operator.certroll(&["exec", "-o", "json", "--", printing]).await;
    let line = ended.expect(0).json();
    assert_eq!(line["stdout"].as_str().unwrap().len(), 1 << 20);
    assert_eq!(line["cut_bytes"], 3_000_000 - (1 << 20));
}

#[tokio::test]
async fn a_signal_ends_all_and_names_what_was_not_run() {
    let Some(operator) = Operator::new() else { return };
    let daemons = [Daemon::start(&operator, ""), Daemon::start(&operator, "")];
    operator.cluster(&[daemons[0].address, daemons[1].address]);
    let mut child =
        operator.program(&["exec", "--parallel", "1", "--", "echo begun; exec sleep 600"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(stdout.next_line().await.unwrap().unwrap(), "n-1: begun");
    let process = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("1 cut off, 1 not run"), "{stderr}");
    assert!(stderr.contains("cut off      n-1\nnot run      n-2"), "{stderr}");
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_a_command_that_prints_for_ever() {
    let Some(operator) = Operator::new() else { return };
    let daemon = Daemon::start(&operator, "");
    operator.cluster(&[daemon.address]);
    let mut child = operator.program(&["exec", "--command-timeout", "none", "--", "yes"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(stdout.next_line().await.unwrap().unwrap(), "n-1: y");
    drop(stdout);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Nobody who could answer.
struct Nobody;

impl AskSecret for Nobody {
    fn ask(&self, _: &Question) -> Option<Secret> {
        None
    }
}

#[tokio::test]
async fn a_host_that_allows_few_sessions_is_waited_for() {
    let Some(operator) = Operator::new() else { return };
    let daemon = Daemon::start(&operator, "MaxSessions 2");
    operator.cluster(&[daemon.address]);
    let inventory = Inventory::parse(&operator.read("cluster.yml"), "cluster.yml").unwrap().inventory;
    let settings = Settings::new(operator.path(""), Arc::new(Nobody));
    let transport = Transport::new(settings, None).unwrap();
    let session = transport.connect(&inventory.nodes[0]).await.unwrap();
    let lines: Vec<String> = (0..9).map(|number| format!("echo {number}")).collect();
    let outputs = try_join_all(lines.iter().map(|line| session.run_line(line, None, None))).await.unwrap();
    let texts: Vec<String> = outputs.iter().map(|output| output.stdout_text().trim().to_owned()).collect();
    assert_eq!(texts, (0..9).map(|number| number.to_string()).collect::<Vec<String>>());
}
