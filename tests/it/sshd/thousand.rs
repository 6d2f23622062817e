//! A thousand addresses of which a third refuse: the run ends in time, and open connections keep within their bound.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use super::daemon::skipped;
use super::hosts::{Server, Service};
use super::operator::{Ended, Operator};

const NODES: u16 = 1000;
const PARALLEL: usize = 40;

/// Far more than it takes, on a machine that is busy with other tests; a run that waited for each refusal would not end in it.
const BOUND: Duration = Duration::from_secs(100);

/// Returns the address of a node; no other test has one of these.
fn address(node: u16, port: u16) -> SocketAddr {
    let [high, low] = node.to_be_bytes();
    (Ipv4Addr::new(127, 200, high, low), port).into()
}

fn refuses(node: u16) -> bool {
    node.is_multiple_of(3)
}

/// Makes room for the ends of a thousand connections in this process.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Returns how many sockets a process has open.
fn sockets(process: u32) -> usize {
    let Ok(entries) = fs::read_dir(format!("/proc/{process}/fd")) else { return 0 };
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

#[tokio::test]
async fn a_third_of_a_thousand_addresses_refuses() {
    let Some(operator) = Operator::new() else { return };
    raise_file_limit();
    let server = Server::new(Service::Answers);
    let (process, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut port = 0;
    for node in (1..=NODES).filter(|node| !refuses(*node)) {
        let (process, most) = (Arc::clone(&process), Arc::clone(&most));
        let count = move || {
            most.fetch_max(sockets(process.load(Ordering::SeqCst)), Ordering::SeqCst);
        };
        // Whoever refuses does so at the port of the others.
        port = server.listen(address(node, port), count).await.port();
    }
    let key = server.host_key.public_key().to_openssh().unwrap();
    operator.write(".ssh/known_hosts", &format!("[127.200.*]:{port} {key}\n"));
    let nodes: Vec<SocketAddr> = (1..=NODES).map(|node| address(node, port)).collect();
    operator.cluster(&nodes);

    let parallel = PARALLEL.to_string();
    let child = operator.program(&["exec", "--parallel", &parallel, "--", "true"]).spawn().unwrap();
    process.store(child.id().unwrap(), Ordering::SeqCst);
    let output = tokio::time::timeout(BOUND, child.wait_with_output()).await.expect("it ends").unwrap();
    let ended = Ended::of(output);

    ended.expect(1);
    for (node, at) in (1..=NODES).zip(&nodes) {
        let (answer, refusal) =
            (format!("n-{node}:"), format!("unreachable n-{node}: {at} refused the connection"));
        let answers = ended.stdout.lines().filter(|line| line.starts_with(&answer)).count();
        let refusals = ended.stderr.lines().filter(|line| *line == refusal).count();
        let expected = if refuses(node) { (0, 1) } else { (1, 0) };
        assert_eq!((answers, refusals), expected, "n-{node}");
    }
    let (good, bad) = (usize::from(NODES - NODES / 3), usize::from(NODES / 3));
    assert_eq!((ended.stdout.lines().count(), server.counts()), (good, (good, good)));
    let counts = format!("{NODES} nodes in ");
    let summary = ended.stderr.lines().find(|line| line.starts_with(&counts)).unwrap();
    assert!(summary.ends_with(&format!(": {good} done, {bad} unreachable")), "{summary}");
    let most = most.load(Ordering::SeqCst);
    if most == 0 {
        return skipped("how many sockets certroll has open: /proc tells root alone");
    }
    assert!((2..=PARALLEL + 8).contains(&most), "{most} sockets at a time");
}
