//! Rancher's API over HTTPS: the requests that a rotation makes, with the answers of Rancher v2.2.8, odd ones included.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::views::{Collection, View};
use super::{CLUSTER_ID, RancherFailure, Rotation};
use crate::inventory::Inventory;
use crate::sim::SimError;
use crate::sim::authority::{self, Pair, Subject, Usage};
use crate::sim::container::digest;

/// The simulated Rancher, while it listens.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    ca: String,
    token: String,
}

impl Server {
    /// Returns its URL.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Returns its authority, as PEM.
    pub(crate) fn ca(&self) -> &str {
        &self.ca
    }

    /// Returns the token that it takes.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }
}

/// Starts the API and the provisioner; both end with their tasks.
pub(crate) async fn serve(
    rotation: Arc<Rotation>,
    inventory: &Inventory,
    authority: &Pair,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Result<Server, SimError> {
    let failed = |source| SimError::Listen { address: "127.0.0.1:0".to_owned(), source };
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let acceptor = TlsAcceptor::from(Arc::new(tls(authority)?));
    let secret: String = digest(&authority.key).chars().take(54).collect();
    let token = format!("token-sim01:{secret}");
    let server = Server { address, ca: authority.certificate.clone(), token: token.clone() };
    let view = View::new(server.url(), inventory, authority.certificate.clone());
    let api =
        Arc::new(Api { rotation: Arc::clone(&rotation), view, token, was_called: AtomicBool::new(false) });
    tasks.push(tokio::spawn(rotation.provision()));
    tasks.push(tokio::spawn(accept(listener, acceptor, api)));
    Ok(server)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, api: Arc<Api>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let (acceptor, api) = (acceptor.clone(), Arc::clone(&api));
                connections.spawn(async move {
                    // A client that does not trust the certificate breaks off; that is its right.
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let answer = service_fn(|request| {
                        let api = Arc::clone(&api);
                        async move { api.converse(request).await }
                    });
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Makes the authority of the simulated Rancher, as its dynamiclistener does; it is valid at any time that a client may think it is.
pub(crate) fn make_authority() -> Result<Pair, SimError> {
    authority::make_authority("cattle-ca", authority::make_elliptic_key()?, lifetime())
}

fn lifetime() -> authority::Validity {
    let at = |seconds| jiff::Timestamp::from_second(seconds).unwrap_or_default();
    authority::Validity { not_before: at(1_577_836_800), not_after: at(2_493_072_000) }
}

fn tls(authority: &Pair) -> Result<ServerConfig, SimError> {
    let subject = Subject {
        common_name: "cattle".to_owned(),
        organization: None,
        usage: Usage::Server,
        names: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
    };
    let leaf = authority::make_leaf(authority, &subject, authority::make_elliptic_key()?, lifetime())?;
    let unreadable = |_| SimError::Internal("a certificate that was just made cannot be read");
    let mut chain = vec![CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).map_err(unreadable)?];
    chain.push(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).map_err(unreadable)?);
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).map_err(unreadable)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_no_client_auth().with_single_cert(chain, key)?)
}

#[derive(Debug)]
struct Api {
    rotation: Arc<Rotation>,
    view: View,
    token: String,
    /// Whether an action has been called.
    was_called: AtomicBool,
}

type Answer = Response<Full<Bytes>>;

fn respond(status: StatusCode, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn found(value: &Value) -> Answer {
    respond(StatusCode::OK, format!("{value}\n"))
}

fn not_found(kind: &str, name: &str) -> Answer {
    let message = format!("{kind}.management.cattle.io \"{name}\" not found");
    let body = json!({ "baseType": "error", "code": "NotFound", "message": message, "status": 404, "type": "error" });
    respond(StatusCode::NOT_FOUND, format!("{body}\n"))
}

impl Api {
    fn is_authorized(&self, request: &Request<Incoming>) -> bool {
        let header =
            request.headers().get(AUTHORIZATION).and_then(|header| header.to_str().ok()).unwrap_or_default();
        let expected = STANDARD.encode(&self.token);
        header.strip_prefix("Bearer ") == Some(&self.token)
            || header.strip_prefix("Basic ") == Some(&expected)
    }

    /// Answers a request, unless what goes wrong cuts its connection.
    async fn converse(&self, request: Request<Incoming>) -> std::io::Result<Answer> {
        let is_first_call = request.method() == Method::POST && !self.was_called.swap(true, Ordering::SeqCst);
        let failure = self.rotation.options().failure.filter(|_| is_first_call);
        let cut = || std::io::Error::other("the connection is cut");
        match failure {
            Some(RancherFailure::CallLost) => Err(cut()),
            Some(RancherFailure::AnswerLost) => {
                self.answer(request).await;
                Err(cut())
            }
            Some(RancherFailure::AnswerHalved) => {
                let (parts, body) = self.answer(request).await.into_parts();
                let mut bytes =
                    body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                bytes.truncate(bytes.len() / 2);
                Ok(Response::from_parts(parts, Full::new(bytes)))
            }
            Some(RancherFailure::EndlessRetry | RancherFailure::NeverBegins) | None => {
                Ok(self.answer(request).await)
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        match path.as_str() {
            "/ping" => return respond(StatusCode::OK, "pong".to_owned()),
            "/v3/settings/cacerts" => return found(&self.view.setting("cacerts", self.view.ca())),
            _ => {}
        }
        if !self.is_authorized(&request) {
            // The status is a string in this one answer.
            let body = json!({ "type": "error", "status": "401", "message": "must authenticate" });
            return respond(StatusCode::UNAUTHORIZED, format!("{body}\n"));
        }
        let is_post = request.method() == Method::POST;
        match (path.as_str(), is_post) {
            ("/v3/settings/server-version", false) => {
                found(&self.view.setting("server-version", &self.rotation.options().version))
            }
            ("/v3/settings/server-url", false) => found(&self.view.setting("server-url", self.view.url())),
            ("/v3/clusters", false) => {
                let cluster = self.view.cluster(&self.rotation);
                let wanted = query
                    .value("name")
                    .is_none_or(|name| cluster.get("name").and_then(Value::as_str) == Some(name));
                self.collection(
                    "cluster",
                    "clusters",
                    if wanted { vec![cluster] } else { Vec::new() },
                    &query,
                )
            }
            ("/v3/nodes", false) => {
                let wanted = query.value("clusterId").is_none_or(|cluster| cluster == CLUSTER_ID);
                let nodes = if wanted { self.view.nodes(&self.rotation) } else { Vec::new() };
                self.collection("node", "nodes", nodes, &query)
            }
            (path, is_post) => match path.strip_prefix("/v3/clusters/") {
                Some(CLUSTER_ID) if is_post => self.act(request, query.value("action")).await,
                Some(CLUSTER_ID) => found(&self.view.cluster(&self.rotation)),
                Some(other) => not_found("clusters", other),
                None => not_found("resources", path),
            },
        }
    }

    fn collection(&self, kind: &str, plural: &str, items: Vec<Value>, query: &Query) -> Answer {
        let number = |name| query.value(name).and_then(|text| text.parse::<usize>().ok());
        let collection = Collection {
            kind,
            plural,
            limit: number("limit").unwrap_or(1000),
            marker: number("marker").unwrap_or(0),
        };
        found(&self.view.collection(&collection, items))
    }

    async fn act(&self, request: Request<Incoming>, action: Option<&str>) -> Answer {
        if action != Some("rotateCertificates") {
            return not_found("actions", action.unwrap_or_default());
        }
        let body =
            request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let input = match rotation_input(&body) {
            Ok(input) => input,
            Err(message) => return refused(&message),
        };
        let (services, with_authorities) = input;
        let message = match (with_authorities, services.as_str()) {
            (true, _) => "rotating CA certificates and all components".to_owned(),
            (false, "") => "rotating certificates for all components".to_owned(),
            (false, service) => format!("rotating {service} certificates"),
        };
        self.rotation.ask(services, with_authorities);
        found(
            &json!({ "baseType": "rotateCertificateOutput", "message": message, "type": "rotateCertificateOutput" }),
        )
    }
}

/// Reads the body as `json.Unmarshal` into `RotateCertificateInput` does.
fn rotation_input(body: &[u8]) -> Result<(String, bool), String> {
    if body.is_empty() {
        return Err("unexpected end of JSON input".to_owned());
    }
    let input: Value =
        serde_json::from_slice(body).map_err(|_| "invalid character in JSON input".to_owned())?;
    let mismatch = |kind: &str, field: &str, wanted: &str| {
        format!(
            "json: cannot unmarshal {kind} into Go struct field RotateCertificateInput.{field} of type {wanted}"
        )
    };
    let services = match input.get("services") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(services)) => services.clone(),
        Some(Value::Array(_)) => return Err(mismatch("array", "services", "string")),
        Some(_) => return Err(mismatch("value", "services", "string")),
    };
    let with_authorities = match input.get("caCertificates") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(value)) => *value,
        Some(_) => return Err(mismatch("value", "caCertificates", "bool")),
    };
    Ok((services, with_authorities))
}

/// The real answer: two JSON documents in one body, the second with a status of its own.
fn refused(cause: &str) -> Answer {
    let first = json!({
        "baseType": "rotateCertificateOutput", "message": "failed to parse request content", "type": "rotateCertificateOutput",
    });
    let message = format!("unmarshaling input error: {cause}");
    let second = json!({ "baseType": "error", "code": "ServerError", "message": message, "status": 500, "type": "error" });
    respond(StatusCode::BAD_REQUEST, format!("{first}\n{second}\n"))
}

/// The parameters of a request.
#[derive(Debug)]
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(name, value)| (decode(name), decode(value))).collect())
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped =
            after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = after.get(2..).unwrap_or_default();
        } else {
            bytes.push(if *first == b'+' { b' ' } else { *first });
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
