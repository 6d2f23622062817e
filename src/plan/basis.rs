use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::trail::Trail;
use super::{Plan, Policy};
use crate::facts::{CATTLE_NODE_AGENT, Content, Facts, File, NodeFacts, Observation};
use crate::inventory::{Inventory, Node, NodeName, Role};
use crate::pki::Fingerprint;

/// Returns a hash of each thing that a plan is made from: the inventory, every node, its containers, and every file on it.
///
/// Certificates, roles, images and whether a node answers count; clocks, start times and free space do not.
pub fn basis(inventory: &Inventory, facts: &Facts) -> BTreeMap<String, String> {
    let own = (INVENTORY.to_owned(), hash(&describe_inventory(inventory)));
    // In order: a map is made of a quarter of a million sorted keys in a fraction of the time that it takes to insert them.
    let mut nodes: Vec<&NodeFacts> = facts.nodes.iter().collect();
    nodes.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    let entries = nodes.into_iter().flat_map(|node| entries(&node.name, &node.roles, node.observation()));
    std::iter::once(own).chain(entries).collect()
}

/// Returns what is not the same any more, in the words of the keys: `inventory`, `node cp-1`, `node cp-1 containers`,
/// `node cp-1 /etc/kubernetes/ssl/kube-node.pem`.
pub fn moved(then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let mut keys: Vec<&String> = then.keys().chain(now.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| then.get(*key) != now.get(*key));
    // Of a node that is another one now, or is not seen, the files need no words of their own.
    let is_told = |key: &str| {
        keys.iter().any(|other| key.strip_prefix(other.as_str()).is_some_and(|rest| rest.starts_with(' ')))
    };
    keys.iter().filter(|key| !is_told(key)).map(|key| (*key).clone()).collect()
}

/// Returns what of a plan's basis is not so any more. A node that cannot be looked at now tells nothing: whether the plan may be
/// carried out without it is another question.
pub fn moved_from(plan: &Plan, inventory: &Inventory, facts: &Facts) -> Vec<String> {
    let mut moved = moved(&plan.basis, &basis(inventory, facts));
    let unseen = || facts.nodes.iter().filter(|node| node.observation().is_none());
    moved.retain(|key| !unseen().any(|node| of_node(key, &node.name).is_some()));
    moved
}

/// Returns what of a plan's basis is not so any more, but for what the plan's own run has changed so far.
pub fn moved_since(plan: &Plan, inventory: &Inventory, facts: &Facts, trail: &Trail) -> Vec<String> {
    let is_other_node = |key: &String| {
        facts.nodes.iter().any(|node| {
            of_node(key, &node.name).is_some()
                && !plan.steps().any(|step| step.node.as_ref() == Some(&node.name))
        })
    };
    let mut moved = moved_from(plan, inventory, facts);
    moved.retain(|key| !is_other_node(key));
    for (node, seen) in facts.seen() {
        moved.retain(|key| {
            !of_node(key, &node.name).is_some_and(|rest| trail.explains(plan, (&node.name, seen), rest))
        });
    }
    moved
}

/// Returns what of a node is not so any more that a plan was made from, but for what the plan's own run has changed so far.
pub fn moved_on_node(plan: &Plan, node: &Node, observation: &Observation, trail: &Trail) -> Vec<String> {
    let then = plan.basis.iter().filter(|(key, _)| of_node(key, &node.name).is_some());
    let then: BTreeMap<String, String> = then.map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut moved = moved(&then, &entries(&node.name, &node.roles, Some(observation)).collect());
    moved.retain(|key| {
        !of_node(key, &node.name).is_some_and(|rest| trail.explains(plan, (&node.name, observation), rest))
    });
    moved
}

/// Returns whether a file of a node is what it was when a plan was made.
pub fn is_as_planned(plan: &Plan, node: &NodeName, file: &File) -> bool {
    plan.basis.get(&format!("node {node} {}", file.path)) == Some(&describe_file(file))
}

/// The key of the inventory.
const INVENTORY: &str = "inventory";

/// The key of a node's containers, behind that of the node.
const CONTAINERS: &str = "containers";

/// Returns what a key says behind the name of a node; empty for the node itself, `None` for other keys.
fn of_node<'a>(key: &'a str, node: &NodeName) -> Option<&'a str> {
    let rest = key.strip_prefix("node ")?.strip_prefix(node.as_str())?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(' ') }
}

/// Returns the part of a basis that tells of a node, in the order of the keys.
fn entries(
    name: &NodeName,
    roles: &[Role],
    observation: Option<&Observation>,
) -> impl Iterator<Item = (String, String)> {
    let mut entries = Vec::new();
    let node = match observation {
        None => "not seen".to_owned(),
        Some(seen) => hash(&format!("{roles:?} {}", seen.kubernetes_directory)),
    };
    entries.push((format!("node {name}"), node));
    if let Some(seen) = observation {
        entries.push((format!("node {name} {CONTAINERS}"), hash(&describe_containers(seen))));
        if seen.has_tmp {
            entries.push((format!("node {name} {}", seen.tmp_directory()), "a folder".to_owned()));
        }
        let files = seen.files.iter();
        entries.extend(files.map(|file| (format!("node {name} {}", file.path), describe_file(file))));
    }
    entries.sort_unstable();
    entries.into_iter()
}

/// Returns the hash of all that shaped a plan.
pub(super) fn fingerprint(basis: &BTreeMap<String, String>, policy: &Policy) -> Fingerprint {
    let mut text = String::new();
    for (key, value) in basis {
        let _ = writeln!(text, "{key} {value}");
    }
    let _ = writeln!(
        text,
        "{} {:?} {:?} {:?} {:?} {:?} {:?}",
        policy.procedure,
        policy.via,
        policy.services,
        policy.renewal,
        policy.max_unavailable_worker,
        policy.selected,
        policy.rancher.as_ref().map(|rancher| (&rancher.url, &rancher.cluster_id)),
    );
    if let Some(rke) = &policy.rke {
        let _ = writeln!(text, "{rke:?}");
    }
    if let Some(direct) = &policy.direct {
        let _ = writeln!(text, "{direct:?}");
    }
    Fingerprint::of(text.as_bytes())
}

/// Returns the hash of a text.
fn hash(text: &str) -> String {
    Fingerprint::of(text.as_bytes()).short().to_owned()
}

/// Returns what counts of an inventory.
fn describe_inventory(inventory: &Inventory) -> String {
    let mut text = format!(
        "{} {:?} {} {}\n",
        inventory.cluster_name,
        inventory.kubernetes_version,
        inventory.prefix_path,
        inventory.max_unavailable_worker
    );
    // What new certificates say is made from these.
    let _ = writeln!(
        text,
        "{:?} {:?} {} {} {:?} {:?}",
        inventory.authentication_sans,
        inventory.service_cluster_ip_ranges,
        inventory.cluster_domain,
        inventory.generate_serving_certificate,
        inventory.external_etcd_urls,
        inventory.etcd_owner,
    );
    for node in &inventory.nodes {
        let _ = writeln!(
            text,
            "{} {} {} {} {} {:?} {}",
            node.name,
            node.address,
            node.port,
            node.internal_address,
            node.user,
            node.roles,
            node.docker_socket
        );
    }
    text
}

/// Returns what counts of a file: which certificate it is, or how long.
fn describe_file(file: &File) -> String {
    match &file.content {
        Content::Certificate(Ok(certificate)) => certificate.sha256.short().to_owned(),
        _ => format!("{} bytes", file.size),
    }
}

/// Returns what counts of a node's containers: their names and images.
fn describe_containers(observation: &Observation) -> String {
    let mut containers: Vec<String> = observation
        .containers
        .iter()
        .map(|container| format!("{} {}", lasting_name(&container.name), container.image))
        .collect();
    containers.sort();
    containers.dedup();
    containers.join("\n")
}

/// Returns what of a container's name outlives a restart of its pod: an agent that cannot connect gets a new name each time.
fn lasting_name(name: &str) -> &str {
    if name.starts_with(CATTLE_NODE_AGENT) { CATTLE_NODE_AGENT } else { name }
}
