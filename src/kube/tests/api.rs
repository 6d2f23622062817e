use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::site::{Authority, Clients, Seen, Site, Validity};
use crate::kube::{ApiServer, Health, Identity, KubeError, NodeStatus, StateHolder};
use crate::pki::{Certificate, KUBE_ADMIN};

const STATE: &str = include_str!("../../../tests/cases/golden/rke-v0.2.8/cluster.rkestate");
const OTHER: &str = include_str!("../../../tests/cases/golden/rke-v0.2.8/n1/ssl/kube-proxy.pem");
const SECRET: &str = "/api/v1/namespaces/kube-system/secrets/full-cluster-state";
const CONFIG_MAP: &str = "/api/v1/namespaces/kube-system/configmaps/full-cluster-state";

/// An API server and somebody whom it knows.
struct Cluster {
    site: Site,
    identity: Identity,
}

impl Cluster {
    fn new(answers: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static) -> Self {
        let authority = Authority::new();
        let site = Site::new(&authority, Clients::Verified, move |seen| {
            assert_eq!(seen.host, "127.0.0.1:6443");
            answers(seen)
        });
        Self { site, identity: authority.identity(Validity::Good) }
    }

    fn api(&self) -> ApiServer<'_, Site> {
        ApiServer::new(&self.site, &self.identity)
    }
}

fn not_found() -> (u16, String) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
        "message": "secrets \"full-cluster-state\" not found", "reason": "NotFound"});
    (404, status.to_string())
}

#[tokio::test]
async fn health_is_asked_with_the_certificate() {
    let cluster = Cluster::new(|seen| {
        assert_eq!(seen.line, "GET /healthz");
        (200, "ok".to_owned())
    });
    assert_eq!(cluster.api().healthz().await.unwrap(), Health::Healthy);
    assert_eq!(cluster.site.dialled(), ["127.0.0.1:6443"]);
    let cluster = Cluster::new(|_| (401, "Unauthorized".to_owned()));
    assert_eq!(cluster.api().healthz().await.unwrap(), Health::Answers);
}

/// A run asks in tasks of its own.
#[tokio::test]
async fn requests_can_be_made_from_any_thread() {
    fn checked<T: Send>(future: T) -> T {
        future
    }
    let cluster = Cluster::new(|_| not_found());
    assert!(checked(cluster.api().cluster_state()).await.unwrap().is_none());
    let _ = |session: &crate::transport::Session| {
        drop(checked(ApiServer::new(session, &cluster.identity).nodes()));
    };
}

#[tokio::test]
async fn rsa_keys_as_rke_writes_them_are_taken() {
    for version in rustls::ALL_VERSIONS {
        let authority = Authority::new();
        let site = Site::of_versions(&authority, Clients::Verified, &[version], |_| (200, "ok".to_owned()));
        let identity =
            authority.identity_of(&crate::pki::new_key(crate::pki::KeyAlgorithm::Rsa2048).unwrap());
        assert_eq!(ApiServer::new(&site, &identity).healthz().await.unwrap(), Health::Healthy);
    }
}

#[tokio::test]
async fn nodes_of_a_real_cluster_are_read() {
    let golden = include_str!("../../../tests/cases/golden/rke-v0.2.8/api-nodes.json");
    let cluster = Cluster::new(|_| (200, golden.to_owned()));
    let nodes = cluster.api().nodes().await.unwrap();
    assert_eq!(nodes.len(), 5);
    let first = NodeStatus {
        name: "n1".to_owned(),
        addresses: vec!["10.77.0.11".to_owned(), "n1".to_owned()],
        ready: Some(true),
        message: "kubelet is posting ready status".to_owned(),
    };
    assert_eq!(nodes[0], first);
}

/// Answers with nodes as large as real ones with many images, in pages as they are asked for.
fn thousand_nodes(seen: &Seen) -> (u16, String) {
    let query = seen.line.strip_prefix("GET /api/v1/nodes?limit=100").unwrap();
    let start = match query.strip_prefix("&continue=") {
        Some(token) => token.strip_prefix("a%2Fb%3D").unwrap().parse().unwrap(),
        None => 0,
    };
    let images =
        vec![json!({"names": ["registry/image@sha256:".to_owned() + &"0".repeat(64)], "sizeBytes": 1}); 100];
    let mut items = String::new();
    for number in start..start + 100 {
        let status = if number % 2 == 0 { "False" } else { "Unknown" };
        let conditions =
            json!([{"type": "Ready", "status": status, "message": "Kubelet stopped posting node status."}]);
        let conditions = if number == 999 { Value::Null } else { conditions };
        let node = json!({"metadata": {"name": format!("n{number}")}, "status": {"conditions": conditions, "images": images}});
        write!(items, "{node},").unwrap();
    }
    let metadata = if start == 900 {
        json!({"continue": ""})
    } else {
        json!({"continue": format!("a/b={}", start + 100)})
    };
    (200, format!("{{\"metadata\":{metadata},\"items\":[{}]}}", items.trim_end_matches(',')))
}

#[tokio::test]
async fn a_thousand_nodes_are_read_page_by_page() {
    let cluster = Cluster::new(thousand_nodes);
    let nodes = cluster.api().nodes().await.unwrap();
    assert_eq!(cluster.site.dialled().len(), 10, "a connection a request");
    assert_eq!(nodes.len(), 1000);
    assert!(nodes.iter().enumerate().all(|(number, node)| node.name == format!("n{number}")));
    assert_eq!(nodes[1].ready, Some(false), "a kubelet that has stopped reporting is not ready");
    assert_eq!(nodes[1].message, "Kubelet stopped posting node status.");
    assert_eq!((nodes[999].ready, nodes[999].message.as_str()), (None, ""));
}

#[tokio::test]
async fn an_answer_that_is_not_hoped_for_is_named() {
    let cluster =
        Cluster::new(|_| (403, json!({"kind": "Status", "message": "nodes is forbidden:\n no"}).to_string()));
    let error = cluster.api().nodes().await.unwrap_err().to_string();
    let asked = "`GET https://127.0.0.1:6443/api/v1/nodes`";
    assert_eq!(error, format!("{asked} was answered with HTTP 403: nodes is forbidden: no"));
    let cluster = Cluster::new(|_| (200, "[]".to_owned()));
    let error = cluster.api().nodes().await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("{asked} was answered with something else: ")), "{error}");
    let cluster = Cluster::new(|_| (503, String::new()));
    let error = cluster.api().cluster_state().await.unwrap_err().to_string();
    assert!(error.ends_with("was answered with HTTP 503: it says no more"), "{error}");
}

#[tokio::test]
async fn an_object_that_is_too_large_is_not_read() {
    let cluster = Cluster::new(|_| (200, "x".repeat((8 << 20) + 1)));
    let error = cluster.api().cluster_state().await.unwrap_err();
    let KubeError::Failed { asked, source } = error else { panic!("{error}") };
    assert_eq!(asked, format!("GET https://127.0.0.1:6443{SECRET}"));
    assert!(matches!(*source, KubeError::TooLarge { limit: 0x0080_0000 }), "{source:?}");
}

fn metadata() -> Value {
    json!({"name": "full-cluster-state", "namespace": "kube-system", "resourceVersion": "293",
        "labels": {"ours": "yes"}, "uid": "22cc532e"})
}

fn secret() -> Value {
    json!({"kind": "Secret", "apiVersion": "v1", "metadata": metadata(), "type": "Opaque",
        "data": {"full-cluster-state": STANDARD.encode(STATE), "other": "eA=="}})
}

fn config_map() -> String {
    let golden = include_str!("../../../tests/cases/golden/rke-v0.2.8/full-cluster-state.json");
    golden.to_owned()
}

/// An API server that keeps one object at a path and takes another version of it.
fn keeper(path: &'static str, object: String) -> (Cluster, Arc<Mutex<String>>) {
    let kept = Arc::new(Mutex::new(object));
    let store = Arc::clone(&kept);
    let cluster = Cluster::new(move |seen| match seen.line.split_once(' ').unwrap() {
        ("GET", asked) if asked == path => (200, store.lock().unwrap().clone()),
        ("PUT", asked) if asked == path => {
            store.lock().unwrap().clone_from(&seen.body);
            (200, seen.body.clone())
        }
        _ => not_found(),
    });
    (cluster, kept)
}

#[tokio::test]
async fn the_state_in_a_secret_is_replaced_and_the_rest_stays() {
    let (cluster, kept) = keeper(SECRET, secret().to_string());
    let mut object = cluster.api().cluster_state().await.unwrap().unwrap();
    assert_eq!(object.holder, StateHolder::Secret);
    assert_eq!(object.state.authority().unwrap().subject, "CN=kube-ca");
    assert!(object.state.replace("kube-node", OTHER, Some("a key")));
    let state = object.state.to_compact();
    cluster.api().replace_cluster_state(object).await.unwrap();

    let mut written: Value = serde_json::from_str(&kept.lock().unwrap()).unwrap();
    let data = written["data"]["full-cluster-state"].take();
    assert_eq!(STANDARD.decode(data.as_str().unwrap()).unwrap(), state.as_bytes());
    written["data"]["full-cluster-state"] = secret()["data"]["full-cluster-state"].clone();
    assert_eq!(written, secret(), "metadata with its resourceVersion, type and other data");
}

#[tokio::test]
async fn the_state_in_a_config_map_is_found_where_there_is_no_secret() {
    let (cluster, kept) = keeper(CONFIG_MAP, config_map());
    let mut object = cluster.api().cluster_state().await.unwrap().unwrap();
    assert_eq!(object.holder, StateHolder::ConfigMap);
    assert!(object.state.replace("kube-node", OTHER, Some("a key")));
    let state = object.state.to_compact();
    cluster.api().replace_cluster_state(object).await.unwrap();
    let written: Value = serde_json::from_str(&kept.lock().unwrap()).unwrap();
    assert_eq!(written["data"]["full-cluster-state"], *state);
    assert_eq!(written["metadata"]["resourceVersion"], "293");
}

#[tokio::test]
async fn a_cluster_without_a_state_has_none() {
    let cluster = Cluster::new(|_| not_found());
    assert!(cluster.api().cluster_state().await.unwrap().is_none());
    assert!(cluster.api().certificate_secret("kube-node").await.unwrap().is_none());
    // Something else than an API server answers.
    let cluster = Cluster::new(|_| (404, "404 page not found".to_owned()));
    assert!(matches!(cluster.api().cluster_state().await, Err(KubeError::Status { status: 404, .. })));
}

#[tokio::test]
async fn a_state_that_cannot_be_used_is_refused_without_being_quoted() {
    let refusal = async |object: Value| {
        let (cluster, _) = keeper(SECRET, object.to_string());
        let error = cluster.api().cluster_state().await.unwrap_err().to_string();
        error.replace(&format!("`GET https://127.0.0.1:6443{SECRET}` was answered with something else: "), "")
    };
    let mut torn = secret();
    torn["data"]["full-cluster-state"] = STANDARD.encode(&STATE[..100]).into();
    assert_eq!(refusal(torn).await, "its `full-cluster-state`: it ends in the middle, in line 6");
    let mut empty = secret();
    empty["data"] = Value::Null;
    assert_eq!(refusal(empty).await, "there is no `full-cluster-state` in its data");
    let mut unversioned = secret();
    unversioned["metadata"] = json!({});
    assert_eq!(refusal(unversioned).await, "it has no `resourceVersion`");
}

#[tokio::test]
async fn an_object_that_has_changed_meanwhile_is_a_conflict() {
    let object = secret().to_string();
    let cluster = Cluster::new(move |seen| {
        if seen.line.starts_with("GET") { (200, object.clone()) } else { (409, "{}".to_owned()) }
    });
    let read = cluster.api().cluster_state().await.unwrap().unwrap();
    let error = cluster.api().replace_cluster_state(read).await.unwrap_err();
    assert!(matches!(error, KubeError::Conflict { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "`PUT https://127.0.0.1:6443{SECRET}` came too late: the object has changed since it was read; read it again"
        )
    );
}

#[tokio::test]
async fn the_secret_of_a_certificate_is_replaced_with_its_kubeconfig() {
    const PATH: &str = "/api/v1/namespaces/kube-system/secrets/kube-admin";
    let config = include_str!("../../../tests/cases/golden/rke-v0.1.17/kube_config_cluster.yml");
    let old = include_str!("../../../tests/cases/golden/rke-v0.1.17/n1/dot-tmp/kube-admin.pem");
    let object = json!({"kind": "Secret", "metadata": {"name": KUBE_ADMIN, "resourceVersion": "7"}, "data": {
        "Certificate": STANDARD.encode(old), "Config": STANDARD.encode(config), "EnvName": "eA==",
        "Key": STANDARD.encode("(removed)")}});
    let (cluster, kept) = keeper(PATH, object.to_string());
    let mut secret = cluster.api().certificate_secret(KUBE_ADMIN).await.unwrap().unwrap();
    assert_eq!(secret.certificate(), Certificate::from_pem(old.as_bytes()));
    assert!(secret.has_key());
    assert!(secret.replace(OTHER, Some("a key")));
    assert!(!secret.replace(OTHER, Some("a key")), "the same again");
    cluster.api().replace_certificate_secret(secret).await.unwrap();

    let written: Value = serde_json::from_str(&kept.lock().unwrap()).unwrap();
    let decoded = |key: &str| {
        let data = STANDARD.decode(written["data"][key].as_str().unwrap()).unwrap();
        String::from_utf8(data).unwrap()
    };
    assert_eq!(decoded("Certificate"), OTHER);
    assert_eq!(decoded("Key"), "a key");
    assert!(decoded("Config").contains(&format!("client-certificate-data: {}\n", STANDARD.encode(OTHER))));
    assert!(decoded("Config").contains("client-key-data: \"YSBrZXk=\""));
    assert_eq!(written["metadata"], object["metadata"]);
    assert_eq!(written["data"]["EnvName"], "eA==");
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_refused() {
    let cluster = Cluster::new(|seen| panic!("it was asked for {}", seen.line));
    for name in ["", "..", "a/b", "kube-node?x", "kube node"] {
        let refused = cluster.api().certificate_secret(name).await;
        assert!(matches!(refused, Err(KubeError::ObjectName(_))), "{name}");
    }
}
