use std::fmt::Write as _;

use jiff::Timestamp;

use super::standing::Phase;
use super::{NODES_WIDTH, names};
use crate::escape::shown;
use crate::event::{Outcome, RunState};
use crate::facts::Facts;
use crate::inventory::NodeName;
use crate::pki::{KUBE_ADMIN, Location};
use crate::plan::{Action, CertificateSource, Half, NewCertificate, Plan, StageName};
use crate::report::names::certificates;

/// What became of a certificate on a node.
struct Change<'a> {
    certificate: &'a str,
    node: Option<&'a NodeName>,
    before: Option<Timestamp>,
    after: After,
}

/// What a certificate has become.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// It ends then; `None` where that is not known.
    Until(Option<Timestamp>),
    /// The old one is in use.
    Old,
    /// Its node's turn began, and did not end well.
    Unknown,
}

/// Returns when certificates ended before a run and end after it; nothing where none was switched.
pub(super) fn text(state: &RunState, plan: &Plan, facts: &Facts) -> String {
    let changes = changes(state, plan, facts);
    if !changes.iter().any(|change| change.after != After::Old) {
        return String::new();
    }
    let rows = rows(&changes);
    let places: Vec<String> = rows.iter().map(|row| place(&row.nodes, facts)).collect();
    let width = rows
        .iter()
        .map(|row| row.names.len())
        .filter(|width| *width <= NAMES_WIDTH)
        .max()
        .unwrap_or_default();
    let ends_width = rows.iter().map(|row| row.ends.len()).max().unwrap_or_default();
    let mut text = "\nCertificates, with the day on which they ended before and end now:\n".to_owned();
    for (row, place) in rows.iter().zip(&places) {
        let rest = format!("{:ends_width$}   {}", row.ends, shown(place));
        if row.names.len() > width {
            let _ = writeln!(text, "  {}\n  {:width$}   {rest}", shown(&row.names), "");
        } else {
            let _ = writeln!(text, "  {:width$}   {rest}", shown(&row.names));
        }
    }
    if rancher_rotated(state, plan) {
        text.push_str("Rancher has made its own since: `certroll check` shows when those end.\n");
    }
    text
}

/// Names that take more columns get a line of their own.
const NAMES_WIDTH: usize = 48;

/// Certificates that became the same on the same nodes.
struct Row<'a> {
    names: String,
    ends: String,
    nodes: Vec<&'a NodeName>,
}

/// Returns the rows: first a row for each certificate and what became of it, then those of the same nodes taken together.
fn rows<'a>(changes: &[Change<'a>]) -> Vec<Row<'a>> {
    let mut by_certificate: Vec<(&str, String, Vec<&NodeName>)> = Vec::new();
    for change in changes {
        let ends = ends(change);
        match by_certificate.iter_mut().find(|known| known.0 == change.certificate && known.1 == ends) {
            Some((_, _, nodes)) => nodes.extend(change.node),
            None => by_certificate.push((change.certificate, ends, change.node.into_iter().collect())),
        }
    }
    let mut rows: Vec<(Vec<&str>, String, Vec<&NodeName>)> = Vec::new();
    for (name, ends, nodes) in by_certificate {
        // A kubelet's serving pair is on its own node alone: those of all kubelets are one row.
        let is_own = name.starts_with("kube-kubelet-");
        let alike = |row: &&mut (Vec<&str>, String, Vec<&NodeName>)| {
            let both_own = is_own && row.0.iter().all(|other| other.starts_with("kube-kubelet-"));
            row.1 == ends && (row.2 == nodes || both_own)
        };
        match rows.iter_mut().find(alike) {
            Some((names, _, known)) => {
                names.push(name);
                known.extend(nodes.into_iter().filter(|_| is_own));
            }
            None => rows.push((vec![name], ends, nodes)),
        }
    }
    rows.into_iter()
        .map(|(names, ends, nodes)| Row { names: certificates(&names).join(" "), ends, nodes })
        .collect()
}

fn ends(change: &Change<'_>) -> String {
    let day = |time: Timestamp| time.strftime("%F").to_string();
    let before = change.before.map_or_else(|| format!("{:10}", "-"), day);
    match change.after {
        After::Until(Some(end)) => format!("{before} -> {}", day(end)),
        After::Until(None) => format!("{before} -> new"),
        After::Old => format!("{before}    as it was"),
        After::Unknown => format!("{before} -> not known"),
    }
}

fn place(nodes: &[&NodeName], facts: &Facts) -> String {
    let text = names(nodes.iter().copied());
    if nodes.is_empty() {
        "the kubeconfig file".to_owned()
    } else if nodes.len() == facts.nodes.len() && nodes.len() > 1 {
        format!("all {} nodes", nodes.len())
    } else if text.len() > NODES_WIDTH {
        format!("{} nodes", nodes.len())
    } else {
        text
    }
}

/// Returns what became of each certificate on each node that was to get it, in the order of the plan's table.
fn changes<'a>(state: &RunState, plan: &'a Plan, facts: &Facts) -> Vec<Change<'a>> {
    let mut changes = Vec::new();
    for certificate in &plan.certificates {
        let end = end_of(certificate, facts);
        for step in plan.steps() {
            let phase = Phase::of(state, step);
            let after = match phase {
                Phase::NotBegun => After::Old,
                Phase::Unknown => After::Unknown,
                Phase::Done => After::Until(end),
            };
            let (name, node) = (certificate.name.as_str(), step.node.as_ref());
            let before = match &step.action {
                Action::Switch { files, .. } => {
                    let in_use = |file: &crate::plan::NewFile| {
                        file.certificate == name
                            && file.half == Half::Certificate
                            && file.path.starts_with("ssl/")
                    };
                    if !files.iter().any(in_use) {
                        continue;
                    }
                    node.and_then(|node| old_end(state, certificate, (node, facts)))
                }
                Action::UpdateKubeConfig { .. } if name == KUBE_ADMIN => None,
                _ => continue,
            };
            changes.push(Change { certificate: name, node, before, after });
        }
    }
    changes
}

/// Returns when the certificate ends that a node had before the run. What is seen there may be the run's own by now: earlier attempts
/// have switched it.
pub(super) fn old_end(
    state: &RunState,
    certificate: &NewCertificate,
    (node, facts): (&NodeName, &Facts),
) -> Option<Timestamp> {
    certificate.replaces.get(node).copied().or_else(|| {
        let found = facts.node(node)?.observation()?.certificate(Location::Ssl, &certificate.name)?;
        let is_own = state.issued.iter().any(|issued| issued.sha256 == found.sha256);
        (!is_own).then_some(found.not_after)
    })
}

/// Returns when a new certificate ends.
fn end_of(certificate: &NewCertificate, facts: &Facts) -> Option<Timestamp> {
    match &certificate.source {
        CertificateSource::Made { not_after, .. } => Some(*not_after),
        CertificateSource::Node { node, .. } => {
            let seen = facts.node(node)?.observation()?;
            Some(seen.certificate(Location::Ssl, &certificate.name)?.not_after)
        }
    }
}

/// Returns whether Rancher has rotated behind certroll.
fn rancher_rotated(state: &RunState, plan: &Plan) -> bool {
    plan.stage(StageName::Rotate).is_some()
        && state.steps_of(StageName::Rotate).all(|step| matches!(step.outcome, Some(Outcome::Done { .. })))
}
