//! A summary is what is said at the end of a run: what was done, what was not and why, where the way back is, what comes next.
//!
//! The face prints it after `apply`.

mod ends;
mod standing;
mod undone;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::escape::shown;
use crate::event::{Outcome, RunOutcome, RunState, StepState};
use crate::facts::Facts;
use crate::inventory::NodeName;
use crate::plan::{Action, Plan, StageName, away};
use standing::Standing;

use super::lines::{elapsed, names, outcome_word};

/// Returns the end screen of a run. `facts` are those that the plan was made from.
pub fn summary(state: &RunState, plan: &Plan, facts: &Facts) -> String {
    let standing = Standing::of(state, plan);
    let mut text = headline(state);
    let rows = [failures(state), omissions(state), unhandled(plan)].concat();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(&rows));
    }
    text.push_str(&standing::text(standing, state, plan, facts));
    if standing == Standing::Other {
        text.push_str(&finished_nodes(state));
    }
    text.push_str(&ends::text(state, plan, facts));
    text.push_str(&undone::text(plan));
    text.push_str(&backups(state, plan, facts, standing));
    text.push_str(&next(state, plan, facts));
    text
}

/// Returns the last part of a run's name, by which every command knows it.
fn short(run: &str) -> &str {
    run.rsplit('-').next().unwrap_or(run)
}

/// Returns the first line.
fn headline(state: &RunState) -> String {
    let (done, failed, not_run) = state.counts();
    let end = match state.outcome {
        Some(outcome) => outcome_word(outcome),
        None => "broke off",
    };
    let took = state.started_at.zip(state.last_at).map(|(start, end)| end.duration_since(start));
    let took = took.and_then(|took| Duration::try_from(took).ok()).unwrap_or_default();
    let mut line = format!(
        "Run {} {end} after {}: {done} of {} steps done",
        shown(short(&state.run)),
        elapsed(took),
        state.steps.len()
    );
    if failed > 0 {
        let _ = write!(line, ", {failed} failed");
    }
    if state.running() > 0 {
        let _ = write!(line, ", {} without an end", state.running());
    }
    if not_run > 0 {
        let _ = write!(line, ", {not_run} not run");
    }
    line.push_str(".\n");
    line
}

/// A row of the table: what happened, in which stage, to which nodes, and its lines of explanation.
#[derive(Clone)]
struct Row {
    word: &'static str,
    stage: &'static str,
    nodes: String,
    lines: Vec<String>,
}

/// Returns a row for each step that failed.
fn failures(state: &RunState) -> Vec<Row> {
    let row = |step: &StepState| match &step.outcome {
        Some(Outcome::Failed { error, hint }) => {
            let hint = hint.iter().map(|hint| format!("hint: {hint}"));
            let lines = error.lines().map(str::to_owned).chain(hint).collect();
            Some(Row { word: "failed", stage: step.stage.as_str(), nodes: place(step), lines })
        }
        _ => None,
    };
    state.steps.iter().filter_map(row).collect()
}

/// Returns a row for each reason for which steps of a stage were not run, or did not come to an end.
fn omissions(state: &RunState) -> Vec<Row> {
    let mut groups: Vec<(StageName, String, Vec<String>)> = Vec::new();
    for step in &state.steps {
        let reason = match &step.outcome {
            Some(Outcome::NotRun { reason }) => reason.clone(),
            None if step.started_at.is_some() => "began, and its end is not known".to_owned(),
            None => "the run broke off before".to_owned(),
            Some(_) => continue,
        };
        let place = place(step);
        match groups.iter_mut().find(|group| group.0 == step.stage && group.1 == reason) {
            Some((_, _, places)) if places.contains(&place) => {}
            Some((_, _, places)) => places.push(place),
            None => groups.push((step.stage, reason, vec![place])),
        }
    }
    let row = |(stage, reason, places): (StageName, String, Vec<String>)| Row {
        word: "not run",
        stage: stage.as_str(),
        nodes: places.join(" "),
        lines: vec![reason],
    };
    groups.into_iter().map(row).collect()
}

/// Returns a row for each node that the plan left out.
fn unhandled(plan: &Plan) -> Vec<Row> {
    let row = |left_out: &crate::plan::NotHandled| Row {
        word: "left out",
        stage: "",
        nodes: left_out.node.to_string(),
        lines: vec![left_out.reason.clone(), format!("hint: {}", left_out.hint)],
    };
    plan.not_handled.iter().map(row).collect()
}

/// What stands in place of a node for steps that are about none.
const CLUSTER: &str = "cluster";

/// Returns the node of a step, or what stands for the cluster.
fn place(step: &StepState) -> String {
    step.node.as_ref().map_or_else(|| CLUSTER.to_owned(), NodeName::to_string)
}

/// A list of nodes that is longer than this gets a line of its own.
const NODES_WIDTH: usize = 32;

/// Returns rows in columns; what explains a row stands beside it, or beneath a long list of nodes.
fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.nodes.chars().count()).filter(|width| *width <= NODES_WIDTH).max();
    let width = width.unwrap_or_default();
    let mut text = String::new();
    for row in rows {
        let head = format!("{:<8}  {:<13}", row.word, row.stage);
        let nodes = shown(&row.nodes);
        let mut beside = format!("{head}  {nodes:<width$}  ");
        if nodes.chars().count() > width {
            let _ = writeln!(text, "{head}  {nodes}");
            beside = format!("{:25}{:width$}  ", "", "");
        }
        let beneath = format!("{:25}{:width$}  ", "", "");
        for (index, line) in row.lines.iter().enumerate() {
            let margin = if index == 0 { &beside } else { &beneath };
            let _ = writeln!(text, "{margin}{}", shown(line));
        }
    }
    text
}

/// Returns whether a step ended well.
fn is_well(step: &StepState) -> bool {
    matches!(step.outcome, Some(Outcome::Done { .. } | Outcome::Unneeded { .. }))
}

/// Returns the nodes all of whose steps ended well.
fn finished_nodes(state: &RunState) -> String {
    let mut done: Vec<&NodeName> = Vec::new();
    for node in state.steps.iter().filter_map(|step| step.node.as_ref()) {
        if !done.contains(&node) {
            done.push(node);
        }
    }
    done.retain(|node| state.steps.iter().filter(|step| step.node.as_ref() == Some(*node)).all(is_well));
    match done.len() {
        0 => String::new(),
        1 => format!("\nDone on 1 node: {}\n", shown(&names(done))),
        count => format!("\nDone on {count} nodes: {}\n", shown(&names(done))),
    }
}

/// Returns where the backups are, and how a person puts them back without certroll.
fn backups(state: &RunState, plan: &Plan, facts: &Facts, standing: Standing) -> String {
    let mut places: BTreeMap<&str, Vec<&NodeName>> = BTreeMap::new();
    for step in plan.steps().filter(|step| step.action == Action::Backup) {
        let is_done = state.steps.iter().any(|seen| seen.step == step.id && seen.well_in.is_some());
        let Some(node) = step.node.as_ref().filter(|_| is_done) else { continue };
        if let Some(seen) = facts.node(node).and_then(|node| node.observation()) {
            places.entry(&seen.kubernetes_directory).or_default().push(node);
        }
    }
    if places.is_empty() {
        return String::new();
    }
    let mut text = "\nBackups:\n".to_owned();
    for (directory, nodes) in &places {
        let path = archive(directory, &state.run);
        let _ = writeln!(text, "  {}  on {}", shown(&path), shown(&names(nodes.iter().copied())));
    }
    if standing == Standing::Untouched {
        return text;
    }
    if plan.steps().any(|step| matches!(&step.action, Action::Switch { retired, .. } if !retired.is_empty()))
    {
        text.push_str("A serving pair that a kubelet was to make anew lies in `retired` beside it.\n");
    }
    text.push_str("To put one back by hand, as root on its node (files that the run added stay):\n");
    for directory in places.keys() {
        let path = crate::command::quote(&archive(directory, &state.run));
        let line = format!("tar -C {} -xpf {path}", crate::command::quote(directory));
        let _ = writeln!(text, "  {}", shown(&line));
    }
    text.push_str(
        "then restart the components that the node runs, one node at a time, with `docker restart`:\n  \
         etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy\n",
    );
    text
}

/// Returns the path of a node's backup.
fn archive(directory: &str, run: &str) -> String {
    format!("{directory}/.certroll/{run}/backup.tar")
}

/// Returns whether a step that can change something has begun, in whichever attempt.
fn changed_something(state: &RunState, plan: &Plan) -> bool {
    let has_begun = |step: &&crate::plan::Step| {
        state.steps.iter().any(|seen| seen.step == step.id && seen.begun_in.is_some())
    };
    plan.steps().filter(has_begun).any(|step| step.action.changes_something())
}

/// Returns the commands that come next.
fn next(state: &RunState, plan: &Plan, facts: &Facts) -> String {
    if let Some(line) = undone::next(state, plan) {
        return format!("\nhint: {}\n", shown(&line));
    }
    let run = shown(&state.run);
    let back = if changed_something(state, plan) {
        format!("; or `certroll rollback {run}` takes back what it did")
    } else {
        String::new()
    };
    let again = format!("`certroll apply --resume {run}` goes on where it stopped{back}");
    let line = match state.outcome {
        Some(RunOutcome::Done) if !plan.misses_nodes() => {
            "`certroll check` looks at the cluster again".to_owned()
        }
        Some(RunOutcome::Done) => {
            "the nodes that were left out keep their old certificates until they are handled".to_owned()
        }
        Some(RunOutcome::Failed) => {
            let mut failed: Vec<String> = failures(state).into_iter().map(|row| row.nodes).collect();
            failed.dedup();
            failed.retain(|place| place != CLUSTER);
            let away = away(plan, facts).into_iter().map(|away| away.node.name.as_str());
            let away: Vec<&str> = away.collect();
            match (failed.is_empty(), away.is_empty()) {
                (true, true) => format!("put the cause right; then {again}"),
                (true, false) => format!("when {} can be reached again, {again}", shown(&away.join(" "))),
                (false, _) => format!("put {} right; then {again}", shown(&failed.join(" "))),
            }
        }
        Some(RunOutcome::Cancelled) | None => again,
    };
    format!("\nhint: {line}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{
        direct_done_run, direct_facts, direct_plan, direct_run_failing, direct_run_resumed_in_vain, done_run,
        facts, failed_run, plan,
    };

    #[test]
    fn a_failed_run_names_every_node_and_the_way_back() {
        let state = RunState::of(&failed_run());
        insta::assert_snapshot!(summary(&state, &plan(), &facts()));
    }

    #[test]
    fn a_finished_run_is_short() {
        let mut plan = plan();
        plan.not_handled.clear();
        insta::assert_snapshot!(summary(&RunState::of(&done_run()), &plan, &facts()));
    }

    fn direct(events: &[crate::event::Event]) -> String {
        summary(&RunState::of(events), &direct_plan(), &direct_facts())
    }

    #[test]
    fn a_rotation_with_the_own_ca_tells_the_ends_before_and_after() {
        insta::assert_snapshot!(direct(&direct_done_run()));
    }

    #[test]
    fn a_run_that_switched_nothing_says_so() {
        insta::assert_snapshot!(direct(&direct_run_failing(StageName::Staging, Some("w-1"))));
    }

    #[test]
    fn a_run_that_stopped_between_nodes_says_where_each_stands() {
        insta::assert_snapshot!(direct(&direct_run_failing(StageName::ControlPlane, Some("cp-2"))));
    }

    /// What the first attempt did stands, however early the second one stopped.
    #[test]
    fn a_resume_that_stops_early_tells_what_was_switched_before() {
        insta::assert_snapshot!(direct(&direct_run_resumed_in_vain("cp-2", "w-1")));
    }

    #[test]
    fn a_run_that_switched_all_warns_of_the_records_of_rke() {
        insta::assert_snapshot!(direct(&direct_run_failing(StageName::State, None)));
    }

    /// A resume sees the run's own certificates on the nodes that were switched before.
    #[test]
    fn a_resumed_run_tells_the_ends_of_the_certificates_before_its_first_attempt() {
        let (events, mut plan) = (direct_done_run(), direct_plan());
        let state = RunState::of(&events);
        let facts = direct_facts();
        let told = summary(&state, &plan, &facts);
        for certificate in &mut plan.certificates {
            let seen = facts.seen().filter_map(|(node, seen)| {
                let found = seen.certificate(crate::pki::Location::Ssl, &certificate.name)?;
                Some((node.name.clone(), found.not_after))
            });
            certificate.replaces = seen.collect();
        }
        let none_seen = Facts { nodes: Vec::new(), ..facts.clone() };
        let resumed = summary(&state, &plan, &none_seen);
        let ends = |text: &str| -> Vec<String> {
            let changes = text.lines().filter_map(|line| line.split_once(" -> "));
            let day = |text: &str| text.split_whitespace().next_back().unwrap_or_default().to_owned();
            let mut days: Vec<String> = changes.map(|(before, _)| day(before)).collect();
            days.sort();
            days.dedup();
            days
        };
        assert_eq!(ends(&told), ends(&resumed), "{resumed}");
        assert!(ends(&told).iter().any(|day| day.starts_with("20")), "{told}");
    }

    #[test]
    fn a_run_that_was_killed_says_which_steps_have_no_end() {
        let events = failed_run();
        let state = RunState::of(&events[..events.len() / 2]);
        insta::assert_snapshot!(summary(&state, &plan(), &facts()));
    }
}
