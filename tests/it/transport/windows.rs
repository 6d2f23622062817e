//! A host whose SSH server is one for Windows: recognised before anybody logs in, and passed all the same where it is a jump host.

use std::net::SocketAddr;
use std::sync::Arc;

use certroll::clock::Clock;
use certroll::command::BecomeRoot;
use certroll::facts::Cause;
use certroll::facts::probe::KeyReading;
use certroll::gather::{Gatherer, Settings};
use certroll::inventory::{Inventory, NodeName, Role};
use certroll::transport::{Transport, TransportError};
use russh::SshId;
use russh::server::{Config, Handler};
use tokio::net::TcpListener;

use super::operator::{Operator, bastion, ed25519, node};

/// Lets nobody in.
struct Closed;

impl Handler for Closed {
    type Error = russh::Error;
}

/// Starts a server that names itself so.
async fn server(operator: &Operator, identification: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let host_key = ed25519();
    operator.know(address, host_key.public_key());
    let config = Arc::new(Config {
        server_id: SshId::Standard(identification.to_owned().into()),
        keys: vec![host_key],
        ..Config::default()
    });
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let config = Arc::clone(&config);
            tokio::spawn(async move {
                if let Ok(session) = russh::server::run_stream(config, socket, Closed).await {
                    let _ = session.await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_node_that_runs_windows_is_recognised_without_a_login() {
    let operator = Operator::new();
    for identification in
        ["SSH-2.0-OpenSSH_for_Windows_8.1", "SSH-2.0-9.31 FlowSsh: Bitvise SSH Server (WinSSHD) 9.31"]
    {
        let address = server(&operator, identification).await;
        let error = operator.transport().connect(&node(address)).await.unwrap_err();
        let TransportError::Windows { identification: named, .. } = &error else { panic!("{error}") };
        assert_eq!(named, identification);
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn a_jump_host_may_run_windows() {
    let operator = Operator::new();
    let address = server(&operator, "SSH-2.0-OpenSSH_for_Windows_8.1").await;
    let transport = Transport::new(operator.settings(), Some(&bastion(address))).unwrap();
    let error = transport.connect(&node(address)).await.unwrap_err();
    assert!(error.to_string().contains("does not let `rke` in"), "{error}");
}

#[tokio::test]
async fn a_worker_that_runs_windows_is_no_fault_and_a_control_plane_node_is() {
    let operator = Operator::new();
    let address = server(&operator, "SSH-2.0-OpenSSH_for_Windows_8.1").await;
    let text = "nodes:\n- {address: 10.0.0.1, user: u, role: [controlplane, etcd]}\n";
    let inventory = Arc::new(Inventory::parse(text, "cluster.yml").unwrap().inventory);
    let settings = Settings {
        parallel: 2,
        keys: KeyReading::PublicPrefix,
        become_root: BecomeRoot::Auto,
        clock: Clock::System,
    };
    let gatherer = Gatherer::new(inventory, Arc::new(operator.transport()), settings);
    let worker = node(address);
    let mut labelled = node("127.0.0.1:1".parse().unwrap());
    labelled.name = NodeName::new("node-2");
    labelled.labels.insert("kubernetes.io/os".to_owned(), "windows".to_owned());
    let mut control_plane = node(address);
    control_plane.name = NodeName::new("node-3");
    control_plane.roles = vec![Role::ControlPlane];
    let facts = gatherer.gather(&[&worker, &labelled, &control_plane], |_| {}).await;
    let causes: Vec<Cause> = facts.nodes.iter().map(|node| node.result.as_ref().unwrap_err().cause).collect();
    assert_eq!(causes, [Cause::Windows, Cause::Windows, Cause::Fault]);
    let said: Vec<&str> =
        facts.nodes.iter().map(|node| node.result.as_ref().unwrap_err().error.as_str()).collect();
    assert!(said[0].contains("OpenSSH_for_Windows") && said[1].contains("kubernetes.io/os"), "{said:?}");
}
