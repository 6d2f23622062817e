//! A service is a component of Kubernetes that has certificates of its own and that a rotation can be limited to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A component whose certificates can be renewed by themselves (RKE `services/services.go`, `rke cert rotate --service`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// The store of the cluster's state.
    Etcd,
    /// The agent on every node.
    Kubelet,
    /// The API.
    KubeApiserver,
    /// The router of service addresses on every node.
    KubeProxy,
    /// Chooses nodes for pods.
    KubeScheduler,
    /// Runs the control loops.
    KubeControllerManager,
}

impl Service {
    /// Every service, in the order in which RKE lists them.
    pub const ALL: [Self; 6] = [
        Self::Etcd,
        Self::Kubelet,
        Self::KubeApiserver,
        Self::KubeProxy,
        Self::KubeScheduler,
        Self::KubeControllerManager,
    ];

    /// Returns the name that RKE, Rancher and the containers use.
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

/// A text that names no service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a service: choose of etcd, kubelet, kube-apiserver, kube-proxy, kube-scheduler, kube-controller-manager"
)]
pub struct UnknownService(pub String);

impl FromStr for Service {
    type Err = UnknownService;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|service| service.as_str() == text)
            .ok_or_else(|| UnknownService(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_one_name_everywhere() {
        for service in Service::ALL {
            assert_eq!(service.as_str().parse(), Ok(service));
            assert_eq!(serde_json::to_string(&service).unwrap(), format!("\"{service}\""));
        }
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_ones() {
        let error = "kube-api".parse::<Service>().unwrap_err();
        assert!(error.to_string().starts_with("`kube-api` is not a service"), "{error}");
        assert!(error.to_string().contains("kube-apiserver"));
    }
}
