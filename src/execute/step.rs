use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;

use super::restore::Return;
use super::switch::Change;
use super::{Execution, Fault, StepError};
use crate::command::{Command, Output};
use crate::event::{EventKind, Outcome};
use crate::facts::Observation;
use crate::inventory::{Node, NodeName};
use crate::plan::{
    Action, RUN_VARIABLE, StageName, Step, clock_blocker, is_control_plane_or_etcd, moved_on_node,
    node_blockers,
};
use crate::transport::Session;
use tokio::time::Instant;

/// The connection that the steps of one node share, made when the first of them needs it.
#[derive(Default)]
pub(super) struct Seat {
    session: Option<Session>,
}

impl Seat {
    /// Closes the connection, if there is one.
    pub(super) async fn close(self) {
        if let Some(session) = self.session {
            session.close().await;
        }
    }
}

/// A step whose turn it is, in its stage.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) stage: StageName,
    pub(super) step: &'a Step,
    /// Which try of this attempt it is; the first one is 1.
    pub(super) number: u32,
}

/// A step with what it needs of its node.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) turn: Turn<'a>,
    pub(super) node: &'a Node,
    /// What was seen when the plan was made: directory and access.
    pub(super) planned: &'a Observation,
    pub(super) session: &'a Session,
}

/// A node that is asked while another one has its turn.
pub(super) struct Peer<'a> {
    pub(super) node: &'a Node,
    pub(super) planned: &'a Observation,
    pub(super) session: Session,
}

/// The connections to peers, one a node, kept until the run ends.
#[derive(Default)]
pub(super) struct Peers {
    places: Mutex<HashMap<NodeName, Arc<Mutex<Seat>>>>,
}

impl Peers {
    /// Closes all connections.
    pub(super) async fn close(&self) {
        for (_, place) in self.places.lock().await.drain() {
            std::mem::take(&mut *place.lock().await).close().await;
        }
    }
}

impl Execution<'_> {
    /// Returns a node with a connection to it, made anew where there is none or it has dropped.
    pub(super) async fn peer(&self, name: &NodeName) -> Result<Peer<'_>, StepError> {
        let node = self.run.gatherer.inventory().node(name);
        let planned = self.run.facts.node(name).and_then(|node| node.observation());
        let (Some(node), Some(planned)) = (node, planned) else {
            return Err(StepError::new("the node was not seen"));
        };
        // Each node has a place of its own: who asks another one does not wait while this one is reached.
        let place = Arc::clone(self.peers.places.lock().await.entry(name.clone()).or_default());
        let mut known = place.lock().await;
        let session = self.session(node, &mut known).await?;
        Ok(Peer { node, planned, session })
    }

    /// Does what a step says.
    pub(super) async fn perform(&self, turn: Turn<'_>, seat: &mut Seat) -> Result<Outcome, StepError> {
        let step = turn.step;
        if let Some(outcome) = self.built_upon(turn) {
            return Ok(outcome);
        }
        let rotated = match &step.action {
            Action::RotateByRancher { cluster_id, service, timeout, .. } => {
                Some(Box::pin(self.rotate_by_rancher(turn, cluster_id, *service, *timeout)).await)
            }
            Action::RotateByRke { .. } => Some(Box::pin(self.rotate_by_rke(turn)).await),
            Action::RotateByOperator { instructions, timeout, before } => {
                Some(Box::pin(self.rotate_by_operator(turn, instructions, *timeout, before)).await)
            }
            _ => None,
        };
        if let Some(result) = rotated {
            if result.is_ok() {
                // One call a service: agents begin anew with what the last of them has made.
                *self.rotated_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            return result;
        }
        match &step.action {
            Action::KeepBastionFiles { paths } => return self.keep_bastion_files(paths),
            Action::UpdateClusterState { nodes, names } => {
                return Box::pin(self.update_cluster_state(turn, nodes, names)).await;
            }
            Action::UpdateStateFile { path, names } => {
                return Box::pin(self.update_state_file(path, names)).await;
            }
            Action::UpdateKubeConfig { path, server } => {
                return Box::pin(self.update_kube_config(path, server)).await;
            }
            Action::RestoreClusterState { nodes, run, kept, names } => {
                return Box::pin(self.restore_cluster_state(turn, nodes, (run, kept), names)).await;
            }
            Action::RestoreBastionFile { path, copy } => {
                return self.restore_bastion_file(path, copy.as_deref());
            }
            _ => {}
        }
        let inventory = self.run.gatherer.inventory();
        let node = step.node.as_ref().and_then(|name| inventory.node(name));
        let planned = step.node.as_ref().and_then(|name| self.run.facts.node(name)?.observation());
        let (Some(node), Some(planned)) = (node, planned) else {
            return Err(StepError::new("the node of this step was not seen"));
        };
        // Control plane and etcd nodes are asked in every stage: their connections are kept until the run ends.
        let session = if is_control_plane_or_etcd(&node.roles) {
            self.peer(&node.name).await?.session
        } else {
            self.session(node, seat).await?
        };
        let place = Place { turn, node, planned, session: &session };
        Box::pin(self.perform_on_node(&place)).await
    }

    async fn perform_on_node(&self, place: &Place<'_>) -> Result<Outcome, StepError> {
        match &place.turn.step.action {
            Action::Preflight => self.preflight(place).await,
            Action::Backup => {
                self.run_commands(place, None).await?;
                let folder =
                    format!("{}/.certroll/{}", place.planned.kubernetes_directory, self.run.holder.run);
                Ok(Outcome::Done { message: format!("saved and compared: {folder}/backup.tar") })
            }
            Action::CopyFiles { .. } => self.copy_files(place).await,
            Action::BringFiles { from, copies, .. } => self.bring_files(place, from, copies).await,
            Action::AddKubeAdmin { source, .. } => self.add_kube_admin(place, source).await,
            Action::Confirm { before, timeout } => self.confirm(place, before, *timeout).await,
            Action::Restart { containers, guard, timeout } => {
                self.restart(place, containers, guard, *timeout).await
            }
            Action::RestartAgent { container } => {
                if self.has_begun_before(place.turn)
                    && self.is_started_by_run(&self.look_again(place).await?, container)
                {
                    return Ok(Outcome::Unneeded {
                        message: format!("{container} was restarted by this run"),
                    });
                }
                self.run_commands(place, None).await?;
                Ok(Outcome::Done { message: format!("{container} restarted") })
            }
            Action::ClearStaging { .. } => {
                self.run_commands(place, None).await?;
                Ok(Outcome::Done { message: "what was laid aside is gone".to_owned() })
            }
            Action::Verify { before, timeout } => self.verify(place, before, *timeout).await,
            Action::LayAside { files } => self.lay_aside(place, files).await,
            Action::Switch { retired, containers, gate, timeout, .. } => {
                self.switch(place, &Change { retired, containers, gate, timeout: *timeout }).await
            }
            Action::Restore { wanted, containers, gate, health, timeout } => {
                let change = Change { retired: &wanted.retired, containers, gate, timeout: *timeout };
                self.restore(place, &Return { wanted, change, health: *health }).await
            }
            Action::VerifyRestored { wanted, containers, health, timeout } => {
                self.verify_restored(place, wanted, containers, (*health, *timeout)).await
            }
            Action::Prove { names, timeout } => self.prove(place, names, *timeout).await,
            Action::RotateByRancher { .. }
            | Action::RotateByRke { .. }
            | Action::RotateByOperator { .. }
            | Action::KeepBastionFiles { .. }
            | Action::UpdateClusterState { .. }
            | Action::UpdateStateFile { .. }
            | Action::UpdateKubeConfig { .. }
            | Action::RestoreClusterState { .. }
            | Action::RestoreBastionFile { .. } => Err(StepError::new("this is not a step of one node")),
        }
    }

    /// Returns the node's connection, made anew where there is none or it has dropped.
    pub(super) async fn session(&self, node: &Node, seat: &mut Seat) -> Result<Session, StepError> {
        if let Some(session) = seat.session.as_ref().filter(|session| !session.is_closed()) {
            return Ok(session.clone());
        }
        let session =
            self.run.gatherer.connect(node).await.map_err(|error| StepError::of_transport(&error))?;
        seat.session = Some(session.clone());
        Ok(session)
    }

    /// Returns the connection of a step, or a new one where it has dropped meanwhile.
    pub(super) async fn live_session(&self, place: &Place<'_>) -> Result<Session, StepError> {
        if place.session.is_closed() {
            Ok(self.peer(&place.node.name).await?.session)
        } else {
            Ok(place.session.clone())
        }
    }

    /// Looks at the node again: what the plan was made from must still be so.
    async fn preflight(&self, place: &Place<'_>) -> Result<Outcome, StepError> {
        let observation = self.observe(place).await?;
        let (plan, now) = (&self.run.plan, self.run.clock.now());
        let mut blockers = node_blockers(&observation, plan.procedure, now);
        blockers.extend(clock_blocker(plan, &observation, now));
        if let Some(blocker) = blockers.into_iter().next() {
            return Err(StepError { hint: blocker.hint, ..StepError::new(blocker.message) });
        }
        let trail = self.earlier.trail(&self.run.plan);
        let moved = moved_on_node(&self.run.plan, place.node, &observation, &trail);
        if !moved.is_empty() {
            return Err(StepError::new(format!("changed since the plan was made: {}", moved.join(", ")))
                .hint("make a new plan"));
        }
        Ok(Outcome::Done { message: "as it was when the plan was made".to_owned() })
    }

    /// Looks at the node of a step.
    pub(super) async fn observe(&self, place: &Place<'_>) -> Result<Observation, StepError> {
        self.run.gatherer.observe(place.node, place.session).await.map_err(|unseen| StepError {
            hint: unseen.hint,
            fault: if place.session.is_closed() { Fault::Passing } else { Fault::Lasting },
            ..StepError::new(unseen.error)
        })
    }

    /// Runs the commands of a step's action, the first of them with a standard input, and returns what they printed.
    pub(super) async fn run_commands(
        &self,
        place: &Place<'_>,
        stdin: Option<zeroize::Zeroizing<Vec<u8>>>,
    ) -> Result<String, StepError> {
        let mut printed = String::new();
        let mut stdin = stdin;
        for command in place.turn.step.action.commands(place.planned) {
            let command = match stdin.take() {
                Some(stdin) => command.with_stdin(stdin),
                None => command,
            };
            printed.push_str(&self.run_command(place, command).await?);
        }
        Ok(printed)
    }

    /// Runs one command as root on the node of a step, and returns what it printed.
    pub(super) async fn run_command(&self, place: &Place<'_>, command: Command) -> Result<String, StepError> {
        Ok(self.output_of(place, command).await?.stdout_text().into_owned())
    }

    /// Runs one command as root on the node of a step, with the run's name in its environment; it must end well.
    pub(super) async fn output_of(&self, place: &Place<'_>, command: Command) -> Result<Output, StepError> {
        let script = format!("{RUN_VARIABLE}={}\n{}", self.run.holder.run, command.script);
        let command = Command { script, ..command };
        let output = place
            .session
            .run(&command, &place.planned.access, &place.node.docker_socket)
            .await
            .map_err(|error| StepError::of_transport(&error))?;
        if output.succeeded() {
            return Ok(output);
        }
        let status = output.status.map_or("no status".to_owned(), |status| format!("status {status}"));
        let said = output.stderr_text();
        let last =
            said.lines().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("; ");
        Err(StepError::new(format!("the command ended with {status}: {last}")))
    }

    /// Says what a step does now.
    pub(super) fn progress(&self, turn: Turn<'_>, message: impl Into<String>) {
        let kind = EventKind::StepProgress {
            stage: turn.stage,
            step: turn.step.id.clone(),
            node: turn.step.node.clone(),
            message: message.into(),
        };
        // Progress may be lost; a journal that cannot be written shows at the next lifecycle event.
        let _ = self.recorder.record(kind);
    }
}

/// Returns how long to wait between two looks of a wait: short waits are looked at more often.
pub(super) fn poll_interval(limit: Duration) -> Duration {
    (limit / 40).clamp(Duration::from_millis(250), Duration::from_secs(5))
}
