use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A service whose certificates can be rotated by name (RKE `cmd/cert.go`, `--service`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// The members of the etcd cluster.
    Etcd,
    /// The kubelet of every node.
    Kubelet,
    /// The API servers.
    KubeApiserver,
    /// The kube-proxy of every node.
    KubeProxy,
    /// The schedulers.
    KubeScheduler,
    /// The controller managers.
    KubeControllerManager,
}

impl Service {
    /// Every service, in the order of the command line's help.
    pub const ALL: [Self; 6] = [
        Self::Etcd,
        Self::Kubelet,
        Self::KubeApiserver,
        Self::KubeProxy,
        Self::KubeScheduler,
        Self::KubeControllerManager,
    ];

    /// Returns the name that RKE and Rancher use; it is the container's name too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Kubelet => "kubelet",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeProxy => "kube-proxy",
            Self::KubeScheduler => "kube-scheduler",
            Self::KubeControllerManager => "kube-controller-manager",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// A name that is not one of RKE's services.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the service `{0}` is not known: one of etcd, kubelet, kube-apiserver, kube-proxy, kube-scheduler, kube-controller-manager"
)]
pub struct UnknownService(String);

impl FromStr for Service {
    type Err = UnknownService;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|service| service.as_str() == name)
            .ok_or_else(|| UnknownService(name.to_owned()))
    }
}
