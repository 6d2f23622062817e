use super::apply::{attempt, conduct, confirm, few, holder, nodes_of, rancher_of, refuse_version, refused};
use super::arguments::ApplyArguments;
use super::away::leave_out;
use super::check::look;
use super::failure::{FAILED, Failure, REFUSED, USAGE};
use super::plan::lock_to_break;
use super::settings::Settings;
use super::terminal::Terminal;
use crate::event::RunState;
use crate::execute::{Claim, take_lock, trail};
use crate::facts::Facts;
use crate::facts::probe::KeyReading;
use crate::inventory::Inventory;
use crate::journal::{ClusterFolder, Journal, JournalError, RecordedRun, find_run, read_runs};
use crate::plan::{Plan, StepId, moved_since};
use crate::report;

/// Goes on with a run that stopped: its plan once more, from a fresh look at the nodes.
pub(super) async fn run(
    settings: &Settings,
    terminal: &Terminal,
    arguments: &ApplyArguments,
    part: &str,
) -> Result<u8, Failure> {
    let loaded = settings.load()?;
    settings.warn(&loaded, terminal)?;
    let Some(recorded) = find(settings, terminal, &loaded.inventory, part)? else {
        terminal.mention("Nothing to resume: every run of this cluster has ended well, or was taken back.");
        return Ok(0);
    };
    let RecordedRun { folder, mut plan, .. } = recorded;
    refuse_version(&plan, &folder.join("plan.json"))?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let journal = Journal::open(&folder).map_err(|error| cannot_open(error, &name))?;
    let state = journal.history().state.clone();
    if state.ended_well() {
        terminal.mention(&format!("Nothing to resume: run {name} has ended well."));
        return Ok(0);
    }
    let rancher = rancher_of(&plan, (&arguments.rancher, &loaded.inventory), terminal).await?;
    let gatherer = settings.gatherer(&loaded.inventory, KeyReading::PublicPrefix)?;
    let facts = look(&gatherer, &nodes_of(&plan, &loaded.inventory), terminal).await;
    let what = format!("run {name} does not go on");
    leave_out(&mut plan, &facts, (&what, arguments.options.majority()), Some(&state), terminal)?;
    refuse_moved(&plan, &loaded.inventory, &facts, &state)?;
    if !terminal.is_json() {
        terminal.print(&report::runs::outlook(&state, &plan, terminal.style()));
    }
    if !arguments.yes {
        confirm(terminal, &format!("Go on with run {name}?"))?;
    }
    let holder = holder(settings, &name);
    plan.deadline = arguments.options.deadline.or(plan.deadline);
    // The lock that the last attempt may have left is this run's own.
    let part = arguments.options.break_lock.as_deref();
    let broken = part.map(|part| lock_to_break(&facts, part)).transpose()?;
    let claim = Claim::Adopts(broken.as_deref());
    take_lock(&gatherer, &facts, &plan, &holder, claim).await.map_err(refused)?;
    let run = attempt(settings, holder, (plan, facts), gatherer, rancher);
    conduct(settings, terminal, &run, journal).await
}

/// Finds the run that is meant: by a part of its name, else the newest that has not ended well.
fn find(
    settings: &Settings,
    terminal: &Terminal,
    inventory: &Inventory,
    part: &str,
) -> Result<Option<RecordedRun>, Failure> {
    let folders = ClusterFolder::of_cluster(&settings.state_folder, &inventory.cluster_name);
    let (runs, damaged) = read_runs(&folders);
    for error in damaged {
        terminal.tell(&format!("warning: a run is left out: {:#}", anyhow::Error::from(error)));
    }
    match part {
        "" => {
            let goes_on = |run: &&RecordedRun| !run.state.ended_well() && taken_back_by(&runs, run).is_none();
            Ok(runs.iter().find(goes_on).cloned())
        }
        part => {
            let found = find_run(runs.clone(), part)
                .map_err(|error| Failure::new(USAGE, error).hint("`certroll runs` lists them".to_owned()))?;
            refuse_taken_back(&runs, &found)?;
            Ok(Some(found))
        }
    }
}

/// Returns the later run that has taken a run back, or has begun to.
fn taken_back_by<'a>(runs: &'a [RecordedRun], run: &RecordedRun) -> Option<&'a RecordedRun> {
    let has_begun = |later: &&RecordedRun| {
        let changes = later.plan.steps().filter(|step| step.action.changes_something());
        let begun =
            |id: &StepId| later.state.steps.iter().any(|step| step.step == *id && step.begun_in.is_some());
        changes.map(|step| &step.id).any(begun)
    };
    runs.iter().filter(|later| later.plan.undoes.as_deref() == Some(run.state.run.as_str())).find(has_begun)
}

/// Refuses a run that was taken back: its journal tells of steps that are not done any more.
fn refuse_taken_back(runs: &[RecordedRun], run: &RecordedRun) -> Result<(), Failure> {
    let Some(later) = taken_back_by(runs, run).filter(|_| !run.state.ended_well()) else { return Ok(()) };
    let (name, by) = (&run.state.run, &later.state.run);
    if later.state.ended_well() {
        let message = format!("run {name} was taken back by run {by}: there is nothing of it to go on with");
        return Err(Failure::message(REFUSED, message).hint("make a new plan".to_owned()));
    }
    let message = format!("run {by} has begun to take run {name} back");
    Err(Failure::message(REFUSED, message)
        .hint(format!("`certroll apply --resume {by}` goes on with that; then make a new plan")))
}

fn cannot_open(error: JournalError, run: &str) -> Failure {
    match error {
        JournalError::Alive { .. } => Failure::new(REFUSED, error).hint(format!(
            "wait for it, or stop it with Ctrl-C where it runs; `certroll runs {run}` shows how far it is"
        )),
        error => Failure::new(FAILED, error),
    }
}

/// Refuses a run whose cluster has moved on since, but for what the run has changed itself.
fn refuse_moved(plan: &Plan, inventory: &Inventory, facts: &Facts, state: &RunState) -> Result<(), Failure> {
    let kube_ca = facts.kube_ca().map(|authority| &authority.sha256);
    let moved = if kube_ca.is_some() && kube_ca != plan.kube_ca.as_ref() {
        vec!["the cluster's CA, kube-ca".to_owned()]
    } else {
        moved_since(plan, inventory, facts, &trail(state, plan))
    };
    if moved.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the cluster has moved on since run {} stopped; this was changed by others: {}",
        state.run,
        few(&moved)
    );
    Err(Failure::message(REFUSED, message).hint(
        "put it back and resume, or make a new plan: it recognises what is done (`certroll check` shows what there is)"
            .to_owned(),
    ))
}
