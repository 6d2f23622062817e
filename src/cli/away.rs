//! Nodes that are away when a plan is carried out that was made before: what becomes of it is said here.

use super::failure::{Failure, REFUSED};
use super::terminal::Terminal;
use crate::escape::shown;
use crate::event::RunState;
use crate::facts::Facts;
use crate::inventory::{NodeName, Role};
use crate::plan::{Away, Majority, Plan, Step, away};

/// Refuses to go on without nodes of etcd and the control plane, unless the operator waives them now, and says what is left out; `what`
/// says what it is that does not go on, `earlier` what attempts at its run there were.
///
/// The lock is taken on all nodes of the control plane that are there now.
pub(super) fn leave_out(
    plan: &mut Plan,
    facts: &Facts,
    (what, majority): (&str, Majority),
    earlier: Option<&RunState>,
    terminal: &Terminal,
) -> Result<(), Failure> {
    if majority == Majority::Waived {
        plan.majority = majority;
    }
    let away = away(plan, facts);
    let needed: Vec<&Away<'_>> = away.iter().filter(|away| away.forbids(plan, majority)).collect();
    if !needed.is_empty() {
        let nodes: Vec<String> = needed.iter().map(|away| in_words(away)).collect();
        let message = format!(
            "{what} without nodes of etcd or the control plane, and these cannot be looked at: {}",
            nodes.join(", ")
        );
        return Err(Failure::message(REFUSED, message)
            .hint(needed.iter().find_map(|away| away.unseen.hint.clone()))
            .hint(
                "when they are back, the same command goes on; where they are down for good and the others must be rescued, \
                 `--without-majority` leaves them as they are"
                    .to_owned(),
            ));
    }
    for away in &away {
        terminal.tell(&format!(
            "warning: node {} cannot be looked at: {}; {}",
            away.node.name,
            shown(&away.unseen.error),
            what_is_left(plan, &away.node.name, earlier)
        ));
        if let Some(hint) = &away.unseen.hint {
            terminal.tell(&format!("hint: {}", shown(hint)));
        }
    }
    if let Some(earlier) = earlier {
        warn_of_locks(plan, facts, &earlier.run, terminal);
    }
    let control_plane = facts.seen().filter(|(node, _)| node.has(Role::ControlPlane));
    plan.lock_nodes = control_plane.map(|(node, _)| node.name.clone()).collect();
    Ok(())
}

/// Names the nodes on which an earlier attempt may have left the lock of a run, and that cannot be asked for it now: once the run has
/// ended, nobody else gives it back.
fn warn_of_locks(plan: &Plan, facts: &Facts, run: &str, terminal: &Terminal) {
    let unseen = facts.nodes.iter().filter(|node| node.is_missed());
    for node in unseen.filter(|node| plan.lock_nodes.contains(&node.name)) {
        terminal.tell(&format!(
            "warning: the lock of run {0} may still lie on {1}: when {1} is back, `certroll apply --resume {0}` gives it back, or, once \
             that run has ended well, `--break-lock {0}` of the next one takes it away",
            shown(run),
            node.name
        ));
    }
}

/// Returns what an attempt leaves out that does nothing on a node.
fn what_is_left(plan: &Plan, node: &NodeName, earlier: Option<&RunState>) -> &'static str {
    let concerns = |step: &&Step| match &step.action {
        // Whoever rotates changes every node.
        action if action.is_rotation_by_others() => true,
        action => action.changes_something() && step.node.as_ref() == Some(node),
    };
    let stands = |step: &&Step| {
        let mut seen = earlier.into_iter().flat_map(|state| &state.steps);
        seen.any(|seen| seen.step == step.id && seen.stands())
    };
    let changes: Vec<&Step> = plan.steps().filter(concerns).collect();
    match changes.iter().filter(|step| stands(step)).count() {
        0 => {
            "its steps are not run, and it stays as it is: `certroll apply --resume` does them when it is back"
        }
        done if done < changes.len() => {
            "what is left of its steps is not run, and it stays as it is: `certroll apply --resume` does that when it is back"
        }
        _ => {
            "all that changes it was done by an earlier attempt, and only the check of it is left out: `certroll apply --resume` makes \
             up for that when it is back"
        }
    }
}

fn in_words(away: &Away<'_>) -> String {
    format!("{} ({})", away.node.name, shown(&away.unseen.error))
}
