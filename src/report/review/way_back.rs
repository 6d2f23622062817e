use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Review;
use super::markdown::{STYLE, cell, code};
use crate::command::quote;
use crate::facts::Observation;
use crate::inventory::{NodeName, Role};
use crate::pki::Service;
use crate::plan::{Action, Plan, RUN_VARIABLE, Stage, StageName, Step, TmpFolder, kube_admin_paths};
use crate::report::names::folded;

/// Returns how to take the plan back without certroll: the backup over the folder, what was added away, restarts.
pub(super) fn way_back(review: &Review<'_>) -> String {
    let plan = review.plan;
    let mut text = "## How to take it back by hand\n\n".to_owned();
    let backups = plan.stage(StageName::Backup).map(Stage::nodes).unwrap_or_default();
    if backups.is_empty() {
        text.push_str(
            "No file is changed: containers were restarted, and there is nothing to take back.\n\n",
        );
        return text;
    }
    let _ = writeln!(text, "As root, with the run's name in `{RUN_VARIABLE}` (`certroll runs` lists it).\n");
    let switches = plan.steps().any(|step| matches!(step.action, Action::Switch { .. }));
    let rotates = plan.stage(StageName::Rotate).is_some();
    if rotates {
        text.push_str(
            "Who made the new certificates keeps them: Rancher or rke put them back at the next update of the cluster, \
             so this way is for a rotation that broke the cluster. Go node by node, and wait until etcd is healthy before the next.\n\n",
        );
    }
    if switches {
        text.push_str(
            "Old and new certificates are of the same CA, so nodes with either work together. Old ones that have expired help \
             nobody: then go forward instead.\n\n**First the files**, on all nodes; nothing is restarted by that.\n\n",
        );
    }
    let removals = removals(review);
    let mut groups = Groups::default();
    for node in backups {
        let Some(seen) = observation(review, node) else { continue };
        let directory = quote(&seen.kubernetes_directory);
        let mut commands =
            vec![format!("tar -C {directory} -xpf {directory}/.certroll/\"${RUN_VARIABLE}\"/backup.tar")];
        commands.extend(removals.get(node).cloned());
        commands.extend(retired(plan, node, &directory));
        if rotates && !switches {
            commands.push(restart(&mut services(seen)));
        }
        groups.add(node, commands);
    }
    groups.write(&mut text, review, "On");
    if switches {
        text.push_str(&restarts(review));
        text.push_str(&state(plan));
    }
    text
}

/// Commands with the nodes on which they are the same.
#[derive(Default)]
struct Groups<'a>(Vec<(Vec<&'a NodeName>, Vec<String>)>);

impl<'a> Groups<'a> {
    fn add(&mut self, node: &'a NodeName, commands: Vec<String>) {
        match self.0.iter_mut().find(|(_, known)| *known == commands) {
            Some((nodes, _)) => nodes.push(node),
            None => self.0.push((vec![node], commands)),
        }
    }

    fn write(self, text: &mut String, review: &Review<'_>, preposition: &str) {
        for (nodes, commands) in self.0 {
            let names = cell(&folded(&nodes, review.facts.nodes.len(), STYLE));
            let _ = writeln!(text, "{preposition} {names}:\n");
            text.push_str(&code(&commands));
        }
    }
}

fn observation<'a>(review: &Review<'a>, node: &NodeName) -> Option<&'a Observation> {
    review.facts.node(node).and_then(|node| node.observation())
}

/// Returns the components of RKE that run on a node.
fn services(seen: &Observation) -> Vec<&str> {
    let names = seen.containers.iter().map(|container| container.name.as_str());
    names.filter(|name| name.parse::<Service>().is_ok()).collect()
}

fn restart(names: &mut [&str]) -> String {
    names.sort_unstable();
    format!("docker restart {}", names.join(" "))
}

/// Returns the restarts in the order that keeps a cluster alive: that of the plan.
fn restarts(review: &Review<'_>) -> String {
    let mut text = "**Then the restarts**, in this order.\n\n".to_owned();
    let of = |stages: &[StageName]| {
        let mut groups = Groups::default();
        for stage in review.plan.stages.iter().filter(|stage| stages.contains(&stage.name)) {
            for step in &stage.steps {
                let (Some(node), Action::Switch { containers, .. }) = (&step.node, &step.action) else {
                    continue;
                };
                if !containers.is_empty() {
                    groups.add(
                        node,
                        containers.iter().map(|name| format!("docker restart {}", quote(name))).collect(),
                    );
                }
            }
        }
        groups
    };
    let member = review.facts.nodes.iter().any(|node| node.has(Role::Etcd));
    if member {
        text.push_str(
            "etcd, one member at a time; go on when each is healthy: `docker exec -e ETCDCTL_API=3 etcd etcdctl endpoint health`. \
             Where most members are down, restart those at once.\n\n",
        );
        of(&[StageName::EtcdQuorum, StageName::Etcd]).write(&mut text, review, "One after the other on");
    }
    text.push_str(
        "Control plane nodes, one at a time; go on when its kube-apiserver answers. Then workers.\n\n",
    );
    of(&[StageName::ControlPlane]).write(&mut text, review, "One after the other on");
    of(&[StageName::Workers]).write(&mut text, review, "On");
    text
}

/// Returns how to take back what was written into what rke keeps.
fn state(plan: &Plan) -> String {
    let mut text = String::new();
    for step in plan.steps() {
        let line = match &step.action {
            Action::UpdateClusterState { nodes, .. } => {
                let names = nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" ");
                format!(
                    "what the API held lies in `.certroll/${RUN_VARIABLE}/` on one of {} (`full-cluster-state.json`, `secret-*.json`); \
                     put it back with `kubectl`. It holds private keys",
                    cell(&names)
                )
            }
            Action::UpdateStateFile { path, .. } | Action::UpdateKubeConfig { path, .. } => {
                format!(
                    "the old `{}` lies beside it, if there was one, and is named after the run",
                    cell(path)
                )
            }
            _ => continue,
        };
        let _ = writeln!(text, "- {line}.");
    }
    if text.is_empty() {
        text
    } else {
        format!("**Last, what rke keeps**, or the next `rke up` brings the new ones back:\n\n{text}\n")
    }
}

/// Returns the commands that put back what the kubelet was to make anew.
fn retired(plan: &Plan, node: &NodeName, directory: &str) -> Vec<String> {
    let steps = plan.steps().filter(|step| step.node.as_ref() == Some(node));
    let paths = steps.filter_map(|step| match &step.action {
        Action::Switch { retired, .. } => Some(retired),
        _ => None,
    });
    let put_back = |path: &String| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let kept = format!("{directory}/.certroll/\"${RUN_VARIABLE}\"/retired/{}", quote(name));
        format!("cp -p {kept} {}", quote(path))
    };
    paths.flatten().map(put_back).collect()
}

/// Returns the command that takes away what a plan adds on each node: single files, or the folder where it makes that.
fn removals(review: &Review<'_>) -> BTreeMap<NodeName, String> {
    let mut removals: BTreeMap<NodeName, String> = BTreeMap::new();
    for step in review.plan.steps() {
        let Some(node) = &step.node else { continue };
        let Some(seen) = observation(review, node) else { continue };
        let Some((folder, paths)) = added(step, seen) else { continue };
        match folder {
            TmpFolder::Made => {
                removals.insert(node.clone(), format!("rm -rf {}", quote(&seen.tmp_directory())));
            }
            TmpFolder::Present if paths.is_empty() => {}
            TmpFolder::Present => {
                let command = removals.entry(node.clone()).or_insert_with(|| "rm -f".to_owned());
                for path in &paths {
                    let _ = write!(command, " {}", quote(path));
                }
            }
        }
    }
    removals
}

/// Returns the full paths of the files that a step adds, and whether it makes the folder for them.
fn added(step: &Step, seen: &Observation) -> Option<(TmpFolder, Vec<String>)> {
    match &step.action {
        Action::CopyFiles { folder, copies } | Action::BringFiles { folder, copies, .. } => {
            Some((*folder, copies.iter().map(|copy| copy.destination.clone()).collect()))
        }
        Action::AddKubeAdmin { folder, .. } => {
            Some((*folder, kube_admin_paths(&seen.kubernetes_directory).to_vec()))
        }
        Action::Switch { files, .. } => {
            let paths = files.iter().map(|file| format!("{}/{}", seen.kubernetes_directory, file.path));
            let is_new = |path: &String| !seen.files.iter().any(|file| file.path == *path);
            Some((TmpFolder::Present, paths.filter(is_new).collect()))
        }
        _ => None,
    }
}
