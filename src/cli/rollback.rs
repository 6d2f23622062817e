use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use jiff::SignedDuration;

use super::apply::offer;
use super::arguments::RollbackArguments;
use super::backups::{Answer, Wish};
use super::check::look;
use super::failure::{FAILED, Failure, REFUSED, USAGE};
use super::plan::{Planned, lock_to_break};
use super::settings::{Loaded, Settings};
use super::terminal::Terminal;
use crate::event::{Event, EventKind, Outcome, RunOutcome};
use crate::facts::probe::KeyReading;
use crate::facts::{BastionCopy, Facts};
use crate::gather::Gatherer;
use crate::journal::{ClusterFolder, JournalError, RecordedRun, find_run, read_events, read_runs};
use crate::plan::{
    Action, Majority, Objections, PLAN_VERSION, Plan, Policy, Procedure, RancherFiles, Renewal, StepId,
    Undoing, UndoneRun, check, rollback,
};
use crate::workstation::bastion_copy;

/// Plans the way back from a run, shows it, asks, and carries it out.
pub(super) async fn run(
    settings: &Settings,
    terminal: &Terminal,
    arguments: &RollbackArguments,
) -> Result<u8, Failure> {
    let answer = Answer::of(arguments.yes);
    let wish = if arguments.list { Some(Wish::List) } else { arguments.keep.map(Wish::Keep) };
    if let Some(wish) = wish {
        return Box::pin(super::backups::run(settings, terminal, wish, answer)).await;
    }
    let planned = make(settings, terminal, arguments).await?;
    offer(settings, terminal, planned, answer).await
}

/// Reads, looks and plans.
async fn make(
    settings: &Settings,
    terminal: &Terminal,
    arguments: &RollbackArguments,
) -> Result<Planned, Failure> {
    let loaded = settings.load()?;
    settings.warn(&loaded, terminal)?;
    let undone = undone_run(settings, terminal, &loaded, arguments.run.as_deref())?;
    let gatherer = settings.gatherer(&loaded.inventory, KeyReading::PublicPrefix)?;
    let nodes: Vec<_> = loaded.inventory.nodes.iter().collect();
    let facts = look(&gatherer, &nodes, terminal).await;
    let backups = gatherer.backups(&facts, Some(&undone.name)).await;
    let bastion = bastion_copies(&undone)?;
    let mut policy = policy(settings, &loaded, arguments);
    policy.break_lock =
        arguments.break_lock.as_deref().map(|part| lock_to_break(&facts, part)).transpose()?;
    let undoing = Undoing {
        run: &undone,
        backups: &backups,
        bastion: &bastion,
        objections: if arguments.force { Objections::Overruled } else { Objections::Respected },
        rancher_files: if arguments.restore_rancher_files {
            RancherFiles::Restored
        } else {
            RancherFiles::Left
        },
    };
    let mut plan = rollback(&loaded.inventory, &facts, &policy, &undoing);
    plan.deadline = arguments.deadline;
    plan.blockers.extend(check(&plan, &facts));
    plan.findings.extend(loaded.findings_for(terminal));
    Ok(planned((policy.break_lock, loaded), facts, gatherer, plan))
}

fn planned(
    (break_lock, loaded): (Option<String>, Loaded),
    facts: Facts,
    gatherer: Gatherer,
    plan: Plan,
) -> Planned {
    Planned { break_lock, loaded, facts, gatherer, rancher: None, plan }
}

fn policy(settings: &Settings, loaded: &Loaded, arguments: &RollbackArguments) -> Policy {
    Policy {
        procedure: Procedure::Rollback,
        via: None,
        services: Vec::new(),
        renew_within: SignedDuration::ZERO,
        renewal: if arguments.force { Renewal::All } else { Renewal::WhereNeeded },
        max_unavailable_worker: arguments.max_unavailable.unwrap_or(loaded.inventory.max_unavailable_worker),
        selected: loaded.selected.clone(),
        rancher: None,
        wait: Duration::ZERO,
        health_timeout: arguments.health_timeout,
        direct: None,
        rke: None,
        break_lock: None,
        majority: if arguments.without_majority { Majority::Waived } else { Majority::Needed },
        now: settings.clock.now(),
    }
}

/// A run with what its journal says of its steps, whatever attempt they were of.
struct Told {
    run: RecordedRun,
    began: BTreeSet<StepId>,
    done: BTreeSet<StepId>,
}

impl Told {
    fn of(run: RecordedRun) -> Result<Self, JournalError> {
        let events = read_events(&run.folder.join("journal.jsonl"))?;
        let (mut began, mut done) = (BTreeSet::new(), BTreeSet::new());
        for Event { kind, .. } in events {
            match kind {
                EventKind::StepStarted { step, .. } => _ = began.insert(step),
                EventKind::StepFinished { step, outcome: Outcome::Done { .. }, .. } => _ = done.insert(step),
                _ => {}
            }
        }
        Ok(Self { run, began, done })
    }

    fn name(&self) -> &str {
        &self.run.state.run
    }

    /// Returns whether anything can have been changed by it. Keys that it laid aside count: a rollback removes them.
    fn has_effects(&self) -> bool {
        let leaves_something =
            |action: &Action| action.changes_something() || matches!(action, Action::LayAside { .. });
        self.run.plan.steps().any(|step| leaves_something(&step.action) && self.began.contains(&step.id))
    }

    /// Returns the run that it has taken back, to the end.
    fn takes_back(&self) -> Option<&str> {
        let is_done = self.run.state.outcome == Some(RunOutcome::Done);
        self.run.plan.undoes.as_deref().filter(|_| is_done)
    }
}

/// Finds the run that is to be taken back: the one that is named, else the newest that changed something.
fn undone_run(
    settings: &Settings,
    terminal: &Terminal,
    loaded: &Loaded,
    part: Option<&str>,
) -> Result<UndoneRun, Failure> {
    let folders = ClusterFolder::of_cluster(&settings.state_folder, &loaded.inventory.cluster_name);
    let (runs, damaged) = read_runs(&folders);
    for error in damaged {
        terminal.tell(&format!("warning: a run is left out: {:#}", anyhow::Error::from(error)));
    }
    let told = |run| Told::of(run).map_err(|error| Failure::new(FAILED, error));
    let named = match part {
        Some(part) => Some(find_run(runs.clone(), part).map_err(|error| match error {
            JournalError::NoSuchRun(_) | JournalError::Ambiguous { .. } => {
                Failure::new(USAGE, error).hint("`certroll runs` lists them".to_owned())
            }
            error => Failure::new(FAILED, error),
        })?),
        None => None,
    };
    let mut all = runs.into_iter().map(told).collect::<Result<Vec<Told>, Failure>>()?;
    all.retain(Told::has_effects);
    let target = match named {
        Some(run) => told(run)?,
        None if all.is_empty() => {
            return Err(Failure::message(REFUSED, "no run of this cluster has changed anything")
                .hint("`certroll runs` lists those that are recorded on this machine".to_owned()));
        }
        None => all.remove(0),
    };
    let is_later = |told: &&Told| told.name() > target.name();
    let taken_back: Vec<&str> = all.iter().filter(is_later).filter_map(Told::takes_back).collect();
    let counts = |told: &&Told| {
        let undone_later = told.takes_back().is_some_and(|undone| undone > target.name());
        !taken_back.contains(&told.name()) && !undone_later
    };
    let later = all.iter().filter(is_later).filter(counts).map(|told| told.name().to_owned()).collect();
    if target.run.plan.version != PLAN_VERSION {
        let message = format!("run {} was planned by another version of certroll", target.name());
        return Err(Failure::usage(message));
    }
    Ok(UndoneRun {
        name: target.name().to_owned(),
        is_taken_back: taken_back.contains(&target.name()),
        plan: target.run.plan,
        began: target.began,
        done: target.done,
        later,
    })
}

/// Looks at what the run has kept of the bastion's files.
fn bastion_copies(undone: &UndoneRun) -> Result<Vec<BastionCopy>, Failure> {
    let paths = undone.plan.steps().flat_map(|step| match &step.action {
        Action::UpdateStateFile { path, .. }
        | Action::UpdateKubeConfig { path, .. }
        | Action::RestoreBastionFile { path, .. } => std::slice::from_ref(path),
        Action::RotateByRke { files, .. } => files,
        _ => &[],
    });
    let copies = paths.filter(|path| Path::new(path).is_absolute()).map(|path| {
        bastion_copy(path, &undone.name).map_err(|error| {
            let hint = error.hint();
            Failure::new(USAGE, error).hint(hint.to_owned())
        })
    });
    copies.collect()
}
