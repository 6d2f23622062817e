//! Known hosts are the lines of known_hosts files: which host owns which key, which keys are revoked.
//!
//! `HostKeys` makes them from files and asks them for a verdict. The manual page sshd(8) has the format.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use russh::keys::ssh_key::public::KeyData;
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
///
/// A bastion knows hundreds of hosts, and each connection asks several times: names are looked up, and what has to be compared line
/// by line is compared once a name.
#[derive(Debug, Default)]
pub(super) struct KnownHosts {
    entries: Vec<Entry>,
    /// Which lines have a name, by its position; lines of plain names alone.
    by_name: HashMap<String, Vec<usize>>,
    /// The other lines: patterns and hashed names.
    others: Vec<usize>,
    /// Which of the other lines match a name.
    compared: RefCell<HashMap<String, Arc<[usize]>>>,
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
    /// `|1|salt|hash`: HMAC-SHA1 of the name, with the salt as its key.
    Hashed { salted: Box<Hmac<Sha1>>, hash: Vec<u8> },
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
        let Some(entry) = Entry::parse(line, place) else { return };
        let position = self.entries.len();
        match &entry.hosts {
            Hosts::Patterns(names) if !names.iter().any(|name| name.contains(['*', '?', '!'])) => {
                for name in names {
                    self.by_name.entry(name.clone()).or_default().push(position);
                }
            }
            _ => {
                self.others.push(position);
                self.compared.get_mut().clear();
            }
        }
        self.entries.push(entry);
    }

    /// Returns what is known of a key that a host shows.
    pub(super) fn verdict(&self, at: &Endpoint, key: &PublicKey) -> Verdict {
        let same_key = |entry: &&&Entry| entry.key.key_data() == key.key_data();
        let matching: Vec<&Entry> = self.matching(at).collect();
        let mut revocations = matching.iter().filter(|entry| entry.marker == Marker::Revoked);
        if let Some(entry) = revocations.find(same_key) {
            return Verdict::Revoked { place: entry.place.clone() };
        }
        let plain = self.deciding(at, Marker::Plain);
        if plain.iter().any(|entry| entry.key.key_data() == key.key_data()) {
            return Verdict::Known;
        }
        // A port of its own may run another sshd: what is known of port 22 confirms a key there, and refutes none.
        let own_name = lookup_name(at);
        let refuting = || plain.iter().filter(|entry| entry.hosts.matches(&own_name));
        let same_kind = refuting().find(|entry| entry.key.algorithm() == key.algorithm());
        if let Some(entry) = same_kind.or_else(|| refuting().next()) {
            return Verdict::Changed { place: entry.place.clone(), algorithm: entry.key.algorithm() };
        }
        let authorities = self.deciding(at, Marker::CertAuthority);
        Verdict::Unknown { authority: authorities.first().map(|entry| entry.place.clone()) }
    }

    /// Returns where one of some keys is revoked for a host, and which.
    pub(super) fn revoked<'a>(&self, at: &Endpoint, keys: [&'a KeyData; 2]) -> Option<(&'a KeyData, Place)> {
        let mut revocations = self.matching(at).filter(|entry| entry.marker == Marker::Revoked);
        revocations.find_map(|entry| {
            let key = keys.into_iter().find(|key| *key == entry.key.key_data())?;
            Some((key, entry.place.clone()))
        })
    }

    /// Returns the line by which a key is an authority over the certificate of a host.
    pub(super) fn authority(&self, at: &Endpoint, key: &KeyData) -> Option<&Place> {
        let authorities = self.deciding(at, Marker::CertAuthority);
        authorities.into_iter().find(|entry| entry.key.key_data() == key).map(|entry| &entry.place)
    }

    /// Returns whether there is an authority over the certificate of a host.
    pub(super) fn has_authority(&self, at: &Endpoint) -> bool {
        self.matching(at).any(|entry| entry.marker == Marker::CertAuthority)
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

    /// Returns the lines of one kind that decide on a host: those of its own name, and those of the bare name where there are none. That
    /// is the order of `check_host_key` in OpenSSH's sshconnect.c: who is known at a port is not taken for the one at port 22.
    fn deciding(&self, at: &Endpoint, marker: Marker) -> Vec<&Entry> {
        let own_name = lookup_name(at);
        let (own, bare): (Vec<&Entry>, Vec<&Entry>) = self
            .matching(at)
            .filter(|entry| entry.marker == marker)
            .partition(|entry| entry.hosts.matches(&own_name));
        if own.is_empty() { bare } else { own }
    }

    fn matching(&self, at: &Endpoint) -> impl Iterator<Item = &Entry> {
        let own_name = lookup_name(at);
        let bare_name = (at.port != DEFAULT_PORT).then(|| at.host.to_lowercase());
        let mut positions: Vec<usize> = Vec::new();
        for name in std::iter::once(own_name).chain(bare_name) {
            positions.extend(self.by_name.get(&name).into_iter().flatten());
            positions.extend(self.compared_with(name).iter());
        }
        positions.sort_unstable();
        positions.dedup();
        positions.into_iter().filter_map(|position| self.entries.get(position))
    }

    /// Returns the lines that have to be compared with a name and match it.
    fn compared_with(&self, name: String) -> Arc<[usize]> {
        let mut compared = self.compared.borrow_mut();
        if let Some(known) = compared.get(&name) {
            return Arc::clone(known);
        }
        let matches =
            |position: &usize| self.entries.get(*position).is_some_and(|entry| entry.hosts.matches(&name));
        let matching: Arc<[usize]> = self.others.iter().copied().filter(matches).collect();
        compared.insert(name, Arc::clone(&matching));
        matching
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
        let salted = Box::new(Hmac::new_from_slice(&STANDARD.decode(salt).ok()?).ok()?);
        Some(Self::Hashed { salted, hash: STANDARD.decode(hash).ok()? })
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Patterns(patterns) => {
                let matched = |pattern: &str| matches_pattern(pattern.as_bytes(), name.as_bytes());
                let excluded = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(matched);
                !excluded && patterns.iter().any(|pattern| matched(pattern))
            }
            Self::Hashed { salted, hash } => {
                salted.as_ref().clone().chain_update(name).verify_slice(hash).is_ok()
            }
        }
    }
}

/// Returns whether a name matches a pattern in which `*` stands for any text and `?` for any one byte.
pub(super) fn matches_pattern(mut pattern: &[u8], mut name: &[u8]) -> bool {
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
