//! New files on a node: laid aside, put into place, and the components restarted onto them, each behind its gate.

use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::files::{Parcel, pack, unpack};
use super::recognition::Standing;
use super::step::{Place, poll_interval};
use super::{Execution, StepError};
use crate::command::{Command, quote};
use crate::event::Outcome;
use crate::facts::probe::etcd_endpoint;
use crate::facts::{File, Observation};
use crate::inventory::NodeName;
use crate::kube::{ApiServer, etcd_health};
use crate::pki::{Location, Service};
use crate::plan::{Gate, Half, NewFile, is_as_planned};

/// What is so when a node cannot be given its files.
const UNTOUCHED: &str = "nothing was switched or restarted on any node: put this node right (space, a file system that can be written to), then apply again";

/// What a node's turn consists of.
pub(super) struct Change<'a> {
    pub(super) retired: &'a [String],
    pub(super) containers: &'a [String],
    pub(super) gate: &'a Gate,
    pub(super) timeout: Duration,
}

impl Execution<'_> {
    /// Lays new files aside on a node, and compares what lies there with what was sent.
    pub(super) async fn lay_aside(&self, place: &Place<'_>, files: &[NewFile]) -> Result<Outcome, StepError> {
        if self.issuance.so_far().is_none() {
            self.progress(place.turn, "waiting for the new certificates");
        }
        let issued = self.issued().await?;
        let parcels = files.iter().map(|file| {
            let pair = issued.pair(&file.certificate)?;
            let content = match (file.half, &pair.key_pem) {
                (Half::Certificate, _) => pair.certificate.to_pem().into_bytes(),
                (Half::Key, Some(key)) => key.as_bytes().to_vec(),
                (Half::Key, None) => {
                    return Err(StepError::new(format!("the key of {} stays where it is", file.certificate)));
                }
            };
            Ok((file.path.clone(), Zeroizing::new(content)))
        });
        let parcels = parcels.collect::<Result<Vec<Parcel>, StepError>>()?;
        let archive =
            pack(&parcels, self.run.clock.now()).map_err(|error| StepError::new(error.to_string()))?;
        let command = place.turn.step.action.commands(place.planned).into_iter().next();
        let command = command.ok_or_else(|| StepError::new("the step has no command"))?;
        let output = self.output_of(place, command.with_stdin(archive)).await.map_err(|error| StepError {
            hint: error.hint.or_else(|| Some(UNTOUCHED.to_owned())),
            ..error
        })?;
        let found = unpack(&output.stdout)
            .map_err(|error| StepError::new(format!("what was laid aside cannot be read back: {error}")))?;
        // `tar -cf - .` names everything from `./` on.
        let is_same = |(path, content): &Parcel| {
            found.iter().any(|(name, back)| name.strip_prefix("/./") == Some(path) && back == content)
        };
        if let Some((path, _)) = parcels.iter().find(|parcel| !is_same(parcel)) {
            return Err(StepError::new(format!("`{path}` was laid aside, but another content is read back"))
                .hint("is the disk full or failing? nothing is switched anywhere"));
        }
        Ok(Outcome::Done { message: format!("{} files laid aside and read back", parcels.len()) })
    }

    /// Puts a node's files into place, and restarts what uses them.
    pub(super) async fn switch(&self, place: &Place<'_>, change: &Change<'_>) -> Result<Outcome, StepError> {
        if let Standing::Files(seen) = self.standing(place, change).await? {
            let restarted = self.complete_switch(place, change, *seen).await?;
            if !change.retired.is_empty() {
                self.wait_for_serving_pair(place, change.timeout).await?;
            }
            return Ok(match restarted.as_slice() {
                [] => Outcome::Unneeded { message: "switched by this run already, and healthy".to_owned() },
                names => Outcome::Done {
                    message: format!(
                        "switched by this run already; {} restarted and healthy",
                        names.join(", ")
                    ),
                },
            });
        }
        // What is well already is not taken away for the rest of its files.
        let containers = if self.lives_on_new_files(place, change).await? {
            &[]
        } else {
            self.wait_for_gate(place, change, place.planned).await?;
            change.containers
        };
        let mut commands = place.turn.step.action.commands(place.planned).into_iter();
        let files = commands.next().ok_or_else(|| StepError::new("the step has no command"))?;
        let printed = self.run_command(place, files).await?;
        for (container, restart) in containers.iter().zip(commands) {
            self.progress(place.turn, format!("restarting {container}"));
            self.run_command(place, restart).await?;
            self.wait_until_healthy(place, container, change.timeout).await?;
        }
        if !change.retired.is_empty() {
            self.wait_for_serving_pair(place, change.timeout).await?;
        }
        let switched = printed.lines().filter(|line| line.starts_with("switched ")).count();
        let restarted = match containers {
            [] => "nothing to restart".to_owned(),
            names => format!("{} restarted and healthy", names.join(", ")),
        };
        Ok(Outcome::Done { message: format!("{switched} files switched; {restarted}") })
    }

    /// Waits until everything is well that must be, before this step takes a component away.
    ///
    /// A member of etcd that is ill on its new files is not asked about itself: its restart takes nothing away.
    pub(super) async fn wait_for_gate(
        &self,
        place: &Place<'_>,
        change: &Change<'_>,
        seen: &Observation,
    ) -> Result<(), StepError> {
        let is_own = |member: &&NodeName| **member == place.node.name;
        let is_ill = seen.health_of(Service::Etcd).is_some_and(|health| health.healthy == Some(false));
        let began = Instant::now();
        loop {
            let opened = match change.gate {
                Gate::Open => Ok(()),
                Gate::NoQuorum { .. } if is_ill && self.has_begun_before(place.turn) => Ok(()),
                Gate::NoQuorum { members } => {
                    self.etcd_has_no_quorum(members).await?;
                    Ok(())
                }
                Gate::Etcd { members } if is_ill && self.has_begun_before(place.turn) => {
                    let others: Vec<NodeName> =
                        members.iter().filter(|member| !is_own(member)).cloned().collect();
                    self.etcd_is_well(&others, &place.node.name).await
                }
                Gate::Etcd { members } => self.etcd_is_well(members, &place.node.name).await,
                Gate::ApiServers { nodes } => self.api_servers_answer(nodes).await,
            };
            let Err(reason) = opened else { return Ok(()) };
            if self.run.operator.is_cancelled() {
                return Err(StepError::new("the operator stopped the run; nothing was switched here"));
            }
            if began.elapsed() >= change.timeout {
                return Err(StepError::new(format!(
                    "nothing was switched here: {reason}, after {} s",
                    began.elapsed().as_secs()
                ))
                .hint("put that node right first, then plan again: what is done stays done"));
            }
            self.progress(place.turn, format!("waiting before the switch: {reason}"));
            self.run.operator.wait_unless_cancelled(poll_interval(change.timeout)).await;
        }
    }

    /// Makes sure that no member is healthy: what looked dead for a moment when the plan was made may be alive.
    async fn etcd_has_no_quorum(&self, members: &[NodeName]) -> Result<(), StepError> {
        let issued = self.issued().await?;
        let asked = members.iter().map(|member| async move {
            let peer = self.peer(member).await.ok()?;
            let health = etcd_health(&peer.session, &issued.identity, &peer.node.internal_address);
            (health.await.ok() == Some(true)).then_some(member)
        });
        match futures::future::join_all(asked).await.into_iter().flatten().next() {
            None => Ok(()),
            Some(member) => Err(StepError::new(format!(
                "nothing was switched here: etcd on {member} is healthy after all, and has a quorum to lose"
            ))
            .hint("plan again: members then go one at a time")),
        }
    }

    /// Returns whether every member says that it is healthy, and all name the same members. One that the run has to do without is
    /// down: those that say so must then be a quorum without the one that is restarted, for of any other nothing is known.
    async fn etcd_is_well(&self, members: &[NodeName], restarted: &NodeName) -> Result<(), String> {
        let expected = self.run.gatherer.inventory().with_role(crate::inventory::Role::Etcd).count();
        let (away, there): (Vec<&NodeName>, Vec<&NodeName>) =
            members.iter().partition(|member| self.why_away(member).is_some());
        let staying = there.iter().filter(|member| **member != restarted).count();
        if let Some(first) = away.first()
            && staying < expected / 2 + 1
        {
            return Err(format!(
                "etcd on {first} cannot be asked, and without it a restart loses the quorum"
            ));
        }
        let answers = futures::future::join_all(there.iter().map(|member| self.ask_member(member))).await;
        let lists = answers.into_iter().collect::<Result<Vec<Vec<String>>, String>>()?;
        for (list, member) in lists.iter().zip(there) {
            if list.len() != expected {
                return Err(format!(
                    "etcd on {member} names {} members, cluster.yml has {expected}",
                    list.len()
                ));
            }
            if Some(list) != lists.first() {
                return Err(format!("etcd on {member} names other members than the rest"));
            }
        }
        Ok(())
    }

    /// Asks a member for its health and for the members that it knows.
    async fn ask_member(&self, member: &NodeName) -> Result<Vec<String>, String> {
        let issued = self.issued().await.map_err(|error| error.error)?;
        let peer = self.peer(member).await.map_err(|error| format!("{member}: {}", error.error))?;
        let host = peer.node.internal_address.as_str();
        let list = Command::new(format!(
            "docker exec -e ETCDCTL_API=3 -e ETCDCTL_ENDPOINTS={} etcd etcdctl --dial-timeout=2s --command-timeout=3s member list",
            quote(&etcd_endpoint(host))
        ));
        let (health, output) = futures::future::join(
            etcd_health(&peer.session, &issued.identity, host),
            peer.session.run(&list, &peer.planned.access, &peer.node.docker_socket),
        )
        .await;
        if !health.map_err(|error| format!("etcd on {member}: {}", super::chain(&error)))? {
            return Err(format!("etcd on {member} is not healthy"));
        }
        let output = output.map_err(|error| format!("{member}: {error}"))?;
        if !output.succeeded() {
            return Err(format!("etcd on {member} does not name its members: {}", output.stderr_text()));
        }
        members_of(&output.stdout_text()).map_err(|error| format!("etcd on {member}: {error}"))
    }

    /// Returns whether the API servers of some nodes answer; what the run has to do without is down already.
    async fn api_servers_answer(&self, nodes: &[NodeName]) -> Result<(), String> {
        let issued = self.issued().await.map_err(|error| error.error)?;
        let there = nodes.iter().filter(|node| self.why_away(node).is_none());
        let asked = there.map(|name| async move {
            let peer = self.peer(name).await.map_err(|error| format!("{name}: {}", error.error))?;
            super::answers_well(&ApiServer::new(&peer.session, &issued.identity))
                .await
                .map_err(|reason| format!("kube-apiserver on {name}: {reason}"))
        });
        futures::future::join_all(asked).await.into_iter().collect()
    }

    /// Waits until the kubelet has made a new serving pair, and serves it.
    async fn wait_for_serving_pair(&self, place: &Place<'_>, timeout: Duration) -> Result<(), StepError> {
        let is_old = |file: &File| is_as_planned(&self.run.plan, &place.node.name, file);
        let began = Instant::now();
        loop {
            let observation = self.look_again(place).await?;
            let new = observation.certificate_file(Location::KubeletPki, "kubelet");
            let served = observation.served.iter().find(|served| served.service == Service::Kubelet);
            let is_served = served.is_none_or(|served| served.matches_disk == Some(true));
            if new.is_some_and(|file| file.certificate_name().is_some() && !is_old(file)) && is_served {
                return Ok(());
            }
            if began.elapsed() >= timeout {
                return Err(StepError::new("the kubelet has made no new serving pair")
                    .hint("look at `docker logs kubelet`; the old pair lies in `.certroll/<run>/retired`"));
            }
            self.progress(place.turn, "waiting for the kubelet's new serving pair");
            tokio::time::sleep(poll_interval(timeout)).await;
        }
    }
}

/// Reads etcdctl's list of members: `id, status, name, peer URLs, client URLs[, is learner]`, a line each.
fn members_of(text: &str) -> Result<Vec<String>, String> {
    let mut members = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut columns = line.split(", ");
        let (Some(id), Some(status)) = (columns.next(), columns.next()) else {
            return Err(format!("its list of members cannot be read: {line}"));
        };
        if status != "started" {
            return Err(format!("its member {id} is {status}"));
        }
        members.push(id.to_owned());
    }
    members.sort();
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::members_of;

    #[test]
    fn members_are_told_by_etcdctl_3_2_to_3_5() {
        let old = "2f2, started, etcd-a, https://10.0.0.2:2380, https://10.0.0.2:2379\n1e1, started, etcd-b, https://10.0.0.1:2380, https://10.0.0.1:2379\n";
        assert_eq!(members_of(old).unwrap(), ["1e1", "2f2"]);
        let new = "1e1, started, etcd-b, https://10.0.0.1:2380, https://10.0.0.1:2379, false\n";
        assert_eq!(members_of(new).unwrap(), ["1e1"]);
    }

    #[test]
    fn a_member_that_never_started_is_no_member() {
        let told = members_of("2f2, unstarted, , https://10.0.0.2:2380, \n");
        assert_eq!(told.unwrap_err(), "its member 2f2 is unstarted");
        assert!(members_of("etcd: command not found").is_err());
    }
}
