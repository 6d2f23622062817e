//! A directive is what one line of ssh_config says.
//!
//! `parse` makes them from text, `files` reads what they include, and `lookup` asks them about a host.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::transport::Jump;

/// One line that says something.
#[derive(Debug, Clone)]
pub(super) struct Directive {
    /// The line, counted from 1.
    pub(super) line: usize,
    pub(super) kind: Kind,
}

/// What a line does.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// What follows holds for hosts that fit the patterns.
    Host(Vec<String>),
    /// What follows holds where every criterion does.
    Match(Vec<Criterion>),
    /// Other files are read here.
    Include {
        /// Their paths as they are written, with `*` and `~`; those that were not read once the others are.
        left_out: Vec<String>,
        /// What was found there.
        files: Vec<Arc<ConfigFile>>,
    },
    /// A value is set, unless it was before.
    Set(Setting),
    /// Something that has no effect here, in the words of the file.
    Unused(String),
}

/// A file with its lines.
#[derive(Debug, Clone)]
pub(super) struct ConfigFile {
    /// How people are told of it: `~/.ssh/config`.
    pub(super) name: Arc<Path>,
    pub(super) directives: Vec<Directive>,
}

/// One part of a `Match` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Criterion {
    pub(super) sense: Sense,
    pub(super) test: Test,
}

/// Whether a criterion is to hold or not to hold (`!`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sense {
    Holds,
    DoesNotHold,
}

/// What a criterion asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    All,
    /// The second time that the files are gone through.
    Final,
    /// The same; that a name was looked up and replaced is another way to a second time, which does not exist here.
    Canonical,
    /// The name that is connected to.
    Host(String),
    /// The name that was asked for.
    OriginalHost(String),
    /// The user there.
    User(String),
    /// The user here.
    LocalUser(String),
    /// What `Tag` said before.
    Tagged(String),
    /// A criterion that is not looked into, for it runs a command or asks about this machine; its word.
    NotEvaluated(String),
}

/// A value of the settings that are understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setting {
    HostName(String),
    Port(u16),
    User(String),
    IdentityFile(String),
    IdentitiesOnly(Switch),
    IdentityAgent(String),
    CertificateFile(String),
    /// The hosts on the way, nearest first; `None` for the word `none`.
    ProxyJump(Option<Vec<Jump>>),
    ProxyCommand(String),
    /// Empty for the word `none`.
    UserKnownHostsFile(Vec<String>),
    GlobalKnownHostsFile(Vec<String>),
    StrictHostKeyChecking(Strictness),
    HostKeyAlias(String),
    ConnectTimeout(Duration),
    ServerAliveInterval(Duration),
    ServerAliveCountMax(u32),
    AddressFamily(AddressFamily),
    Tag(String),
}

/// `yes` or `no`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Switch {
    Yes,
    No,
}

/// `StrictHostKeyChecking`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Strictness {
    /// `yes`, and `ask`, for nobody is there to answer.
    Strict,
    /// `accept-new`
    AcceptNew,
    /// `no` and `off`
    Off,
}

/// The kind of addresses that a host is reached at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::transport) enum AddressFamily {
    #[default]
    Any,
    Inet,
    Inet6,
}
