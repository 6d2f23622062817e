//! The probe is the one script that looks at a node, and the reader of what it prints.
//!
//! The script finds out how to become root, then prints frames: a line that begins with a marker that no file can hold by
//! accident, and what follows until the next such line. A login shell's chatter before the first frame does not matter.

mod containers;
mod files;

use jiff::Timestamp;

use super::{Lock, Observation};
use crate::command::{BecomeRoot, Body, Missing, Password, Refused, Search, WaysToRoot, quote};
use crate::inventory::Node;
use containers::Inspected;
use files::{backups, files, folders, labels, space};

/// Whether private keys may be read as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyReading {
    /// Only the public prefix of a PKCS#1 RSA key.
    #[default]
    PublicPrefix,
    /// Every key, as a whole (`--read-keys`).
    Whole,
}

/// What the probe is to do, and its marker.
#[derive(Debug, Clone)]
pub struct Probe<'a> {
    /// The node that is looked at.
    pub node: &'a Node,
    /// `prefix_path` of the inventory.
    pub prefix_path: &'a str,
    /// How much of a key may be read.
    pub keys: KeyReading,
    /// Which ways to root may be tried.
    pub become_root: BecomeRoot,
    /// A word that cannot appear in a file by accident.
    pub marker: &'a str,
}

/// Why the answer of a probe cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// No way to root was found.
    #[error("no way to root: {}", .0.reasons)]
    NoAccess(Refused),
    /// The login did not run what it was given.
    #[error("the login did not run what it was given: {}", said(.0))]
    NotRun(String),
    /// The answer ends too early.
    #[error("the answer of the node is incomplete: {0}")]
    Incomplete(String),
}

impl ProbeError {
    /// Returns the way out.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoAccess(refused) => refusal_hint(refused),
            Self::NotRun(said) => shell_hint(said),
            Self::Incomplete(_) => return None,
        };
        Some(hint.to_owned())
    }
}

/// Returns what a login said, in words for people.
fn said(said: &str) -> String {
    if said.is_empty() { "it said nothing".to_owned() } else { format!("it said `{said}`") }
}

fn refusal_hint(refused: &Refused) -> &'static str {
    // A restricted shell says so in the midst of everything.
    if refused.reasons.contains("restricted: ") || refused.reasons.contains(": restricted") {
        return RESTRICTED;
    }
    match refused.missing {
        Some(Missing::Password) => {
            "run it on a terminal, where the password is asked for once, or name a file that holds it with `--become-password-file`; \
             `NOPASSWD` in sudoers or the group `docker` need none"
        }
        Some(Missing::RightPassword) => {
            "it is the password of the user on that node that sudo wants; the node is not asked again in this run, for accounts are locked \
             after a few wrong ones"
        }
        Some(Missing::Terminal) => {
            "sshd gives no terminal there (`PermitTTY`, `no-pty` in `authorized_keys`): allow one, or take `requiretty` out of sudoers for \
             the user"
        }
        None => {
            "log in as root, allow `sudo -n`, or put the user into the group `docker` of a node that holds RKE's images"
        }
    }
}

const RESTRICTED: &str = "the login shell is a restricted one: give the user another (`usermod -s /bin/sh USER`), or name another user";

/// Returns whether a login's words are those of `cmd.exe` or PowerShell, in English at least.
pub fn is_of_windows(said: &str) -> bool {
    let words =
        ["is not recognized as an internal or external command", "is not recognized as the name of a cmdlet"];
    words.iter().any(|words| said.contains(words))
}

/// Returns what to do about a login that runs no commands, by what it says instead.
fn shell_hint(said: &str) -> &'static str {
    let said = said.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|words| said.contains(words));
    if says(&["account is currently not available", "nologin", "account is not available"]) {
        return "the login shell is nologin: give the user one (`usermod -s /bin/sh USER`), or name another user";
    }
    if says(&["restricted"]) {
        return RESTRICTED;
    }
    "run `ssh USER@NODE id` and compare: does sshd force another command (`ForceCommand` in sshd_config, `command=` in \
     `authorized_keys`), does a profile (`.bashrc`) end the shell, or is the shell one that runs no commands?"
}

/// The part that runs as root. `M` marker, `P` prefixes to try, `W` whether keys are read as a whole, `E` etcd's address, `T` the
/// seconds that docker may take for one answer.
const BODY: &str = include_str!("probe/body.sh");

/// How long docker may take for one answer, in seconds: several must fit into the time that a command has.
const DOCKER_SECONDS: u32 = 12;

impl Probe<'_> {
    /// Returns the script for the login's shell: it becomes root in the first way that works, and looks.
    pub fn script(&self) -> String {
        self.ways().script(Body::Look(&self.body()))
    }

    /// Returns the ways to root that are tried, at first without a password.
    pub fn ways(&self) -> WaysToRoot<'_> {
        WaysToRoot {
            become_root: self.become_root,
            docker_socket: &self.node.docker_socket,
            marker: self.marker,
            password: Password::Absent,
        }
    }

    /// Returns the script that runs as root.
    pub fn body(&self) -> String {
        let whole = match self.keys {
            KeyReading::PublicPrefix => "no",
            KeyReading::Whole => "yes",
        };
        format!(
            "M={} P={} W={whole} E={} T={DOCKER_SECONDS}\n{BODY}",
            quote(self.marker),
            quote(self.prefix_path.trim_end_matches('/')),
            quote(&etcd_endpoint(&self.node.internal_address))
        )
    }
}

/// Returns the address that an etcd member listens on: its internal one alone, where it has two (rke v0.1.17 `cluster/plan.go`).
pub fn etcd_endpoint(internal_address: &str) -> String {
    if internal_address.contains(':') {
        format!("https://[{internal_address}]:2379")
    } else {
        format!("https://{internal_address}:2379")
    }
}

/// Reads what a probe printed. `asked_at` is our time at half of the round trip, for the clock's skew.
pub fn read(output: &str, marker: &str, asked_at: Timestamp) -> Result<Observation, ProbeError> {
    let access = match Search::read(output, marker) {
        Search::Found(access) => access,
        Search::Refused(refused) => return Err(ProbeError::NoAccess(refused)),
        Search::Silent => return Err(ProbeError::NotRun(first_words(output))),
    };
    let frames = frames(output, marker);
    if !frames.iter().any(|frame| frame.kind == "end") {
        let last = frames.last().map_or("nothing", |frame| frame.kind);
        return Err(ProbeError::Incomplete(format!("it breaks off after `{last}`")));
    }
    let text = |kind: &str| frames.iter().find(|frame| frame.kind == kind).map(|frame| frame.argument.trim());
    let number = |kind: &str| text(kind).and_then(|text| text.parse::<u64>().ok());
    let clock = number("clock").and_then(|seconds| i64::try_from(seconds).ok());
    let lock = frames.iter().find(|frame| frame.kind == "lock");
    let directory = text("directory").unwrap_or_default();
    let (free_kibibytes, free_inodes) = space(&frames, directory);
    let inspected = Inspected::read(&frames);
    Ok(Observation {
        access,
        clock_skew_seconds: clock.unwrap_or_default() - asked_at.as_second(),
        kubernetes_directory: directory.to_owned(),
        has_tmp: frames.iter().any(|frame| frame.kind == "tmp"),
        free_kibibytes,
        used_kibibytes: text_of(&frames, "used")
            .and_then(|text| text.split_whitespace().next()?.parse().ok()),
        free_inodes,
        is_writable: text("writable") == Some("yes"),
        folders: folders(&frames),
        labels: frames.iter().find(|frame| frame.kind == "selinux").and_then(|frame| labels(frame.text)),
        containers: inspected.containers,
        docker_error: frames
            .iter()
            .find(|frame| frame.kind == "docker-error")
            .map(|frame| first_words(frame.text)),
        files: files(&frames, directory),
        served: Vec::new(),
        health: frames.iter().filter_map(etcd_health).collect(),
        backups: backups(&frames),
        unfinished_runs: frames
            .iter()
            .filter(|frame| frame.kind == "staged")
            .filter_map(|frame| frame.argument.trim().rsplit('/').next())
            .map(str::to_owned)
            .collect(),
        service_account_key_file: inspected.service_account_key_file,
        agent: inspected.agent,
        lock: lock.map(|frame| Lock::read(frame.text, frame.argument)),
    })
}

/// One frame: its kind, what stands behind the kind, and the lines that follow.
pub(super) struct Frame<'a> {
    pub(super) kind: &'a str,
    pub(super) argument: &'a str,
    pub(super) text: &'a str,
}

/// Splits the output at the lines that begin with the marker.
pub(super) fn frames<'a>(output: &'a str, marker: &str) -> Vec<Frame<'a>> {
    let separator = format!("\n{marker} ");
    let mut parts = output.split(separator.as_str());
    let _before_the_first = parts.next();
    parts
        .map(|part| {
            let (head, text) = part.split_once('\n').unwrap_or((part, ""));
            let (kind, argument) = head.split_once(' ').unwrap_or((head, ""));
            Frame { kind, argument, text }
        })
        .collect()
}

/// Returns the text of a frame, if it holds any.
fn text_of(frames: &[Frame<'_>], kind: &str) -> Option<String> {
    let text = frames.iter().find(|frame| frame.kind == kind)?.text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Returns the beginning of a text in one line, for messages.
pub fn first_words(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(200).collect()
}

/// Reads what etcdctl said.
fn etcd_health(frame: &Frame<'_>) -> Option<super::Health> {
    if frame.kind != "etcd" {
        return None;
    }
    // etcdctl 3.4 writes its log beside its verdict.
    let verdict =
        frame.text.lines().find(|line| line.contains("is healthy") || line.contains("is unhealthy"));
    let detail = first_words(verdict.unwrap_or(frame.text));
    let healthy = Some(frame.argument.trim() == "0" && detail.contains("is healthy"));
    Some(super::Health { service: crate::pki::Service::Etcd, healthy, detail })
}
