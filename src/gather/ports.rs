use futures::future::join_all;

use super::PORT_TIMEOUT;
use crate::facts::{Health, Observation, Served};
use crate::inventory::{Inventory, Node, Role};
use crate::kube::{self, Endpoint, Protocol, Scheme, health_endpoints, served_certificate};
use crate::pki::{Certificate, Location, Service};
use crate::transport::{Session, TransportError};

/// The name that is asked for in a handshake; nothing is verified, the certificate is what we want to see.
const SERVER_NAME: &str = "localhost";

/// A TLS port of a node, and where the certificate lies that it should serve.
struct Port<'a> {
    service: Service,
    /// The address as the node sees it.
    host: &'a str,
    number: u16,
    location: Location,
    name: String,
}

/// Returns the TLS ports of a node that RKE's certificates are served on (domain: etcd listens on the internal address alone
/// where that differs from the external one).
fn tls_ports<'a>(inventory: &Inventory, node: &'a Node) -> Vec<Port<'a>> {
    let mut ports = Vec::new();
    if node.has(Role::Etcd) && inventory.external_etcd_urls.is_empty() {
        let name = format!("kube-etcd-{}", node.file_name_address());
        for port in [2379, 2380] {
            let host = node.internal_address.as_str();
            ports.push(Port {
                service: Service::Etcd,
                host,
                number: port,
                location: Location::Ssl,
                name: name.clone(),
            });
        }
    }
    let mut local = |service, number, location, name: &str| {
        ports.push(Port { service, host: "127.0.0.1", number, location, name: name.to_owned() });
    };
    if node.has(Role::ControlPlane) {
        local(Service::KubeApiserver, 6443, Location::Ssl, "kube-apiserver");
    }
    if inventory.generate_serving_certificate {
        local(Service::Kubelet, 10250, Location::Ssl, &format!("kube-kubelet-{}", node.file_name_address()));
    } else {
        local(Service::Kubelet, 10250, Location::KubeletPki, "kubelet");
    }
    ports
}

/// Makes a handshake with every TLS port of a node.
pub(super) async fn served(
    inventory: &Inventory,
    node: &Node,
    session: &Session,
    observation: &Observation,
) -> Vec<Served> {
    let ports = tls_ports(inventory, node);
    join_all(ports.iter().map(|port| serve(port, session, observation))).await
}

async fn serve(port: &Port<'_>, session: &Session, observation: &Observation) -> Served {
    let certificate = handshake(port, session).await;
    let on_disk = observation.certificate(port.location, &port.name);
    let matches_disk = match (&certificate, on_disk) {
        (Ok(served), Some(on_disk)) => Some(served.sha256 == on_disk.sha256),
        _ => None,
    };
    Served { service: port.service, port: port.number, certificate, matches_disk }
}

async fn handshake(port: &Port<'_>, session: &Session) -> Result<Certificate, String> {
    let stream = session.open_tcp(port.host, port.number).await.map_err(|error| error.to_string())?;
    let served =
        served_certificate(stream, SERVER_NAME, PORT_TIMEOUT).await.map_err(|error| error.to_string())?;
    Certificate::from_der(&served.der).map_err(|error| error.to_string())
}

/// Asks the components of a node for their health; etcd was asked by the probe.
pub(super) async fn health(
    node: &Node,
    session: &Session,
    observation: &Observation,
    version: Option<&str>,
) -> Vec<Health> {
    let mut services = vec![Service::Kubelet, Service::KubeProxy];
    if node.has(Role::ControlPlane) {
        services.extend([Service::KubeApiserver, Service::KubeControllerManager, Service::KubeScheduler]);
    }
    let present = |service: &Service| observation.container(service.as_str()).is_some();
    let asked = services.into_iter().filter(present).map(|service| health_of(service, session, version));
    join_all(asked).await
}

/// Asks one component at its pages in turn, until one answers.
pub(crate) async fn health_of(service: Service, session: &Session, version: Option<&str>) -> Health {
    let mut detail = "it has no health page".to_owned();
    let mut healthy = None;
    for endpoint in health_endpoints(service, version) {
        match Box::pin(ask(service, *endpoint, session)).await {
            Ok(health) => return health,
            Err(AskError::Forbidden(error)) => return Health { service, healthy: None, detail: error },
            Err(AskError::Silent(error)) => {
                healthy = Some(false);
                detail = error;
            }
        }
    }
    Health { service, healthy, detail }
}

/// Why a health page said nothing.
enum AskError {
    /// The server forbids forwarded connections: nothing can be known from here.
    Forbidden(String),
    /// Nobody answers.
    Silent(String),
}

async fn ask(service: Service, endpoint: Endpoint, session: &Session) -> Result<Health, AskError> {
    let Endpoint { scheme, port, path } = endpoint;
    let (word, scheme) = match scheme {
        Protocol::Http => ("http", Scheme::Http),
        Protocol::Https => ("https", Scheme::Https { server_name: SERVER_NAME.to_owned() }),
    };
    let request = format!("GET {word}://127.0.0.1:{port}{path}");
    let stream = session.open_tcp("127.0.0.1", port).await.map_err(|error| match &error {
        TransportError::ForwardingProhibited { .. } => AskError::Forbidden(error.to_string()),
        TransportError::ForwardRefused { .. } => AskError::Silent(format!("{request}: connection refused")),
        _ => AskError::Silent(format!("{request}: {error}")),
    })?;
    let answer = Box::pin(kube::get(stream, scheme, "127.0.0.1", path, PORT_TIMEOUT))
        .await
        .map_err(|error| AskError::Silent(format!("{request}: {error}")))?;
    let (healthy, detail) = match kube::health(service, &answer) {
        kube::Health::Healthy => (Some(true), request),
        kube::Health::Answers => (Some(true), format!("{request}: answers {}", answer.status)),
        kube::Health::Unhealthy(said) => (Some(false), format!("{request}: {said}")),
    };
    Ok(Health { service, healthy, detail })
}
