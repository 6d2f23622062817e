use certroll::finding::Finding;
use certroll::inventory::{NodeName, Secret};
use certroll::report::nodes::{document, text};
use certroll::report::style::{Color, Detail, Style};

use super::cluster::{control_planes, inventory, workers};

fn cluster() -> (certroll::inventory::Inventory, Vec<Finding>) {
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

#[test]
fn an_inventory_is_shown_with_its_defaults() {
    let (inventory, findings) = cluster();
    let jumps = ["ubuntu@bastion.example.net:22".to_owned(), "core@10.0.0.1:22".to_owned()];
    insta::assert_snapshot!(text(&inventory, &jumps, &findings, Style::PLAIN));
    let document = document(&inventory, &jumps, &findings);
    let json = serde_json::to_string_pretty(&document).unwrap();
    assert!(!json.contains("KEY OF CP-2"));
    insta::assert_snapshot!("inventory_json", json);
}

#[test]
fn the_quiet_read_warnings_alone() {
    let (inventory, findings) = cluster();
    let style = Style { detail: Detail::Quiet, ..Style::PLAIN };
    assert_eq!(
        text(&inventory, &[], &findings, style),
        "warning   an even number of etcd members survives no more failures than one less\n"
    );
}

#[test]
fn columns_that_say_nothing_are_left_out_and_names_cannot_reach_the_terminal() {
    let mut inventory = inventory(&workers(1));
    inventory.nodes[0].user = "root\u{1b}[2J\u{202e}".to_owned();
    let style = Style { color: Color::On, ..Style::PLAIN };
    let text = text(&inventory, &[], &[], style);
    assert!(!text.contains("INTERNAL ADDRESS") && !text.contains("DOCKER SOCKET"));
    assert!(text.contains(r"root\u{1b}[2J\u{202e}"), "{text}");
    assert!(text.contains("\u{1b}[1mw-1\u{1b}[0m"), "{text}");
}
