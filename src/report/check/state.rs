//! The report of a saved state of rke: one row a certificate, the worst first.
//!
//! `certroll check --state` shows it, by itself or above what was seen on the nodes.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use super::document::{CertificateEntry, CheckDocument, saved_entry};
use super::{CheckStatus, counts, row};
use crate::escape::shown;
use crate::facts::{CertificateStatus, Thresholds, saved_status};
use crate::finding::{Finding, Severity};
use crate::pki::{Class, Location, SavedCertificate, SavedState, StateKind, class};
use crate::report::columns::{Cell, Columns, NOTHING};
use crate::report::duration::{between, count, expiry, moment};
use crate::report::nodes::append_findings;
use crate::report::style::{Detail, Style, Tone};

/// All that a report of a saved state is made from.
#[derive(Debug, Clone, Copy)]
pub struct StateCheck<'a> {
    /// The file, as the operator named it.
    pub file: &'a str,
    /// The cluster's name.
    pub cluster: &'a str,
    /// Its Kubernetes version, where the state gives one.
    pub kubernetes_version: Option<&'a str>,
    /// What is in the file.
    pub state: &'a SavedState,
    /// What is worth knowing about it.
    pub findings: &'a [Finding],
    /// The time, and from when on a certificate is expiring.
    pub thresholds: Thresholds,
}

impl StateCheck<'_> {
    fn status(&self, saved: &SavedCertificate) -> (CertificateStatus, Option<Timestamp>) {
        saved_status(self.state, saved, &self.thresholds)
    }

    /// Returns the certificates with how they stand, the worst first, of these the one that ends first.
    fn worst_first(&self) -> Vec<(&SavedCertificate, CertificateStatus, Option<Timestamp>)> {
        let with_status = |saved| {
            let (status, end) = self.status(saved);
            (saved, status, end)
        };
        let mut all: Vec<_> = self.state.certificates.iter().map(with_status).collect();
        all.sort_by_key(|(saved, status, end)| {
            let class = class(Location::Ssl, &saved.name);
            (class == Class::Informational, std::cmp::Reverse(*status), *end)
        });
        all
    }
}

/// Returns what a saved state amounts to. Certificates of other classes than CA and leaf are at most warnings.
pub fn state_status(check: &StateCheck<'_>) -> CheckStatus {
    let is_worrying = |saved: &SavedCertificate| {
        counts(class(Location::Ssl, &saved.name)) && check.status(saved).0 != CertificateStatus::Ok
    };
    let has_error = check.findings.iter().any(|finding| finding.severity == Severity::Error);
    if has_error || check.state.certificates.iter().any(is_worrying) {
        CheckStatus::Worrying
    } else {
        CheckStatus::Fine
    }
}

/// Returns a saved state for people, with its findings.
pub fn text(check: &StateCheck<'_>, style: Style) -> String {
    let mut text = table(check, style);
    append_findings(&mut text, check.findings, 0, style);
    if style.detail > Detail::Quiet
        && state_status(check) == CheckStatus::Fine
        && let Some(line) = first_to_end(check)
    {
        let _ = writeln!(text, "\n{} {line}", style.paint(Tone::Good, "No errors."));
    }
    text
}

/// Returns the certificates of a saved state, beneath a line that names it; nothing for those who want to read less.
pub fn table(check: &StateCheck<'_>, style: Style) -> String {
    if style.detail == Detail::Quiet {
        return String::new();
    }
    let number = count(i64::try_from(check.state.certificates.len()).unwrap_or(i64::MAX), "certificate");
    let version = check.kubernetes_version.map(|version| format!("   Kubernetes {}", shown(version)));
    let mut text = format!(
        "{}   {number} in {}{}   read {}\n\n",
        style.paint(Tone::Strong, &shown(check.cluster)),
        shown(check.file),
        version.unwrap_or_default(),
        moment(check.thresholds.now)
    );
    let mut columns =
        Columns::headed(&["CERTIFICATE", "STATE", "STATUS", "EXPIRES", "NOT AFTER", "KEY", "ISSUER"]);
    for (saved, status, end) in check.worst_first() {
        columns.push(cells(check, saved, status, end));
    }
    text.push_str(&columns.render(style));
    text
}

fn cells(
    check: &StateCheck<'_>,
    saved: &SavedCertificate,
    status: CertificateStatus,
    end: Option<Timestamp>,
) -> Vec<Cell> {
    let half = match saved.states.as_slice() {
        [state] => state.as_str(),
        _ => NOTHING,
    };
    let key = match (saved.has_key, saved.key_matches) {
        (false, _) => Cell::new("none"),
        (true, Some(true)) => Cell::new("matches"),
        (true, Some(false)) => Cell::new("another's").tone(Tone::Bad),
        (true, None) => Cell::new("unknown"),
    };
    let tone = match class(Location::Ssl, &saved.name) {
        Class::Informational => Tone::Faint,
        _ => row::tone(status),
    };
    let expires = end.map_or_else(Cell::nothing, |end| Cell::new(expiry(end, check.thresholds.now)));
    vec![
        Cell::new(&saved.name).tone(Tone::Strong),
        Cell::new(half),
        Cell::new(status.as_str()).tone(tone),
        expires.tone(tone),
        end.map_or_else(Cell::nothing, |end| Cell::new(moment(end))),
        key,
        saved.certificate.as_ref().map_or_else(|_| Cell::nothing(), |own| Cell::new(&own.issuer)),
    ]
}

/// Returns the sentence about the certificate that is the first to end, of those that can break the cluster.
fn first_to_end(check: &StateCheck<'_>) -> Option<String> {
    let counting = check.state.certificates.iter().filter(|saved| counts(class(Location::Ssl, &saved.name)));
    let ends = counting.filter_map(|saved| Some((check.status(saved).1?, &saved.name)));
    let (end, name) = ends.min_by_key(|(end, _)| *end)?;
    let left = between(check.thresholds.now, end);
    Some(format!("The first certificate to end is {}, in {left} ({}).", shown(name), moment(end)))
}

/// Returns a saved state for scripts; no node was looked at.
pub fn document<'a>(check: &StateCheck<'a>) -> CheckDocument<'a> {
    CheckDocument::of_state(check)
}

/// A saved state in a document.
#[derive(Debug, Serialize)]
pub(super) struct StateEntry<'a> {
    file: &'a str,
    certificates: Vec<SavedEntry<'a>>,
}

#[derive(Debug, Serialize)]
struct SavedEntry<'a> {
    states: Vec<&'static str>,
    #[serde(flatten)]
    certificate: CertificateEntry<'a>,
}

impl<'a> StateEntry<'a> {
    pub(super) fn of(check: &StateCheck<'a>) -> Self {
        let entry = |saved: &'a SavedCertificate| SavedEntry {
            states: saved.states.iter().copied().map(StateKind::as_str).collect(),
            certificate: saved_entry(saved, check.status(saved)),
        };
        Self { file: check.file, certificates: check.state.certificates.iter().map(entry).collect() }
    }
}
