//! The `rke` command of the bastion, v0.2.8, as its nodes see it: certificates to all of them, then everything restarts at once.
//!
//! Whoever plays the command itself is told what it logs (`cmd/cert.go`, `cluster/hosts.go`, `services/*.go`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::super::clock::lock;
use super::super::container::Component;
use super::super::layout;
use super::super::machine::SimNode;
use super::super::{RkeRun, SimError};
use super::Rotation;
use super::agents::restart;
use super::engine::Services;
use super::release::Engine;
use crate::inventory::{NodeName, Role};

impl Rotation {
    /// Does what `rke cert rotate` does, with addresses as the cluster.yml has them.
    pub(crate) async fn rotate_as_rke(
        &self,
        run: &RkeRun,
        addresses: &BTreeMap<NodeName, IpAddr>,
        say: &mut (dyn FnMut(&str, String) + Send),
    ) -> Result<(), SimError> {
        let address = |node: &SimNode| addresses.get(&node.name).map(ToString::to_string).unwrap_or_default();
        let mut info = |text: String| say("info", text);
        info("Initiating Kubernetes cluster".to_owned());
        info("Rotating Kubernetes cluster certificates".to_owned());
        let found = self.find_bundle(Engine::V023)?;
        let bundle = found.ok_or(SimError::Internal("CA Certificate or Key is empty"))?;
        info("[certificates] Generating Kubernetes API server certificates".to_owned());
        let services = run.service.clone().map_or(Services::All, Services::One);
        let bundle = self.renew(bundle, &services).await?;
        *lock(&self.stored) = Some(bundle.clone());
        info("Successfully Deployed state file at [./cluster.rkestate]".to_owned());
        info("Rebuilding Kubernetes cluster with rotated certificates".to_owned());
        let mut nodes: Vec<Arc<SimNode>> = Vec::new();
        for node in &self.world.nodes {
            let address = address(node);
            if run.skipped.contains(&node.name) {
                say(
                    "warning",
                    format!(
                        "Failed to set up SSH tunneling for host [{address}]: Can't retrieve Docker Info: error during connect: Get http://%2Fvar%2Frun%2Fdocker.sock/v1.24/info: Failed to dial ssh using address [{address}:22]: ssh: handshake failed"
                    ),
                );
                say("warning", format!("Removing host [{address}] from node lists"));
            } else {
                say("info", format!("[dialer] Setup tunnel for host [{address}]"));
                nodes.push(Arc::clone(node));
            }
        }
        let mut info = |text: String| say("info", text);
        info("[certificates] Deploying kubernetes certificates to Cluster nodes".to_owned());
        for node in &nodes {
            let folder = format!("{}/ssl", node.kubernetes_folder());
            let names = layout::names_for(node, &bundle);
            layout::deploy(node, &folder, &bundle, &names, node.now(&self.world.clock))?;
        }
        self.pause(10.0).await;
        info("[certificates] Successfully deployed kubernetes certificates to Cluster nodes".to_owned());
        if run.breaks_off {
            return Ok(());
        }
        let is_etcd = |node: &SimNode| node.has(Role::Etcd);
        let is_control_plane = |node: &SimNode| node.has(Role::ControlPlane);
        if services.restart_etcd() {
            info("[etcd] Restarting up etcd plane..".to_owned());
            for node in nodes.iter().filter(|node| is_etcd(node)) {
                restart(&self.world, node, Component::Etcd);
                info(format!("[restart/etcd] Successfully restarted container on host [{}]", address(node)));
            }
            info("[etcd] Successfully restarted etcd plane..".to_owned());
        }
        info("[controlplane] Check if rotating a legacy cluster".to_owned());
        self.adopt_service_account_key();
        let control_plane = [Component::ApiServer, Component::ControllerManager, Component::Scheduler];
        let workers = [Component::Kubelet, Component::Proxy, Component::NginxProxy];
        info("[controlplane] Restarting the Controller Plane..".to_owned());
        for node in nodes.iter().filter(|node| is_control_plane(node)) {
            for component in control_plane {
                restart(&self.world, node, component);
                info(restarted(component, &address(node)));
            }
        }
        info("[controlplane] Successfully restarted Controller Plane..".to_owned());
        info("[worker] Restarting Worker Plane..".to_owned());
        for node in &nodes {
            for component in workers {
                restart(&self.world, node, component);
                info(restarted(component, &address(node)));
            }
        }
        info("[worker] Successfully restarted Worker Plane..".to_owned());
        Ok(())
    }
}

fn restarted(component: Component, address: &str) -> String {
    format!("[restart/{}] Successfully restarted container on host [{address}]", component.name())
}
