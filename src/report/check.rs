//! The report of a look at a cluster: one row a node, the worst first, then what was noticed and what to do about it.
//!
//! `certroll check` shows it; scripts read the document.

mod document;
mod row;
pub mod state;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::columns::{Cell, Columns};
use super::duration::{between, moment, took};
use super::nodes::{append_findings, header};
use super::style::{Detail, Style, Tone};
use crate::facts::{
    CertificateStatus, Content, Facts, File, NodeFacts, Observation, Thresholds, certificate_status,
};
use crate::finding::{Finding, Severity};
use crate::inventory::{Inventory, NodeName};
use crate::pki::{Class, Location};

pub use document::{CheckDocument, document};
use row::Row;

/// All that a report of a look is made from.
#[derive(Debug, Clone, Copy)]
pub struct Check<'a> {
    /// What should be there.
    pub inventory: &'a Inventory,
    /// What was seen.
    pub facts: &'a Facts,
    /// What is worth knowing about it.
    pub findings: &'a [Finding],
    /// The time, and from when on a certificate is expiring.
    pub thresholds: Thresholds,
    /// What all of it amounts to, with what was looked at beside the nodes.
    pub status: CheckStatus,
    /// How long the looking took.
    pub elapsed: Duration,
}

/// What a look amounts to, for the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckStatus {
    /// Nothing is worse than a warning: status 0.
    Fine,
    /// A certificate has ended or ends soon, or there is an error: status 3.
    Worrying,
    /// A node could not be looked at: status 1.
    Unseen,
}

impl CheckStatus {
    /// Returns the exit status of `certroll check`.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Worrying => 3,
            Self::Unseen => 1,
        }
    }
}

/// Returns what a look amounts to. Certificates of other classes than CA and leaf are at most warnings.
pub fn check_status(facts: &Facts, findings: &[Finding], thresholds: &Thresholds) -> CheckStatus {
    let is_worrying = |observation: &Observation| {
        certificate_files(observation).any(|file| {
            counts(file.class())
                && matches!(
                    certificate_status(observation, file, thresholds).0,
                    CertificateStatus::Expired | CertificateStatus::Expiring
                )
        })
    };
    if facts.nodes.iter().any(NodeFacts::is_missed) {
        CheckStatus::Unseen
    } else if findings.iter().any(|finding| finding.severity == Severity::Error)
        || facts.seen().any(|(_, observation)| is_worrying(observation))
    {
        CheckStatus::Worrying
    } else {
        CheckStatus::Fine
    }
}

/// Returns whether certificates of a class can break the cluster.
fn counts(class: Class) -> bool {
    matches!(class, Class::Ca | Class::Leaf)
}

/// Returns the files that hold certificates, or should.
fn certificate_files(observation: &Observation) -> impl Iterator<Item = &File> {
    observation.files.iter().filter(|file| matches!(file.content, Content::Certificate(_)))
}

/// Returns the look for people.
pub fn text(check: &Check<'_>, style: Style) -> String {
    let mut text = String::new();
    let population = check.inventory.nodes.len();
    if style.detail > Detail::Quiet {
        let version = check.inventory.kubernetes_version.as_deref();
        let _ = writeln!(
            text,
            "{}   looked at {} in {}\n",
            header(&check.inventory.cluster_name, population, version, style),
            moment(check.facts.observed_at),
            took(check.elapsed)
        );
        text.push_str(&table(check, style));
    }
    if style.is_verbose() {
        text.push('\n');
        text.push_str(&certificates(check, style));
    }
    append_findings(&mut text, check.findings, population, style);
    if let Some(hint) = rotation_hint(check) {
        if !text.ends_with("\n\n") && !check.findings.iter().any(|finding| finding.hint.is_some()) {
            text.push('\n');
        }
        text.push_str(&super::findings::hint(hint, style));
    }
    if style.detail > Detail::Quiet
        && check.status == CheckStatus::Fine
        && let Some(line) = first_to_end(check.facts, check.thresholds.now)
    {
        let _ = writeln!(text, "\n{} {line}", style.paint(Tone::Good, "No errors."));
    }
    text
}

/// Returns the sentence about the certificate that is the first to end, of those that can break the cluster.
pub(super) fn first_to_end(facts: &Facts, now: jiff::Timestamp) -> Option<String> {
    let thresholds = Thresholds { now, expiring_within: jiff::SignedDuration::ZERO };
    let ends = facts.seen().flat_map(|(node, observation)| {
        certificate_files(observation).filter(|file| counts(file.class())).filter_map(move |file| {
            let (_, end) = certificate_status(observation, file, &thresholds);
            Some((end?, &node.name, file.certificate_name()?))
        })
    });
    let (end, node, name) = ends.min_by_key(|(end, _, _)| *end)?;
    (end > now).then(|| {
        let name = crate::escape::shown(name);
        format!(
            "The first certificate to end is {name} of {node}, in {} ({}).",
            between(now, end),
            moment(end)
        )
    })
}

/// Returns what to do about certificates that end.
fn rotation_hint(check: &Check<'_>) -> Option<&'static str> {
    let is_due = |finding: &Finding| {
        matches!(
            finding.code.as_str(),
            "certificate-expired" | "certificate-expiring" | "certificate-invalid"
        ) && finding.severity < Severity::Info
            // Those of a saved state name no node: a rotation does not mend a file.
            && finding.node.is_some()
    };
    check.findings.iter().any(is_due).then_some({
        if check.facts.is_rancher_launched() {
            "`certroll plan --via rancher` has Rancher rotate; `certroll plan --via direct --then rancher` needs no live API"
        } else {
            "`certroll plan --via direct` renews them from the cluster's own CA, without rke and without a live API"
        }
    })
}

/// So many nodes that are alike in every column are shown before the rest is counted, where they are well.
const WELL_SHOWN: usize = 1;

/// The same, where something is wrong with them: their names matter more.
const UNWELL_SHOWN: usize = 10;

/// Returns the row of every node, the worst first; many that are alike are folded.
fn table(check: &Check<'_>, style: Style) -> String {
    let mut columns = Columns::headed(&[
        "NODE",
        "ROLES",
        "ACCESS",
        "WORST CERTIFICATE",
        "EXPIRES",
        "SERVED",
        "CONTAINERS",
        "LEGACY BUNDLE",
    ]);
    let mut severities: HashMap<&NodeName, Severity> = HashMap::new();
    for finding in check.findings {
        if let Some(node) = &finding.node {
            let worst = severities.entry(node).or_insert(finding.severity);
            *worst = finding.severity.min(*worst);
        }
    }
    let nodes = check.facts.nodes.iter();
    let mut rows: Vec<Row<'_>> =
        nodes.map(|node| Row::of(check, node, severities.get(&node.name).copied())).collect();
    rows.sort_by_key(|row| row.rank);
    for row in row::folded(rows, style) {
        row.push_to(&mut columns);
    }
    columns.render(style)
}

/// Returns every certificate that was seen.
fn certificates(check: &Check<'_>, style: Style) -> String {
    let mut columns =
        Columns::headed(&["NODE", "CERTIFICATE", "STATUS", "NOT AFTER", "EFFECTIVE NOT AFTER", "ISSUER"]);
    for (node, observation) in check.facts.seen() {
        for file in certificate_files(observation) {
            columns.push(certificate_cells(check, node, observation, file));
        }
    }
    columns.render(style)
}

fn certificate_cells(
    check: &Check<'_>,
    node: &NodeFacts,
    observation: &Observation,
    file: &File,
) -> Vec<Cell> {
    let (status, end) = certificate_status(observation, file, &check.thresholds);
    let folder = match file.location {
        Location::Ssl => "ssl",
        Location::Tmp => ".tmp",
        Location::NestedTmp => ".tmp/ssl",
        Location::KubeletPki => "kubelet/pki",
    };
    let mut cells = vec![
        Cell::new(node.name.as_str()).tone(Tone::Strong),
        Cell::new(format!("{folder}/{}", file.certificate_name().unwrap_or_default())),
        Cell::new(status.as_str()).tone(row::tone(status)),
    ];
    match &file.content {
        Content::Certificate(Ok(certificate)) => cells.extend([
            Cell::new(moment(certificate.not_after)),
            end.map_or_else(Cell::nothing, |end| Cell::new(moment(end))),
            Cell::new(&certificate.issuer),
        ]),
        Content::Certificate(Err(error)) => {
            cells.extend([Cell::nothing(), Cell::nothing(), Cell::new(error.to_string())]);
        }
        Content::Key(_) | Content::Other => {}
    }
    cells
}
