use super::count_of;
use crate::plan::{Action, Guard, Plan};

/// What the steps of a plan amount to.
#[derive(Debug, Default)]
struct Totals {
    files: usize,
    made: usize,
    switched: usize,
    restored: usize,
    restarts: usize,
    possible_restarts: usize,
    calls: usize,
    rke_runs: usize,
    records: usize,
}

impl Totals {
    fn of(plan: &Plan) -> Self {
        let made = plan.certificates.iter().filter(|certificate| certificate.leaf().is_some()).count();
        let mut totals = Self { made, ..Self::default() };
        for step in plan.steps() {
            match &step.action {
                Action::CopyFiles { copies, .. } | Action::BringFiles { copies, .. } => {
                    totals.files += copies.len();
                }
                Action::AddKubeAdmin { .. } => totals.files += 2,
                Action::Restart { containers, guard: Guard::Always, .. } => {
                    totals.restarts += containers.len();
                }
                Action::Restart { containers, .. } => totals.possible_restarts += containers.len(),
                Action::RestartAgent { .. } => totals.restarts += 1,
                Action::RotateByRancher { .. } => totals.calls += 1,
                Action::RotateByRke { .. } => totals.rke_runs += 1,
                Action::Switch { files, containers, .. } => {
                    totals.switched += files.len();
                    totals.restarts += containers.len();
                }
                Action::Restore { wanted, containers, .. } => {
                    totals.restored += wanted.count();
                    totals.restarts += containers.len();
                }
                Action::UpdateClusterState { .. }
                | Action::RestoreClusterState { .. }
                | Action::RestoreBastionFile { .. }
                | Action::UpdateStateFile { .. }
                | Action::UpdateKubeConfig { .. } => totals.records += 1,
                Action::Preflight
                | Action::Backup
                | Action::KeepBastionFiles { .. }
                | Action::LayAside { .. }
                | Action::Prove { .. }
                | Action::ClearStaging { .. }
                | Action::RotateByOperator { .. }
                | Action::Confirm { .. }
                | Action::Verify { .. }
                | Action::VerifyRestored { .. } => {}
            }
        }
        totals
    }
}

/// Returns what a plan amounts to, in a sentence.
pub(super) fn totals(plan: &Plan) -> String {
    let totals = Totals::of(plan);
    let mut parts = Vec::new();
    if totals.made > 0 {
        parts.push(format!("{} made", count_of(totals.made, "certificate")));
    }
    if totals.switched > 0 {
        parts.push(format!("{} switched", count_of(totals.switched, "file")));
    }
    if totals.restored > 0 {
        parts.push(format!("{} put back or removed", count_of(totals.restored, "file")));
    }
    if totals.files > 0 {
        parts.push(format!("{} added", count_of(totals.files, "file")));
    }
    if totals.restarts > 0 {
        parts.push(count_of(totals.restarts, "restart"));
    }
    if totals.possible_restarts > 0 {
        let more = if totals.restarts > 0 { "more restart" } else { "restart" };
        parts.push(format!("up to {}", count_of(totals.possible_restarts, more)));
    }
    if totals.calls > 0 {
        let calls = count_of(totals.calls, "call");
        parts.push(format!("{calls} of Rancher"));
    }
    if totals.rke_runs > 0 {
        parts.push("1 run of rke".to_owned());
    }
    if totals.records > 0 {
        parts.push(format!("rke's state written in {}", count_of(totals.records, "place")));
    }
    let steps = count_of(plan.steps().count(), "step");
    if parts.is_empty() { format!("{steps}.") } else { format!("{steps}: {}.", parts.join(", ")) }
}

/// Returns how long a plan will take, in a unit that fits.
pub(super) fn expected((least, most): (u64, u64)) -> String {
    if most <= 120 {
        return format!("{least} to {most} s");
    }
    match (least.div_ceil(60), most.div_ceil(60)) {
        (least, most) if least == most => format!("{most} min"),
        (least, most) => format!("{least} to {most} min"),
    }
}
