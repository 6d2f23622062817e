//! How a fleet starts: keys and certificates, nodes with their files and containers, listeners, and the files for its user.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use russh::keys::PublicKeyBase64 as _;
use russh::keys::ssh_key::LineEnding;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use super::authority::{self, Keys, Pair, Validity};
use super::clock::{Clock, EffectLog, lock};
use super::container::{Blueprint, Component, State, containers, digest};
use super::files::{Files, Owner};
use super::folder::{self, Secrecy};
use super::layout::{self, Beginning, Bundle, Catalogue, days};
use super::machine::{KubeletServing, Login, Machine, SimNode, World};
use super::rancher::{self, Rotation};
use super::sshd::{self, Daemon};
use super::state::{self, RkeFiles, Source, StateObject};
use super::store::StoredKind;
use super::{Fleet, FleetOptions, FleetPaths, SimError};
use crate::inventory::{Inventory, Node, Role};

/// The version that a cluster has where its inventory names none.
const DEFAULT_VERSION: &str = "v1.11.6-rancher1-1";

/// The name of the user's private key in the folder.
const SSH_KEY: &str = "id_ed25519";

/// Returns the pairs that were given, or makes some.
async fn pairs(options: &FleetOptions<'_>, catalogue: &Catalogue) -> Result<Pairs, SimError> {
    if let Some(pairs) = options.pairs.clone() {
        return Ok(pairs);
    }
    let (layout, now) = (options.layout, options.now);
    let (catalogue, elliptic) = (catalogue.clone(), options.elliptic.clone());
    let made = tokio::task::spawn_blocking(move || make_pairs(layout, (&catalogue, &elliptic), now));
    made.await.map_err(|_| SimError::Internal("making certificates was cut short"))?
}

/// Starts a fleet.
pub(super) async fn start(options: FleetOptions<'_>, folder: &Path) -> Result<Fleet, SimError> {
    folder::make(folder)?;
    let clock = Clock::new(options.now, options.pace);
    let log = Arc::new(EffectLog::new(clock));
    let (listeners, doors) = listen(options.inventory.nodes.len()).await?;
    let catalogue = Catalogue::of(options.inventory, &doors);
    let now = options.now;
    let pairs = pairs(&options, &catalogue).await?;
    let AllPairs { bundle, kubelet_authority, rancher_authority, later } = &*pairs.0;
    let (bundle, kubelet_authority, keys) = (bundle.clone(), kubelet_authority.clone(), later.anew());
    let nodes: Vec<Arc<SimNode>> = options
        .inventory
        .nodes
        .iter()
        .zip(&doors)
        .map(|(node, door)| Arc::new(simulated(&options, node, *door, (clock, &log))))
        .collect();
    let version = options.inventory.kubernetes_version.clone().unwrap_or_else(|| DEFAULT_VERSION.to_owned());
    let world = Arc::new(World::new(clock, Arc::clone(&log), nodes, (kubelet_authority, keys), version));
    let server_ca = options.rancher.is_some().then(|| rancher_authority.certificate.clone());
    let beginning = Beginning { layout: options.layout, bundle: &bundle, server_ca: server_ca.as_deref() };
    for node in &world.nodes {
        beginning.fill(&world, node)?;
        begin_containers(&world, node, &beginning);
    }
    let source = Source {
        inventory: options.inventory,
        world: &world,
        bundle: &bundle,
        ports: doors.iter().map(SocketAddr::port).collect(),
        ssh_key: folder.join(SSH_KEY).to_string_lossy().into_owned(),
    };
    store(&options, &source, beginning.written_at(now))?;
    let (rkestate, kube_config) = rke_files(&options, &source, folder)?;
    world.settle();
    log.clear();

    let seed = Sha256::digest(bundle.get("kube-ca").map_or("", |pair| pair.key.as_str()))
        .iter()
        .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let user_key = sshd::key(&format!("user {seed}"));
    let mut tasks = Vec::new();
    let stored = if options.layout.is_legacy() { None } else { Some(bundle) };
    let rotation = Arc::new(Rotation::new(Arc::clone(&world), catalogue, stored, options.rancher.clone()));
    let key_text = user_key.to_openssh(LineEnding::LF)?;
    let mut server = None;
    if options.rancher.is_some() {
        let beginning = rancher::Beginning {
            inventory: options.inventory,
            authority: rancher_authority,
            ssh_key: (&key_text, &user_key.public_key().to_openssh()?),
            ports: doors.iter().map(SocketAddr::port).collect(),
        };
        server = Some(rancher::serve(Arc::clone(&rotation), beginning, &mut tasks).await?);
    }
    if let Some(server) = &server {
        tell_agents(&world, server);
    }
    let doors = Arc::new(doors);
    // Nodes reach each other's sshd, and Rancher.
    let reachable = Arc::new(
        doors.iter().copied().chain(server.as_ref().map(rancher::Server::address)).collect::<Vec<_>>(),
    );
    let mut known_hosts = String::new();
    for ((node, listener), door) in world.nodes.iter().zip(listeners).zip(doors.iter()) {
        let host_key = sshd::key(&format!("host {} {seed}", node.name));
        // Writing into a string cannot fail.
        let _ = writeln!(
            known_hosts,
            "[{}]:{} ssh-ed25519 {}",
            door.ip(),
            door.port(),
            host_key.public_key_base64()
        );
        let daemon = Daemon {
            world: Arc::clone(&world),
            node: Arc::clone(node),
            host_key,
            user_key: user_key.public_key().clone(),
            reachable: node.reach.open.subscribe(),
            doors: Arc::clone(&reachable),
        };
        tasks.push(tokio::spawn(daemon.serve(listener)));
    }
    let ssh_key = folder::write(folder, SSH_KEY, &key_text, Secrecy::Private)?;
    let yml = cluster_yml(options.inventory, &world, &doors, &ssh_key);
    let paths = FleetPaths {
        cluster_yml: folder::write(folder, "cluster.yml", &yml, Secrecy::Public)?,
        rkestate,
        kube_config,
        ssh_key,
        known_hosts: folder::write(folder, "known_hosts", &known_hosts, Secrecy::Public)?,
        rancher_ca: server
            .as_ref()
            .map(|server| folder::write(folder, "rancher-ca.pem", server.ca(), Secrecy::Public))
            .transpose()?,
        rancher_token: server.as_ref().map(|server| write_token(folder, server)).transpose()?,
    };
    Ok(Fleet { world, paths, pairs, doors, tasks, rotation, server })
}

fn write_token(folder: &Path, server: &rancher::Server) -> Result<PathBuf, SimError> {
    folder::write(folder, "rancher-token", &format!("{}\n", server.token()), Secrecy::Private)
}

/// Stores in the cluster what RKE keeps of its certificates there.
fn store(options: &FleetOptions<'_>, source: &Source<'_>, created: Timestamp) -> Result<(), SimError> {
    let mut store = lock(&source.world.store);
    let one = |key: &str, value: String| BTreeMap::from([(key.to_owned(), value)]);
    if options.layout.is_legacy() {
        let state = format!("cluster_name: {}\n", options.inventory.cluster_name);
        store.begin((StoredKind::ConfigMap, "cluster-state"), &one("cluster-state", state), created);
        for (name, data) in source.secrets() {
            store.begin((StoredKind::Secret, &name), &data, created);
        }
        return Ok(());
    }
    let kind = match options.state_object {
        StateObject::ConfigMap => StoredKind::ConfigMap,
        StateObject::Secret => StoredKind::Secret,
    };
    store.begin((kind, state::FULL_STATE), &one(state::FULL_STATE, source.compact()?), created);
    Ok(())
}

/// Writes the files that the `rke` command leaves beside the cluster.yml, where they are asked for.
fn rke_files(
    options: &FleetOptions<'_>,
    source: &Source<'_>,
    folder: &Path,
) -> Result<(Option<PathBuf>, Option<PathBuf>), SimError> {
    if options.rke_files == RkeFiles::Absent {
        return Ok((None, None));
    }
    let write = |name: &str, text: &str| folder::write(folder, name, text, Secrecy::Private);
    // rke 0.1 keeps its state in the cluster and on the nodes alone.
    let rkestate =
        if options.layout.is_legacy() { None } else { Some(write("cluster.rkestate", &source.pretty()?)?) };
    let kube_config = source.kube_config().map(|text| write(state::KUBE_CONFIG, &text)).transpose()?;
    Ok((rkestate, kube_config))
}

/// All certificates and keys with which a fleet begins; they take longer to make than anything else does to start.
#[derive(Debug, Clone)]
pub struct Pairs(Arc<AllPairs>);

#[derive(Debug)]
struct AllPairs {
    bundle: Bundle,
    kubelet_authority: Pair,
    rancher_authority: Pair,
    /// The keys that are made later.
    later: Keys,
}

fn make_pairs(
    layout: super::Layout,
    (catalogue, elliptic): (&Catalogue, &[String]),
    now: Timestamp,
) -> Result<Pairs, SimError> {
    let bundle = layout::make_bundle(layout, (catalogue, elliptic), now)?;
    let key = authority::make_keys(1)?.pop().ok_or(SimError::Internal("a key is missing"))?;
    let validity = Validity { not_before: days(now, -400), not_after: days(now, 3650) };
    let kubelet_authority = authority::make_authority("node-ca", key, validity)?;
    let rancher_authority = rancher::make_authority()?;
    Ok(Pairs(Arc::new(AllPairs { bundle, kubelet_authority, rancher_authority, later: Keys::default() })))
}

/// Binds an address of its own for every node: RKE refuses two nodes of one address.
async fn listen(count: usize) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), SimError> {
    let (mut listeners, mut doors) = (Vec::new(), Vec::new());
    for index in 0..count {
        let low = u8::try_from(index % 250).unwrap_or(0) + 1;
        let high = u8::try_from(index / 250).map_err(|_| SimError::Internal("more nodes than addresses"))?;
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 7, high, low)), 0);
        let failed = |source| SimError::Listen { address: address.to_string(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        doors.push(listener.local_addr().map_err(failed)?);
        listeners.push(listener);
    }
    Ok((listeners, doors))
}

fn simulated(
    options: &FleetOptions<'_>,
    node: &Node,
    door: SocketAddr,
    (clock, log): (Clock, &Arc<EffectLog>),
) -> SimNode {
    let inventory = options.inventory;
    let prefix = inventory.prefix_path.trim_end_matches('/').to_owned();
    let internal = |node: &Node| {
        if node.internal_address.is_empty() { node.address.clone() } else { node.internal_address.clone() }
    };
    let written =
        Beginning { layout: options.layout, bundle: &Bundle::new(), server_ca: None }.written_at(options.now);
    let blueprint = Blueprint {
        node: node.name.to_string(),
        roles: node.roles.clone(),
        internal_address: internal(node),
        prefix: prefix.clone(),
        members: inventory
            .with_role(Role::Etcd)
            .map(|node| (node.name.to_string(), internal(node)))
            .collect(),
        control_planes: inventory.with_role(Role::ControlPlane).map(internal).collect(),
        kubernetes_version: inventory
            .kubernetes_version
            .clone()
            .unwrap_or_else(|| DEFAULT_VERSION.to_owned()),
        service_account_key: options.layout.service_account_key(),
        kubelet_certificate: inventory
            .generate_serving_certificate
            .then(|| format!("kube-kubelet-{}", node.file_name_address())),
        rancher: options.rancher.as_ref().map(|rancher| rancher.version.clone()),
        started_at: written.saturating_add(SignedDuration::from_secs(30)).unwrap_or(written),
    };
    let files = Files::new(node.name.clone(), clock, Arc::clone(log));
    let privilege = options.users.get(&node.name).copied().unwrap_or_default();
    SimNode {
        name: node.name.clone(),
        roles: node.roles.clone(),
        address: door.ip().to_string(),
        internal_address: internal(node),
        prefix,
        docker_socket: node.docker_socket.clone(),
        login: Login::new("rancher", privilege),
        kubelet_serving: if inventory.generate_serving_certificate {
            KubeletServing::OfTheCluster
        } else {
            KubeletServing::Own
        },
        etcd_owner: inventory.etcd_owner.map(|(uid, gid)| Owner { uid, gid }),
        machine: Mutex::new(Machine { files, containers: containers(&blueprint) }),
        faults: Mutex::default(),
        reach: super::reach::Reach::default(),
    }
}

/// Lets the containers hold what they read when they started, shortly after their files were written.
fn begin_containers(world: &World, node: &SimNode, beginning: &Beginning<'_>) {
    let written = beginning.written_at(world.clock.now());
    let started = written.saturating_add(SignedDuration::from_secs(30)).unwrap_or(written);
    let components: Vec<_> =
        lock(&node.machine).containers.iter().map(|container| container.component).collect();
    for component in components {
        let loaded = node.component_files(component).into_iter().collect();
        let mut machine = lock(&node.machine);
        let container = machine.containers.iter_mut().find(|container| container.component == component);
        if let Some(container) = container.filter(|container| container.state == State::Running) {
            container.run(started, loaded);
            container.joined = true;
        }
    }
}

/// Returns the inventory of the simulated nodes, for `rke` and for certroll.
/// Starts the agents with Rancher's address, as its registration command does. They hold a token, which nobody may show.
fn tell_agents(world: &World, server: &rancher::Server) {
    let checksum = digest(server.ca());
    let variables = [
        format!("CATTLE_SERVER={}", server.url()),
        format!("CATTLE_CA_CHECKSUM={checksum}"),
        format!("CATTLE_TOKEN={}", server.token()),
    ];
    for node in &world.nodes {
        let mut machine = lock(&node.machine);
        for container in machine.containers.iter_mut().filter(|found| found.component == Component::Agent) {
            container.environment.extend(variables.iter().cloned());
        }
    }
}

fn cluster_yml(inventory: &Inventory, world: &World, doors: &[SocketAddr], key: &Path) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut yml = format!("cluster_name: {}\n", quoted(&inventory.cluster_name));
    let version = inventory.kubernetes_version.as_deref().unwrap_or(DEFAULT_VERSION);
    let mut line = |text: String| {
        yml.push_str(&text);
        yml.push('\n');
    };
    line(format!("kubernetes_version: {}", quoted(version)));
    line(format!("prefix_path: {}", quoted(&inventory.prefix_path)));
    line(format!("ssh_key_path: {}", quoted(&key.to_string_lossy())));
    line("nodes:".to_owned());
    for ((node, simulated), door) in inventory.nodes.iter().zip(&world.nodes).zip(doors) {
        let roles: Vec<&str> = node.roles.iter().map(|role| role.as_str()).collect();
        line(format!("- address: {}", door.ip()));
        line(format!("  port: \"{}\"", door.port()));
        line(format!("  internal_address: {}", quoted(&simulated.internal_address)));
        line(format!("  hostname_override: {}", quoted(node.name.as_str())));
        line(format!("  user: {}", simulated.login.name));
        line(format!("  docker_socket: {}", quoted(&node.docker_socket)));
        line(format!("  role: [{}]", roles.join(", ")));
    }
    if !inventory.authentication_sans.is_empty() {
        let sans: Vec<String> = inventory.authentication_sans.iter().map(|name| quoted(name)).collect();
        line(format!("authentication:\n  strategy: x509\n  sans: [{}]", sans.join(", ")));
    }
    let ranges = quoted(&inventory.service_cluster_ip_ranges.join(","));
    let domain = quoted(&inventory.cluster_domain);
    line(format!(
        "services:\n  kube-api:\n    service_cluster_ip_range: {ranges}\n  kubelet:\n    cluster_domain: {domain}"
    ));
    if inventory.generate_serving_certificate {
        line("    generate_serving_certificate: true".to_owned());
    }
    if let Some((uid, gid)) = inventory.etcd_owner {
        line(format!("  etcd:\n    uid: {uid}\n    gid: {gid}"));
    }
    yml
}
