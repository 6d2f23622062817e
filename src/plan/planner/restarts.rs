use std::time::Duration;

use jiff::SignedDuration;

use super::{Draft, PlannedStep, preflight};
use crate::facts::{
    AGENT_CHECK_INTERVAL, Agent, CertificateStatus, NodeFacts, Observation, PATIENCE_INTERVALS, Thresholds,
    certificate_status, certificates_of_container, is_active, left_to_agent, restart_reason,
};
use crate::finding::Finding;
use crate::pki::Location;
use crate::plan::{Action, Guard, Procedure, Renewal, StageName, Via};

/// What the written procedure restarts on a worker, in its order.
const WORKER_CONTAINERS: [&str; 2] = ["kubelet", "kube-proxy"];

/// How long rke or Rancher are given, after a rotation by hand, to restart what they have written new files for: rke restarts
/// workers right after the control plane, which takes it some 15 s.
const HAND_PATIENCE: Duration = Duration::from_secs(30);

impl<'a> Draft<'a> {
    /// Plans kubelet, kube-proxy and the Rancher agent alone.
    pub(super) fn restart(&mut self) {
        let scope = self.scope();
        let needy: Vec<_> =
            scope.iter().copied().filter(|(node, seen)| self.needs_restart(node, seen)).collect();
        if needy.is_empty() {
            return;
        }
        self.refuse_unusable_certificates(&needy);
        self.stages.push(preflight(&needy));
        self.add_restarts(&needy, false);
        self.add_verification(&needy);
    }

    /// A component that is restarted onto a certificate that has ended, or that is not its own, does not come back.
    fn refuse_unusable_certificates(&mut self, nodes: &[(&'a NodeFacts, &'a Observation)]) {
        let now = Thresholds { expiring_within: SignedDuration::ZERO, ..self.thresholds };
        for (node, observation) in nodes {
            let names = WORKER_CONTAINERS
                .iter()
                .flat_map(|container| certificates_of_container(container).iter().copied());
            let unusable = names.filter_map(|name| {
                let file = observation.certificate_file(Location::Ssl, name)?;
                let status = certificate_status(observation, file, &now).0;
                (!matches!(status, CertificateStatus::Ok | CertificateStatus::Expiring))
                    .then(|| format!("`ssl/{}` is {}", file.file_name, status.as_str()))
            });
            let unusable: Vec<String> = unusable.collect();
            if !unusable.is_empty() {
                let message = format!("a restart would not help: {}", unusable.join(", "));
                self.blockers.push(
                    Finding::error("certificate-unusable", message).on(&node.name).hint(
                        "`certroll plan --via direct`, `--via rancher`, `--via rke` or `--via manual` has new certificates made first",
                    ),
                );
            }
        }
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
        let node = self.inventory.node(&node.name)?;
        let found = rancher.node(node)?;
        (!is_active(&found.state)).then_some(found.state.as_str())
    }

    /// Adds the stages that restart kubelet and kube-proxy: etcd and control plane nodes one at a time, workers in batches.
    pub(super) fn add_restarts(&mut self, nodes: &[(&'a NodeFacts, &'a Observation)], after_rotation: bool) {
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
                self.max_unavailable_workers(),
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
    pub(super) fn restart_steps(
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
        let timeout = self.policy.health_timeout;
        let mut steps = Vec::new();
        let inactive = self.rancher_says_inactive(node).is_some();
        let forced = self.policy.renewal == Renewal::All && self.policy.procedure == Procedure::Restart;
        if after_rotation {
            let guard =
                Guard::IfNeeded { patience: self.patience(node), before: self.before(node, observation) };
            let reason = "where they started before their certificate was written".to_owned();
            steps.push((Some(node.name.clone()), Action::Restart { containers, guard, timeout }, reason));
        } else if forced || inactive {
            let reason = if reasons.is_empty() { "--force".to_owned() } else { reasons.join("; ") };
            steps.push((
                Some(node.name.clone()),
                Action::Restart { containers, guard: Guard::Always, timeout },
                reason,
            ));
        } else if !reasons.is_empty() {
            // What a worker's agent is about to restart by itself is left to it for the rest of its time.
            let left = |container: &&str| left_to_agent(node, observation, container, self.thresholds.now);
            let patience = WORKER_CONTAINERS.iter().filter_map(left).max().unwrap_or_default();
            let guard = Guard::IfNeeded { patience, before: Vec::new() };
            steps.push((
                Some(node.name.clone()),
                Action::Restart { containers, guard, timeout },
                reasons.join("; "),
            ));
        }
        if let Some((container, reason)) = agent_restart(observation) {
            steps.push((Some(node.name.clone()), Action::RestartAgent { container }, reason));
        }
        steps
    }

    /// Returns how long a node's own agent is given: only worker-only nodes of clusters that Rancher launched have one that
    /// restarts anything.
    fn patience(&self, node: &NodeFacts) -> Duration {
        if !node.is_worker_only() || !self.is_rancher_launched {
            // Whoever rotates by hand may still be restarting what it has written.
            return if self.policy.via == Some(Via::Manual) { HAND_PATIENCE } else { Duration::ZERO };
        }
        let interval =
            self.policy.rancher.as_ref().map_or(AGENT_CHECK_INTERVAL, |rancher| rancher.agent_check_interval);
        interval * PATIENCE_INTERVALS
    }
}

/// Returns the restart of the Rancher agent, where it is the one that is not connected.
fn agent_restart(observation: &Observation) -> Option<(String, String)> {
    if let Some(agent) = observation.rancher_agent() {
        if !agent.is_running() {
            return Some((agent.name.clone(), format!("the Rancher agent is {}", agent.state)));
        }
        let disconnected = observation.agent.as_ref().is_some_and(Agent::is_disconnected);
        return disconnected
            .then(|| (agent.name.clone(), "the Rancher agent says that it cannot connect".to_owned()));
    }
    None
}
