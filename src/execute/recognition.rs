//! Recognition tells what of a step stands already: an earlier attempt, or a command whose answer was lost, may have done it.
//!
//! Steps ask before they have an effect. Only those that have begun before look: a first try costs no more than it did.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::step::{Place, Turn};
use super::switch::Change;
use super::{Execution, StepError};
use crate::event::Outcome;
use crate::facts::{Container, Content, Observation, key_file_name, restart_reason};
use crate::pki::{Fingerprint, Location};
use crate::plan::{Action, Gate, Half, NewFile, Rotated, StageName, is_as_planned};

/// What of a switch stands.
pub(super) enum Standing {
    /// Not all of its files are in place.
    Nothing,
    /// Its files are in place.
    Files(Box<Observation>),
}

impl Execution<'_> {
    /// Returns whether a step may have had its effect already.
    pub(super) fn has_begun_before(&self, turn: Turn<'_>) -> bool {
        turn.number > 1 || self.earlier.has_begun(&turn.step.id)
    }

    /// Returns why a step has no turn any more: what came after it in an earlier attempt builds on it, and to do it again would
    /// undo that.
    pub(super) fn built_upon(&self, turn: Turn<'_>) -> Option<Outcome> {
        let attempt = self.earlier.well_in(&turn.step.id)?;
        let prepares = matches!(
            turn.step.action,
            Action::CopyFiles { .. }
                | Action::BringFiles { .. }
                | Action::AddKubeAdmin { .. }
                | Action::KeepBastionFiles { .. }
                | Action::LayAside { .. }
                | Action::Switch { .. }
                | Action::UpdateClusterState { .. }
                | Action::UpdateStateFile { .. }
                | Action::UpdateKubeConfig { .. }
        );
        let stages = || self.run.plan.stages.iter().map(|stage| stage.name);
        let rotates_later =
            stages().skip_while(|name| *name != turn.stage).any(|name| name == StageName::Rotate);
        let is_rotated = self.earlier.trail(&self.run.plan).rotation == Rotated::Begun;
        (prepares && rotates_later && is_rotated).then(|| Outcome::Unneeded {
            message: format!("done in attempt {attempt}; the rotation after it has begun since"),
        })
    }

    /// Looks at what of a switch stands.
    pub(super) async fn standing(
        &self,
        place: &Place<'_>,
        change: &Change<'_>,
    ) -> Result<Standing, StepError> {
        if !self.has_begun_before(place.turn) {
            return Ok(Standing::Nothing);
        }
        let Action::Switch { files, .. } = &place.turn.step.action else { return Ok(Standing::Nothing) };
        let seen = self.look_again(place).await?;
        let issued = self.issued().await?;
        let is_new = |file: &NewFile| {
            let Some(location) = location(file) else { return false };
            match file.half {
                Half::Certificate => {
                    let found = seen.certificate(location, &file.certificate).map(|found| &found.sha256);
                    let wanted = issued.pair(&file.certificate).ok().map(|pair| &pair.certificate.sha256);
                    found.is_some() && found == wanted
                }
                Half::Key => match seen.key_matches(location, &file.certificate) {
                    Some(matches) => matches,
                    // Of an elliptic-curve key there is no telling; one that is older than the run is not the run's.
                    None => seen
                        .file(location, &key_file_name(location, &file.certificate))
                        .is_some_and(|key| self.is_since_run_began(&seen, key.modified_at)),
                },
            }
        };
        // A private key is known by its length alone, and a new one has the old one's often enough: the certificate tells.
        let is_retired = |path: &String| {
            let found = seen.files.iter().find(|file| file.path == *path);
            !found.is_some_and(|file| {
                !matches!(file.content, Content::Key(_))
                    && is_as_planned(&self.run.plan, &place.node.name, file)
            })
        };
        let stands = files.iter().all(is_new) && change.retired.iter().all(is_retired);
        Ok(if stands { Standing::Files(Box::new(seen)) } else { Standing::Nothing })
    }

    /// Restarts the containers of a switch whose files are in place, where they need it: those that started before, and those that
    /// do not become healthy. Returns their names.
    pub(super) async fn complete_switch(
        &self,
        place: &Place<'_>,
        change: &Change<'_>,
        mut seen: Observation,
    ) -> Result<Vec<String>, StepError> {
        let Action::Switch { files, .. } = &place.turn.step.action else { return Ok(Vec::new()) };
        let mut restarted = Vec::new();
        for container in change.containers {
            if !is_older_than_files(&seen, container, files) {
                if self.settles(place, container, &seen, change.timeout).await? {
                    continue;
                }
            } else if matches!(change.gate, Gate::NoQuorum { .. }) && is_healthy(&seen, container) {
                // It reads its files at each handshake, and a quorum may hang on it by now.
                continue;
            }
            if restarted.is_empty() {
                self.wait_for_gate(place, change, &seen).await?;
            }
            self.progress(place.turn, format!("restarting {container}"));
            self.run_command(place, crate::plan::restart_command(container)).await?;
            self.wait_until_healthy(place, container, change.timeout).await?;
            restarted.push(container.clone());
            seen = self.look_again(place).await?;
        }
        Ok(restarted)
    }

    /// Returns whether a member of a quorum that was lost is well on what an earlier try put into place of its files: it reads them
    /// at each handshake, and the quorum may hang on it by now.
    pub(super) async fn lives_on_new_files(
        &self,
        place: &Place<'_>,
        change: &Change<'_>,
    ) -> Result<bool, StepError> {
        if !matches!(change.gate, Gate::NoQuorum { .. }) || !self.has_begun_before(place.turn) {
            return Ok(false);
        }
        let seen = self.look_again(place).await?;
        let own = format!("kube-etcd-{}", place.node.file_name_address());
        let is_new =
            seen.certificate(Location::Ssl, &own).is_some_and(|found| self.is_made_by_run(&found.sha256));
        Ok(is_new && is_healthy(&seen, "etcd"))
    }

    /// Waits for a component that started onto its present files until it is well; one that had its time already gets none.
    pub(super) async fn settles(
        &self,
        place: &Place<'_>,
        container: &str,
        seen: &Observation,
        timeout: Duration,
    ) -> Result<bool, StepError> {
        if restart_reason(seen, container).is_none() {
            return Ok(true);
        }
        let Some(started_at) =
            seen.container(container).filter(|found| found.is_running()).and_then(|found| found.started_at)
        else {
            return Ok(false);
        };
        let now = self.run.clock.now() + SignedDuration::from_secs(seen.clock_skew_seconds);
        let age = Duration::try_from(now.duration_since(started_at)).unwrap_or_default();
        let left = timeout.saturating_sub(age);
        Ok(!left.is_zero() && self.wait_until_healthy(place, container, left).await.is_ok())
    }

    /// Returns whether a container was started since the run began.
    pub(super) fn is_started_by_run(&self, seen: &Observation, container: &str) -> bool {
        seen.container(container)
            .filter(|found| found.is_running())
            .and_then(|found| found.started_at)
            .is_some_and(|started_at| self.is_since_run_began(seen, started_at))
    }

    /// Returns whether a moment by a node's clock is none before the run began.
    fn is_since_run_began(&self, seen: &Observation, moment: Timestamp) -> bool {
        let began = self.recorder.state().started_at;
        began.is_some_and(|began| moment >= began + SignedDuration::from_secs(seen.clock_skew_seconds))
    }

    /// Returns whether this run made a certificate, in whichever attempt.
    pub(super) fn is_made_by_run(&self, sha256: &Fingerprint) -> bool {
        let here = self
            .issuance
            .so_far()
            .is_some_and(|issued| issued.pairs.values().any(|pair| pair.certificate.sha256 == *sha256));
        here || self.earlier.has_made(sha256)
    }
}

/// Returns the folder of a new file.
fn location(file: &NewFile) -> Option<Location> {
    match file.path.split_once('/') {
        Some(("ssl", _)) => Some(Location::Ssl),
        Some((".tmp", _)) => Some(Location::Tmp),
        _ => None,
    }
}

fn is_healthy(seen: &Observation, container: &str) -> bool {
    let health = container.parse().ok().and_then(|service| seen.health_of(service));
    health.is_some_and(|health| health.healthy == Some(true))
}

/// Returns whether a container started before the files that it uses were written. Etcd needs no restart for them, but an
/// undisturbed run gives it one.
fn is_older_than_files(seen: &Observation, container: &str, files: &[NewFile]) -> bool {
    let Some(found) = seen.container(container) else { return true };
    let is_etcd = container == "etcd";
    seen.is_stale(found)
        || (is_etcd && found.started_at.is_some_and(|start| newest(seen, files) > Some(start)))
        || !Container::is_running(found)
}

/// Returns when the last of some files was written.
fn newest(seen: &Observation, files: &[NewFile]) -> Option<Timestamp> {
    let path = |file: &NewFile| format!("{}/{}", seen.kubernetes_directory, file.path);
    let written = files.iter().filter_map(|file| {
        let path = path(file);
        seen.files.iter().find(|found| found.path == path).map(|found| found.modified_at)
    });
    written.max()
}
