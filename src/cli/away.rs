//! Nodes that are away when a plan is carried out that was made before: what becomes of it is said here.

use super::failure::{Failure, REFUSED};
use super::terminal::Terminal;
use crate::facts::Facts;
use crate::inventory::Role;
use crate::plan::{Away, Majority, Plan, away};
use crate::report::escape::shown;

/// Refuses to go on without nodes of etcd and the control plane, unless the operator waives them now, and says what is left out; `what`
/// says what it is that does not go on.
///
/// The lock is taken on all nodes of the control plane that are there now.
pub(super) fn leave_out(
    plan: &mut Plan,
    facts: &Facts,
    (what, majority): (&str, Majority),
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
            "warning: node {} cannot be looked at: {}; its steps are not run, and it stays as it is: `certroll apply --resume` does them \
             when it is back",
            away.node.name,
            shown(&away.unseen.error)
        ));
        if let Some(hint) = &away.unseen.hint {
            terminal.tell(&format!("hint: {}", shown(hint)));
        }
    }
    let control_plane = facts.seen().filter(|(node, _)| node.has(Role::ControlPlane));
    plan.lock_nodes = control_plane.map(|(node, _)| node.name.clone()).collect();
    Ok(())
}

fn in_words(away: &Away<'_>) -> String {
    format!("{} ({})", away.node.name, shown(&away.unseen.error))
}
