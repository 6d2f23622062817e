//! Findings as people read them: worst first, and the same one of many nodes in one line.
//!
//! Reports of inventories, facts and plans end with them.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::columns::{Cell, Columns};
use super::names::folded;
use super::style::{Detail, Style, Tone};
use super::wrap::paragraph;
use crate::finding::{Finding, Severity};
use crate::inventory::NodeName;

/// The same finding of some nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group<'a> {
    /// The finding, as the first node has it.
    pub finding: &'a Finding,
    /// The nodes that have it; none where it is about the cluster.
    pub nodes: Vec<&'a NodeName>,
}

/// Returns findings worst first, those with the same severity, code and message taken together.
pub fn grouped(findings: &[Finding]) -> Vec<Group<'_>> {
    let mut places = HashMap::new();
    let mut groups: Vec<Group<'_>> = Vec::new();
    for finding in findings {
        let same = (finding.severity, &finding.code, &finding.message);
        let place = *places.entry(same).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.nodes.extend(finding.node.as_ref()),
            None => groups.push(Group { finding, nodes: finding.node.iter().collect() }),
        }
    }
    groups.sort_by_key(|group| group.finding.severity);
    groups
}

/// Returns one line a group: severity, nodes, message. `population` is the number of nodes that there are.
pub fn lines(findings: &[Finding], population: usize, style: Style) -> String {
    let mut columns = Columns::default();
    for group in grouped(findings).iter().filter(|group| is_shown(group.finding, style)) {
        columns.push(vec![
            Cell::new(group.finding.severity.to_string()).tone(tone(group.finding.severity)),
            Cell::new(folded(&group.nodes, population, style)).tone(Tone::Strong),
            Cell::new(&group.finding.message),
        ]);
    }
    columns.render(style)
}

/// Returns the ways out of findings, each once, after an introducing word.
pub fn hints(findings: &[Finding], style: Style) -> String {
    let mut hints: Vec<&str> = Vec::new();
    for group in grouped(findings).iter().filter(|group| is_shown(group.finding, style)) {
        if let Some(hint) = group.finding.hint.as_deref()
            && !hints.contains(&hint)
        {
            hints.push(hint);
        }
    }
    hints.into_iter().fold(String::new(), |text, text_of_hint| text + &hint(text_of_hint, style))
}

/// Returns the line of one way out.
pub fn hint(text: &str, style: Style) -> String {
    let mut line = style.paint(Tone::Strong, "hint:");
    let _ = writeln!(line, " {}", paragraph(&crate::escape::shown(text), style.width, 6));
    line
}

/// Returns the meaning of a severity.
pub fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::Error => Tone::Bad,
        Severity::Warning => Tone::Warning,
        Severity::Info => Tone::Faint,
    }
}

/// Returns whether a finding is worth saying: the quiet hear of errors and warnings alone.
fn is_shown(finding: &Finding, style: Style) -> bool {
    style.detail > Detail::Quiet || finding.severity < Severity::Info
}
