//! What nodes show of a rotation that somebody else makes: how many of the planned certificates are new, and where they are not.

use super::Execution;
use super::verify::still_old;
use crate::inventory::{Node, NodeName};
use crate::plan::CertificateBefore;

/// What the nodes show of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// Every certificate is another one than before.
    New,
    /// A node was seen that has one of before, and says so.
    Old(String),
    /// None of before was seen, and not every node could be looked at.
    Unknown(String),
}

/// A look at the certificates that a rotation is to change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Look {
    nodes: Vec<NodeLook>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct NodeLook {
    node: NodeName,
    /// How many certificates of it are to change.
    planned: usize,
    /// The names of those that have not; or why the node could not be looked at.
    old: Result<Vec<String>, String>,
}

impl NodeLook {
    /// Returns how many certificates of the node have changed.
    fn changed(&self) -> Result<usize, &String> {
        self.old.as_ref().map(|old| self.planned - old.len().min(self.planned))
    }
}

impl Look {
    /// Returns what the nodes show, taken together.
    pub(super) fn shown(&self) -> Shown {
        let (mut old, mut unseen) = (Vec::new(), Vec::new());
        for NodeLook { node, old: found, .. } in &self.nodes {
            match found {
                Ok(names) if names.is_empty() => {}
                Ok(names) => old.push(format!("{node}: no new certificate yet for {}", names.join(", "))),
                Err(error) => unseen.push(format!("{node}: {error}")),
            }
        }
        match (old.is_empty(), unseen.is_empty()) {
            (true, true) => Shown::New,
            (true, false) => Shown::Unknown(unseen.join("; ")),
            (false, _) => Shown::Old([old, unseen].concat().join("; ")),
        }
    }

    /// Returns how many of the planned certificates have changed, in all and on each node.
    pub(super) fn counts(&self) -> String {
        let each: Vec<String> = self
            .nodes
            .iter()
            .map(|look| match look.changed() {
                Ok(changed) => format!("{} {changed} of {}", look.node, look.planned),
                Err(error) => format!("{} cannot be looked at: {error}", look.node),
            })
            .collect();
        let planned: usize = self.nodes.iter().map(|look| look.planned).sum();
        let changed: usize = self.nodes.iter().filter_map(|look| look.changed().ok()).sum();
        format!("{changed} of {planned} planned certificates have changed ({})", each.join(", "))
    }
}

impl Execution<'_> {
    /// Looks which nodes show new certificates by now.
    pub(super) async fn look_for_new(&self, before: &[CertificateBefore]) -> Look {
        let inventory = self.run.gatherer.inventory();
        let nodes: Vec<&Node> = inventory
            .nodes
            .iter()
            .filter(|node| before.iter().any(|certificate| certificate.node == node.name))
            .collect();
        let facts = self.run.gatherer.gather(&nodes, |_| {}).await;
        let look = |node: &crate::facts::NodeFacts| {
            let own: Vec<CertificateBefore> =
                before.iter().filter(|certificate| certificate.node == node.name).cloned().collect();
            let mut names: Vec<&str> = own.iter().map(|certificate| certificate.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            let old = match &node.result {
                Ok(observation) => Ok(still_old(observation, &own)),
                Err(error) => Err(error.error.clone()),
            };
            NodeLook { node: node.name.clone(), planned: names.len(), old }
        };
        Look { nodes: facts.nodes.iter().map(look).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node, how many of its certificates are planned, and which are old.
    type Node<'a> = (&'a str, usize, Result<&'a [&'a str], &'a str>);

    fn look(nodes: &[Node<'_>]) -> Look {
        let node = |(name, planned, old): &Node<'_>| NodeLook {
            node: NodeName::new(*name),
            planned: *planned,
            old: old
                .map(|names| names.iter().map(|name| (*name).to_owned()).collect())
                .map_err(str::to_owned),
        };
        Look { nodes: nodes.iter().map(node).collect() }
    }

    #[test]
    fn one_old_certificate_outweighs_what_is_new_or_unknown() {
        let mixed = look(&[
            ("cp-1", 9, Ok(&[])),
            ("cp-2", 8, Ok(&["kube-node", "kube-proxy"])),
            ("etcd-1", 3, Err("no route to host")),
        ]);
        let old = "cp-2: no new certificate yet for kube-node, kube-proxy; etcd-1: no route to host";
        assert_eq!(mixed.shown(), Shown::Old(old.to_owned()));
        assert_eq!(
            mixed.counts(),
            "15 of 20 planned certificates have changed (cp-1 9 of 9, cp-2 6 of 8, etcd-1 cannot be looked at: no route to host)"
        );
        assert_eq!(look(&[("cp-1", 9, Ok(&[]))]).shown(), Shown::New);
        let unknown = look(&[("cp-1", 9, Ok(&[])), ("cp-2", 8, Err("no route"))]);
        assert_eq!(unknown.shown(), Shown::Unknown("cp-2: no route".to_owned()));
    }
}
