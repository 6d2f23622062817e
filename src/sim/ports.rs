//! The ports of a simulated node: what its components serve over TLS and HTTP, reached through its sshd.
//!
//! A component serves the certificate that lay on disk when it started; etcd reads its own at every handshake.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::api::{self, Asked};
use super::authority::{self, Identity};
use super::clock::lock;
use super::container::Component;
use super::machine::{SimNode, World};
use super::tls::{Clients, Server};

/// The largest request that kube-apiserver takes, in bytes (`MaxRequestBodyBytes`).
const LARGEST_BODY: usize = 3 * 1024 * 1024;

/// A connection that a component has accepted.
pub(crate) struct Port {
    world: Arc<World>,
    node: Arc<SimNode>,
    component: Component,
    protocol: Protocol,
    tls: Option<ServerConfig>,
}

/// Whether a port speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tls,
    Plain,
}

/// Returns the component behind a port; `None` where the connection is refused.
pub(crate) fn connect(world: &Arc<World>, from: &Arc<SimNode>, host: &str, port: u16) -> Option<Port> {
    world.settle();
    let local = matches!(host, "127.0.0.1" | "localhost" | "::1")
        || host == from.internal_address
        || host == from.address;
    let node = if local {
        Arc::clone(from)
    } else {
        Arc::clone(world.nodes.iter().find(|node| node.internal_address == host || node.address == host)?)
    };
    let (component, protocol) = match port {
        6443 if lock(&node.machine).container("kube-apiserver").is_some() => {
            (Component::ApiServer, Protocol::Tls)
        }
        6443 => return through_proxy(world, &node),
        2379 | 2380 => (Component::Etcd, Protocol::Tls),
        10250 => (Component::Kubelet, Protocol::Tls),
        10248 => (Component::Kubelet, Protocol::Plain),
        10256 => (Component::Proxy, Protocol::Plain),
        10251 => (Component::Scheduler, Protocol::Plain),
        10252 => (Component::ControllerManager, Protocol::Plain),
        10259 => (Component::Scheduler, Protocol::Tls),
        10257 => (Component::ControllerManager, Protocol::Tls),
        _ => return None,
    };
    open(world, &node, component, protocol)
}

/// nginx-proxy on the other nodes leads to the first control plane node that listens.
fn through_proxy(world: &Arc<World>, node: &SimNode) -> Option<Port> {
    if !world.is_up(node, Component::NginxProxy) {
        return None;
    }
    let mut ends = world.with_role(crate::inventory::Role::ControlPlane);
    ends.find_map(|node| open(world, node, Component::ApiServer, Protocol::Tls))
}

fn open(world: &Arc<World>, node: &Arc<SimNode>, component: Component, protocol: Protocol) -> Option<Port> {
    if !world.is_up(node, component) {
        return None;
    }
    let tls = match protocol {
        Protocol::Tls => Some(configuration(world, node, component)?),
        Protocol::Plain => None,
    };
    Some(Port { world: Arc::clone(world), node: Arc::clone(node), component, protocol, tls })
}

/// Returns a file that a component read when it started.
fn held(node: &SimNode, component: Component, name: &str) -> Option<Vec<u8>> {
    lock(&node.machine).container(component.name())?.loaded.get(name).cloned()
}

fn configuration(world: &World, node: &SimNode, component: Component) -> Option<ServerConfig> {
    let held = |name: &str| held(node, component, name);
    let (certificate, key, clients) = match component {
        Component::ApiServer => {
            (held("kube-apiserver.pem")?, held("kube-apiserver-key.pem")?, Clients::Asked)
        }
        Component::Etcd => {
            let name = format!("kube-etcd-{}", node.dashed_address());
            let read = |file: String| node.read(&node.ssl(&file));
            (read(format!("{name}.pem"))?, read(format!("{name}-key.pem"))?, Clients::Required)
        }
        Component::Kubelet => {
            let [certificate, key] = node.kubelet_pair();
            (held(&certificate)?, held(&key)?, Clients::Asked)
        }
        _ => {
            let own = &world.kubelet_authority;
            (own.certificate.clone().into_bytes(), own.key.clone().into_bytes(), Clients::Anyone)
        }
    };
    let authority = held("kube-ca.pem");
    let server = Server { certificate: &certificate, key: &key, clients, authority: authority.as_deref() };
    server.configuration(world.clock)
}

/// What a component does with a request.
enum Reply {
    Page(StatusCode, &'static str, String),
    /// It never answers, and the client gives up.
    Silence,
}

impl Reply {
    fn text(status: StatusCode, body: &str) -> Self {
        Self::Page(status, "text/plain; charset=utf-8", body.to_owned())
    }
}

impl Port {
    /// Serves one connection up to its end.
    pub(crate) async fn serve<S>(mut self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.tls.take() {
            None => self.http(stream, None).await,
            Some(configuration) => {
                // A handshake that fails is the client's to notice.
                if let Ok(stream) = TlsAcceptor::from(Arc::new(configuration)).accept(stream).await {
                    let certificates = stream.get_ref().1.peer_certificates();
                    let caller = certificates.and_then(<[_]>::first).and_then(|certificate| {
                        let authority = held(&self.node, self.component, "kube-ca.pem")?;
                        authority::client(certificate, &authority, self.node.now(&self.world.clock))
                    });
                    self.http(stream, caller).await;
                }
            }
        }
    }

    async fn http<S>(self, stream: S, caller: Option<Identity>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (port, caller) = (&self, caller.as_ref());
        let answer = |request: Request<Incoming>| async move {
            let (status, kind, body) = match port.answer(request, caller).await {
                Reply::Page(status, kind, body) => (status, kind, body),
                Reply::Silence => std::future::pending().await,
            };
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
            Ok::<_, Infallible>(response)
        };
        // A client that breaks off has its reasons.
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service_fn(answer))
            .await;
    }

    async fn answer(&self, request: Request<Incoming>, caller: Option<&Identity>) -> Reply {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        match self.component {
            Component::ApiServer => {
                let Ok(body) = Limited::new(body, LARGEST_BODY).collect().await else {
                    return Reply::text(StatusCode::PAYLOAD_TOO_LARGE, "request body too large");
                };
                let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
                let body = body.to_bytes();
                let asked = Asked { method: &parts.method, path, kind, body: &body };
                self.world.settle();
                let (status, page) = api::answer(&self.world, &self.node, caller, &asked);
                match page {
                    api::Page::Text(text) => Reply::text(status, &text),
                    api::Page::Object(object) => {
                        Reply::Page(status, "application/json", format!("{object}\n"))
                    }
                }
            }
            Component::Etcd if path == "/health" => self.etcd_health(),
            // RKE turns anonymous requests off (`--anonymous-auth=false`).
            Component::Kubelet if self.protocol == Protocol::Tls && caller.is_none() => {
                Reply::text(StatusCode::UNAUTHORIZED, "Unauthorized")
            }
            Component::Kubelet | Component::Proxy | Component::Scheduler | Component::ControllerManager
                if path == "/healthz" =>
            {
                Reply::text(StatusCode::OK, "ok")
            }
            _ => Reply::text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    /// etcd answers requests from the moment on at which it first had a quorum (`serve` waits for `ReadyNotify`).
    fn etcd_health(&self) -> Reply {
        self.world.settle();
        if !self.node.etcd_has_joined() {
            return Reply::Silence;
        }
        if self.world.etcd_has_quorum() && self.world.etcd_serves(&self.node) {
            Reply::text(StatusCode::OK, r#"{"health":"true"}"#)
        } else {
            Reply::text(StatusCode::SERVICE_UNAVAILABLE, r#"{"health":"false"}"#)
        }
    }
}
