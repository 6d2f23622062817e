//! The way back: what a run has changed comes back byte for byte, and a rollback can itself be taken back.

use std::collections::BTreeMap;

use certroll::sim::{Fault, Layout, RkeFiles};

use super::direct::{BRISK, SMALL, TRIO, restarts, staging_is_gone};
use super::{KUBERNETES, Rehearsal, Trace, name, rancher, rehearse};

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

/// Returns the name of the newest run.
async fn newest(lab: &Rehearsal) -> String {
    let runs = lab.certroll(&["runs", "-o", "json"]).await.expect(0).json();
    runs["runs"][0]["run"].as_str().unwrap().to_owned()
}

#[test]
fn a_backup_whose_leaves_have_expired_is_not_brought_back_unless_it_is_insisted_on() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Expired028, |options| options.pace = BRISK).await;
        let old = everything(&lab);
        lab.certroll(&["apply", "--via", "direct", "--yes"]).await.expect(0);
        let new = everything(&lab);
        let effects = lab.effects().len();
        lab.certroll(&BACK)
            .await
            .expect(4)
            .shows("has expired")
            .shows("kube-node (")
            .shows("go forward instead");
        assert_eq!(lab.effects().len(), effects, "a refusal changes nothing");
        assert_eq!(everything(&lab), new);

        lab.certroll(&["rollback", "--yes", "--force"])
            .await
            .expect(0)
            .shows("no component is asked whether it is healthy")
            .shows("what rke keeps in the API stays as the run wrote it");
        assert_eq!(everything(&lab), old);
        // And forward again: nothing that was done by force is in the way.
        lab.certroll(&["apply", "--via", "direct", "--yes"]).await.expect(0);
        lab.certroll(&["check"]).await.expect(0);
    });
}

#[test]
fn what_others_have_changed_since_is_named_and_not_overwritten_unasked() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Healthy, |options| options.pace = BRISK).await;
        let old = everything(&lab);
        lab.certroll(&DIRECT).await.expect(0);
        lab.root(
            "cp-1",
            "cd /etc/kubernetes/ssl; echo '# mine' >>kube-proxy.pem; echo mine >others.pem; chmod 600 others.pem",
        )
        .await;
        let new = everything(&lab);
        lab.certroll(&BACK)
            .await
            .expect(4)
            .shows("changed by others since the run: ssl/kube-proxy.pem")
            .shows("left alone: ssl/others.pem");
        assert_eq!(everything(&lab), new);
        lab.certroll(&["rollback", "--yes", "--force"]).await.expect(0).shows("ssl/others.pem");
        let mut after = everything(&lab);
        assert!(
            after.get_mut("cp-1").unwrap().remove("ssl/others.pem").is_some(),
            "it is not ours to remove"
        );
        assert_eq!(after, old);
    });
}

#[test]
fn files_that_a_repair_added_go_and_the_folder_with_them() {
    rehearse(async {
        for layout in [Layout::LegacyTmpMissing, Layout::LegacyExpired] {
            let lab = Rehearsal::with(layout, "/", |options| options.pace = BRISK).await;
            let old = everything(&lab);
            lab.certroll(&["apply", "repair", "--yes"]).await.expect(0);
            let new = everything(&lab);
            assert_ne!(new, old);
            let before = restarts(&lab).len();
            lab.certroll(&BACK).await.expect(0);
            assert_eq!(everything(&lab), old, "{layout:?}");
            let folder = lab.root("cp-1", "[ ! -d /etc/kubernetes/.tmp ] || echo there").await;
            assert_eq!(folder.trim() == "there", layout == Layout::LegacyExpired);
            assert_eq!(restarts(&lab).len(), before, "nothing uses the bundle");
            lab.certroll(&BACK).await.expect(0);
            assert_eq!(everything(&lab), new, "{layout:?}");
        }
    });
}

#[test]
fn a_rotation_by_rancher_is_left_to_rancher_unless_its_files_are_asked_for() {
    rehearse(async {
        let lab = Rehearsal::with_rancher(Layout::LegacyTmpMissing, rancher(&[])).await;
        lab.with_token(&["apply", "--via", "rancher", "--yes"]).await.expect(0);
        let new = everything(&lab);
        lab.certroll(&BACK).await.expect(0).shows("keeps the new certificates").shows("Not undone:");
        for (node, files) in everything(&lab) {
            let ssl = |files: &BTreeMap<String, Trace>| -> Vec<(String, Trace)> {
                let ssl = files.iter().filter(|(path, _)| path.starts_with("ssl/"));
                ssl.map(|(path, trace)| (path.clone(), trace.clone())).collect()
            };
            assert_eq!(ssl(&files), ssl(&new[&node]), "{node}");
        }
        lab.certroll(&BACK).await.expect(0);
        assert_eq!(everything(&lab), new);
    });
}

#[test]
fn the_files_of_a_rotation_by_rancher_come_back_where_they_are_asked_for() {
    rehearse(async {
        let lab = Rehearsal::with_rancher(Layout::Healthy, rancher(&[])).await;
        let old = everything(&lab);
        lab.with_token(&["apply", "--via", "rancher", "--yes", "--force"]).await.expect(0);
        lab.certroll(&BACK).await.expect(0).says("Nothing to do").shows("--restore-rancher-files");
        lab.certroll(&["rollback", "--yes", "--restore-rancher-files"])
            .await
            .expect(0)
            .shows("Rancher keeps the new certificates in its own state");
        assert_eq!(everything(&lab), old);
    });
}

#[test]
fn old_backups_are_listed_and_pruned_when_asked_for() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Healthy, |options| options.pace = BRISK).await;
        let mut runs = Vec::new();
        for _ in 0..3 {
            lab.certroll(&DIRECT).await.expect(0);
            runs.push(newest(&lab).await);
        }
        let folders = |run: &str| {
            let prefix = format!("{KUBERNETES}/.certroll/{run}/");
            let has = |node: &&certroll::inventory::Node| {
                let files = lab.fleet.node(&node.name).unwrap().files();
                files.iter().any(|file| file.path.starts_with(&prefix))
            };
            lab.inventory.nodes.iter().filter(has).count()
        };
        let listed = lab.certroll(&["rollback", "--list", "-o", "json"]).await.expect(0).json();
        let named: Vec<&str> =
            listed["backups"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap()).collect();
        assert_eq!(named, [runs[2].as_str(), &runs[1], &runs[0]]);
        assert!(listed["backups"][0]["bytes"].as_u64().unwrap() > 10_000);
        lab.certroll(&["rollback", "--list"]).await.expect(0).shows(&runs[0]).shows("KiB");

        lab.certroll(&["rollback", "--keep", "1"]).await.expect(4).shows("goes").says("--yes");
        assert_eq!(folders(&runs[0]), 3, "nothing goes without a yes");
        lab.certroll(&["rollback", "--keep", "1", "--yes"]).await.expect(0).says("2 runs are gone");
        assert_eq!([folders(&runs[0]), folders(&runs[1]), folders(&runs[2])], [0, 0, 3]);
        lab.certroll(&BACK).await.expect(0);
        lab.certroll(&["rollback", &runs[0], "--yes"]).await.expect(4).shows("its backup is not there");
    });
}

/// A rollback that stops right after its first files came back goes on where it was.
#[test]
fn a_rollback_that_failed_on_the_way_is_resumed() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Healthy, |options| options.pace = BRISK).await;
        let old = everything(&lab);
        lab.certroll(&DIRECT).await.expect(0);
        let fault = Fault::CommandFails {
            pattern: "docker restart -t 5 kube-controller-manager".to_owned(),
            status: 1,
            stderr: "Error response from daemon: no such thing".to_owned(),
        };
        lab.fleet.inject(&name("cp-1"), fault);
        lab.certroll(&BACK).await.expect(1).shows("apply --resume");
        assert_ne!(everything(&lab), old);
        lab.fleet.mend(&name("cp-1"));
        lab.certroll(&["apply", "--resume", "--yes"]).await.expect(0);
        assert_eq!(everything(&lab), old);
        staging_is_gone(&lab);
        lab.certroll(&["check"]).await.expect(0);
    });
}

/// A run that stopped at its first switch has laid keys aside on all nodes; its rollback leaves none of them, wherever it came to.
#[test]
fn keys_that_were_laid_aside_go_from_every_node() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Healthy, |options| options.pace = BRISK).await;
        let old = everything(&lab);
        let fault = Fault::CommandFails {
            pattern: "prepare()".to_owned(),
            status: 1,
            stderr: "mv: Input/output error".to_owned(),
        };
        lab.fleet.inject(&name("cp-1"), fault);
        lab.certroll(&DIRECT).await.expect(1);
        lab.fleet.mend(&name("cp-1"));
        let staged = |node: &str| {
            let files = lab.fleet.node(&name(node)).unwrap().files();
            files.iter().filter(|file| file.path.contains("/staged/")).count()
        };
        assert_eq!(["w-1", "w-2"].map(staged), [4, 4]);
        let plan = ["plan", "--via", "direct", "-o", "json"];
        assert!(lab.certroll(&plan).await.expect(0).stdout.contains("unfinished-run"));

        lab.fleet.inject(&name("w-2"), Fault::Unreachable);
        lab.certroll(&BACK)
            .await
            .expect(1)
            .shows("remove the keys that were laid aside")
            .shows("keys that the run laid aside may lie there");
        lab.fleet.mend(&name("w-2"));
        assert_eq!(["w-1", "w-2"].map(staged), [0, 4]);
        let run = newest_undone(&lab).await;
        lab.certroll(&["rollback", &run, "--yes"]).await.expect(0);
        staging_is_gone(&lab);
        assert_eq!(everything(&lab), old);
        assert!(!lab.certroll(&plan).await.expect(0).stdout.contains("unfinished-run"));
        lab.certroll(&["rollback", &run, "--yes"]).await.expect(0).says("Nothing to do");
    });
}

/// A run that stopped before its first switch is the newest that left something: the one before it stays as it is.
#[test]
fn a_run_that_laid_keys_aside_and_no_more_is_the_one_that_is_taken_back() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Healthy, |options| options.pace = BRISK).await;
        lab.certroll(&DIRECT).await.expect(0);
        let rotated = everything(&lab);
        let before = restarts(&lab).len();
        let fault = Fault::CommandFails {
            pattern: "tar -C /etc/kubernetes/.certroll/\"$RUN\"/staged -xf -".to_owned(),
            status: 1,
            stderr: "tar: write error: Input/output error".to_owned(),
        };
        lab.fleet.inject(&name("w-2"), fault);
        lab.certroll(&DIRECT).await.expect(1);
        lab.fleet.mend(&name("w-2"));
        let staged = lab.fleet.node(&name("w-1")).unwrap().files();
        assert!(staged.iter().any(|file| file.path.contains("/staged/")));
        let run = newest(&lab).await;

        lab.certroll(&BACK).await.expect(0).shows(&run).shows("remove the keys that were laid aside");
        assert_eq!(newest_undone(&lab).await, run);
        staging_is_gone(&lab);
        assert_eq!(everything(&lab), rotated);
        assert_eq!(restarts(&lab).len(), before);
    });
}

/// Returns the run that the newest one takes back.
async fn newest_undone(lab: &Rehearsal) -> String {
    let runs = lab.certroll(&["runs", "-o", "json"]).await.expect(0).json();
    runs["runs"][0]["undoes"].as_str().unwrap().to_owned()
}
