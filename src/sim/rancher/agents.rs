//! The agents of worker nodes: each asks Rancher now and then, writes what has changed, and restarts what uses it.

use std::sync::Arc;
use std::time::Duration;

use super::super::Fault;
use super::super::clock::lock;
use super::super::container::Component;
use super::super::files::{Links, Owner};
use super::super::layout::{self, Bundle};
use super::super::machine::{SimNode, World};
use super::Rotation;

impl Rotation {
    /// Lets the agent of every worker fetch the new files at its next check, and restart what it then finds changed.
    pub(super) fn send_agents(&self, bundle: &Bundle) {
        let workers: Vec<_> = self.world.nodes.iter().filter(|node| node.is_worker_only()).cloned().collect();
        let interval = self.agent_check_interval();
        let count = u32::try_from(workers.len()).unwrap_or(1).max(1);
        let mut agents = lock(&self.agents);
        for (index, node) in (1_u32..).zip(workers) {
            let stale = self.options.stale_workers.contains(&node.name);
            let (world, bundle) = (Arc::clone(&self.world), bundle.clone());
            agents.spawn(async move {
                tokio::time::sleep(interval * index / count).await;
                while !is_connected(&node) {
                    tokio::time::sleep(interval.max(Duration::from_millis(1))).await;
                }
                fetch(&world, &node, &bundle, if stale { Race::Lost } else { Race::Won });
            });
        }
    }
}

/// Whether the agent sees that its node's files have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Race {
    Won,
    /// `share-mnt` has written them before.
    Lost,
}

fn fetch(world: &World, node: &SimNode, bundle: &Bundle, race: Race) {
    let folder = format!("{}/ssl", node.kubernetes_folder());
    let names = layout::names_for(node, bundle);
    // `Bundle.Changed` says no as soon as one file cannot be read.
    let exists = |name: &String| {
        lock(&node.machine)
            .files
            .metadata(Owner::ROOT, &format!("{folder}/{name}.pem"), Links::Follow)
            .is_ok()
    };
    let complete = names.iter().all(exists);
    let written = layout::deploy(node, &folder, bundle, &names, node.now(&world.clock));
    if race == Race::Lost || !complete || written.is_err() {
        return;
    }
    for component in [Component::Kubelet, Component::Proxy, Component::NginxProxy] {
        restart(world, node, component);
    }
}

/// Restarts a container, if it exists.
pub(super) fn restart(world: &World, node: &SimNode, component: Component) {
    if lock(&node.machine).container(component.name()).is_some() {
        // Rancher does what it does, whether or not somebody watches.
        world.log.announce();
        world.start(node, component.name(), "restart");
    }
}

/// Returns whether Rancher's agent on a node has its connection.
pub(super) fn is_connected(node: &SimNode) -> bool {
    !lock(&node.faults).contains(&Fault::AgentDisconnected)
}
