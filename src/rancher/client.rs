//! A client makes requests of one Rancher server with one token.

mod launched;

use std::time::Duration;

use reqwest::header::{ACCEPT, LOCATION, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answer::{Page, Setting, complaint, parse};
use super::cluster::ClusterBody;
use super::node::NodeBody;
use super::origin::Origin;
use super::trust::http_client;
use super::{Cluster, RancherError, RancherNode, ServerVersion, Trust};
pub use launched::{LaunchedCluster, LaunchedMachine};

use crate::inventory::Secret;
use crate::pki::Service;

/// How much of an answer is read, in bytes. A cluster with its history of events stays below a megabyte; more is no Rancher.
const BODY_LIMIT: usize = 32 * 1024 * 1024;

/// How many pages of a list are read. Rancher gives 1000 objects a page.
const PAGE_LIMIT: usize = 100;

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address of the server (`--rancher-url`); only scheme, host and port count.
    pub url: String,
    /// The token, `token-abcde:...`.
    pub token: Secret,
    /// What the server's certificate must be signed by.
    pub trust: Trust,
    /// How long one request may take.
    pub timeout: Duration,
}

/// Asks one Rancher server, with one token.
#[derive(Debug, Clone)]
pub struct Client {
    origin: Origin,
    token: Secret,
    http: reqwest::Client,
}

impl Client {
    /// Makes a client; with [`Trust::Checksum`] it asks the server for its certificate authority.
    pub async fn new(settings: Settings) -> Result<Self, RancherError> {
        let origin = Origin::parse(&settings.url)?;
        let token = settings.token.expose().trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(RancherError::Token);
        }
        let http = http_client(&origin, &settings.trust, settings.timeout).await?;
        Ok(Self { origin, token: Secret::new(token.to_owned()), http })
    }

    /// Returns the address of the server without a path, for people.
    pub fn address(&self) -> String {
        self.origin.to_string()
    }

    /// Asks whether the server lives; the token is not sent.
    pub async fn ping(&self) -> Result<(), RancherError> {
        let answer = exchange(&self.origin, self.http.get(self.origin.at(&["ping"]))).await?;
        if answer.trim() == "pong" {
            Ok(())
        } else {
            Err(RancherError::malformed("the answer to `/ping`", "it is not `pong`"))
        }
    }

    /// Makes sure that the server's certificate is trusted, before anything is sent to it; the token is not.
    ///
    /// Errors are those of its certificate alone: what else is wrong with the server is told by who asks it something.
    pub async fn handshake(&self) -> Result<(), RancherError> {
        match self.ping().await {
            Err(
                error @ (RancherError::UnknownAuthority { .. }
                | RancherError::Expired { .. }
                | RancherError::Untrusted { .. }),
            ) => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns the version of the server.
    pub async fn server_version(&self) -> Result<ServerVersion, RancherError> {
        let request = self.http.get(self.origin.at(&["v3", "settings", "server-version"]));
        let setting = read_setting("server-version", &self.authorized(request).await?)?;
        Ok(ServerVersion::new(setting.into_value()))
    }

    /// Returns the cluster of an id.
    pub async fn cluster(&self, id: &str) -> Result<Cluster, RancherError> {
        Cluster::parse(&self.authorized(self.http.get(self.origin.at(&["v3", "clusters", id]))).await?)
    }

    /// Returns the cluster of an id (`c-x7k2p`, `local`) or of a display name.
    pub async fn find_cluster(&self, name_or_id: &str) -> Result<Cluster, RancherError> {
        if name_or_id.starts_with("c-") || name_or_id == "local" {
            match self.cluster(name_or_id).await {
                // Rancher forbids to look at an id that does not exist, for some users; it may still be a name.
                Err(RancherError::NotFound(_) | RancherError::Forbidden(_)) => {}
                found => return found,
            }
        }
        let mut named = self.clusters(self.origin.filtered("clusters", "name", name_or_id)).await?;
        named.retain(|cluster| cluster.name == name_or_id);
        let wanted = name_or_id.to_owned();
        match (named.pop(), named.is_empty()) {
            (Some(cluster), true) => Ok(cluster),
            (Some(last), false) => {
                named.push(last);
                Err(RancherError::AmbiguousCluster { wanted, candidates: labels(&named) })
            }
            (None, _) => {
                let every = self.clusters(self.origin.at(&["v3", "clusters"])).await?;
                Err(RancherError::NoCluster { wanted, candidates: labels(&every) })
            }
        }
    }

    /// Returns the nodes of a cluster.
    pub async fn nodes(&self, cluster_id: &str) -> Result<Vec<RancherNode>, RancherError> {
        let first = self.origin.filtered("nodes", "clusterId", cluster_id);
        let bodies = self.list::<NodeBody>("the list of nodes", first).await?;
        Ok(bodies.into_iter().map(RancherNode::from).collect())
    }

    /// Asks the server to rotate the certificates of a cluster: of one service, or of all.
    ///
    /// The answer says only that the wish was noted; [`super::rotation_state`] says how far it is. After a transient error the
    /// wish may have been noted all the same: [`Cluster::rotation_flag`] tells.
    pub async fn rotate_certificates(
        &self,
        cluster: &Cluster,
        service: Option<Service>,
    ) -> Result<(), RancherError> {
        let Some(link) = &cluster.rotate_link else {
            let version = self.server_version().await.ok();
            let reason = cluster.why_no_rotation(version.as_ref());
            return Err(RancherError::NoRotation { cluster: cluster.label(), reason });
        };
        if let Some(service) = service {
            let version = self.server_version().await?;
            if version.can_choose_service() == Some(false) {
                return Err(RancherError::AllServicesOnly { version: version.to_string(), service });
            }
        }
        let request = self.http.post(self.origin.rebase(link)?).json(&rotation_input(service));
        self.authorized(request).await.map(drop)
    }

    async fn clusters(&self, first: Url) -> Result<Vec<Cluster>, RancherError> {
        let bodies = self.list::<ClusterBody>("the list of clusters", first).await?;
        Ok(bodies.into_iter().map(Cluster::from).collect())
    }

    async fn list<T: DeserializeOwned>(&self, what: &str, first: Url) -> Result<Vec<T>, RancherError> {
        let mut all = Vec::new();
        let mut url = first;
        for _ in 0..PAGE_LIMIT {
            let page: Page<T> = parse(what, &self.authorized(self.http.get(url)).await?)?;
            let next = page.next().map(|link| self.origin.rebase(link)).transpose()?;
            all.extend(page.data);
            match next {
                Some(next) => url = next,
                None => return Ok(all),
            }
        }
        Err(RancherError::malformed(what, format!("it does not end after {PAGE_LIMIT} pages")))
    }

    /// Sends a request with the token; its address was made from the origin.
    async fn authorized(&self, request: RequestBuilder) -> Result<String, RancherError> {
        exchange(&self.origin, request.bearer_auth(self.token.expose())).await
    }
}

/// Returns the body of a rotation request.
///
/// The schema's `services` is one text, in spite of its name: a list is refused with HTTP 400, and so is an empty body. Rancher
/// takes any name; ours come from a closed enum.
fn rotation_input(service: Option<Service>) -> Value {
    match service {
        Some(service) => json!({ "services": service.as_str() }),
        None => json!({ "caCertificates": false, "services": "" }),
    }
}

fn labels(clusters: &[Cluster]) -> Vec<String> {
    clusters.iter().map(Cluster::label).collect()
}

/// Reads the body of a setting.
pub(super) fn read_setting(name: &str, body: &str) -> Result<Setting, RancherError> {
    parse(&format!("the setting `{name}`"), body)
}

/// Sends a request and returns the body of the answer; a status that is not a success becomes an error.
pub(super) async fn exchange(origin: &Origin, request: RequestBuilder) -> Result<String, RancherError> {
    let unanswered = |error| RancherError::unanswered(&origin.to_string(), error);
    let response = request.header(ACCEPT, "application/json").send().await.map_err(unanswered)?;
    let status = response.status();
    if status.is_redirection() {
        return Err(RancherError::Redirected(destination(&response)));
    }
    let retry_after = retry_after(&response);
    let body = read_body(response).await.map_err(unanswered)?;
    let body = body.ok_or_else(|| RancherError::malformed("an answer", "it is longer than 32 MiB"))?;
    if status.is_success() {
        return Ok(body);
    }
    Err(RancherError::refused(status.as_u16(), complaint(&body), retry_after))
}

/// Returns how long the server does not want to be asked again; a date instead of seconds is not read.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Returns where a redirect leads, without its query.
fn destination(response: &Response) -> String {
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    match location.and_then(|location| response.url().join(location).ok()) {
        Some(mut url) => {
            url.set_query(None);
            url.to_string()
        }
        None => "nowhere".to_owned(),
    }
}

/// Returns a body, or nothing where it is longer than any that Rancher gives.
async fn read_body(mut response: Response) -> Result<Option<String>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > BODY_LIMIT {
            return Ok(None);
        }
    }
    Ok(Some(String::from_utf8_lossy(&body).into_owned()))
}
