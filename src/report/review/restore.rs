use super::entry::Entry;
use super::switch::Condition;
use super::{count_of, switch::pairs};
use crate::plan::{Action, Gate, Health, NewFile, Step};
use crate::report::duration::limit;
use crate::report::style::Style;

/// Returns what a step does that puts files of a backup back and restarts what uses them.
pub(super) fn restore_entries(step: &Step, style: Style) -> Vec<Entry> {
    let Action::Restore { wanted, containers, gate, health, timeout } = &step.action else {
        return Vec::new();
    };
    let mut entries = Vec::new();
    let back: Vec<&str> = wanted.files.iter().map(|file| file.path.as_str()).collect();
    if !back.is_empty() {
        let what = format!("put back {}", words(&back, style));
        entries.push(Entry::change(what, format!("{} of the backup", count_of(back.len(), "file"))));
    }
    if !wanted.removed.is_empty() {
        let gone: Vec<&str> = wanted.removed.iter().map(String::as_str).collect();
        let what = format!("remove {}", words(&gone, style));
        entries.push(Entry::change(what, format!("{} that the run added", count_of(gone.len(), "file"))));
    }
    if !wanted.retired.is_empty() {
        let what = "put back the kubelet's own serving pair".to_owned();
        entries.push(Entry::change(what, "the present one is kept in `.certroll/<run>/retired`".to_owned()));
    }
    if !containers.is_empty() {
        let why = match health {
            Health::Awaited if containers.len() == 1 => {
                format!("healthy within {}, or the run stops", limit(*timeout))
            }
            Health::Awaited => {
                format!("one by one, each healthy within {}, or the run stops", limit(*timeout))
            }
            Health::NotAwaited => "whether they are healthy is not asked".to_owned(),
        };
        entries.push(Entry::change(format!("restart {}", containers.join(", ")), why));
    }
    if let Some(first) = entries.first_mut().filter(|_| *gate != Gate::Open) {
        first.condition = Condition::of(gate, step.node.as_ref());
    }
    entries
}

/// Returns the certificates of paths in words.
fn words(paths: &[&str], style: Style) -> String {
    let files: Vec<NewFile> = paths.iter().map(|path| NewFile::at(path)).collect();
    let (bundle, others): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| file.path.starts_with(".tmp/"));
    match (others.as_slice(), bundle.len()) {
        ([], count) => format!("{} of `.tmp`", count_of(count, "file")),
        (others, 0) => pairs(others, style),
        (others, count) => format!("{}; {} of `.tmp`", pairs(others, style), count_of(count, "file")),
    }
}

/// Returns what a step does that puts back what rke keeps.
pub(super) fn state_entries(step: &Step) -> Vec<Entry> {
    let what = match &step.action {
        Action::RestoreClusterState { kept, names, .. } => {
            let objects = match kept.as_slice() {
                [one] if one.file_name == "full-cluster-state.json" => {
                    "kube-system/full-cluster-state".to_owned()
                }
                kept => count_of(kept.len(), "object"),
            };
            format!("{objects}: {} as before the run", count_of(names.len(), "pair"))
        }
        Action::RestoreBastionFile { path, copy: Some(copy) } => format!("`{path}`: what `{copy}` holds"),
        Action::RestoreBastionFile { path, copy: None } => format!("`{path}` is moved away"),
        _ => return Vec::new(),
    };
    let why = match &step.action {
        Action::RestoreBastionFile { .. } => format!("{}; the present one is kept beside it", step.reason),
        _ => step.reason.clone(),
    };
    vec![Entry::change(what, why)]
}
