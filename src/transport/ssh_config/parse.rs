//! Parsing turns the text of an ssh_config into directives, and says what is wrong with its lines.
//!
//! `files` calls it for each file. What OpenSSH refuses is a problem, except for keywords that are not known: newer releases and
//! other systems have more of them, so they are only named.

use std::time::Duration;

use super::directive::{AddressFamily, Criterion, Directive, Kind, Sense, Setting, Strictness, Switch, Test};
use super::tokens::{self, TokenError};
use super::words;
use crate::transport::Jump;

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LineProblem {
    /// The line, counted from 1.
    pub(super) line: usize,
    /// What is wrong, in a lower-case fragment.
    pub(super) message: String,
}

/// Returns what the lines of a text say, and what is wrong with them.
pub(super) fn parse(text: &str) -> (Vec<Directive>, Vec<LineProblem>) {
    let (mut directives, mut problems) = (Vec::new(), Vec::new());
    for (text, line) in text.split('\n').zip(1..) {
        let Some((keyword, rest)) = words::keyword(text) else { continue };
        match kind(&keyword, rest) {
            Ok(Some(kind)) => directives.push(Directive { line, kind }),
            Ok(None) => {}
            Err(message) => problems.push(LineProblem { line, message }),
        }
    }
    (directives, problems)
}

/// Returns what a line does; nothing for values that leave all as it is.
fn kind(written: &str, rest: &str) -> Result<Option<Kind>, String> {
    let keyword = &*written.to_ascii_lowercase();
    if rest.is_empty() {
        return Err(format!("`{written}` has no value"));
    }
    let words = words::arguments(rest).map_err(|words::OpenQuote| "a quote is not closed".to_owned())?;
    // Its name of long ago.
    let keyword = if keyword == "identityfile2" { "identityfile" } else { keyword };
    Ok(Some(match keyword {
        "host" => Kind::Host(filled(keyword, words)?),
        "match" => Kind::Match(criteria(words)?),
        "include" => Kind::Include { left_out: filled(keyword, words)?, files: Vec::new() },
        // Their values are what is left of the line, quotes and all.
        "proxycommand" => Kind::Set(Setting::ProxyCommand(rest.to_owned())),
        "proxyjump" => Kind::Set(Setting::ProxyJump(jumps(rest)?)),
        "userknownhostsfile" => match files(keyword, words)? {
            files if files.iter().any(|file| is_beyond_us(file)) => {
                unused("UserKnownHostsFile", &files.join(" "))
            }
            files => Kind::Set(Setting::UserKnownHostsFile(files)),
        },
        "globalknownhostsfile" => Kind::Set(Setting::GlobalKnownHostsFile(files(keyword, words)?)),
        // Keywords that are not known are only named, as if this said `*`.
        "ignoreunknown" => return Ok(None),
        _ => return single(keyword, written, words),
    }))
}

/// Returns what a keyword with one value does.
fn single(keyword: &str, written: &str, words: Vec<String>) -> Result<Option<Kind>, String> {
    let Some(spelling) = SINGLE.iter().find(|spelling| spelling.eq_ignore_ascii_case(keyword)) else {
        return Ok(Some(Kind::Unused(written.to_owned())));
    };
    let mut words = words.into_iter();
    let value = words.next().filter(|value| !value.is_empty());
    let value = value.ok_or_else(|| format!("`{spelling}` has no value"))?;
    if let Some(extra) = words.next() {
        return Err(format!("`{spelling}` takes one value, and `{extra}` is another"));
    }
    let wrong = |expected: &str| format!("`{value}` is no value of `{spelling}`: {expected} is expected");
    let with_tokens = |wrap: fn(String) -> Setting| match tokens::check(&value) {
        Ok(()) => Ok(Kind::Set(wrap(value.clone()))),
        Err(TokenError::NotUnderstood(_)) => Ok(unused(spelling, &value)),
        Err(error) => Err(format!("`{spelling}`: {error}")),
    };
    let setting = match keyword {
        "hostname" => {
            tokens::check_host_name(&value).map_err(|error| format!("`{spelling}`: {error}"))?;
            Setting::HostName(value)
        }
        "port" => Setting::Port(port(&value).ok_or_else(|| wrong("a port from 1 to 65535"))?),
        "user" => return with_tokens(Setting::User).map(Some),
        "identityfile" => return with_tokens(Setting::IdentityFile).map(Some),
        "certificatefile" => return with_tokens(Setting::CertificateFile).map(Some),
        "identityagent" => return with_tokens(Setting::IdentityAgent).map(Some),
        "identitiesonly" => Setting::IdentitiesOnly(switch(&value).ok_or_else(|| wrong("yes or no"))?),
        "hostkeyalias" => Setting::HostKeyAlias(value.to_ascii_lowercase()),
        "tag" => Setting::Tag(value),
        "stricthostkeychecking" => Setting::StrictHostKeyChecking(
            strictness(&value).ok_or_else(|| wrong("yes, ask, accept-new, no or off"))?,
        ),
        "addressfamily" => Setting::AddressFamily(family(&value).ok_or_else(|| wrong("any, inet or inet6"))?),
        "serveralivecountmax" => {
            let count = value.parse::<i32>().ok().and_then(|count| u32::try_from(count).ok());
            Setting::ServerAliveCountMax(count.ok_or_else(|| wrong("a number"))?)
        }
        // It leaves all to later lines.
        _ if value == "none" => return Ok(None),
        _ => {
            let time = time(&value).ok_or_else(|| wrong("a time such as 90, 90s or 1m30s"))?;
            return Ok(Some(timed(spelling, &value, time)));
        }
    };
    Ok(Some(Kind::Set(setting)))
}

/// The keywords that are understood and have one value.
const SINGLE: [&str; 14] = [
    "HostName",
    "Port",
    "User",
    "IdentityFile",
    "IdentitiesOnly",
    "IdentityAgent",
    "CertificateFile",
    "StrictHostKeyChecking",
    "HostKeyAlias",
    "ConnectTimeout",
    "ServerAliveInterval",
    "ServerAliveCountMax",
    "AddressFamily",
    "Tag",
];

fn unused(keyword: &str, value: &str) -> Kind {
    Kind::Unused(format!("{keyword} {value}"))
}

/// Returns words of which none is empty, as OpenSSH wants them; none at all mean nothing, and are no problem.
fn filled(keyword: &str, words: Vec<String>) -> Result<Vec<String>, String> {
    if words.iter().any(String::is_empty) {
        return Err(format!("`{keyword}` has an empty value"));
    }
    Ok(words)
}

/// Returns known_hosts files; none for the word `none`.
fn files(keyword: &str, words: Vec<String>) -> Result<Vec<String>, String> {
    let files = filled(keyword, words)?;
    let is_none = |file: &String| file.eq_ignore_ascii_case("none");
    match files.iter().any(is_none) {
        true if files.len() > 1 => Err(format!("`none` stands alone in `{keyword}`")),
        true => Ok(Vec::new()),
        false => Ok(files),
    }
}

/// Returns whether a value cannot be filled in here.
fn is_beyond_us(value: &str) -> bool {
    tokens::check(value).is_err()
}

/// Returns the hosts of a `ProxyJump`, a list in one word.
fn jumps(rest: &str) -> Result<Option<Vec<Jump>>, String> {
    let list = rest.trim_start_matches('=').trim_start();
    let list = list.split('#').next().unwrap_or(list).trim();
    if list.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    let jumps: Result<Vec<Jump>, _> = list.split(',').map(str::parse).collect();
    jumps.map(Some).map_err(|error| error.to_string())
}

fn port(value: &str) -> Option<u16> {
    if value == "ssh" {
        return Some(22);
    }
    value.parse().ok().filter(|port| *port != 0)
}

fn switch(value: &str) -> Option<Switch> {
    match value.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some(Switch::Yes),
        "no" | "false" => Some(Switch::No),
        _ => None,
    }
}

fn strictness(value: &str) -> Option<Strictness> {
    match value.to_ascii_lowercase().as_str() {
        "yes" | "true" | "ask" => Some(Strictness::Strict),
        "accept-new" => Some(Strictness::AcceptNew),
        "no" | "false" | "off" => Some(Strictness::Off),
        _ => None,
    }
}

fn family(value: &str) -> Option<AddressFamily> {
    match value.to_ascii_lowercase().as_str() {
        "any" => Some(AddressFamily::Any),
        "inet" => Some(AddressFamily::Inet),
        "inet6" => Some(AddressFamily::Inet6),
        _ => None,
    }
}

/// Returns what a time does; without a limit, or without signs of life, nothing is done here.
fn timed(spelling: &str, value: &str, time: Duration) -> Kind {
    match spelling {
        _ if time.is_zero() => unused(spelling, value),
        "ConnectTimeout" => Kind::Set(Setting::ConnectTimeout(time)),
        _ => Kind::Set(Setting::ServerAliveInterval(time)),
    }
}

/// Returns a time in the format of `sshd_config(5)`.
fn time(value: &str) -> Option<Duration> {
    let mut total = 0_u64;
    let mut rest = value;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        let (number, after) = rest.split_at_checked(digits)?;
        let number: u64 = number.parse().ok()?;
        let mut units = after.chars();
        let seconds = match units.next().map(|unit| unit.to_ascii_lowercase()) {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 60 * 60,
            Some('d') => 24 * 60 * 60,
            Some('w') => 7 * 24 * 60 * 60,
            Some(_) => return None,
        };
        total = total.checked_add(number.checked_mul(seconds)?)?;
        rest = units.as_str();
    }
    // OpenSSH keeps it in an `int`.
    let is_kept = i32::try_from(total).is_ok();
    is_kept.then_some(Duration::from_secs(total))
}

/// Returns the criteria of a `Match` line.
fn criteria(words: Vec<String>) -> Result<Vec<Criterion>, String> {
    let mut criteria = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let (sense, name) = match word.strip_prefix('!') {
            Some(name) => (Sense::DoesNotHold, name),
            None => (Sense::Holds, word.as_str()),
        };
        if name.eq_ignore_ascii_case("all") {
            if criteria.len() > 1 || words.next().is_some_and(|next| !next.is_empty()) {
                return Err(format!("`{word}` cannot be combined with other criteria of `Match`"));
            }
            criteria.push(Criterion { sense, test: Test::All });
            return Ok(criteria);
        }
        let test = match name.to_ascii_lowercase().as_str() {
            "final" => Test::Final,
            "canonical" => Test::Canonical,
            _ => {
                let (name, argument) = match name.split_once('=') {
                    Some((name, argument)) => (name, Some(argument.to_owned())),
                    None => (name, words.next()),
                };
                test(name, argument)?
            }
        };
        criteria.push(Criterion { sense, test });
    }
    if criteria.is_empty() { Err("`Match` has no criteria".to_owned()) } else { Ok(criteria) }
}

/// Returns a criterion that has an argument.
fn test(name: &str, argument: Option<String>) -> Result<Test, String> {
    let name = name.to_ascii_lowercase();
    let may_be_empty = matches!(name.as_str(), "tagged" | "command");
    let argument = argument.filter(|argument| may_be_empty || !argument.is_empty());
    let argument = argument.ok_or_else(|| format!("`{name}` of `Match` has no value"))?;
    Ok(match name.as_str() {
        "host" => Test::Host(argument),
        "originalhost" => Test::OriginalHost(argument),
        "user" => Test::User(argument),
        "localuser" => Test::LocalUser(argument),
        "tagged" => Test::Tagged(argument),
        "exec" | "localnetwork" | "version" | "command" | "sessiontype" => Test::NotEvaluated(name),
        _ => return Err(format!("`{name}` is not a criterion of `Match`")),
    })
}
