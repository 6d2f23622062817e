use std::collections::BTreeSet;

use globset::{GlobBuilder, GlobMatcher};

use crate::inventory::{Inventory, Node, NodeName, Role};

/// Why a pattern selects nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SelectionError {
    #[error("the pattern `{0}` of `--nodes` cannot be read")]
    Pattern(String),
    #[error("the role `{0}` of `--nodes` is not one of controlplane, etcd, worker")]
    Role(String),
    #[error("`{0}` of `--nodes` matches no node of the inventory (`certroll nodes` lists them)")]
    NoMatch(String),
}

/// One part of a pattern.
enum Term {
    Role(Role),
    Glob(GlobMatcher),
}

impl Term {
    fn new(text: &str) -> Result<Self, SelectionError> {
        if let Some(word) = text.strip_prefix("role=") {
            let role = Role::ALL.into_iter().find(|role| role.as_str() == word);
            return role.map(Self::Role).ok_or_else(|| SelectionError::Role(word.to_owned()));
        }
        let glob = GlobBuilder::new(text).case_insensitive(true).build();
        glob.map(|glob| Self::Glob(glob.compile_matcher()))
            .map_err(|_| SelectionError::Pattern(text.to_owned()))
    }

    fn matches(&self, node: &Node) -> bool {
        match self {
            Self::Role(role) => node.has(*role),
            Self::Glob(glob) => [node.name.as_str(), &node.address, &node.internal_address]
                .iter()
                .any(|text| glob.is_match(text)),
        }
    }
}

/// Returns the nodes that a pattern means: a comma adds, `!` takes out, and a pattern that only takes out begins with all.
pub(super) fn select(inventory: &Inventory, pattern: &str) -> Result<BTreeSet<NodeName>, SelectionError> {
    let terms: Vec<&str> = pattern.split(',').map(str::trim).filter(|term| !term.is_empty()).collect();
    let (taken_out, added): (Vec<&str>, Vec<&str>) =
        terms.iter().copied().partition(|term| term.starts_with('!'));
    let mut chosen = BTreeSet::new();
    if added.is_empty() && !taken_out.is_empty() {
        chosen.extend(inventory.nodes.iter().map(|node| &node.name));
    }
    for text in added {
        chosen.extend(matching(inventory, text)?);
    }
    for text in taken_out {
        for name in matching(inventory, text.trim_start_matches('!'))? {
            chosen.remove(name);
        }
    }
    let names: BTreeSet<NodeName> = chosen.into_iter().cloned().collect();
    if names.is_empty() { Err(SelectionError::NoMatch(pattern.to_owned())) } else { Ok(names) }
}

/// Returns the nodes that one part of a pattern means; a part that means none is a mistake.
fn matching<'a>(inventory: &'a Inventory, text: &str) -> Result<Vec<&'a NodeName>, SelectionError> {
    let term = Term::new(text)?;
    let matching = inventory.nodes.iter().filter(|node| term.matches(node));
    let names: Vec<&NodeName> = matching.map(|node| &node.name).collect();
    if names.is_empty() { Err(SelectionError::NoMatch(text.to_owned())) } else { Ok(names) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory() -> Inventory {
        let text = "nodes:\n\
            - {address: 10.0.0.1, hostname_override: cp-1, user: u, role: [controlplane, etcd]}\n\
            - {address: 10.0.0.2, hostname_override: w-1, user: u, role: [worker]}\n\
            - {address: 10.0.0.3, hostname_override: w-2, user: u, role: [worker]}\n";
        Inventory::parse(text, "cluster.yml").unwrap().inventory
    }

    fn selected(pattern: &str) -> Result<String, SelectionError> {
        let names = select(&inventory(), pattern)?;
        Ok(names.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn patterns_mean_names_addresses_globs_and_roles() {
        assert_eq!(selected("w-2").unwrap(), "w-2");
        assert_eq!(selected("10.0.0.2").unwrap(), "w-1");
        assert_eq!(selected("w-*,cp-1").unwrap(), "cp-1 w-1 w-2");
        assert_eq!(selected("role=worker,!w-1").unwrap(), "w-2");
        assert_eq!(selected("!role=worker").unwrap(), "cp-1");
    }

    #[test]
    fn a_pattern_that_means_nothing_is_a_mistake() {
        assert_eq!(selected("w-9"), Err(SelectionError::NoMatch("w-9".to_owned())));
        assert_eq!(selected("role=master"), Err(SelectionError::Role("master".to_owned())));
        assert_eq!(selected("[a"), Err(SelectionError::Pattern("[a".to_owned())));
        assert_eq!(selected("w-1,!w-1"), Err(SelectionError::NoMatch("w-1,!w-1".to_owned())));
    }
}
