//! What RKE puts into each certificate, tag by tag, as its sources say: v0.1.17 and v0.1.18 `pki/pki.go` `GenerateRKECerts`,
//! v1.0.0 and v1.6.0 `pki/services.go`, and `GetAltNames`, `GetIPHostAltnamesForHost` and `GetCrtNameForHost` of `pki/util.go`.
//!
//! The tables were written by hand from those files, not through `pki`.

use std::collections::BTreeSet;

use certroll::inventory::Inventory;
use certroll::pki::{Certificate, KeyAlgorithm, Signer, SubjectKey, leaf, new_key};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::authority::{Pair, authority};

const V0_1_17: &str = "v0.1.17";
const V0_1_18: &str = "v0.1.18";
const V1_0_0: &str = "v1.0.0";
const V1_6_0: &str = "v1.6.0";
const ALL: &[&str] = &[V0_1_17, V0_1_18, V1_0_0, V1_6_0];
/// Before file names were written in lower case.
const OLD: &[&str] = &[V0_1_17, V0_1_18, V1_0_0];
const SERVING: &[&str] = &[V1_0_0, V1_6_0];

/// Addresses of every kind: with an internal one, with a name that is an address, a host name in mixed case.
const CLUSTER: &str = "
nodes:
- {address: 203.0.113.11, internal_address: 10.1.0.11, hostname_override: CP-1, user: u, role: [controlplane, etcd]}
- {address: 203.0.113.12, internal_address: 10.1.0.12, hostname_override: 10.1.0.12, user: u, role: [controlplane, etcd]}
- {address: Etcd3.example.com, user: u, role: [etcd]}
- {address: w1.example.com, internal_address: 10.1.0.21, hostname_override: w1, user: u, role: [worker]}
authentication: {strategy: x509, sans: [api.example.com, '*.example.net', 198.51.100.7]}
services:
  kube-api: {service_cluster_ip_range: 10.96.0.0/12}
  kubelet: {cluster_domain: k8s.example.org, generate_serving_certificate: true}
";

/// Two stacks, which only the newest tags read.
const DUAL_STACK: &str = "
nodes:
- {address: '2001:db8::11', internal_address: 'fd00:1::11', hostname_override: six, user: u, role: [controlplane, etcd, worker]}
services:
  kube-api: {service_cluster_ip_range: '10.43.0.0/16,fd00:43::/112'}
  kubelet: {generate_serving_certificate: true}
";

/// One certificate of some tags.
struct Row {
    tags: &'static [&'static str],
    name: &'static str,
    subject: &'static str,
    usage: &'static str,
    issuer: &'static str,
    sans: &'static [&'static str],
}

const fn client(name: &'static str, subject: &'static str) -> Row {
    Row { tags: ALL, name, subject, usage: "client", issuer: "kube-ca", sans: &[] }
}

const fn server(
    tags: &'static [&'static str],
    name: &'static str,
    subject: &'static str,
    sans: &'static [&'static str],
) -> Row {
    Row { tags, name, subject, usage: "client server", issuer: "kube-ca", sans }
}

/// `hostname_override: 10.1.0.12` is a DNS name to every tag; it is left out here, and its address is an address anyway.
const API_NAMES: &[&str] = &[
    "IP:203.0.113.11",
    "IP:10.1.0.11",
    "DNS:cp-1",
    "IP:203.0.113.12",
    "IP:10.1.0.12",
    "DNS:api.example.com",
    "DNS:*.example.net",
    "IP:198.51.100.7",
    "IP:127.0.0.1",
    "IP:10.96.0.1",
    "DNS:localhost",
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    "DNS:kubernetes.default.svc.k8s.example.org",
];
/// Without `authentication.sans`.
const ETCD_NAMES: &[&str] = &[
    "IP:203.0.113.11",
    "IP:10.1.0.11",
    "DNS:cp-1",
    "IP:203.0.113.12",
    "IP:10.1.0.12",
    "DNS:etcd3.example.com",
    "IP:127.0.0.1",
    "IP:10.96.0.1",
    "DNS:localhost",
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    "DNS:kubernetes.default.svc.k8s.example.org",
];

const ROWS: &[Row] = &[
    server(ALL, "kube-apiserver", "CN=kube-apiserver", API_NAMES),
    Row {
        tags: ALL,
        name: "kube-apiserver-proxy-client",
        subject: "CN=kube-apiserver-proxy-client",
        usage: "client server",
        issuer: "kube-apiserver-requestheader-ca",
        sans: &[],
    },
    client("kube-controller-manager", "CN=system:kube-controller-manager"),
    client("kube-scheduler", "CN=system:kube-scheduler"),
    client("kube-proxy", "CN=system:kube-proxy"),
    client("kube-node", "O=system:nodes, CN=system:node"),
    client("kube-admin", "O=system:masters, CN=kube-admin"),
    server(ALL, "kube-etcd-10-1-0-11", "CN=kube-etcd", ETCD_NAMES),
    server(ALL, "kube-etcd-10-1-0-12", "CN=kube-etcd", ETCD_NAMES),
    server(OLD, "kube-etcd-Etcd3-example-com", "CN=kube-etcd", ETCD_NAMES),
    server(&[V1_6_0], "kube-etcd-etcd3-example-com", "CN=kube-etcd", ETCD_NAMES),
    server(
        SERVING,
        "kube-kubelet-10-1-0-11",
        "CN=kube-kubelet-10-1-0-11",
        &["IP:203.0.113.11", "IP:10.1.0.11", "DNS:cp-1"],
    ),
    server(
        SERVING,
        "kube-kubelet-10-1-0-12",
        "CN=kube-kubelet-10-1-0-12",
        &["IP:203.0.113.12", "IP:10.1.0.12"],
    ),
    server(
        &[V1_0_0],
        "kube-kubelet-Etcd3-example-com",
        "CN=kube-kubelet-Etcd3-example-com",
        &["DNS:etcd3.example.com"],
    ),
    server(
        &[V1_6_0],
        "kube-kubelet-etcd3-example-com",
        "CN=kube-kubelet-etcd3-example-com",
        &["DNS:etcd3.example.com"],
    ),
    server(
        SERVING,
        "kube-kubelet-10-1-0-21",
        "CN=kube-kubelet-10-1-0-21",
        &["DNS:w1.example.com", "IP:10.1.0.21", "DNS:w1"],
    ),
];

const DUAL_STACK_NAMES: &[&str] = &[
    "IP:2001:db8::11",
    "IP:fd00:1::11",
    "DNS:six",
    "IP:127.0.0.1",
    "IP:10.43.0.1",
    "IP:fd00:43::1",
    "DNS:localhost",
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    "DNS:kubernetes.default.svc.cluster.local",
];
/// Colons stay in the names of files.
const DUAL_STACK_ROWS: &[Row] = &[
    server(&[V1_6_0], "kube-apiserver", "CN=kube-apiserver", DUAL_STACK_NAMES),
    server(&[V1_6_0], "kube-etcd-fd00:1::11", "CN=kube-etcd", DUAL_STACK_NAMES),
    server(
        &[V1_6_0],
        "kube-kubelet-fd00:1::11",
        "CN=kube-kubelet-fd00:1::11",
        &["IP:2001:db8::11", "IP:fd00:1::11", "DNS:six"],
    ),
];

/// The names that a rotation of each tag makes anew, in a cluster of [`CLUSTER`].
const COUNTS: [(&str, usize); 4] = [(V0_1_17, 10), (V0_1_18, 10), (V1_0_0, 14), (V1_6_0, 14)];

/// Returns the alternative names with their kinds; DNS names in lower case, in which clients compare them.
fn names(certificate: &Certificate) -> BTreeSet<String> {
    let (_, parsed) = X509Certificate::from_der(&certificate.der).unwrap();
    let Some(extension) = parsed.subject_alternative_name().unwrap() else { return BTreeSet::new() };
    let names = &extension.value.general_names;
    let mut texts = certificate.sans.iter();
    names
        .iter()
        .map(|name| match name {
            GeneralName::DNSName(name) => {
                texts.next().unwrap();
                format!("DNS:{}", name.to_lowercase())
            }
            GeneralName::IPAddress(_) => format!("IP:{}", texts.next().unwrap()),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn usage(certificate: &Certificate) -> String {
    let (_, parsed) = X509Certificate::from_der(&certificate.der).unwrap();
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    let words = [(usage.client_auth, "client"), (usage.server_auth, "server")];
    words.iter().filter(|(has, _)| *has).map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
}

fn holds(rows: &[Row], cluster: &str) {
    let inventory = Inventory::parse(cluster, "cluster.yml").unwrap().inventory;
    let Pair { certificate, key } = authority(&rcgen::PKCS_ECDSA_P256_SHA256);
    let signer = Signer::new(certificate.as_bytes(), &key).unwrap();
    let key = new_key(KeyAlgorithm::EcdsaP256).unwrap();
    for row in rows {
        let context = format!("{} of {}", row.name, row.tags.join(", "));
        let leaf = leaf(row.name, &inventory).unwrap_or_else(|| panic!("no leaf for {context}"));
        assert_eq!((leaf.name.as_str(), leaf.authority.name()), (row.name, row.issuer), "{context}");
        let end = signer.certificate().not_after;
        let made = signer.issue(&leaf, SubjectKey::Pem(&key), 1, end).unwrap();
        assert_eq!(made.subject, row.subject, "{context}");
        assert_eq!(usage(&made), row.usage, "{context}");
        let expected: BTreeSet<String> = row.sans.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(names(&made), expected, "{context}");
    }
}

#[test]
fn every_tag_of_rke_finds_its_certificates() {
    for (tag, count) in COUNTS {
        assert_eq!(ROWS.iter().filter(|row| row.tags.contains(&tag)).count(), count, "{tag}");
    }
    holds(ROWS, CLUSTER);
}

#[test]
fn two_stacks_are_in_the_certificates() {
    holds(DUAL_STACK_ROWS, DUAL_STACK);
}
