//! The terminal is where a person reads and answers; it alone writes to stdout and stderr.
#![expect(clippy::unused_self, reason = "who may write to the streams holds a terminal")]

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use rpassword::ConfigBuilder;
use tokio::signal::unix::{SignalKind, signal};

use super::arguments::{Common, Output, Progress, When};
use super::echo::{self, EchoOff};
use super::settings::outlives_terminal;
use crate::escape::{guarded, shown};
use crate::inventory::Secret;
use crate::report::{self, Color, Detail, Style, progress};
use crate::transport::{AskSecret, Echo, Question};

/// What stdin, stdout and stderr are, and how much is to be said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terminal {
    detail: Detail,
    color: When,
    progress: Progress,
    output: Output,
    no_color: bool,
}

/// How progress is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drawing {
    Bars,
    Lines,
    Nothing,
}

impl Terminal {
    pub(super) fn new(common: &Common) -> Self {
        let detail = match (common.quiet, common.verbose) {
            (true, _) => Detail::Quiet,
            (false, 0) => Detail::Normal,
            (false, _) => Detail::Verbose,
        };
        Self {
            detail,
            color: common.color,
            progress: common.progress,
            output: common.output,
            no_color: super::settings::has_no_color(),
        }
    }

    /// Returns the style of reports on stdout.
    pub(super) fn style(&self) -> Style {
        self.style_on(io::stdout().is_terminal())
    }

    /// Returns the style of messages on stderr.
    pub(super) fn error_style(&self) -> Style {
        self.style_on(io::stderr().is_terminal())
    }

    fn style_on(&self, is_terminal: bool) -> Style {
        let color = match self.color {
            When::Always => Color::On,
            When::Auto if is_terminal && !self.no_color => Color::On,
            When::Auto | When::Never => Color::Off,
        };
        let width = is_terminal.then(report::progress::terminal_width).flatten();
        Style { color, width, detail: self.detail }
    }

    /// Returns how progress is drawn.
    pub(super) fn drawing(&self) -> Drawing {
        match self.progress {
            Progress::Bars => Drawing::Bars,
            Progress::None => Drawing::Nothing,
            Progress::Auto if self.detail == Detail::Quiet => Drawing::Nothing,
            Progress::Auto if io::stderr().is_terminal() => Drawing::Bars,
            Progress::Auto | Progress::Lines => Drawing::Lines,
        }
    }

    /// Returns whether the output is one for programs.
    pub(super) fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Returns the form of the output.
    pub(super) fn output(&self) -> Output {
        self.output
    }

    /// Writes data to stdout; a reader that has gone away is not an error.
    pub(super) fn print(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(guarded(text).as_bytes());
        if !text.ends_with('\n') {
            let _ = stdout.write_all(b"\n");
        }
        let _ = stdout.flush();
    }

    /// Writes a message to stderr.
    pub(super) fn tell(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{}", guarded(text.trim_end()));
    }

    /// Writes a message to stderr, unless less was asked for.
    pub(super) fn mention(&self, text: &str) {
        if self.detail != Detail::Quiet {
            self.tell(text);
        }
    }

    /// Returns whether a question can be asked and answered.
    pub(super) fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks a question and returns the answer, without the end of its line; `None` when stdin has ended.
    pub(super) fn ask(&self, question: &str) -> Option<String> {
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "{} ", guarded(question));
        let _ = stderr.flush();
        drop(stderr);
        let mut answer = String::new();
        match io::stdin().lock().read_line(&mut answer) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(answer.trim().to_owned()),
        }
    }
}

/// Why this process is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopWish {
    /// The operator, or the machine that shuts down, wants it: Ctrl-C or SIGTERM.
    Asked,
    /// Its terminal is gone: SIGHUP.
    TerminalLost,
}

/// Waits until this process is to stop. One that was started to outlive its terminal does.
pub(super) async fn stop_wanted() -> StopWish {
    echo::leave_signals_to_command();
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    // A handler would take the place of what `nohup` has set.
    let hangups = (!outlives_terminal()).then(|| signal(SignalKind::hangup()));
    let hung_up = async {
        match hangups {
            Some(Ok(mut hangups)) => hangups.recv().await,
            Some(Err(_)) | None => std::future::pending().await,
        }
    };
    tokio::select! {
        Ok(()) = tokio::signal::ctrl_c() => StopWish::Asked,
        Some(()) = terminated.recv() => StopWish::Asked,
        Some(()) = hung_up => StopWish::TerminalLost,
        else => std::future::pending().await,
    }
}

/// How long it takes at most until a signal of this process is heard.
const SIGNAL_HEARD: Duration = Duration::from_secs(1);

/// Asks for secrets on the terminal; where there is none, nobody answers.
#[derive(Debug)]
pub(super) struct AskOnTerminal;

impl AskOnTerminal {
    /// Returns whether there is a terminal to ask on.
    pub(super) fn can_answer() -> bool {
        // Question and answer pass through /dev/tty itself: stdin may be what commands read.
        io::stdin().is_terminal() || io::stderr().is_terminal()
    }
}

impl AskSecret for AskOnTerminal {
    fn ask(&self, question: &Question) -> Option<Secret> {
        if !Self::can_answer() {
            return None;
        }
        let reading = ConfigBuilder::new();
        let reading = match question.echo() {
            Echo::Hidden => reading.password_feedback_hide(),
            // A mask that begins where no answer ends.
            Echo::Shown => reading.password_feedback_partial_mask('*', usize::MAX),
        };
        let prompt = format!("{} ", shown(&question.to_string()));
        let answer = {
            // Also where the answer is shown: it is shown as it is read.
            let _echo = EchoOff::begin();
            progress::aside(|| rpassword::prompt_password_with_config(prompt, reading.build()))
        };
        if matches!(&answer, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
            // Ctrl-C, which was passed on as a signal. Without an answer, nodes would be called unreachable before it is heard.
            std::thread::sleep(SIGNAL_HEARD);
        }
        answer.ok().map(Secret::new)
    }
}
