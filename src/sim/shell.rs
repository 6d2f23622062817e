//! The simulated shell: reads a POSIX script into a [`Script`] and runs it on a simulated node.
//!
//! `sshd` starts it with what came over the wire. What it does not know is an error on stderr with status 2, never silence.

use std::sync::Arc;

mod arithmetic;
mod builtins;
mod expand;
mod parse;
mod pattern;
mod process;
mod run;
mod streams;
mod word;

#[cfg(test)]
mod tests;

pub(crate) use parse::parse;
pub(crate) use pattern::matches;
pub(crate) use process::{Ended, Process, Unwind};
pub(crate) use streams::{Sink, Source};

/// Commands one after another.
pub(crate) type Script = Vec<AndOr>;

/// Pipelines joined by `&&` and `||`.
#[derive(Debug, Clone)]
pub(crate) struct AndOr {
    pub(crate) first: Pipeline,
    pub(crate) rest: Vec<(Join, Pipeline)>,
}

/// `&&` or `||`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Join {
    And,
    Or,
}

/// Commands joined by `|`.
#[derive(Debug, Clone)]
pub(crate) struct Pipeline {
    pub(crate) negated: bool,
    pub(crate) commands: Vec<Command>,
}

/// A command with its redirections.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub(crate) body: Body,
    pub(crate) redirections: Vec<Redirection>,
}

/// What a command is.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Simple { assignments: Vec<(String, Word)>, words: Vec<Word> },
    Group(Script),
    Subshell(Script),
    If { branches: Vec<(Script, Script)>, otherwise: Option<Script> },
    Loop { until: Expected, condition: Script, body: Script },
    For { name: String, words: Option<Vec<Word>>, body: Script },
    Case { subject: Word, arms: Vec<(Vec<Word>, Script)> },
    Function { name: String, body: Arc<Command> },
}

/// Which result of its condition ends a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// `until`.
    Success,
    /// `while`.
    Failure,
}

/// `2>/dev/null` and its kin.
#[derive(Debug, Clone)]
pub(crate) struct Redirection {
    pub(crate) descriptor: usize,
    pub(crate) target: Target,
}

/// Where a redirection leads.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Read(Word),
    Write(Word),
    Clobber(Word),
    Append(Word),
    Duplicate(Word),
    Here(Word),
}

/// Pieces that make one word.
pub(crate) type Word = Vec<Piece>;

/// A piece of a word.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    /// Text outside quotes: its `*` are patterns.
    Literal(String),
    /// Text in quotes.
    Quoted(String),
    /// What stands in double quotes.
    Double(Word),
    /// `$name`, `${name...}`.
    Parameter(Parameter),
    /// `$(...)`.
    Substitution(Arc<Script>),
    /// `$((...))`.
    Arithmetic(Word),
}

/// A parameter and what is done with it.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) operation: Operation,
}

/// What `${name...}` does.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Value,
    Length,
    /// `-`, `=`, `?` or `+` with its word; with the colon, an empty value counts as unset.
    Fallback {
        kind: Fallback,
        empty: Empty,
        word: Word,
    },
    /// `%`, `%%`, `#`, `##`.
    Strip {
        side: Side,
        greed: Greed,
        pattern: Word,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fallback {
    Default,
    Assign,
    Error,
    Alternative,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Empty {
    CountsAsUnset,
    IsValue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Prefix,
    Suffix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greed {
    Shortest,
    Longest,
}
