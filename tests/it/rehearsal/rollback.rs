//! The way back: what a run has changed comes back byte for byte, and a rollback can itself be taken back.

use std::collections::BTreeMap;

use certroll::sim::{Layout, RkeFiles};

use super::direct::{BRISK, SMALL, TRIO, restarts, staging_is_gone};
use super::{KUBERNETES, Rehearsal, Trace, rehearse};

const DIRECT: [&str; 5] = ["apply", "--via", "direct", "--yes", "--force"];
const BACK: [&str; 2] = ["rollback", "--yes"];

/// Returns the files of every node, with owners and modes.
fn everything(lab: &Rehearsal) -> BTreeMap<String, BTreeMap<String, Trace>> {
    let nodes = lab.inventory.nodes.iter().map(|node| node.name.to_string());
    nodes.map(|node| (node.clone(), lab.files(&node, KUBERNETES))).collect()
}

#[test]
fn a_direct_run_is_taken_back_to_the_byte_and_its_rollback_too() {
    rehearse(async {
        let lab = Rehearsal::of(TRIO, Layout::Healthy, |options| {
            options.rke_files = RkeFiles::Beside;
            options.pace = BRISK;
        })
        .await;
        let state = lab.fleet.paths().rkestate.clone().unwrap();
        let read = |path: &std::path::Path| std::fs::read(path).unwrap();
        let (old, old_state) = (everything(&lab), read(&state));
        lab.certroll(&DIRECT).await.expect(0);
        let (new, new_state) = (everything(&lab), read(&state));
        assert_ne!(old, new);
        let before = restarts(&lab).len();

        lab.certroll(&BACK).await.expect(0);
        assert_eq!(everything(&lab), old);
        assert_eq!(read(&state), old_state);
        let back = restarts(&lab).split_off(before);
        assert_eq!(back, restarts(&lab)[..before], "in the order of the run itself");
        staging_is_gone(&lab);
        lab.certroll(&["check"]).await.expect(0);

        lab.certroll(&BACK).await.expect(0);
        assert_eq!(everything(&lab), new, "the rollback of a rollback");
        assert_eq!(read(&state), new_state);
        lab.certroll(&["check"]).await.expect(0);
    });
}

#[test]
fn a_plan_of_a_rollback_is_shown_and_nothing_is_done_without_a_yes() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Healthy, |options| options.pace = BRISK).await;
        lab.certroll(&["rollback"]).await.expect(4).says("no run of this cluster has changed anything");
        lab.certroll(&DIRECT).await.expect(0);
        let new = everything(&lab);
        lab.certroll(&["rollback"]).await.expect(4).shows("take back run").says("--yes");
        assert_eq!(everything(&lab), new);
    });
}
