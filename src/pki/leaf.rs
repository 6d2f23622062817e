use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::certificate::Certificate;
use super::{KUBE_ADMIN, KUBE_CA};
use crate::inventory::{Inventory, Node, Role};

/// A CA of the cluster that signs leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authority {
    /// The CA of every component.
    KubeCa,
    /// The CA of the aggregation layer, which signs `kube-apiserver-proxy-client` alone.
    RequestheaderCa,
}

impl Authority {
    /// Returns the name of its files, without an ending.
    pub fn name(self) -> &'static str {
        match self {
            Self::KubeCa => KUBE_CA,
            Self::RequestheaderCa => "kube-apiserver-requestheader-ca",
        }
    }
}

/// What a leaf may be used for (extended key usage).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Usage {
    /// To show who one is.
    Client,
    /// To show who one is, and to serve.
    ClientAndServer,
}

/// A leaf certificate as RKE makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// The name of its files, without an ending.
    pub name: String,
    /// The common name of the subject.
    pub common_name: String,
    /// The organization of the subject: Kubernetes reads it as a group.
    pub organization: Option<String>,
    /// What it may be used for.
    pub usage: Usage,
    /// DNS names, then addresses, each once and in the order of RKE's lists.
    pub sans: Vec<String>,
    /// The CA that signs it.
    pub authority: Authority,
}

/// Returns what a certificate must be, by the name of its file and what `cluster.yml` says.
///
/// `None` for what no rotation makes anew: both CAs, kube-service-account-token, external etcd pairs, names RKE does not know.
///
/// Subjects and usages are the same in every RKE from v0.1.9 to v1.6.0 (v0.1.17 `pki/pki.go` `GenerateRKECerts`, from v0.2.0
/// on `pki/services.go`); `kube-kubelet-*` exists from v1.0.0 on, whose common name is the name of its file.
pub fn leaf(name: &str, inventory: &Inventory) -> Option<Leaf> {
    let control_plane = || inventory.with_role(Role::ControlPlane);
    let of = |common_name: &str, usage, sans| Leaf {
        name: name.to_owned(),
        common_name: common_name.to_owned(),
        organization: None,
        usage,
        sans,
        authority: Authority::KubeCa,
    };
    let member = |common_name: &str, organization: &str| Leaf {
        organization: Some(organization.to_owned()),
        ..of(common_name, Usage::Client, Vec::new())
    };
    Some(match name {
        "kube-apiserver" => {
            let sans = cluster_names(control_plane(), inventory, &inventory.authentication_sans);
            of(name, Usage::ClientAndServer, sans)
        }
        "kube-apiserver-proxy-client" => {
            Leaf { authority: Authority::RequestheaderCa, ..of(name, Usage::ClientAndServer, Vec::new()) }
        }
        "kube-controller-manager" | "kube-scheduler" | "kube-proxy" => {
            of(&format!("system:{name}"), Usage::Client, Vec::new())
        }
        "kube-node" => member("system:node", "system:nodes"),
        KUBE_ADMIN => member(KUBE_ADMIN, "system:masters"),
        "kube-etcd-client" | "kube-etcd-client-ca" => return None,
        _ => match (name.strip_prefix("kube-etcd-"), name.strip_prefix("kube-kubelet-")) {
            (Some(address), _) => {
                of_address(inventory.with_role(Role::Etcd), address)?;
                let sans = cluster_names(inventory.with_role(Role::Etcd), inventory, &[]);
                of("kube-etcd", Usage::ClientAndServer, sans)
            }
            (_, Some(address)) => {
                let host = of_address(inventory.nodes.iter(), address)?;
                of(name, Usage::ClientAndServer, SanList::of_nodes([host]).into_names())
            }
            _ => return None,
        },
    })
}

impl Leaf {
    /// Adds the names that only a present certificate has: somebody added them, and clients may rely on them.
    pub fn with_present_sans(mut self, present: &Certificate) -> Self {
        let added = without(&present.sans, &self.sans);
        self.sans.extend(added);
        self
    }
}

/// What of a certificate's names does not fit to `cluster.yml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SanDrift {
    /// Names that cluster.yml asks for and the certificate lacks.
    pub lacking: Vec<String>,
    /// Names that the certificate has and cluster.yml does not ask for.
    pub beyond: Vec<String>,
}

/// Returns how the names of a present certificate differ from what a leaf must have; `None` where they are the same set.
pub fn san_drift(leaf: &Leaf, present: &Certificate) -> Option<SanDrift> {
    let drift =
        SanDrift { lacking: without(&leaf.sans, &present.sans), beyond: without(&present.sans, &leaf.sans) };
    (!drift.lacking.is_empty() || !drift.beyond.is_empty()).then_some(drift)
}

/// Returns the names that are not among others; the case of letters does not matter, nor how an address is written.
fn without(names: &[String], others: &[String]) -> Vec<String> {
    let others: HashSet<String> = others.iter().map(|name| comparable(name)).collect();
    names.iter().filter(|name| !others.contains(&comparable(name))).cloned().collect()
}

/// Returns the form in which two names are compared.
fn comparable(name: &str) -> String {
    address(name).map_or_else(|| name.to_ascii_lowercase(), |address| address.to_string())
}

/// Returns a text as an address; an IPv4 address in the clothes of IPv6 is one of IPv4, as Go's `net.ParseIP` has it.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Returns the node whose files bear an address.
///
/// RKE up to v1.2 keeps upper case in the name of a file, v1.3 and later do not (`pki/util.go` `GetCrtNameForHost`).
fn of_address<'a>(nodes: impl IntoIterator<Item = &'a Node>, address: &str) -> Option<&'a Node> {
    nodes.into_iter().find(|node| node.file_name_address().eq_ignore_ascii_case(address))
}

/// Returns the names of a serving certificate of the whole cluster (RKE `pki/util.go` `GetAltNames`).
///
/// Of several ranges of service addresses each gives its first one: RKE v1.3 and later do (`GetKubernetesServiceIP`), older
/// ones refuse such a cluster.yml. etcd has the names of the API server's service, too.
fn cluster_names<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    inventory: &Inventory,
    more: &[String],
) -> Vec<String> {
    let mut list = SanList::of_nodes(nodes);
    for name in more {
        list.add(name);
    }
    list.addresses.push(Ipv4Addr::LOCALHOST.into());
    let ranges = inventory.service_cluster_ip_ranges.iter();
    list.addresses.extend(ranges.filter_map(|range| first_service_address(range)));
    for name in ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"] {
        list.add(name);
    }
    list.add(&format!("kubernetes.default.svc.{}", inventory.cluster_domain));
    list.into_names()
}

/// The names of a certificate, apart as it holds them.
#[derive(Default)]
struct SanList {
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl SanList {
    /// Returns the address, internal address and name of each node.
    ///
    /// A `hostname_override` that is an address becomes a DNS name in RKE (all tags), where no client looks for an address: here
    /// it is an address, as it was meant.
    fn of_nodes<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Self {
        let mut list = Self::default();
        for node in nodes {
            for name in [node.address.as_str(), node.internal_address.as_str(), node.name.as_str()] {
                list.add(name);
            }
        }
        list
    }

    fn add(&mut self, name: &str) {
        match address(name) {
            Some(address) => self.addresses.push(address),
            None if name.is_empty() => {}
            None => self.dns.push(name.to_owned()),
        }
    }

    /// Returns DNS names, then addresses, each once.
    fn into_names(self) -> Vec<String> {
        let mut seen = HashSet::new();
        let names = self.dns.into_iter().chain(self.addresses.iter().map(IpAddr::to_string));
        names.filter(|name| seen.insert(comparable(name))).collect()
    }
}

/// Returns the address of the service `kubernetes`: the first of a range, behind the network's own.
fn first_service_address(range: &str) -> Option<IpAddr> {
    let (address, prefix) = range.trim().split_once('/')?;
    let prefix: u32 = prefix.parse().ok()?;
    Some(match address.parse().ok()? {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(prefix)?).unwrap_or(0);
            Ipv4Addr::from_bits((address.to_bits() & mask).wrapping_add(1)).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(prefix)?).unwrap_or(0);
            Ipv6Addr::from_bits((address.to_bits() & mask).wrapping_add(1)).into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(more: &str) -> Inventory {
        let text = format!(
            "nodes:\n- {{address: 203.0.113.1, internal_address: 10.0.0.1, hostname_override: Cp-1, user: u, role: [controlplane, etcd]}}\n\
             - {{address: W1.example.com, user: u, role: [worker]}}\n{more}"
        );
        Inventory::parse(&text, "cluster.yml").unwrap().inventory
    }

    #[test]
    fn each_range_of_services_gives_its_first_address() {
        let inventory =
            inventory("services: {kube-api: {service_cluster_ip_range: '10.96.3.7/12,FD00:0:0::/108'}}\n");
        let sans = leaf("kube-apiserver", &inventory).unwrap().sans;
        let tail: Vec<&str> = sans.iter().rev().take(3).rev().map(String::as_str).collect();
        assert_eq!(tail, ["127.0.0.1", "10.96.0.1", "fd00::1"]);
        assert_eq!(first_service_address("0.0.0.0/0"), Some(Ipv4Addr::new(0, 0, 0, 1).into()));
        assert_eq!(first_service_address("10.0.0.255/32"), Some(Ipv4Addr::new(10, 0, 1, 0).into()));
        assert_eq!(first_service_address("10.0.0.0/33"), None);
    }

    #[test]
    fn names_and_addresses_are_told_apart_and_named_once() {
        let inventory = inventory(
            "authentication: {strategy: x509, sans: [api.example.com, 10.0.0.1, '::ffff:192.0.2.9', API.example.com]}\n",
        );
        let names = leaf("kube-apiserver", &inventory).unwrap().sans;
        let begin: Vec<&str> = names.iter().take(2).map(String::as_str).collect();
        assert_eq!(begin, ["cp-1", "api.example.com"]);
        assert_eq!(names.iter().filter(|name| name.as_str() == "10.0.0.1").count(), 1);
        assert!(names.contains(&"192.0.2.9".to_owned()));
    }

    #[test]
    fn a_kubelet_has_the_names_of_its_own_node() {
        let inventory = inventory("");
        let kubelet = leaf("kube-kubelet-10-0-0-1", &inventory).unwrap();
        assert_eq!(kubelet.common_name, "kube-kubelet-10-0-0-1");
        assert_eq!(kubelet.sans, ["cp-1", "203.0.113.1", "10.0.0.1"]);
        let worker = leaf("kube-kubelet-W1-example-com", &inventory).unwrap();
        assert_eq!(worker.name, "kube-kubelet-W1-example-com", "the file keeps its name");
        assert_eq!(worker.sans, ["W1.example.com"]);
        assert_eq!(leaf("kube-etcd-w1-example-com", &inventory), None, "not a member of etcd");
    }

    #[test]
    fn what_no_rotation_makes_anew_has_no_leaf() {
        let inventory = inventory("");
        for name in [
            "kube-ca",
            "kube-apiserver-requestheader-ca",
            "kube-service-account-token",
            "kube-etcd-client",
            "kube-etcd-client-ca",
            "kube-etcd-10-0-0-9",
            "kube-kubelet-10-0-0-9",
            "kube-etcd",
            "kubelet",
            "",
        ] {
            assert_eq!(leaf(name, &inventory), None, "{name}");
        }
    }
}
