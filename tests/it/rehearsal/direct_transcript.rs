//! What the operator sees of a rotation with the cluster's own CA.

use certroll::sim::{Layout, RkeFiles};

use super::direct::{BRISK, SMALL, certificates};
use super::{Rehearsal, rehearse};

/// What differs from one run to the next, and what stands for it.
const FILTERS: [(&str, &str); 10] = [
    (r"/[^ `]*/(cluster\.rkestate|kube_config_cluster\.yml|cluster\.yml)", "/home/operator/$1"),
    (r"\d{8}-\d{6}-[0-9a-f]{4}", "20261121-190502-7f3a"),
    (r"\b(Plan|Run) [0-9a-f]{4}\b", "$1 7f3a"),
    (r"\d{4}-\d{2}-\d{2}", "2026-11-21"),
    (r"\d{2}:\d{2}:\d{2}", "19:05:02"),
    (r"127\.\d+\.\d+\.\d+:\d+", "127.7.0.1:22"),
    (r"\b(after|in) \d+(\.\d+)? (s|min)\b", "$1 3 s"),
    (r"(.*) (waiting[ :].*|[a-z-]+: waiting for .*)\n", ""),
    // How wide a column is depends on where this machine keeps temporary files.
    (r"(     ~ .*?) {3,}", "$1   "),
    (r" +\n", "\n"),
];

#[test]
fn plan_and_run_of_a_small_expired_cluster() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Expired028, |options| {
            options.rke_files = RkeFiles::Beside;
            options.pace = BRISK;
        })
        .await;
        let plan = lab.certroll(&["plan", "--via", "direct"]).await.expect(0);
        // One at a time, or the nodes' lines would come in any order.
        let words = ["apply", "--via", "direct", "--yes", "--parallel", "1", "--progress", "lines"];
        let before = certificates(&lab, "cp-1")["kube-node"].not_after.strftime("%F").to_string();
        let run = lab.certroll(&words).await.expect(0);
        let after = certificates(&lab, "cp-1")["kube-node"].not_after.strftime("%F").to_string();
        let run = run.shows(&format!("{before} -> {after}"));
        insta::with_settings!({ filters => FILTERS.to_vec() }, {
            insta::assert_snapshot!("direct_plan", plan.stdout);
            insta::assert_snapshot!("direct_run", run.stderr);
            let (_, summary) = run.stdout.split_once("\nRun ").unwrap();
            insta::assert_snapshot!("direct_summary", format!("Run {summary}"));
        });
    });
}
