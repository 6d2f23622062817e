use std::time::Duration;

use super::action::{Action, CertificateBefore, Guard};
use super::policy::{Policy, RancherTarget, Renewal, is_active};
use super::repair::{has_any_bundle, is_legacy_layout, repair};
use super::{NotHandled, PLAN_VERSION, Plan, Procedure, Stage, StageName, Step, StepId, Via, basis};
use crate::facts::{
    CertificateStatus, Facts, NodeFacts, Observation, Thresholds, certificate_status, differing_authorities,
    is_disconnected, restart_reason,
};
use crate::finding::Finding;
use crate::inventory::{Inventory, NodeName, Role};
use crate::pki::{Class, KUBE_CA, Location, expected_names, services_of};

/// Rancher tells a worker's agent about new certificates when it asks, every 120 s by default; certroll waits twice as long
/// before it calls a worker stale (rancher/rancher `pkg/rkenodeconfigclient`, `agentCheckInterval`).
pub(super) const PATIENCE_INTERVALS: u32 = 2;

/// How long etcd and control plane nodes may take to show and serve what Rancher says it has rotated.
const CONFIRM_TIMEOUT: Duration = Duration::from_mins(5);

/// How long a node may take until everything on it is well again.
const VERIFY_TIMEOUT: Duration = Duration::from_mins(3);

/// Makes a plan: pure, and the same plan whenever the same things are known.
pub fn plan(inventory: &Inventory, facts: &Facts, policy: &Policy) -> Plan {
    let mut draft = Draft::new(inventory, facts, policy);
    draft.refuse_what_cannot_be();
    match policy.procedure {
        Procedure::Rotate => draft.rotate(),
        Procedure::Repair => draft.repair_by_name(),
        Procedure::Restart => draft.restart(),
    }
    draft.finish()
}

/// A plan that is being made.
struct Draft<'a> {
    inventory: &'a Inventory,
    facts: &'a Facts,
    policy: &'a Policy,
    thresholds: Thresholds,
    stages: Vec<Stage>,
    blockers: Vec<Finding>,
    findings: Vec<Finding>,
    not_handled: Vec<NotHandled>,
}

impl<'a> Draft<'a> {
    fn new(inventory: &'a Inventory, facts: &'a Facts, policy: &'a Policy) -> Self {
        let thresholds = Thresholds { now: policy.now, expiring_within: policy.renew_within };
        Self {
            inventory,
            facts,
            policy,
            thresholds,
            stages: Vec::new(),
            blockers: Vec::new(),
            findings: Vec::new(),
            not_handled: Vec::new(),
        }
    }

    /// Returns the nodes that were seen and selected.
    fn scope(&self) -> Vec<(&'a NodeFacts, &'a Observation)> {
        self.facts.seen().filter(|(node, _)| self.is_selected(&node.name)).collect()
    }

    fn is_selected(&self, node: &NodeName) -> bool {
        self.policy.selected.as_ref().is_none_or(|selected| selected.contains(node))
    }

    /// Blocks on what no plan can do with, and names nodes that are left out.
    fn refuse_what_cannot_be(&mut self) {
        let touches_control_plane = self.policy.procedure != Procedure::Restart;
        for node in &self.facts.nodes {
            if !self.is_selected(&node.name) {
                continue;
            }
            if let Err(unseen) = &node.result {
                if touches_control_plane && super::is_control_plane_or_etcd(&node.roles) {
                    let message =
                        format!("a node of etcd or the control plane cannot be looked at: {}", unseen.error);
                    self.blockers.push(
                        Finding::error("control-plane-unreachable", message).on(&node.name).hint(
                            "bring it back, or take it out of the cluster and of the cluster.yml first",
                        ),
                    );
                } else {
                    self.not_handled.push(NotHandled {
                        node: node.name.clone(),
                        reason: format!("{}; it stays as it is", unseen.error),
                        hint: format!("certroll plan restart -n {}", node.name),
                    });
                }
            }
        }
        self.refuse_split_selection();
        self.blockers.extend(differing_authorities(self.facts));
        if self.facts.kube_ca().is_none() {
            self.blockers.push(
                Finding::error(
                    "ca-missing",
                    "no node shows an `ssl/kube-ca.pem`: there is no cluster to work on",
                )
                .hint("`certroll check` shows what was seen"),
            );
        }
        for (node, observation) in self.scope() {
            self.blockers.extend(
                node_blockers(observation, self.policy).into_iter().map(|finding| finding.on(&node.name)),
            );
        }
    }

    /// A rotation renews the files of every node; a worker that `-n` leaves out is not restarted onto them.
    fn name_left_out(&mut self) {
        let workers = self.facts.nodes.iter().filter(|node| node.is_worker_only());
        let left_out: Vec<_> = workers.filter(|node| !self.is_selected(&node.name)).collect();
        self.not_handled.extend(left_out.into_iter().map(|node| NotHandled {
            node: node.name.clone(),
            reason: "`-n` leaves it out; it may get new certificates all the same, and keep using the old ones".to_owned(),
            hint: format!("certroll plan restart -n {}", node.name),
        }));
    }

    /// Certificates of etcd and the control plane are made for all of their nodes or for none.
    fn refuse_split_selection(&mut self) {
        if self.policy.procedure == Procedure::Restart || self.policy.selected.is_none() {
            return;
        }
        let group = || self.facts.nodes.iter().filter(|node| super::is_control_plane_or_etcd(&node.roles));
        let left_out: Vec<&str> =
            group().filter(|node| !self.is_selected(&node.name)).map(|node| node.name.as_str()).collect();
        if !left_out.is_empty() {
            let message =
                format!("`-n` leaves out {}, which share certificates with the others", left_out.join(", "));
            self.blockers.push(Finding::error("selection-splits-cluster", message).hint(
                "select all etcd and controlplane nodes (`-n role=controlplane,role=etcd,...`), or drop `-n`",
            ));
        }
    }

    /// Plans the whole procedure.
    fn rotate(&mut self) {
        let due = self.due();
        if due.is_empty() && self.policy.renewal == Renewal::WhereNeeded {
            self.restart();
            return;
        }
        self.refuse_expired_authority();
        self.name_left_out();
        let scope = self.scope();
        self.stages.push(preflight(&scope));
        self.stages.push(backup(&scope));
        if is_legacy_layout(self.facts) || has_any_bundle(self.facts) {
            self.add_repair();
        }
        self.findings.push(due_finding(&due, self.policy));
        self.add_rotation();
        self.add_confirmation();
        self.add_restarts(&scope, true);
        self.add_verification(&scope);
    }

    /// Returns the certificates of selected services that have ended, end soon, or cannot be used.
    fn due(&self) -> Vec<(&'a NodeName, String, CertificateStatus)> {
        let mut due = Vec::new();
        for (node, observation) in self.facts.seen() {
            for name in self.rotated_names(node, observation) {
                let Some(file) = observation.certificate_file(Location::Ssl, &name) else {
                    due.push((&node.name, name, CertificateStatus::Missing));
                    continue;
                };
                let (status, _) = certificate_status(observation, file, &self.thresholds);
                if status != CertificateStatus::Ok {
                    due.push((&node.name, name, status));
                }
            }
        }
        due
    }

    /// Returns the names of the certificates on a node that a rotation of the selected services renews.
    fn rotated_names(&self, node: &NodeFacts, observation: &Observation) -> Vec<String> {
        let mut names = self
            .inventory
            .node(&node.name)
            .map(|node| expected_names(node, self.inventory))
            .unwrap_or_default();
        names.retain(|name| name != KUBE_CA);
        if observation.certificate_file(Location::Ssl, "kube-apiserver-proxy-client").is_some() {
            names.push("kube-apiserver-proxy-client".to_owned());
        }
        if self.inventory.generate_serving_certificate {
            let serving = observation.files.iter().filter(|file| {
                file.location == Location::Ssl
                    && file.class() == Class::Leaf
                    && file.file_name.starts_with("kube-kubelet-")
            });
            names.extend(serving.filter_map(|file| file.certificate_name()).map(str::to_owned));
        }
        let selected = &self.policy.services;
        if !selected.is_empty() {
            names.retain(|name| services_of(name).iter().any(|service| selected.contains(service)));
        }
        names
    }

    /// A new leaf of an expired CA is worth nothing.
    fn refuse_expired_authority(&mut self) {
        let Some(authority) = self.facts.kube_ca() else { return };
        if authority.not_after <= self.policy.now + self.policy.renew_within {
            let message = format!("kube-ca itself ends on {}", authority.not_after.strftime("%Y-%m-%d"));
            self.blockers.push(
                Finding::error("ca-expiring", message)
                    .hint("a new CA is needed, which certroll does not make yet: `rke cert rotate --rotate-ca` does, and restarts everything"),
            );
        }
    }

    /// Plans the legacy bundles alone.
    fn repair_by_name(&mut self) {
        let expired = self.facts.seen().any(|(node, observation)| {
            self.rotated_names(node, observation).iter().any(|name| {
                let file = observation.certificate_file(Location::Ssl, name);
                file.is_some_and(|file| {
                    certificate_status(observation, file, &self.thresholds).0 == CertificateStatus::Expired
                })
            })
        });
        let wanted = expired || is_legacy_layout(self.facts) || has_any_bundle(self.facts);
        if !wanted && self.policy.renewal == Renewal::WhereNeeded {
            self.findings.push(
                Finding::info(
                    "bundle-not-needed",
                    "the cluster is healthy and was laid out by rke 0.2 or later: it needs no `.tmp`, and one would spread the CA's key",
                )
                .hint("`--force` makes the bundles all the same"),
            );
            return;
        }
        let steps_before = self.stages.len();
        self.add_repair();
        let Some(stage) = self.stages.get(steps_before) else { return };
        let nodes: Vec<NodeName> = stage.nodes().into_iter().cloned().collect();
        let changed: Vec<_> =
            self.scope().into_iter().filter(|(node, _)| nodes.contains(&node.name)).collect();
        self.stages.insert(steps_before, preflight(&changed));
        self.stages.insert(steps_before + 1, backup(&changed));
    }

    /// Adds the stage that completes the legacy bundles, if there is anything to complete.
    fn add_repair(&mut self) {
        let repair = repair(self.inventory, self.facts);
        self.blockers.extend(repair.blockers);
        self.findings.extend(repair.findings);
        let selected = repair.steps.into_iter().filter(|(node, ..)| self.is_selected(node));
        let steps = selected.map(|(node, action, reason)| (Some(node), action, reason)).collect();
        self.add_stage(StageName::Repair, "complete the legacy bundle `.tmp`", usize::MAX, steps);
    }

    /// Adds the stage in which somebody else makes the certificates.
    fn add_rotation(&mut self) {
        match self.policy.via {
            Some(Via::Rancher) => self.add_rancher_rotation(),
            Some(Via::Manual) => {
                let action = Action::RotateByOperator {
                    instructions: instructions(self.policy, self.facts.is_rancher_launched()),
                    timeout: self.policy.wait,
                    before: self.control_plane_before(),
                };
                let reason = "certificates are due; the operator has them made".to_owned();
                self.add_stage(
                    StageName::Rotate,
                    "the operator has the certificates rotated",
                    1,
                    vec![(None, action, reason)],
                );
            }
            None => {}
        }
    }

    fn add_rancher_rotation(&mut self) {
        let Some(rancher) = &self.policy.rancher else { return };
        self.blockers.extend(rancher_blockers(rancher, self.policy));
        let calls: Vec<Option<_>> = match self.policy.services.as_slice() {
            [] => vec![None],
            services => services.iter().copied().map(Some).collect(),
        };
        let steps = calls.into_iter().map(|service| {
            let action = Action::RotateByRancher {
                url: rancher.url.clone(),
                cluster_id: rancher.cluster_id.clone(),
                service,
                timeout: self.policy.wait,
            };
            (None, action, "certificates are due; Rancher makes new ones from the cluster's CA".to_owned())
        });
        let title = format!("Rancher {} rotates the certificates", rancher.version);
        let steps = steps.collect();
        self.add_stage(StageName::Rotate, &title, 1, steps);
    }

    /// Returns the certificates of etcd and control plane nodes that a rotation must change.
    fn control_plane_before(&self) -> Vec<CertificateBefore> {
        let group = self.facts.seen().filter(|(node, _)| !node.is_worker_only());
        group.flat_map(|(node, observation)| self.before(node, observation)).collect()
    }

    /// Returns the certificates of a node that a rotation must change, as they are now.
    fn before(&self, node: &NodeFacts, observation: &Observation) -> Vec<CertificateBefore> {
        let names = self.rotated_names(node, observation).into_iter();
        names
            .filter_map(|name| {
                let sha256 = observation.certificate(Location::Ssl, &name)?.sha256.clone();
                Some(CertificateBefore { node: node.name.clone(), name, sha256 })
            })
            .collect()
    }

    fn add_confirmation(&mut self) {
        let steps = self
            .scope()
            .into_iter()
            .filter(|(node, _)| !node.is_worker_only())
            .map(|(node, observation)| {
                let action =
                    Action::Confirm { before: self.before(node, observation), timeout: CONFIRM_TIMEOUT };
                (
                    Some(node.name.clone()),
                    action,
                    "Rancher says \"active\" too early (rancher#19661)".to_owned(),
                )
            })
            .collect();
        self.add_stage(StageName::Confirm, "certificates are new on disk, and served", usize::MAX, steps);
    }

    /// Plans kubelet, kube-proxy and the Rancher agent alone.
    fn restart(&mut self) {
        let scope = self.scope();
        let needy: Vec<_> =
            scope.iter().copied().filter(|(node, seen)| self.needs_restart(node, seen)).collect();
        if needy.is_empty() {
            return;
        }
        self.stages.push(preflight(&needy));
        self.add_restarts(&needy, false);
        self.add_verification(&needy);
    }

    fn needs_restart(&self, node: &NodeFacts, observation: &Observation) -> bool {
        self.policy.renewal == Renewal::All && self.policy.procedure == Procedure::Restart
            || WORKER_CONTAINERS.iter().any(|container| restart_reason(observation, container).is_some())
            || self.rancher_says_inactive(node).is_some()
            || agent_restart(observation).is_some()
    }

    /// Returns Rancher's word for a node that is not active.
    fn rancher_says_inactive(&self, node: &NodeFacts) -> Option<&str> {
        let rancher = self.policy.rancher.as_ref()?;
        let internal = self.inventory.node(&node.name).map(|node| node.internal_address.to_lowercase());
        let known_as = [Some(node.name.as_str().to_lowercase()), Some(node.address.to_lowercase()), internal];
        let found = rancher
            .nodes
            .iter()
            .find(|candidate| known_as.iter().flatten().any(|name| candidate.names.contains(name)))?;
        (!is_active(&found.state)).then_some(found.state.as_str())
    }

    /// Adds the stages that restart kubelet and kube-proxy: etcd and control plane nodes one at a time, workers in batches.
    fn add_restarts(&mut self, nodes: &[(&'a NodeFacts, &'a Observation)], after_rotation: bool) {
        let workers = self.inventory.nodes.iter().filter(|node| node.roles == [Role::Worker]).count();
        let (workers_only, others): (Vec<_>, Vec<_>) =
            nodes.iter().copied().partition(|(node, _)| node.is_worker_only());
        let titled = [
            (
                StageName::ControlPlane,
                "kubelet and kube-proxy of etcd and control plane nodes, where they need it",
                1,
                others,
            ),
            (
                StageName::Workers,
                "kubelet and kube-proxy of workers, where they need it",
                self.policy.max_unavailable_worker.of(workers),
                workers_only,
            ),
        ];
        for (name, title, max_unavailable, nodes) in titled {
            let steps = nodes
                .iter()
                .flat_map(|(node, seen)| self.restart_steps(node, seen, after_rotation))
                .collect();
            self.add_stage(name, title, max_unavailable, steps);
        }
    }

    /// Returns the restarts of one node.
    fn restart_steps(
        &self,
        node: &NodeFacts,
        observation: &Observation,
        after_rotation: bool,
    ) -> Vec<PlannedStep> {
        let reasons: Vec<String> = WORKER_CONTAINERS
            .iter()
            .filter_map(|container| Some(format!("{container} {}", restart_reason(observation, container)?)))
            .chain(self.rancher_says_inactive(node).map(|state| format!("Rancher calls the node {state}")))
            .collect();
        let containers = WORKER_CONTAINERS.map(str::to_owned).to_vec();
        let mut steps = Vec::new();
        let inactive = self.rancher_says_inactive(node).is_some();
        let forced = self.policy.renewal == Renewal::All && self.policy.procedure == Procedure::Restart;
        if after_rotation {
            let guard =
                Guard::IfNeeded { patience: self.patience(node), before: self.before(node, observation) };
            let reason = "where they started before their certificate was written".to_owned();
            steps.push((Some(node.name.clone()), Action::Restart { containers, guard }, reason));
        } else if forced || inactive {
            let reason = if reasons.is_empty() { "--force".to_owned() } else { reasons.join("; ") };
            steps.push((
                Some(node.name.clone()),
                Action::Restart { containers, guard: Guard::Always },
                reason,
            ));
        } else if !reasons.is_empty() {
            let guard = Guard::IfNeeded { patience: Duration::ZERO, before: Vec::new() };
            steps.push((Some(node.name.clone()), Action::Restart { containers, guard }, reasons.join("; ")));
        }
        if let Some((container, reason)) = agent_restart(observation) {
            steps.push((Some(node.name.clone()), Action::RestartAgent { container }, reason));
        }
        steps
    }

    /// Returns how long a node's own agent is given: only worker-only nodes of clusters that Rancher launched have one that
    /// restarts anything.
    fn patience(&self, node: &NodeFacts) -> Duration {
        if !node.is_worker_only() || !self.facts.is_rancher_launched() {
            return Duration::ZERO;
        }
        let interval = self
            .policy
            .rancher
            .as_ref()
            .map_or(super::AGENT_CHECK_INTERVAL, |rancher| rancher.agent_check_interval);
        interval * PATIENCE_INTERVALS
    }

    fn add_verification(&mut self, nodes: &[(&'a NodeFacts, &'a Observation)]) {
        let rotates = self.stages.iter().any(|stage| stage.name == StageName::Rotate);
        let steps = nodes
            .iter()
            .map(|(node, observation)| {
                let before = if rotates { self.before(node, observation) } else { Vec::new() };
                let action = Action::Verify { before, timeout: VERIFY_TIMEOUT };
                (Some(node.name.clone()), action, "proves that it worked".to_owned())
            })
            .collect();
        self.add_stage(
            StageName::Verify,
            "certificates, what is served, health, each node active",
            usize::MAX,
            steps,
        );
    }

    /// Adds a stage, unless it would be empty.
    fn add_stage(&mut self, name: StageName, title: &str, max_unavailable: usize, steps: Vec<PlannedStep>) {
        if !steps.is_empty() {
            self.stages.push(stage(name, title, max_unavailable, steps));
        }
    }

    fn finish(mut self) -> Plan {
        let control_plane = self.facts.seen().filter(|(node, _)| node.has(Role::ControlPlane));
        let lock_nodes = control_plane.map(|(node, _)| node.name.clone()).collect();
        self.findings.sort_by_key(|finding| finding.severity);
        let basis = basis::basis(self.inventory, self.facts);
        let fingerprint = basis::fingerprint(&basis, self.policy);
        let expected_seconds = expected_seconds(&self.stages);
        let mut plan = Plan {
            version: PLAN_VERSION,
            id: fingerprint.as_str().chars().take(4).collect(),
            cluster: self.inventory.cluster_name.clone(),
            procedure: self.policy.procedure,
            via: self.policy.via.filter(|_| self.policy.procedure == Procedure::Rotate),
            services: self.policy.services.clone(),
            created_at: self.policy.now,
            observed_at: self.facts.observed_at,
            kube_ca: self.facts.kube_ca().map(|authority| authority.sha256.clone()),
            fingerprint,
            basis,
            stages: self.stages,
            blockers: self.blockers,
            findings: self.findings,
            not_handled: self.not_handled,
            lock_nodes,
            expected_seconds,
        };
        if !plan.has_work() {
            plan.stages.clear();
        }
        plan
    }
}

/// What the written procedure restarts on a worker, in its order.
pub(super) const WORKER_CONTAINERS: [&str; 2] = ["kubelet", "kube-proxy"];

type PlannedStep = (Option<NodeName>, Action, String);

/// Makes a stage; the steps are named after stage, node and number.
fn stage(name: StageName, title: &str, max_unavailable: usize, planned: Vec<PlannedStep>) -> Stage {
    let mut steps: Vec<Step> = Vec::new();
    for (node, action, reason) in planned {
        let number = steps.iter().filter(|step| step.node == node).count() + 1;
        let place = node.as_ref().map_or("cluster", NodeName::as_str);
        let id = StepId(format!("{}/{place}/{number}", name.as_str().replace(' ', "-")));
        steps.push(Step { id, node, action, reason });
    }
    let mut stage = Stage { name, title: title.to_owned(), max_unavailable, steps };
    stage.max_unavailable = stage.max_unavailable.min(stage.nodes().len()).max(1);
    stage
}

fn preflight(nodes: &[(&NodeFacts, &Observation)]) -> Stage {
    let steps = nodes.iter().map(|(node, _)| {
        (
            Some(node.name.clone()),
            Action::Preflight,
            "nothing may have moved since the plan was made".to_owned(),
        )
    });
    stage(
        StageName::Preflight,
        "look again: nothing has moved, docker answers, there is space",
        usize::MAX,
        steps.collect(),
    )
}

fn backup(nodes: &[(&NodeFacts, &Observation)]) -> Stage {
    let steps =
        nodes.iter().map(|(node, _)| (Some(node.name.clone()), Action::Backup, "the way back".to_owned()));
    stage(StageName::Backup, "save `/etc/kubernetes`, and compare the copy", usize::MAX, steps.collect())
}

/// Returns what forbids work on a node.
fn node_blockers(observation: &Observation, policy: &Policy) -> Vec<Finding> {
    let mut blockers = Vec::new();
    if let Some(holder) = &observation.lock
        && policy.break_lock.as_deref() != Some(holder.run.as_str())
    {
        let message = format!(
            "run {} of {} (process {}) holds the lock since {}",
            holder.run, holder.owner, holder.pid, holder.since
        );
        blockers.push(
            Finding::error("locked", message)
                .hint(format!("wait for it; if it is certainly dead, `--break-lock {}`", holder.run)),
        );
    }
    if let Some(error) = &observation.docker_error {
        blockers.push(Finding::error("docker-unavailable", format!("docker does not answer: {error}")));
    }
    let needs_space = policy.procedure != Procedure::Restart;
    if needs_space && observation.kubernetes_directory.is_empty() {
        blockers.push(
            Finding::error("directory-missing", "no `/etc/kubernetes` of RKE's was found")
                .hint("set `prefix_path` in the cluster.yml if RKE keeps it elsewhere"),
        );
    } else if needs_space && !observation.is_writable {
        blockers.push(Finding::error(
            "read-only",
            format!("`{}` cannot be written to", observation.kubernetes_directory),
        ));
    }
    // The backup, and the copy that it is compared with.
    let needed = observation.used_kibibytes.unwrap_or_default() * 2 + 1024;
    if needs_space && observation.free_kibibytes.is_some_and(|free| free < needed) {
        let free = observation.free_kibibytes.unwrap_or_default();
        let message = format!(
            "{free} KiB are free at `{}`, the backup needs {needed} KiB",
            observation.kubernetes_directory
        );
        blockers.push(
            Finding::error("disk-full", message).hint("make room, or remove old backups under `.certroll`"),
        );
    }
    blockers
}

/// Returns what forbids a rotation by Rancher.
fn rancher_blockers(rancher: &RancherTarget, policy: &Policy) -> Vec<Finding> {
    let mut blockers = Vec::new();
    if !rancher.can_rotate {
        let message =
            format!("Rancher {} has no action `rotateCertificates` for this cluster", rancher.version);
        blockers.push(
            Finding::error("rancher-cannot-rotate", message)
                .hint("2.0.13 / 2.1.8 and earlier have none: upgrade Rancher to 2.0.14 / 2.1.9 or later first; RKE2 and k3s clusters have tools of their own"),
        );
    }
    let ignores_services =
        ["v2.0.", "v2.1.", "2.0.", "2.1."].iter().any(|old| rancher.version.starts_with(old));
    if ignores_services && !policy.services.is_empty() {
        let message = format!(
            "Rancher {} rotates all services or none: `--service` is of no use there",
            rancher.version
        );
        blockers.push(Finding::error("rancher-rotates-all", message).hint("drop `--service`"));
    }
    blockers
}

/// Returns the restart of the Rancher agent, where it is the one that is not connected.
fn agent_restart(observation: &Observation) -> Option<(String, String)> {
    if let Some(agent) = observation.rancher_agent() {
        if !agent.is_running() {
            return Some((agent.name.clone(), format!("the Rancher agent is {}", agent.state)));
        }
        let disconnected = observation.agent_log.as_deref().is_some_and(is_disconnected);
        return disconnected
            .then(|| (agent.name.clone(), "the Rancher agent says that it cannot connect".to_owned()));
    }
    None
}

/// Returns what makes the rotation due, in a sentence.
fn due_finding(due: &[(&NodeName, String, CertificateStatus)], policy: &Policy) -> Finding {
    let mut names: Vec<&str> = due.iter().map(|(_, name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let days = policy.renew_within.as_hours() / 24;
    let message = if due.is_empty() {
        "--force: the certificates are good for longer; the old ones stay valid until they expire".to_owned()
    } else {
        let verb = if names.len() == 1 { "is" } else { "are" };
        format!(
            "{} ({}) {verb} due: expired, expiring within {days} days, or unusable",
            names.len(),
            names.join(", ")
        )
    };
    let finding = Finding::info("certificates-due", message);
    if policy.renewal == Renewal::All {
        finding.hint("a leaked CA key needs a new CA, which certroll does not make yet")
    } else {
        finding
    }
}

/// Returns what the operator is asked to do, by Rancher's versions.
fn instructions(policy: &Policy, is_rancher_launched: bool) -> Vec<String> {
    let what = match policy.services.as_slice() {
        [] => "Rotate all service certificates".to_owned(),
        services => {
            let names: Vec<&str> = services.iter().map(|service| service.as_str()).collect();
            format!("Rotate an individual service: {}, one after the other", names.join(", "))
        }
    };
    let mut lines = vec![
        format!("Rancher 2.2 and later: the cluster's menu (⋮), Rotate Certificates, \"{what}\", Save"),
        "Rancher 2.0.14 / 2.1.9 and later of 2.0 and 2.1: View in API of the cluster, the action rotateCertificates, Show Request, Send Request"
            .to_owned(),
    ];
    if !is_rancher_launched {
        let words = policy.services.iter().flat_map(|service| ["--service", service.as_str()]);
        let command: Vec<&str> = ["rke", "cert", "rotate"].into_iter().chain(words).collect();
        lines.push(format!("a cluster that rke built: `{}` beside its cluster.rkestate", command.join(" ")));
    }
    lines
}

/// Returns how long the stages will take, at least and at most, in seconds; rough figures from real hosts.
fn expected_seconds(stages: &[Stage]) -> (u64, u64) {
    let mut total = (0, 0);
    for stage in stages {
        let batches = stage.nodes().len().div_ceil(stage.max_unavailable).max(1) as u64;
        let slowest = stage
            .steps
            .iter()
            .map(|step| step_seconds(&step.action))
            .fold((0, 0), |worst, (low, high)| (worst.0.max(low), worst.1.max(high)));
        total.0 += slowest.0 * batches;
        total.1 += slowest.1 * batches;
    }
    total
}

/// Returns how long an action takes, at least and at most, in seconds.
fn step_seconds(action: &Action) -> (u64, u64) {
    match action {
        Action::Preflight | Action::Backup => (1, 5),
        Action::CopyFiles { .. } | Action::BringFiles { .. } | Action::AddKubeAdmin { .. } => (1, 3),
        Action::RotateByRancher { .. } | Action::RotateByOperator { .. } => (120, 600),
        Action::Confirm { .. } | Action::Verify { .. } => (2, 20),
        Action::Restart { guard: Guard::IfNeeded { patience, .. }, .. } => (1, patience.as_secs() + 30),
        Action::Restart { guard: Guard::Always, .. } => (5, 30),
        Action::RestartAgent { .. } => (2, 15),
    }
}
