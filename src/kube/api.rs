//! The API server of a control plane node is asked on the node itself, and verified against the cluster's CA.

use std::time::Duration;

use hyper::Method;
use zeroize::Zeroizing;

use super::KubeError;
use super::health::{Health, health};
use super::http::{Excess, PAGE_LIMIT, Reply};
use super::identity::{Identity, Server};
use super::node::{NodeList, NodeStatus};
use super::object::{CertificateSecret, ClusterStateObject, StateHolder};
use super::request::{Dial, Question, Target, ask, unexpected};
use crate::pki::Service;
use crate::transport::Session;

/// The time that a request may take, in all. The largest answers are some MiB over two hops of SSH.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The time that a health page may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// How many nodes are asked for at a time: with the names of their images they take some 30 KiB each.
const NODES_A_PAGE: usize = 100;

/// The most pages that a list may have; a server that goes on for ever is given up.
const MAX_PAGES: usize = 1000;

/// The largest list that is read, in bytes: Kubernetes before 1.9 knows no pages and sends all nodes at once.
const LIST_LIMIT: usize = 64 << 20;

/// The largest object that is read, in bytes: etcd takes 1.5 MiB, and JSON escapes at most double that.
const OBJECT_LIMIT: usize = 8 << 20;

/// The API server of one node, asked at the node's own 127.0.0.1:6443 over a new connection a request.
#[derive(Debug, Clone, Copy)]
pub struct ApiServer<'a, D = Session> {
    session: &'a D,
    identity: &'a Identity,
}

impl<'a, D: Dial> ApiServer<'a, D> {
    /// Names the node by its session, and who asks.
    pub fn new(session: &'a D, identity: &'a Identity) -> Self {
        Self { session, identity }
    }

    /// Returns what the API server says of itself; [`Health::Answers`] means that it does not know whoever asks.
    pub async fn healthz(&self) -> Result<Health, KubeError> {
        let question = Question::get("/healthz", Excess::Cut(PAGE_LIMIT));
        let reply = ask(self.session, self.identity, target(HEALTH_TIMEOUT), question).await?;
        Ok(health(Service::KubeApiserver, &reply.into_answer()))
    }

    /// Returns all nodes of the cluster.
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>, KubeError> {
        let mut nodes = Vec::new();
        let mut next = None;
        for _ in 0..MAX_PAGES {
            let page = self.node_page(next.as_deref()).await?;
            next = page.next();
            nodes.extend(page.into_nodes());
            if next.is_none() {
                return Ok(nodes);
            }
        }
        let asked = Question::get("/api/v1/nodes", Excess::Refuse(LIST_LIMIT)).asked(&target(TIMEOUT));
        Err(KubeError::Malformed { asked, reason: format!("the list has more than {MAX_PAGES} pages") })
    }

    async fn node_page(&self, next: Option<&str>) -> Result<NodeList, KubeError> {
        let token = next.map(|token| format!("&continue={}", percent_encoded(token))).unwrap_or_default();
        let path = format!("/api/v1/nodes?limit={NODES_A_PAGE}{token}");
        let question = Question::get(&path, Excess::Refuse(LIST_LIMIT));
        let asked = question.asked(&target(TIMEOUT));
        let reply = ask(self.session, self.identity, target(TIMEOUT), question).await?;
        if reply.status != 200 {
            return Err(unexpected(asked, &reply));
        }
        serde_json::from_slice(&reply.body)
            .map_err(|error| KubeError::Malformed { asked, reason: error.to_string() })
    }

    /// Returns the state that rke keeps in the cluster; `None` where there is none.
    ///
    /// Where both objects are there, the Secret counts, as it does for the rke that made it.
    pub async fn cluster_state(&self) -> Result<Option<ClusterStateObject>, KubeError> {
        for holder in [StateHolder::Secret, StateHolder::ConfigMap] {
            let found = self.object(&holder.path(), |body| ClusterStateObject::read(holder, body)).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Writes the state back; [`KubeError::Conflict`] where the object has changed since it was read.
    pub async fn replace_cluster_state(&self, object: ClusterStateObject) -> Result<(), KubeError> {
        self.put(&object.holder.path(), object.into_body()).await
    }

    /// Returns the Secret in which rke v0.1.x keeps a certificate; `None` where there is none.
    pub async fn certificate_secret(&self, name: &str) -> Result<Option<CertificateSecret>, KubeError> {
        self.object(&secret_path(name)?, |body| CertificateSecret::read(name, body)).await
    }

    /// Writes the Secret of a certificate back; [`KubeError::Conflict`] where it has changed since it was read.
    pub async fn replace_certificate_secret(&self, secret: CertificateSecret) -> Result<(), KubeError> {
        self.put(&secret_path(secret.name())?, secret.into_body()).await
    }

    /// Reads an object; `None` where there is none.
    async fn object<T>(
        &self,
        path: &str,
        read: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<Option<T>, KubeError> {
        let question = Question::get(path, Excess::Refuse(OBJECT_LIMIT));
        let asked = question.asked(&target(TIMEOUT));
        let reply = ask(self.session, self.identity, target(TIMEOUT), question).await?;
        match reply.status {
            200 => read(&reply.body).map(Some).map_err(|reason| KubeError::Malformed { asked, reason }),
            404 if is_of_the_api(&reply) => Ok(None),
            _ => Err(unexpected(asked, &reply)),
        }
    }

    async fn put(&self, path: &str, body: Zeroizing<Vec<u8>>) -> Result<(), KubeError> {
        let question = Question { method: Method::PUT, path, body, excess: Excess::Refuse(OBJECT_LIMIT) };
        let asked = question.asked(&target(TIMEOUT));
        let reply = ask(self.session, self.identity, target(TIMEOUT), question).await?;
        match reply.status {
            200 => Ok(()),
            409 => Err(KubeError::Conflict { asked }),
            _ => Err(unexpected(asked, &reply)),
        }
    }
}

fn target(timeout: Duration) -> Target<'static> {
    Target { host: "127.0.0.1", port: 6443, server: Server::Verified, timeout }
}

/// Returns whether an answer is a Status object: a bare "404 page not found" says nothing of an object.
fn is_of_the_api(reply: &Reply) -> bool {
    serde_json::from_slice::<serde_json::Value>(&reply.body)
        .is_ok_and(|status| status.get("kind").is_some_and(|kind| kind == "Status"))
}

fn secret_path(name: &str) -> Result<String, KubeError> {
    let is_name =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-.".contains(letter);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_name) {
        return Err(KubeError::ObjectName(name.to_owned()));
    }
    Ok(format!("/api/v1/namespaces/kube-system/secrets/{name}"))
}

/// Returns a text as it stands in the query of a URL.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
