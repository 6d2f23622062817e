//! A cluster is the file as a whole: what all nodes share, and what holds between nodes.
//!
//! `Inventory::parse` reads it here. Defaults are those of RKE's `cluster/defaults.go`, checks those of
//! `cluster/validation.go`, and the ones that RKE lacks: a cluster without controlplane, internal addresses given twice.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::fields::Fields;
use super::machine::{self, DraftNode, SshDefaults};
use super::notes::{Noted, Notes};
use super::source::{Place, Source, quoted};
use super::tree::{self, Located, Value};
use super::{InvalidInventory, Inventory, MaxUnavailable, Parsed, Problem, Role, ValueOrigin, keys, schema};
use crate::finding::Finding;

/// What messages call the top of the file.
const FILE: &str = "the file";
/// The key beneath which Rancher's "Edit as YAML" has the cluster.
const RANCHER: &str = "rancher_kubernetes_engine_config";
/// RKE's `DefaultClusterSSHKeyPath`.
const SSH_KEY_PATH: &str = "~/.ssh/id_rsa";
/// RKE's `DefaultClusterName`.
const CLUSTER_NAME: &str = "local";
/// RKE's `DefaultServiceClusterIPRange`.
const SERVICE_CLUSTER_IP_RANGE: &str = "10.43.0.0/16";
/// RKE's `DefaultClusterDomain`.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// Reads a file.
pub(super) fn parse(text: &str, name: &str) -> Result<Parsed, InvalidInventory> {
    if text.len() as u64 > Inventory::LARGEST_TEXT {
        let message = format!("the file is larger than {} MiB", Inventory::LARGEST_TEXT / 1024 / 1024);
        let problem = Problem::new(&Source::new(name, ""), Place::START, message);
        return Err(problem.with_hint("name a `cluster.yml` of RKE").into());
    }
    let source = Source::new(name, text);
    let documents = tree::read(text, &source)?;
    let mut notes = Notes::new(&source);
    if let Some(second) = documents.get(1) {
        let message =
            format!("only the first YAML document is read, as RKE does ({})", notes.locate(second.place));
        notes.find(Finding::warning("more-documents", message).hint("remove what follows the second `---`"));
    }
    let top = match documents.first() {
        Some(document) => top(document, &source, &mut notes)?,
        None => Fields::empty(Place::START, FILE),
    };
    let inventory = read(&top, &mut notes);
    Ok(Parsed { inventory, findings: notes.finish()? })
}

/// Returns the entries of a document, after a look at its keys.
fn top<'t>(
    document: &'t Located,
    source: &Source<'_>,
    notes: &mut Notes<'_>,
) -> Result<Fields<'t>, InvalidInventory> {
    if matches!(document.value, Value::Scalar(_) | Value::List(_)) {
        return Err(Problem::new(source, document.place, "the file is not a cluster.yml")
            .label("a `nodes:` line and others are expected at the top")
            .with_hint("name a `cluster.yml` of RKE")
            .into());
    }
    let Ok(Some(top)) = Fields::of(document, FILE, notes) else {
        return Ok(Fields::empty(document.place, FILE));
    };
    let level = if top.entry(RANCHER).is_some() { &schema::RANCHER_CLUSTER } else { &schema::CLUSTER };
    keys::check(document, level, notes);
    Ok(top)
}

/// Reads the cluster from the top of its file.
fn read(top: &Fields<'_>, notes: &mut Notes<'_>) -> Inventory {
    let rancher = top.entry(RANCHER);
    let cluster = match rancher {
        Some(_) => top.fields(RANCHER, notes).or(top),
        None => top.clone(),
    };
    let services = Services::read(&cluster.fields("services", notes), notes);
    let authentication = cluster.fields("authentication", notes);
    check_authentication(&authentication, notes);
    note_rotation(&cluster, notes);
    let key_path = cluster.string("ssh_key_path", notes);
    let defaults = SshDefaults {
        key_path_origin: if key_path.is_some() { ValueOrigin::File } else { ValueOrigin::Default },
        key_path: key_path.unwrap_or_else(|| SSH_KEY_PATH.to_owned()),
        agent: cluster.flag("ssh_agent_auth", notes),
    };
    let external_etcd_urls = external_etcd(&services.etcd, notes);
    let drafts = nodes(&cluster, &defaults, notes);
    if !drafts.is_empty() {
        check_duplicates(&drafts, notes);
        check_roles(&drafts, &cluster, !external_etcd_urls.is_empty(), notes);
    }
    let name = cluster.string("cluster_name", notes);
    let rancher_name = || rancher.and_then(|_| top.string("name", notes));
    Inventory {
        cluster_name: name.or_else(rancher_name).unwrap_or_else(|| CLUSTER_NAME.to_owned()),
        kubernetes_version: kubernetes_version(&cluster, notes),
        prefix_path: prefix_path(&cluster, notes),
        bastion: machine::bastion(&cluster.fields("bastion_host", notes), &defaults, notes),
        authentication_sans: authentication.strings("sans", notes),
        service_cluster_ip_ranges: service_cluster_ip_ranges(&services.kube_api, notes),
        cluster_domain: services
            .kubelet
            .string("cluster_domain", notes)
            .unwrap_or_else(|| CLUSTER_DOMAIN.to_owned()),
        generate_serving_certificate: services.kubelet.flag("generate_serving_certificate", notes),
        ignore_docker_version: cluster.flag("ignore_docker_version", notes),
        etcd_owner: etcd_owner(&services.etcd, notes),
        max_unavailable_worker: max_unavailable_worker(&cluster.fields("upgrade_strategy", notes), notes),
        system_images: system_images(&cluster, notes),
        nodes: drafts.into_iter().map(|draft| draft.node).collect(),
        external_etcd_urls,
    }
}

/// The services that shape certificates.
struct Services<'t> {
    etcd: Fields<'t>,
    kube_api: Fields<'t>,
    kubelet: Fields<'t>,
}

impl<'t> Services<'t> {
    fn read(services: &Fields<'t>, notes: &mut Notes<'_>) -> Self {
        for (old, new) in [("kube_api", "kube-api"), ("kube_controller", "kube-controller")] {
            if let Some(entry) = services.entry(old) {
                let place = notes.locate(entry.place);
                let message =
                    format!("`{old}` is the name that Rancher 2.0.5 and 2.0.6 gave to `{new}` ({place})");
                notes.find(
                    Finding::info("old-service-name", message)
                        .hint("the `rke` command and other versions of Rancher do not read it"),
                );
            }
        }
        let kube_api = services.fields("kube-api", notes).or(&services.fields("kube_api", notes));
        Self { etcd: services.fields("etcd", notes), kube_api, kubelet: services.fields("kubelet", notes) }
    }
}

/// Reads the nodes; none where the file is refused for them.
fn nodes(cluster: &Fields<'_>, defaults: &SshDefaults, notes: &mut Notes<'_>) -> Vec<DraftNode> {
    let Ok(items) = cluster.nodes("nodes", notes) else { return Vec::new() };
    if items.is_empty() {
        let rancher = cluster.entry(RANCHER).is_some();
        let place = cluster.place_of("nodes");
        notes.refuse(place, "the file lists no nodes", |problem| {
            problem.label("no `nodes:`").with_hint(if rancher {
                "Rancher leaves the nodes out of its YAML: add `nodes:` with address, user and role of each, or let `certroll import rancher` write the file"
            } else {
                "add `nodes:` with address, user and role of each"
            })
        });
    }
    let drafts: Vec<_> =
        items.iter().enumerate().map(|(index, item)| node(index, item, defaults, notes)).collect();
    // What holds between nodes cannot be told where one of them is not read.
    drafts.into_iter().collect::<Result<_, Noted>>().unwrap_or_default()
}

fn node(
    index: usize,
    item: &Located,
    defaults: &SshDefaults,
    notes: &mut Notes<'_>,
) -> Result<DraftNode, Noted> {
    // RKE counts hosts from 1 in its messages.
    let name = format!("host ({})", index + 1);
    let fields = Fields::of(item, &name, notes)?.unwrap_or_else(|| Fields::empty(item.place, &name));
    Ok(machine::node(&fields, defaults, notes))
}

/// Notes addresses and names that two nodes share.
fn check_duplicates(drafts: &[DraftNode], notes: &mut Notes<'_>) {
    let addresses = drafts.iter().map(|draft| (draft.node.address.as_str(), draft.address_place));
    let names = drafts.iter().map(|draft| (draft.node.name.as_str(), draft.name_place));
    let internal =
        drafts.iter().map(|draft| (draft.node.internal_address.as_str(), draft.internal_address_place));
    let kinds: [(&str, Vec<_>); 3] = [
        ("address", addresses.collect()),
        ("name", names.collect()),
        ("internal address", internal.collect()),
    ];
    let mut reported = Vec::new();
    for (kind, values) in kinds {
        let mut first: HashMap<&str, Place> = HashMap::new();
        for (value, place) in values.into_iter().filter(|(value, _)| !value.is_empty()) {
            let Some(earlier) = first.insert(value, place) else { continue };
            // An address that is given twice is a name and an internal address that is given twice as well.
            if reported.contains(&place) {
                continue;
            }
            reported.push(place);
            notes.refuse(place, format!("cluster can't have duplicate node: {}", quoted(value)), |problem| {
                problem
                    .label(format!("the same {kind} as in line {}", earlier.line))
                    .with_hint("remove one of the nodes, or correct it")
            });
        }
    }
}

/// Notes planes without a host, and an etcd that a failure hurts more than it should.
fn check_roles(drafts: &[DraftNode], cluster: &Fields<'_>, external_etcd: bool, notes: &mut Notes<'_>) {
    let count = |role| drafts.iter().filter(|draft| draft.node.has(role)).count();
    let complete = drafts.iter().all(|draft| draft.roles_understood);
    let place = cluster.entry("nodes").map_or(cluster.place(), |entry| entry.place);
    let etcd = count(Role::Etcd);
    if etcd == 0 && !external_etcd && complete {
        notes.refuse(place, "cluster must have at least one etcd plane host", |problem| {
            problem
                .label("no node has the role `etcd`")
                .with_hint("add `etcd` to the `role` of the nodes that run it")
        });
    }
    if etcd > 0 && external_etcd {
        notes.refuse(place, "cluster can't have both internal and external etcd", |problem| {
            problem
                .label("nodes have the role `etcd`")
                .with_hint("remove that role, or `services.etcd.external_urls`")
        });
    }
    if count(Role::ControlPlane) == 0 && complete {
        notes.refuse(place, "cluster must have at least one controlplane host", |problem| {
            problem
                .label("no node has the role `controlplane`")
                .with_hint("add `controlplane` to the `role` of the nodes that run kube-apiserver")
        });
    }
    if etcd > 0 && etcd % 2 == 0 {
        let message = format!("etcd has {etcd} members: it survives no more failures than with {}", etcd - 1);
        notes.find(
            Finding::warning("even-etcd", message).hint("an odd number of etcd nodes is the better choice"),
        );
    }
}

/// Reads the URLs of an external etcd and checks what goes with them.
fn external_etcd(etcd: &Fields<'_>, notes: &mut Notes<'_>) -> Vec<String> {
    let urls = etcd.strings("external_urls", notes);
    let companions = [
        ("ca_cert", "external CA certificate for etcd can't be empty"),
        ("cert", "external client certificate for etcd can't be empty"),
        ("key", "external client key for etcd can't be empty"),
        ("path", "external etcd path can't be empty"),
    ];
    for (key, message) in companions {
        if !urls.is_empty() && matches!(etcd.text(key, notes), Ok(None)) {
            notes.refuse(etcd.place_of("external_urls"), message, |problem| {
                problem
                    .label(format!("needs `services.etcd.{key}`"))
                    .with_hint(format!("add `{key}:` beneath `services.etcd`"))
            });
        }
    }
    urls
}

/// Notes an authentication that has no certificates.
fn check_authentication(authentication: &Fields<'_>, notes: &mut Notes<'_>) {
    let Ok(Some(text)) = authentication.text("strategy", notes) else { return };
    let strategies: Vec<_> = text.value.split('|').map(|strategy| strategy.trim().to_lowercase()).collect();
    if let Some(other) = strategies.iter().find(|strategy| !["x509", "webhook"].contains(&strategy.as_str()))
    {
        let message = format!("authentication strategy {} is not supported", quoted(other));
        notes.refuse(text.place, message, |problem| {
            problem
                .label("x509 is missing, or something else is there")
                .with_hint("write `x509`, or `x509|webhook`")
        });
    } else if !strategies.iter().any(|strategy| strategy == "x509") {
        notes.refuse(text.place, "authentication strategy must contain [x509]", |problem| {
            problem
                .label("x509 is missing, or something else is there")
                .with_hint("write `x509`, or `x509|webhook`")
        });
    }
}

/// Warns of a key that turns every `rke up` into a rotation (RKE `cmd/up.go`).
fn note_rotation(cluster: &Fields<'_>, notes: &mut Notes<'_>) {
    if let Some(entry) = cluster.entry("rotate_certificates") {
        let message = format!(
            "`rotate_certificates` makes every `rke up` rotate certificates ({})",
            notes.locate(entry.place)
        );
        notes.find(
            Finding::warning("rotate-certificates-set", message).hint("remove it once the rotation is done"),
        );
    }
}

fn kubernetes_version(cluster: &Fields<'_>, notes: &mut Notes<'_>) -> Option<String> {
    let text = cluster.text("kubernetes_version", notes).ok().flatten()?;
    if !is_semantic_version(text.value) {
        notes.refuse(text.place, format!("{} is not valid semver", quoted(text.value)), |problem| {
            problem
                .label("such as `v1.15.3-rancher1-1`")
                .with_hint("`rke config --list-version --all` lists the versions")
        });
    }
    Some(text.value.to_owned())
}

/// Returns whether a text is a version as RKE reads it: three numbers, perhaps with `v` before and a suffix behind.
fn is_semantic_version(text: &str) -> bool {
    let text = text.strip_prefix('v').unwrap_or(text);
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let suffix = text.get(core.len()..).unwrap_or_default();
    let numbers: Vec<_> = core.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '+');
    numbers.len() == 3 && numbers.iter().all(is_number) && suffix.len() != 1 && suffix.chars().all(fits)
}

fn prefix_path(cluster: &Fields<'_>, notes: &mut Notes<'_>) -> String {
    match cluster.text("prefix_path", notes) {
        Ok(Some(text)) => {
            if !text.value.starts_with('/') {
                notes.refuse(text.place, "`prefix_path` is not an absolute path", |problem| {
                    problem.label("starts with `/`")
                });
            }
            text.value.to_owned()
        }
        Ok(None) | Err(Noted) => "/".to_owned(),
    }
}

/// Reads the ranges of service addresses, whose first address is in kube-apiserver's certificate.
fn service_cluster_ip_ranges(kube_api: &Fields<'_>, notes: &mut Notes<'_>) -> Vec<String> {
    let Ok(Some(text)) = kube_api.text("service_cluster_ip_range", notes) else {
        return vec![SERVICE_CLUSTER_IP_RANGE.to_owned()];
    };
    let ranges: Vec<_> = text.value.split(',').map(|range| range.trim().to_owned()).collect();
    if let Some(range) = ranges.iter().find(|range| !is_address_range(range)) {
        let message =
            format!("`service_cluster_ip_range` has {}, which is not a range of addresses", quoted(range));
        notes.refuse(text.place, message, |problem| {
            problem.label("no CIDR").with_hint("write an address and a prefix length, such as `10.43.0.0/16`")
        });
    }
    ranges
}

/// Returns whether a text is in CIDR notation.
fn is_address_range(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    let longest = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    prefix.parse::<u8>().is_ok_and(|prefix| prefix <= longest)
}

/// Reads the images, without the keys that RKE does not know.
fn system_images(cluster: &Fields<'_>, notes: &mut Notes<'_>) -> BTreeMap<String, String> {
    let mut images = cluster.text_map("system_images", notes);
    images.retain(|name, _| schema::SYSTEM_IMAGES.shape(name).is_some());
    images
}

/// Returns etcd's user and group, which RKE honours where both are set and neither is root's (`pki/deploy.go`).
fn etcd_owner(etcd: &Fields<'_>, notes: &mut Notes<'_>) -> Option<(u32, u32)> {
    let expected = "a number, 0 or more";
    let user = etcd.number("uid", expected, notes).unwrap_or(0);
    let group = etcd.number("gid", expected, notes).unwrap_or(0);
    (user != 0 && group != 0).then_some((user, group))
}

/// Reads how many workers may be unavailable at a time.
fn max_unavailable_worker(strategy: &Fields<'_>, notes: &mut Notes<'_>) -> MaxUnavailable {
    let Ok(Some(text)) = strategy.text("max_unavailable_worker", notes) else {
        return MaxUnavailable::DEFAULT;
    };
    let (number, of): (_, fn(u32) -> MaxUnavailable) = match text.value.strip_suffix('%') {
        Some(percent) => (percent, MaxUnavailable::Percent),
        None => (text.value, MaxUnavailable::Count),
    };
    match number.parse() {
        Ok(number) if number > 0 => of(number),
        _ => {
            let message = format!(
                "invalid input for max_unavailable_worker: {}, value must be > 0",
                quoted(text.value)
            );
            notes.refuse(text.place, message, |problem| {
                problem
                    .label("at least 1")
                    .with_hint("write a number of nodes, or a percentage such as `10%`")
            });
            MaxUnavailable::DEFAULT
        }
    }
}
