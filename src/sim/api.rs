//! The API of a simulated kube-apiserver: who may ask, for nodes and for what the cluster stores of its certificates.
//!
//! Ports hand requests over; the answers come from the simulated nodes and the [`super::store::Store`].

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::authority::Identity;
use super::boundary::Turn;
use super::clock::lock;
use super::machine::{SimNode, World};
use super::store::{NAMESPACE, Refusal, StoredKind};

/// A request.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    /// `Content-Type`.
    pub(super) kind: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// What an answer holds.
pub(super) enum Page {
    Text(String),
    Object(Value),
}

type Answer = (StatusCode, Page);

/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// The group of kubelets, which RKE binds to the cluster role `system:node` (rke v0.2.8 `templates/authz.go`): they may list nodes.
const NODES: &str = "system:nodes";

/// What every known user may read (the role `system:discovery`).
const DISCOVERY: [&str; 5] = ["/healthz", "/version", "/version/", "/api", "/apis"];

/// Answers a request.
pub(super) fn answer(world: &World, node: &SimNode, caller: Option<&Identity>, asked: &Asked<'_>) -> Answer {
    // RKE turns anonymous requests off (`--anonymous-auth=false`).
    let Some(caller) = caller else { return status(401, "Unauthorized", "Unauthorized") };
    let is_in = |group: &str| caller.groups.iter().any(|own| own == group);
    let read_by_nodes = asked.path == "/api/v1/nodes" && is_in(NODES);
    let may = is_in(MASTERS)
        || (*asked.method == Method::GET && (DISCOVERY.contains(&asked.path) || read_by_nodes));
    if !may {
        let verb = if *asked.method == Method::GET { "get" } else { "update" };
        let message = format!("forbidden: User \"{}\" cannot {verb} path \"{}\"", caller.user, asked.path);
        return status(403, "Forbidden", &message);
    }
    let read = *asked.method == Method::GET;
    match asked.path {
        "/healthz" if read => healthz(world),
        "/version" | "/version/" if read => (StatusCode::OK, Page::Object(version(world))),
        path if path.starts_with("/api/v1/") && !world.etcd_has_quorum() => {
            // etcd's own words, after its timeout.
            status(500, "InternalError", "etcdserver: request timed out")
        }
        "/api/v1/nodes" if read => (StatusCode::OK, Page::Object(nodes(world))),
        path => match path.strip_prefix(&format!("/api/v1/namespaces/{NAMESPACE}/")) {
            Some(rest) => objects(world, node, asked, rest),
            None => status(404, "NotFound", "the server could not find the requested resource"),
        },
    }
}

fn status(code: u16, reason: &str, message: &str) -> Answer {
    let object = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    (StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Page::Object(object))
}

fn refused(refusal: &Refusal) -> Answer {
    status(refusal.code, refusal.reason, &refusal.message)
}

fn healthz(world: &World) -> Answer {
    if world.etcd_has_quorum() {
        return (StatusCode::OK, Page::Text("ok".to_owned()));
    }
    let page = "[+]ping ok\n[-]etcd failed: reason withheld\nhealthz check failed\n";
    (StatusCode::INTERNAL_SERVER_ERROR, Page::Text(page.to_owned()))
}

fn version(world: &World) -> Value {
    let version = world.kubernetes_version.split('-').next().unwrap_or_default();
    let mut numbers = version.trim_start_matches('v').split('.');
    let mut next = || numbers.next().unwrap_or_default().to_owned();
    let (major, minor) = (next(), next());
    json!({
        "major": major, "minor": minor, "gitVersion": version, "gitTreeState": "clean",
        "goVersion": "go1.12.9", "compiler": "gc", "platform": "linux/amd64",
    })
}

/// Objects of one namespace: `secrets/kube-admin`.
fn objects(world: &World, node: &SimNode, asked: &Asked<'_>, rest: &str) -> Answer {
    let (plural, name) = rest.split_once('/').unwrap_or((rest, ""));
    let Some(kind) = StoredKind::of_plural(plural).filter(|_| !name.contains('/')) else {
        return status(404, "NotFound", "the server could not find the requested resource");
    };
    match (asked.method.as_str(), name) {
        ("GET", "") => {
            let (items, revision) = lock(&world.store).list(kind);
            let list = json!({
                "kind": format!("{}List", kind.as_str()), "apiVersion": "v1",
                "metadata": { "resourceVersion": revision.to_string() }, "items": items,
            });
            (StatusCode::OK, Page::Object(list))
        }
        ("GET", name) => match lock(&world.store).get(kind, name) {
            Some(object) => (StatusCode::OK, Page::Object(object)),
            None => refused(&Refusal::not_found(kind, name)),
        },
        ("PUT", name) if !name.is_empty() => put(world, node, asked, (kind, name)),
        _ => {
            status(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        }
    }
}

fn put(world: &World, node: &SimNode, asked: &Asked<'_>, (kind, name): (StoredKind, &str)) -> Answer {
    if asked.kind.is_some_and(|kind| !kind.starts_with("application/json")) {
        let message = "the body of the request was in an unknown format - accepted media types include: application/json";
        return status(415, "UnsupportedMediaType", message);
    }
    let mut store = lock(&world.store);
    let mut next = store.clone();
    match next.put(kind, name, asked.body) {
        Ok(object) => {
            if world.log.announce() == Turn::Ends {
                return status(503, "ServiceUnavailable", "the request has not arrived");
            }
            *store = next;
            drop(store);
            world.log.push_serving(&node.name, format!("put {}", asked.path), Some(world.serving()));
            (StatusCode::OK, Page::Object(object))
        }
        Err(refusal) => refused(&refusal),
    }
}

/// Returns the nodes as Kubernetes lists them.
fn nodes(world: &World) -> Value {
    let items: Vec<Value> = world.nodes.iter().map(|node| node_object(world, node)).collect();
    json!({ "kind": "NodeList", "apiVersion": "v1", "metadata": { "resourceVersion": "446" }, "items": items })
}

fn node_object(world: &World, node: &SimNode) -> Value {
    let ready = world.node_is_ready(node);
    let now = world.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |kind: &str, good: &str, (reason, message): (&str, &str)| {
        let (status, reason, message) = if ready {
            (good, reason, message)
        } else {
            ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
        };
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    let mut labels = serde_json::Map::new();
    for (label, value) in [
        ("beta.kubernetes.io/arch", "amd64"),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/hostname", node.name.as_str()),
    ] {
        labels.insert(label.to_owned(), Value::from(value));
    }
    for role in &node.roles {
        labels.insert(format!("node-role.kubernetes.io/{}", role.as_str()), Value::from("true"));
    }
    let version = world.kubernetes_version.split('-').next().unwrap_or_default();
    json!({
        "metadata": {
            "name": node.name.as_str(),
            "labels": labels,
            "annotations": {
                "rke.cattle.io/external-ip": node.address,
                "rke.cattle.io/internal-ip": node.internal_address,
            },
        },
        "spec": {},
        "status": {
            "conditions": [
                condition("MemoryPressure", "False", ("KubeletHasSufficientMemory", "kubelet has sufficient memory available")),
                condition("DiskPressure", "False", ("KubeletHasNoDiskPressure", "kubelet has no disk pressure")),
                condition("PIDPressure", "False", ("KubeletHasSufficientPID", "kubelet has sufficient PID available")),
                condition("Ready", "True", ("KubeletReady", "kubelet is posting ready status")),
            ],
            "addresses": [
                { "type": "InternalIP", "address": node.internal_address },
                { "type": "Hostname", "address": node.name.as_str() },
            ],
            "nodeInfo": { "kubeletVersion": version, "kubeProxyVersion": version },
        },
    })
}
