//! The face is the command line: arguments and settings in, reports, errors with hints and an exit status out.
//!
//! `main.rs` calls [`main`]; everything beneath takes what it needs as values. The environment, the home folder and the
//! terminal are known here alone.

mod apply;
mod arguments;
mod away;
mod backups;
mod check;
mod demo;
mod echo;
mod exec;
mod failure;
mod import;
mod nodes;
mod pages;
mod plan;
mod printer;
mod rancher;
mod remarks;
mod resume;
mod rke;
mod rollback;
mod runs;
mod selection;
mod settings;
mod sudo_password;
mod terminal;

use std::process::ExitCode;

use arguments::{Arguments, Command, Output};
use failure::{Failure, USAGE};
use settings::Settings;
use terminal::Terminal;

/// Runs the command line of this process and returns its exit status.
pub fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap's own statuses are ours: 0 for help and version, 2 for usage.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    ExitCode::from(run(arguments))
}

/// Runs a command and returns its exit status; an error is told on stderr.
fn run(arguments: Arguments) -> u8 {
    let terminal = Terminal::new(&arguments.common);
    match dispatch(arguments, &terminal) {
        Ok(status) => status,
        Err(failure) => {
            terminal.tell(&failure.text());
            failure.status
        }
    }
}

fn dispatch(arguments: Arguments, terminal: &Terminal) -> Result<u8, Failure> {
    let Arguments { common, command } = arguments;
    let is_plan = matches!(command, Command::Plan(_));
    if matches!(common.output, Output::Markdown | Output::Shell) && !is_plan {
        return Err(Failure::usage("`-o markdown` and `-o shell` are forms of `certroll plan` alone"));
    }
    // What is made of the command line alone needs no home.
    match &command {
        Command::Completions(arguments) => return Ok(pages::completions(terminal, arguments)),
        Command::Man(arguments) => return pages::man(terminal, arguments),
        _ => {}
    }
    let settings = Settings::new(&common)?;
    match command {
        Command::Completions(_) | Command::Man(_) => Ok(0),
        Command::Nodes => nodes::run(&settings, terminal),
        Command::Plan(arguments) => in_runtime(plan::run(&settings, terminal, &arguments)),
        Command::Apply(arguments) => in_runtime(apply::run(&settings, terminal, &arguments)),
        Command::Rollback(arguments) => in_runtime(rollback::run(&settings, terminal, &arguments)),
        Command::Runs(arguments) => runs::run(&settings, terminal, &arguments),
        Command::Import(arguments) => in_runtime(import::run(&settings, terminal, &arguments)),
        Command::Exec(arguments) => in_runtime(exec::run(&settings, terminal, &arguments)),
        Command::Demo(arguments) => in_runtime(demo::run(&settings, terminal, &arguments)),
        Command::Check(arguments) => in_runtime(check::run(&settings, terminal, &arguments)),
    }
}

/// Runs a command that talks to others.
fn in_runtime(command: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(failure::FAILED, error))?;
    let result = runtime.block_on(command);
    // What still waits for a silent host must not keep the operator waiting.
    runtime.shutdown_background();
    // Nor must a question that is still open keep the terminal.
    echo::restore();
    result
}
