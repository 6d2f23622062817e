use super::arguments::RunsArguments;
use super::failure::{FAILED, Failure, USAGE};
use super::settings::Settings;
use super::terminal::Terminal;
use crate::journal::{ClusterFolder, JournalError, RecordedRun, find_run, read_runs};
use crate::report::{self, runs::Life, runs::StoredRun};

/// Lists the runs of a cluster, or shows one.
pub(super) fn run(
    settings: &Settings,
    terminal: &Terminal,
    arguments: &RunsArguments,
) -> Result<u8, Failure> {
    let loaded = settings.load()?;
    let folders = ClusterFolder::of_cluster(&settings.state_folder, &loaded.inventory.cluster_name);
    let (runs, damaged) = read_runs(&folders);
    for error in damaged {
        terminal.tell(&format!("warning: a run is left out: {:#}", anyhow::Error::from(error)));
    }
    match &arguments.run {
        None => list(terminal, runs),
        Some(part) => {
            let found = find_run(runs, part).map_err(|error| match error {
                JournalError::NoSuchRun(_) | JournalError::Ambiguous { .. } => {
                    Failure::new(USAGE, error).hint("`certroll runs` lists them".to_owned())
                }
                error => Failure::new(FAILED, error),
            })?;
            show(terminal, found);
        }
    }
    Ok(0)
}

fn list(terminal: &Terminal, runs: Vec<RecordedRun>) {
    let runs: Vec<StoredRun> = runs.into_iter().map(stored).collect();
    if terminal.is_json() {
        terminal.print(&report::json(&report::runs::document(&runs)));
    } else {
        terminal.print(&report::runs::text(&runs, terminal.style()));
    }
}

fn show(terminal: &Terminal, run: RecordedRun) {
    let run = stored(run);
    if terminal.is_json() {
        terminal.print(&report::json(&report::runs::document_of_one(&run)));
    } else {
        terminal.print(&report::runs::text_of_one(&run, terminal.style()));
    }
}

/// Returns a run as reports take it.
fn stored(run: RecordedRun) -> StoredRun {
    let life = if run.is_alive { Life::Running } else { Life::Over };
    (run.state, run.folder.display().to_string(), life)
}
