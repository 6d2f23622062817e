use serde::{Deserialize, Serialize};

use super::service::Service;
use crate::inventory::{Inventory, Role};

/// The CA that signs every leaf.
pub const KUBE_CA: &str = "kube-ca";
/// The administrator's pair, which RKE 0.2.x demands in `.tmp` and `ssl` never holds (rancher/rke v0.2.8 `pki/util.go`).
pub const KUBE_ADMIN: &str = "kube-admin";

/// The pairs that clusters from before RKE v0.1.9 lack, and the pair that the written procedure copies in their place
/// (rancher/rancher#20381).
pub const REQUESTHEADER_COPIES: [(&str, &str); 2] =
    [("kube-apiserver-requestheader-ca", KUBE_CA), ("kube-apiserver-proxy-client", "kube-apiserver")];

/// The folder of a node that a PKI file lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// `<prefix>/etc/kubernetes/ssl`: what the components use.
    Ssl,
    /// `<prefix>/etc/kubernetes/.tmp`: the legacy bundle, which rke reads when it has lost its state.
    Tmp,
    /// `<prefix>/etc/kubernetes/.tmp/ssl`: what a second `cp -r ssl .tmp` leaves behind.
    NestedTmp,
    /// `<prefix>/var/lib/kubelet/pki`: the kubelet's own serving pair.
    KubeletPki,
}

/// How an expiry matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A certificate authority.
    Ca,
    /// A certificate that a component uses.
    Leaf,
    /// A certificate whose dates nobody checks (`kube-service-account-token`: only its key matters, rancher/rke#2369).
    Informational,
    /// The kubelet's own serving certificate, which no rotation renews (rancher/rancher#27783).
    KubeletServing,
    /// A copy in the legacy bundle.
    Legacy,
}

impl Class {
    /// Returns the word that JSON has.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::Leaf => "leaf",
            Self::Informational => "informational",
            Self::KubeletServing => "kubelet-serving",
            Self::Legacy => "legacy",
        }
    }
}

/// Returns the class of a file by where it lies and what it is called.
pub fn class(location: Location, name: &str) -> Class {
    match location {
        Location::Tmp | Location::NestedTmp => Class::Legacy,
        Location::KubeletPki => Class::KubeletServing,
        Location::Ssl => match name {
            KUBE_CA | "kube-apiserver-requestheader-ca" | "kube-etcd-client-ca" => Class::Ca,
            "kube-service-account-token" => Class::Informational,
            _ => Class::Leaf,
        },
    }
}

/// Returns the services whose rotation renews a certificate (RKE v0.2.8 `cluster/certificates.go`).
///
/// Empty for the pairs that only a rotation of all services renews, and for those that none renews.
pub fn services_of(name: &str) -> Vec<Service> {
    match name {
        "kube-apiserver" => vec![Service::KubeApiserver],
        "kube-controller-manager" => vec![Service::KubeControllerManager],
        "kube-scheduler" => vec![Service::KubeScheduler],
        "kube-proxy" => vec![Service::KubeProxy],
        "kube-node" => vec![Service::Kubelet],
        name if name.starts_with("kube-kubelet-") => vec![Service::Kubelet],
        "kube-etcd-client" | "kube-etcd-client-ca" => Vec::new(),
        name if name.starts_with("kube-etcd-") => vec![Service::Etcd],
        _ => Vec::new(),
    }
}

/// Returns the certificates that `ssl` of a node must hold whatever RKE made the cluster (RKE `pki/util.go` `getCertKeys`).
///
/// The requestheader CA, proxy-client and service account pairs are left out: older clusters run without them.
pub fn expected_names(roles: &[Role], inventory: &Inventory) -> Vec<String> {
    let mut names = vec![KUBE_CA.to_owned(), "kube-node".to_owned(), "kube-proxy".to_owned()];
    if roles.contains(&Role::ControlPlane) {
        names.extend(["kube-apiserver", "kube-controller-manager", "kube-scheduler"].map(str::to_owned));
    }
    if roles.contains(&Role::Etcd) && inventory.external_etcd_urls.is_empty() {
        names.extend(
            inventory.with_role(Role::Etcd).map(|member| format!("kube-etcd-{}", member.file_name_address())),
        );
    }
    names
}
