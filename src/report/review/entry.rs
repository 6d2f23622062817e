use super::count_of;
use super::restore::restore_entries;
use super::switch::{Condition, staging_entries, state_entries, switch_entries};
use crate::inventory::NodeName;
use crate::plan::{Action, FileCopy, Guard, Plan, Stage, StageName, Step};
use crate::report::duration::limit;
use crate::report::style::{Style, Tone};

/// How an entry changes a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// Something is added.
    Add,
    /// Something is changed or restarted.
    Change,
    /// Something is worth a thought.
    Mind,
}

impl Sign {
    /// Returns the character in front of the entry.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Change => "~",
            Self::Mind => "!",
        }
    }

    /// Returns its meaning.
    pub(super) fn tone(self) -> Tone {
        match self {
            Self::Add => Tone::Good,
            Self::Change => Tone::Warning,
            Self::Mind => Tone::Bad,
        }
    }
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) sign: Sign,
    pub(super) what: String,
    pub(super) why: String,
    /// What must be well before; it stands in `why` once the nodes of its group are known.
    pub(super) condition: Option<Condition>,
    /// How many files it stands for.
    files: usize,
}

impl Entry {
    pub(super) fn add(what: String, why: &str, files: usize) -> Self {
        Self { sign: Sign::Add, what, why: why.to_owned(), condition: None, files }
    }

    pub(super) fn change(what: String, why: String) -> Self {
        Self { sign: Sign::Change, what, why, condition: None, files: 0 }
    }
}

/// The nodes to which the same things are done.
#[derive(Debug, Clone)]
pub(super) struct Group<'a> {
    /// The nodes; none where it is Rancher or the operator who acts.
    pub(super) nodes: Vec<&'a NodeName>,
    pub(super) entries: Vec<Entry>,
}

impl Group<'_> {
    /// Returns what is done in a few words, for the nodes behind the first.
    pub(super) fn summary(&self) -> String {
        match self.entries.iter().map(|entry| entry.files).sum::<usize>() {
            0 => "the same".to_owned(),
            files => format!("the same {}", count_of(files, "file")),
        }
    }
}

/// Files that are copied under their own name are counted beyond this number.
const FILES_SHOWN: usize = 4;

/// Returns what a stage does, nodes with the same things taken together.
pub(super) fn groups<'a>(plan: &Plan, stage: &'a Stage, style: Style) -> Vec<Group<'a>> {
    let mut by_node: Vec<(Option<&NodeName>, Vec<Entry>)> = Vec::new();
    for step in &stage.steps {
        let entries = entries(step, style);
        match by_node.iter_mut().find(|(node, _)| *node == step.node.as_ref()) {
            Some((_, known)) => known.extend(entries),
            None => by_node.push((step.node.as_ref(), entries)),
        }
    }
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (node, mut entries) in by_node {
        if stage.name == StageName::Repair {
            entries.extend(node.and_then(|node| key_gained(plan, node)));
        }
        match groups.iter_mut().find(|group| !entries.is_empty() && group.entries == entries) {
            Some(group) => group.nodes.extend(node),
            None if entries.is_empty() => {}
            None => groups.push(Group { nodes: node.into_iter().collect(), entries }),
        }
    }
    for group in &mut groups {
        for entry in &mut group.entries {
            if let Some(condition) = entry.condition.take() {
                entry.why = condition.text(&group.nodes, style);
            }
        }
    }
    groups
}

/// Returns the note about a node that gets the CA's key and had none.
fn key_gained(plan: &Plan, node: &NodeName) -> Option<Entry> {
    let finding = plan
        .findings
        .iter()
        .find(|finding| finding.code == "gains-ca-key" && finding.node.as_ref() == Some(node))?;
    Some(Entry { sign: Sign::Mind, ..Entry::change(finding.message.clone(), String::new()) })
}

/// Returns what a step does; steps that change nothing, and backups, need no word but their stage's.
fn entries(step: &Step, style: Style) -> Vec<Entry> {
    match &step.action {
        Action::Preflight
        | Action::Backup
        | Action::Confirm { .. }
        | Action::Verify { .. }
        | Action::VerifyRestored { .. }
        | Action::Prove { .. } => Vec::new(),
        Action::Restore { .. } => restore_entries(step, style),
        Action::RestoreClusterState { .. } | Action::RestoreBastionFile { .. } => {
            super::restore::state_entries(step)
        }
        Action::LayAside { files } => staging_entries(files),
        Action::Switch { .. } => switch_entries(step, style),
        Action::UpdateClusterState { .. }
        | Action::UpdateStateFile { .. }
        | Action::UpdateKubeConfig { .. } => state_entries(step),
        Action::CopyFiles { copies, .. } | Action::BringFiles { copies, .. } => {
            file_entries(copies, &step.reason, style)
        }
        Action::AddKubeAdmin { .. } => {
            vec![Entry::add(".tmp/kube-admin.pem, kube-admin-key.pem".to_owned(), &step.reason, 2)]
        }
        Action::RotateByRancher { url, cluster_id, service, timeout } => {
            let which = service.map_or("all services", |service| service.as_str());
            let call = format!(
                "POST {}?action=rotateCertificates ({which}), then wait, at most {}",
                super::commands::cluster_url(url, cluster_id),
                limit(*timeout)
            );
            vec![Entry::change(call, step.reason.clone())]
        }
        Action::RotateByRke { program, arguments, folder, timeout, .. } => {
            let command = super::commands::rke_command(program, arguments, folder);
            let call = format!("run `{command}`, at most {}", limit(*timeout));
            vec![Entry::change(call, step.reason.clone())]
        }
        Action::KeepBastionFiles { paths } => {
            vec![Entry::change(
                format!("copy {} beside themselves", paths.join(" and ")),
                step.reason.clone(),
            )]
        }
        Action::RotateByOperator { instructions, timeout, before } => {
            let mut entries: Vec<Entry> = instructions
                .iter()
                .map(|instruction| Entry::change(instruction.clone(), String::new()))
                .collect();
            let waiting = format!(
                "then certroll waits, at most {}, until {} have changed",
                limit(*timeout),
                count_of(before.len(), "certificate")
            );
            entries.push(Entry::change(waiting, String::new()));
            entries
        }
        Action::Restart { containers, guard, .. } => vec![restart_entry(containers, guard, &step.reason)],
        Action::ClearStaging { .. } => {
            vec![Entry::change("remove the keys that were laid aside".to_owned(), step.reason.clone())]
        }
        Action::RestartAgent { .. } => {
            vec![Entry::change("restart the Rancher agent".to_owned(), step.reason.clone())]
        }
    }
}

/// Returns the entries of files: those that get another name one by one, the others counted where they are many.
fn file_entries(copies: &[FileCopy], reason: &str, style: Style) -> Vec<Entry> {
    let (plain, renamed): (Vec<_>, Vec<_>) =
        copies.iter().partition(|copy| file_name(&copy.source) == file_name(&copy.destination));
    let one_by_one = |copy: &&FileCopy| Entry::add(in_tmp(&copy.destination).to_owned(), &copy.reason, 1);
    let mut entries: Vec<Entry> = if plain.len() > FILES_SHOWN && !style.is_verbose() {
        vec![Entry::add(format!(".tmp: {} files", plain.len()), reason, plain.len())]
    } else {
        plain.iter().map(one_by_one).collect()
    };
    entries.extend(renamed.iter().map(one_by_one));
    entries
}

/// Returns the entry of a restart.
fn restart_entry(containers: &[String], guard: &Guard, reason: &str) -> Entry {
    let names = containers.join(", ");
    match guard {
        Guard::Always => Entry::change(format!("restart {names}"), reason.to_owned()),
        Guard::IfNeeded { patience, .. } if patience.is_zero() => {
            Entry::change(format!("restart {names} if needed"), reason.to_owned())
        }
        Guard::IfNeeded { patience, .. } => Entry::change(
            format!("restart {names} if needed"),
            format!("{reason}; it is left {} to happen by itself first", limit(*patience)),
        ),
    }
}

/// Returns the last part of a path.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Returns a path from `.tmp` on.
fn in_tmp(path: &str) -> &str {
    path.rfind("/.tmp/").and_then(|start| path.get(start + 1..)).unwrap_or(path)
}
