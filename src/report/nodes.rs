//! The report of an inventory: its nodes as certroll understands them, with defaults filled in.
//!
//! `certroll nodes` shows it; nothing was connected to.

use std::fmt::Write as _;

use serde::Serialize;

use super::columns::{Cell, Columns};
use super::duration::count;
use super::style::{Detail, Style, Tone};
use super::{DOCUMENT_VERSION, findings};
use crate::command::DEFAULT_DOCKER_SOCKET;
use crate::escape::shown;
use crate::finding::Finding;
use crate::inventory::{Inventory, Node, Role};

/// The port of sshd that is not worth a word.
const DEFAULT_PORT: u16 = 22;

/// How a node would really be reached, with what options and the ssh_config have to say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The name or address that is connected to.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// The user there.
    pub user: String,
    /// The files of private keys, in the order in which they are tried.
    pub keys: Vec<String>,
    /// Whether the cluster.yml holds a private key itself.
    pub inline_key: bool,
    /// The files of OpenSSH certificates.
    pub certificates: Vec<String>,
    /// Whether the cluster.yml holds a certificate itself.
    pub inline_certificate: bool,
    /// Whether the agent is asked.
    pub agent: bool,
    /// The hosts on the way, nearest first.
    pub jumps: Vec<String>,
    /// Who decided on what, as `port=22 (default)`.
    pub decisions: Vec<String>,
}

/// Returns the inventory for people. There is one way for each node, in the same order.
pub fn text(inventory: &Inventory, ways: &[Way], findings: &[Finding], style: Style) -> String {
    let mut text = String::new();
    let population = inventory.nodes.len();
    if style.detail > Detail::Quiet {
        let version = inventory.kubernetes_version.as_deref();
        let _ = writeln!(text, "{}", header(&inventory.cluster_name, population, version, style));
        let common = common_jumps(ways);
        if let Some(jumps) = common.filter(|jumps| !jumps.is_empty()) {
            let _ = writeln!(text, "every node is reached through {}", shown(&jumps.join(", then ")));
        }
        text.push('\n');
        let mut columns = Columns::headed(&[
            "NODE",
            "ROLES",
            "ADDRESS",
            "CONNECTS TO",
            "THROUGH",
            "INTERNAL ADDRESS",
            "USER",
            "LOG IN WITH",
            "DOCKER SOCKET",
        ]);
        for (node, way) in inventory.nodes.iter().zip(ways) {
            let jumps = if common.is_some() { &[] } else { way.jumps.as_slice() };
            columns.push(row(node, way, jumps));
        }
        text.push_str(&columns.render(style));
        if style.is_verbose() {
            append_decisions(&mut text, inventory, ways, style);
        }
    }
    append_findings(&mut text, findings, population, style);
    text
}

/// Returns the hosts that every node is reached through, where they are the same for all.
fn common_jumps(ways: &[Way]) -> Option<&[String]> {
    let (first, rest) = ways.split_first()?;
    rest.iter().all(|way| way.jumps == first.jumps).then_some(&first.jumps)
}

/// Adds who decided on what, node by node.
fn append_decisions(text: &mut String, inventory: &Inventory, ways: &[Way], style: Style) {
    for (node, way) in inventory.nodes.iter().zip(ways) {
        let _ = writeln!(text, "\n{}", style.paint(Tone::Strong, &shown(node.name.as_str())));
        for decision in &way.decisions {
            let _ = writeln!(text, "  {}", shown(decision));
        }
    }
}

/// Returns the first line of a report about a cluster.
pub(super) fn header(cluster: &str, nodes: usize, version: Option<&str>, style: Style) -> String {
    let version = version.map(|version| format!("   Kubernetes {}", shown(version))).unwrap_or_default();
    let nodes = count(i64::try_from(nodes).unwrap_or(i64::MAX), "node");
    format!("{}   {nodes}{version}", style.paint(Tone::Strong, &shown(cluster)))
}

/// Adds findings and their ways out, each after an empty line.
pub(super) fn append_findings(text: &mut String, findings: &[Finding], population: usize, style: Style) {
    for part in [findings::lines(findings, population, style), findings::hints(findings, style)] {
        if !part.is_empty() {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&part);
        }
    }
}

/// Returns roles in one text.
pub(super) fn roles(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" ")
}

fn row(node: &Node, way: &Way, jumps: &[String]) -> Vec<Cell> {
    let goes_elsewhere = way.host != node.address;
    let differs = !node.internal_address.is_empty() && node.internal_address != node.address;
    let has_own_socket = node.docker_socket != DEFAULT_DOCKER_SOCKET;
    let place = place(&way.host, way.port);
    vec![
        Cell::new(node.name.as_str()).tone(Tone::Strong),
        Cell::new(roles(&node.roles)),
        Cell::new(if goes_elsewhere { &node.address } else { &place }),
        if goes_elsewhere { Cell::new(&place) } else { Cell::nothing() },
        if jumps.is_empty() { Cell::nothing() } else { Cell::new(jumps.join(", then ")) },
        if differs { Cell::new(&node.internal_address) } else { Cell::nothing() },
        Cell::new(&way.user),
        Cell::new(credentials(way)),
        if has_own_socket { Cell::new(&node.docker_socket) } else { Cell::nothing() },
    ]
}

/// Returns an address with its port, where that is worth a word.
fn place(host: &str, port: u16) -> String {
    if port == DEFAULT_PORT {
        host.to_owned()
    } else if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Returns how a login authenticates, without showing any key.
fn credentials(way: &Way) -> String {
    let mut ways = Vec::new();
    if way.inline_key {
        ways.push("key in the file".to_owned());
    }
    ways.extend(way.keys.clone());
    if way.inline_certificate {
        ways.push("certificate in the file".to_owned());
    }
    ways.extend(way.certificates.iter().map(|path| format!("certificate {path}")));
    if way.agent {
        ways.push("agent".to_owned());
    }
    if ways.is_empty() { "nothing".to_owned() } else { ways.join(", ") }
}

/// The inventory for scripts.
#[derive(Debug, Serialize)]
pub struct NodesDocument<'a> {
    version: u32,
    cluster: &'a str,
    kubernetes_version: Option<&'a str>,
    nodes: Vec<NodeEntry<'a>>,
    findings: &'a [Finding],
}

#[derive(Debug, Serialize)]
struct NodeEntry<'a> {
    name: &'a str,
    address: &'a str,
    internal_address: &'a str,
    port: u16,
    user: &'a str,
    roles: &'a [Role],
    ssh: SshEntry<'a>,
    docker_socket: &'a str,
}

#[derive(Debug, Serialize)]
struct SshEntry<'a> {
    host: &'a str,
    key_path: Option<&'a str>,
    keys: &'a [String],
    inline_key: bool,
    certificate_path: Option<&'a str>,
    agent: bool,
    jumps: &'a [String],
    decisions: &'a [String],
}

/// Returns the inventory for scripts; a key that lies in the file is named, not shown.
pub fn document<'a>(inventory: &'a Inventory, ways: &'a [Way], findings: &'a [Finding]) -> NodesDocument<'a> {
    let entry = |(node, way): (&'a Node, &'a Way)| NodeEntry {
        name: node.name.as_str(),
        address: &node.address,
        internal_address: &node.internal_address,
        port: way.port,
        user: &way.user,
        roles: &node.roles,
        ssh: SshEntry {
            host: &way.host,
            key_path: way.keys.first().map(String::as_str),
            keys: &way.keys,
            inline_key: way.inline_key,
            certificate_path: way.certificates.first().map(String::as_str),
            agent: way.agent,
            jumps: &way.jumps,
            decisions: &way.decisions,
        },
        docker_socket: &node.docker_socket,
    };
    NodesDocument {
        version: DOCUMENT_VERSION,
        cluster: &inventory.cluster_name,
        kubernetes_version: inventory.kubernetes_version.as_deref(),
        nodes: inventory.nodes.iter().zip(ways).map(entry).collect(),
        findings,
    }
}
