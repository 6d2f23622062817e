use std::path::Path;
use std::time::Instant;

use jiff::SignedDuration;

use super::arguments::{CheckArguments, ConfigSource};
use super::failure::{Failure, USAGE};
use super::rancher;
use super::settings::Settings;
use super::terminal::{Drawing, Terminal};
use crate::escape::shown;
use crate::facts::probe::KeyReading;
use crate::facts::{Facts, Thresholds, assess, assess_saved_state, state_drift};
use crate::finding::Finding;
use crate::gather::Gatherer;
use crate::inventory::{Draft, Node};
use crate::pki::SavedState;
use crate::report;
use crate::report::check::CheckStatus;
use crate::report::check::state::{StateCheck, state_status};
use crate::workstation::read_saved_state;

/// Looks at every selected node, or at a saved state, or at both, and says what is wrong.
pub(super) async fn run(
    settings: &Settings,
    terminal: &Terminal,
    arguments: &CheckArguments,
) -> Result<u8, Failure> {
    let thresholds = |now| Thresholds {
        now,
        expiring_within: SignedDuration::from_hours(24 * i64::from(arguments.warn_days)),
    };
    let is_typed = settings.common.config_source == ConfigSource::Typed;
    let standard_input = Some(Path::new("-"));
    if is_typed
        && settings.common.config.as_deref() == standard_input
        && arguments.state.as_deref() == standard_input
    {
        return Err(Failure::usage(
            "`--state -` and `-c -` both read standard input, which holds one of them",
        )
        .hint("keep the other one in a file".to_owned()));
    }
    let state = arguments.state.as_deref().map(ReadState::read).transpose()?;
    // A variable that is always set would have every state looked at on the nodes.
    if let Some(state) = state.as_ref().filter(|_| !is_typed) {
        return Ok(state.show(thresholds(settings.clock.now()), terminal));
    }
    let loaded = settings.load()?;
    settings.warn(&loaded, terminal)?;
    let keys = if arguments.read_keys { KeyReading::Whole } else { KeyReading::PublicPrefix };
    let gatherer = settings.gatherer(&loaded.inventory, keys)?.asking_rancher();
    let began = Instant::now();
    let rancher = rancher::consult(&arguments.rancher, gatherer.inventory(), terminal).await?;
    let mut facts = look(&gatherer, &loaded.nodes(), terminal).await;
    if let Some((_, target)) = rancher {
        for node in &mut facts.nodes {
            let known = gatherer.inventory().node(&node.name).and_then(|node| target.node(node));
            node.standing.rancher = known.map(|known| known.state.clone());
        }
    }
    ask_api(&gatherer, arguments, &mut facts, terminal).await;
    let thresholds = thresholds(settings.clock.now());
    let mut findings = assess(&loaded.inventory, &facts, &thresholds);
    findings.extend(loaded.findings_for(terminal));
    if let Some(state) = &state {
        findings.extend(assess_saved_state(&state.saved, &thresholds));
        findings.extend(state_drift(&state.saved, &loaded.inventory, &facts));
    }
    findings.sort_by_key(|finding| finding.severity);
    let status = match (report::check::check_status(&facts, &findings, &thresholds), &state) {
        (CheckStatus::Fine, Some(state)) => state_status(&state.check(&findings, thresholds)),
        (status, _) => status,
    };
    let check = report::check::Check {
        inventory: &loaded.inventory,
        facts: &facts,
        findings: &findings,
        thresholds,
        status,
        elapsed: began.elapsed(),
    };
    show(&check, state.as_ref(), terminal);
    Ok(status.exit_status())
}

/// Asks the API what it says of the nodes, where keys may be read; the look is worth something without it.
async fn ask_api(gatherer: &Gatherer, arguments: &CheckArguments, facts: &mut Facts, terminal: &Terminal) {
    if arguments.read_keys
        && let Err(error) = gatherer.ask_for_readiness(facts).await
    {
        terminal.mention(&format!("warning: the API was not asked which nodes are ready: {}", shown(&error)));
    }
}

fn show(check: &report::check::Check<'_>, state: Option<&ReadState>, terminal: &Terminal) {
    let state = state.map(|state| state.check(check.findings, check.thresholds));
    if terminal.is_json() {
        let document = report::check::document(check);
        let document = match &state {
            Some(state) => document.with_state(state),
            None => document,
        };
        terminal.print(&report::json(&document));
    } else {
        let table = state.map(|state| report::check::state::table(&state, terminal.style()));
        if let Some(table) = table.filter(|table| !table.is_empty()) {
            terminal.print(&format!("{table}\n"));
        }
        terminal.print(&report::check::text(check, terminal.style()));
    }
}

/// A state that was read from a file.
struct ReadState {
    file: String,
    saved: SavedState,
    /// What it says of the cluster; nothing where that cannot be read, for its certificates count.
    draft: Draft,
}

impl ReadState {
    fn read(path: &Path) -> Result<Self, Failure> {
        let saved = read_saved_state(path).map_err(|error| {
            let hint = error.hint().to_owned();
            Failure::new(USAGE, error).hint(hint)
        })?;
        let draft = saved.configuration().and_then(|text| Draft::from_json(text).ok()).unwrap_or_default();
        let file = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
        Ok(Self { file, saved, draft })
    }

    fn check<'a>(&'a self, findings: &'a [Finding], thresholds: Thresholds) -> StateCheck<'a> {
        StateCheck {
            file: &self.file,
            cluster: self.draft.cluster_name.as_deref().unwrap_or("local"),
            kubernetes_version: self.draft.kubernetes_version.as_deref(),
            state: &self.saved,
            findings,
            thresholds,
        }
    }

    /// Shows what is known without a network, and returns the exit status.
    fn show(&self, thresholds: Thresholds, terminal: &Terminal) -> u8 {
        let mut findings = assess_saved_state(&self.saved, &thresholds);
        findings.sort_by_key(|finding| finding.severity);
        let check = self.check(&findings, thresholds);
        if terminal.is_json() {
            terminal.print(&report::json(&report::check::state::document(&check)));
        } else {
            terminal.print(&report::check::state::text(&check, terminal.style()));
        }
        state_status(&check).exit_status()
    }
}

/// Looks at nodes, with a bar on a terminal.
pub(super) async fn look(gatherer: &Gatherer, nodes: &[&Node], terminal: &Terminal) -> Facts {
    if terminal.drawing() != Drawing::Bars {
        return gatherer.gather(nodes, |_| {}).await;
    }
    let bar = report::progress::Looking::on_stderr();
    let mut done = 0;
    let facts = gatherer
        .gather(nodes, |node| {
            done += 1;
            bar.seen(done, nodes.len(), &node.name);
        })
        .await;
    bar.finish();
    facts
}
