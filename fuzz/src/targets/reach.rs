//! The ssh_config, and the ways to nodes that follow from it.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use certroll::inventory::{Inventory, Node, Secret, ValueOrigin};
use certroll::report::nodes::{self, Way};
use certroll::report::{Detail, Style};
use certroll::transport::{AskSecret, Question, Reach, Settings, SshConfig, TransportError, reach, remarks};

use super::cluster::is_for_terminals;
use super::signature;

/// Nodes of which the cluster.yml says no more than it must.
const CLUSTER: &str = "nodes:\n- {address: node-1, user: rke, role: [controlplane, etcd]}\n- {address: NODE-2.example.net, \
                       user: rke, role: [worker]}\n- {address: '2001:db8::1', hostname_override: six, user: root, role: [worker]}\n";

static INVENTORY: LazyLock<Inventory> =
    LazyLock::new(|| Inventory::parse(CLUSTER, "cluster.yml").unwrap().inventory);

struct Nobody;

impl AskSecret for Nobody {
    fn ask(&self, _: &Question) -> Option<Secret> {
        None
    }
}

fn settings() -> Settings {
    Settings::new("/home/me", Arc::new(Nobody))
}

fn way(reach: Reach) -> Way {
    let Reach { at, user, keys, inline_key, certificates, inline_certificate, agent, jumps, decisions } =
        reach;
    Way {
        host: at.host,
        port: at.port,
        user,
        keys,
        inline_key,
        certificates,
        inline_certificate,
        agent,
        jumps,
        decisions,
    }
}

/// Returns the ways to the nodes of an inventory, without any ssh_config.
pub(super) fn ways(inventory: &Inventory) -> Vec<Way> {
    let settings = settings();
    let bastion = inventory.bastion.as_ref();
    // Without a `ProxyJump` nothing leads in a circle.
    inventory.nodes.iter().map(|node| way(reach(&settings, bastion, node).unwrap())).collect()
}

pub(super) fn ssh_config(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    let lines = text.split('\n').count();
    let ssh_config = match SshConfig::parse(Path::new("config"), &text) {
        Err(error) => {
            return signature(&error.to_string().replace(|digit: char| digit.is_ascii_digit(), "x"));
        }
        Ok(config) => config,
    };
    let settings = Settings { ssh_config, ..settings() };
    let mut words = Vec::new();
    let mut ways = Vec::new();
    for node in &INVENTORY.nodes {
        let told = remarks(&settings, None, node);
        let all = told.warnings.iter().chain(&told.unused);
        assert!(all.clone().all(|remark| (1..=lines).contains(&remark.place.line)));
        words.push(all.count().min(7).to_string());
        let found = match reach(&settings, None, node) {
            Err(TransportError::JumpLoop { .. }) => return signature("a circle"),
            Err(error) => panic!("a way is there or leads in a circle: {error}"),
            Ok(found) => found,
        };
        // The user of the cluster.yml outranks that of the file; a port that nobody wrote there does not.
        assert_eq!(found.user, node.user);
        words.push(format!(
            "{} {} {}",
            found.at.port != 22,
            found.keys.len().min(5),
            found.jumps.len().min(5)
        ));
        assert_eq!(with_port(node, &settings), node.port);
        ways.push(way(found));
    }
    let style = Style { detail: Detail::Verbose, ..Style::PLAIN };
    is_for_terminals(&nodes::text(&INVENTORY, &ways, &[], style));
    signature(&words.join(" "))
}

/// Returns the port of a node for which the cluster.yml gives one.
fn with_port(node: &Node, settings: &Settings) -> u16 {
    let mut given = node.clone();
    given.ssh.port_origin = ValueOrigin::File;
    reach(settings, None, &given).map_or(node.port, |found| found.at.port)
}
