use std::sync::PoisonError;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::step::{Place, poll_interval};
use super::verify::unchanged;
use super::{Execution, StepError, chain};
use crate::command::{Command, quote};
use crate::event::Outcome;
use crate::facts::{
    CertificateStatus, Health, Observation, Thresholds, certificate_file_name, certificate_status,
    certificates_of_container, restart_reason,
};
use crate::gather::component_health;
use crate::kube::{ApiServer, etcd_health};
use crate::pki::{Location, Service};
use crate::plan::{CertificateBefore, Guard, Via};

/// A component that somebody else has restarted just now is given this long to become healthy before it is restarted again.
const GRACE: Duration = Duration::from_secs(30);

/// How often a component is asked whether it is well again after its restart.
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);

impl Execution<'_> {
    /// Restarts the containers of a step that need it, one after the other, each waited for.
    pub(super) async fn restart(
        &self,
        place: &Place<'_>,
        containers: &[String],
        guard: &Guard,
        timeout: Duration,
    ) -> Result<Outcome, StepError> {
        let needy = match guard {
            Guard::Always if self.has_begun_before(place.turn) => {
                self.not_restarted(place, containers, timeout).await?
            }
            Guard::Always => containers.to_vec(),
            Guard::IfNeeded { patience, before } => self.needy(place, containers, *patience, before).await?,
        };
        if needy.is_empty() {
            let message =
                format!("{} use the present certificates and are healthy", containers.join(" and "));
            return Ok(Outcome::Unneeded { message });
        }
        if let Some(reason) = unusable(&self.observe(place).await?, &needy, self.run.clock.now()) {
            return Err(StepError::new(format!("not restarted: {reason}")).hint(
                "a component that starts on it would not come back: rotate, or put the files right, first",
            ));
        }
        for container in &needy {
            self.progress(place.turn, format!("restarting {container}"));
            let restart = crate::plan::restart_command(container);
            self.run_command(place, restart).await?;
            self.wait_until_healthy(place, container, timeout).await?;
        }
        Ok(Outcome::Done { message: format!("{} restarted and healthy", needy.join(" and ")) })
    }

    /// Returns the containers that an earlier try left to restart: those that it did not come to, and those that are not well.
    async fn not_restarted(
        &self,
        place: &Place<'_>,
        containers: &[String],
        timeout: Duration,
    ) -> Result<Vec<String>, StepError> {
        let seen = self.look_again(place).await?;
        let mut left = Vec::new();
        for container in containers {
            let stands = self.is_started_by_run(&seen, container)
                && self.settles(place, container, &seen, timeout).await?;
            if !stands {
                left.push(container.clone());
            }
        }
        Ok(left)
    }

    /// Returns the containers that need a restart, after whoever rotated had its time.
    async fn needy(
        &self,
        place: &Place<'_>,
        containers: &[String],
        patience: Duration,
        before: &[CertificateBefore],
    ) -> Result<Vec<String>, StepError> {
        // All agents have their time at once, from the rotation on, not one after the other.
        let rotated_at = *self.rotated_at.lock().unwrap_or_else(PoisonError::into_inner);
        let began = rotated_at.unwrap_or_else(Instant::now);
        let before = self.as_made_here(before);
        loop {
            let observation = self.look_again(place).await?;
            let needy = reasons(&observation, containers);
            let old = unchanged(&observation, &before);
            if old.is_ok() && needy.is_empty() {
                return Ok(Vec::new());
            }
            let is_stale = needy.iter().any(|(container, _)| {
                observation.container(container).is_none_or(|found| observation.is_stale(found))
            });
            let limit = if old.is_err() || is_stale { patience } else { patience.max(GRACE) };
            if self.run.operator.is_cancelled() {
                return Err(StepError::new("the operator stopped the run; nothing was restarted here"));
            }
            if began.elapsed() >= limit {
                return match old {
                    Ok(()) => Ok(needy.into_iter().map(|(container, _)| container).collect()),
                    Err(reason) => {
                        Err(StepError::new(format!("{reason}, after {} s", began.elapsed().as_secs()))
                            .hint(self.hint_without_certificates()))
                    }
                };
            }
            let waits_for = match (&old, needy.first()) {
                (Err(reason), _) => reason.clone(),
                (Ok(()), Some((container, reason))) => format!("{container} {reason}"),
                (Ok(()), None) => String::new(),
            };
            let left = limit.saturating_sub(began.elapsed()).as_secs();
            self.progress(
                place.turn,
                format!("left to happen by itself, at most {left} s more: {waits_for}"),
            );
            self.run.operator.wait_unless_cancelled(poll_interval(limit)).await;
        }
    }

    /// Returns the way out where a node has got no new certificates.
    fn hint_without_certificates(&self) -> &'static str {
        match self.run.plan.via {
            Some(Via::Rke) => {
                "rke has left it out: when its login works, `certroll plan --via direct` gives it the pairs that the others have by \
                 now, without a restart of everything; `--via rke --force` makes new ones for all"
            }
            _ => {
                "is this node's Rancher agent connected? `docker logs` of cattle-node-agent and share-mnt tell"
            }
        }
    }

    /// Waits until a component answers well after its restart; a run that is to end waits for that too.
    pub(super) async fn wait_until_healthy(
        &self,
        place: &Place<'_>,
        container: &str,
        timeout: Duration,
    ) -> Result<(), StepError> {
        let Ok(service) = container.parse() else { return Ok(()) };
        let began = Instant::now();
        loop {
            let health = match self.live_session(place).await {
                Ok(session) => self.component_health(&Place { session: &session, ..*place }, service).await,
                Err(error) => Health { service, healthy: Some(false), detail: error.error },
            };
            match health.healthy {
                Some(true) => return Ok(()),
                _ if began.elapsed() < timeout => {
                    self.progress(place.turn, format!("{container}: waiting for {}", health.detail));
                    tokio::time::sleep(HEALTH_INTERVAL).await;
                }
                _ => {
                    let waited = began.elapsed().as_secs();
                    let log = self.last_log_lines(place, container).await;
                    return Err(StepError::new(format!(
                        "{container} is not healthy {waited} s after its restart: {}{log}",
                        health.detail
                    ))
                    .hint(format!("put it right on the node (`docker logs {container}`), then plan again")));
                }
            }
        }
    }

    /// Asks a component for its health: etcd and the API server as an administrator where the run can show one.
    async fn component_health(&self, place: &Place<'_>, service: Service) -> Health {
        let version = self.run.gatherer.inventory().kubernetes_version.as_deref();
        let Some(issued) = self.issuance.so_far() else {
            return component_health(service, place.session, version).await;
        };
        let answer = match service {
            Service::Etcd => {
                let host = place.node.internal_address.as_str();
                match etcd_health(place.session, &issued.identity, host).await {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(format!("GET https://{host}:2379/health: not healthy")),
                    Err(error) => Err(chain(&error)),
                }
            }
            Service::KubeApiserver => {
                super::answers_well(&ApiServer::new(place.session, &issued.identity)).await
            }
            _ => return component_health(service, place.session, version).await,
        };
        Health { service, healthy: Some(answer.is_ok()), detail: answer.err().unwrap_or_default() }
    }

    /// Returns the end of a container's log, for a message.
    async fn last_log_lines(&self, place: &Place<'_>, container: &str) -> String {
        let command = Command::new(format!("docker logs --tail 3 {} 2>&1", quote(container)));
        match self.run_command(place, command).await {
            Ok(lines) if !lines.trim().is_empty() => {
                format!("; last lines of its log: {}", lines.trim().lines().collect::<Vec<_>>().join(" | "))
            }
            _ => String::new(),
        }
    }
}

/// Returns the containers that need a restart, with why.
fn reasons(observation: &Observation, containers: &[String]) -> Vec<(String, String)> {
    let needy = containers.iter().filter_map(|name| Some((name.clone(), restart_reason(observation, name)?)));
    needy.collect()
}

/// Says which file forbids to restart some containers: none is started onto a certificate that is missing, has ended, or does
/// not belong to its key or its CA.
pub(super) fn unusable(observation: &Observation, containers: &[String], now: Timestamp) -> Option<String> {
    let thresholds = Thresholds { now, expiring_within: SignedDuration::ZERO };
    let names =
        containers.iter().flat_map(|container| certificates_of_container(container).iter().enumerate());
    names.into_iter().find_map(|(place, name)| {
        let Some(file) = observation.certificate_file(Location::Ssl, name) else {
            // Its own pair is the first; others may be missing on old clusters.
            let missing = || format!("`ssl/{}` is missing", certificate_file_name(Location::Ssl, name));
            return (place == 0).then(missing);
        };
        match certificate_status(observation, file, &thresholds).0 {
            CertificateStatus::Ok | CertificateStatus::Expiring => None,
            status => Some(format!("`{}` is {}", file.path, status.as_str())),
        }
    })
}
