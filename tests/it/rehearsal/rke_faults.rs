//! `--via rke` where something is not as it should be: a state that became another one, an rke that breaks off, a terminal that goes.

use std::path::Path;

use certroll::sim::{Layout, RkeFiles, RkeRun};
use serde_json::{Map, Value};

use super::direct::{BRISK, SMALL};
use super::faults::signal;
use super::rke::{Part, StandIn, cluster, is_well, only_run};
use super::{Ended, KUBERNETES, Rehearsal, rancher, rehearse};

/// An rke that complains and touches no node.
fn failing() -> Part {
    let last = "time=\"x\" level=fatal msg=\"CA Certificate or Key is empty\"\n";
    Part { last, status: 1, only_talks: true, ..Part::default() }
}

/// Writes a state of rke's with other certificates.
fn write_other(path: &Path, whole: &[u8], change: impl Fn(&mut Map<String, Value>)) {
    let mut state: Value = serde_json::from_slice(whole).unwrap();
    for half in ["desiredState", "currentState"] {
        change(state[half]["certificatesBundle"].as_object_mut().unwrap());
    }
    std::fs::write(path, state.to_string()).unwrap();
}

#[test]
fn a_state_that_a_failed_rke_has_made_is_neither_believed_nor_kept_nor_left_behind() {
    rehearse(async {
        let lab = cluster(Layout::Healthy).await;
        let state = lab.fleet.paths().rkestate.clone().unwrap();
        let whole = std::fs::read(&state).unwrap();
        std::fs::remove_file(&state).unwrap();
        let rke = StandIn::new("v0.2.8");
        let program = rke.program();
        let words = ["apply", "--via", "rke", "--rke-binary", &program, "--yes", "--force"];
        let (ended, _) = rke.run(&lab, &words, &[failing()]).await;
        ended.expect(1);
        write_other(&state, &whole, Map::clear);
        let half_made = std::fs::read(&state).unwrap();

        // Nobody plays rke's part: it is not called.
        let resumed = lab.certroll(&["apply", "--resume", "--yes", "--progress", "lines"]).await;
        resumed.expect(1).says("holds no kube-ca: rke was not run");
        let (run, _) = only_run(&lab).await;
        let kept = state.with_file_name(format!("cluster.rkestate.{run}"));
        assert!(!kept.exists(), "what rke made is no backup");

        lab.certroll(&["rollback", "--yes"]).await.expect(0);
        assert!(!state.exists());
        let folder = state.parent().unwrap();
        let mut entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        assert!(entries.any(|path| path.is_file() && std::fs::read(path).unwrap() == half_made), "set aside");
        is_well(&lab).await;
    });
}

#[test]
fn a_state_that_became_another_since_the_plan_was_made_is_not_given_to_rke() {
    rehearse(async {
        let lab = cluster(Layout::Healthy).await;
        let state = lab.fleet.paths().rkestate.clone().unwrap();
        let whole = std::fs::read(&state).unwrap();
        let rke = StandIn::new("v0.2.8");
        let (program, saved) = (rke.program(), lab.path("plan.json").display().to_string());
        let plan = ["plan", "--via", "rke", "--rke-binary", &program, "--force", "--save", &saved];
        lab.certroll(&plan).await.expect(0);
        let apply = ["apply", "--plan", &saved, "--yes", "--progress", "lines"];

        write_other(&state, &whole, |bundle| {
            bundle["kube-ca"] = bundle["kube-apiserver-requestheader-ca"].clone();
        });
        lab.certroll(&apply).await.expect(1).says("is of another CA than the nodes: rke was not run");
        std::fs::remove_file(&state).unwrap();
        lab.certroll(&apply).await.expect(1).says("is not there any more: rke was not run");
        std::fs::write(&state, &whole).unwrap();
        let (ended, calls) = rke.run(&lab, &["apply", "--resume", "--yes"], &[Part::default()]).await;
        ended.expect(0);
        assert_eq!(calls.len(), 1);
        is_well(&lab).await;
    });
}

#[test]
fn what_an_rke_has_written_that_broke_off_is_taken_back_unless_an_archive_is_missing() {
    rehearse(async {
        let lab = cluster(Layout::Healthy).await;
        let nodes = ["cp-1", "w-1", "w-2"];
        let files = nodes.map(|node| lab.files(node, KUBERNETES));
        let rke = StandIn::new("v0.2.8");
        let program = rke.program();
        let words = ["apply", "--via", "rke", "--rke-binary", &program, "--yes", "--force"];
        let run = RkeRun { breaks_off: true, ..RkeRun::default() };
        let part = Part { run, last: "panic\n", status: 2, ..Part::default() };
        let (ended, _) = rke.run(&lab, &words, &[part]).await;
        ended.expect(1);
        let (run, _) = only_run(&lab).await;
        let archive = format!("{KUBERNETES}/.certroll/{run}/backup.tar");
        let written = lab.files("w-1", KUBERNETES);
        assert_ne!(written, files[1]);

        lab.root("w-1", &format!("mv -f {archive} {archive}.away")).await;
        lab.certroll(&["rollback", "--yes"]).await.expect(4).shows("its backup is not there");
        lab.certroll(&["rollback", "--yes", "--force"]).await.expect(0);
        assert_eq!(lab.files("w-1", KUBERNETES), written, "it is left as it is");
        assert_eq!(lab.files("cp-1", KUBERNETES), files[0]);

        lab.root("w-1", &format!("mv -f {archive}.away {archive}")).await;
        lab.certroll(&["rollback", &run, "--yes"]).await.expect(0).shows("cannot be told");
        assert_eq!(nodes.map(|node| lab.files(node, KUBERNETES)), files);
        is_well(&lab).await;
    });
}

#[test]
fn a_terminal_that_goes_lets_rke_come_to_its_end() {
    rehearse(async {
        let lab = cluster(Layout::Healthy).await;
        let rke = StandIn::new("v0.2.8");
        let program = rke.program();
        let words =
            ["apply", "--via", "rke", "--rke-binary", &program, "--yes", "--force", "--progress", "lines"];
        let child = lab.hearing_hangups(&words).spawn().unwrap();
        rke.is_called().await;
        // Once by the system, once by the shell.
        signal(&child, "HUP").await;
        signal(&child, "HUP").await;
        rke.answer(&lab, &Part::default()).await;
        let ended = Ended::of(child.wait_with_output().await.unwrap()).expect(130);
        ended.says("running steps end").says("rke is done after");
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
        lab.certroll(&["apply", "--resume", "--yes"]).await.expect(0);
        is_well(&lab).await;
    });
}

#[test]
fn rke_is_let_near_a_cluster_with_agents_of_ranchers_where_its_own_files_are_there() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Expired028, |options| {
            options.rke_files = RkeFiles::Beside;
            options.pace = BRISK;
            options.rancher = Some(rancher(&[]));
        })
        .await;
        let rke = StandIn::new("v0.2.8");
        let program = rke.program();
        let plan = ["plan", "--via", "rke", "--rke-binary", &program];
        lab.certroll(&plan).await.expect(0).shows("that rke built and Rancher imported");
        let selected = [plan.as_slice(), &["-n", "cp-1,w-1"]].concat();
        lab.certroll(&selected).await.expect(4).shows("those too that `-n` leaves out").shows("backup: w-2");
        for file in [&lab.fleet.paths().rkestate, &lab.fleet.paths().kube_config] {
            std::fs::remove_file(file.as_ref().unwrap()).unwrap();
        }
        lab.certroll(&plan).await.expect(4).shows("Rancher launched this cluster");
    });
}
