//! The plan of a rotation that certroll carries out by itself, with the key of the cluster's own CA.

mod certificates;
mod etcd;
mod refusals;
mod work;

use std::time::Duration;

use super::{Draft, PlannedStep, backup, due_finding, preflight};
use crate::facts::{NodeFacts, Observation};
use crate::finding::Finding;
use crate::inventory::{NodeName, Role};
use crate::pki::{KUBE_ADMIN, Location, Service};
use crate::plan::policy::{AfterDirect, Direct, KubeletServing};
use crate::plan::{Action, CertificateBefore, Gate, Half, NewCertificate, Renewal, StageName};
use certificates::{due_names, new_certificates, unfinished_runs};
use work::node_work;
pub(super) use work::{COMPONENTS, NodeWork};

/// What is decided of a rotation before its stages are laid out.
struct Decided<'a> {
    direct: &'a Direct,
    certificates: Vec<NewCertificate>,
    work: Vec<NodeWork<'a>>,
}

impl<'a> Draft<'a> {
    /// Plans the whole rotation.
    pub(super) fn rotate_directly(&mut self, direct: &'a Direct) {
        let due = self.due();
        let names = due_names(self, direct, &due);
        let certificates = new_certificates(self, direct, &names);
        let work: Vec<NodeWork<'a>> = self
            .scope()
            .into_iter()
            .map(|(node, seen)| node_work(self, direct, &certificates, (node, seen)))
            .filter(|work| !work.is_empty())
            .collect();
        if work.is_empty() && certificates.is_empty() {
            self.restart();
            return;
        }
        let decided = Decided { direct, certificates, work };
        self.refuse_direct(&decided);
        self.name_left_out();
        if !due.is_empty() || self.policy.renewal == Renewal::All {
            self.findings.push(due_finding(&due, self.policy));
        }
        let unfinished = unfinished_runs(self);
        if !unfinished.is_empty() {
            let message = format!(
                "run {} broke off: what it switched is kept and given to the rest, rke's state is written",
                unfinished.join(", ")
            );
            self.findings.push(Finding::info("unfinished-run", message));
        }
        self.lay_out(&decided);
        self.certificates = decided.certificates;
    }

    /// Lays the stages out.
    fn lay_out(&mut self, decided: &Decided<'a>) {
        let scope = self.scope();
        let rancher_follows = decided.direct.after == AfterDirect::Rancher;
        self.stages.push(preflight(&scope));
        // Rancher writes to every node.
        let changed: Vec<_> = if rancher_follows {
            scope.clone()
        } else {
            decided.work.iter().map(|work| (work.node, work.seen)).collect()
        };
        if !changed.is_empty() {
            self.stages.push(backup(&changed));
        }
        if rancher_follows && (super::is_legacy_layout(self.facts) || super::has_any_bundle(self.facts)) {
            self.add_repair();
        }
        self.add_staging(&decided.work);
        self.add_etcd(&decided.work);
        self.add_control_plane(&decided.work);
        self.add_workers(&decided.work);
        self.add_state(decided);
        if rancher_follows {
            self.add_rancher_rotation();
            self.add_confirmation();
            self.add_agents(&scope);
        }
        self.add_proof(&scope, decided);
    }

    fn add_staging(&mut self, work: &[NodeWork<'a>]) {
        let steps = work.iter().filter(|work| work.has_files()).map(|work| {
            let files = work.etcd_files.iter().chain(&work.files).cloned().collect();
            let reason = "nothing is switched anywhere before every node has its files".to_owned();
            (Some(work.node.name.clone()), Action::LayAside { files }, reason)
        });
        let steps = steps.collect();
        let title =
            "make certificates from the cluster's own CA, lay them aside on the nodes, read them back";
        self.add_stage(StageName::Staging, title, usize::MAX, steps);
    }

    /// Adds the stage of control plane and etcd nodes: one at a time, each API server healthy before the next goes.
    pub(super) fn add_control_plane(&mut self, work: &[NodeWork<'a>]) {
        let mut nodes: Vec<&NodeWork<'a>> =
            work.iter().filter(|work| !work.node.is_worker_only() && work.changes_components()).collect();
        // An API server that answers while etcd has no quorum is about to end: nothing can wait for it.
        let serves = |seen: &Observation| self.etcd_has_quorum() && is_well(seen, Service::KubeApiserver);
        // Those that are down come first: to restart them takes nothing away.
        nodes.sort_by_key(|work| serves(work.seen));
        let api_server = |work: &NodeWork<'_>| work.containers.iter().any(|name| name == "kube-apiserver");
        let well: Vec<&NodeName> = self
            .facts
            .seen()
            .filter(|(node, seen)| node.has(Role::ControlPlane) && serves(seen))
            .map(|(node, _)| &node.name)
            .collect();
        let mut done: Vec<&NodeName> = Vec::new();
        let mut steps = Vec::new();
        for work in nodes {
            let gate = if api_server(work) {
                Gate::ApiServers { nodes: others(&work.node.name, &well, &done) }
            } else {
                Gate::Open
            };
            if api_server(work) {
                done.push(&work.node.name);
            }
            steps.push(work.switch(gate, self.policy.health_timeout));
        }
        let title =
            "switch control plane and etcd nodes, kube-apiserver first and healthy before the next component";
        self.add_stage(StageName::ControlPlane, title, 1, steps);
    }

    pub(super) fn add_workers(&mut self, work: &[NodeWork<'a>]) {
        let steps = work
            .iter()
            .filter(|work| work.node.is_worker_only() && work.changes_components())
            .map(|work| work.switch(Gate::Open, self.policy.health_timeout))
            .collect();
        self.add_stage(StageName::Workers, "switch workers", self.max_unavailable_workers(), steps);
    }

    /// Adds what keeps the next `rke up` from putting the old certificates back.
    fn add_state(&mut self, decided: &Decided<'a>) {
        let names: Vec<String> =
            decided.certificates.iter().map(|certificate| certificate.name.clone()).collect();
        if names.is_empty() {
            return;
        }
        let mut steps: Vec<PlannedStep> = Vec::new();
        let nodes: Vec<NodeName> = self
            .facts
            .seen()
            .filter(|(node, _)| node.has(Role::ControlPlane))
            .map(|(node, _)| node.name.clone())
            .collect();
        steps.push((
            None,
            Action::UpdateClusterState { nodes, names: names.clone() },
            "the next `rke up` would put the old ones back".to_owned(),
        ));
        let bastion = &decided.direct.bastion;
        let kube_ca = self.facts.kube_ca().map(|authority| &authority.sha256);
        if let Some(state) = &bastion.state {
            if state.authority.as_ref() == kube_ca {
                let reason = "rke reads it first".to_owned();
                steps.push((
                    None,
                    Action::UpdateStateFile { path: state.path.display().to_string(), names: names.clone() },
                    reason,
                ));
            } else {
                let message = format!("`{}` is of another CA: it is left as it is", state.path.display());
                self.findings.push(
                    Finding::warning("state-of-another-ca", message)
                        .hint("move it away before the next `rke up`, which would believe it"),
                );
            }
        }
        if let Some(file) = &bastion.kube_config
            && (file.authority.as_ref() != kube_ca || file.admin.is_none())
        {
            let message = format!(
                "`{}` is of another CA, or embeds no pair of an administrator: it is left as it is",
                file.path.display()
            );
            self.findings.push(
                Finding::warning("kube-config-left", message)
                    .hint("move it away: certroll then makes one with the new kube-admin pair"),
            );
        } else if names.iter().any(|name| name == KUBE_ADMIN)
            && let Some(path) = bastion.kube_config_path.as_ref().map(|path| path.display().to_string())
        {
            let server = self
                .inventory
                .with_role(Role::ControlPlane)
                .next()
                .map(|node| format!("https://{}:6443", node.address))
                .unwrap_or_default();
            let reason = "kubectl needs the new kube-admin pair".to_owned();
            steps.push((None, Action::UpdateKubeConfig { path, server }, reason));
        }
        self.add_stage(StageName::State, "write the new certificates into what rke keeps", 1, steps);
    }

    /// Adds the restarts of workers whose agents write what Rancher made after certroll, without restarting for it.
    fn add_agents(&mut self, scope: &[(&'a NodeFacts, &'a Observation)]) {
        let workers = scope.iter().filter(|(node, _)| node.is_worker_only());
        let steps = workers.flat_map(|(node, seen)| self.restart_steps(node, seen, true)).collect();
        self.add_stage(
            StageName::Agents,
            "kubelet and kube-proxy of workers, where Rancher's agents left them stale",
            self.max_unavailable_workers(),
            steps,
        );
    }

    /// Adds the look at every node against the goal, and the proofs that the new pairs are taken.
    fn add_proof(&mut self, scope: &[(&'a NodeFacts, &'a Observation)], decided: &Decided<'a>) {
        let names: Vec<String> =
            decided.certificates.iter().map(|certificate| certificate.name.clone()).collect();
        let mut steps = Vec::new();
        for (node, _) in scope {
            let work = decided.work.iter().find(|work| work.node.name == node.name);
            let before = work.map(|work| before(work)).unwrap_or_default();
            let name = Some(node.name.clone());
            let verify = Action::Verify { before, timeout: self.policy.verify_timeout() };
            steps.push((name.clone(), verify, "proves that it worked".to_owned()));
            let prove = Action::Prove { names: names.clone(), timeout: self.policy.verify_timeout() };
            steps.push((name, prove, "every new pair is shown to those that must take it".to_owned()));
        }
        let title = "certificates, what is served, health, each new pair taken, each node ready";
        self.add_stage(StageName::Verify, title, usize::MAX, steps);
    }
}

/// Returns the certificates in `ssl` that a node's work replaces, as they are now.
fn before(work: &NodeWork<'_>) -> Vec<CertificateBefore> {
    let files = work.etcd_files.iter().chain(&work.files);
    let certificates = files.filter(|file| file.half == Half::Certificate && file.path.starts_with("ssl/"));
    certificates
        .filter_map(|file| {
            let sha256 = work.seen.certificate(Location::Ssl, &file.certificate)?.sha256.clone();
            Some(CertificateBefore { node: work.node.name.clone(), name: file.certificate.clone(), sha256 })
        })
        .collect()
}

/// Returns whether a component of a node was well when it was looked at.
fn is_well(seen: &Observation, service: Service) -> bool {
    seen.health_of(service).is_some_and(|health| health.healthy == Some(true))
}

/// Returns the other nodes that must be well before a node's turn: those that were, and those whose turn has been.
fn others(own: &NodeName, well: &[&NodeName], done: &[&NodeName]) -> Vec<NodeName> {
    let mut names = all(well, done);
    names.retain(|name| name != own);
    names
}

/// Returns the nodes that must be well by a turn: those that were, and those whose turn has been.
fn all(well: &[&NodeName], done: &[&NodeName]) -> Vec<NodeName> {
    let mut names: Vec<NodeName> = well.iter().chain(done).map(|name| (*name).clone()).collect();
    names.sort();
    names.dedup();
    names
}

impl NodeWork<'_> {
    /// Returns the step that switches the node's files and restarts what uses them.
    fn switch(&self, gate: Gate, timeout: Duration) -> PlannedStep {
        let action = Action::Switch {
            files: self.files.clone(),
            retired: self.retired.clone(),
            containers: self.containers.clone(),
            gate,
            timeout,
        };
        (Some(self.node.name.clone()), action, self.reason())
    }
}

impl Draft<'_> {
    /// Returns whether the kubelet is to make a new serving pair on a node.
    fn renews_kubelet_serving(&self, direct: &Direct, seen: &Observation) -> bool {
        if direct.kubelet_serving == KubeletServing::Kept
            || self.inventory.generate_serving_certificate
            || !self.selects(Service::Kubelet)
        {
            return false;
        }
        // Moved away by a run that broke off before the restart: the kubelet still serves the old one from memory.
        let Some(file) = seen.certificate_file(Location::KubeletPki, "kubelet") else { return true };
        let status = crate::facts::certificate_status(seen, file, &self.thresholds).0;
        self.policy.renewal == Renewal::All || status != crate::facts::CertificateStatus::Ok
    }

    /// Returns whether a service was selected; without `--service` all are.
    fn selects(&self, service: Service) -> bool {
        self.policy.services.is_empty() || self.policy.services.contains(&service)
    }
}
