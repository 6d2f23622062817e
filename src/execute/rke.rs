//! rke rotates: what it says is told line by line, its time is bounded, and what it leaves out is named.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::rotate::in_words;
use super::state::on_bastion;
use super::step::{Turn, poll_interval};
use super::verify::not_served;
use super::{Execution, Fault, StepError};
use crate::event::Outcome;
use crate::facts::{Observation, RkeLine, hint_of_rke};
use crate::inventory::Node;
use crate::pki::Service;
use crate::plan::{Action, CertificateBefore, RkeState, is_control_plane_or_etcd};
use crate::workstation::{RkeCall, RkeEnd, StateFile, keep, run_rke, version_of};

/// How many lines of rke's are told; beyond them only complaints are. A node takes some 20.
const LINES_TOLD: usize = 4000;

/// How many of its last lines the way out is looked for in.
const LAST_LINES: usize = 20;

/// How many of its last words stand in the error of a step.
const LAST_WORDS: usize = 3;

/// How often it is looked whether the lock is still the run's.
const LEASE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a port may be silent before that is taken for what rke left behind: a component that restarts needs less.
const SILENCE: Duration = Duration::from_secs(60);

/// What rke has said.
#[derive(Default)]
struct Said {
    told: usize,
    last: Vec<RkeLine>,
    /// The hosts that it goes on without.
    skipped: Vec<String>,
    /// Why it cannot reach hosts, by address.
    causes: Vec<(String, String)>,
}

impl Said {
    /// Takes a line in, and says whether it is told.
    fn hear(&mut self, line: &RkeLine) -> bool {
        self.skipped.extend(line.skipped_host().map(str::to_owned));
        self.causes
            .extend(line.unreached_host().map(|(address, cause)| (address.to_owned(), cause.to_owned())));
        if self.last.len() == LAST_LINES {
            self.last.remove(0);
        }
        self.last.push(line.clone());
        let is_told = self.told < LINES_TOLD || (line.is_complaint() && self.told < 2 * LINES_TOLD);
        self.told += usize::from(is_told);
        is_told
    }

    /// Returns its last words: complaints, where it has any.
    fn last_words(&self) -> String {
        let complaints = self.last.iter().filter(|line| matches!(line.level.as_str(), "error" | "fatal"));
        let complaints: Vec<&str> = complaints.map(|line| line.text.as_str()).collect();
        let all: Vec<&str> = self.last.iter().map(|line| line.text.as_str()).collect();
        let words = if complaints.is_empty() { all } else { complaints };
        match words.get(words.len().saturating_sub(LAST_WORDS)..).unwrap_or_default() {
            [] => "it said nothing".to_owned(),
            words => words.join("; "),
        }
    }
}

impl Execution<'_> {
    /// Keeps copies of the bastion's files that rke is about to write to.
    pub(super) fn keep_bastion_files(&self, paths: &[String]) -> Result<Outcome, StepError> {
        let mut kept = Vec::new();
        for path in paths {
            let copy = keep(Path::new(path), &self.run.holder.run).map_err(|error| on_bastion(&error))?;
            kept.extend(copy.map(|copy| format!("`{}`", copy.as_path().display())));
        }
        // That there was nothing is an outcome too: what lies there afterwards is the run's.
        let message = match kept.as_slice() {
            [] => "nothing to keep: rke has left no files beside the cluster.yml".to_owned(),
            kept => format!("kept as {}", kept.join(" and ")),
        };
        Ok(Outcome::Done { message })
    }

    /// Has rke rotate, and waits until it ends.
    pub(super) async fn rotate_by_rke(&self, turn: Turn<'_>) -> Result<Outcome, StepError> {
        let Action::RotateByRke { program, version, arguments, folder, files, state, timeout } =
            &turn.step.action
        else {
            return Err(StepError::new("this step has nothing for rke to do"));
        };
        let began = Instant::now();
        if let Some(outcome) = self.rotated_by_rke_before(turn, began + *timeout).await? {
            return Ok(outcome);
        }
        let program = Path::new(program);
        let hint = "name the one that was planned with, or make a new plan";
        let found = version_of(program).await.map_err(|cause| {
            StepError::new(format!("`{}` does not say its version: {cause}", program.display())).hint(hint)
        })?;
        if found.as_str() != version {
            let error = format!("`{}` is {found} by now, and {version} was planned", program.display());
            return Err(StepError::new(error).hint(hint));
        }
        self.refuse_other_state(files, *state)?;
        let call = RkeCall { program, arguments, folder: Path::new(folder), limit: *timeout };
        let mut said = Said::default();
        let tell = |line: &str| {
            let line = RkeLine::parse(line);
            if !line.text.is_empty() && said.hear(&line) {
                let level = if line.is_complaint() { format!("{}: ", line.level) } else { String::new() };
                self.progress(turn, format!("rke: {level}{}", line.text));
            }
        };
        let end = run_rke(&call, tell, self.until_lock_is_lost()).await.map_err(|error| {
            StepError::new(format!("`{}` cannot be run: {error}", program.display())).hint(hint)
        })?;
        self.judge(end, &said, *timeout)?;
        let left_out = self.left_out_by_rke(&said)?;
        let seconds = began.elapsed().as_secs();
        Ok(Outcome::Done { message: format!("rke is done after {seconds} s{left_out}") })
    }

    /// Looks at the state that rke is about to believe: since the plan was made, or in a try that broke off, it may have become another.
    fn refuse_other_state(&self, files: &[String], planned: RkeState) -> Result<(), StepError> {
        let path = files.iter().find(|path| path.ends_with(".rkestate"));
        let Some(path) = path.filter(|_| planned != RkeState::Unread) else { return Ok(()) };
        let found = StateFile::open(path.into()).map_err(|error| on_bastion(&error))?;
        let error = match found.map(|found| found.summary().authority) {
            None if planned == RkeState::Absent => return Ok(()),
            None => "is not there any more",
            Some(None) => "holds no kube-ca",
            Some(authority) if authority == self.run.plan.kube_ca => return Ok(()),
            Some(Some(_)) => "is of another CA than the nodes",
        };
        Err(StepError::new(format!("`{path}` {error}: rke was not run"))
            .hint("make a new plan, which says what it takes; where the right one is put there, `certroll apply --resume` goes on"))
    }

    /// Returns when another run has the lock: two that write certificates are worse than one that breaks off.
    async fn until_lock_is_lost(&self) {
        while self.lease.lost().is_none() {
            tokio::time::sleep(LEASE_INTERVAL).await;
        }
    }

    /// Says whether an earlier try has had rke rotate to the end: every certificate is another one, and etcd and the control plane
    /// run on them. What broke off in between is done once more.
    async fn rotated_by_rke_before(
        &self,
        turn: Turn<'_>,
        deadline: Instant,
    ) -> Result<Option<Outcome>, StepError> {
        if !self.has_begun_before(turn) {
            return Ok(None);
        }
        let before = self.rotated_by(None);
        if before.is_empty() || !self.is_rotated(turn, &before, deadline).await? {
            return Ok(None);
        }
        if let Some(reason) = self.not_restarted_by_rke(turn, &before, deadline).await? {
            self.progress(
                turn,
                format!("rke broke off before it had restarted everything ({reason}): once more"),
            );
            return Ok(None);
        }
        let message = "rke has rotated: every certificate is another one than before, and in use".to_owned();
        Ok(Some(Outcome::Done { message }))
    }

    /// Says which component of etcd or the control plane runs on other files than those on disk. A port that is silent tells nothing
    /// yet: to have rke rotate once more restarts the whole cluster.
    async fn not_restarted_by_rke(
        &self,
        turn: Turn<'_>,
        before: &[CertificateBefore],
        deadline: Instant,
    ) -> Result<Option<String>, StepError> {
        let inventory = self.run.gatherer.inventory();
        let is_meant = |node: &&Node| before.iter().any(|certificate| certificate.node == node.name);
        let nodes: Vec<&Node> = inventory.nodes.iter().filter(is_meant).collect();
        let patience = deadline.min(Instant::now() + SILENCE);
        loop {
            let facts = self.run.gatherer.gather(&nodes, |_| {}).await;
            let mut silent = None;
            for (node, seen) in facts.seen() {
                match use_of(seen) {
                    Use::New => {}
                    Use::Old(reason) => return Ok(Some(format!("{}: {reason}", node.name))),
                    Use::Silent(reason) => silent = Some(format!("{}: {reason}", node.name)),
                }
            }
            let Some(reason) = silent else { return Ok(None) };
            if Instant::now() >= patience {
                return Ok(Some(reason));
            }
            if let Some(reason) = self.why_waits_end() {
                return Err(StepError::new(reason));
            }
            self.progress(turn, format!("looking again whether rke has restarted everything: {reason}"));
            self.run.operator.wait_unless_cancelled(poll_interval(SILENCE)).await;
        }
    }

    /// Says how a run of rke's failed that did not end well.
    fn judge(&self, end: RkeEnd, said: &Said, timeout: Duration) -> Result<(), StepError> {
        let words = said.last_words();
        let unclear =
            "it may have written certificates already: `certroll apply --resume` looks first what stands";
        let (error, hint) = match end {
            RkeEnd::Exited(0) => return Ok(()),
            RkeEnd::Exited(status) => {
                (format!("rke ended with status {status}: {words}"), hint_of_rke(&said.last))
            }
            RkeEnd::Killed(signal) => {
                (format!("rke was ended by signal {signal}; its last words: {words}"), unclear)
            }
            RkeEnd::TookTooLong => {
                let limit = in_words(timeout);
                (format!("rke did not end within {limit}, and was ended; its last words: {words}"), unclear)
            }
            RkeEnd::Stopped => {
                let reason = self.why_waits_end().unwrap_or_default();
                (format!("rke was ended: {reason}; its last words: {words}"), unclear)
            }
        };
        Err(StepError { error, hint: Some(hint.to_owned()), fault: Fault::Lasting })
    }

    /// Names the nodes that rke went on without, although it says that all is well. Without one of etcd or the control plane it was no
    /// rotation; workers are found out by what lies on them.
    fn left_out_by_rke(&self, said: &Said) -> Result<String, StepError> {
        let inventory = self.run.gatherer.inventory();
        let cause = |address: &str| {
            let found = said.causes.iter().find(|(of, _)| of == address);
            found.map(|(_, cause)| format!(" ({cause})")).unwrap_or_default()
        };
        let mut names = Vec::new();
        let mut is_needed = false;
        for address in &said.skipped {
            let node = inventory.nodes.iter().find(|node| node.address == *address);
            let name = node.map_or(address.as_str(), |node| node.name.as_str());
            // What the run does without anyway is known.
            is_needed |= node.is_some_and(|node| {
                is_control_plane_or_etcd(&node.roles) && self.why_away(&node.name).is_none()
            });
            names.push(format!("{name}{}", cause(address)));
        }
        if names.is_empty() {
            return Ok(String::new());
        }
        let names = names.join(", ");
        if is_needed {
            return Err(StepError::new(format!(
                "rke ended with status 0 and left out nodes of etcd or the control plane: {names}"
            ))
            .hint(
                "they have the old certificates, the others new ones of the same CA: put right how rke logs in there, then `certroll apply \
                 --resume` has it rotate once more",
            ));
        }
        Ok(format!(", and left out {names}"))
    }
}

/// What etcd and the control plane of a node use.
#[derive(Debug, PartialEq, Eq)]
enum Use {
    /// What lies on disk.
    New,
    /// Something else, and why that is known.
    Old(String),
    /// There is no telling yet: a port serves no certificate, and nothing else is wrong.
    Silent(String),
}

/// Tells what etcd and the control plane of a node use.
fn use_of(seen: &Observation) -> Use {
    let mut served = seen.served.iter().filter(|served| served.service != Service::Kubelet);
    let serves_another = served.any(|served| served.matches_disk == Some(false));
    match (stale_component(seen), not_served(seen)) {
        (Some(reason), _) => Use::Old(reason),
        (None, Ok(())) => Use::New,
        (None, Err(reason)) if serves_another => Use::Old(reason),
        (None, Err(reason)) => Use::Silent(reason),
    }
}

/// Returns a component of etcd or the control plane that started before its files were written. Kubelets and proxies have a stage of
/// their own.
fn stale_component(seen: &Observation) -> Option<String> {
    let has_own_stage =
        |name: &str| [Service::Kubelet, Service::KubeProxy].iter().any(|service| service.as_str() == name);
    let mut containers = seen.containers.iter().filter(|container| !has_own_stage(&container.name));
    let stale = containers.find(|container| seen.is_stale(container))?;
    Some(format!("{} started before its certificate was written", stale.name))
}
