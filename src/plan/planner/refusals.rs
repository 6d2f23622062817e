//! What forbids every plan: nodes that were not seen, a selection that splits the cluster, clocks, a lost quorum, Rancher at work.

use std::collections::HashSet;

use super::{Draft, blockers};
use crate::facts::{
    Cause, CertificateStatus, Container, NodeFacts, Observation, Unseen, certificate_status, clock_skew,
    differing_authorities,
};
use crate::finding::Finding;
use crate::inventory::{NodeName, Role};
use crate::pki::{Class, Location, Service};
use crate::plan::policy::{Majority, RancherWork};
use crate::plan::{LeftOut, NotHandled, Procedure, Via, is_control_plane_or_etcd};

impl Draft<'_> {
    /// Blocks on what no plan can do with, and names nodes that are left out.
    pub(super) fn refuse_what_cannot_be(&mut self) {
        let facts = self.facts;
        for node in &facts.nodes {
            if !self.is_selected(&node.name) {
                continue;
            }
            if let Err(unseen) = &node.result {
                self.leave_unseen(node, unseen);
            }
        }
        self.refuse_minority();
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
            let found = blockers::on_node(observation, self.policy.procedure, self.facts.observed_at);
            self.blockers.extend(found.into_iter().map(|finding| finding.on(&node.name)));
            self.findings.extend(clock_skew(observation).map(|finding| finding.on(&node.name)));
        }
        self.refuse_clocks_of_what_stays();
        self.refuse_lost_quorum();
        self.refuse_busy_rancher();
        // The lock is taken on every control plane node that was seen, selected or not.
        for (node, observation) in self.facts.seen().filter(|(node, _)| node.has(Role::ControlPlane)) {
            let found = blockers::of_lock(observation, self.policy);
            self.blockers.extend(found.map(|finding| finding.on(&node.name)));
        }
    }

    /// Leaves a node as it is that was not seen, or blocks on it.
    fn leave_unseen(&mut self, node: &NodeFacts, unseen: &Unseen) {
        if unseen.cause == Cause::Windows {
            self.not_handled.push(NotHandled {
                node: node.name.clone(),
                reason: unseen.error.clone(),
                hint: unseen.hint.clone().unwrap_or_default(),
                left_out: LeftOut::ForGood,
            });
            return;
        }
        let is_group = is_control_plane_or_etcd(&node.roles);
        let is_needed = is_group && self.policy.procedure != Procedure::Restart;
        if is_needed && self.policy.majority == Majority::Needed {
            let message =
                format!("a node of etcd or the control plane cannot be looked at: {}", unseen.error);
            let hint = "bring it back, or take it out of the cluster and of the cluster.yml first; where it is down for good and the \
                        others must be rescued, `--without-majority` leaves it as it is";
            self.blockers
                .push(Finding::error("control-plane-unreachable", message).on(&node.name).hint(hint));
            return;
        }
        let consequence = match (is_needed, node.has(Role::Etcd)) {
            (false, _) => "it stays as it is",
            (true, false) => "it keeps its old certificates, and counts as down",
            (true, true) => "it keeps its old certificates, and its etcd member counts as down",
        };
        self.not_handled.push(NotHandled {
            node: node.name.clone(),
            reason: format!("{}; {consequence}", unseen.error),
            hint: self.command_for_later(&node.name),
            left_out: LeftOut::ForNow,
        });
    }

    /// Half of the control plane or less does not show whether another run is at work on the rest.
    fn refuse_minority(&mut self) {
        let of = self.inventory.with_role(Role::ControlPlane).count();
        let reached = self.facts.seen().filter(|(node, _)| node.has(Role::ControlPlane)).count();
        match self.policy.majority {
            Majority::Needed if self.policy.procedure == Procedure::Restart && reached * 2 <= of => {
                let message = format!(
                    "{reached} of {of} controlplane nodes can be reached: whether another run is at work on the rest cannot be seen"
                );
                self.blockers.push(Finding::error("lock-without-majority", message).hint(
                    "bring them back; where they are down for good, and no other run can be at work, `--without-majority`",
                ));
            }
            Majority::Waived if reached < of => {
                let message = format!(
                    "the lock is taken on {reached} of {of} controlplane nodes: a run that reaches the others alone would not see it"
                );
                self.findings.push(
                    Finding::warning("without-majority", message)
                        .hint("make sure that nobody else works on this cluster"),
                );
            }
            Majority::Needed | Majority::Waived => {}
        }
    }

    /// Certificates of etcd and the control plane are made for all of their nodes or for none.
    pub(super) fn refuse_split_selection(&mut self) {
        if self.policy.procedure == Procedure::Restart || self.policy.selected.is_none() {
            return;
        }
        let group = || self.facts.nodes.iter().filter(|node| is_control_plane_or_etcd(&node.roles));
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

    /// A node that takes a certificate which stays for expired, or for not yet valid, loses what is restarted onto it.
    fn refuse_clocks_of_what_stays(&mut self) {
        let due = if self.policy.procedure == Procedure::Rotate { self.due() } else { Vec::new() };
        let renewed: HashSet<&str> = due.iter().map(|(_, name, _)| name.as_str()).collect();
        let clocks = self.blockers.iter().filter(|blocker| blocker.code == blockers::CLOCK_OUTSIDE);
        let told: HashSet<NodeName> = clocks.filter_map(|blocker| blocker.node.clone()).collect();
        for (node, seen) in self.scope() {
            if told.contains(&node.name) {
                continue;
            }
            let stays = |name: &str| !renewed.contains(name);
            let found = blockers::of_clock(seen, self.facts.observed_at, |file| {
                file.class() == Class::Leaf && file.certificate_name().is_some_and(stays)
            });
            self.blockers.extend(found.map(|finding| finding.on(&node.name)));
        }
    }

    /// Without etcd no API server answers, and a restart onto new certificates cannot be seen to work: only a rotation that gives etcd
    /// its quorum back may go on. A member whose health is not known is not counted.
    fn refuse_lost_quorum(&mut self) {
        let total = self.inventory.with_role(Role::Etcd).count();
        let is_member = |node: &&NodeFacts| node.has(Role::Etcd);
        let lost: Vec<&NodeFacts> =
            self.facts.nodes.iter().filter(is_member).filter(|node| is_lost(node)).collect();
        let renews_etcd = self.policy.procedure == Procedure::Rotate
            && (self.policy.services.is_empty() || self.policy.services.contains(&Service::Etcd));
        let is_due = |node: &NodeFacts| self.has_due_etcd_pair(node);
        let any_due = renews_etcd && self.facts.nodes.iter().filter(is_member).any(is_due);
        // A member that runs with a good pair comes back by itself once the others have good ones.
        let hopeless = lost.iter().filter(|node| {
            let comes_back = node.observation().is_some_and(|seen| is_due(node) || runs_etcd(seen));
            !any_due || !comes_back
        });
        // A rotation with the cluster's own CA restarts members by itself, and has a rule of its own for that.
        let is_judged = self.policy.procedure != Procedure::Repair && self.policy.direct.is_none();
        if !is_judged || hopeless.count() * 2 < total || total == 0 {
            return;
        }
        let names: Vec<&str> = lost.iter().map(|node| node.name.as_str()).collect();
        let message = format!(
            "etcd has no quorum: {} of {total} members are not healthy ({}), and this plan would not change that",
            lost.len(),
            names.join(", ")
        );
        self.blockers.push(Finding::error("etcd-without-quorum", message).hint(
            "put etcd right first (`docker logs etcd` on its nodes), or restore it from a snapshot (`rke etcd snapshot-restore`); \
             where its certificates are the cause, `certroll plan rotate`",
        ));
    }

    /// Returns whether the own pair of an etcd member is there to be renewed.
    fn has_due_etcd_pair(&self, node: &NodeFacts) -> bool {
        let (Some(seen), Some(planned)) = (node.observation(), self.inventory.node(&node.name)) else {
            return false;
        };
        let name = format!("kube-etcd-{}", planned.file_name_address());
        seen.certificate_file(Location::Ssl, &name)
            .is_none_or(|file| certificate_status(seen, file, &self.thresholds).0 != CertificateStatus::Ok)
    }

    /// What Rancher is in the middle of would meet with what is done here. `repair` is what helps a rotation that fails for ever.
    pub(super) fn refuse_busy_rancher(&mut self) {
        let Some(rancher) = self.policy.rancher.as_ref() else { return };
        if self.policy.procedure == Procedure::Repair {
            return;
        }
        let waits_for_it = matches!(self.policy.via, Some(Via::Rancher | Via::Manual));
        match &rancher.work {
            RancherWork::None => {}
            RancherWork::Rotating { message } => {
                let message = format!("Rancher is rotating the certificates of this cluster: {message}");
                self.blockers.push(
                    Finding::error("rancher-is-rotating", message)
                        .hint("wait until Rancher shows the cluster as active, then plan again"),
                );
            }
            RancherWork::RotatingAuthority { message } => {
                let message = format!("Rancher has been told to give this cluster a new CA: {message}");
                self.blockers.push(Finding::error("rancher-rotates-ca", message).hint(
                    "it changes every kubeconfig: let Rancher end it, then plan again; or have an administrator clear \
                     `rotateCertificates` in the cluster's `rancherKubernetesEngineConfig` (View in API, Edit)",
                ));
            }
            RancherWork::Provisioning { message } => {
                let message =
                    format!("Rancher is working on this cluster (it is {}): {message}", rancher.state);
                self.blockers.push(
                    Finding::error("rancher-is-provisioning", message)
                        .hint("wait until Rancher shows the cluster as active, then plan again"),
                );
            }
            RancherWork::RotationFails { message }
                if waits_for_it || self.policy.procedure != Procedure::Rotate =>
            {
                let message =
                    format!("Rancher has a rotation to do that fails, and tries again and again: {message}");
                self.findings.push(
                    Finding::warning("rancher-rotation-fails", message)
                        .hint("`certroll plan repair` completes what Rancher 2.2 misses on the nodes"),
                );
            }
            RancherWork::RotationFails { message } => {
                let message = format!(
                    "Rancher has a rotation to do that fails, and tries again and again: once it succeeds, its certificates replace these: {message}"
                );
                self.blockers.push(Finding::error("rancher-rotation-fails", message).hint(
                    "`--via rancher` puts right what it may complain of, and waits for it; or have an administrator clear \
                     `rotateCertificates` in the cluster's `rancherKubernetesEngineConfig` (View in API, Edit), then plan again",
                ));
            }
        }
    }
}

/// Returns whether an etcd member is certainly down: not reached, or seen not to be healthy.
fn is_lost(node: &NodeFacts) -> bool {
    node.observation().is_none_or(|seen| {
        seen.health_of(Service::Etcd).is_some_and(|health| health.healthy == Some(false))
            || seen.container("etcd").is_some_and(|container| !container.is_running())
    })
}

/// Returns whether etcd's container runs.
fn runs_etcd(seen: &Observation) -> bool {
    seen.container("etcd").is_some_and(Container::is_running)
}
