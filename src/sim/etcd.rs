//! `etcdctl` in the etcd container, with the answers of etcd 3.2 to 3.4.
//!
//! They are derived from the simulated members: a member counts whose container runs and whose certificate its peers accept.
#![expect(
    clippy::unnecessary_wraps,
    reason = "every program has the same signature, and some can be ended from outside"
)]

use std::sync::Arc;

use serde_json::{Value, json};

use super::container::{Component, digest};
use super::machine::SimNode;
use super::shell::{Process, Unwind};
use crate::inventory::Role;

/// Runs `etcdctl`.
pub(crate) fn etcdctl(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let mut words = Vec::new();
    let (mut as_json, mut cluster) = (false, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "-w" | "--write-out" => as_json = rest.next().is_some_and(|format| format == "json"),
            "-w=json" | "--write-out=json" => as_json = true,
            "--cluster" => cluster = true,
            option if option.starts_with("--command-timeout") || option.starts_with("--dial-timeout") => {
                if !option.contains('=') {
                    rest.next();
                }
            }
            option if option.starts_with('-') => {
                return Ok(process.fail(2, &format!("Error: {option} is not simulated")));
            }
            word => words.push(word),
        }
    }
    let format = if as_json { Format::Json } else { Format::Text };
    let scope = if cluster { Scope::Cluster } else { Scope::Member };
    process.world.settle();
    match words.as_slice() {
        ["endpoint", "health"] => Ok(health(process, format, scope)),
        ["endpoint", "status"] => Ok(status(process, format, scope)),
        ["member", "list"] => Ok(members(process, format)),
        ["version"] => {
            process.put_line(&format!("etcdctl version: {}\nAPI version: 3.3", version(process)));
            Ok(0)
        }
        _ => Ok(process.fail(2, &format!("Error: `etcdctl {}` is not simulated", words.join(" ")))),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Member,
    Cluster,
}

/// Returns the version in the tag of this node's image.
fn version(process: &Process) -> String {
    let machine = super::clock::lock(&process.node.machine);
    let image = machine.container(Component::Etcd.name()).map(|etcd| etcd.image.clone()).unwrap_or_default();
    let tag = image.rsplit(':').next().unwrap_or_default();
    tag.trim_start_matches('v').split('-').next().unwrap_or_default().to_owned()
}

fn is_old(process: &Process) -> bool {
    let version = version(process);
    ["3.0.", "3.1.", "3.2.", "3.3."].iter().any(|begin| version.starts_with(begin))
}

/// Returns the endpoints that are asked, with their members.
fn endpoints(process: &Process, scope: Scope) -> Vec<(String, Arc<SimNode>)> {
    match scope {
        Scope::Member => vec![("127.0.0.1:2379".to_owned(), Arc::clone(&process.node))],
        Scope::Cluster => {
            let member =
                |node: &Arc<SimNode>| (format!("https://{}:2379", node.internal_address), Arc::clone(node));
            process.world.with_role(Role::Etcd).map(member).collect()
        }
    }
}

/// Returns whether the local member can tell of the cluster at all.
fn answers(process: &Process) -> bool {
    process.world.etcd_serves(&process.node) && process.world.etcd_has_quorum()
}

fn out_of_time(process: &mut Process) -> i32 {
    process.fail(1, "Error: context deadline exceeded")
}

fn health(process: &mut Process, format: Format, scope: Scope) -> i32 {
    if scope == Scope::Cluster && !answers(process) {
        return out_of_time(process);
    }
    let old = is_old(process);
    let quorum = process.world.etcd_has_quorum();
    let mut rows = Vec::new();
    let mut all = true;
    for (endpoint, node) in endpoints(process, scope) {
        let healthy = quorum && process.world.etcd_serves(&node);
        all &= healthy;
        let mut row = json!({ "endpoint": endpoint, "health": healthy, "took": "1.71ms" });
        let line = if healthy {
            format!("{endpoint} is healthy: successfully committed proposal: took = 1.71ms")
        } else {
            if let Value::Object(row) = &mut row {
                row.insert("error".to_owned(), json!("context deadline exceeded"));
            }
            format!("{endpoint} is unhealthy: failed to commit proposal: context deadline exceeded")
        };
        rows.push(row);
        // etcd 3.4 writes these lines to stderr, and knows JSON; 3.3 writes them to stdout and ignores `-w`.
        if old {
            process.put_line(&line);
        } else if format == Format::Text {
            process.complain(&line);
        }
    }
    if !old && format == Format::Json {
        process.put_line(&Value::from(rows).to_string());
    }
    if all { 0 } else { process.fail(1, "Error: unhealthy cluster") }
}

fn member_id(node: &SimNode) -> u64 {
    u64::from_str_radix(digest(node.name.as_str()).get(..15).unwrap_or_default(), 16).unwrap_or(1)
}

/// Returns the member that leads: the first that serves.
fn leader(process: &Process) -> u64 {
    let serving = process.world.with_role(Role::Etcd).find(|node| process.world.etcd_serves(node));
    serving.map_or(0, |node| member_id(node))
}

fn status(process: &mut Process, format: Format, scope: Scope) -> i32 {
    if !answers(process) {
        return out_of_time(process);
    }
    let (leader, version) = (leader(process), version(process));
    let mut rows = Vec::new();
    for (endpoint, node) in endpoints(process, scope) {
        if !process.world.etcd_serves(&node) {
            process.complain(&format!(
                "Failed to get the status of endpoint {endpoint} (context deadline exceeded)"
            ));
            continue;
        }
        let id = member_id(&node);
        if format == Format::Text {
            let leads = id == leader;
            process.put_line(&format!("{endpoint}, {id:x}, {version}, 4.1 MB, {leads}, 7, 81544"));
        }
        rows.push(json!({
            "Endpoint": endpoint,
            "Status": {
                "header": { "cluster_id": 14_841_639_068_965_178_418_u64, "member_id": id, "revision": 70211, "raft_term": 7 },
                "version": version, "dbSize": 4_128_768, "leader": leader, "raftIndex": 81544, "raftTerm": 7,
            },
        }));
    }
    if format == Format::Json {
        process.put_line(&Value::from(rows).to_string());
    }
    0
}

/// Up to etcd 3.4 a member lists the others from its own memory, without asking for a quorum.
fn members(process: &mut Process, format: Format) -> i32 {
    if !process.world.etcd_serves(&process.node) || !process.node.etcd_has_joined() {
        return out_of_time(process);
    }
    let knows_learners = !is_old(process);
    let nodes: Vec<Arc<SimNode>> = process.world.with_role(Role::Etcd).cloned().collect();
    let mut rows = Vec::new();
    for node in nodes {
        let (id, name, address) = (member_id(&node), &node.name, &node.internal_address);
        let peer = format!("https://{address}:2380");
        let clients = [format!("https://{address}:2379"), format!("https://{address}:4001")];
        if format == Format::Text {
            let learner = if knows_learners { ", false" } else { "" };
            process
                .put_line(&format!("{id:x}, started, etcd-{name}, {peer}, {}{learner}", clients.join(",")));
        }
        rows.push(
            json!({ "ID": id, "name": format!("etcd-{name}"), "peerURLs": [peer], "clientURLs": clients }),
        );
    }
    if format == Format::Json {
        let header = json!({ "cluster_id": 14_841_639_068_965_178_418_u64, "member_id": member_id(&process.node), "raft_term": 7 });
        process.put_line(&json!({ "header": header, "members": rows }).to_string());
    }
    0
}
