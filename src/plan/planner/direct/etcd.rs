//! The order in which etcd members are switched: one at a time, unless there is no quorum to lose.

use std::time::Duration;

use super::work::NodeWork;
use super::{Draft, all, is_well};
use crate::facts::{CertificateStatus, Container, NodeFacts, Observation, certificate_status};
use crate::finding::Finding;
use crate::inventory::{NodeName, Role};
use crate::pki::{Location, Service};
use crate::plan::planner::PlannedStep;
use crate::plan::{Action, Gate, StageName};

impl<'a> Draft<'a> {
    /// Returns whether etcd had a quorum of healthy members; an external one is taken to have.
    pub(super) fn etcd_has_quorum(&self) -> bool {
        let members = self.inventory.with_role(Role::Etcd).count();
        let well =
            self.facts.seen().filter(|(node, seen)| node.has(Role::Etcd) && is_well(seen, Service::Etcd));
        members == 0 || well.count() > members / 2
    }

    /// Adds the stages of etcd.
    ///
    /// While a quorum is there, a member goes only when all others are healthy. Where none is, a single member cannot become
    /// healthy by itself: its peers refuse each other until a quorum of them has new certificates. Then as many as it takes go
    /// at once, and the rest one at a time.
    pub(in crate::plan::planner) fn add_etcd(&mut self, work: &[NodeWork<'a>]) {
        let members: Vec<(&NodeFacts, &Observation)> =
            self.facts.seen().filter(|(node, _)| node.has(Role::Etcd)).collect();
        if members.is_empty() {
            // Its certificates are somebody else's, and so is its health.
            return;
        }
        let mut switching: Vec<&NodeWork<'a>> = work.iter().filter(|work| work.changes_etcd()).collect();
        // Those that are down come first, for to restart them takes nothing away; but not those that do not even run.
        switching.sort_by_key(|work| (is_well(work.seen, Service::Etcd), !runs_etcd(work.seen)));
        let well: Vec<&NodeName> = members
            .iter()
            .filter(|(_, seen)| is_well(seen, Service::Etcd))
            .map(|(node, _)| &node.name)
            .collect();
        // One that was not seen is down for all that is known.
        let total = self.inventory.with_role(Role::Etcd).count().max(members.len());
        let quorum = total / 2 + 1;
        let lacking = quorum.saturating_sub(well.len());
        let at_once = if lacking > 0 { lacking.min(switching.len()) } else { 0 };
        let (first, rest) = switching.split_at_checked(at_once).unwrap_or((&[], &switching));
        self.refuse_unsafe_etcd((&members, &switching), (quorum, &well));
        let title = format!(
            "{at_once} of {total} members at once: {}, so there is no quorum to lose",
            if well.is_empty() {
                "none is healthy".to_owned()
            } else {
                format!("{} are healthy", well.len())
            }
        );
        let gate = Gate::NoQuorum { members: members.iter().map(|(node, _)| node.name.clone()).collect() };
        let steps =
            first.iter().map(|work| switch_member(work, gate.clone(), self.policy.health_timeout)).collect();
        self.add_stage(StageName::EtcdQuorum, &title, at_once, steps);
        let mut done: Vec<&NodeName> = first.iter().map(|work| &work.node.name).collect();
        let mut steps = Vec::new();
        for work in rest {
            // A member is asked about itself too: it may have fallen ill since the plan was made.
            let gate =
                if work.restarts_etcd { Gate::Etcd { members: all(&well, &done) } } else { Gate::Open };
            steps.push(switch_member(work, gate, self.policy.health_timeout));
            done.push(&work.node.name);
        }
        let title = "switch etcd members, one at a time, each only while all others are healthy";
        self.add_stage(StageName::Etcd, title, 1, steps);
    }

    /// Returns whether a member's own pair needs no renewal.
    fn has_good_etcd_pair(&self, node: &NodeFacts, seen: &Observation) -> bool {
        let Some(node) = self.inventory.node(&node.name) else { return false };
        let name = format!("kube-etcd-{}", node.file_name_address());
        let file = seen.certificate_file(Location::Ssl, &name);
        file.is_some_and(|file| certificate_status(seen, file, &self.thresholds).0 == CertificateStatus::Ok)
    }

    /// Blocks on restarts that would lose a quorum, and on restarts that cannot help.
    fn refuse_unsafe_etcd(
        &mut self,
        (members, switching): (&[(&NodeFacts, &Observation)], &[&NodeWork<'_>]),
        (quorum, well): (usize, &[&NodeName]),
    ) {
        let restarting: Vec<&NodeName> =
            switching.iter().filter(|work| work.restarts_etcd).map(|work| &work.node.name).collect();
        let down: Vec<&NodeName> = members
            .iter()
            .map(|(node, _)| &node.name)
            .filter(|name| !well.contains(name) && !restarting.contains(name))
            .collect();
        // A member whose own pair is good comes back by itself when a quorum of them has good ones.
        let waiting = members.iter().filter(|(node, seen)| {
            down.contains(&&node.name) && runs_etcd(seen) && self.has_good_etcd_pair(node, seen)
        });
        let is_told = self.blockers.iter().any(|blocker| blocker.code == "etcd-without-quorum");
        if !is_told && well.len() < quorum && well.len() + restarting.len() + waiting.count() < quorum {
            let message = format!(
                "{} of {} etcd members are healthy, and no new certificate of theirs would change that",
                well.len(),
                self.inventory.with_role(Role::Etcd).count()
            );
            self.blockers.push(Finding::error("etcd-without-quorum", message).hint(
                "put etcd right first (`docker logs etcd` on its nodes), or restore it from a snapshot (`rke etcd snapshot-restore`); \
                 API servers do not start without it",
            ));
        }
        let takes_one_away = well.len() >= quorum && restarting.iter().any(|name| well.contains(name));
        for name in down.iter().filter(|_| takes_one_away) {
            let message =
                "this etcd member is not healthy: with another one restarted, etcd could lose its quorum";
            self.blockers.push(
                Finding::error("etcd-member-down", message)
                    .on(name)
                    .hint("put it right, or remove it from etcd and from the cluster.yml, first"),
            );
        }
        let unseen: Vec<&str> = self
            .facts
            .nodes
            .iter()
            .filter(|node| node.has(Role::Etcd) && node.observation().is_none())
            .map(|node| node.name.as_str())
            .collect();
        if takes_one_away && !unseen.is_empty() && well.len() - 1 < quorum {
            let message = format!(
                "etcd has {} of {} members without {}: to restart one of them would lose its quorum",
                well.len(),
                members.len() + unseen.len(),
                unseen.join(", ")
            );
            self.blockers.push(Finding::error("etcd-quorum-at-stake", message).hint(
                "bring that node back; or remove its member (`docker exec etcd etcdctl member remove ID`) and take it out of the cluster.yml; \
                 a `--service` other than etcd leaves etcd alone",
            ));
        }
        if members.len() == 2 && unseen.is_empty() && restarting.iter().any(|name| well.contains(name)) {
            let message = "two etcd members: while one restarts there is no quorum, and writes wait";
            self.findings.push(Finding::warning("etcd-of-two", message));
        }
    }
}

/// Returns whether etcd's container runs.
fn runs_etcd(seen: &Observation) -> bool {
    seen.container("etcd").is_some_and(Container::is_running)
}

/// Returns the step that switches the files of etcd on a member's node.
fn switch_member(work: &NodeWork<'_>, gate: Gate, timeout: Duration) -> PlannedStep {
    let containers = if work.restarts_etcd { vec!["etcd".to_owned()] } else { Vec::new() };
    let mut names: Vec<&str> = work.etcd_files.iter().map(|file| file.certificate.as_str()).collect();
    names.dedup();
    let action =
        Action::Switch { files: work.etcd_files.clone(), retired: Vec::new(), containers, gate, timeout };
    let reason = match names.as_slice() {
        [] => "it started before its certificate was written".to_owned(),
        names => format!("new {}", names.join(", ")),
    };
    (Some(work.node.name.clone()), action, reason)
}
