use super::{NodeFacts, Observation, certificate_file_name, key_file_name};
use crate::inventory::{Inventory, Role};
use crate::pki::{KUBE_ADMIN, Location};

/// How complete the legacy bundle (`/etc/kubernetes/.tmp`) of a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bundle {
    /// The folder is not there.
    Absent,
    /// Everything that rke 0.2.x demands is there.
    Complete,
    /// Something is missing: rke says "CA Certificate or Key is empty".
    Incomplete,
    /// Something is missing, and a copy of `ssl` lies one folder too deep.
    Nested,
}

impl Bundle {
    /// Returns the word that people and JSON see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Nested => "nested",
        }
    }
}

/// A file that the legacy bundle must hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BundleFile {
    /// The certificate's name (`kube-node`).
    pub name: String,
    /// The file's name (`kube-node-key.pem`).
    pub file_name: String,
}

/// The certificates that rke 0.2.x reads from `.tmp`, and whether it reads a kubecfg file with each.
///
/// A single missing file makes it give up (rancher/rke v0.2.8 `pki/deploy.go` `FetchCertificatesFromHost`).
const BUNDLE: [(&str, bool); 9] = [
    ("kube-ca", false),
    ("kube-apiserver", false),
    ("kube-controller-manager", true),
    ("kube-scheduler", true),
    ("kube-proxy", true),
    ("kube-node", true),
    (KUBE_ADMIN, false),
    ("kube-apiserver-requestheader-ca", false),
    ("kube-apiserver-proxy-client", false),
];

/// Returns the files that the legacy bundle of a cluster must hold: those of [`BUNDLE`], and the pair of each etcd member.
pub fn bundle_names(inventory: &Inventory) -> Vec<BundleFile> {
    let mut files = Vec::new();
    let mut add = |name: &str, file_name: String| files.push(BundleFile { name: name.to_owned(), file_name });
    for (name, has_kubecfg) in BUNDLE {
        add(name, certificate_file_name(Location::Tmp, name));
        add(name, key_file_name(Location::Tmp, name));
        if has_kubecfg {
            add(name, format!("kubecfg-{name}.yaml"));
        }
    }
    if inventory.external_etcd_urls.is_empty() {
        for member in inventory.with_role(Role::Etcd) {
            let name = format!("kube-etcd-{}", member.file_name_address());
            add(&name, certificate_file_name(Location::Tmp, &name));
            add(&name, key_file_name(Location::Tmp, &name));
        }
    }
    files
}

/// Returns the state of the legacy bundle; `None` on nodes that never have one.
pub fn bundle_of(inventory: &Inventory, node: &NodeFacts, observation: &Observation) -> Option<Bundle> {
    if !node.has(Role::ControlPlane) && !node.has(Role::Etcd) {
        return None;
    }
    if !observation.has_tmp {
        return Some(Bundle::Absent);
    }
    let complete =
        bundle_names(inventory).iter().all(|file| observation.file(Location::Tmp, &file.file_name).is_some());
    let nested = observation.files.iter().any(|file| file.location == Location::NestedTmp);
    Some(match (complete, nested) {
        (true, _) => Bundle::Complete,
        (false, true) => Bundle::Nested,
        (false, false) => Bundle::Incomplete,
    })
}
