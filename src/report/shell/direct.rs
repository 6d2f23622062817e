//! The part of a runbook that is about certificates which certroll makes by itself: the script has their files only where a run
//! of certroll has laid them aside.

use crate::command::quote;
use crate::facts::Observation;
use crate::plan::{Action, Gate, NewFile, Stage, StageName, Step};

use super::Runbook;
use super::body::{run, settled};
use super::text::{Line, double_quoted};

/// What a reader has to know first.
pub(super) const HEADER: &str = "\
#
# New certificates and their keys are made by certroll alone. This script switches and restarts what a run of certroll has laid
# aside on the nodes and not switched: give it the name of that run (RUN=... sh runbook.sh). Without such files it stops at the
# stage `staging`, before anything is switched.
";

impl Runbook<'_> {
    /// Returns whether the script needs files that a run of certroll has laid aside.
    pub(super) fn needs_staged_files(&self) -> bool {
        self.plan.stage(StageName::Staging).is_some()
    }

    /// Returns the lines that go on if new files lie aside on the node, and else stop.
    pub(super) fn laid_aside(&self, files: &[NewFile], seen: &Observation) -> Vec<Line> {
        let folder = quote(&format!("{}/.certroll", seen.kubernetes_directory));
        let files: Vec<String> =
            files.iter().map(|file| format!("{folder}/\"$RUN\"/staged/{}", quote(&file.path))).collect();
        let services: Vec<&str> = self.plan.services.iter().map(|service| service.as_str()).collect();
        let services: String = services.iter().flat_map(|service| [" --service ", service]).collect();
        vec![
            Line::code(format!("present \"$node\" {} ||", files.join(" "))),
            Line::code(format!(
                "  stop \"$node: new certificates do not lie in .certroll/$RUN/staged; nothing was switched. certroll alone makes them. \
                 Run: certroll apply rotate --via direct -c cluster.yml{services}; it does the rest, too. \
                 If it stopped before it had switched, start this script with RUN=(the name of that run)\""
            )),
        ]
    }

    /// Returns the lines behind the last node of a stage: members that need each other are waited for together.
    pub(super) fn stage_end(stage: &Stage) -> Vec<Line> {
        if stage.name != StageName::EtcdQuorum {
            return Vec::new();
        }
        stage
            .nodes()
            .into_iter()
            .map(|node| Line::code(format!("etcd_healthy {}", quote(node.as_str()))))
            .collect()
    }
}

/// Returns the lines that switch a node's files, or put old ones back, and restart what uses them, behind their gate.
pub(super) fn switch(step: &Step, seen: &Observation) -> Vec<Line> {
    let (Action::Switch { containers, gate, .. } | Action::Restore { containers, gate, .. }) = &step.action
    else {
        return Vec::new();
    };
    let mut lines: Vec<Line> = match gate {
        Gate::Open | Gate::NoQuorum { .. } => Vec::new(),
        Gate::Etcd { members } => {
            members.iter().map(|node| Line::code(format!("etcd_healthy {}", quote(node.as_str())))).collect()
        }
        Gate::ApiServers { nodes } => nodes
            .iter()
            .map(|node| Line::code(format!("settled {} kube-apiserver", quote(node.as_str()))))
            .collect(),
    };
    let mut commands = step.action.commands(seen).into_iter();
    lines.extend(commands.next().iter().flat_map(run));
    for (container, command) in containers.iter().zip(commands) {
        lines.extend(run(&command));
        lines.push(settled(container));
        if container == "etcd" && *gate != Gate::Open {
            lines.push(Line::code("etcd_healthy \"$node\""));
        }
    }
    lines
}

/// Returns the lines in place of a step that would need the new private keys on the bastion.
pub(super) fn left_undone(action: &Action) -> Vec<Line> {
    let what = match action {
        Action::UpdateClusterState { .. } => {
            "what rke keeps in the API (kube-system/full-cluster-state) has the old certificates: the next `rke up` would put them back. certroll apply rotate --via direct --force makes and writes all anew.".to_owned()
        }
        Action::UpdateStateFile { path, .. } => {
            format!("{path} has the old certificates: the next `rke up` would put them back.")
        }
        Action::UpdateKubeConfig { path, .. } => format!("{path} has the old kube-admin pair."),
        Action::RestoreClusterState { .. } => {
            "what rke keeps in the API (kube-system/full-cluster-state) has the certificates of the run: the next `rke up` would put them back. certroll rollback writes it.".to_owned()
        }
        Action::RestoreBastionFile { path, .. } => {
            format!("{path} is as the run left it; its copy of before lies beside it.")
        }
        _ => return Vec::new(),
    };
    vec![Line::code(format!("say {}", double_quoted(&format!("   NOT DONE, for want of the keys: {what}"))))]
}
