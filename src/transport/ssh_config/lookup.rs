//! A look-up is what the files say of one host: the first value that is found for each keyword.
//!
//! A login is made from it. The files are gone through a second time where a `Match final` asks for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indexmap::{IndexMap, IndexSet};

use super::directive::{
    AddressFamily, ConfigFile, Criterion, Directive, Kind, Sense, Setting, Strictness, Switch, Test,
};
use super::{Place, patterns, tokens};
use crate::transport::Jump;

/// Who is to be reached.
#[derive(Debug, Clone, Copy)]
pub(in crate::transport) struct Query<'a> {
    /// The name or address as it was asked for.
    pub(in crate::transport) host: &'a str,
    /// The user, where that is decided already.
    pub(in crate::transport) user: Option<&'a str>,
    /// The user of this machine.
    pub(in crate::transport) local_user: &'a str,
}

/// A value, and the line that gave it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::transport) struct Found<T> {
    pub(in crate::transport) value: T,
    pub(in crate::transport) place: Place,
}

/// What the files say of a host.
#[derive(Debug, Default)]
pub(in crate::transport) struct HostConfig {
    /// `HostName` with its tokens filled in.
    pub(in crate::transport) host_name: Option<Found<String>>,
    pub(in crate::transport) port: Option<Found<u16>>,
    pub(in crate::transport) user: Option<Found<String>>,
    /// Every one that was found, in their order, with the line that gave it first.
    pub(in crate::transport) identity_files: IndexMap<String, Place>,
    pub(in crate::transport) identities_only: Option<Found<Switch>>,
    pub(in crate::transport) identity_agent: Option<Found<String>>,
    pub(in crate::transport) certificate_files: IndexMap<String, Place>,
    /// The hosts on the way, none for `none`.
    pub(in crate::transport) jumps: Option<Found<Vec<Jump>>>,
    /// A command that would be run instead of a connection.
    pub(in crate::transport) proxy_command: Option<Found<String>>,
    pub(in crate::transport) user_known_hosts: Option<Found<Vec<String>>>,
    pub(in crate::transport) global_known_hosts: Option<Found<Vec<String>>>,
    pub(in crate::transport) strictness: Option<Found<Strictness>>,
    pub(in crate::transport) host_key_alias: Option<Found<String>>,
    pub(in crate::transport) connect_timeout: Option<Found<Duration>>,
    pub(in crate::transport) alive_interval: Option<Found<Duration>>,
    pub(in crate::transport) alive_count: Option<Found<u32>>,
    pub(in crate::transport) family: Option<Found<AddressFamily>>,
    /// What applies to the host and has no effect here, in the words of the file.
    pub(in crate::transport) unused: IndexSet<Found<String>>,
    tag: Option<Found<String>>,
}

/// Whether lines have an effect where they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Active,
    /// Until the next `Host` or `Match`.
    Passive,
    /// To the end of a file that was included where nothing applied.
    Never,
}

/// How often the files were gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    First,
    Final,
}

/// Returns what files say of a host.
pub(super) fn look_up(files: &[Arc<ConfigFile>], query: &Query<'_>) -> HostConfig {
    let mut lookup = LookUp {
        query: *query,
        pass: Pass::First,
        host: query.host.to_owned(),
        found: HostConfig::default(),
    };
    lookup.all(files);
    if files.iter().any(|file| wants_final_pass(file)) {
        // The second time `Host` is compared with the name that is connected to.
        lookup.host = lowercase_name(lookup.host_name());
        lookup.pass = Pass::Final;
        lookup.all(files);
    }
    lookup.found
}

/// Returns a name in lower case; addresses stay as they are.
pub(in crate::transport) fn lowercase_name(mut host: String) -> String {
    let is_address = |letter: char| letter.is_ascii_digit() || letter == '.';
    if !host.contains([':', '%']) && !host.chars().all(is_address) {
        host.make_ascii_lowercase();
    }
    host
}

/// Returns whether a `Match final` stands in a file or in what it includes, wherever that is.
fn wants_final_pass(file: &ConfigFile) -> bool {
    file.directives.iter().any(|directive| match &directive.kind {
        Kind::Match(criteria) => {
            criteria.iter().any(|criterion| criterion.test == Test::Final && criterion.sense == Sense::Holds)
        }
        Kind::Include { files, .. } => files.iter().any(|file| wants_final_pass(file)),
        _ => false,
    })
}

struct LookUp<'a> {
    query: Query<'a>,
    pass: Pass,
    /// What `Host` is compared with.
    host: String,
    found: HostConfig,
}

impl LookUp<'_> {
    fn all(&mut self, files: &[Arc<ConfigFile>]) {
        for file in files {
            self.file(file, State::Active);
        }
    }

    fn file(&mut self, file: &ConfigFile, begin: State) {
        let mut state = begin;
        for Directive { line, kind } in &file.directives {
            let place = || Place { file: Arc::clone(&file.name), line: *line };
            let set = |is_active| match (state, is_active) {
                (State::Never, _) => State::Never,
                (_, true) => State::Active,
                (_, false) => State::Passive,
            };
            match kind {
                Kind::Host(names) => state = set(patterns::fits_host_line(names, &self.host)),
                Kind::Match(criteria) => state = set(self.fits(criteria, place)),
                Kind::Include { left_out, files } => {
                    let begin = if state == State::Active { State::Active } else { State::Never };
                    if state == State::Active {
                        for name in left_out {
                            self.unused(format!("Include {name}"), place());
                        }
                    }
                    for file in files {
                        self.file(file, begin);
                    }
                }
                Kind::Set(setting) if state == State::Active => self.set(setting, place),
                Kind::Unused(text) if state == State::Active => self.unused(text.clone(), place()),
                Kind::Set(_) | Kind::Unused(_) => {}
            }
        }
    }

    /// Returns the name that is connected to, as far as it is known.
    fn host_name(&self) -> String {
        match &self.found.host_name {
            Some(found) if self.pass == Pass::First => found.value.clone(),
            _ => self.host.clone(),
        }
    }

    fn unused(&mut self, value: String, place: Place) {
        self.found.unused.insert(Found { value, place });
    }

    /// Returns whether all criteria hold. One that is not looked into does not, and is named where it would have decided.
    fn fits(&mut self, criteria: &[Criterion], place: impl Fn() -> Place) -> bool {
        let mut not_evaluated = None;
        for criterion in criteria {
            let Some(holds) = self.holds(&criterion.test) else {
                not_evaluated = Some(&criterion.test);
                continue;
            };
            if holds != (criterion.sense == Sense::Holds) {
                return false;
            }
        }
        if let Some(Test::NotEvaluated(word)) = not_evaluated {
            self.unused(format!("Match {word}"), place());
        }
        not_evaluated.is_none()
    }

    /// Returns whether a criterion holds; nothing for one that is not looked into.
    fn holds(&self, test: &Test) -> Option<bool> {
        let user = || {
            let found = self.found.user.as_ref().map(|found| found.value.as_str());
            self.query.user.or(found).unwrap_or(self.query.local_user)
        };
        Some(match test {
            Test::All => true,
            Test::Final | Test::Canonical => self.pass == Pass::Final,
            Test::Host(list) => patterns::fits_host_list(list, &self.host_name()),
            Test::OriginalHost(list) => patterns::fits_host_list(list, self.query.host),
            Test::User(list) => patterns::fits_list(list, user()),
            Test::LocalUser(list) => patterns::fits_list(list, self.query.local_user),
            Test::Tagged(list) => match self.found.tag.as_ref().map_or("", |tag| &tag.value) {
                "" => list.is_empty(),
                tag => patterns::fits_list(list, tag),
            },
            Test::NotEvaluated(_) => return None,
        })
    }

    /// Takes a value where none was found before.
    fn set(&mut self, setting: &Setting, place: impl Fn() -> Place) {
        let found = &mut self.found;
        match setting {
            // It was decided when the first pass ended.
            Setting::HostName(_) if self.pass == Pass::Final => {}
            Setting::HostName(value) => {
                keep(&mut found.host_name, &tokens::host_name(value, &self.host), place);
            }
            Setting::Port(value) => keep(&mut found.port, value, place),
            Setting::User(value) => keep(&mut found.user, value, place),
            Setting::IdentityFile(value) => add(&mut found.identity_files, value, place),
            Setting::IdentitiesOnly(value) => keep(&mut found.identities_only, value, place),
            Setting::IdentityAgent(value) => keep(&mut found.identity_agent, value, place),
            Setting::CertificateFile(value) => add(&mut found.certificate_files, value, place),
            Setting::ProxyJump(value) => self.jump(value.as_deref(), place),
            Setting::ProxyCommand(value) => {
                // A jump that came first leaves no room for a command, unless it was `none`.
                if found.jumps.as_ref().is_none_or(|jumps| jumps.value.is_empty()) {
                    keep(&mut found.proxy_command, value, place);
                }
            }
            Setting::UserKnownHostsFile(value) => keep(&mut found.user_known_hosts, value, place),
            Setting::GlobalKnownHostsFile(value) => keep(&mut found.global_known_hosts, value, place),
            Setting::StrictHostKeyChecking(value) => keep(&mut found.strictness, value, place),
            Setting::HostKeyAlias(value) => keep(&mut found.host_key_alias, value, place),
            Setting::ConnectTimeout(value) => keep(&mut found.connect_timeout, value, place),
            Setting::ServerAliveInterval(value) => keep(&mut found.alive_interval, value, place),
            Setting::ServerAliveCountMax(value) => keep(&mut found.alive_count, value, place),
            Setting::AddressFamily(value) => keep(&mut found.family, value, place),
            Setting::Tag(value) => keep(&mut found.tag, value, place),
        }
    }

    /// Takes a `ProxyJump`; a `ProxyCommand` that came first, even `none`, leaves no room for one.
    fn jump(&mut self, jumps: Option<&[Jump]>, place: impl Fn() -> Place) {
        let found = &mut self.found;
        match jumps {
            None => keep(&mut found.jumps, &Vec::new(), place),
            Some(jumps) if found.proxy_command.is_none() => keep(&mut found.jumps, &jumps.to_vec(), place),
            Some(_) => {}
        }
    }
}

impl HostConfig {
    /// Returns the command that would be run instead of a connection, unless it is the word `none`.
    pub(in crate::transport) fn proxy_command(&self) -> Option<&Found<String>> {
        self.proxy_command.as_ref().filter(|found| !found.value.eq_ignore_ascii_case("none"))
    }
}

fn keep<T: Clone>(kept: &mut Option<Found<T>>, value: &T, place: impl Fn() -> Place) {
    kept.get_or_insert_with(|| Found { value: value.clone(), place: place() });
}

/// Adds a file to those that were found, unless it is among them.
fn add(files: &mut IndexMap<String, Place>, value: &str, place: impl Fn() -> Place) {
    files.entry(value.to_owned()).or_insert_with(place);
}

/// Returns the files of a text alone, without what it includes.
pub(super) fn without_includes(name: &Path, directives: Vec<Directive>) -> Vec<Arc<ConfigFile>> {
    vec![Arc::new(ConfigFile { name: name.into(), directives })]
}
