//! The pages are completions and manual pages, made from the definition of the command line.

use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::generate;
use clap_mangen::{Man, generate_to};

use super::arguments::{Arguments, CompletionsArguments, ManArguments};
use super::failure::{FAILED, Failure};
use super::terminal::Terminal;

/// Prints the completions of a shell.
pub(super) fn completions(terminal: &Terminal, arguments: &CompletionsArguments) -> u8 {
    let mut script = Vec::new();
    generate(arguments.shell, &mut Arguments::command(), "certroll", &mut script);
    terminal.print(&String::from_utf8_lossy(&script));
    0
}

/// Prints a manual page, or writes all of them into a folder.
pub(super) fn man(terminal: &Terminal, arguments: &ManArguments) -> Result<u8, Failure> {
    // A page of `help` would say nothing.
    let mut all = Arguments::command().disable_help_subcommand(true);
    if let Some(folder) = &arguments.dir {
        write_all(all, folder)?;
        return Ok(0);
    }
    // Options of every command belong to the page of each.
    all.build();
    let mut command = &all;
    for word in &arguments.command {
        command = command.find_subcommand(word).ok_or_else(|| unknown(word, command))?;
    }
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page).map_err(|error| Failure::new(FAILED, error))?;
    terminal.print(&String::from_utf8_lossy(&page));
    Ok(0)
}

fn write_all(all: Command, folder: &Path) -> Result<(), Failure> {
    let written = std::fs::create_dir_all(folder).and_then(|()| generate_to(all, folder));
    written.map_err(|error| {
        let message = format!("the pages cannot be written to `{}`: {error}", folder.display());
        Failure::message(FAILED, message)
    })
}

fn unknown(word: &str, command: &Command) -> Failure {
    let known: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    let failure = Failure::usage(format!(
        "`{}` has no command `{word}`",
        command.get_display_name().unwrap_or("certroll")
    ));
    if known.is_empty() { failure } else { failure.hint(format!("its commands are {}", known.join(", "))) }
}
