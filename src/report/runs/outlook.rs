use std::fmt::Write as _;

use super::{Life, outcome};
use crate::escape::shown;
use crate::event::RunState;
use crate::inventory::NodeName;
use crate::plan::{Plan, Stage, StepId};
use crate::report::duration::{count, moment};
use crate::report::lines::names;
use crate::report::style::{Style, Tone};
use crate::report::wrap::paragraph;

/// Returns what a resume of a run will do: which steps stand as far as its journal tells, and which are left.
pub fn outlook(state: &RunState, plan: &Plan, style: Style) -> String {
    let via = plan.via.map(|via| format!(" via {via}")).unwrap_or_default();
    let mut text = format!(
        "{}   {}{via}   {}",
        style.paint(Tone::Strong, &format!("Run {}", shown(&state.run))),
        plan.procedure,
        shown(&plan.cluster)
    );
    if let Some(start) = state.started_at {
        let attempts = count(i64::from(state.attempt()), "attempt");
        let _ = write!(
            text,
            "\nbegun {} by {}, {} after {attempts}",
            moment(start),
            shown(&state.owner),
            outcome(state, Life::Over)
        );
    }
    text.push_str("\n\n");
    let stood = |id: &StepId| state.steps.iter().any(|step| step.step == *id && step.well_in.is_some());
    let (mut stand, mut steps) = (0, 0);
    let width = plan.stages.iter().map(|stage| stage.name.as_str().len()).max().unwrap_or_default();
    for stage in &plan.stages {
        let done = stage.steps.iter().filter(|step| stood(&step.id)).count();
        stand += done;
        steps += stage.steps.len();
        let _ = writeln!(text, "  {:<width$}   {}", stage.name.as_str(), left(stage, done, &stood));
    }
    let stands = format!(
        "{stand} of {} stand, as far as the journal tells; each looks at what there is before it does anything.",
        count(steps.try_into().unwrap_or(i64::MAX), "step")
    );
    let _ = writeln!(text, "\n{}", paragraph(&stands, style.width, 0));
    text
}

/// Returns what of a stage is left.
fn left(stage: &Stage, done: usize, stood: &impl Fn(&StepId) -> bool) -> String {
    if done == stage.steps.len() {
        return "done; looked at again".to_owned();
    }
    let mut nodes: Vec<&NodeName> = Vec::new();
    for node in stage.steps.iter().filter(|step| !stood(&step.id)).filter_map(|step| step.node.as_ref()) {
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    let steps = count((stage.steps.len() - done).try_into().unwrap_or(i64::MAX), "step");
    match nodes.as_slice() {
        [] => format!("{steps} left"),
        nodes => format!("{steps} left: {}", shown(&names(nodes.iter().copied()))),
    }
}
