use std::collections::BTreeSet;

use super::apply::confirm;
use super::check::look;
use super::failure::{FAILED, Failure, REFUSED};
use super::settings::{Loaded, Settings};
use super::terminal::Terminal;
use crate::event::RunOutcome;
use crate::execute::prune_backups;
use crate::facts::Facts;
use crate::facts::probe::KeyReading;
use crate::journal::{ClusterFolder, RecordedRun, read_runs};
use crate::plan::{Fate, prune};
use crate::report::{self, backups::Purpose};

/// What is done about old backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// They are listed.
    List,
    /// All but those of so many runs go.
    Keep(usize),
}

/// Lists the backups on the nodes, and removes old ones where that is wished for.
pub(super) async fn run(
    settings: &Settings,
    terminal: &Terminal,
    wish: Wish,
    yes: Answer,
) -> Result<u8, Failure> {
    let loaded = settings.load()?;
    settings.warn(&loaded, terminal)?;
    let gatherer = settings.gatherer(&loaded.inventory, KeyReading::PublicPrefix)?;
    let facts = look(&gatherer, &loaded.nodes(), terminal).await;
    let backups = gatherer.backups(&facts, None).await;
    let (keep, purpose) = match wish {
        Wish::List => (usize::MAX, Purpose::Listing),
        Wish::Keep(keep) => (keep, Purpose::Pruning),
    };
    let runs = prune(&backups, keep, &unfinished(settings, &loaded, &facts));
    if terminal.is_json() {
        terminal.print(&report::json(&report::backups::document(&runs, &backups, purpose)));
    } else {
        terminal.print(&report::backups::text(&runs, &backups, purpose, terminal.style()));
    }
    let unseen = backups.values().any(Result::is_err);
    let going = runs.iter().filter(|run| run.fate == Fate::Goes).count();
    if wish == Wish::List || going == 0 {
        if wish != Wish::List {
            terminal.mention("Nothing to remove.");
        }
        return Ok(u8::from(unseen));
    }
    if let Some((node, lock)) = facts.seen().find_map(|(node, seen)| Some((node, seen.lock.as_ref()?))) {
        return Err(Failure::message(REFUSED, format!("{}: {lock}; nothing was removed", node.name))
            .hint(lock.hint()));
    }
    if yes == Answer::ToBeAsked {
        confirm(terminal, &format!("Remove the folders of {}?", runs_in_words(going)))?;
    }
    let failed = prune_backups(&gatherer, &facts, &runs, settings.common.parallel).await;
    for (node, error) in &failed {
        terminal.tell(&format!("error: {node}: its old backups were not all removed: {error}"));
    }
    if failed.is_empty() {
        terminal.mention(&format!("The folders of {} are gone.", runs_in_words(going)));
    }
    Ok(if failed.is_empty() { u8::from(unseen) } else { FAILED })
}

/// Whether a person has said yes beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// With `--yes`.
    Given,
    /// Not yet.
    ToBeAsked,
}

impl Answer {
    /// Returns what `--yes` says.
    pub(super) fn of(yes: bool) -> Self {
        if yes { Self::Given } else { Self::ToBeAsked }
    }
}

fn runs_in_words(count: usize) -> String {
    if count == 1 { "1 run".to_owned() } else { format!("{count} runs") }
}

/// Returns the runs that have not come to their end: those that failed or broke off and were not taken back, and those that
/// have files laid aside or a lock on a node.
fn unfinished(settings: &Settings, loaded: &Loaded, facts: &Facts) -> BTreeSet<String> {
    let folders = ClusterFolder::of_cluster(&settings.state_folder, &loaded.inventory.cluster_name);
    let (runs, _) = read_runs(&folders);
    let is_done = |run: &RecordedRun| run.state.outcome == Some(RunOutcome::Done);
    // The nodes that a rollback could not reach still need their backup.
    let is_whole = |run: &&RecordedRun| is_done(run) && !run.plan.misses_nodes();
    let taken_back: BTreeSet<&str> =
        runs.iter().filter(is_whole).filter_map(|run| run.plan.undoes.as_deref()).collect();
    let open = runs.iter().filter(|run| !is_done(run) && !taken_back.contains(run.state.run.as_str()));
    let on_nodes = facts.seen().flat_map(|(_, seen)| {
        let locked = seen.lock.iter().map(|lock| lock.holder.run.clone());
        seen.unfinished_runs.iter().cloned().chain(locked).collect::<Vec<_>>()
    });
    open.map(|run| run.state.run.clone()).chain(on_nodes).collect()
}
