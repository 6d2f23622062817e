//! A node is away that a plan has steps for, and that cannot be looked at when the plan is carried out.

use super::{Majority, Plan, Procedure, is_control_plane_or_etcd};
use crate::facts::{Facts, NodeFacts, Unseen};

/// A node that is away, and why nothing was seen of it.
#[derive(Debug, Clone, Copy)]
pub struct Away<'a> {
    /// The node.
    pub node: &'a NodeFacts,
    /// Why.
    pub unseen: &'a Unseen,
}

impl Away<'_> {
    /// Returns whether a plan cannot be carried out without the node. A worker follows later; a node of etcd or the control plane
    /// may be at work all the same, unless the operator knows by now that it is down: that others were when the plan was made says nothing of
    /// this one. Restarts are made node by node: they need the lock alone.
    pub fn forbids(&self, plan: &Plan, majority: Majority) -> bool {
        majority == Majority::Needed
            && plan.procedure != Procedure::Restart
            && is_control_plane_or_etcd(&self.node.roles)
    }
}

/// Returns the nodes of a plan's steps that cannot be looked at.
pub fn away<'a>(plan: &Plan, facts: &'a Facts) -> Vec<Away<'a>> {
    let has_steps = |node: &&NodeFacts| plan.steps().any(|step| step.node.as_ref() == Some(&node.name));
    let nodes = facts.nodes.iter().filter(has_steps);
    nodes.filter_map(|node| Some(Away { node, unseen: node.result.as_ref().err()? })).collect()
}

/// Returns what is left of a plan where nothing is done on nodes that are away: what the checker can judge.
pub fn without_away(plan: &Plan, facts: &Facts) -> Plan {
    let away = away(plan, facts);
    let mut left = plan.clone();
    for stage in &mut left.stages {
        stage.steps.retain(|step| !away.iter().any(|away| step.node.as_ref() == Some(&away.node.name)));
    }
    left.stages.retain(|stage| !stage.steps.is_empty());
    left
}
