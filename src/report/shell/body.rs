//! The body of a runbook: lock, stages and steps in the order of the plan.

use std::fmt::Write as _;

use crate::command::{Command, quote};
use crate::facts::{Observation, certificates_of_container, expected_containers};
use crate::inventory::NodeName;
use crate::pki::Service;
use crate::plan::{Action, CertificateBefore, FileCopy, Guard, Stage, Step, kube_admin_paths};

use super::Runbook;
use super::direct::{left_undone, switch};
use super::text::{Line, comment, document, double_quoted, inside_double_quotes, render};
use crate::escape::shown;
use crate::report::review::rke_command;

impl Runbook<'_> {
    /// Returns the part that does something.
    pub(super) fn body(&self) -> String {
        let mut text = "\nHOLDER=$(holder)\ntrap finish EXIT\ntrap 'exit 130' INT TERM HUP\n".to_owned();
        for node in &self.plan.lock_nodes {
            let _ = writeln!(text, "take_lock {}", quote(node.as_str()));
        }
        for (index, stage) in self.plan.stages.iter().enumerate() {
            let number = format!("{}/{}", index + 1, self.plan.stages.len());
            let title = format!("{number} {}: {}", stage.name, stage.title);
            let _ = write!(
                text,
                "\n{}if ask {}; then\n{}fi\n",
                comment(&title),
                double_quoted(&title),
                self.stage(stage)
            );
        }
        text
    }

    /// Returns the steps of a stage, node by node; neighbours that get the same lines share them in a loop.
    fn stage(&self, stage: &Stage) -> String {
        let cluster: Vec<Line> =
            stage.steps.iter().filter(|step| step.node.is_none()).flat_map(cluster_step).collect();
        let mut groups: Vec<(Vec<&NodeName>, Vec<Line>)> = Vec::new();
        for node in stage.nodes() {
            let steps = stage.steps.iter().filter(|step| step.node.as_ref() == Some(node));
            let lines: Vec<Line> = steps.flat_map(|step| self.node_step(node, step)).collect();
            match groups.last_mut() {
                Some((nodes, same)) if *same == lines => nodes.push(node),
                _ => groups.push((vec![node], lines)),
            }
        }
        let mut text = render(&cluster, 2);
        for (nodes, lines) in groups {
            let names: Vec<String> = nodes.iter().map(|node| quote(node.as_str())).collect();
            if let [name] = names.as_slice() {
                let _ = write!(text, "  node={name}\n{}", render(&lines, 2));
            } else {
                let _ = write!(text, "  for node in {}; do\n{}  done\n", names.join(" "), render(&lines, 4));
            }
        }
        text + &render(&Self::stage_end(stage), 2)
    }

    /// Returns the lines of a step, which find the node's name in `$node`.
    fn node_step(&self, node: &NodeName, step: &Step) -> Vec<Line> {
        let Some((facts, seen)) = self.seen(node) else {
            return vec![Line::code("stop \"$node was not seen when the plan was made\"")];
        };
        let reason = if matches!(step.action, Action::Prove { .. }) {
            "certroll alone can show the new pairs"
        } else {
            &step.reason
        };
        let said = inside_double_quotes(&shown(&format!("{}: {reason}", label(&step.action))));
        let mut lines = vec![Line::code(format!("say \"   $node: {said}\""))];
        match &step.action {
            Action::Preflight => {
                lines.push(Line::code("preflight \"$node\""));
                if let Some(authority) = &self.plan.kube_ca {
                    lines.push(Line::code(format!("same_authority \"$node\" {}", quote(authority.as_str()))));
                }
            }
            Action::Backup
            | Action::CopyFiles { .. }
            | Action::ClearStaging { .. }
            | Action::RestartAgent { .. }
            | Action::VerifyRestored { .. } => {
                lines.extend(step.action.commands(seen).iter().flat_map(run));
            }
            Action::BringFiles { from, copies, .. } => lines.extend(self.bring(from, copies, step, seen)),
            Action::AddKubeAdmin { .. } => {
                let paths = kube_admin_paths(&seen.kubernetes_directory);
                lines.extend(leave_to_certroll(paths.iter().map(String::as_str)));
            }
            Action::Confirm { before, timeout } => {
                lines.extend(changes(node, before, timeout.as_secs()));
            }
            Action::Restart { containers, guard, .. } => {
                let commands = step.action.commands(seen);
                lines.extend(restarts(node, containers, guard, &commands));
            }
            Action::Verify { before, timeout } => {
                lines.extend(changes(node, before, timeout.as_secs()));
                let containers = expected_containers(self.inventory, facts);
                lines.extend(containers.into_iter().map(settled));
            }
            Action::LayAside { files } => lines.extend(self.laid_aside(files, seen)),
            Action::Switch { .. } | Action::Restore { .. } => lines.extend(switch(step, seen)),
            Action::Prove { .. } => lines.extend(step.action.commands(seen).iter().flat_map(run)),
            Action::RotateByRancher { .. }
            | Action::RotateByRke { .. }
            | Action::RotateByOperator { .. }
            | Action::KeepBastionFiles { .. }
            | Action::UpdateClusterState { .. }
            | Action::UpdateStateFile { .. }
            | Action::UpdateKubeConfig { .. }
            | Action::RestoreClusterState { .. }
            | Action::RestoreBastionFile { .. } => lines.extend(cluster_step(step)),
        }
        lines
    }

    /// Returns the lines that bring files of another node; private keys are left to certroll.
    fn bring(&self, from: &NodeName, copies: &[FileCopy], step: &Step, seen: &Observation) -> Vec<Line> {
        let destinations = copies.iter().map(|copy| copy.destination.as_str());
        let Some((_, source)) = self.seen(from).filter(|_| copies.iter().all(is_certificate)) else {
            return leave_to_certroll(destinations);
        };
        let mut lines = Vec::new();
        let from_word = quote(from.as_str());
        for command in step.action.commands(seen) {
            let (taken, outgoing) = document(&outgoing(&source.kubernetes_directory, copies), "SENT");
            let (given, incoming) = document(&command.script, "RECEIVED");
            let pipe = format!("pass {from_word} 3<<'{taken}' | pass \"$node\" 3<<'{given}'");
            lines.extend([Line::code(pipe), outgoing, incoming]);
        }
        lines.extend(copies.iter().map(|copy| {
            let (source, destination) = (quote(&copy.source), quote(&copy.destination));
            Line::code(format!("same_certificate {from_word} {source} \"$node\" {destination}"))
        }));
        lines
    }
}

/// Returns the lines of a step that is about no node.
fn cluster_step(step: &Step) -> Vec<Line> {
    let reason = Line::code(format!("say {}", double_quoted(&format!("   {}", step.reason))));
    match &step.action {
        Action::RotateByRancher { url, cluster_id, service, timeout } => {
            let call = format!(
                "rotate_by_rancher {} {} {} {}",
                quote(url.trim_end_matches('/')),
                quote(cluster_id),
                quote(&rotation_input(*service)),
                timeout.as_secs()
            );
            vec![reason, Line::code(call)]
        }
        Action::RotateByRke { program, arguments, folder, .. } => {
            let command = rke_command(program, arguments, folder);
            let failed = "rke did not end well: look what stands on the nodes before anything else";
            vec![
                reason,
                Line::code(format!("({command}) ||")),
                Line::code(format!("  stop {}", double_quoted(failed))),
            ]
        }
        Action::KeepBastionFiles { paths } => {
            std::iter::once(reason).chain(paths.iter().flat_map(|path| kept_copy(path))).collect()
        }
        Action::RotateByOperator { instructions, .. } => {
            let lines = instructions
                .iter()
                .map(|line| Line::code(format!("say {}", double_quoted(&format!("   - {line}")))));
            std::iter::once(reason).chain(lines).chain([Line::code("press_enter")]).collect()
        }
        Action::UpdateClusterState { .. }
        | Action::UpdateStateFile { .. }
        | Action::UpdateKubeConfig { .. }
        | Action::RestoreClusterState { .. }
        | Action::RestoreBastionFile { .. } => left_undone(&step.action),
        _ => vec![Line::code(format!(
            "stop {}",
            double_quoted(&format!("the step {} names no node", step.id))
        ))],
    }
}

/// Returns the lines that keep a copy of a file beside it, where it is there.
fn kept_copy(path: &str) -> [Line; 2] {
    let file = quote(path);
    [
        Line::code(format!(
            "[ ! -e {file} ] || [ -e {file}.\"$RUN\" ] || (umask 077; cp {file} {file}.\"$RUN\") ||"
        )),
        Line::code(format!("  stop {}", double_quoted(&format!("{path} could not be copied")))),
    ]
}

/// Returns what a step does, in a few words.
fn label(action: &Action) -> &'static str {
    match action {
        Action::Preflight => "look",
        Action::Backup => "back up",
        Action::CopyFiles { .. } => "add copies of its files",
        Action::BringFiles { .. } => "add files of another node",
        Action::AddKubeAdmin { .. } => "add the kube-admin pair",
        Action::RotateByRancher { .. } | Action::RotateByRke { .. } | Action::RotateByOperator { .. } => {
            "rotate"
        }
        Action::KeepBastionFiles { .. } => "keep copies of rke's files",
        Action::Confirm { .. } => "confirm",
        Action::Restart { .. } => "restart",
        Action::RestartAgent { .. } => "restart the Rancher agent",
        Action::Verify { .. } | Action::VerifyRestored { .. } => "verify",
        Action::Restore { .. } => "put files back",
        Action::LayAside { .. } => "look for the new files",
        Action::Switch { .. } => "switch",
        Action::Prove { .. } | Action::ClearStaging { .. } => "remove what was laid aside",
        Action::UpdateClusterState { .. }
        | Action::UpdateStateFile { .. }
        | Action::UpdateKubeConfig { .. }
        | Action::RestoreClusterState { .. }
        | Action::RestoreBastionFile { .. } => "write what rke keeps",
    }
}

/// Returns the lines that run a command on the node.
pub(super) fn run(command: &Command) -> Vec<Line> {
    let (end, document) = document(&command.script, "END");
    vec![Line::code(format!("run \"$node\" <<'{end}'")), document]
}

/// Returns the lines that go on if files are there, and else stop: they are or come with private keys.
fn leave_to_certroll<'a>(destinations: impl Iterator<Item = &'a str>) -> Vec<Line> {
    let files: Vec<String> = destinations.map(quote).collect();
    vec![
        Line::code(format!("present \"$node\" {} ||", files.join(" "))),
        Line::code(
            "  stop \"$node needs private keys, which this script does not carry. \
             Run: certroll apply repair -c cluster.yml -n $node; then start this script again\"",
        ),
    ]
}

/// Returns whether a copy is certainly no key: RKE's keys end with `-key.pem`, and its kubecfg files may hold one.
fn is_certificate(copy: &FileCopy) -> bool {
    let is_certificate = |path: &str| path.strip_suffix(".pem").is_some_and(|stem| !stem.ends_with("-key"));
    is_certificate(&copy.source) && is_certificate(&copy.destination)
}

/// Returns the script that writes an archive of files, named after their destinations.
fn outgoing(directory: &str, copies: &[FileCopy]) -> String {
    let mut script = format!(
        "set -eu\numask 077\noutgoing={}/.certroll/$RUN/outgoing\nrm -rf \"$outgoing\"\nmkdir -p \"$outgoing\"\n",
        quote(directory)
    );
    for copy in copies {
        let name = copy.destination.rsplit('/').next().unwrap_or_default();
        let _ = writeln!(script, "cp -p {} \"$outgoing\"/{}", quote(&copy.source), quote(name));
    }
    script.push_str("tar -C \"$outgoing\" -cf - .\nrm -rf \"$outgoing\"");
    script
}

/// Returns the lines that wait until certificates of a node have changed.
fn changes(node: &NodeName, before: &[CertificateBefore], seconds: u64) -> Vec<Line> {
    let own = before.iter().filter(|before| before.node == *node);
    let wait = own
        .map(|before| format!("changed \"$node\" {} {}", quote(&before.name), quote(before.sha256.as_str())));
    let wait: Vec<Line> = wait.map(Line::Code).collect();
    if wait.is_empty() {
        return wait;
    }
    std::iter::once(Line::code(format!("deadline {seconds}"))).chain(wait).collect()
}

/// Returns the lines that restart containers, where their guard lets them.
fn restarts(node: &NodeName, containers: &[String], guard: &Guard, commands: &[Command]) -> Vec<Line> {
    let pairs = containers.iter().zip(commands);
    let Guard::IfNeeded { patience, before } = guard else {
        return pairs
            .flat_map(|(container, command)| [run(command), vec![settled(container)]].concat())
            .collect();
    };
    let mut lines = vec![Line::code(format!("deadline {}", patience.as_secs()))];
    lines.extend(changes(node, before, patience.as_secs()).into_iter().skip(1));
    for (container, command) in pairs {
        // A container without a certificate of its own is judged by that of the kubelet.
        let certificate = certificates_of_container(container).first().copied().unwrap_or("kube-node");
        let condition = format!("if needs_restart \"$node\" {} {certificate}; then", quote(container));
        lines.push(Line::Code(condition));
        lines.extend(run(command).into_iter().map(inner));
        lines.extend([inner(settled(container)), Line::code("fi")]);
    }
    lines
}

/// Returns a line one step further in.
fn inner(line: Line) -> Line {
    match line {
        Line::Code(code) => Line::Code(format!("  {code}")),
        document @ Line::Document(_) => document,
    }
}

/// Returns the line that waits until a container keeps running.
pub(super) fn settled(container: impl AsRef<str>) -> Line {
    Line::code(format!("settled \"$node\" {}", quote(container.as_ref())))
}

/// Returns what Rancher is asked for: its schema wants one text in `services`, in spite of the name.
fn rotation_input(service: Option<Service>) -> String {
    match service {
        Some(service) => format!("{{\"services\":\"{service}\"}}"),
        None => "{\"caCertificates\":false,\"services\":\"\"}".to_owned(),
    }
}
