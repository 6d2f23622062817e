//! Ways through other hosts: one bastion for many nodes, chains of two, and bastions that refuse.

use std::net::SocketAddr;

use super::daemon::{Daemon, Setup};
use super::operator::Operator;

/// Starts sshds with thirty addresses together, and writes the cluster.yml of thirty nodes.
fn thirty_nodes(operator: &Operator, lines: &str) -> [Daemon; 2] {
    let setup = Setup { further: 14, ..Setup::default() };
    let daemons = [Daemon::known(operator, &setup), Daemon::known(operator, &setup)];
    let addresses: Vec<SocketAddr> = daemons.iter().flat_map(|daemon| daemon.addresses.clone()).collect();
    operator.cluster_with(lines, &addresses);
    daemons
}

fn bastion_host(operator: &Operator, at: SocketAddr) -> String {
    let (address, port, user) = (at.ip(), at.port(), &operator.user);
    format!("bastion_host: {{address: {address}, port: {port}, user: {user}, ssh_key_path: ~/id_key}}")
}

#[tokio::test]
async fn thirty_nodes_behind_one_bastion_share_few_connections() {
    let Some(operator) = Operator::new() else { return };
    for config in ["", "MaxStartups 2:50:10", "MaxStartups 1", "MaxSessions 1"] {
        let bastion = Daemon::start(&operator, config);
        let nodes = thirty_nodes(&operator, &bastion_host(&operator, bastion.address));
        operator.reaches(&[]).await;
        let log = bastion.finish();
        let logins = log.matches("Accepted publickey for ").count();
        assert!((1..=4).contains(&logins), "`{config}`: {logins} connections to the bastion");
        for node in nodes {
            let log = node.finish();
            assert_eq!(log.matches("Accepted publickey for ").count(), 15, "`{config}`");
            // A node logs from where it was connected to: every connection comes from the bastion's process.
            assert_eq!(log.matches("Starting session: command").count(), 15, "`{config}`");
        }
    }
}

#[tokio::test]
async fn a_chain_of_two_jumps() {
    let Some(operator) = Operator::new() else { return };
    let (first, second, node) =
        (Daemon::start(&operator, ""), Daemon::start(&operator, ""), Daemon::start(&operator, ""));
    operator.cluster(&[node.address]);
    let user = &operator.user;
    let jumps = format!("{user}@{},{user}@{}", first.address, second.address);
    operator.reaches(&["--jump", &jumps, "--ssh-key", "id_key"]).await;
    for log in [first.finish(), second.finish(), node.finish()] {
        assert_eq!(log.matches("Accepted publickey for ").count(), 1, "{log}");
    }
}

#[tokio::test]
async fn a_bastion_that_is_not_known_gets_no_key() {
    let Some(operator) = Operator::new() else { return };
    let bastion = Daemon::stranger(&operator, &Setup::default());
    let node = Daemon::start(&operator, "");
    operator.cluster_with(&bastion_host(&operator, bastion.address), &[node.address]);
    let error = operator.fails(&[]).await;
    let expected = format!("jump host {0}: the host key of {0} is not known", bastion.address);
    assert!(error.contains(&expected), "{error}");
    assert!(!bastion.finish().contains("publickey"));
    assert!(!node.finish().contains("Connection from"));
}

#[tokio::test]
async fn a_bastion_that_forwards_nothing_is_named_for_every_node() {
    let Some(operator) = Operator::new() else { return };
    let bastion = Daemon::start(&operator, "AllowTcpForwarding no");
    let _nodes = thirty_nodes(&operator, &bastion_host(&operator, bastion.address));
    let (status, heard) = operator.exec(&[], "true").await;
    assert_eq!((status, heard.len()), (1, 30));
    for node in heard {
        let error = node.error.unwrap();
        assert!(error.contains(&format!("{} does not allow forwarding to ", bastion.address)), "{error}");
    }
    let logins = bastion.finish().matches("Accepted publickey for ").count();
    assert!((1..=4).contains(&logins), "{logins}");
}

#[tokio::test]
async fn a_node_that_is_down_behind_a_bastion_is_the_one_that_is_named() {
    let Some(operator) = Operator::new() else { return };
    let bastion = Daemon::start(&operator, "");
    let node = Daemon::start(&operator, "");
    let down = node.address;
    drop(node);
    operator.cluster_with(&bastion_host(&operator, bastion.address), &[down]);
    let error = operator.fails(&[]).await;
    let expected = format!("{down} cannot be reached: jump host {} cannot connect to it", bastion.address);
    assert!(error.contains(&expected), "{error}");
}
