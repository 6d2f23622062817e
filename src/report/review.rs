//! A review shows a plan to the person who decides on it: what is done to which node and why, and what speaks against it.
//!
//! `certroll plan` and `certroll apply` show it as text; `document` is for scripts, `markdown` for a ticket.

mod certificates;
mod commands;
mod document;
mod entry;
mod markdown;
mod outlook;
mod restore;
mod switch;
mod totals;
mod way_back;

use std::fmt::Write as _;

use super::check::first_to_end;
use super::columns::{Cell, Columns, NO_BREAK};
use super::duration::{count, moment};
use super::findings::{hints, lines};
use super::names::folded;
use super::nodes::append_findings;
use super::style::{Detail, Style, Tone};
use super::wrap::paragraph;
use crate::escape::{shown, shown_lines};
use crate::facts::Facts;
use crate::plan::{Action, Guard, LeftOut, NotHandled, Plan, Procedure, Stage, StageName, Via};

pub(in crate::report) use commands::rke_command;
pub use document::{PlanDocument, document};
use entry::{Group, groups};
pub use markdown::markdown;
pub(in crate::report) use outlook::effect;
use totals::{expected, totals};

/// All that a review is made from.
#[derive(Debug, Clone, Copy)]
pub struct Review<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What it was made from; commands need the folders that were seen.
    pub facts: &'a Facts,
    /// What to type next, where there is something.
    pub next: Option<&'a str>,
}

/// What a stage's containers are restarted for, where that is decided when their turn comes.
const IF_NEEDED: &str =
    "if needed: it started before its certificate was written, does not run, or is not healthy";

/// How far node lines stand from the left.
const INDENT: usize = 5;

/// Returns a review for people; with details it has every command.
pub fn text(review: &Review<'_>, style: Style) -> String {
    let plan = review.plan;
    let population = review.facts.nodes.len();
    let mut text = header(plan, style) + "\n";
    if !plan.blockers.is_empty() {
        let reasons = count_of(plan.blockers.len(), "reason");
        let verb = if plan.blockers.len() == 1 { "forbids" } else { "forbid" };
        let line = format!("Blocked: {reasons} {verb} carrying this plan out.");
        let _ =
            write!(text, "\n{}\n{}", style.paint(Tone::Bad, &line), lines(&plan.blockers, population, style));
        text.push_str(&hints(&plan.blockers, style));
    }
    if plan.has_work() {
        let _ = writeln!(text, "\n{}", paragraph(&warning(plan), style.width, 0));
        text.push_str(&certificates::text(review, style));
        text.push('\n');
        text.push_str(&stages(review, style));
    } else {
        let _ = writeln!(text, "\n{}", paragraph(&nothing_to_do(review), style.width, 0));
    }
    text.push_str(&not_handled(plan, style));
    append_findings(&mut text, &plan.findings, population, style);
    text.push_str(&closing(review, style));
    text
}

/// Returns a count with its noun.
fn count_of(number: usize, noun: &str) -> String {
    count(i64::try_from(number).unwrap_or(i64::MAX), noun)
}

/// Returns the first line; colours come after wrapping, because they take no columns.
fn header(plan: &Plan, style: Style) -> String {
    let day = |time: jiff::Timestamp| time.strftime("%F").to_string();
    let seen = if day(plan.observed_at) == day(plan.created_at) {
        plan.observed_at.strftime("%H:%M:%S UTC").to_string()
    } else {
        moment(plan.observed_at)
    };
    let name = format!("Plan {}", shown(&plan.id));
    let line = format!(
        "{name}   {}   {}   made {} from what was seen at {seen}",
        goal(plan),
        shown(&plan.cluster),
        moment(plan.created_at),
    );
    let wrapped = paragraph(&line, style.width, 2);
    match wrapped.strip_prefix(&name) {
        Some(rest) => style.paint(Tone::Strong, &name) + rest,
        None => wrapped,
    }
}

/// Returns what a plan is to achieve, in a few words.
fn goal(plan: &Plan) -> String {
    let services = match plan.services.as_slice() {
        [] => "all services".to_owned(),
        services => services.iter().map(|service| service.as_str()).collect::<Vec<_>>().join(", "),
    };
    match (plan.procedure, plan.via) {
        (Procedure::Rotate, Some(Via::Rancher)) => format!("rotate {services} via Rancher"),
        (Procedure::Rotate, Some(Via::Direct)) if plan.stage(StageName::Rotate).is_some() => {
            format!("rotate {services} with the cluster's own CA, then via Rancher")
        }
        (Procedure::Rotate, Some(Via::Direct)) => format!("rotate {services} with the cluster's own CA"),
        (Procedure::Rotate, Some(Via::Rke)) => format!("rotate {services} by rke"),
        (Procedure::Rotate, Some(Via::Manual)) => format!("rotate {services} by the operator's hand"),
        (Procedure::Rotate, None) => format!("rotate {services}"),
        (Procedure::Repair, _) => "repair the legacy bundle".to_owned(),
        (Procedure::Restart, _) => "restart kubelet and kube-proxy where they need it".to_owned(),
        (Procedure::Rollback, _) => {
            format!("take back run {}", shown(plan.undoes.as_deref().unwrap_or_default()))
        }
    }
}

/// Returns what the plan means for the cluster's users, and how long it will take.
fn warning(plan: &Plan) -> String {
    let deadline = plan.deadline.map(|deadline| {
        format!(
            " No stage begins that would not end within {} from the start.",
            super::duration::limit(deadline)
        )
    });
    format!("{} Expected: {}.{}", effect(plan), expected(plan.expected_seconds), deadline.unwrap_or_default())
}

/// Returns why a plan has no work.
fn nothing_to_do(review: &Review<'_>) -> String {
    let plan = review.plan;
    if !plan.blockers.is_empty() {
        return "Nothing is planned.".to_owned();
    }
    let seen = review.facts.seen().count();
    match plan.procedure {
        Procedure::Rotate => {
            let end = first_to_end(review.facts, plan.created_at).unwrap_or_default();
            format!(
                "Nothing to do: no certificate is due, and kubelet and kube-proxy use the ones that are there. {end}"
            )
            .trim_end()
            .to_owned()
        }
        Procedure::Repair => "Nothing to do: no legacy bundle needs a file.".to_owned(),
        Procedure::Rollback => {
            "Nothing to do: every file is as the run found it, or is not its own to take back.".to_owned()
        }
        Procedure::Restart => format!(
            "Nothing to do: kubelet and kube-proxy run with their newest certificates on {}.",
            count_of(seen, "node")
        ),
    }
}

/// Returns the stages with what they do to each node.
fn stages(review: &Review<'_>, style: Style) -> String {
    let mut columns = Columns::default();
    for (number, stage) in review.plan.stages.iter().enumerate() {
        columns.push(vec![
            Cell::new((number + 1).to_string()),
            Cell::new(stage.name.as_str()).tone(Tone::Strong),
            Cell::new(place(stage)),
            Cell::new(pace(stage)).tone(Tone::Faint),
            Cell::new(&stage.title),
        ]);
    }
    let mut text = String::new();
    for (stage, line) in review.plan.stages.iter().zip(columns.blocks(style)) {
        text.push_str(&line);
        if style.detail > Detail::Quiet {
            text.push_str(&stage_details(review, stage, style));
        }
    }
    text
}

/// Returns what one stage does to each node, and with details its commands.
fn stage_details(review: &Review<'_>, stage: &Stage, style: Style) -> String {
    let population = review.facts.nodes.len();
    let mut columns = Columns::indented(INDENT);
    for group in groups(review.plan, stage, style) {
        push_group(&mut columns, &group, population, style);
    }
    let mut text = columns.render(style);
    if stage.steps.iter().any(|step| is_decided_later(&step.action)) {
        let _ = writeln!(text, "{:INDENT$}{}", "", style.paint(Tone::Faint, IF_NEEDED));
    }
    if style.is_verbose() {
        for (nodes, commands) in commands::by_nodes(stage, review.facts) {
            let place = if nodes.is_empty() { place(stage) } else { folded(&nodes, population, style) };
            let _ = writeln!(text, "{:INDENT$}{}:", "", style.paint(Tone::Strong, &place));
            for line in commands.iter().flat_map(|command| shown_lines(command)) {
                let _ = writeln!(text, "{:INDENT$}  {line}", "");
            }
        }
    }
    text
}

/// Adds what is done to the nodes of a group; nodes beyond the first are named behind it.
fn push_group(columns: &mut Columns, group: &Group<'_>, population: usize, style: Style) {
    let (first, others) = match (group.nodes.as_slice(), group.entries.as_slice()) {
        (nodes, [_]) => (folded(nodes, population, style), [].as_slice()),
        ([first, others @ ..], _) => (first.as_str().to_owned(), others),
        ([], _) => (String::new(), [].as_slice()),
    };
    for (number, entry) in group.entries.iter().enumerate() {
        let name = if number == 0 { first.as_str() } else { "" };
        let what = format!("{}{NO_BREAK}{}", entry.sign.as_str(), entry.what);
        columns.push(vec![
            Cell::new(name).tone(Tone::Strong),
            Cell::new(what).tone(entry.sign.tone()),
            Cell::new(&entry.why),
        ]);
    }
    if !others.is_empty() && !group.entries.is_empty() {
        let names = Cell::new(folded(others, population, style)).tone(Tone::Strong);
        columns.push_with_rest(vec![names], Cell::new(group.summary()));
    }
}

/// Returns whether the containers of an action are chosen when its turn comes.
fn is_decided_later(action: &Action) -> bool {
    matches!(action, Action::Restart { guard: Guard::IfNeeded { .. }, .. })
}

/// Returns where a stage acts.
fn place(stage: &Stage) -> String {
    match stage.steps.first().map(|step| &step.action) {
        Some(Action::RotateByRancher { .. }) => "Rancher".to_owned(),
        Some(Action::RotateByRke { .. }) => "rke".to_owned(),
        Some(Action::RotateByOperator { .. }) => "the operator".to_owned(),
        Some(
            Action::UpdateClusterState { .. }
            | Action::UpdateStateFile { .. }
            | Action::UpdateKubeConfig { .. }
            | Action::RestoreClusterState { .. }
            | Action::RestoreBastionFile { .. },
        ) => "rke's state".to_owned(),
        _ => count_of(stage.nodes().len(), "node"),
    }
}

/// Returns how many nodes a stage works on at a time, or that it changes none.
fn pace(stage: &Stage) -> String {
    let nodes = stage.nodes().len();
    match stage.name {
        StageName::Preflight | StageName::Confirm | StageName::Verify => "changes nothing".to_owned(),
        _ if nodes < 2 => String::new(),
        _ if stage.max_unavailable < nodes => format!("{} at a time", stage.max_unavailable),
        _ => "in parallel".to_owned(),
    }
}

/// Returns the nodes that get less than the plan's goal.
fn not_handled(plan: &Plan, style: Style) -> String {
    let of_kind = |kind: LeftOut, tone: Tone, title: &str| {
        let mut nodes = plan.not_handled.iter().filter(|node| node.left_out == kind).peekable();
        if nodes.peek().is_none() {
            return String::new();
        }
        let mut columns = Columns::indented(INDENT);
        for node in nodes {
            columns.push(vec![
                Cell::new(node.node.as_str()).tone(Tone::Strong),
                Cell::new(&node.reason),
                Cell::new(handled_by(node)),
            ]);
        }
        format!("\n{}\n{}", style.paint(tone, title), columns.render(style))
    };
    let missed = of_kind(
        LeftOut::ForNow,
        Tone::Warning,
        "Not handled, with the command that handles it when it is back:",
    );
    missed + &of_kind(LeftOut::ForGood, Tone::Strong, "Not handled, with what handles it instead:")
}

/// Returns what handles a node that the plan leaves out.
fn handled_by(node: &NotHandled) -> String {
    match node.left_out {
        LeftOut::ForNow => format!("`{}`", node.hint),
        LeftOut::ForGood => node.hint.clone(),
    }
}

/// Returns the last lines: what it amounts to, and what to type next.
fn closing(review: &Review<'_>, style: Style) -> String {
    let plan = review.plan;
    let mut sentences = Vec::new();
    if plan.has_work() {
        sentences.push(totals(plan));
    }
    if !plan.blockers.is_empty() {
        sentences.push("Blocked: put right what is named above, then plan again.".to_owned());
    } else if let Some(next) = review.next.filter(|_| plan.has_work()) {
        sentences.push(format!("Next: {}", shown(next)));
    }
    if sentences.is_empty() {
        return String::new();
    }
    format!("\n{}\n", paragraph(&sentences.join(" "), style.width, 0))
}
