//! A simulated node: its login, its files, its containers, and what is wrong with it.
//!
//! The fleet makes a [`World`] of them; the shell, the ports and the simulated Rancher act on it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use jiff::{SignedDuration, Timestamp};

use super::Fault;
use super::authority::{self, Keys, Pair};
use super::clock::{Clock, EffectLog, Serving, lock};
use super::container::{Component, Container, State};
use super::files::{Files, Owner};
use super::layout;
use super::reach::{Activity, Reach};
use super::store::Store;
use crate::inventory::{NodeName, Role};

/// How the user of a node becomes root there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Privilege {
    /// The user is root.
    Root,
    /// The user may `sudo` without a password; it is in no group of docker's.
    Sudo,
    /// The user is in the group `docker` and may not use `sudo`, as RKE asks for.
    #[default]
    Docker,
    /// The user may do nothing of all that.
    Plain,
}

/// The user that logs in.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) name: String,
    pub(crate) who: Owner,
    pub(crate) privilege: Privilege,
}

impl Login {
    /// Returns a user of a name and of what it may do.
    pub(crate) fn new(name: &str, privilege: Privilege) -> Self {
        match privilege {
            Privilege::Root => Self { name: "root".to_owned(), who: Owner::ROOT, privilege },
            _ => Self { name: name.to_owned(), who: Owner { uid: 1000, gid: 1000 }, privilege },
        }
    }
}

/// What changes on a node.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) files: Files,
    pub(crate) containers: Vec<Container>,
}

impl Machine {
    pub(crate) fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.answers_to(name))
    }

    pub(crate) fn container_mut(&mut self, name: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|container| container.answers_to(name))
    }
}

/// Which pair kubelet serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KubeletServing {
    /// One that it makes for itself where it finds none.
    Own,
    /// `kube-kubelet-*` in `ssl` (`generate_serving_certificate`).
    OfTheCluster,
}

/// A node of the simulated fleet.
#[derive(Debug)]
pub(crate) struct SimNode {
    pub(crate) name: NodeName,
    pub(crate) roles: Vec<Role>,
    /// The loopback address of its sshd.
    pub(crate) address: String,
    /// The address that the inventory gives it among its kind.
    pub(crate) internal_address: String,
    /// `prefix_path` without a slash at its end; empty for `/`.
    pub(crate) prefix: String,
    pub(crate) docker_socket: String,
    pub(crate) login: Login,
    pub(crate) kubelet_serving: KubeletServing,
    /// Who owns etcd's files, where `services.etcd.uid` and `gid` say so.
    pub(crate) etcd_owner: Option<Owner>,
    pub(crate) machine: Mutex<Machine>,
    pub(crate) faults: Mutex<Vec<Fault>>,
    pub(crate) reach: Reach,
}

impl SimNode {
    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Returns whether the node does nothing but run workloads.
    pub(crate) fn is_worker_only(&self) -> bool {
        !self.has(Role::ControlPlane) && !self.has(Role::Etcd)
    }

    /// Returns the node's own time, which a fault may have moved.
    pub(crate) fn now(&self, clock: &Clock) -> Timestamp {
        let skew = lock(&self.faults).iter().find_map(|fault| match fault {
            Fault::ClockSkew { seconds } => Some(*seconds),
            _ => None,
        });
        let now = clock.now();
        now.saturating_add(SignedDuration::from_secs(skew.unwrap_or(0))).unwrap_or(now)
    }

    /// Returns the folder that RKE calls `/etc/kubernetes`.
    pub(crate) fn kubernetes_folder(&self) -> String {
        format!("{}/etc/kubernetes", self.prefix)
    }

    /// Returns the path of a file in `ssl`.
    pub(crate) fn ssl(&self, file: &str) -> String {
        format!("{}/ssl/{file}", self.kubernetes_folder())
    }

    /// Returns the path of a file of kubelet's own serving pair.
    pub(crate) fn kubelet_file(&self, file: &str) -> String {
        format!("{}/var/lib/kubelet/pki/{file}", self.prefix)
    }

    /// Returns the middle of this node's etcd file names.
    pub(crate) fn dashed_address(&self) -> String {
        self.internal_address.replace('.', "-").to_lowercase()
    }

    /// Returns the names of the two files that kubelet serves.
    pub(crate) fn kubelet_pair(&self) -> [String; 2] {
        match self.kubelet_serving {
            KubeletServing::Own => ["kubelet.crt".to_owned(), "kubelet.key".to_owned()],
            KubeletServing::OfTheCluster => {
                let name = format!("kube-kubelet-{}", self.dashed_address());
                [format!("{name}.pem"), format!("{name}-key.pem")]
            }
        }
    }

    pub(crate) fn never_healthy(&self, component: &str) -> bool {
        lock(&self.faults)
            .iter()
            .any(|fault| matches!(fault, Fault::NeverHealthy { container } if container == component))
    }

    /// Returns whether a container ends again whenever it is started.
    fn dies(&self, component: &str) -> bool {
        lock(&self.faults)
            .iter()
            .any(|fault| matches!(fault, Fault::DiesAfterRestart { container } if container == component))
    }

    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        lock(&self.machine).files.read(Owner::ROOT, path).ok()
    }

    /// Returns whether a certificate and a key in `ssl` belong together.
    fn pair_fits(&self, name: &str) -> bool {
        let read = |file: String| self.read(&self.ssl(&file));
        let pair = (read(format!("{name}.pem")), read(format!("{name}-key.pem")));
        matches!(pair, (Some(pem), Some(key)) if authority::belong_together(&pem, &key))
    }

    /// Returns whether its etcd member has seen a quorum since it started: before, it takes connections and answers nothing.
    pub(crate) fn etcd_has_joined(&self) -> bool {
        lock(&self.machine).container(Component::Etcd.name()).is_some_and(|etcd| etcd.joined)
    }

    /// Returns the files that a component reads when it starts.
    pub(super) fn component_files(&self, component: Component) -> Vec<(String, Vec<u8>)> {
        let names = component.files(&self.dashed_address());
        let mut files: Vec<_> =
            names.into_iter().filter_map(|name| Some((name.clone(), self.read(&self.ssl(&name))?))).collect();
        if component == Component::Kubelet {
            let path = |name: &str| match self.kubelet_serving {
                KubeletServing::Own => self.kubelet_file(name),
                KubeletServing::OfTheCluster => self.ssl(name),
            };
            let own = self.kubelet_pair().into_iter();
            files.extend(own.filter_map(|name| Some((name.clone(), self.read(&path(&name))?))));
        }
        files
    }
}

/// All nodes, their common clock and the log of what happened.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) log: Arc<EffectLog>,
    pub(crate) nodes: Vec<Arc<SimNode>>,
    /// The authority of kubelet's own serving certificates; its key serves all of them.
    pub(crate) kubelet_authority: Pair,
    /// The keys that are made from now on.
    pub(crate) keys: Keys,
    pub(crate) kubernetes_version: String,
    /// What the cluster has stored in etcd.
    pub(crate) store: Mutex<Store>,
    /// The command lines that came over the wire.
    pub(crate) lines: Mutex<Vec<(NodeName, String)>>,
    /// What goes on on behalf of clients.
    pub(crate) activity: Activity,
    processes: AtomicU32,
}

impl World {
    pub(crate) fn new(
        clock: Clock,
        log: Arc<EffectLog>,
        nodes: Vec<Arc<SimNode>>,
        (kubelet_authority, keys): (Pair, Keys),
        kubernetes_version: String,
    ) -> Self {
        let store = Mutex::default();
        let lines = Mutex::default();
        let processes = AtomicU32::new(4000);
        let activity = Activity::default();
        Self {
            clock,
            log,
            nodes,
            kubelet_authority,
            keys,
            kubernetes_version,
            store,
            lines,
            activity,
            processes,
        }
    }

    /// Returns the number of a new process.
    pub(crate) fn next_process(&self) -> u32 {
        self.processes.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn node(&self, name: &NodeName) -> Option<&Arc<SimNode>> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    pub(crate) fn with_role(&self, role: Role) -> impl Iterator<Item = &Arc<SimNode>> {
        self.nodes.iter().filter(move |node| node.has(role))
    }

    /// Starts or restarts a container: it reads its files anew. Returns whether the container exists.
    pub(crate) fn start(&self, node: &SimNode, name: &str, verb: &str) -> bool {
        let component = lock(&node.machine).container(name).map(|container| container.component);
        let Some(component) = component else { return false };
        if component == Component::Kubelet && node.kubelet_serving == KubeletServing::Own {
            layout::renew_kubelet_pair(self, node);
        }
        let loaded = node.component_files(component).into_iter().collect();
        let now = node.now(&self.clock);
        let mut machine = lock(&node.machine);
        let Some(container) = machine.container_mut(name) else { return false };
        if container.state == State::Running {
            container.finished_at = Some(now);
        }
        container.run(now, loaded);
        let name = container.name.clone();
        if node.dies(&name) {
            container.state = State::Restarting;
            container.restart_count += 1;
        }
        drop(machine);
        let mut faults = lock(&node.faults);
        if faults
            .iter()
            .any(|fault| matches!(fault, Fault::UnhealthyAfterRestart { container } if *container == name))
        {
            faults.push(Fault::NeverHealthy { container: name.clone() });
        }
        drop(faults);
        let serving = self.serving_without(Some((node, component)));
        self.log.push_serving(&node.name, format!("{verb} container {name}"), Some(serving));
        self.settle();
        true
    }

    /// Lets docker start a container again by itself; nobody asked for it.
    pub(crate) fn revive(&self, node: &SimNode, name: &str) {
        let component = lock(&node.machine).container(name).map(|container| container.component);
        let Some(component) = component else { return };
        let loaded = node.component_files(component).into_iter().collect();
        let now = node.now(&self.clock);
        if let Some(container) = lock(&node.machine).container_mut(name)
            && matches!(container.state, State::Running | State::Restarting)
        {
            container.run(now, loaded);
        }
        self.settle();
    }

    /// Stops a container. Returns whether it exists.
    pub(crate) fn stop(&self, node: &SimNode, name: &str) -> bool {
        self.settle();
        let now = node.now(&self.clock);
        let mut machine = lock(&node.machine);
        let Some(container) = machine.container_mut(name) else { return false };
        container.state = State::Exited;
        container.finished_at = Some(now);
        let name = container.name.clone();
        drop(machine);
        self.log.push_serving(&node.name, format!("stop container {name}"), Some(self.serving()));
        true
    }

    /// Returns whether a component runs, has had its time to start, and is not kept from health.
    pub(crate) fn is_up(&self, node: &SimNode, component: Component) -> bool {
        let now = node.now(&self.clock);
        let delay =
            SignedDuration::try_from(self.clock.scaled(component.seconds_to_start())).unwrap_or_default();
        let machine = lock(&node.machine);
        let up = machine.container(component.name()).is_some_and(|container| {
            container.state == State::Running
                && container.started_at.is_none_or(|started| now.duration_since(started) >= delay)
        });
        drop(machine);
        up && !node.never_healthy(component.name())
    }

    /// Returns whether an etcd member serves: it is up, and its peers accept its certificate.
    pub(crate) fn etcd_serves(&self, node: &SimNode) -> bool {
        self.is_up(node, Component::Etcd)
            && self.pair_works(node, &format!("kube-etcd-{}", node.dashed_address()))
    }

    /// Returns whether more than half of the etcd members serve.
    pub(crate) fn etcd_has_quorum(&self) -> bool {
        let serving = self.with_role(Role::Etcd).filter(|node| self.etcd_serves(node)).count();
        serving * 2 > self.with_role(Role::Etcd).count()
    }

    /// Lets etcd members that find a quorum begin to answer.
    fn join_members(&self) {
        let waits = |node: &&Arc<SimNode>| {
            let machine = lock(&node.machine);
            let etcd = machine.container(Component::Etcd.name());
            etcd.is_some_and(|etcd| etcd.state == State::Running && !etcd.joined)
        };
        let waiting: Vec<_> = self.with_role(Role::Etcd).filter(waits).collect();
        if waiting.is_empty() || !self.etcd_has_quorum() {
            return;
        }
        for node in waiting.into_iter().filter(|node| self.etcd_serves(node)) {
            if let Some(etcd) = lock(&node.machine).container_mut(Component::Etcd.name()) {
                etcd.joined = true;
            }
        }
    }

    /// Returns how much of the cluster serves now.
    pub(crate) fn serving(&self) -> Serving {
        self.serving_without(None)
    }

    /// Returns how much of the cluster serves while a component of a node is down.
    fn serving_without(&self, down: Option<(&SimNode, Component)>) -> Serving {
        let is_down = |node: &SimNode, component| {
            down.is_some_and(|(other, gone)| other.name == node.name && gone == component)
        };
        let members = self.with_role(Role::Etcd).count();
        let etcd_members = self
            .with_role(Role::Etcd)
            .filter(|node| !is_down(node, Component::Etcd) && self.etcd_serves(node))
            .count();
        let answers = |node: &&Arc<SimNode>| {
            !is_down(node, Component::ApiServer) && self.is_up(node, Component::ApiServer)
        };
        let api_servers = if etcd_members * 2 > members {
            self.with_role(Role::ControlPlane).filter(answers).count()
        } else {
            0
        };
        Serving { etcd_members, api_servers }
    }

    /// Returns whether a pair on disk is valid now, belongs together and is signed by the node's kube-ca.
    pub(crate) fn pair_works(&self, node: &SimNode, name: &str) -> bool {
        let pem = node.read(&node.ssl(&format!("{name}.pem")));
        let key = node.read(&node.ssl(&format!("{name}-key.pem")));
        let ca = node.read(&node.ssl("kube-ca.pem"));
        let (Some(pem), Some(key), Some(ca)) = (pem, key, ca) else { return false };
        authority::is_valid(&pem, &ca, node.now(&self.clock)) && authority::belong_together(&pem, &key)
    }

    /// Returns whether a component could start with what lies on disk.
    fn could_start(&self, node: &SimNode, component: Component) -> bool {
        match component {
            Component::ApiServer => {
                node.pair_fits("kube-apiserver")
                    && self.pair_works(node, "kube-node")
                    && self.etcd_has_quorum()
            }
            Component::ControllerManager | Component::Scheduler => self.pair_works(node, component.name()),
            _ => true,
        }
    }

    /// Returns whether a running component's certificates have expired since it read them.
    fn holds_expired(&self, node: &SimNode, component: Component) -> bool {
        let now = node.now(&self.clock);
        let machine = lock(&node.machine);
        machine.container(component.name()).is_some_and(|container| container.has_expired_client(now))
    }

    /// Lets containers that cannot run restart for ever, and those that now can run start.
    pub(crate) fn settle(&self) {
        self.join_members();
        for node in self.with_role(Role::ControlPlane) {
            for component in [Component::ApiServer, Component::ControllerManager, Component::Scheduler] {
                self.settle_component(node, component);
            }
        }
    }

    fn settle_component(&self, node: &SimNode, component: Component) {
        let Some(state) = lock(&node.machine).container(component.name()).map(|container| container.state)
        else {
            return;
        };
        match state {
            State::Restarting if self.could_start(node, component) && !node.dies(component.name()) => {
                let loaded = node.component_files(component).into_iter().collect();
                let now = node.now(&self.clock);
                if let Some(container) = lock(&node.machine).container_mut(component.name()) {
                    container.run(now, loaded);
                }
            }
            State::Running => {
                let starting = !self.is_up(node, component) && !node.never_healthy(component.name());
                if (self.holds_expired(node, component) || (starting && !self.could_start(node, component)))
                    && let Some(container) = lock(&node.machine).container_mut(component.name())
                {
                    container.state = State::Restarting;
                    container.restart_count += 1;
                }
            }
            State::Restarting | State::Created | State::Exited => {}
        }
    }

    /// Returns whether a node's API server answers well.
    pub(crate) fn api_is_healthy(&self, node: &SimNode) -> bool {
        self.is_up(node, Component::ApiServer) && self.etcd_has_quorum()
    }

    /// Returns whether Kubernetes would call the node ready: its kubelet holds a valid certificate and an API server listens.
    pub(crate) fn node_is_ready(&self, node: &SimNode) -> bool {
        let now = node.now(&self.clock);
        let holds_valid = lock(&node.machine).container(Component::Kubelet.name()).is_some_and(|kubelet| {
            let held = |name: &str| kubelet.loaded.get(name).map(Vec::as_slice).unwrap_or_default();
            let certificate = held("kube-node.pem");
            authority::is_valid(certificate, held("kube-ca.pem"), now)
                && authority::belong_together(certificate, held("kube-node-key.pem"))
        });
        holds_valid
            && self.is_up(node, Component::Kubelet)
            && self.with_role(Role::ControlPlane).any(|node| self.api_is_healthy(node))
    }
}
