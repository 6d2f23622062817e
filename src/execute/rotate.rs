use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::Instant;

use super::patience::{Pauses, Until, Waiting, step_error};
use super::rotated::Shown;
use super::step::Turn;
use super::{Execution, Fault, Rancher, StepError};
use crate::event::{EventKind, Outcome};
use crate::inventory::Node;
use crate::pki::{Service, services_of};
use crate::plan::{Action, CertificateBefore};
use crate::rancher::RotationFlag;

/// How often the nodes are looked at while the operator rotates.
const OPERATOR_INTERVAL: Duration = Duration::from_secs(5);

const NEW_CA: &str = "nobody was asked to rotate. It changes every kubeconfig: let Rancher end it, then make a new plan; or have an \
    administrator clear `rotateCertificates` in the cluster's `rancherKubernetesEngineConfig` (View in API, Edit), then \
    `certroll apply --resume` goes on";

/// Returns whether a rotation that Rancher has to do already renews what is wanted; an empty name stands for all services.
fn covers(flag: &RotationFlag, wanted: Option<Service>) -> bool {
    let all = flag.services.iter().all(String::is_empty);
    all || wanted.is_some_and(|wanted| flag.services.iter().any(|service| service == wanted.as_str()))
}

impl Execution<'_> {
    /// Has Rancher rotate, and waits until it says that it is done.
    pub(super) async fn rotate_by_rancher(
        &self,
        turn: Turn<'_>,
        cluster_id: &str,
        service: Option<Service>,
        timeout: Duration,
    ) -> Result<Outcome, StepError> {
        let Some(Rancher { client, .. }) = &self.run.rancher else {
            return Err(StepError::new("Rancher is not known"));
        };
        let began = Instant::now();
        let before = &self.rotated_by(service);
        let waiting = Waiting { turn, client, cluster_id, before, timeout, deadline: began + timeout };
        let mut may_have_called = self.has_begun_before(turn);
        let mut pauses = Pauses::new();
        loop {
            let cluster = self.persist(turn, waiting.deadline, || client.cluster(cluster_id)).await?;
            let pending = cluster.rotation_flag.as_ref();
            if pending.is_some_and(|flag| flag.certificate_authority) {
                // This plan's own call never asks for one: nothing that it makes would fit what comes of that.
                return Err(
                    StepError::new("Rancher has been told to give this cluster a new CA").hint(NEW_CA)
                );
            }
            if pending.is_some() {
                self.progress(turn, "Rancher has a rotation to do already: waiting for that one");
                self.wait_for_rancher(&waiting, Until::Finished).await?;
                if pending.is_some_and(|flag| covers(flag, service)) {
                    break;
                }
            } else if may_have_called {
                // Rancher takes the flag away before the cluster is up to date. One that it does not change may never be: its
                // certificates have expired, and it is asked for the first time.
                self.wait_for_rancher(&waiting, Until::Unchanging).await?;
                if !before.is_empty() && self.is_rotated(turn, before, waiting.deadline).await? {
                    return Ok(Outcome::Done {
                        message: "Rancher has rotated: every certificate is another one than before"
                            .to_owned(),
                    });
                }
            }
            match client.rotate_certificates(&cluster, service).await {
                Ok(()) => {
                    self.wait_for_rancher(&waiting, Until::Finished).await?;
                    break;
                }
                Err(error) => {
                    // It may have been heard all the same: that is looked for before it is called again.
                    may_have_called = true;
                    self.wait_out(turn, waiting.deadline, (&error, &mut pauses)).await?;
                }
            }
        }
        let mut message = format!("Rancher is done after {} s", began.elapsed().as_secs());
        if !before.is_empty() {
            let look = self.see_on_nodes(&waiting).await?;
            message = format!("{message}: {}", look.counts());
        }
        Ok(Outcome::Done { message })
    }

    /// Returns the certificates of etcd and control plane nodes that a call of Rancher changes.
    pub(super) fn rotated_by(&self, service: Option<Service>) -> Vec<CertificateBefore> {
        let confirmations = self.run.plan.steps().filter_map(|step| match &step.action {
            Action::Confirm { before, .. } => Some(before),
            _ => None,
        });
        let is_meant = |certificate: &&CertificateBefore| {
            service.is_none_or(|service| services_of(&certificate.name).contains(&service))
        };
        let before: Vec<CertificateBefore> = confirmations.flatten().filter(is_meant).cloned().collect();
        self.as_made_here(&self.within_reach(&before))
    }

    /// Leaves out what lies on nodes that the run has to do without: nothing of them will be seen. Where that leaves none, they are
    /// waited for.
    fn within_reach(&self, before: &[CertificateBefore]) -> Vec<CertificateBefore> {
        let is_there = |certificate: &&CertificateBefore| self.why_away(&certificate.node).is_none();
        let there: Vec<CertificateBefore> = before.iter().filter(is_there).cloned().collect();
        if there.is_empty() { before.to_vec() } else { there }
    }

    /// Returns whether a rotation that may have been asked for has been made. A node that cannot be looked at tells neither: it is
    /// looked at again, for to ask once more restarts the whole cluster.
    pub(super) async fn is_rotated(
        &self,
        turn: Turn<'_>,
        before: &[CertificateBefore],
        deadline: Instant,
    ) -> Result<bool, StepError> {
        loop {
            let unknown = match self.look_for_new(before).await.shown() {
                Shown::New => return Ok(true),
                Shown::Old(_) => return Ok(false),
                Shown::Unknown(reason) => reason,
            };
            if Instant::now() >= deadline {
                return Err(StepError::new(format!("whether it was rotated cannot be told: {unknown}"))
                    .hint(
                        "nobody was asked once more: bring that node back, then `certroll apply --resume`",
                    ));
            }
            if let Some(reason) = self.why_waits_end() {
                return Err(StepError::new(reason));
            }
            self.progress(turn, format!("looking again whether it was rotated: {unknown}"));
            self.run.operator.wait_unless_cancelled(OPERATOR_INTERVAL).await;
        }
    }

    /// Asks the operator to rotate, and waits until the nodes show new certificates, twice running.
    pub(super) async fn rotate_by_operator(
        &self,
        turn: Turn<'_>,
        instructions: &[String],
        timeout: Duration,
        before: &[CertificateBefore],
    ) -> Result<Outcome, StepError> {
        let began = Instant::now();
        let before = &self.within_reach(before);
        // Who was asked before may have done it.
        let mut changed_before =
            self.has_begun_before(turn) && self.is_rotated(turn, before, began + timeout).await?;
        if !changed_before {
            let limit = SignedDuration::try_from(timeout).unwrap_or(SignedDuration::MAX);
            let asked = EventKind::WaitingForOperator {
                step: turn.step.id.clone(),
                instructions: instructions.to_vec(),
                until: self.run.clock.now() + limit,
            };
            self.recorder.record(asked).map_err(|error| StepError::new(error.to_string()))?;
        }
        loop {
            let waits_for = match self.look_for_new(before).await.shown() {
                Shown::New => None,
                Shown::Old(reason) | Shown::Unknown(reason) => Some(reason),
            };
            if waits_for.is_none() && changed_before {
                let message =
                    format!("the nodes show new certificates after {} s", began.elapsed().as_secs());
                return Ok(Outcome::Done { message });
            }
            changed_before = waits_for.is_none();
            if let Some(reason) = waits_for.as_ref().filter(|_| began.elapsed() >= timeout) {
                return Err(StepError::new(format!("nobody rotated within {}: {reason}", in_words(timeout)))
                    .hint("when it is done, plan and apply again; `--wait 2h` waits longer"));
            }
            if let Some(reason) = self.why_waits_end() {
                return Err(StepError::new(reason));
            }
            let message = waits_for.unwrap_or_else(|| "new certificates seen, looking once more".to_owned());
            self.progress(turn, message);
            self.run.operator.wait(OPERATOR_INTERVAL).await;
        }
    }

    /// Returns Rancher's word for a node; `None` where Rancher does not know it.
    pub(super) async fn rancher_node_state(&self, node: &Node) -> Result<Option<String>, StepError> {
        let Some(Rancher { client, cluster_id }) = &self.run.rancher else { return Ok(None) };
        let nodes = client.nodes(cluster_id).await.map_err(|error| {
            let fault = if error.is_transient() { Fault::Passing } else { Fault::Lasting };
            StepError { fault, ..step_error(&error) }
        })?;
        let found = nodes.into_iter().find(|candidate| {
            std::iter::once(&candidate.name).chain(&candidate.addresses).any(|name| node.is_known_as(name))
        });
        Ok(found.map(|found| found.state))
    }
}

/// Returns a limit as it is given on the command line: whole minutes as such, else seconds.
pub(super) fn in_words(limit: Duration) -> String {
    match limit.as_secs() {
        seconds if seconds >= 60 && seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}
