use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Policy;
use crate::facts::{CATTLE_NODE_AGENT, Content, Facts, NodeFacts, Observation};
use crate::inventory::{Inventory, Node};
use crate::pki::Fingerprint;

/// Returns a hash of each thing that a plan is made from: the inventory and every node.
///
/// Certificates, roles, images and whether a node answers count; clocks, start times and free space do not.
pub fn basis(inventory: &Inventory, facts: &Facts) -> BTreeMap<String, String> {
    let mut basis = BTreeMap::from([("inventory".to_owned(), hash(&describe_inventory(inventory)))]);
    basis.extend(facts.nodes.iter().map(|node| (format!("node {}", node.name), hash(&describe_node(node)))));
    basis
}

/// Returns what is not the same any more, in the words of the keys: `node cp-1`, `inventory`.
pub fn moved(then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let mut keys: Vec<&String> = then.keys().chain(now.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().filter(|key| then.get(*key) != now.get(*key)).cloned().collect()
}

/// Returns whether a node is not what it was any more when a plan was made.
pub fn moved_of_node(plan: &super::Plan, node: &Node, observation: &Observation) -> bool {
    let now = hash(&format!("{:?}\n{}", node.roles, describe_observation(observation)));
    plan.basis.get(&format!("node {}", node.name)) != Some(&now)
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

/// Returns what counts of a node.
fn describe_node(node: &NodeFacts) -> String {
    match node.observation() {
        Some(observation) => format!("{:?}\n{}", node.roles, describe_observation(observation)),
        None => "not seen".to_owned(),
    }
}

/// Returns what counts of what was seen: folders, certificates, which keys are there, containers with their images.
fn describe_observation(observation: &Observation) -> String {
    let mut text = format!("{} {}\n", observation.kubernetes_directory, observation.has_tmp);
    let mut files: Vec<String> = observation
        .files
        .iter()
        .map(|file| match &file.content {
            Content::Certificate(Ok(certificate)) => format!("{} {}", file.path, certificate.sha256),
            _ => format!("{} {}", file.path, file.size),
        })
        .collect();
    files.sort();
    let mut containers: Vec<String> = observation
        .containers
        .iter()
        .map(|container| format!("{} {}", lasting_name(&container.name), container.image))
        .collect();
    containers.sort();
    containers.dedup();
    for line in files.into_iter().chain(containers) {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Returns what of a container's name outlives a restart of its pod: an agent that cannot connect gets a new name each time.
fn lasting_name(name: &str) -> &str {
    if name.starts_with(CATTLE_NODE_AGENT) { CATTLE_NODE_AGENT } else { name }
}
