use std::fmt::Write as _;

use crate::escape::shown;
use crate::event::{RunOutcome, RunState};
use crate::plan::{Plan, Procedure};

/// The findings of a rollback's plan that tell what it does not undo.
const NOT_UNDONE: [&str; 8] = [
    "added-by-others",
    "api-state-stays",
    "backup-missing",
    "copy-missing",
    "node-gone",
    "rancher-files-stay",
    "rancher-reverts-rollback",
    "rke-reverts-rollback",
];

/// Returns what a rollback could not undo, and what will become of it.
pub(super) fn text(plan: &Plan) -> String {
    if plan.procedure != Procedure::Rollback {
        return String::new();
    }
    let lines = plan.findings.iter().filter(|finding| NOT_UNDONE.contains(&finding.code.as_str()));
    let mut text = String::new();
    for finding in lines {
        if text.is_empty() {
            text.push_str("\nNot undone:\n");
        }
        let node = finding.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
        let _ = writeln!(text, "  {}", shown(&format!("{node}{}", finding.message)));
    }
    text
}

/// Returns what comes after a rollback; `None` for other runs.
pub(super) fn next(state: &RunState, plan: &Plan) -> Option<String> {
    let undone = plan.undoes.as_deref()?;
    Some(match state.outcome {
        Some(RunOutcome::Done) if !plan.misses_nodes() => format!(
            "`certroll check` looks at the cluster again; `certroll rollback {}` takes this rollback back",
            state.run
        ),
        Some(RunOutcome::Done) => {
            format!("`certroll rollback {undone}` once more, when the nodes that were left out are back")
        }
        _ => format!(
            "put the cause right, then `certroll apply --resume {}` goes on: what stands is recognised",
            state.run
        ),
    })
}
