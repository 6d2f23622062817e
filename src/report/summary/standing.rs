use std::fmt::Write as _;

use jiff::Timestamp;

use super::names;
use crate::escape::shown;
use crate::event::{RunOutcome, RunState, StepState};
use crate::facts::Facts;
use crate::inventory::NodeName;
use crate::plan::{Action, Plan, StageName, Step};

/// How far a run came that switches files itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It switches none, or everything is done.
    Other,
    /// Nothing was switched.
    Untouched,
    /// Some nodes have new certificates, others have not.
    Between,
    /// All nodes have new certificates, but something behind that is not done.
    Switched,
}

impl Standing {
    pub(super) fn of(state: &RunState, plan: &Plan) -> Self {
        let mut switches = plan.steps().filter(|step| is_switch(step)).peekable();
        if switches.peek().is_none() || state.outcome == Some(RunOutcome::Done) {
            return Self::Other;
        }
        let phases: Vec<Phase> = switches.map(|step| Phase::of(state, step)).collect();
        if phases.iter().all(|phase| *phase == Phase::NotBegun) {
            Self::Untouched
        } else if phases.iter().all(|phase| *phase == Phase::Done) {
            Self::Switched
        } else {
            Self::Between
        }
    }
}

/// How far a node's turn came, in whichever attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing was done there.
    NotBegun,
    /// It began, and did not end well.
    Unknown,
    /// It ended well.
    Done,
}

impl Phase {
    pub(super) fn of(state: &RunState, step: &Step) -> Self {
        match state.steps.iter().find(|seen| seen.step == step.id) {
            Some(seen) if seen.stands() => Self::Done,
            Some(StepState { begun_in: Some(_), .. }) => Self::Unknown,
            _ => Self::NotBegun,
        }
    }
}

fn is_switch(step: &Step) -> bool {
    matches!(step.action, Action::Switch { .. })
}

/// Returns what a run that did not end well means for the cluster; nothing where no files are switched.
pub(super) fn text(standing: Standing, state: &RunState, plan: &Plan, facts: &Facts) -> String {
    let lines = match standing {
        Standing::Other => Vec::new(),
        Standing::Untouched => untouched(state, plan, facts),
        Standing::Between => between(state, plan, facts),
        Standing::Switched => {
            let mut lines = vec![
                "Every node has its new certificates, and its components were restarted onto them."
                    .to_owned(),
            ];
            lines.extend(unwritten(state, plan));
            lines
        }
    };
    lines.into_iter().fold(String::new(), |mut text, line| {
        if text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "{}", shown(&line));
        text
    })
}

fn untouched(state: &RunState, plan: &Plan, facts: &Facts) -> Vec<String> {
    let added = nodes(plan.stage(StageName::Repair).into_iter().flat_map(|stage| &stage.steps), |step| {
        Phase::of(state, step) != Phase::NotBegun
    });
    let mut lines = if added.is_empty() {
        vec!["The cluster is untouched: nothing was switched, nothing was restarted.".to_owned()]
    } else {
        vec![format!(
            "The cluster runs as before: nothing was switched or restarted. Files were added to `.tmp` on {}.",
            names(added)
        )]
    };
    let staged = plan.stage(StageName::Staging).into_iter().flat_map(|stage| &stage.steps);
    let staged = nodes(staged, |step| Phase::of(state, step) != Phase::NotBegun);
    if let Some(seen) = staged.first().and_then(|name| facts.node(name)).and_then(|node| node.observation()) {
        let folder = format!("{}/.certroll/{}/staged", seen.kubernetes_directory, state.run);
        lines.push(format!("New pairs that nothing uses may lie on {}; as root there:", names(staged)));
        lines.push(format!("  rm -rf {}", crate::command::quote(&folder)));
    }
    lines
}

fn between(state: &RunState, plan: &Plan, facts: &Facts) -> Vec<String> {
    let steps: Vec<&Step> = plan.steps().filter(|step| is_switch(step)).collect();
    let with =
        |wanted: &[Phase]| nodes(steps.iter().copied(), |step| wanted.contains(&Phase::of(state, step)));
    let unknown = with(&[Phase::Unknown]);
    let waiting: Vec<&NodeName> =
        with(&[Phase::NotBegun]).into_iter().filter(|node| !unknown.contains(node)).collect();
    let done: Vec<&NodeName> = with(&[Phase::Done])
        .into_iter()
        .filter(|node| !unknown.contains(node) && !waiting.contains(node))
        .collect();
    let mut lines =
        vec!["Old and new certificates are of the same CA, so nodes with either work together.".to_owned()];
    if !done.is_empty() {
        lines.push(format!("  done             {}", names(done)));
    }
    if !unknown.is_empty() {
        lines.push(format!("  began, see above {}", names(unknown)));
    }
    if !waiting.is_empty() {
        let until = first_end(state, plan, (&waiting, facts)).map(|end| {
            let day = end.strftime("%F");
            if state.last_at.is_some_and(|last| end <= last) {
                format!(": the first of their old certificates ended on {day}")
            } else {
                format!(": the first of their old certificates ends on {day}")
            }
        });
        lines.push(format!("  not yet          {}{}", names(waiting), until.unwrap_or_default()));
    }
    lines.extend(unwritten(state, plan));
    lines
}

/// Returns what the records of rke that were not written mean.
fn unwritten(state: &RunState, plan: &Plan) -> Option<String> {
    let mut steps = plan.stage(StageName::State).into_iter().flat_map(|stage| &stage.steps);
    let is_old = steps.any(|step| {
        !matches!(step.action, Action::UpdateKubeConfig { .. }) && Phase::of(state, step) != Phase::Done
    });
    is_old.then(|| {
        "rke's own records still hold the old certificates: run no `rke up` before they are written."
            .to_owned()
    })
}

/// Returns the nodes of steps, each once.
fn nodes<'a>(steps: impl Iterator<Item = &'a Step>, wanted: impl Fn(&Step) -> bool) -> Vec<&'a NodeName> {
    let mut nodes: Vec<&NodeName> = Vec::new();
    for node in steps.filter(|step| wanted(step)).filter_map(|step| step.node.as_ref()) {
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    nodes
}

/// Returns when the first of the certificates ends that some nodes were to exchange.
fn first_end(state: &RunState, plan: &Plan, (nodes, facts): (&[&NodeName], &Facts)) -> Option<Timestamp> {
    let steps = plan.steps().filter_map(|step| match &step.action {
        Action::Switch { files, .. } => {
            Some((step.node.as_ref().filter(|node| nodes.contains(node))?, files))
        }
        _ => None,
    });
    let ends = steps.flat_map(|(node, files)| {
        files.iter().filter_map(move |file| {
            let mut certificates = plan.certificates.iter();
            let certificate = certificates.find(|certificate| certificate.name == file.certificate)?;
            super::ends::old_end(state, certificate, (node, facts))
        })
    });
    ends.min()
}
