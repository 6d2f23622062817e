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
use crate::inventory::{Inventory, Node, Role, SshCredentials};

/// The port of sshd that is not worth a word.
const DEFAULT_PORT: u16 = 22;

/// Returns the inventory for people. `jumps` are the hosts on the way to every node, nearest first.
pub fn text(inventory: &Inventory, jumps: &[String], findings: &[Finding], style: Style) -> String {
    let mut text = String::new();
    let population = inventory.nodes.len();
    if style.detail > Detail::Quiet {
        let version = inventory.kubernetes_version.as_deref();
        let _ = writeln!(text, "{}", header(&inventory.cluster_name, population, version, style));
        if !jumps.is_empty() {
            let _ = writeln!(text, "every node is reached through {}", shown(&jumps.join(", then ")));
        }
        text.push('\n');
        let mut columns = Columns::headed(&[
            "NODE",
            "ROLES",
            "ADDRESS",
            "INTERNAL ADDRESS",
            "USER",
            "LOG IN WITH",
            "DOCKER SOCKET",
        ]);
        for node in &inventory.nodes {
            columns.push(row(node));
        }
        text.push_str(&columns.render(style));
    }
    append_findings(&mut text, findings, population, style);
    text
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

fn row(node: &Node) -> Vec<Cell> {
    let address = if node.port == DEFAULT_PORT {
        node.address.clone()
    } else if node.address.contains(':') {
        format!("[{}]:{}", node.address, node.port)
    } else {
        format!("{}:{}", node.address, node.port)
    };
    let differs = !node.internal_address.is_empty() && node.internal_address != node.address;
    let has_own_socket = node.docker_socket != DEFAULT_DOCKER_SOCKET;
    vec![
        Cell::new(node.name.as_str()).tone(Tone::Strong),
        Cell::new(roles(&node.roles)),
        Cell::new(address),
        if differs { Cell::new(&node.internal_address) } else { Cell::nothing() },
        Cell::new(&node.user),
        Cell::new(credentials(&node.ssh)),
        if has_own_socket { Cell::new(&node.docker_socket) } else { Cell::nothing() },
    ]
}

/// Returns how a login authenticates, without showing any key.
fn credentials(ssh: &SshCredentials) -> String {
    let mut ways = Vec::new();
    if ssh.key.is_some() {
        ways.push("key in the file".to_owned());
    }
    ways.extend(ssh.key_path.clone());
    if ssh.certificate.is_some() {
        ways.push("certificate in the file".to_owned());
    }
    ways.extend(ssh.certificate_path.as_ref().map(|path| format!("certificate {path}")));
    if ssh.agent {
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
    key_path: Option<&'a str>,
    inline_key: bool,
    certificate_path: Option<&'a str>,
    agent: bool,
    jumps: &'a [String],
}

/// Returns the inventory for scripts; a key that lies in the file is named, not shown.
pub fn document<'a>(
    inventory: &'a Inventory,
    jumps: &'a [String],
    findings: &'a [Finding],
) -> NodesDocument<'a> {
    let entry = |node: &'a Node| NodeEntry {
        name: node.name.as_str(),
        address: &node.address,
        internal_address: &node.internal_address,
        port: node.port,
        user: &node.user,
        roles: &node.roles,
        ssh: SshEntry {
            key_path: node.ssh.key_path.as_deref(),
            inline_key: node.ssh.key.is_some(),
            certificate_path: node.ssh.certificate_path.as_deref(),
            agent: node.ssh.agent,
            jumps,
        },
        docker_socket: &node.docker_socket,
    };
    NodesDocument {
        version: DOCUMENT_VERSION,
        cluster: &inventory.cluster_name,
        kubernetes_version: inventory.kubernetes_version.as_deref(),
        nodes: inventory.nodes.iter().map(entry).collect(),
        findings,
    }
}
