use std::time::Instant;

use jiff::SignedDuration;

use super::arguments::CheckArguments;
use super::failure::Failure;
use super::rancher;
use super::settings::{Loaded, Settings};
use super::terminal::{Drawing, Terminal};
use crate::facts::probe::KeyReading;
use crate::facts::{Facts, Thresholds, assess};
use crate::gather::Gatherer;
use crate::inventory::Node;
use crate::report;
use crate::report::escape::shown;

/// Looks at every selected node and says what is wrong.
pub(super) async fn run(
    settings: &Settings,
    terminal: &Terminal,
    arguments: &CheckArguments,
) -> Result<u8, Failure> {
    let loaded = settings.load()?;
    settings.warn(terminal);
    let keys = if arguments.read_keys { KeyReading::Whole } else { KeyReading::PublicPrefix };
    let gatherer = settings.gatherer(&loaded.inventory, keys)?;
    let began = Instant::now();
    let mut facts = look(&gatherer, &loaded.nodes(), terminal).await;
    ask_others(&gatherer, arguments, &mut facts, terminal).await;
    let thresholds = Thresholds {
        now: settings.clock.now(),
        expiring_within: SignedDuration::from_hours(24 * i64::from(arguments.warn_days)),
    };
    let mut findings = assess(&loaded.inventory, &facts, &thresholds);
    findings.extend(loaded.findings_for(terminal));
    findings.sort_by_key(|finding| finding.severity);
    show(&loaded, &facts, &findings, (thresholds, began), terminal);
    Ok(report::check::check_status(&facts, &findings, &thresholds).exit_status())
}

/// Asks Rancher what it says of the nodes, where it is known, and the API, where keys may be read; the look is worth something
/// without either.
async fn ask_others(gatherer: &Gatherer, arguments: &CheckArguments, facts: &mut Facts, terminal: &Terminal) {
    if let Some((_, target)) = rancher::consult(&arguments.rancher, gatherer.inventory(), terminal).await {
        for node in &mut facts.nodes {
            let known = gatherer.inventory().node(&node.name).and_then(|node| target.node(node));
            node.standing.rancher = known.map(|known| known.state.clone());
        }
    }
    if arguments.read_keys
        && let Err(error) = gatherer.ask_for_readiness(facts).await
    {
        terminal.mention(&format!("warning: the API was not asked which nodes are ready: {}", shown(&error)));
    }
}

fn show(
    loaded: &Loaded,
    facts: &Facts,
    findings: &[crate::finding::Finding],
    (thresholds, began): (Thresholds, Instant),
    terminal: &Terminal,
) {
    let check = report::check::Check {
        inventory: &loaded.inventory,
        facts,
        findings,
        thresholds,
        elapsed: began.elapsed(),
    };
    if terminal.is_json() {
        terminal.print(&report::json(&report::check::document(&check)));
    } else {
        terminal.print(&report::check::text(&check, terminal.style()));
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
