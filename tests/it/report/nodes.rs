use certroll::finding::Finding;
use certroll::inventory::{Inventory, NodeName, Secret};
use certroll::report::nodes::{Way, document, text};
use certroll::report::style::{Color, Detail, Style};

use super::cluster::{control_planes, inventory, workers};

fn cluster() -> (Inventory, Vec<Finding>) {
    let machines: Vec<_> = control_planes().into_iter().chain(workers(2)).collect();
    let mut inventory = inventory(&machines);
    inventory.nodes[0].port = 2222;
    "192.168.0.11".clone_into(&mut inventory.nodes[0].internal_address);
    inventory.nodes[1].ssh.key = Some(Secret::new("KEY OF CP-2".to_owned()));
    inventory.nodes[1].ssh.key_path = None;
    inventory.nodes[2].ssh.agent = true;
    "/run/docker-rke.sock".clone_into(&mut inventory.nodes[4].docker_socket);
    let findings = vec![
        Finding::warning(
            "even-etcd",
            "an even number of etcd members survives no more failures than one less",
        ),
        Finding::info("default-user", "`user` is not set")
            .on(&NodeName::new("w-1"))
            .hint("set `user` in the cluster.yml"),
    ];
    (inventory, findings)
}

/// Returns the ways that the inventory alone leads to.
fn ways(inventory: &Inventory, jumps: &[&str]) -> Vec<Way> {
    let way = |node: &certroll::inventory::Node| Way {
        host: node.address.clone(),
        port: node.port,
        user: node.user.clone(),
        keys: node.ssh.key_path.iter().cloned().collect(),
        inline_key: node.ssh.key.is_some(),
        certificates: vec![],
        inline_certificate: false,
        agent: node.ssh.agent,
        jumps: jumps.iter().map(|jump| (*jump).to_owned()).collect(),
        decisions: vec![
            format!("host={} (cluster.yml)", node.address),
            format!("port={} (default)", node.port),
        ],
    };
    inventory.nodes.iter().map(way).collect()
}

#[test]
fn an_inventory_is_shown_with_its_defaults() {
    let (inventory, findings) = cluster();
    let ways = ways(&inventory, &["ubuntu@bastion.example.net:22", "core@10.0.0.1:22"]);
    insta::assert_snapshot!(text(&inventory, &ways, &findings, Style::PLAIN));
    let document = document(&inventory, &ways, &findings);
    let json = serde_json::to_string_pretty(&document).unwrap();
    assert!(!json.contains("KEY OF CP-2"));
    insta::assert_snapshot!("inventory_json", json);
}

#[test]
fn the_quiet_read_warnings_alone() {
    let (inventory, findings) = cluster();
    let style = Style { detail: Detail::Quiet, ..Style::PLAIN };
    assert_eq!(
        text(&inventory, &ways(&inventory, &[]), &findings, style),
        "warning   an even number of etcd members survives no more failures than one less\n"
    );
}

#[test]
fn columns_that_say_nothing_are_left_out_and_names_cannot_reach_the_terminal() {
    let mut inventory = inventory(&workers(1));
    inventory.nodes[0].user = "root\u{1b}[2J\u{202e}".to_owned();
    let style = Style { color: Color::On, ..Style::PLAIN };
    let text = text(&inventory, &ways(&inventory, &[]), &[], style);
    assert!(!text.contains("INTERNAL ADDRESS") && !text.contains("DOCKER SOCKET"));
    assert!(text.contains(r"root\u{1b}[2J\u{202e}"), "{text}");
    assert!(text.contains("\u{1b}[1mw-1\u{1b}[0m"), "{text}");
}

#[test]
fn ways_that_lead_elsewhere_are_shown_node_by_node() {
    let (inventory, _) = cluster();
    let mut ways = ways(&inventory, &[]);
    "cp-1.example.net".clone_into(&mut ways[0].host);
    ways[0].port = 22;
    "2001:db8::2".clone_into(&mut ways[1].host);
    ways[1].port = 2222;
    ways[2].jumps = vec!["rke@gate:22".to_owned(), "rke@inner:22".to_owned()];
    ways[3].keys = vec!["~/.ssh/a".to_owned(), "~/.ssh/b".to_owned()];
    ways[3].certificates = vec!["~/.ssh/a-cert.pub".to_owned()];
    let style = Style { detail: Detail::Verbose, ..Style::PLAIN };
    insta::assert_snapshot!(text(&inventory, &ways, &[], style));
}
