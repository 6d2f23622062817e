//! Known hosts are the lines of known_hosts files: which host owns which key, which keys are revoked.
//!
//! `HostKeys` makes them from files and asks them for a verdict. The manual page sshd(8) has the format.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use russh::keys::{Algorithm, PublicKey};
use sha1::Sha1;

use super::Endpoint;

/// The port that known_hosts does not spell out.
const DEFAULT_PORT: u16 = 22;

/// A line of a known_hosts file, shown as `path:line`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file.display(), self.line)
    }
}

/// What known_hosts says of a key that a host shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The host is known by this key.
    Known,
    /// Nothing is known of the host; a `@cert-authority` line may cover it.
    Unknown { authority: Option<Place> },
    /// The host is known by other keys; one of the same kind comes first.
    Changed { place: Place, algorithm: Algorithm },
    /// The key is marked `@revoked`.
    Revoked { place: Place },
}

/// The lines of all known_hosts files, in their order.
#[derive(Debug, Default)]
pub(super) struct KnownHosts {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    marker: Marker,
    hosts: Hosts,
    key: PublicKey,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    Plain,
    CertAuthority,
    Revoked,
}

#[derive(Debug)]
enum Hosts {
    /// Lower-case patterns with `*`, `?` and a leading `!`.
    Patterns(Vec<String>),
    /// `|1|salt|hash`: HMAC-SHA1 of the name with the salt as its key.
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
}

impl KnownHosts {
    /// Adds the lines of a file. Lines that cannot be understood count for nothing, as with OpenSSH.
    pub(super) fn extend(&mut self, file: &Path, text: &str) {
        for (line, number) in text.lines().zip(1..) {
            self.add(Place { file: file.to_owned(), line: number }, line);
        }
    }

    /// Adds one line.
    pub(super) fn add(&mut self, place: Place, line: &str) {
        self.entries.extend(Entry::parse(line, place));
    }

    /// Returns what is known of a key that a host shows.
    pub(super) fn verdict(&self, at: &Endpoint, key: &PublicKey) -> Verdict {
        let matching: Vec<&Entry> = self.matching(at).collect();
        let same_key = |entry: &&&Entry| entry.key.key_data() == key.key_data();
        let with_marker = |marker| matching.iter().filter(move |entry| entry.marker == marker);
        if let Some(entry) = with_marker(Marker::Revoked).find(same_key) {
            return Verdict::Revoked { place: entry.place.clone() };
        }
        if with_marker(Marker::Plain).any(|entry| entry.key.key_data() == key.key_data()) {
            return Verdict::Known;
        }
        // A port of its own may run another sshd: what is known of port 22 confirms a key there, and refutes none.
        let own_name = lookup_name(at);
        let refuting = || with_marker(Marker::Plain).filter(|entry| entry.hosts.matches(&own_name));
        let same_kind = refuting().find(|entry| entry.key.algorithm() == key.algorithm());
        match same_kind.or_else(|| refuting().next()) {
            Some(entry) => Verdict::Changed { place: entry.place.clone(), algorithm: entry.key.algorithm() },
            None => Verdict::Unknown {
                authority: with_marker(Marker::CertAuthority).next().map(|entry| entry.place.clone()),
            },
        }
    }

    /// Returns the kinds of the keys by which a host is known, those of its own port first.
    pub(super) fn algorithms(&self, at: &Endpoint) -> Vec<Algorithm> {
        let own_name = lookup_name(at);
        let (own, other): (Vec<&Entry>, Vec<&Entry>) = self
            .matching(at)
            .filter(|entry| entry.marker == Marker::Plain)
            .partition(|entry| entry.hosts.matches(&own_name));
        own.into_iter().chain(other).map(|entry| entry.key.algorithm()).collect()
    }

    fn matching(&self, at: &Endpoint) -> impl Iterator<Item = &Entry> {
        let names = [lookup_name(at), at.host.to_lowercase()];
        self.entries.iter().filter(move |entry| names.iter().any(|name| entry.hosts.matches(name)))
    }
}

/// Returns the places of the lines of a known_hosts text that speak of a host.
pub fn places_of(text: &str, at: &Endpoint) -> Vec<Place> {
    let mut known = KnownHosts::default();
    known.extend(Path::new("known_hosts"), text);
    known.matching(at).map(|entry| entry.place.clone()).collect()
}

/// Returns the name under which a host stands in known_hosts: `[host]:port`, or `host` alone for port 22.
pub(super) fn lookup_name(at: &Endpoint) -> String {
    let host = at.host.to_lowercase();
    if at.port == DEFAULT_PORT { host } else { format!("[{host}]:{}", at.port) }
}

impl Entry {
    fn parse(line: &str, place: Place) -> Option<Self> {
        let mut words = line.split_whitespace();
        let first = words.next().filter(|word| !word.starts_with('#'))?;
        let (marker, hosts) = match first {
            "@cert-authority" => (Marker::CertAuthority, words.next()?),
            "@revoked" => (Marker::Revoked, words.next()?),
            _ if first.starts_with('@') => return None,
            hosts => (Marker::Plain, hosts),
        };
        let kind = words.next()?;
        let key = russh::keys::parse_public_key_base64(words.next()?).ok()?;
        if key.algorithm().as_str() != kind {
            return None;
        }
        Some(Self { marker, hosts: Hosts::parse(hosts)?, key, place })
    }
}

impl Hosts {
    fn parse(text: &str) -> Option<Self> {
        let Some(hashed) = text.strip_prefix('|') else {
            return Some(Self::Patterns(text.to_lowercase().split(',').map(str::to_owned).collect()));
        };
        let (salt, hash) = hashed.strip_prefix("1|")?.split_once('|')?;
        Some(Self::Hashed { salt: STANDARD.decode(salt).ok()?, hash: STANDARD.decode(hash).ok()? })
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Patterns(patterns) => {
                let matched = |pattern: &str| matches_pattern(pattern.as_bytes(), name.as_bytes());
                let excluded = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(matched);
                !excluded && patterns.iter().any(|pattern| matched(pattern))
            }
            Self::Hashed { salt, hash } => Hmac::<Sha1>::new_from_slice(salt)
                .is_ok_and(|code| code.chain_update(name).verify_slice(hash).is_ok()),
        }
    }
}

/// Returns whether a name matches a pattern in which `*` stands for any text and `?` for any one byte.
fn matches_pattern(mut pattern: &[u8], mut name: &[u8]) -> bool {
    // Where the newest `*` stands, and the rest of the name that it has not swallowed yet.
    let mut resume: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), name.split_first()) {
            (Some((b'*', rest)), _) => {
                resume = Some((rest, name));
                pattern = rest;
            }
            (Some((expected, pattern_rest)), Some((found, name_rest)))
                if *expected == b'?' || expected == found =>
            {
                (pattern, name) = (pattern_rest, name_rest);
            }
            (None, None) => return true,
            _ => {
                let Some((after_star, [_, rest @ ..])) = resume else { return false };
                resume = Some((after_star, rest));
                (pattern, name) = (after_star, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests;
