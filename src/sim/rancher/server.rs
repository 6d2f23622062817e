//! Rancher's server: its TLS, its connections, and its restarts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::api::Api;
use super::{Rotation, ServerCertificate, norman};
use crate::inventory::Inventory;
use crate::sim::SimError;
use crate::sim::authority::{self, Pair, Subject, Usage, Validity};
use crate::sim::container::digest;

/// How long a restarting Rancher refuses connections, and how long the proxy before it then has nobody to ask, in the fleet's seconds.
const DOWN_SECONDS: f64 = 20.0;
const STARTING_SECONDS: f64 = 20.0;

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

    /// Returns the address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
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

/// What a Rancher begins with.
#[derive(Debug)]
pub(crate) struct Beginning<'a> {
    pub(crate) inventory: &'a Inventory,
    pub(crate) authority: &'a Pair,
    /// The key that logs into the nodes, and its public half.
    pub(crate) ssh_key: (&'a str, &'a str),
    /// Where the nodes listen, in their order.
    pub(crate) ports: Vec<u16>,
}

/// What does not change while Rancher runs.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) url: String,
    pub(super) ca: String,
    pub(super) token: String,
    pub(super) cluster_name: String,
    pub(super) kubernetes_version: String,
    pub(super) service_range: String,
    pub(super) cluster_domain: String,
    pub(super) prefix_path: String,
    pub(super) ssh_key: String,
    pub(super) ssh_public_key: String,
    pub(super) ports: Vec<u16>,
}

/// Starts the API and the provisioner; both end with their task.
pub(crate) async fn serve(
    rotation: Arc<Rotation>,
    beginning: Beginning<'_>,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Result<Server, SimError> {
    let failed = |source| SimError::Listen { address: "127.0.0.1:0".to_owned(), source };
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let Beginning { inventory, authority, ssh_key, ports } = beginning;
    let acceptor = TlsAcceptor::from(Arc::new(tls(authority, rotation.options().certificate)?));
    let secret: String = digest(&authority.key).chars().take(54).collect();
    let server =
        Server { address, ca: authority.certificate.clone(), token: format!("token-sim01:{secret}") };
    let site = Site {
        url: server.url(),
        ca: server.ca.clone(),
        token: server.token.clone(),
        cluster_name: inventory.cluster_name.clone(),
        kubernetes_version: inventory.kubernetes_version.clone().unwrap_or_default(),
        service_range: inventory.service_cluster_ip_ranges.join(","),
        cluster_domain: inventory.cluster_domain.clone(),
        prefix_path: inventory.prefix_path.clone(),
        ssh_key: ssh_key.0.to_owned(),
        ssh_public_key: ssh_key.1.to_owned(),
        ports,
    };
    let api = Arc::new(Api {
        rotation,
        site,
        calls: AtomicUsize::new(0),
        looks: AtomicUsize::new(0),
        restart: Notify::new(),
    });
    tasks.push(tokio::spawn(run(listener, acceptor, api)));
    Ok(server)
}

/// Serves, and restarts where that is asked for.
async fn run(mut listener: TcpListener, acceptor: TlsAcceptor, api: Arc<Api>) {
    let mut mood = Mood::Serving;
    loop {
        let mut work = JoinSet::new();
        if mood == Mood::Serving {
            work.spawn(Arc::clone(&api.rotation).provision());
        }
        let rotation = Arc::clone(&api.rotation);
        tokio::select! {
            () = accept(&listener, &acceptor, (&api, mood)) => {}
            () = rotation.pause(STARTING_SECONDS), if mood == Mood::Starting => mood = Mood::Serving,
            () = restart_asked(&api), if mood == Mood::Serving => {
                let Ok(address) = listener.local_addr() else { return };
                work.abort_all();
                drop(listener);
                let Ok(next) = listen_later(address, &rotation).await else { return };
                (listener, mood) = (next, Mood::Starting);
            }
        }
    }
}

/// What a server that listens does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Serving,
    /// The proxy before it has nobody to ask.
    Starting,
}

/// Waits until the server is to restart, and until the answer that comes before has left.
async fn restart_asked(api: &Api) {
    api.restart.notified().await;
    api.rotation.pause(5.0).await;
}

/// Keeps an address without listening there, so that connections are refused, and listens again after the restart.
async fn listen_later(address: SocketAddr, rotation: &Rotation) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    rotation.pause(DOWN_SECONDS).await;
    socket.listen(1024)
}

async fn accept(listener: &TcpListener, acceptor: &TlsAcceptor, (api, mood): (&Arc<Api>, Mood)) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let (acceptor, api) = (acceptor.clone(), Arc::clone(api));
                connections.spawn(async move {
                    // A client that does not trust the certificate breaks off; that is its right.
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let answer = service_fn(|request| {
                        let api = Arc::clone(&api);
                        async move {
                            match mood {
                                Mood::Serving => api.converse(request).await,
                                Mood::Starting => Ok(norman::proxy_error(503)),
                            }
                        }
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
    authority::make_authority("cattle-ca", authority::make_elliptic_key()?, lifetime(2_493_072_000))
}

/// Returns a lifetime from 2020 on, until an instant in seconds since 1970.
fn lifetime(end: i64) -> Validity {
    let at = |seconds| jiff::Timestamp::from_second(seconds).unwrap_or_default();
    Validity { not_before: at(1_577_836_800), not_after: at(end) }
}

fn tls(authority: &Pair, certificate: ServerCertificate) -> Result<ServerConfig, SimError> {
    let subject = Subject {
        common_name: "cattle".to_owned(),
        organization: None,
        usage: Usage::Server,
        names: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
    };
    let lifetime = lifetime(match certificate {
        ServerCertificate::Valid => 2_493_072_000,
        ServerCertificate::Expired => 1_609_459_200,
    });
    let leaf = authority::make_leaf(authority, &subject, authority::make_elliptic_key()?, lifetime)?;
    let unreadable = |_| SimError::Internal("a certificate that was just made cannot be read");
    let mut chain = vec![CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).map_err(unreadable)?];
    chain.push(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).map_err(unreadable)?);
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).map_err(unreadable)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_no_client_auth().with_single_cert(chain, key)?)
}
