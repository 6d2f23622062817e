//! The ports of a simulated node: what its components serve over TLS and HTTP, reached through its sshd.
//!
//! A component serves the certificate that lay on disk when it started; etcd reads its own at every handshake.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::clock::{Clock, lock};
use super::container::Component;
use super::machine::{SimNode, World};

/// A connection that a component has accepted.
pub(crate) struct Port {
    world: Arc<World>,
    component: Component,
    tls: Option<ServerConfig>,
}

/// Which clients a TLS server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clients {
    Anyone,
    /// A certificate may be presented.
    Known,
    /// A certificate must be presented.
    OnlyKnown,
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
    let (component, secured) = match port {
        6443 if lock(&node.machine).container("kube-apiserver").is_some() => (Component::ApiServer, true),
        6443 => return through_proxy(world, &node),
        2379 | 2380 => (Component::Etcd, true),
        10250 => (Component::Kubelet, true),
        10248 => (Component::Kubelet, false),
        10256 => (Component::Proxy, false),
        10251 => (Component::Scheduler, false),
        10252 => (Component::ControllerManager, false),
        10259 => (Component::Scheduler, true),
        10257 => (Component::ControllerManager, true),
        _ => return None,
    };
    open(world, &node, component, secured.then_some(()))
}

/// nginx-proxy on the other nodes leads to the first control plane node that listens.
fn through_proxy(world: &Arc<World>, node: &SimNode) -> Option<Port> {
    if !world.is_up(node, Component::NginxProxy) {
        return None;
    }
    let mut ends = world.with_role(crate::inventory::Role::ControlPlane);
    ends.find_map(|node| open(world, node, Component::ApiServer, Some(())))
}

fn open(world: &Arc<World>, node: &Arc<SimNode>, component: Component, secured: Option<()>) -> Option<Port> {
    if !world.is_up(node, component) {
        return None;
    }
    let tls = match secured {
        Some(()) => Some(configuration(world, node, component)?),
        None => None,
    };
    Some(Port { world: Arc::clone(world), component, tls })
}

fn configuration(world: &World, node: &SimNode, component: Component) -> Option<ServerConfig> {
    let loaded = lock(&node.machine).container(component.name())?.loaded.clone();
    let held = |name: &str| loaded.get(name).cloned();
    let (certificate, key, clients) = match component {
        Component::ApiServer => {
            (held("kube-apiserver.pem")?, held("kube-apiserver-key.pem")?, Clients::Known)
        }
        Component::Etcd => {
            let name = format!("kube-etcd-{}", node.dashed_address());
            let read = |file: String| node.read(&node.ssl(&file));
            (read(format!("{name}.pem"))?, read(format!("{name}-key.pem"))?, Clients::OnlyKnown)
        }
        Component::Kubelet => (held("kubelet.crt")?, held("kubelet.key")?, Clients::Anyone),
        _ => {
            let own = &world.kubelet_authority;
            (own.certificate.clone().into_bytes(), own.key.clone().into_bytes(), Clients::Anyone)
        }
    };
    server(&certificate, &key, (clients, held("kube-ca.pem").as_deref()), world.clock)
}

/// Tells rustls the fleet's time.
#[derive(Debug)]
struct FleetTime(Clock);

impl TimeProvider for FleetTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}

fn server(
    certificate: &[u8],
    key: &[u8],
    (clients, authority): (Clients, Option<&[u8]>),
    clock: Clock,
) -> Option<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().ok()?;
    let key = PrivateKeyDer::from_pem_slice(key).ok()?;
    let builder = ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(FleetTime(clock)));
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    let builder = if clients == Clients::Anyone {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority?).ok()?).ok()?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = if clients == Clients::Known { verifier.allow_unauthenticated() } else { verifier };
        builder.with_client_cert_verifier(verifier.build().ok()?)
    };
    builder.with_single_cert(chain, key).ok()
}

impl Port {
    /// Serves one connection up to its end.
    pub(crate) async fn serve<S>(mut self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.tls.take() {
            None => self.http(stream, Caller::Unknown).await,
            Some(configuration) => {
                // A handshake that fails is the client's to notice.
                if let Ok(stream) = TlsAcceptor::from(Arc::new(configuration)).accept(stream).await {
                    let known = stream.get_ref().1.peer_certificates().is_some();
                    self.http(stream, if known { Caller::Known } else { Caller::Unknown }).await;
                }
            }
        }
    }

    async fn http<S>(self, stream: S, caller: Caller)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answer = |request: Request<Incoming>| {
            let (status, body) = self.answer(request.uri().path(), caller);
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = status;
            std::future::ready(Ok::<_, Infallible>(response))
        };
        // A client that breaks off has its reasons.
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service_fn(answer))
            .await;
    }

    fn answer(&self, path: &str, caller: Caller) -> (StatusCode, String) {
        let secured_kubelet =
            self.component == Component::Kubelet && caller == Caller::Unknown && path != "/healthz";
        match (self.component, path) {
            (Component::ApiServer, _) if caller == Caller::Unknown => {
                (StatusCode::UNAUTHORIZED, refusal().to_string())
            }
            (Component::ApiServer, "/healthz") if self.world.etcd_has_quorum() => {
                (StatusCode::OK, "ok".to_owned())
            }
            (Component::ApiServer, "/healthz") => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "[+]ping ok\n[-]etcd failed: reason withheld\nhealthz check failed\n".to_owned(),
            ),
            (Component::ApiServer, "/api/v1/nodes") => (StatusCode::OK, self.nodes().to_string()),
            (Component::Etcd, "/health") if self.world.etcd_has_quorum() => {
                (StatusCode::OK, r#"{"health":"true"}"#.to_owned())
            }
            (Component::Etcd, "/health") => {
                (StatusCode::SERVICE_UNAVAILABLE, r#"{"health":"false"}"#.to_owned())
            }
            _ if secured_kubelet => (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()),
            (
                Component::Kubelet | Component::Proxy | Component::Scheduler | Component::ControllerManager,
                "/healthz",
            ) => (StatusCode::OK, "ok".to_owned()),
            _ => (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        }
    }

    /// Returns the nodes as Kubernetes lists them, as far as readiness goes.
    fn nodes(&self) -> Value {
        let items: Vec<Value> = self
            .world
            .nodes
            .iter()
            .map(|node| {
                let ready = if self.world.node_is_ready(node) { "True" } else { "Unknown" };
                json!({
                    "metadata": { "name": node.name.as_str() },
                    "status": {
                        "conditions": [{ "type": "Ready", "status": ready }],
                        "addresses": [{ "type": "InternalIP", "address": node.internal_address }],
                    },
                })
            })
            .collect();
        json!({ "kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": items })
    }
}

/// Whether a client presented a certificate that the server's authority signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Known,
    Unknown,
}

fn refusal() -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "Unauthorized", "reason": "Unauthorized", "code": 401,
    })
}
