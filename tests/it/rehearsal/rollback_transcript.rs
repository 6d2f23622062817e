//! What the operator sees of a run that failed, of its resume, and of the way back.

use certroll::sim::{Fault, Layout, RkeFiles};

use super::direct::{BRISK, SMALL};
use super::{Rehearsal, name, rehearse};

/// What differs from one run to the next, and what stands for it.
const FILTERS: [(&str, &str); 12] = [
    (r"/[^ `]*/(cluster\.rkestate|kube_config_cluster\.yml|cluster\.yml|state/)", "/home/operator/$1"),
    (r"\d{8}-\d{6}-[0-9a-f]{4}", "20261121-190502-7f3a"),
    (r"\b([Pp]lan|[Rr]un|run of) [0-9a-f]{4}\b", "$1 7f3a"),
    (r"\d{4}-\d{2}-\d{2}", "2026-11-21"),
    (r"\d{2}:\d{2}:\d{2}", "19:05:02"),
    (r"127\.\d+\.\d+\.\d+:\d+", "127.7.0.1:22"),
    (r"small-[0-9a-f]{12}", "small-adcd1a93e5f7"),
    (r"\bprocess \d+", "process 4711"),
    (r"\b\d+(\.\d+)? (ms|s)\b", "3 s"),
    (r"(.*) (waiting[ :].*|[a-z-]+: waiting for .*)\n", ""),
    // How wide a column is depends on how long things took, and on where this machine keeps temporary files.
    (r"(\S) {3,}", "$1   "),
    (r" +\n", "\n"),
];

#[test]
fn a_run_that_failed_is_gone_on_with_and_taken_back() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Healthy, |options| {
            options.rke_files = RkeFiles::Beside;
            options.pace = BRISK;
        })
        .await;
        lab.fleet.inject(&name("w-1"), Fault::LostAnswer { pattern: "backup.tar.new".to_owned() });
        let refusal = Fault::CommandFails {
            pattern: "docker restart -t 5 kubelet".to_owned(),
            status: 1,
            stderr: "Error response from daemon: no such thing".to_owned(),
        };
        lab.fleet.inject(&name("w-2"), refusal);
        // One at a time, or the nodes' lines would come in any order.
        let apply =
            ["apply", "--via", "direct", "--force", "--yes", "--parallel", "1", "--progress", "lines"];
        let failed = lab.certroll(&apply).await.expect(1);
        let retried = failed.stderr.lines().find(|line| line.contains("try 2 of")).unwrap().to_owned();
        lab.fleet.mend(&name("w-2"));
        let outlook = lab.certroll(&["apply", "--resume"]).await.expect(4);
        lab.certroll(&["apply", "--resume", "--yes", "--parallel", "1"]).await.expect(0);
        let runs = lab.certroll(&["runs", "-o", "json"]).await.expect(0).json();
        let run = runs["runs"][0]["run"].as_str().unwrap().to_owned();
        let shown = lab.certroll(&["runs", &run]).await.expect(0);
        let listed = lab.certroll(&["runs"]).await.expect(0);
        let review = lab.certroll(&["rollback"]).await.expect(4);
        let back = lab.certroll(&["rollback", "--yes", "--parallel", "1"]).await.expect(0);
        insta::with_settings!({ filters => FILTERS.to_vec() }, {
            insta::assert_snapshot!("step_retried", retried);
            insta::assert_snapshot!("resume_outlook", format!("{}--- stderr\n{}", outlook.stdout, outlook.stderr));
            insta::assert_snapshot!("run_of_two_attempts", shown.stdout);
            insta::assert_snapshot!("runs_with_two_attempts", listed.stdout);
            insta::assert_snapshot!("rollback_review", format!("{}--- stderr\n{}", review.stdout, review.stderr));
            let (_, summary) = back.stdout.split_once("\nRun ").unwrap();
            insta::assert_snapshot!("rollback_summary", format!("Run {summary}"));
        });
    });
}
