//! `exec` runs a command on many nodes and shows what they print.

mod output;
mod rooted;
mod work;

use std::cell::RefCell;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::arguments::{ExecArguments, Output};
use super::failure::{CANCELLED, FAILED, Failure};
use super::printer::Printer;
use super::settings::Settings;
use super::terminal::{Drawing, Terminal, stop_wanted};
use crate::inventory::Node;
use crate::report::exec::{Ending, summary};
use crate::report::progress::Looking;
use crate::transport::FanOut;
use crate::workstation::Spool;
use output::{Form, Show};
use work::{Identity, Work};

/// How long the end waits for a reader that does not read, once the operator wants to stop; less where that is said again.
const GRACE: Duration = Duration::from_secs(2);

/// Why everything ended.
enum End {
    /// Every node has.
    Done,
    /// The operator wants it.
    Stopped,
    /// Nobody reads stdout any more.
    ReaderGone,
    /// What every node is to read cannot be read.
    NoInput(String),
}

/// Runs a command on the selected nodes.
pub(super) async fn run(
    settings: &Settings,
    terminal: &Terminal,
    arguments: &ExecArguments,
) -> Result<u8, Failure> {
    let form = form(terminal, arguments)?;
    let loaded = settings.load()?;
    settings.warn(&loaded, terminal)?;
    let nodes = loaded.nodes();
    let fan_out = FanOut::new(Arc::new(settings.transport(&loaded.inventory)?), settings.common.parallel);
    let is_piped = !std::io::stdin().is_terminal();
    let input = is_piped.then(|| Spool::of(std::io::stdin()));
    let marker = format!("certroll-{}", settings.clock.now().as_nanosecond());
    let identity = if arguments.as_root {
        Identity::Root { ways: settings.become_root(), marker: &marker }
    } else {
        Identity::Login
    };
    let began = Instant::now();

    let bar = bar(terminal, form);
    let printer = Printer::start(bar.clone());
    let show = Show::new(form, &nodes, terminal, bar);
    let work = Work {
        fan_out: &fan_out,
        line: &arguments.command.join(" "),
        identity,
        input: input.as_ref(),
        show: &show,
        printer: &printer,
    };
    let (end, endings) = on_all(&nodes, &work).await;
    let end = write_out(printer, &show, &endings, end).await;

    let named: Vec<(&str, &Ending)> = nodes.iter().map(|node| node.name.as_str()).zip(&endings).collect();
    terminal.mention(&summary(&named, began.elapsed(), terminal.error_style()));
    match end {
        End::NoInput(reason) => {
            Err(Failure::message(FAILED, format!("stdin cannot be given to the nodes: {reason}")))
        }
        End::Stopped | End::ReaderGone => Ok(CANCELLED),
        End::Done if endings.iter().all(Ending::is_well) => Ok(0),
        End::Done => Ok(FAILED),
    }
}

/// Runs the command on all nodes, and returns why that ended and how it ended on each.
async fn on_all(nodes: &[&Node], work: &Work<'_>) -> (End, Vec<Ending>) {
    let endings = RefCell::new(vec![Ending::NotRun; nodes.len()]);
    let note = |place: usize, ending: Ending| {
        if let Some(known) = endings.borrow_mut().get_mut(place) {
            *known = ending;
        }
    };
    let one = async |(place, node)| {
        note(place, Ending::Cut);
        (place, work.on(place, node).await)
    };
    let all = work.fan_out.each(nodes.iter().copied().enumerate(), one, |(place, ending)| {
        work.show.progress(place);
        note(place, ending);
    });
    let end = tokio::select! {
        () = all => End::Done,
        _ = stop_wanted() => End::Stopped,
        () = work.printer.closed() => End::ReaderGone,
        reason = failure_of(work.input) => End::NoInput(reason),
    };
    (end, endings.into_inner())
}

/// Writes what is left to be written, and returns why all ended.
async fn write_out(printer: Printer, show: &Show<'_>, endings: &[Ending], end: End) -> End {
    let written = async {
        show.finish(&printer, endings).await;
        printer.finish().await;
    };
    match end {
        End::Done | End::NoInput(_) => {
            // Who reads stdout may take as long as the operator likes.
            tokio::select! {
                () = written => end,
                _ = stop_wanted() => End::Stopped,
            }
        }
        End::Stopped | End::ReaderGone => {
            tokio::select! {
                () = written => {}
                () = tokio::time::sleep(GRACE) => {}
                _ = stop_wanted() => {}
            }
            end
        }
    }
}

fn form(terminal: &Terminal, arguments: &ExecArguments) -> Result<Form, Failure> {
    match (terminal.output(), arguments.fold) {
        (Output::Json, true) => {
            Err(Failure::usage("`--fold` groups what people read; `-o json` is a line a node"))
        }
        (Output::Json, false) => Ok(Form::Json),
        (_, true) => Ok(Form::Fold),
        (_, false) => Ok(Form::Lines),
    }
}

/// Returns a bar where nothing else moves on the terminal.
fn bar(terminal: &Terminal, form: Form) -> Option<Arc<Looking>> {
    let is_quiet = form != Form::Lines || !std::io::stdout().is_terminal();
    (is_quiet && terminal.drawing() == Drawing::Bars).then(|| Arc::new(Looking::doing("running")))
}

async fn failure_of(input: Option<&Spool>) -> String {
    match input {
        Some(input) => input.failure().await,
        None => std::future::pending().await,
    }
}
