use super::count_of;
use super::entry::Entry;
use crate::inventory::NodeName;
use crate::plan::{Action, Gate, NewFile, Step};
use crate::report::duration::limit;
use crate::report::names::{certificates, family, folded};
use crate::report::style::Style;

/// What must be well before a node's turn, told so that nodes which take turns say the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// These etcd members must be healthy.
    Etcd(Vec<NodeName>),
    /// No etcd member may be healthy.
    NoQuorum,
    /// The API servers of these nodes must answer, but for the one whose turn it is.
    ApiServers(Vec<NodeName>),
}

impl Condition {
    pub(super) fn of(gate: &Gate, own: Option<&NodeName>) -> Option<Self> {
        match gate {
            Gate::Open => None,
            Gate::NoQuorum { .. } => Some(Self::NoQuorum),
            Gate::Etcd { members } => Some(Self::Etcd(members.clone())),
            Gate::ApiServers { nodes } => {
                let mut nodes: Vec<NodeName> = nodes.iter().chain(own).cloned().collect();
                nodes.sort();
                nodes.dedup();
                Some(Self::ApiServers(nodes))
            }
        }
    }

    /// Returns the condition in words, for the nodes that have it.
    pub(super) fn text(&self, own: &[&NodeName], style: Style) -> String {
        let all = match self {
            Self::NoQuorum => return "only if no member is healthy then".to_owned(),
            Self::Etcd(all) | Self::ApiServers(all) => all,
        };
        let others: Vec<&NodeName> = all.iter().filter(|node| !own.contains(node)).collect();
        let all: Vec<&NodeName> = all.iter().collect();
        match self {
            Self::NoQuorum => String::new(),
            Self::Etcd(_) if others.is_empty() && own.len() < 2 => {
                "no other member is there: etcd is away while it restarts".to_owned()
            }
            Self::Etcd(_) => format!("only while etcd is healthy on {}", folded(&all, usize::MAX, style)),
            Self::ApiServers(_) if own.len() > 1 => {
                format!("only while all others of {} answer", folded(&all, usize::MAX, style))
            }
            Self::ApiServers(_) if others.is_empty() => {
                "no other API server answers: the API is away while it restarts".to_owned()
            }
            Self::ApiServers(_) => {
                format!("only while kube-apiserver answers on {}", folded(&others, usize::MAX, style))
            }
        }
    }
}

/// Returns what a step does that lays new files aside.
pub(super) fn staging_entries(files: &[NewFile]) -> Vec<Entry> {
    let what = format!("{} in `.certroll/<run>/staged`", count_of(files.len(), "file"));
    vec![Entry::add(what, "nothing uses them yet", files.len())]
}

/// Returns what a step does that puts new files into place and restarts what uses them.
pub(super) fn switch_entries(step: &Step, style: Style) -> Vec<Entry> {
    let Action::Switch { files, retired, containers, gate, timeout } = &step.action else {
        return Vec::new();
    };
    let condition = Condition::of(gate, step.node.as_ref());
    let mut entries = Vec::new();
    if !files.is_empty() {
        let also =
            if files.iter().any(|file| file.path.starts_with(".tmp/")) { "; also in `.tmp`" } else { "" };
        entries.push(Entry::change(format!("switch {}{also}", pairs(files, style)), String::new()));
    }
    if !retired.is_empty() {
        let names: Vec<&str> = retired.iter().map(|path| path.rsplit('/').next().unwrap_or(path)).collect();
        let why = "the kubelet makes new ones at its start; kept in `.certroll/<run>/retired`";
        entries.push(Entry::change(format!("move {} away", names.join(", ")), why.to_owned()));
    }
    if !containers.is_empty() {
        let why = match (files.is_empty() && retired.is_empty(), containers.len()) {
            (true, _) => step.reason.clone(),
            (false, 1) => format!("healthy within {}, or the run stops", limit(*timeout)),
            (false, _) => format!("one by one, each healthy within {}, or the run stops", limit(*timeout)),
        };
        entries.push(Entry::change(format!("restart {}", containers.join(", ")), why));
    }
    if let Some(first) = entries.first_mut() {
        first.condition = condition;
    }
    entries
}

/// Returns the certificates of files in words; those that are named after the node itself say the same on all.
pub(super) fn pairs(files: &[NewFile], style: Style) -> String {
    let names: Vec<&str> = files.iter().map(|file| file.certificate.as_str()).collect();
    let words = certificates(&names).into_iter().map(|word| match family(&word) {
        Some("kube-kubelet-") if !style.is_verbose() => "its kube-kubelet-*".to_owned(),
        _ => word,
    });
    words.collect::<Vec<_>>().join(", ")
}

/// Returns what a step does that writes into what rke keeps.
pub(super) fn state_entries(step: &Step) -> Vec<Entry> {
    let (what, more) = match &step.action {
        Action::UpdateClusterState { nodes, names } => {
            let first = nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" ");
            (
                format!(
                    "kube-system/full-cluster-state, or the secrets of rke 0.1: {}",
                    count_of(names.len(), "pair")
                ),
                format!("; over the first API server of {first} that answers"),
            )
        }
        Action::UpdateStateFile { path, names } => (
            format!("`{path}`: {}", count_of(names.len(), "pair")),
            "; the old file is kept beside it".to_owned(),
        ),
        Action::UpdateKubeConfig { path, .. } => {
            (format!("`{path}`: kube-admin"), "; an old file is kept beside it".to_owned())
        }
        _ => return Vec::new(),
    };
    vec![Entry::change(what, format!("{}{more}", step.reason))]
}
