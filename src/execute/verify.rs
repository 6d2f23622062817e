use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::Instant;

use super::step::{Place, poll_interval};
use super::{Execution, Fault, StepError};
use crate::event::Outcome;
use crate::facts::{Facts, Observation, Standing, Thresholds, assess};
use crate::finding::Severity;
use crate::gather::{facts_of, readiness};
use crate::inventory::Node;
use crate::pki::{Fingerprint, Location, Service};
use crate::plan::CertificateBefore;

impl Execution<'_> {
    /// Waits until the certificates of a node have changed, and its ports serve them.
    pub(super) async fn confirm(
        &self,
        place: &Place<'_>,
        before: &[CertificateBefore],
        timeout: Duration,
    ) -> Result<Outcome, StepError> {
        let before = self.as_made_here(before);
        self.wait_until(place, timeout, |observation| {
            unchanged(observation, &before)?;
            not_served(observation)
        })
        .await?;
        Ok(Outcome::Done { message: "new certificates are on disk and served".to_owned() })
    }

    /// Returns the certificates that somebody else's rotation must change: where this run has made new ones, those too.
    pub(super) fn as_made_here(&self, before: &[CertificateBefore]) -> Vec<CertificateBefore> {
        let mut all = before.to_vec();
        for certificate in before {
            let issued = self.issuance.so_far().and_then(|issued| issued.pair(&certificate.name).ok());
            let here = issued.map(|pair| &pair.certificate.sha256);
            let made = here.into_iter().chain(self.earlier.made(&certificate.name));
            all.extend(
                made.map(|sha256| CertificateBefore { sha256: sha256.clone(), ..certificate.clone() }),
            );
        }
        all
    }

    /// Waits until a node is what the plan wanted it to be.
    pub(super) async fn verify(
        &self,
        place: &Place<'_>,
        before: &[CertificateBefore],
        timeout: Duration,
    ) -> Result<Outcome, StepError> {
        self.wait_until(place, timeout, |observation| {
            unchanged(observation, before)?;
            self.worst_finding(place, observation)
        })
        .await?;
        self.wait_for_others(place, timeout).await?;
        // What is there now is what the run leaves: others can be told by what they change from here on.
        let session = self.live_session(place).await?;
        self.run_commands(&Place { session: &session, ..*place }, None).await?;
        Ok(Outcome::Done { message: "certificates valid and served, components healthy".to_owned() })
    }

    /// Returns what others say of a node. That the API cannot be asked says nothing of the node: whether API servers are well was
    /// seen on their own.
    async fn others_say(&self, node: &Node) -> Result<Standing, StepError> {
        let rancher = self.rancher_node_state(node).await?;
        let ready = self.api_status(node).await.ok().flatten();
        Ok(Standing { rancher, ready: ready.as_ref().and_then(readiness) })
    }

    /// Looks at a node until a predicate holds, and says meanwhile what it waits for.
    pub(super) async fn wait_until(
        &self,
        place: &Place<'_>,
        timeout: Duration,
        holds: impl Fn(&Observation) -> Result<(), String>,
    ) -> Result<(), StepError> {
        let began = Instant::now();
        loop {
            let looked = self.look_again(place).await;
            let (reason, hint) = match looked.map(|observation| holds(&observation)) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(reason)) => (reason, None),
                Err(StepError { error, hint, .. }) => (error, hint),
            };
            if began.elapsed() >= timeout || self.run.operator.is_cancelled() {
                let waited = began.elapsed().as_secs();
                let check =
                    format!("`certroll check -n {}` shows all that is known of the node", place.node.name);
                return Err(StepError::new(format!("{reason}, after {waited} s")).hint(hint.unwrap_or(check)));
            }
            self.progress(place.turn, format!("waiting: {reason}"));
            self.run.operator.wait_unless_cancelled(poll_interval(timeout)).await;
        }
    }

    /// Looks at a node, over a new connection where the old one has dropped.
    pub(super) async fn look_again(&self, place: &Place<'_>) -> Result<Observation, StepError> {
        let session = self.live_session(place).await?;
        self.observe(&Place { session: &session, ..*place }).await
    }

    /// Returns the first thing that is wrong with a node.
    fn worst_finding(&self, place: &Place<'_>, observation: &Observation) -> Result<(), String> {
        let now = self.run.clock.now();
        let facts = Facts { observed_at: now, nodes: vec![facts_of(place.node, Ok(observation.clone()))] };
        let thresholds = Thresholds { now, expiring_within: SignedDuration::ZERO };
        let findings = assess(self.run.gatherer.inventory(), &facts, &thresholds);
        match findings.into_iter().find(|finding| finding.severity == Severity::Error) {
            Some(finding) => Err(finding.message),
            None => Ok(()),
        }
    }

    /// Waits until Rancher calls the node active, where Rancher is known and knows the node, and the API calls it ready, where it
    /// can be asked.
    async fn wait_for_others(&self, place: &Place<'_>, timeout: Duration) -> Result<(), StepError> {
        let began = Instant::now();
        loop {
            match self.others_say(place.node).await {
                Ok(standing) if standing.is_good() => return Ok(()),
                Ok(standing) => {
                    let said = standing.sentence("its components are well");
                    if began.elapsed() >= timeout {
                        return Err(StepError::new(format!("{said}, after {} s", began.elapsed().as_secs()))
                            .hint("look at the node in Rancher, at the log of its agent, and at `docker logs kubelet`"));
                    }
                    self.progress(place.turn, format!("waiting: {said}"));
                }
                Err(error) if began.elapsed() >= timeout || error.fault == Fault::Lasting => {
                    return Err(StepError { fault: Fault::Lasting, ..error });
                }
                Err(error) => self.progress(place.turn, format!("waiting: {}", error.error)),
            }
            if self.run.operator.is_cancelled() {
                return Err(StepError::new("the operator stopped the run"));
            }
            self.run.operator.wait_unless_cancelled(poll_interval(timeout)).await;
        }
    }
}

/// Says which certificates are still what they were.
pub(super) fn unchanged(observation: &Observation, before: &[CertificateBefore]) -> Result<(), String> {
    match still_old(observation, before).as_slice() {
        [] => Ok(()),
        names => Err(format!("no new certificate yet for {}", names.join(", "))),
    }
}

/// Returns the names of certificates that are still what they were, or are not there.
pub(super) fn still_old(observation: &Observation, before: &[CertificateBefore]) -> Vec<String> {
    let same = |certificate: &&CertificateBefore| {
        let now: Option<&Fingerprint> =
            observation.certificate(Location::Ssl, &certificate.name).map(|found| &found.sha256);
        now.is_none_or(|now| *now == certificate.sha256)
    };
    let mut names: Vec<String> = Vec::new();
    for certificate in before.iter().filter(same) {
        if !names.contains(&certificate.name) {
            names.push(certificate.name.clone());
        }
    }
    names
}

/// Says which ports of etcd and the API server do not serve what lies on disk. A kubelet does so after its restart, which comes
/// later, and its own serving certificate is no rotation's business.
pub(super) fn not_served(observation: &Observation) -> Result<(), String> {
    for served in observation.served.iter().filter(|served| served.service != Service::Kubelet) {
        let port = format!("{} on port {}", served.service, served.port);
        if let Err(error) = &served.certificate {
            return Err(format!("{port} serves no certificate: {error}"));
        }
        if served.matches_disk == Some(false) {
            return Err(format!("{port} serves another certificate than the one on disk"));
        }
    }
    Ok(())
}
