//! Earlier attempts at a run: what they made, how far they came, and what of it is in use on the nodes.

use crate::event::{IssuedCertificate, RunState};
use crate::facts::{Facts, Observation, key_file_name};
use crate::inventory::NodeName;
use crate::pki::{Certificate, Fingerprint, Location};
use crate::plan::{Plan, Rotated, StepId, Trail};

/// What earlier attempts at a run did; nothing in the first.
pub(super) struct Earlier {
    state: RunState,
}

/// A pair of an earlier attempt that a node has in use.
#[derive(Clone, Copy)]
pub(super) struct InUse<'a> {
    pub(super) node: &'a NodeName,
    pub(super) seen: &'a Observation,
    pub(super) certificate: &'a Certificate,
}

impl Earlier {
    pub(super) fn new(state: RunState) -> Self {
        Self { state }
    }

    /// Returns how many attempts there were.
    pub(super) fn attempts(&self) -> u32 {
        self.state.attempt()
    }

    /// Returns whether a step has begun before.
    pub(super) fn has_begun(&self, step: &StepId) -> bool {
        self.state.steps.iter().any(|state| state.step == *step && state.begun_in.is_some())
    }

    /// Returns the last attempt in which a step ended well.
    pub(super) fn well_in(&self, step: &StepId) -> Option<u32> {
        self.state.steps.iter().find(|state| state.step == *step)?.well_in
    }

    /// Returns what was made under a name, the latest first.
    pub(super) fn made(&self, name: &str) -> impl Iterator<Item = &Fingerprint> {
        self.state.issued.iter().rev().filter(move |issued| issued.name == name).map(|issued| &issued.sha256)
    }

    /// Returns whether a certificate was made.
    pub(super) fn has_made(&self, sha256: &Fingerprint) -> bool {
        self.state.issued.iter().any(|issued| issued.sha256 == *sha256)
    }

    /// Returns the pair of a name that was made and that some node has in a folder: all others get the same one.
    pub(super) fn in_use<'a>(&self, facts: &'a Facts, location: Location, name: &str) -> Option<InUse<'a>> {
        self.places(facts, location, name).next()
    }

    /// Returns whether a node certainly has a pair of a name that was made; of some keys there is no telling before they are read.
    pub(super) fn is_surely_in_use(&self, facts: &Facts, name: &str) -> bool {
        let mut places = self.places(facts, Location::Ssl, name);
        places.any(|found| found.seen.key_matches(Location::Ssl, name) == Some(true))
    }

    /// Returns where pairs of a name lie that were made, the latest first.
    pub(super) fn places<'a>(
        &self,
        facts: &'a Facts,
        location: Location,
        name: &str,
    ) -> impl Iterator<Item = InUse<'a>> {
        self.made(name).flat_map(move |sha256| {
            facts.seen().filter_map(move |(node, seen)| {
                let certificate = seen.certificate(location, name).filter(|found| found.sha256 == *sha256)?;
                // Half of a pair is no pair; of some keys there is no telling whether they match.
                let has_key = seen.file(location, &key_file_name(location, name)).is_some();
                let is_pair = has_key && seen.key_matches(location, name) != Some(false);
                is_pair.then_some(InUse { node: &node.name, seen, certificate })
            })
        })
    }

    /// Returns what of the cluster has changed through this run.
    pub(super) fn trail(&self, plan: &Plan) -> Trail {
        trail(&self.state, plan)
    }
}

/// Returns what of a cluster has changed through a run.
pub fn trail(state: &RunState, plan: &Plan) -> Trail {
    let mut rotations = plan.steps().filter(|step| step.action.is_rotation_by_others());
    let has_begun = rotations
        .any(|step| state.steps.iter().any(|state| state.step == step.id && state.begun_in.is_some()));
    let made = state
        .issued
        .iter()
        .map(|issued: &IssuedCertificate| (issued.name.clone(), issued.sha256.clone()))
        .collect();
    Trail { made, rotation: if has_begun { Rotated::Begun } else { Rotated::NotYet } }
}
