//! Names in one line: of nodes all while they are few, else the first and how many more; of certificates one for each kind.
//!
//! Findings, stages and rows of text reports name nodes and certificates with it.

use std::collections::BTreeSet;

use super::style::Style;
use crate::inventory::NodeName;

/// That many names are written out before the rest is counted.
const NAMED: usize = 3;

/// Returns the names, folded where there are many: `w-1 w-2 w-3 and 97 more`. `population` is the number of nodes that there are.
pub fn folded(names: &[&NodeName], population: usize, style: Style) -> String {
    let words = |names: &[&NodeName]| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
    if names.len() == population && population > NAMED {
        return format!("all {population} nodes");
    }
    match names.split_at_checked(NAMED) {
        Some((first, rest)) if rest.len() > 1 && !style.is_verbose() => {
            format!("{} and {} more", words(first), rest.len())
        }
        _ => words(names),
    }
}

/// The beginnings of the names of certificates that are named after a node.
const FAMILIES: [&str; 2] = ["kube-etcd-", "kube-kubelet-"];

/// Returns the beginning that the name of a certificate shares with those of other nodes, if it is named after a node.
pub(super) fn family(name: &str) -> Option<&'static str> {
    FAMILIES.into_iter().find(|family| name.starts_with(family))
}

/// Returns names of certificates, each once; those that are named after nodes are counted: `kube-etcd-* (3)`.
pub(super) fn certificates(names: &[&str]) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if seen.contains(name) {
            continue;
        }
        seen.push(name);
        let Some(family) = family(name) else {
            words.push((*name).to_owned());
            continue;
        };
        let alike: BTreeSet<&str> = names.iter().copied().filter(|name| name.starts_with(family)).collect();
        let word = if alike.len() == 1 { (*name).to_owned() } else { format!("{family}* ({})", alike.len()) };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::certificates;

    #[test]
    fn certificates_of_nodes_are_counted() {
        let names =
            ["kube-node", "kube-etcd-10-0-0-1", "kube-etcd-10-0-0-2", "kube-node", "kube-kubelet-10-0-0-1"];
        assert_eq!(certificates(&names), ["kube-node", "kube-etcd-* (2)", "kube-kubelet-10-0-0-1"]);
    }
}
