use super::Stage;
use super::action::{Action, Guard};

/// Returns how long the stages will take, at least and at most, in seconds; rough figures from real hosts.
pub(super) fn expected_seconds(stages: &[Stage]) -> (u64, u64) {
    stages.iter().map(stage_seconds).fold((0, 0), |total, stage| (total.0 + stage.0, total.1 + stage.1))
}

/// Returns how long a stage will take, at least and at most, in seconds.
pub fn stage_seconds(stage: &Stage) -> (u64, u64) {
    let batches = stage.nodes().len().div_ceil(stage.max_unavailable.max(1)).max(1) as u64;
    let slowest = stage
        .steps
        .iter()
        .map(|step| step_seconds(&step.action))
        .fold((0, 0), |worst, (low, high)| (worst.0.max(low), worst.1.max(high)));
    (slowest.0 * batches, slowest.1 * batches)
}

/// Returns how long an action takes, at least and at most, in seconds.
fn step_seconds(action: &Action) -> (u64, u64) {
    match action {
        Action::Preflight
        | Action::Backup
        | Action::UpdateClusterState { .. }
        | Action::RestoreClusterState { .. } => (1, 5),
        Action::CopyFiles { .. } | Action::BringFiles { .. } | Action::AddKubeAdmin { .. } => (1, 3),
        Action::RotateByRancher { .. } | Action::RotateByOperator { .. } => (120, 600),
        // Seen with the real rke: 28 s on five hosts, 151 s where it waits for an API that is dead (§0.1).
        Action::RotateByRke { .. } => (30, 240),
        Action::Confirm { .. } | Action::Verify { .. } | Action::VerifyRestored { .. } => (2, 20),
        Action::Restart { guard: Guard::IfNeeded { patience, .. }, .. } => (1, patience.as_secs() + 30),
        Action::Restart { guard: Guard::Always, .. } => (5, 30),
        Action::RestartAgent { .. } => (2, 15),
        Action::LayAside { .. } => (1, 8),
        Action::Switch { containers, .. } | Action::Restore { containers, .. } => containers
            .iter()
            .map(|container| restart_seconds(container))
            .fold((1, 3), |(low, high), (least, most)| (low + least, high + most)),
        Action::ClearStaging { .. }
        | Action::KeepBastionFiles { .. }
        | Action::UpdateStateFile { .. }
        | Action::UpdateKubeConfig { .. }
        | Action::RestoreBastionFile { .. } => (0, 1),
        Action::Prove { .. } => (1, 30),
    }
}

/// Returns how long a component takes from its restart until it is healthy (§0.1, on two busy cores).
fn restart_seconds(container: &str) -> (u64, u64) {
    match container {
        "kube-apiserver" => (5, 30),
        "etcd" => (2, 15),
        _ => (1, 8),
    }
}
