//! Layouts: which files and containers a simulated cluster begins with, and how old they are.
//!
//! `Fleet::start` asks for one; the embedded RKE makes new leaves with the same [`Catalogue`].

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::{SignedDuration, Timestamp};

use super::SimError;
use super::authority::{self, Pair, Subject, Usage, Validity};
use super::clock::lock;
use super::files::{Attributes, Owner};
use super::machine::{KubeletServing, Machine, SimNode, World};
use crate::inventory::{Inventory, Role};

/// What a simulated cluster looks like when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// From before rke 0.1.9: leaves of one year that expired three days ago; `.tmp` lacks the four requestheader and proxy-client
    /// files; no service account token pair.
    LegacyExpired,
    /// The same, without `.tmp`.
    LegacyTmpMissing,
    /// As [`Self::LegacyExpired`], before it happens: leaves of one year that expire in 20 days.
    LegacyExpiring,
    /// rke 0.2: leaves of ten years, half a year old; no `.tmp`.
    Healthy,
    /// rke 0.2: leaves that expire in 20 days.
    ExpiringSoon,
    /// rke 0.2: leaves that expired three days ago.
    Expired028,
}

impl Layout {
    /// Returns whether rke 0.1 laid the cluster out.
    pub(crate) fn is_legacy(self) -> bool {
        matches!(self, Self::LegacyExpired | Self::LegacyTmpMissing | Self::LegacyExpiring)
    }

    /// Returns whether controlplane and etcd nodes have a `.tmp`.
    fn has_bundle(self) -> bool {
        matches!(self, Self::LegacyExpired | Self::LegacyExpiring)
    }

    /// Returns the file that service account tokens are signed with.
    pub(crate) fn service_account_key(self) -> &'static str {
        if self.is_legacy() { "kube-apiserver-key.pem" } else { "kube-service-account-token-key.pem" }
    }

    fn validity(self, now: Timestamp) -> Validity {
        let (from, to) = match self {
            Self::LegacyExpired | Self::LegacyTmpMissing => (-368, -3),
            Self::LegacyExpiring => (-345, 20),
            Self::Healthy => (-180, 3650 - 180),
            Self::ExpiringSoon => (20 - 3650, 20),
            Self::Expired028 => (-3653, -3),
        };
        Validity { not_before: days(now, from), not_after: days(now, to) }
    }
}

/// Returns an instant some days from another.
pub(crate) fn days(from: Timestamp, count: i64) -> Timestamp {
    from.saturating_add(SignedDuration::from_hours(24 * count)).unwrap_or(from)
}

/// How long RKE from 0.1.18 on lets a leaf live, in days.
pub(crate) const LEAF_DAYS: i64 = 3650;

/// The certificates of a cluster: what each says, and on which nodes it lies.
#[derive(Debug, Clone)]
pub(crate) struct Catalogue {
    api_names: Vec<String>,
    etcd_names: Vec<String>,
    /// The dashed addresses of the etcd members.
    members: Vec<String>,
    /// The dashed addresses of the nodes whose kubelet serves a certificate of the cluster, with their names.
    kubelets: Vec<(String, Vec<String>)>,
}

impl Catalogue {
    /// Returns the catalogue of a cluster, with the names that its certificates carry (RKE `pki/util.go` `GetAltNames`).
    ///
    /// A node's address is the one at which it really listens.
    pub(crate) fn of(inventory: &Inventory, doors: &[SocketAddr]) -> Self {
        let service = |range: &String| {
            let address: std::net::Ipv4Addr = range.split('/').next()?.parse().ok()?;
            Some(std::net::Ipv4Addr::from(u32::from(address).saturating_add(1)).to_string())
        };
        let names = |role: Role, extra: &[String]| {
            let mut names = Vec::new();
            for (node, door) in inventory.nodes.iter().zip(doors).filter(|(node, _)| node.has(role)) {
                names.extend([node.name.to_string(), door.ip().to_string(), node.internal_address.clone()]);
            }
            names.extend(extra.iter().cloned());
            let domain = &inventory.cluster_domain;
            names.extend(
                ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
                    .map(str::to_owned),
            );
            names.push(format!("kubernetes.default.svc.{domain}"));
            names.push("127.0.0.1".to_owned());
            names.extend(inventory.service_cluster_ip_ranges.iter().filter_map(service));
            let mut unique: Vec<String> = Vec::new();
            for name in names.into_iter().filter(|name| !name.is_empty()) {
                if !unique.contains(&name) {
                    unique.push(name);
                }
            }
            unique
        };
        let kubelet = |(node, door): (&crate::inventory::Node, &SocketAddr)| {
            let mut names = vec![door.ip().to_string(), node.internal_address.clone(), node.name.to_string()];
            names.retain(|name| !name.is_empty());
            (node.file_name_address(), names)
        };
        let nodes = inventory.nodes.iter().zip(doors);
        Self {
            kubelets: nodes.filter(|_| inventory.generate_serving_certificate).map(kubelet).collect(),
            api_names: names(Role::ControlPlane, &inventory.authentication_sans),
            etcd_names: names(Role::Etcd, &[]),
            members: inventory.with_role(Role::Etcd).map(crate::inventory::Node::file_name_address).collect(),
        }
    }

    /// Returns the leaves that kube-ca signs; the service account token is not among them.
    pub(crate) fn leaves(&self) -> Vec<(String, Subject)> {
        let client = |name: &str, common_name: &str, organization| {
            let subject = Subject {
                common_name: common_name.to_owned(),
                organization,
                usage: Usage::Client,
                names: Vec::new(),
            };
            (name.to_owned(), subject)
        };
        let server = |name: String, common_name: &str, names: &[String]| {
            let subject = Subject {
                common_name: common_name.to_owned(),
                organization: None,
                usage: Usage::ClientAndServer,
                names: names.to_vec(),
            };
            (name, subject)
        };
        let mut leaves = vec![
            server("kube-apiserver".to_owned(), "kube-apiserver", &self.api_names),
            client("kube-controller-manager", "system:kube-controller-manager", None),
            client("kube-scheduler", "system:kube-scheduler", None),
            client("kube-proxy", "system:kube-proxy", None),
            client("kube-node", "system:node", Some("system:nodes")),
            client("kube-admin", "kube-admin", Some("system:masters")),
        ];
        for member in &self.members {
            leaves.push(server(format!("kube-etcd-{member}"), "kube-etcd", &self.etcd_names));
        }
        for (address, names) in &self.kubelets {
            let name = format!("kube-kubelet-{address}");
            leaves.push(server(name.clone(), &name, names));
        }
        leaves
    }
}

/// The subject of kube-apiserver's client certificate for extension servers.
pub(crate) fn proxy_client() -> Subject {
    Subject {
        common_name: "kube-apiserver-proxy-client".to_owned(),
        organization: None,
        usage: Usage::ClientAndServer,
        names: Vec::new(),
    }
}

/// The pairs of a cluster by name: authorities and leaves.
pub(crate) type Bundle = BTreeMap<String, Pair>;

/// Makes every pair of a cluster.
///
/// The ones that are named as such get keys of an elliptic curve, as they have where a person brought certificates of his own.
pub(crate) fn make_bundle(
    layout: Layout,
    (catalogue, elliptic): (&Catalogue, &[String]),
    now: Timestamp,
) -> Result<Bundle, SimError> {
    let validity = layout.validity(now);
    let lifetime = Validity {
        not_before: validity.not_before,
        not_after: days(validity.not_before, 10 * 365).max(days(now, 2000)),
    };
    let leaves = catalogue.leaves();
    let mut keys = authority::make_keys(leaves.len() + 4)?.into_iter();
    let mut key = |name: &str| {
        if elliptic.iter().any(|elliptic| elliptic == name) {
            return authority::make_elliptic_key();
        }
        keys.next().ok_or(SimError::Internal("a key is missing"))
    };
    let ca = authority::make_authority("kube-ca", key("kube-ca")?, lifetime)?;
    let name = "kube-apiserver-requestheader-ca";
    let header_ca = authority::make_authority(name, key(name)?, lifetime)?;
    let mut bundle = Bundle::new();
    for (name, subject) in leaves {
        let key = key(&name)?;
        bundle.insert(name, authority::make_leaf(&ca, &subject, key, validity)?);
    }
    let subject = proxy_client();
    let key_of_it = key(&subject.common_name)?;
    bundle.insert(
        subject.common_name.clone(),
        authority::make_leaf(&header_ca, &subject, key_of_it, validity)?,
    );
    if !layout.is_legacy() {
        let subject = token_subject();
        let pair = authority::make_leaf(&ca, &subject, key(SERVICE_ACCOUNT)?, validity)?;
        bundle.insert(SERVICE_ACCOUNT.to_owned(), pair);
    }
    bundle.insert("kube-ca".to_owned(), ca);
    bundle.insert("kube-apiserver-requestheader-ca".to_owned(), header_ca);
    Ok(bundle)
}

/// The pair whose key signs service account tokens, from rke 0.2 on.
pub(crate) const SERVICE_ACCOUNT: &str = "kube-service-account-token";

/// The subject of that pair.
pub(crate) fn token_subject() -> Subject {
    Subject {
        common_name: SERVICE_ACCOUNT.to_owned(),
        organization: None,
        usage: Usage::Client,
        names: Vec::new(),
    }
}

/// The names of the four files without which Rancher 2.2 loops.
const LATE_PAIRS: [&str; 2] = ["kube-apiserver-requestheader-ca", "kube-apiserver-proxy-client"];

/// Returns the pairs that belong into a node's `ssl`.
pub(crate) fn names_for(node: &SimNode, bundle: &Bundle) -> Vec<String> {
    let belongs = |name: &&String| match name.as_str() {
        "kube-ca" | "kube-proxy" | "kube-node" => true,
        "kube-admin" => false,
        name if name.starts_with("kube-etcd-") => node.has(Role::Etcd),
        name if name.starts_with("kube-kubelet-") => true,
        _ => node.has(Role::ControlPlane),
    };
    bundle.keys().filter(belongs).cloned().collect()
}

/// Returns a kubecfg file that refers to a pair (RKE `pki/kubeconfig.go`).
pub(crate) fn kubeconfig(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    api-version: v1\n    certificate-authority: /etc/kubernetes/ssl/kube-ca.pem\n    \
         server: \"https://127.0.0.1:6443\"\n  name: \"local\"\ncontexts:\n- context:\n    cluster: \"local\"\n    user: \"{name}-local\"\n  \
         name: \"local\"\ncurrent-context: \"local\"\nusers:\n- name: \"{name}-local\"\n  user:\n    \
         client-certificate: /etc/kubernetes/ssl/{name}.pem\n    client-key: /etc/kubernetes/ssl/{name}-key.pem\n"
    )
}

/// The pairs that have a kubecfg file.
const WITH_KUBECONFIG: [&str; 7] = [
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kube-node",
    "kube-admin",
    "kube-apiserver-proxy-client",
    "kube-apiserver-requestheader-ca",
];

/// Writes pairs into a folder of a node, as RKE's cert-deployer does: a kubecfg file only where there is none.
pub(crate) fn deploy(
    node: &SimNode,
    folder: &str,
    bundle: &Bundle,
    names: &[String],
    modified: Timestamp,
) -> Result<(), SimError> {
    let plain = Attributes { mode: 0o600, owner: Owner::ROOT, modified };
    let mut machine = lock(&node.machine);
    for name in names {
        let Some(pair) = bundle.get(name) else { continue };
        // cert-deployer gives etcd's files to the owner that `services.etcd` names, and lets it read the authority.
        let attributes = match node.etcd_owner {
            Some(owner) if name.starts_with("kube-etcd-") => Attributes { owner, ..plain },
            Some(_) if name == "kube-ca" => Attributes { mode: 0o644, ..plain },
            _ => plain,
        };
        // Its `echo` ends a file with a line of its own.
        let mut write = |file: &str, content: &str, attributes| {
            install(
                &mut machine,
                format!("{folder}/{file}"),
                &format!("{}\n\n", content.trim_end()),
                attributes,
            )
        };
        write(&format!("{name}.pem"), &pair.certificate, attributes)?;
        // Nodes that are not control plane nodes do not get the key of kube-ca, except in `.tmp`.
        if name != "kube-ca" || node.has(Role::ControlPlane) || folder.ends_with("/.tmp") {
            let attributes = if name == "kube-ca" { plain } else { attributes };
            write(&format!("{name}-key.pem"), &pair.key, attributes)?;
        }
        let kubecfg = format!("kubecfg-{name}.yaml");
        if WITH_KUBECONFIG.contains(&name.as_str())
            && machine.files.read(Owner::ROOT, &format!("{folder}/{kubecfg}")).is_err()
        {
            install(&mut machine, format!("{folder}/{kubecfg}"), &kubeconfig(name), plain)?;
        }
    }
    Ok(())
}

fn install(
    machine: &mut Machine,
    path: String,
    content: &str,
    attributes: Attributes,
) -> Result<(), SimError> {
    let result = machine.files.install(&path, content.as_bytes(), attributes);
    result.map_err(|error| SimError::File { path, error: error.to_string() })
}

/// What every node begins with.
#[derive(Debug)]
pub(crate) struct Beginning<'a> {
    pub(crate) layout: Layout,
    pub(crate) bundle: &'a Bundle,
    /// What `ssl/certs/serverca` holds, where Rancher launched the cluster.
    pub(crate) server_ca: Option<&'a str>,
}

impl Beginning<'_> {
    /// Fills a node's file system.
    pub(crate) fn fill(&self, world: &World, node: &SimNode) -> Result<(), SimError> {
        let written = self.written_at(world.clock.now());
        let home =
            if node.login.who.is_root() { "/root".to_owned() } else { format!("/home/{}", node.login.name) };
        let kubernetes = node.kubernetes_folder();
        {
            let mut machine = lock(&node.machine);
            let failed = |path: &str| {
                let path = path.to_owned();
                move |error: super::files::Errno| SimError::File { path, error: error.to_string() }
            };
            for folder in [
                "/etc",
                "/var/run",
                "/var/lib/docker",
                "/tmp",
                "/root",
                home.as_str(),
                &format!("{kubernetes}/ssl"),
            ] {
                machine.files.make_directories(folder).map_err(failed(folder))?;
            }
            for (folder, mode) in [
                ("/tmp".to_owned(), 0o1777),
                ("/root".to_owned(), 0o700),
                (format!("{kubernetes}/ssl"), 0o700),
            ] {
                machine.files.set_mode(Owner::ROOT, &folder, mode).map_err(failed(&folder))?;
            }
            machine.files.set_owner(Owner::ROOT, &home, node.login.who).map_err(failed(&home))?;
            let mut install = |path: String, content: &str, mode| {
                install(
                    &mut machine,
                    path,
                    content,
                    Attributes { mode, owner: Owner::ROOT, modified: written },
                )
            };
            install("/etc/hostname".to_owned(), &format!("{}\n", node.name), 0o644)?;
            install("/etc/os-release".to_owned(), "PRETTY_NAME=\"Ubuntu 18.04.3 LTS\"\nID=ubuntu\n", 0o644)?;
            if let Some(server_ca) = self.server_ca {
                install(format!("{kubernetes}/ssl/certs/serverca"), server_ca, 0o600)?;
            }
        }
        if node.kubelet_serving == KubeletServing::Own {
            let key = &world.kubelet_authority.key;
            let pair = kubelet_pair(key, key.clone(), node, days(world.clock.now(), -324))?;
            install_kubelet_pair(node, &pair, written)?;
        }
        deploy(node, &format!("{kubernetes}/ssl"), self.bundle, &names_for(node, self.bundle), written)?;
        if self.layout.has_bundle() && !node.is_worker_only() {
            let legacy = |name: &&String| !LATE_PAIRS.contains(&name.as_str());
            let names: Vec<String> = self.bundle.keys().filter(legacy).cloned().collect();
            deploy(node, &format!("{kubernetes}/.tmp"), self.bundle, &names, written)?;
            let mode = lock(&node.machine).files.set_mode(Owner::ROOT, &format!("{kubernetes}/.tmp"), 0o700);
            mode.map_err(|error| SimError::File { path: ".tmp".to_owned(), error: error.to_string() })?;
        }
        Ok(())
    }

    /// Returns when the files were written: shortly before the containers started.
    pub(crate) fn written_at(&self, now: Timestamp) -> Timestamp {
        self.layout.validity(now).not_before
    }
}

/// Makes a serving pair for a kubelet as kubelet does when it finds none: valid for a year, by an authority of its own that it
/// throws away (client-go `GenerateSelfSignedCertKey`).
fn kubelet_pair(
    authority_key: &str,
    key: String,
    node: &SimNode,
    not_before: Timestamp,
) -> Result<Pair, SimError> {
    let (name, seconds) = (&node.name, not_before.as_second());
    let validity = Validity { not_before, not_after: days(not_before, 365) };
    let authority =
        authority::make_authority(&format!("{name}-ca@{seconds}"), authority_key.to_owned(), validity)?;
    let subject = Subject {
        common_name: format!("{name}@{seconds}"),
        organization: None,
        usage: Usage::Server,
        names: vec![name.to_string()],
    };
    let pair = authority::make_leaf(&authority, &subject, key, validity)?;
    Ok(Pair { certificate: format!("{}{}", pair.certificate, authority.certificate), key: pair.key })
}

/// Makes kubelet's own serving pair where it is missing.
pub(crate) fn renew_kubelet_pair(world: &World, node: &SimNode) {
    if ["kubelet.crt", "kubelet.key"].iter().all(|file| node.read(&node.kubelet_file(file)).is_some()) {
        return;
    }
    let now = node.now(&world.clock);
    // A kubelet that cannot write its pair goes on without one, and nothing answers on its port.
    let Some(key) = world.keys.take(1).ok().and_then(|mut keys| keys.pop()) else { return };
    if let Ok(pair) = kubelet_pair(&world.kubelet_authority.key, key, node, now) {
        let _ = install_kubelet_pair(node, &pair, now);
    }
}

fn install_kubelet_pair(node: &SimNode, pair: &Pair, modified: Timestamp) -> Result<(), SimError> {
    let mut machine = lock(&node.machine);
    for (file, content, mode) in
        [("kubelet.crt", &pair.certificate, 0o644), ("kubelet.key", &pair.key, 0o600)]
    {
        install(
            &mut machine,
            node.kubelet_file(file),
            content,
            Attributes { mode, owner: Owner::ROOT, modified },
        )?;
    }
    Ok(())
}
