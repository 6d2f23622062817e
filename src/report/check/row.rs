use std::collections::HashMap;

use jiff::Timestamp;

use super::{Check, UNWELL_SHOWN, WELL_SHOWN, certificate_files, counts};
use crate::facts::Bundle;
use crate::facts::{
    Cause, CertificateStatus, NodeFacts, Observation, Unseen, bundle_of, certificate_status,
    expected_containers, left_to_agent, stale_containers,
};
use crate::finding::Severity;
use crate::inventory::NodeName;
use crate::pki::{Location, expected_names, services_of};
use crate::report::columns::{Cell, Columns, NOTHING};
use crate::report::duration::{count, expiry};
use crate::report::nodes::roles;
use crate::report::style::{Style, Tone};

/// How bad a node's state is, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Rank {
    /// A certificate has ended, cannot be used or is missing.
    Broken,
    /// Nothing is known.
    Unseen,
    /// Something else is wrong.
    Unwell,
    /// Something will hurt later.
    Warned,
    /// Nothing is wrong.
    Well,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub(super) struct Row<'a> {
    pub(super) rank: Rank,
    node: &'a NodeName,
    cells: Vec<Cell>,
    rest: Option<Cell>,
}

impl<'a> Row<'a> {
    /// Returns the row of a node, with the worst severity of the findings about it.
    pub(super) fn of(check: &Check<'_>, node: &'a NodeFacts, severity: Option<Severity>) -> Self {
        match &node.result {
            Ok(observation) => Self::seen(check, (node, observation), severity),
            Err(unseen) => Self::unseen(node, unseen),
        }
    }

    fn unseen(node: &'a NodeFacts, unseen: &Unseen) -> Self {
        if unseen.cause == Cause::Windows {
            return Self {
                rank: Rank::Well,
                node: &node.name,
                cells: vec![Cell::new(roles(&node.roles)), Cell::nothing()],
                rest: Some(Cell::new("Windows: left alone").tone(Tone::Faint)),
            };
        }
        let word = if unseen.reachable { "not looked at" } else { "unreachable" };
        Self {
            rank: Rank::Unseen,
            node: &node.name,
            cells: vec![Cell::new(roles(&node.roles)), Cell::nothing()],
            rest: Some(Cell::new(format!("{word}: {}", unseen.error)).tone(Tone::Bad)),
        }
    }

    fn seen(
        check: &Check<'_>,
        (node, observation): (&'a NodeFacts, &Observation),
        severity: Option<Severity>,
    ) -> Self {
        let worst = Worst::of(check, node, observation);
        let (certificate, expires) = worst.as_ref().map_or_else(
            || (Cell::new("none").tone(Tone::Bad), Cell::nothing()),
            |worst| worst.cells(check.thresholds.now),
        );
        let rank = match worst.map(|worst| worst.status) {
            None
            | Some(CertificateStatus::Expired | CertificateStatus::Invalid | CertificateStatus::Missing) => {
                Rank::Broken
            }
            Some(CertificateStatus::Ok | CertificateStatus::Expiring) => match severity {
                Some(Severity::Error) => Rank::Unwell,
                Some(Severity::Warning) => Rank::Warned,
                Some(Severity::Info) | None => Rank::Well,
            },
        };
        Self {
            rank,
            node: &node.name,
            cells: vec![
                Cell::new(roles(&node.roles)),
                Cell::new(observation.access.as_str()),
                certificate,
                expires,
                served(observation),
                containers(check, node, observation),
                bundle(check, node, observation),
            ],
            rest: None,
        }
    }

    /// Returns what it says beside its node's name: rows that say the same are alike.
    fn says(&self) -> (Rank, &[Cell], Option<&Cell>) {
        (self.rank, &self.cells, self.rest.as_ref())
    }

    /// Returns the line in place of rows that are like this one.
    fn counted(&self, number: usize) -> Self {
        let number = count(i64::try_from(number).unwrap_or(i64::MAX), "node");
        let text = format!("and {number} like {}", self.node);
        Self {
            rank: self.rank,
            node: self.node,
            cells: Vec::new(),
            rest: Some(Cell::new(text).tone(Tone::Faint)),
        }
    }

    /// Adds the row to a table.
    pub(super) fn push_to(self, columns: &mut Columns) {
        if self.cells.is_empty() {
            columns.push_with_rest(Vec::new(), self.rest.unwrap_or_else(Cell::nothing));
            return;
        }
        let mut cells = vec![Cell::new(self.node.as_str()).tone(Tone::Strong)];
        cells.extend(self.cells);
        match self.rest {
            Some(rest) => columns.push_with_rest(cells, rest),
            None => columns.push(cells),
        }
    }
}

/// Returns the rows with those that are alike brought together, and counted where they are many.
pub(super) fn folded<'a>(rows: Vec<Row<'a>>, style: Style) -> Vec<Row<'a>> {
    if style.is_verbose() {
        return rows;
    }
    let mut places = HashMap::new();
    let mut groups: Vec<Vec<&Row<'a>>> = Vec::new();
    for row in &rows {
        let place = *places.entry(row.says()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    groups.into_iter().flat_map(|group| fold_group(&group)).collect()
}

/// Returns rows that are alike, the last of them counted where that saves more than two lines.
fn fold_group<'a>(group: &[&Row<'a>]) -> Vec<Row<'a>> {
    let Some(first) = group.first() else { return Vec::new() };
    let shown = if first.rank == Rank::Well { WELL_SHOWN } else { UNWELL_SHOWN };
    let shown = if group.len() > shown + 2 { shown } else { group.len() };
    let rest = group.len() - shown;
    let line = (rest > 0).then(|| first.counted(rest));
    group.iter().take(shown).map(|row| (*row).clone()).chain(line).collect()
}

/// The certificate of a node that is of most concern.
struct Worst {
    status: CertificateStatus,
    name: String,
    end: Option<Timestamp>,
    /// How many others are in the same state, where that is not a good one.
    others: usize,
}

impl Worst {
    /// Returns the certificate in the worst state, of these the one that ends first, of these one that a service uses.
    fn of(check: &Check<'_>, node: &NodeFacts, observation: &Observation) -> Option<Self> {
        let present = certificate_files(observation).filter(|file| counts(file.class())).map(|file| {
            let (status, end) = certificate_status(observation, file, &check.thresholds);
            (status, end, file.certificate_name().unwrap_or_default().to_owned())
        });
        let missing = missing_names(check, node, observation)
            .into_iter()
            .map(|name| (CertificateStatus::Missing, None, name));
        let all: Vec<_> = present.chain(missing).collect();
        let (status, end, name) = all.iter().min_by_key(|(status, end, name)| {
            (std::cmp::Reverse(*status), *end, services_of(name).is_empty())
        })?;
        let others = match status {
            CertificateStatus::Ok => 0,
            status => all.iter().filter(|(other, _, _)| other == status).count() - 1,
        };
        Some(Self { status: *status, name: name.clone(), end: *end, others })
    }

    /// Returns the cells of the certificate and of its end.
    fn cells(&self, now: Timestamp) -> (Cell, Cell) {
        let name = match self.others {
            0 => self.name.clone(),
            others => format!("{} and {others} more", self.name),
        };
        let expires = match (self.status, self.end) {
            (CertificateStatus::Missing, _) => "missing".to_owned(),
            (CertificateStatus::Invalid, _) => "cannot be used".to_owned(),
            (_, Some(end)) => expiry(end, now),
            (_, None) => NOTHING.to_owned(),
        };
        (Cell::new(name), Cell::new(expires).tone(tone(self.status)))
    }
}

/// Returns the certificates that a node must hold and does not.
pub(super) fn missing_names(check: &Check<'_>, node: &NodeFacts, observation: &Observation) -> Vec<String> {
    let mut names = expected_names(&node.roles, check.inventory);
    names.retain(|name| observation.certificate_file(Location::Ssl, name).is_none());
    names
}

/// Returns the meaning of a certificate's state.
pub(super) fn tone(status: CertificateStatus) -> Tone {
    match status {
        CertificateStatus::Ok => Tone::Plain,
        CertificateStatus::Expiring => Tone::Warning,
        CertificateStatus::Expired | CertificateStatus::Invalid | CertificateStatus::Missing => Tone::Bad,
    }
}

/// Returns whether ports serve what is on disk.
fn served(observation: &Observation) -> Cell {
    if observation.served.is_empty() {
        return Cell::nothing();
    }
    let named = |wanted: fn(&crate::facts::Served) -> bool| -> Vec<&str> {
        observation
            .served
            .iter()
            .filter(|served| wanted(served))
            .map(|served| served.service.as_str())
            .collect()
    };
    let different = named(|served| served.matches_disk == Some(false));
    let silent = named(|served| served.certificate.is_err());
    let unknown = named(|served| served.certificate.is_ok() && served.matches_disk.is_none());
    let mut parts = Vec::new();
    for (names, word) in [(&different, "differs"), (&silent, "no answer"), (&unknown, "unknown")] {
        if !names.is_empty() {
            parts.push(format!("{} {word}", names.join(", ")));
        }
    }
    match parts.is_empty() {
        true => Cell::new("same"),
        false if different.is_empty() => Cell::new(parts.join("; ")).tone(Tone::Warning),
        false => Cell::new(parts.join("; ")).tone(Tone::Bad),
    }
}

/// Returns what is wrong with the components, or how many containers are up.
fn containers(check: &Check<'_>, node: &NodeFacts, observation: &Observation) -> Cell {
    if observation.docker_error.is_some() {
        return Cell::new("docker does not answer").tone(Tone::Bad);
    }
    let mut parts: Vec<(String, Vec<&str>)> = Vec::new();
    let mut add = |state: String, name| match parts.iter_mut().find(|(known, _)| *known == state) {
        Some((_, names)) => names.push(name),
        None => parts.push((state, vec![name])),
    };
    for name in expected_containers(check.inventory, node) {
        match observation.container(name) {
            None => add("missing".to_owned(), name),
            Some(container) if !container.is_running() => add(container.state.clone(), name),
            Some(_) => {}
        }
    }
    for container in stale_containers(observation) {
        let pending = left_to_agent(node, observation, &container.name, check.thresholds.now).is_some();
        add(if pending { "pending" } else { "stale" }.to_owned(), &container.name);
    }
    for health in observation.health.iter().filter(|health| health.healthy == Some(false)) {
        add("unhealthy".to_owned(), health.service.as_str());
    }
    if parts.is_empty() {
        let running = observation.containers.iter().filter(|container| container.is_running()).count();
        return Cell::new(format!("{running} up"));
    }
    // One or two names say more than a number; the findings beneath the table name all.
    let parts = parts.into_iter().map(|(state, names)| match names.as_slice() {
        [_] | [_, _] => format!("{} {state}", names.join(", ")),
        names => format!("{} {state}", names.len()),
    });
    Cell::new(parts.collect::<Vec<_>>().join("; ")).tone(Tone::Bad)
}

/// Returns the state of the legacy bundle.
fn bundle(check: &Check<'_>, node: &NodeFacts, observation: &Observation) -> Cell {
    match bundle_of(check.inventory, node, observation) {
        None => Cell::nothing(),
        Some(bundle @ (Bundle::Incomplete | Bundle::Nested)) => {
            Cell::new(bundle.as_str()).tone(Tone::Warning)
        }
        Some(bundle @ (Bundle::Absent | Bundle::Complete)) => Cell::new(bundle.as_str()),
    }
}
