//! The way back: files of a backup in their place, behind the same gates as a switch, and what rke keeps as it was.

use std::time::Duration;

use super::issuance::Issued;
use super::state::{WRITE_ATTEMPTS, of_this_cluster, on_bastion};
use super::step::{Place, Turn};
use super::switch::Change;
use super::{Execution, StepError};
use crate::command::Command;
use crate::event::Outcome;
use crate::facts::{Observation, restart_reason};
use crate::inventory::NodeName;
use crate::kube::{ApiServer, CertificateSecret, KubeError};
use crate::pki::{Authority, Certificate, FullState, Location, Service};
use crate::plan::{Health, KeptState, Restoration, not_restored, restart_command};
use crate::workstation::{put_back, set_aside};

/// The one leaf of another CA, that of request headers.
const PROXY_CLIENT: &str = "kube-apiserver-proxy-client";

/// A node's turn on the way back.
pub(super) struct Return<'a> {
    pub(super) wanted: &'a Restoration,
    pub(super) change: Change<'a>,
    pub(super) health: Health,
}

impl Execution<'_> {
    /// Puts a node's files back, and restarts what uses them; what stands already is left alone.
    pub(super) async fn restore(&self, place: &Place<'_>, back: &Return<'_>) -> Result<Outcome, StepError> {
        let missing = self.run_command(place, check_of(place, back.wanted)).await?;
        let stands = missing.trim().is_empty();
        let seen = self.observe(place).await?;
        let needy = if stands { needy_after(&seen, back) } else { back.change.containers.to_vec() };
        if stands && needy.is_empty() {
            let message = "all files are as they were before, and their components use them".to_owned();
            return Ok(Outcome::Unneeded { message });
        }
        self.wait_for_gate(place, &back.change, &seen).await?;
        let mut printed = String::new();
        if !stands {
            let commands = place.turn.step.action.commands(place.planned);
            let files =
                commands.into_iter().next().ok_or_else(|| StepError::new("the step has no command"))?;
            printed = self.run_command(place, files).await?;
        }
        for container in &needy {
            self.progress(place.turn, format!("restarting {container}"));
            self.run_command(place, restart_command(container)).await?;
            if back.health == Health::Awaited {
                self.wait_until_healthy(place, container, back.change.timeout).await?;
            }
        }
        let count = |word: &str| printed.lines().filter(|line| line.starts_with(word)).count();
        let files = match (count("restored "), count("removed ")) {
            (0, 0) => "the files stood already".to_owned(),
            (restored, 0) => format!("{restored} files put back"),
            (restored, removed) => format!("{restored} files put back, {removed} removed"),
        };
        let restarted = match (needy.as_slice(), back.health) {
            ([], _) => "nothing to restart".to_owned(),
            (names, Health::Awaited) => format!("{} restarted and healthy", names.join(", ")),
            (names, Health::NotAwaited) => format!("{} restarted, health not asked", names.join(", ")),
        };
        Ok(Outcome::Done { message: format!("{files}; {restarted}") })
    }

    /// Waits until a node is what it was: files, what is served, components.
    pub(super) async fn verify_restored(
        &self,
        place: &Place<'_>,
        wanted: &[Restoration],
        containers: &[String],
        (health, timeout): (Health, Duration),
    ) -> Result<Outcome, StepError> {
        for wanted in wanted {
            let missing = self.run_command(place, check_of(place, wanted)).await?;
            if let Some(path) = missing.lines().next() {
                return Err(StepError::new(format!("`{path}` is not what was saved"))
                    .hint("somebody else writes there: find out who, then roll back once more"));
            }
        }
        self.wait_until(place, timeout, |seen| {
            if let Some(name) = containers.iter().find(|name| is_older_than_its_files(seen, name)) {
                return Err(format!("{name} runs on the certificates from before the rollback"));
            }
            match health {
                Health::NotAwaited => Ok(()),
                // Where nothing was restarted, what is served is none of this run's doing.
                Health::Awaited if containers.is_empty() => Ok(()),
                Health::Awaited => {
                    serves_what_is_there(seen, containers)?;
                    let reason = containers.iter().find_map(|name| Some((name, restart_reason(seen, name)?)));
                    reason.map_or(Ok(()), |(name, reason)| Err(format!("{name} {reason}")))
                }
            }
        })
        .await?;
        self.run_commands(place, None).await?;
        Ok(Outcome::Done {
            message: match health {
                Health::Awaited => {
                    "files as saved, served as they are on disk, components healthy".to_owned()
                }
                Health::NotAwaited => "files as saved; health not asked".to_owned(),
            },
        })
    }

    /// Writes the certificates that a run has replaced back into what rke keeps in the API.
    pub(super) async fn restore_cluster_state(
        &self,
        turn: Turn<'_>,
        nodes: &[NodeName],
        (run, kept): (&str, &[KeptState]),
        names: &[String],
    ) -> Result<Outcome, StepError> {
        let issued = self.issued().await?;
        let hint = "the nodes have their old certificates; rke's state in the API has the others: roll back again when the API answers";
        let peer = self.api_server(turn, nodes, issued).await.map_err(|error| error.hint(hint))?;
        let api = ApiServer::new(&peer.session, &issued.identity);
        let mut written = 0;
        for object in kept {
            let content = self.kept_content(run, object).await?;
            let changed = match object.file_name.strip_prefix("secret-") {
                None => self.restore_full_state((&api, &peer), &content, names, issued).await,
                Some(name) => {
                    let name = name.strip_suffix(".json").unwrap_or(name);
                    self.restore_secret((&api, &peer), (name, &content), issued).await
                }
            };
            written += usize::from(changed.map_err(|error| error.about(&peer.node.name))?);
        }
        Ok(match written {
            0 => Outcome::Unneeded { message: "the API holds it already".to_owned() },
            1 => Outcome::Done { message: "1 object put back".to_owned() },
            count => Outcome::Done { message: format!("{count} objects put back") },
        })
    }

    /// Reads what a run has kept of an object.
    async fn kept_content(
        &self,
        run: &str,
        object: &KeptState,
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, StepError> {
        let seen = self.run.facts.node(&object.node).and_then(|node| node.observation());
        let directory = seen.map(|seen| seen.kubernetes_directory.as_str()).unwrap_or_default();
        let path = format!("{directory}/.certroll/{run}/{}", object.file_name);
        let found = self.fetch(&object.node, &[&path]).await?;
        let content = found.into_iter().find(|(name, _)| *name == path);
        content
            .map(|(_, content)| content)
            .ok_or_else(|| StepError::new(format!("{} did not send `{path}`", object.node)))
    }

    async fn restore_full_state(
        &self,
        (api, peer): (&ApiServer<'_>, &super::step::Peer<'_>),
        content: &[u8],
        names: &[String],
        issued: &Issued,
    ) -> Result<bool, StepError> {
        let old = FullState::parse(content)
            .map_err(|error| StepError::new(format!("what the run has kept of the state: {error}")))?;
        of_this_cluster(&old, issued, "what the run has kept of kube-system/full-cluster-state")?;
        for name in names {
            for (certificate, is_own_key) in old.pairs(name) {
                self.check_kept(name, (&certificate, is_own_key), issued)?;
            }
        }
        for _ in 0..WRITE_ATTEMPTS {
            let found = api.cluster_state().await.map_err(|error| StepError::new(super::chain(&error)))?;
            let Some(mut object) = found else { return Ok(false) };
            of_this_cluster(&object.state, issued, "kube-system/full-cluster-state")?;
            let before = object.state.to_compact();
            let mut changed = false;
            for name in names {
                changed |= object.state.take_over(&old, name);
            }
            if !changed {
                return Ok(false);
            }
            self.keep(peer, "full-cluster-state.json", before.as_bytes()).await?;
            match api.replace_cluster_state(object).await {
                Ok(()) => return Ok(true),
                Err(KubeError::Conflict { .. }) => {}
                Err(error) => return Err(StepError::new(super::chain(&error))),
            }
        }
        Err(StepError::new("kube-system/full-cluster-state is written by somebody else again and again"))
    }

    async fn restore_secret(
        &self,
        (api, peer): (&ApiServer<'_>, &super::step::Peer<'_>),
        (name, content): (&str, &[u8]),
        issued: &Issued,
    ) -> Result<bool, StepError> {
        let old = CertificateSecret::of_copy(name, content)
            .map_err(|error| StepError::new(format!("what the run has kept of {name}: {error}")))?;
        let certificate = old
            .certificate()
            .map_err(|error| StepError::new(format!("what the run has kept of {name}: {error}")))?;
        self.check_kept(name, (&certificate, old.key_matches()), issued)?;
        for _ in 0..WRITE_ATTEMPTS {
            let found =
                api.certificate_secret(name).await.map_err(|error| StepError::new(super::chain(&error)))?;
            let Some(mut secret) = found else { return Ok(false) };
            let before = zeroize::Zeroizing::new(secret.as_str().to_owned());
            if !secret.take_over(&old) {
                return Ok(false);
            }
            self.keep(peer, &format!("secret-{name}.json"), before.as_bytes()).await?;
            match api.replace_certificate_secret(secret).await {
                Ok(()) => return Ok(true),
                Err(KubeError::Conflict { .. }) => {}
                Err(error) => return Err(StepError::new(super::chain(&error))),
            }
        }
        Err(StepError::new(format!(
            "the secret kube-system/{name} is written by somebody else again and again"
        )))
    }

    /// Whoever is root on the node that kept it may have put something else there: only pairs of the cluster's own CAs go back.
    fn check_kept(
        &self,
        name: &str,
        (certificate, is_own_key): (&Certificate, Option<bool>),
        issued: &Issued,
    ) -> Result<(), StepError> {
        let proxy = Authority::RequestheaderCa.name();
        let mut proxies =
            self.run.facts.seen().filter_map(|(_, seen)| seen.certificate(Location::Ssl, proxy));
        let is_signed = certificate.is_signed_by(&issued.authority)
            || (name == PROXY_CLIENT && proxies.any(|authority| certificate.is_signed_by(authority)));
        if is_signed && !certificate.is_ca && is_own_key != Some(false) {
            return Ok(());
        }
        Err(StepError::new(format!("what the run has kept of {name} is not a pair of this cluster's CA"))
            .hint("somebody has changed `.certroll` on the node: find out who; the API was left as it is"))
    }

    /// Puts a file of the bastion back, or moves one away that the run had made.
    pub(super) fn restore_bastion_file(&self, path: &str, copy: Option<&str>) -> Result<Outcome, StepError> {
        let own = &self.run.holder.run;
        let Some(copy) = copy else {
            let moved = set_aside(path.as_ref(), own).map_err(|error| on_bastion(&error))?;
            return Ok(match moved {
                Some(to) => {
                    Outcome::Done { message: format!("`{path}` is `{}` now", to.as_path().display()) }
                }
                None => Outcome::Unneeded { message: format!("`{path}` is not there any more") },
            });
        };
        let replaced = put_back(path.as_ref(), copy.as_ref(), own).map_err(|error| on_bastion(&error))?;
        Ok(match replaced {
            None => Outcome::Unneeded { message: format!("`{path}` is as it was") },
            Some(None) => Outcome::Done { message: format!("`{path}` put back") },
            Some(Some(kept)) => Outcome::Done {
                message: format!("`{path}` put back; the other one is `{}`", kept.as_path().display()),
            },
        })
    }
}

/// Returns the command that names the files which are not yet as they were.
fn check_of(place: &Place<'_>, wanted: &Restoration) -> Command {
    not_restored(&place.planned.kubernetes_directory, wanted)
}

/// Returns the components that still need a restart where the files stand already.
fn needy_after(seen: &Observation, back: &Return<'_>) -> Vec<String> {
    let needs = |container: &&String| match back.health {
        Health::Awaited => needs_restart(seen, container),
        Health::NotAwaited => is_older_than_its_files(seen, container),
    };
    back.change.containers.iter().filter(needs).cloned().collect()
}

/// Returns whether a component must be restarted: it runs on other files, does not run, or is not well.
fn needs_restart(seen: &Observation, container: &str) -> bool {
    restart_reason(seen, container).is_some() || is_older_than_its_files(seen, container)
}

/// Returns whether a component started before a file was written that it loads. etcd is asked for its own pair, a kubelet for
/// its serving pair too: they are no business of a rotation, but of this.
fn is_older_than_its_files(seen: &Observation, container: &str) -> bool {
    let Some(found) = seen.container(container) else { return true };
    let Some(started_at) = found.started_at else { return true };
    let loads = |file: &&crate::facts::File| match container.parse() {
        Ok(Service::Etcd) => file.location == Location::Ssl && file.file_name.starts_with("kube-etcd-"),
        Ok(Service::Kubelet) => {
            file.location == Location::KubeletPki && file.file_name.starts_with("kubelet.")
        }
        _ => false,
    };
    seen.is_stale(found) || seen.files.iter().filter(loads).any(|file| file.modified_at > started_at)
}

/// Says which port of the containers serves another certificate than the one on disk: what was not restarted is none of this
/// run's doing.
fn serves_what_is_there(seen: &Observation, containers: &[String]) -> Result<(), String> {
    let is_asked = |service: &str| containers.iter().any(|name| name == service);
    let differing = seen
        .served
        .iter()
        .find(|served| served.matches_disk == Some(false) && is_asked(served.service.as_str()));
    differing.map_or(Ok(()), |served| {
        Err(format!(
            "{} on port {} serves another certificate than the one on disk",
            served.service, served.port
        ))
    })
}
