//! What is known of the `rke` command on the bastion: which version it is, how it rotates, and what its output says.
//!
//! `workstation` finds and runs it, the planner decides by its version, the run shows what it says. Facts are from the sources of
//! rancher/rke, `cmd/cert.go` and `cluster/hosts.go`, tag by tag.

use std::fmt;
use std::path::PathBuf;

use crate::escape;

/// A version of rke, as it says it (`v0.2.8`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RkeVersion {
    text: String,
    numbers: (u32, u32, u32),
}

/// How a version of rke rotates certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RkeRotation {
    /// It does not.
    None,
    /// `rke cert-rotate`, every service: v0.1.18 to v0.1.20.
    Flat,
    /// `rke cert rotate`, one service or several or all: v0.2.0 and later.
    Nested,
}

impl RkeVersion {
    /// Reads what `rke --version` prints: `rke version v0.2.8`.
    pub fn of_output(output: &str) -> Option<Self> {
        let word = output.lines().find_map(|line| line.trim().strip_prefix("rke version "))?.trim();
        let core = word.strip_prefix('v')?.split(['-', '+']).next()?;
        let mut numbers = core.split('.').map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        let numbers = (next()?, next()?, next()?);
        let is_short = word.len() <= 40 && word.chars().all(|letter| letter.is_ascii_graphic());
        is_short.then(|| Self { text: word.to_owned(), numbers })
    }

    /// Returns it as rke says it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns how it rotates.
    pub fn rotation(&self) -> RkeRotation {
        match self.numbers {
            (0, 1, 18..) => RkeRotation::Flat,
            (0, 0 | 1, _) => RkeRotation::None,
            _ => RkeRotation::Nested,
        }
    }

    /// Returns whether it is a version or a later one.
    pub fn is_at_least(&self, numbers: (u32, u32, u32)) -> bool {
        self.numbers >= numbers
    }

    /// Returns whether its rotation takes `--ssh-agent-auth`: v0.2 lost it (rancher/rke#1479), v0.3.0 has it again.
    pub fn takes_agent_option(&self) -> bool {
        self.rotation() == RkeRotation::Flat || self.is_at_least((0, 3, 0))
    }

    /// Returns whether it goes by its argument alone, and not by the cluster.yml, where docker's version is to be ignored: from v1.2.0 on
    /// the argument's absence overwrites the file (`cmd/common.go` `setOptionsFromCLI`).
    pub fn forgets_docker_version(&self) -> bool {
        self.is_at_least((1, 2, 0))
    }

    /// Returns whether it reads private keys from `.tmp`: from v1.1.0 on it looks for them in the certificates' files
    /// (`pki.GetKeyTempPath`), and finds none.
    pub fn reads_bundles(&self) -> bool {
        !self.is_at_least((1, 1, 0))
    }
}

impl fmt::Display for RkeVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.text)
    }
}

/// The `rke` command on the bastion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RkeProgram {
    /// It is there.
    Found {
        /// Its full path.
        path: PathBuf,
        /// Its version.
        version: RkeVersion,
    },
    /// It is not there, or does not say what it is.
    Unusable {
        /// Why: a lower-case fragment.
        cause: String,
        /// The way out.
        hint: String,
    },
}

/// The longest text of one line that is told on, in characters.
const LONGEST: usize = 400;

/// The shortest run of letters of base64 that may be the body of a key.
const KEY_LETTERS: usize = 60;

/// One line that rke has printed, without what could act on a terminal and without keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RkeLine {
    /// How bad rke finds it (`info`, `warning`, `fatal`); empty where the line says nothing of that.
    pub level: String,
    /// What it says.
    pub text: String,
}

impl RkeLine {
    /// Reads a line: logrus writes `time="..." level=info msg="..."` where it has no terminal.
    pub fn parse(line: &str) -> Self {
        let line = plain(line);
        let message = line.split_once(" msg=").map(|(head, message)| {
            let level =
                head.split_once("level=").map_or("", |(_, level)| level.split(' ').next().unwrap_or(""));
            (level.to_owned(), unquoted(message))
        });
        let (level, text) = message.unwrap_or((String::new(), line));
        Self { level, text: bounded(&without_keys(&text)) }
    }

    /// Returns whether rke complains.
    pub fn is_complaint(&self) -> bool {
        matches!(self.level.as_str(), "warning" | "error" | "fatal" | "panic")
    }

    /// Returns the address of a host that rke goes on without (`cluster/hosts.go` `TunnelHosts`).
    pub fn skipped_host(&self) -> Option<&str> {
        let rest = self.text.strip_prefix("Removing host [")?;
        rest.split_once("] from node lists").map(|(address, _)| address)
    }

    /// Returns why rke cannot reach a host, and its address.
    pub fn unreached_host(&self) -> Option<(&str, &str)> {
        let rest = self.text.strip_prefix("Failed to set up SSH tunneling for host [")?;
        rest.split_once("]: ")
    }
}

/// Returns a line without escape sequences and controls.
fn plain(line: &str) -> String {
    let line = console::strip_ansi_codes(line);
    let harmless = |letter: char| if letter == '\t' { ' ' } else { letter };
    line.chars().map(harmless).filter(|letter| !escape::is_unsafe(*letter)).collect()
}

/// Returns what logrus has quoted; a text without quotes is as it is.
fn unquoted(message: &str) -> String {
    let message = message.trim();
    let read: Result<String, _> = serde_json::from_str(message);
    match read {
        Ok(text) => plain(&text.replace('\n', " ")),
        // Go quotes a few characters otherwise than JSON does.
        Err(_) => message.trim_matches('"').replace("\\\"", "\"").replace("\\n", " "),
    }
}

/// Returns a text without what may be a private key.
fn without_keys(text: &str) -> String {
    if text.contains("PRIVATE KEY") {
        return "(a line with a private key is not told)".to_owned();
    }
    let is_key = |word: &&str| {
        let is_base64 =
            |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '/' | '=' | '_' | '-');
        let is_hex = |letter: char| letter.is_ascii_hexdigit();
        word.len() >= KEY_LETTERS && word.chars().all(is_base64) && !word.chars().all(is_hex)
    };
    if !text.split(' ').any(|word| is_key(&word)) {
        return text.to_owned();
    }
    let words = text.split(' ').map(|word| if is_key(&word) { "(...)" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

fn bounded(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(LONGEST).collect();
    cut.push_str("...");
    cut
}

/// Returns the way out of what rke complains of in its last lines, where it is known.
pub fn hint_of_rke<'a>(lines: impl IntoIterator<Item = &'a RkeLine>) -> &'static str {
    let known: [(&str, &str); 9] = [
        (
            "CA Certificate or Key is empty",
            "rke has lost its state and finds no whole bundle in `.tmp` on the nodes: move the empty cluster.rkestate away, then \
             `certroll apply repair`, then plan again; or `--via direct`, which needs neither",
        ),
        (
            "can't find old certificates",
            "cluster.rkestate is missing or empty: bring it back from a backup, or use `--via direct`, which needs no state of rke's",
        ),
        (
            "CA certificate is invalid",
            "kube-ca has expired: only `rke cert rotate --rotate-ca`, run by you, makes a new one; everything restarts, and all pods must",
        ),
        (
            "aborting upgrade",
            "a cluster of rke 0.1 needs its kube_config_<file> beside the cluster.yml: bring it back (an expired one will do), or use \
             `--via direct`",
        ),
        (
            "certificate has expired",
            "rke asked an API server whose certificates have expired; with its cluster.rkestate it needs no API: bring it back, or use \
             `--via direct`",
        ),
        (
            "Unsupported Docker version",
            "set `ignore_docker_version: true` in the cluster.yml, if the nodes are known to work with their docker, and make a new plan: \
             rke v1.2.0 and later are told by an argument",
        ),
        (
            "Unable to access",
            "rke logs in by itself, as the cluster.yml says: the user must be allowed to use docker (`docker ps`), and sshd to forward",
        ),
        (
            "SSH",
            "rke logs in by itself, as the cluster.yml says: look at user, key and agent there (`certroll nodes` shows them)",
        ),
        (
            "docker",
            "look at docker on that node (`systemctl status docker`), and whether its user may use it",
        ),
    ];
    let mut found: Option<usize> = None;
    for line in lines {
        let place = known.iter().position(|(text, _)| line.text.contains(text));
        found = match (found, place) {
            (Some(known), Some(place)) => Some(known.min(place)),
            (found, place) => found.or(place),
        };
    }
    found.and_then(|place| known.get(place)).map_or(
        "put right what rke complains of, then `certroll apply --resume`: it looks first what stands",
        |(_, hint)| hint,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> RkeVersion {
        RkeVersion::of_output(&format!("rke version {text}\n")).unwrap()
    }

    #[test]
    fn a_version_tells_how_it_rotates() {
        let of = |text| version(text).rotation();
        for text in ["v0.0.12-dev", "v0.1.0", "v0.1.17"] {
            assert_eq!(of(text), RkeRotation::None, "{text}");
        }
        for text in ["v0.1.18", "v0.1.20"] {
            assert_eq!(of(text), RkeRotation::Flat, "{text}");
        }
        for text in ["v0.2.0", "v0.2.8", "v1.4.0-rc3", "v1.7.0"] {
            assert_eq!(of(text), RkeRotation::Nested, "{text}");
        }
        assert!(!version("v0.2.8").takes_agent_option() && version("v0.3.0").takes_agent_option());
        assert!(version("v0.1.18").takes_agent_option());
        assert!(!version("v1.1.19").forgets_docker_version() && version("v1.2.0").forgets_docker_version());
        assert!(version("v1.0.16").reads_bundles() && !version("v1.1.0").reads_bundles());
    }

    #[test]
    fn what_is_no_version_is_none() {
        for text in ["", "rke version", "rke version dev", "rke version 0.2.8", "v0.2.8", "rke version v0.2"]
        {
            assert_eq!(RkeVersion::of_output(text), None, "{text}");
        }
    }

    #[test]
    fn a_line_of_the_log_is_told_without_its_frame() {
        let line = RkeLine::parse(
            r#"time="2019-08-01T10:00:00Z" level=warning msg="Removing host [10.0.0.4] from node lists""#,
        );
        assert_eq!((line.level.as_str(), line.skipped_host()), ("warning", Some("10.0.0.4")));
        let line = RkeLine::parse(
            "time=x level=warning msg=\"Failed to set up SSH tunneling for host [10.0.0.4]: Can't \\\"dial\\\"\\n: x\"",
        );
        assert_eq!(line.unreached_host(), Some(("10.0.0.4", "Can't \"dial\" : x")));
        assert_eq!(RkeLine::parse("Incorrect Usage: flag").text, "Incorrect Usage: flag");
        assert_eq!(RkeLine::parse("time=x level=info msg=plain").text, "plain");
    }

    #[test]
    fn a_line_neither_acts_on_a_terminal_nor_tells_a_key() {
        assert_eq!(RkeLine::parse("\u{1b}[2J\u{1b}]0;title\u{7}\u{1b}[31mred\u{1b}[0m\r\u{8}x").text, "redx");
        assert!(!RkeLine::parse(r#"level=info msg="\u001b[2Jclear""#).text.contains('\u{1b}'));
        let body = "MIIEowIBAAKCAQEAx4UbaDzY5xjW6hc9jwN0mX33XpTDVW5gkfBT7qoF7SpGuI0U";
        assert!(!RkeLine::parse(&format!("key {body}")).text.contains(body));
        assert!(!RkeLine::parse(&format!("-----BEGIN RSA PRIVATE KEY----- {body}")).text.contains("MII"));
        let sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(RkeLine::parse(&format!("image {sum}")).text.contains(sum));
        assert_eq!(RkeLine::parse(&"x ".repeat(5000)).text.chars().count(), LONGEST + 3);
    }

    #[test]
    fn the_most_telling_complaint_gives_the_way_out() {
        let lines: Vec<RkeLine> = [
            "level=warning msg=\"x509: certificate has expired or is not yet valid\"",
            "level=fatal msg=\"CA Certificate or Key is empty\"",
        ]
        .map(RkeLine::parse)
        .into();
        assert!(hint_of_rke(&lines).contains("certroll apply repair"));
        assert!(hint_of_rke(&[]).contains("--resume"));
    }
}
