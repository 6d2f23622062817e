//! Nodes that are reached as the ssh_config says.

use std::path::Path;

use certroll::inventory::{Node, ValueOrigin};
use certroll::transport::{
    HostKeyPolicy, Settings, SshConfig, Transport, TransportError, TypedOption, reach, remarks,
};
use futures::future::try_join_all;

use super::operator::*;
use super::server::{Forwarding, Server};

fn config(text: &str) -> SshConfig {
    SshConfig::parse(Path::new("config"), text).unwrap()
}

fn settings(operator: &Operator, text: &str) -> Settings {
    Settings { ssh_config: config(text), ..operator.settings() }
}

/// A node of which the cluster.yml says a name and a user alone.
fn named(name: &str) -> Node {
    let mut node = node("127.0.0.1:22".parse().unwrap());
    name.clone_into(&mut node.address);
    node.ssh.port_origin = ValueOrigin::Default;
    node.ssh.key_path = Some("~/.ssh/id_rsa".to_owned());
    node.ssh.key_path_origin = ValueOrigin::Default;
    node
}

#[tokio::test]
async fn a_node_is_reached_where_and_with_what_the_config_says() {
    let operator = Operator::new();
    let server = operator.server().await;
    let text = format!(
        "Host cp-?\nHostName {}\nPort {}\nIdentityFile ~/missing\nIdentityFile ~/id_key\n",
        server.address.ip(),
        server.address.port()
    );
    let transport = Transport::new(settings(&operator, &text), None).unwrap();
    let session = transport.connect(&named("cp-1")).await.unwrap();
    assert!(session.run_line("hello", None, None).await.unwrap().succeeded());
}

#[tokio::test]
async fn a_host_is_known_by_its_alias() {
    let operator = Operator::new();
    let host_key = ed25519();
    let server = Server::start(vec![host_key.clone()], operator.key.public_key(), Forwarding::Allowed).await;
    let place = format!(
        "Host *\nHostName {}\nPort {}\nIdentityFile ~/id_key\n",
        server.address.ip(),
        server.address.port()
    );
    let line = known_line(server.address, host_key.public_key());
    let (_, key) = line.split_once(' ').unwrap();
    operator.write("known_hosts", &format!("the-alias {key}\n"));
    let unknown = Transport::new(settings(&operator, &place), None).unwrap();
    let error = unknown.connect(&named("cp-1")).await.unwrap_err();
    assert!(matches!(error, TransportError::HostKeyUnknown(_)), "{error}");
    let known = settings(&operator, &format!("{place}HostKeyAlias The-Alias\n"));
    Transport::new(known, None).unwrap().connect(&named("cp-1")).await.unwrap();
}

#[tokio::test]
async fn new_keys_go_to_the_files_that_the_config_names_unless_options_say_otherwise() {
    let operator = Operator::new();
    let host_key = ed25519();
    let server = Server::start(vec![host_key], operator.key.public_key(), Forwarding::Allowed).await;
    let text = format!(
        "Host *\nHostName {}\nPort {}\nIdentityFile ~/id_key\nStrictHostKeyChecking no\nUserKnownHostsFile ~/%n\n",
        server.address.ip(),
        server.address.port()
    );
    let given = settings(&operator, &text);
    let strict = Settings { typed: [TypedOption::HostKeys].into(), ..given.clone() };
    assert_eq!(strict.host_keys, HostKeyPolicy::Strict);
    let refused = Transport::new(strict, None).unwrap().connect(&named("cp-1")).await.unwrap_err();
    assert!(matches!(refused, TransportError::HostKeyUnknown(_)), "{refused}");
    Transport::new(given, None).unwrap().connect(&named("cp-1")).await.unwrap();
    assert!(read(&operator.path("cp-1")).unwrap().contains("ssh-ed25519"));

    // A key that has changed is refused all the same.
    let other = Server::start(vec![ed25519()], operator.key.public_key(), Forwarding::Allowed).await;
    operator.write("cp-2", &known_line(other.address, ed25519().public_key()));
    let text = text.replace(&server.address.port().to_string(), &other.address.port().to_string());
    let error = Transport::new(settings(&operator, &text), None).unwrap();
    let error = error.connect(&named("cp-2")).await.unwrap_err();
    assert!(matches!(error, TransportError::HostKeyChanged(_)), "{error}");
}

#[tokio::test]
async fn nodes_have_jumps_of_their_own_and_share_what_they_have_in_common() {
    let operator = Operator::new();
    let (gate, inner, server) = (operator.server().await, operator.server().await, operator.server().await);
    let block = |name: &str, at: std::net::SocketAddr| {
        format!("Host {name}\nHostName {}\nPort {}\n", at.ip(), at.port())
    };
    let text = format!(
        "{}ProxyJump none\n{}ProxyJump gate\nHost a-*\nProxyJump gate\nHost b-*\nProxyJump inner\n\
         Host *\nUser rke\nIdentityFile ~/id_key\n{}",
        block("gate", gate.address),
        block("inner", inner.address),
        block("*", server.address),
    );
    let transport = Transport::new(settings(&operator, &text), None).unwrap();
    let nodes: Vec<Node> = ["a-1", "a-2", "b-1", "b-2", "c-1"].map(named).into();
    try_join_all(nodes.iter().map(|node| transport.connect(node))).await.unwrap();
    assert_eq!((gate.accepted(), gate.forwarded()), (1, 3), "two nodes and the inner host");
    assert_eq!((inner.accepted(), inner.forwarded()), (1, 2));
    assert_eq!(server.accepted(), 5);
}

#[tokio::test]
async fn the_key_of_every_host_of_a_chain_is_verified() {
    let operator = Operator::new();
    let (gate, server) = (operator.server().await, operator.server().await);
    let stranger = Server::start(vec![ed25519()], operator.key.public_key(), Forwarding::Allowed).await;
    let text = format!(
        "Host *\nUser rke\nIdentityFile ~/id_key\nHost node\nHostName {}\nPort {}\nProxyJump rke@{},rke@{}\n",
        server.address.ip(),
        server.address.port(),
        gate.address,
        stranger.address
    );
    let transport = Transport::new(settings(&operator, &text), None).unwrap();
    let error = transport.connect(&named("node")).await.unwrap_err();
    let TransportError::Jump { at, cause } = &error else { panic!("{error}") };
    assert_eq!(at.port, stranger.address.port());
    assert!(matches!(**cause, TransportError::HostKeyUnknown(_)), "{error}");
}

#[test]
fn the_cluster_file_and_options_outrank_the_config() {
    let operator = Operator::new();
    let text = "Host *\nPort 2222\nUser other\nIdentityFile ~/of-config\nConnectTimeout 3\nProxyJump gate\n\
                Match user rke\nServerAliveInterval 7\n";
    let given = settings(&operator, text);
    let decisions = |settings: &Settings, node: &Node| {
        reach(settings, None, node)
            .unwrap()
            .decisions
            .join("\n")
            .replace(operator.home.path().to_str().unwrap(), "~")
    };
    let text_without_loop = text.replace("ProxyJump gate\n", "");
    let plain = settings(&operator, &text_without_loop);
    insta::assert_snapshot!("decisions_of_the_config", decisions(&plain, &named("cp-1")));
    let mut explicit = named("cp-1");
    explicit.ssh.port_origin = ValueOrigin::File;
    explicit.ssh.key_path_origin = ValueOrigin::File;
    insta::assert_snapshot!("decisions_of_the_cluster_file", decisions(&plain, &explicit));
    let typed = Settings {
        user: Some("me".to_owned()),
        key_path: Some(operator.path("typed")),
        jumps: Some(vec!["you@[2001:db8::1]:2200".parse().unwrap()]),
        typed: [TypedOption::ConnectTimeout].into(),
        ..plain
    };
    insta::assert_snapshot!("decisions_of_options", decisions(&typed, &explicit));

    let circle = reach(&given, None, &named("cp-1")).unwrap_err();
    assert!(matches!(circle, TransportError::JumpLoop { .. }), "{circle}");
    assert!(circle.hint().unwrap().contains("ProxyJump none"));
}

#[test]
fn what_is_not_done_is_told() {
    let operator = Operator::new();
    let text = "Host cp-*\nProxyCommand nc %h %p\nControlMaster yes\nHost *\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n";
    let told = remarks(&settings(&operator, text), None, &named("cp-1"));
    let texts = |remarks: Vec<certroll::transport::Remark>| -> Vec<String> {
        remarks.into_iter().map(|remark| format!("{}: {}", remark.place, remark.text)).collect()
    };
    insta::assert_snapshot!(
        "remarks",
        format!("always\n{}\nat -v\n{}", texts(told.warnings).join("\n"), texts(told.unused).join("\n"))
    );
    // Who jumps does not come by the command.
    let through = Settings {
        jumps: Some(vec!["gate".parse().unwrap()]),
        ..settings(&operator, "Host cp-*\nProxyCommand nc %h %p\n")
    };
    assert_eq!(remarks(&through, None, &named("cp-1")).warnings, []);
}
