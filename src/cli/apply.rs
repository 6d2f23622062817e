use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::arguments::{ApplyArguments, RancherOptions};
use super::away::leave_out;
use super::backups::Answer;
use super::check::look;
use super::failure::{CANCELLED, FAILED, Failure, REFUSED, USAGE};
use super::plan::{Planned, lock_to_break, make, show};
use super::settings::Settings;
use super::terminal::{Drawing, StopWish, Terminal, stop_wanted};
use crate::event::{Event, EventKind};
use crate::execute::{Claim, LeaseTimes, LockError, Operator, Rancher, Run, execute, take_lock};
use crate::facts::probe::KeyReading;
use crate::facts::{Facts, LockHolder};
use crate::gather::Gatherer;
use crate::inventory::{Inventory, Node};
use crate::journal::{ClusterFolder, Journal, load_plan};
use crate::plan::{Action, PLAN_VERSION, Plan, check, moved_from, other_cluster_blocker, without_away};
use crate::report;
use crate::report::AnswerBy;
use crate::report::progress::Bars;

/// How often the bars are drawn anew, so that their clocks go on.
const TICK: Duration = Duration::from_millis(200);

/// Plans, shows the plan, asks, and carries it out.
pub(super) async fn run(
    settings: &Settings,
    terminal: &Terminal,
    arguments: &ApplyArguments,
) -> Result<u8, Failure> {
    if let Some(part) = &arguments.resume {
        return Box::pin(super::resume::run(settings, terminal, arguments, part)).await;
    }
    let planned = match &arguments.plan {
        Some(path) => load(settings, terminal, arguments, path).await?,
        None => make(settings, terminal, (&arguments.options, &arguments.rancher)).await?,
    };
    offer(settings, terminal, planned, Answer::of(arguments.yes)).await
}

/// Shows a plan, asks, and carries it out; one that is blocked is refused.
pub(super) async fn offer(
    settings: &Settings,
    terminal: &Terminal,
    planned: Planned,
    answer: Answer,
) -> Result<u8, Failure> {
    if !terminal.is_json() {
        show(settings, terminal, &planned, None);
    }
    if !planned.plan.blockers.is_empty() {
        for blocker in planned.plan.blockers.iter().filter(|_| terminal.is_json()) {
            let node = blocker.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
            terminal.tell(&format!("blocker: {node}{}", crate::escape::shown(&blocker.message)));
        }
        return Err(Failure::blocked(&planned.plan.blockers));
    }
    if !planned.plan.has_work() {
        terminal.mention("Nothing to do.");
        return Ok(u8::from(planned.plan.misses_nodes()));
    }
    if answer == Answer::ToBeAsked {
        confirm(terminal, "Carry out this plan?")?;
    }
    carry_out(settings, terminal, planned).await
}

/// Asks whether a plan may be carried out.
pub(super) fn confirm(terminal: &Terminal, question: &str) -> Result<(), Failure> {
    if !terminal.can_ask() {
        let message = "nothing is carried out without a yes, and there is no terminal to ask on";
        return Err(
            Failure::message(REFUSED, message).hint("review what is shown, then give --yes".to_owned())
        );
    }
    match terminal.ask(&format!("\n{question} Only `yes` is taken for a yes:")).as_deref() {
        Some("yes") => Ok(()),
        _ => Err(Failure::message(CANCELLED, "not carried out; nothing was changed")),
    }
}

/// Reads a saved plan, and looks whether it still fits.
async fn load(
    settings: &Settings,
    terminal: &Terminal,
    arguments: &ApplyArguments,
    path: &Path,
) -> Result<Planned, Failure> {
    let mut plan = load_plan(path).map_err(|error| Failure::new(USAGE, error))?;
    refuse_version(&plan, path)?;
    let loaded = settings.load()?;
    settings.warn(&loaded, terminal)?;
    let rancher = rancher_of(&plan, (&arguments.rancher, &loaded.inventory), terminal).await?;
    let gatherer = settings.gatherer(&loaded.inventory, KeyReading::PublicPrefix)?;
    let facts = look(&gatherer, &nodes_of(&plan, &loaded.inventory), terminal).await;
    let moved = moved_from(&plan, &loaded.inventory, &facts);
    if !moved.is_empty() {
        let message = format!("the plan is stale: since it was made, this has changed: {}", few(&moved));
        return Err(Failure::message(REFUSED, message)
            .hint("make the plan anew; `certroll check` shows what there is now".to_owned()));
    }
    plan.deadline = arguments.options.deadline.or(plan.deadline);
    let what = format!("the plan `{}` is not carried out", path.display());
    leave_out(&mut plan, &facts, (&what, arguments.options.majority()), None, terminal)?;
    plan.blockers.retain(|blocker| blocker.code != "plan-violates-rule");
    plan.blockers.extend(check(&without_away(&plan, &facts), &facts));
    let part = arguments.options.break_lock.as_deref();
    let break_lock = part.map(|part| lock_to_break(&facts, part)).transpose()?;
    Ok(Planned { break_lock, loaded, facts, gatherer, rancher, plan })
}

/// Refuses a plan of another version of certroll.
pub(super) fn refuse_version(plan: &Plan, path: &Path) -> Result<(), Failure> {
    if plan.version == PLAN_VERSION {
        return Ok(());
    }
    let message =
        format!("`{}` has version {}, this certroll reads {PLAN_VERSION}", path.display(), plan.version);
    Err(Failure::usage(message).hint("make the plan anew".to_owned()))
}

/// Connects to Rancher where a plan has something to ask of it; another cluster than the plan's is refused.
pub(super) async fn rancher_of(
    plan: &Plan,
    (options, inventory): (&RancherOptions, &Inventory),
    terminal: &Terminal,
) -> Result<Option<Rancher>, Failure> {
    let calls: Vec<(&str, &str)> = plan
        .steps()
        .filter_map(|step| match &step.action {
            Action::RotateByRancher { url, cluster_id, .. } => Some((url.as_str(), cluster_id.as_str())),
            _ => None,
        })
        .collect();
    let Some((_, planned)) = calls.first() else { return Ok(None) };
    // Whoever made the plan may have named the cluster; where nobody does so now, the plan does.
    let mut options = options.clone();
    options.rancher_cluster.get_or_insert_with(|| (*planned).to_owned());
    let (rancher, target) = super::rancher::connect(&options, inventory, terminal).await?;
    super::rancher::refuse_other(&target, &calls)?;
    match other_cluster_blocker(&target, nodes_of(plan, inventory)) {
        Some(blocker) => Err(Failure::message(REFUSED, blocker.message).hint(blocker.hint)),
        None => Ok(Some(rancher)),
    }
}

/// Returns the nodes that a plan was made from.
pub(super) fn nodes_of<'a>(plan: &Plan, inventory: &'a Inventory) -> Vec<&'a Node> {
    let is_known = |node: &&Node| plan.basis.contains_key(&format!("node {}", node.name));
    inventory.nodes.iter().filter(is_known).collect()
}

/// How many things that have changed are named; more would hide the first of them.
const NAMED: usize = 8;

/// Returns the first of the things that have changed.
pub(super) fn few(moved: &[String]) -> String {
    let mut words: Vec<String> = moved.iter().take(NAMED).cloned().collect();
    if moved.len() > NAMED {
        words.push(format!("and {} more", moved.len() - NAMED));
    }
    words.join(", ")
}

/// Takes the lock, runs, and gives the lock back whatever came of it.
async fn carry_out(settings: &Settings, terminal: &Terminal, planned: Planned) -> Result<u8, Failure> {
    let Planned { break_lock, facts, gatherer, rancher, plan, .. } = planned;
    let started_at = settings.clock.now();
    let Some(kube_ca) = plan.kube_ca.clone() else {
        return Err(Failure::message(REFUSED, "the cluster shows no kube-ca; nothing was changed"));
    };
    let cluster = ClusterFolder::new(&settings.state_folder, &plan.cluster, &kube_ca);
    // The run is on record before its lock is on the nodes: whoever is cut off in between can still resume it.
    let (name, journal) = cluster.begin(started_at, &plan).map_err(|error| Failure::new(FAILED, error))?;
    let holder = holder(settings, &name);
    let claim = break_lock.as_deref().map_or(Claim::Fresh, Claim::Breaks);
    let folder = cluster.run(&name);
    if let Err(error) = take_lock(&gatherer, &facts, &plan, &holder, claim).await {
        drop(journal);
        let refusal = refused(error);
        return Err(match Journal::discard(&folder) {
            Ok(()) => refusal,
            Err(error) => Failure::new(FAILED, error),
        });
    }
    let run = attempt(settings, holder, (plan, facts), gatherer, rancher);
    conduct(settings, terminal, &run, journal).await
}

/// Returns who holds the lock of a run for an attempt that begins now.
pub(super) fn holder(settings: &Settings, run: &str) -> LockHolder {
    LockHolder {
        run: run.to_owned(),
        owner: settings.owner(),
        pid: std::process::id(),
        since: settings.clock.now().to_string(),
    }
}

/// Returns an attempt at a run whose lock is held.
pub(super) fn attempt(
    settings: &Settings,
    holder: LockHolder,
    (plan, facts): (Plan, Facts),
    gatherer: Gatherer,
    rancher: Option<Rancher>,
) -> Run {
    Run {
        holder,
        plan,
        facts,
        gatherer,
        rancher,
        clock: settings.clock,
        parallel: settings.common.parallel,
        operator: Arc::new(Operator::default()),
        lease: LeaseTimes::default(),
    }
}

/// Carries out a plan whose lock is held, and says what came of it.
pub(super) async fn conduct(
    settings: &Settings,
    terminal: &Terminal,
    run: &Run,
    journal: Journal,
) -> Result<u8, Failure> {
    let state = watch(settings, terminal, run, journal, &run.operator).await?;
    for node in &state.locked {
        terminal.tell(&format!(
            "warning: the lock on {node} could not be given back; `certroll apply --resume {0}` takes it over, any other run needs `--break-lock {0}` when its lease has ended",
            run.holder.run
        ));
    }
    if !terminal.is_json() {
        terminal.print(&report::summary::summary(&state, &run.plan, &run.facts));
    }
    Ok(state.exit_status.unwrap_or(FAILED))
}

/// Carries the plan out while progress is drawn and the operator is heard.
async fn watch(
    settings: &Settings,
    terminal: &Terminal,
    run: &Run,
    journal: Journal,
    operator: &Arc<Operator>,
) -> Result<crate::event::RunState, Failure> {
    let view = Arc::new(Mutex::new(View::new(*terminal)));
    let drawing = Arc::clone(&view);
    let mut listen = move |event: &Event| drawing.lock().unwrap_or_else(PoisonError::into_inner).show(event);
    let hearing = hear(terminal, Arc::clone(operator), Arc::clone(&view));
    let ticking = tick(settings, Arc::clone(&view));
    let state = tokio::select! {
        state = execute(run, journal, &mut listen) => state,
        () = hearing => {
            finish(&view);
            return Err(Failure::message(CANCELLED, "stopped at once; running steps were cut off, and commands may still run on nodes")
                .hint(format!("`certroll apply --resume {}` goes on, with the lock that it still holds; `certroll check` shows what the nodes have", run.holder.run)));
        }
        () = ticking => return Err(Failure::message(FAILED, "the clock of the bars has stopped")),
    };
    finish(&view);
    state.map_err(|error| Failure::new(FAILED, error))
}

fn finish(view: &Mutex<View>) {
    view.lock().unwrap_or_else(PoisonError::into_inner).finish();
}

/// Draws the bars anew from time to time; never returns.
async fn tick(settings: &Settings, view: Arc<Mutex<View>>) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        view.lock().unwrap_or_else(PoisonError::into_inner).tick(settings.clock.now());
    }
}

/// Hears the operator: the first Ctrl-C (or SIGTERM, or the loss of the terminal) lets running steps end, the second returns; Enter looks at once.
async fn hear(terminal: &Terminal, operator: Arc<Operator>, view: Arc<Mutex<View>>) {
    if terminal.can_ask() {
        let listener = Arc::clone(&operator);
        // A thread of its own: it waits in `read` until the process ends.
        std::thread::spawn(move || {
            for line in std::io::stdin().lines() {
                match line {
                    Ok(_) => listener.look_now(),
                    Err(_) => break,
                }
            }
        });
    }
    let mut interruptions = 0;
    loop {
        let wish = stop_wanted().await;
        // Shell and system both tell of a terminal that goes: that is not said twice.
        if wish == StopWish::TerminalLost && interruptions > 0 {
            continue;
        }
        interruptions += 1;
        if interruptions > 1 {
            return;
        }
        operator.cancel();
        let view = view.lock().unwrap_or_else(PoisonError::into_inner);
        view.message("Stopping: running steps end, no more begin. Ctrl-C again cuts them off.");
    }
}

/// What is shown of a run while it goes on.
struct View {
    terminal: Terminal,
    bars: Option<Bars>,
    lines: report::lines::Lines,
}

impl View {
    fn new(terminal: Terminal) -> Self {
        let bars = (terminal.drawing() == Drawing::Bars).then(Bars::on_stderr);
        Self { terminal, bars, lines: report::lines::Lines::default() }
    }

    fn show(&mut self, event: &Event) {
        if self.terminal.is_json() {
            self.terminal.print(&report::json_line(event));
        }
        if let EventKind::WaitingForOperator { instructions, until, .. } = &event.kind {
            self.message(&report::instructions(instructions, *until, self.answer_by()));
        }
        match (&mut self.bars, self.terminal.drawing()) {
            (Some(bars), _) => bars.apply(event),
            (None, Drawing::Lines) => {
                if let Some(line) = self.lines.line(event) {
                    self.terminal.tell(&line);
                }
            }
            (None, _) => {}
        }
    }

    fn answer_by(&self) -> AnswerBy {
        if self.terminal.can_ask() { AnswerBy::Enter } else { AnswerBy::NodesAlone }
    }

    fn message(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.println(text),
            None => self.terminal.tell(text),
        }
    }

    fn tick(&mut self, now: jiff::Timestamp) {
        if let Some(bars) = &mut self.bars {
            bars.tick(now);
        }
    }

    fn finish(&mut self) {
        if let Some(bars) = self.bars.take() {
            bars.finish();
        }
    }
}

/// Returns the refusal of a lock.
pub(super) fn refused(error: LockError) -> Failure {
    let hint = error.hint();
    let status = if error.is_refusal() { REFUSED } else { FAILED };
    Failure::new(status, error).hint(hint)
}
