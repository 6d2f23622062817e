//! Health is what a component says of itself on its health page, and where that page is.

use super::Answer;
use crate::pki::Service;

/// How much of a health page is quoted when it is not good, in characters.
const QUOTE_LIMIT: usize = 200;

/// What is known of a component from its health page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It says that it is healthy.
    Healthy,
    /// It runs and turns strangers away, so that it has not said how it is.
    Answers,
    /// It says that it is not healthy, or says something else: status and the beginning of the page.
    Unhealthy(String),
}

/// Whether a health page is served in clear text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// In clear text.
    Http,
    /// Over TLS.
    Https,
}

/// Where a component has its health page, on the node's own loopback address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// How it is served.
    pub scheme: Protocol,
    /// The TCP port.
    pub port: u16,
    /// The path of the page.
    pub path: &'static str,
}

const fn plain(port: u16) -> Endpoint {
    Endpoint { scheme: Protocol::Http, port, path: "/healthz" }
}

const fn secured(port: u16) -> Endpoint {
    Endpoint { scheme: Protocol::Https, port, path: "/healthz" }
}

/// Returns where a service of a Kubernetes version has its health page, the best place first.
///
/// The ports are those of RKE (`cluster/plan.go`, `services/*.go`). kube-controller-manager left its clear-text port with
/// Kubernetes 1.22 and kube-scheduler with 1.23; where the version is unknown both are given. etcd has none here: it asks for
/// a client certificate, and `etcdctl` inside its container knows more.
pub fn health_endpoints(service: Service, kubernetes_version: Option<&str>) -> &'static [Endpoint] {
    let version = kubernetes_version.and_then(minor_version);
    match service {
        Service::Etcd => &[],
        Service::KubeApiserver => const { &[secured(6443)] },
        Service::Kubelet => const { &[plain(10248), secured(10250)] },
        Service::KubeProxy => const { &[plain(10256)] },
        Service::KubeScheduler => match version {
            Some(version) if version < (1, 23) => const { &[plain(10251)] },
            Some(_) => const { &[secured(10259)] },
            None => const { &[plain(10251), secured(10259)] },
        },
        Service::KubeControllerManager => match version {
            Some(version) if version < (1, 22) => const { &[plain(10252)] },
            Some(_) => const { &[secured(10257)] },
            None => const { &[plain(10252), secured(10257)] },
        },
    }
}

/// Returns major and minor number of a version such as `v1.11.6-rancher1-1`.
fn minor_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().trim_start_matches('v').split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Returns what an answer of a service's health page means.
///
/// RKE turns anonymous requests off for kube-apiserver and for kubelet's port 10250: "who are you" is then all that a healthy
/// one says.
pub fn health(service: Service, answer: &Answer) -> Health {
    match (answer.status, service) {
        (200, _) => Health::Healthy,
        (401 | 403, Service::KubeApiserver | Service::Kubelet) => Health::Answers,
        (status, _) => Health::Unhealthy(quote(status, &answer.body)),
    }
}

fn quote(status: u16, body: &str) -> String {
    let folded = body.split_whitespace().collect::<Vec<_>>().join(" ");
    let beginning: String = folded.chars().take(QUOTE_LIMIT).collect();
    if beginning.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {beginning}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(service: Service, version: Option<&str>) -> Vec<(Protocol, u16)> {
        health_endpoints(service, version).iter().map(|endpoint| (endpoint.scheme, endpoint.port)).collect()
    }

    #[test]
    fn ports_follow_the_kubernetes_version() {
        use Protocol::{Http, Https};
        let scheduler = Service::KubeScheduler;
        assert_eq!(ports(scheduler, Some("v1.11.6-rancher1-1")), [(Http, 10251)]);
        assert_eq!(ports(scheduler, Some("v1.22.17-rancher1-2")), [(Http, 10251)]);
        assert_eq!(ports(scheduler, Some("v1.23.4-rancher1-1")), [(Https, 10259)]);
        let controller_manager = Service::KubeControllerManager;
        assert_eq!(ports(controller_manager, Some("v1.21.14")), [(Http, 10252)]);
        assert_eq!(ports(controller_manager, Some("v1.22.4")), [(Https, 10257)]);
        assert_eq!(ports(controller_manager, None), [(Http, 10252), (Https, 10257)]);
        assert_eq!(ports(scheduler, Some("latest")), [(Http, 10251), (Https, 10259)]);
        assert_eq!(ports(Service::Kubelet, None), [(Http, 10248), (Https, 10250)]);
        assert_eq!(ports(Service::KubeProxy, None), [(Http, 10256)]);
        assert_eq!(ports(Service::KubeApiserver, Some("v1.8.1")), [(Https, 6443)]);
        assert_eq!(ports(Service::Etcd, None), []);
    }

    #[test]
    fn only_200_is_healthy() {
        let page = |status, body: &str| Answer { status, body: body.to_owned() };
        for service in Service::ALL {
            assert_eq!(health(service, &page(200, "ok")), Health::Healthy);
        }
        assert_eq!(
            health(Service::KubeScheduler, &page(401, "Unauthorized\n")),
            Health::Unhealthy("HTTP 401: Unauthorized".to_owned())
        );
        assert_eq!(
            health(Service::KubeApiserver, &page(500, "[+]ping ok\n[-]etcd failed: reason withheld\n")),
            Health::Unhealthy("HTTP 500: [+]ping ok [-]etcd failed: reason withheld".to_owned())
        );
        assert_eq!(health(Service::KubeProxy, &page(503, "")), Health::Unhealthy("HTTP 503".to_owned()));
    }

    #[test]
    fn a_component_that_turns_strangers_away_answers() {
        for service in [Service::KubeApiserver, Service::Kubelet] {
            for status in [401, 403] {
                let answer = Answer { status, body: "Unauthorized".to_owned() };
                assert_eq!(health(service, &answer), Health::Answers);
            }
        }
    }
}
