//! Notes are what the reading of one file brings to light: problems that refuse it, findings that do not.
//!
//! Every part of the reading adds to them; `Inventory::parse` hands them out.

use super::problem::{InvalidInventory, Problem, SHOWN};
use super::source::{Place, Source};
use crate::finding::Finding;

/// Says that something has been noted as a problem already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Noted;

/// Problems and findings of one file.
#[derive(Debug)]
pub(super) struct Notes<'a> {
    source: &'a Source<'a>,
    problems: Vec<Problem>,
    findings: Vec<Finding>,
}

impl<'a> Notes<'a> {
    /// Returns an empty collection for a file.
    pub(super) fn new(source: &'a Source<'a>) -> Self {
        Self { source, problems: Vec::new(), findings: Vec::new() }
    }

    /// Notes a problem at a place; `detail` adds a label and a hint.
    pub(super) fn refuse(
        &mut self,
        place: Place,
        message: impl Into<String>,
        detail: impl FnOnce(Problem) -> Problem,
    ) -> Noted {
        // Excerpts look back through the file for secrets: a file with a problem a line would take long.
        let problem = if self.problems.len() < SHOWN {
            Problem::new(self.source, place, message)
        } else {
            Problem::without_excerpt(self.source.name(), place, message)
        };
        self.problems.push(detail(problem));
        Noted
    }

    /// Notes a finding.
    pub(super) fn find(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Returns `file:line:column` of a place.
    pub(super) fn locate(&self, place: Place) -> String {
        self.source.locate(place)
    }

    /// Returns the findings, or the refusal where there are problems.
    pub(super) fn finish(self) -> Result<Vec<Finding>, InvalidInventory> {
        InvalidInventory::unless_none(self.problems, self.findings)
    }
}
