//! Names: those of an `ssh_config`, and those that lead to addresses of both kinds.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, TcpListener};

use super::daemon::{Daemon, Setup, skipped};
use super::operator::Operator;

/// Writes a cluster.yml whose nodes are known by name alone, to be found in the `ssh_config`.
fn cluster_of_names(operator: &Operator, names: &[&str]) {
    let mut text = "cluster_name: test\nnodes:\n".to_owned();
    for (number, name) in (1..).zip(names) {
        let role = if number == 1 { "controlplane, etcd, worker" } else { "worker" };
        let user = &operator.user;
        writeln!(text, "- {{address: {name}, hostname_override: n-{number}, user: {user}, role: [{role}]}}")
            .unwrap();
    }
    operator.write("cluster.yml", &text);
}

#[tokio::test]
async fn an_ssh_config_says_where_names_lead() {
    let Some(operator) = Operator::new() else { return };
    let (node, gate) = (Daemon::start(&operator, ""), Daemon::start(&operator, ""));
    let (at, through, user) = (node.address, gate.address, &operator.user);
    let known = operator.read(".ssh/known_hosts");
    operator.write(".ssh/own_known_hosts", &known);
    operator.write(".ssh/known_hosts", "");
    operator.write(
        ".ssh/config",
        &format!(
            "Include conf.d/*\nHost gate\n  HostName {}\n  Port {}\n  User {user}\n\
             Host node behind\n  HostName {}\n  Port {}\n\
             Host behind\n  ProxyJump gate\n\
             Host *\n  UserKnownHostsFile ~/.ssh/own_known_hosts\n",
            through.ip(),
            through.port(),
            at.ip(),
            at.port()
        ),
    );
    std::fs::create_dir(operator.path(".ssh/conf.d")).unwrap();
    operator.write(".ssh/conf.d/keys", "Match host *\n  IdentityFile ~/id_key\n  IdentitiesOnly yes\n");
    cluster_of_names(&operator, &["node", "behind"]);
    operator.reaches(&[]).await;
    let log = gate.finish();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
    let log = node.finish();
    assert_eq!(log.matches("Accepted publickey").count(), 2, "{log}");
}

#[tokio::test]
async fn a_file_of_ssh_config_by_option() {
    let Some(operator) = Operator::new() else { return };
    let node = Daemon::start(&operator, "");
    let at = node.address;
    operator.write(".ssh/config", "Host *\n  HostName 127.0.0.1\n  Port 1\n");
    operator.write(
        "config",
        &format!("Host node\nHostName {}\nPort {}\nIdentityFile ~/id_key\n", at.ip(), at.port()),
    );
    cluster_of_names(&operator, &["node"]);
    operator.reaches(&["--ssh-config", "config"]).await;
    let error = operator.fails(&["--ssh-key", "id_key"]).await;
    assert!(error.contains("127.0.0.1:1 refused the connection"), "{error}");
}

#[tokio::test]
async fn a_name_with_addresses_of_both_kinds() {
    let Some(mut operator) = Operator::new() else { return };
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err()
        || !operator.resolves("both", &["::1", "127.0.0.1"])
    {
        return skipped("a name with addresses of both kinds: this takes root, `unshare --mount` and `::1`");
    }
    // At the other address of the name nobody listens.
    for address in ["::1", "127.0.0.1"] {
        let address: IpAddr = address.parse().unwrap();
        let setup = Setup { address: Some(address), ..Setup::default() };
        let daemon = Daemon::stranger(&operator, &setup);
        let port = daemon.address.port();
        let key = daemon.host_key.public_key().to_openssh().unwrap();
        operator.write(".ssh/known_hosts", &format!("[both]:{port} {key}\n"));
        cluster_of_names(&operator, &["both"]);
        let text = operator
            .read("cluster.yml")
            .replace("user:", &format!("port: {port}, ssh_key_path: ~/id_key, user:"));
        operator.write("cluster.yml", &text);
        operator.reaches(&[]).await;
    }
}
