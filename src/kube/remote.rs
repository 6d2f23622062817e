//! A remote API server is one that is asked where a kubeconfig says it is, from this machine and not from a node.
//!
//! `import kubeconfig` reads nodes and rke's state from it. Redirects are refused, and nothing is sent in clear text to another machine.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Url};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::object::StateHolder;
use super::request::message_of;
use crate::inventory::Role;
use crate::pki::{SavedState, SavedStateError};

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How many nodes are asked for at a time.
const NODES_A_PAGE: usize = 100;

/// The most pages that a list may have; a server that goes on for ever is given up.
const MAX_PAGES: usize = 1000;

/// The largest answer that is read, in bytes.
const BODY_LIMIT: usize = 64 << 20;

/// Why a remote API server did not say what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It cannot be asked with this address, certificate or token.
    #[error("the API server cannot be asked: {0}")]
    Unusable(String),
    /// It gave no answer.
    #[error("`{asked}` was not answered: {cause}")]
    Unanswered {
        /// Method and URL.
        asked: String,
        /// What the connection failed on.
        cause: String,
    },
    /// It answered with something else than success.
    #[error("`{asked}` was answered with HTTP {status}: {message}")]
    Status {
        /// Method and URL.
        asked: String,
        /// The status code.
        status: u16,
        /// What the answer says.
        message: String,
    },
    /// The answer is not what was asked for.
    #[error("`{asked}` was answered with something else: {reason}")]
    Malformed {
        /// Method and URL.
        asked: String,
        /// What is wrong with it, without quoting it.
        reason: String,
    },
}

impl RemoteError {
    /// Returns the way out.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Status { status: 401 | 403, .. } => {
                "use a kubeconfig that may list nodes; expired certificates and tokens are refused like this, too"
            }
            Self::Unanswered { .. } => {
                "does `kubectl --kubeconfig FILE get nodes` work from here? Where every certificate has expired, `certroll import rkestate` or `certroll import rancher` need no API"
            }
            Self::Unusable(_) | Self::Status { .. } | Self::Malformed { .. } => {
                "name a kubeconfig that `kubectl --kubeconfig FILE get nodes` works with"
            }
        }
    }
}

/// Who asks a remote API server.
pub enum RemoteIdentity {
    /// Somebody with a certificate and its key, PEM one after the other.
    Certificate(Zeroizing<Vec<u8>>),
    /// Somebody with a token.
    Token(Zeroizing<String>),
}

/// A node as the API server knows it, as far as it tells how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteNode {
    /// Its name; RKE's `hostname_override`.
    pub name: String,
    /// The roles of RKE's labels, in the order of [`Role::ALL`].
    pub roles: Vec<Role>,
    /// The address that RKE notes as the external one, else the one that kubelet reports.
    pub address: Option<String>,
    /// The address among nodes.
    pub internal_address: Option<String>,
    /// The version of its kubelet.
    pub kubelet_version: Option<String>,
}

/// An API server that is asked directly.
pub struct Remote {
    http: reqwest::Client,
    base: Url,
    token: Option<Zeroizing<String>>,
}

impl Remote {
    /// Names the server, the CA that must have signed its certificate (PEM; else the system's), and who asks.
    pub fn new(
        server: &str,
        authority: Option<&[u8]>,
        identity: RemoteIdentity,
    ) -> Result<Self, RemoteError> {
        let unusable = |cause: &dyn std::fmt::Display| RemoteError::Unusable(cause.to_string());
        // Not quoted: a user and a password may be in what cannot be read, too.
        let base =
            Url::parse(server).map_err(|error| unusable(&format!("its address is no URL: {error}")))?;
        if !base.username().is_empty() || base.password().is_some() {
            return Err(unusable(&"its address holds a user or a password, where everybody could read it"));
        }
        let is_loopback = is_loopback(&base);
        match base.scheme() {
            "https" => {}
            "http" if is_loopback => {}
            _ => return Err(unusable(&format!("`{server}` is not https"))),
        }
        let mut builder = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(Policy::none())
            .user_agent(concat!("certroll/", env!("CARGO_PKG_VERSION")));
        if is_loopback {
            builder = builder.no_proxy();
        }
        if let Some(pem) = authority {
            let authorities = Certificate::from_pem_bundle(pem).map_err(|error| unusable(&error))?;
            if authorities.is_empty() {
                return Err(unusable(&"the CA in the kubeconfig is no PEM certificate"));
            }
            builder = builder.tls_certs_only(authorities);
        }
        let token = match identity {
            RemoteIdentity::Certificate(pem) => {
                let identity = reqwest::Identity::from_pem(&pem)
                    .map_err(|_| unusable(&"its client certificate and key are not PEM of one pair"))?;
                builder = builder.identity(identity);
                None
            }
            RemoteIdentity::Token(token) => Some(token),
        };
        Ok(Self { http: builder.build().map_err(|error| unusable(&causes(&error)))?, base, token })
    }

    /// Returns all nodes of the cluster.
    pub async fn nodes(&self) -> Result<Vec<RemoteNode>, RemoteError> {
        let mut nodes = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut url = self.at("/api/v1/nodes");
            url.query_pairs_mut().append_pair("limit", &NODES_A_PAGE.to_string());
            if let Some(token) = &next {
                url.query_pairs_mut().append_pair("continue", token);
            }
            let asked = asked(&url);
            let body = self.get(url).await?;
            let page: List = serde_json::from_slice(&body)
                .map_err(|error| RemoteError::Malformed { asked, reason: error.to_string() })?;
            nodes.extend(page.items.into_iter().flatten().map(RemoteNode::from));
            next = page.metadata.and_then(|metadata| metadata.next).filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(nodes);
            }
        }
        let asked = asked(&self.at("/api/v1/nodes"));
        Err(RemoteError::Malformed { asked, reason: format!("the list has more than {MAX_PAGES} pages") })
    }

    /// Returns the state that rke keeps in the cluster; `None` where there is none.
    pub async fn cluster_state(&self) -> Result<Option<SavedState>, RemoteError> {
        for holder in [StateHolder::Secret, StateHolder::ConfigMap] {
            let url = self.at(&holder.path());
            let asked = asked(&url);
            match self.get(url).await {
                Ok(body) => {
                    let malformed =
                        |error: SavedStateError| RemoteError::Malformed { asked, reason: error.to_string() };
                    return SavedState::parse(&body).map(Some).map_err(malformed);
                }
                Err(RemoteError::Status { status: 404, .. }) => {}
                // Who may not read Secrets may be allowed to read ConfigMaps.
                Err(RemoteError::Status { status: 403, .. }) if holder == StateHolder::Secret => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Returns the address of a path; a server behind Rancher has a path of its own before it.
    fn at(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let whole = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&whole);
        url
    }

    async fn get(&self, url: Url) -> Result<Zeroizing<Vec<u8>>, RemoteError> {
        let asked = asked(&url);
        let unanswered =
            |error: reqwest::Error| RemoteError::Unanswered { asked: asked.clone(), cause: causes(&error) };
        let mut request = self.http.get(url).header(reqwest::header::ACCEPT, "application/json");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.as_str());
        }
        let mut response = request.send().await.map_err(unanswered)?;
        let status = response.status();
        let expected = response.content_length().and_then(|length| usize::try_from(length).ok());
        let mut body = Zeroizing::new(Vec::with_capacity(expected.unwrap_or_default().min(BODY_LIMIT)));
        while let Some(chunk) = response.chunk().await.map_err(unanswered)? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(RemoteError::Malformed { asked, reason: "it is larger than 64 MiB".to_owned() });
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            Ok(body)
        } else {
            Err(RemoteError::Status { asked, status: status.as_u16(), message: message_of(&body) })
        }
    }
}

/// Returns method and URL as errors name them; what follows `?` tells nothing.
fn asked(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    format!("GET {url}")
}

/// Returns an error with what it comes from, in one line and without the URL.
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    if text.is_empty() { "the connection failed".to_owned() } else { text }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[derive(Deserialize)]
struct List {
    metadata: Option<ListMetadata>,
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct ListMetadata {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
    status: Option<Status>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Status {
    addresses: Option<Vec<Address>>,
    node_info: Option<NodeInfo>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeInfo {
    kubelet_version: Option<String>,
}

impl From<Item> for RemoteNode {
    fn from(item: Item) -> Self {
        let Metadata { name, labels, annotations } = item.metadata;
        let (labels, annotations) = (labels.unwrap_or_default(), annotations.unwrap_or_default());
        let status = item.status.unwrap_or_default();
        let addresses = status.addresses.unwrap_or_default();
        let of_kind = |kind: &str| {
            addresses.iter().find(|address| address.kind == kind).map(|address| address.address.clone())
        };
        // RKE `k8s/node.go`: what its cluster.yml says of the node.
        let noted = |which: &str| {
            annotations
                .get(&format!("rke.cattle.io/{which}-ip"))
                .filter(|address| !address.is_empty())
                .cloned()
        };
        let holds = |role: &Role| {
            labels.get(&format!("node-role.kubernetes.io/{role}")).is_some_and(|value| value == "true")
        };
        let address = noted("external").or_else(|| of_kind("ExternalIP")).or_else(|| of_kind("InternalIP"));
        Self {
            roles: Role::ALL.into_iter().filter(holds).collect(),
            internal_address: noted("internal")
                .or_else(|| of_kind("InternalIP"))
                .filter(|internal| Some(internal) != address.as_ref()),
            address,
            kubelet_version: status.node_info.and_then(|info| info.kubelet_version),
            name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_nodes_are_read() {
        let text = include_str!("../../tests/cases/golden/rke-v0.2.8/api-nodes.json");
        let list: List = serde_json::from_str(text).unwrap();
        let nodes: Vec<RemoteNode> = list.items.unwrap().into_iter().map(RemoteNode::from).collect();
        assert_eq!(nodes.len(), 5);
        assert_eq!(nodes[0].name, "n1");
        assert_eq!(nodes[0].address.as_deref(), Some("10.77.0.11"));
        assert_eq!(nodes[0].internal_address, None);
        assert_eq!(nodes[0].roles, [Role::ControlPlane, Role::Etcd]);
        assert_eq!(nodes[4].roles, [Role::Worker]);
    }

    #[test]
    fn a_server_behind_rancher_keeps_its_path_and_none_is_asked_in_clear_text() {
        let token = || RemoteIdentity::Token(Zeroizing::new("secret".to_owned()));
        let remote = Remote::new("http://127.0.0.1:1/k8s/clusters/c-1/", None, token()).unwrap();
        assert_eq!(remote.at("/api/v1/nodes").path(), "/k8s/clusters/c-1/api/v1/nodes");
        for server in [
            "http://10.0.0.1:6443",
            "ftp://x",
            "10.0.0.1",
            "https://me:secret@10.0.0.1:6443",
            "http://:secret@127.0.0.1",
            "https://me:secret@10.0.0.1:99999",
        ] {
            let error = Remote::new(server, None, token()).err().unwrap().to_string();
            assert!(!error.contains("secret") && error.contains("cannot be asked"), "{error}");
        }
    }
}
