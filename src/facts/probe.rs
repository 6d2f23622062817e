//! The probe is the one script that looks at a node, and the reader of what it prints.
//!
//! The script finds out how to become root, then prints frames: a line that begins with a marker that no file can hold by
//! accident, and what follows until the next such line. A login shell's chatter before the first frame does not matter.

use jiff::Timestamp;
use serde::Deserialize;

use super::{Agent, Container, Content, File, Folder, Labels, Lock, Observation, SavedRun};
use crate::command::{Access, docker_root, quote};
use crate::inventory::Node;
use crate::pki::{Certificate, CertificateError, Location, PublicPrefix};

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

/// Which ways to root may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BecomeRoot {
    /// Root, then `sudo -n`, then the docker group.
    #[default]
    Auto,
    /// The login must be root.
    Root,
    /// `sudo -n` alone.
    Sudo,
    /// A container alone.
    Docker,
}

/// Why the answer of a probe cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// No way to root was found.
    #[error("no way to root: {0}")]
    NoAccess(String),
    /// The answer ends too early.
    #[error("the answer of the node is incomplete: {0}")]
    Incomplete(String),
}

impl ProbeError {
    /// Returns the way out.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoAccess(_) => Some(
                "log in as root, allow `sudo -n`, or put the user into the group `docker` of a node that holds RKE's images"
                    .to_owned(),
            ),
            Self::Incomplete(_) => None,
        }
    }
}

/// The part that runs as root. `M` marker, `P` prefixes to try, `W` whether keys are read as a whole, `E` etcd's address, `T` the
/// seconds that docker may take for one answer.
const BODY: &str = include_str!("probe/body.sh");

/// How long docker may take for one answer, in seconds: several must fit into the time that a command has.
const DOCKER_SECONDS: u32 = 12;

impl Probe<'_> {
    /// Returns the script for the login's shell: it becomes root in the first way that works, and looks.
    pub fn script(&self) -> String {
        let body = quote(&self.body());
        let marker = quote(self.marker);
        let docker_host = format!("DOCKER_HOST={}", quote(&format!("unix://{}", self.node.docker_socket)));
        let root = format!(
            "if [ \"$(id -u)\" = 0 ]; then printf '\\n%s access root\\n' {marker}; {docker_host} exec /bin/sh -c {body}; fi\n"
        );
        let sudo = format!(
            "if sudo -n true 2>/dev/null; then printf '\\n%s access sudo\\n' {marker}; \
             exec sudo -n env {docker_host} /bin/sh -c {body}; fi\n"
        );
        let docker = format!(
            "export {docker_host}\n\
             try() {{\n  \
             printf '\\n%s access docker %s\\n' {marker} \"$1\"\n  \
             {} env {docker_host} /bin/sh -c {body}\n  \
             case $? in 125|126|127) ;; *) exit 0 ;; esac\n\
             }}\n\
             for name in kubelet kube-proxy kube-apiserver service-sidekick nginx-proxy share-mnt; do\n  \
             image=$(docker inspect --format '{{{{.Image}}}}' \"$name\" 2>/dev/null) && try \"$image\"\ndone\n\
             for image in $(docker images -q --no-trunc 2>/dev/null | head -n 5); do try \"$image\"; done\n",
            docker_root("\"$1\"")
        );
        let refused = format!(
            "printf '\\n%s none %s\\n' {marker} \"uid $(id -u); sudo: $(sudo -n true 2>&1 | head -n 1); \
             docker: $(docker ps -q 2>&1 >/dev/null | head -n 1)\"\n"
        );
        let ways = match self.become_root {
            BecomeRoot::Auto => [root, sudo, docker].concat(),
            BecomeRoot::Root => root,
            BecomeRoot::Sudo => sudo,
            BecomeRoot::Docker => docker,
        };
        format!("{ways}{refused}")
    }

    /// Returns the script that runs as root.
    fn body(&self) -> String {
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
    let frames = frames(output, marker);
    if let Some(frame) = frames.iter().find(|frame| frame.kind == "none") {
        return Err(ProbeError::NoAccess(frame.argument.to_owned()));
    }
    let access =
        frames.iter().rev().find_map(access).ok_or_else(|| ProbeError::NoAccess(first_words(output)))?;
    if !frames.iter().any(|frame| frame.kind == "end") {
        let last = frames.last().map_or("nothing", |frame| frame.kind);
        return Err(ProbeError::Incomplete(format!("it breaks off after `{last}`")));
    }
    let text = |kind: &str| frames.iter().find(|frame| frame.kind == kind).map(|frame| frame.argument.trim());
    let number = |kind: &str| text(kind).and_then(|text| text.parse::<u64>().ok());
    let clock = number("clock").and_then(|seconds| i64::try_from(seconds).ok());
    let lock = frames.iter().find(|frame| frame.kind == "lock");
    Ok(Observation {
        access,
        clock_skew_seconds: clock.unwrap_or_default() - asked_at.as_second(),
        kubernetes_directory: text("directory").unwrap_or_default().to_owned(),
        has_tmp: frames.iter().any(|frame| frame.kind == "tmp"),
        free_kibibytes: number("free"),
        used_kibibytes: number("used"),
        free_inodes: number("inodes"),
        is_writable: text("writable") == Some("yes"),
        folders: frames.iter().filter_map(folder).collect(),
        labels: frames.iter().find(|frame| frame.kind == "selinux").and_then(|frame| labels(frame.text)),
        containers: frames.iter().filter(|frame| frame.kind == "containers").flat_map(containers).collect(),
        docker_error: frames
            .iter()
            .find(|frame| frame.kind == "docker-error")
            .map(|frame| first_words(frame.text)),
        files: frames.iter().filter_map(file).collect(),
        served: Vec::new(),
        health: frames.iter().filter_map(etcd_health).collect(),
        backups: frames.iter().filter_map(backup).collect(),
        unfinished_runs: frames
            .iter()
            .filter(|frame| frame.kind == "staged")
            .filter_map(|frame| frame.argument.trim().rsplit('/').next())
            .map(str::to_owned)
            .collect(),
        service_account_key_file: text("service-account-key-file").map(str::to_owned),
        agent: agent(&frames),
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

/// Reads a folder's frame: `<yes|no> <free KiB> <free inodes> <path>`.
fn folder(frame: &Frame<'_>) -> Option<Folder> {
    if frame.kind != "folder" {
        return None;
    }
    let mut words = frame.argument.splitn(4, ' ');
    let is_writable = words.next()? == "yes";
    let free_kibibytes = words.next()?.parse().ok();
    let free_inodes = words.next()?.parse().ok();
    Some(Folder { path: words.next()?.to_owned(), is_writable, free_kibibytes, free_inodes })
}

/// Reads a backup's frame: `<bytes> <path>`.
fn backup(frame: &Frame<'_>) -> Option<SavedRun> {
    if frame.kind != "backup" {
        return None;
    }
    let (bytes, path) = frame.argument.split_once(' ')?;
    let run = path.strip_suffix("/backup.tar")?.rsplit('/').next()?.to_owned();
    Some(SavedRun { run, kibibytes: bytes.parse::<u64>().ok()?.div_ceil(1024) })
}

/// Reads the labels of the directory, of `ssl` and of a file in it, a line each: `<user>:<role>:<type>:<level> <path>`.
fn labels(text: &str) -> Option<Labels> {
    let mut labels = text.lines().map(|line| {
        let label = line.split(' ').next().unwrap_or_default();
        label.splitn(3, ':').nth(2).map(str::to_owned)
    });
    Some(Labels { directory: labels.next()??, ssl: labels.next()??, file: labels.next()?? })
}

/// Returns the access that a frame names.
fn access(frame: &Frame<'_>) -> Option<Access> {
    if frame.kind != "access" {
        return None;
    }
    match frame.argument.split_once(' ').unwrap_or((frame.argument, "")) {
        ("root", _) => Some(Access::Root),
        ("sudo", _) => Some(Access::Sudo),
        ("docker", image) => Some(Access::Docker { image: image.to_owned() }),
        _ => None,
    }
}

/// Returns what was seen of Rancher's agent, if there is one.
fn agent(frames: &[Frame<'_>]) -> Option<Agent> {
    let argument =
        |kind: &str| frames.iter().find(|frame| frame.kind == kind).map(|frame| frame.argument.trim());
    let uses_proxy = argument("agent-proxy").is_some();
    let word = |kind: &str| argument(kind).filter(|word| !word.is_empty()).map(str::to_owned);
    frames.iter().any(|frame| frame.kind.starts_with("agent-")).then(|| Agent {
        server: word("agent-server"),
        uses_proxy,
        log: text_of(frames, "agent-log"),
        ping: None,
    })
}

/// Returns the text of a frame, if it holds any.
fn text_of(frames: &[Frame<'_>], kind: &str) -> Option<String> {
    let text = frames.iter().find(|frame| frame.kind == kind)?.text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Returns the beginning of a text in one line, for messages.
pub(super) fn first_words(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(200).collect()
}

/// The fields of `docker inspect` that the probe asks for, one JSON document a column.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    started_at: String,
}

/// Reads the containers of a frame: name, image, state and restart count, with tabs between.
fn containers(frame: &Frame<'_>) -> Vec<Container> {
    let is_gone = |container: &Container| {
        container.is_writer() && !container.is_running() && !container.is_rancher_agent()
    };
    // What a helper of rke leaves behind says nothing, and comes and goes.
    frame.text.lines().filter_map(container).filter(|container| !is_gone(container)).collect()
}

/// Returns whether docker gives such names (moby `RestrictedNamePattern`): what else a node may say ends up in commands.
fn is_container_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter))
}

/// Reads one container.
fn container(line: &str) -> Option<Container> {
    let mut columns = line.split('\t');
    let name: String = serde_json::from_str(columns.next()?).ok()?;
    if !is_container_name(name.trim_start_matches('/')) {
        return None;
    }
    let image: String = serde_json::from_str(columns.next()?).ok()?;
    let state: State = serde_json::from_str(columns.next()?).ok()?;
    let restart_count = columns.next()?.trim().parse().ok()?;
    // docker writes year 1 for a container that never started.
    let started_at = state.started_at.parse::<Timestamp>().ok().filter(|time| time.as_second() > 0);
    Some(Container {
        name: name.trim_start_matches('/').to_owned(),
        image,
        state: state.status,
        started_at,
        restart_count,
    })
}

/// Reads a file's frame: `<location> <mode> <uid> <gid> <size> <mtime> <date> <time> <zone> <path>`.
fn file(frame: &Frame<'_>) -> Option<File> {
    if frame.kind != "file" {
        return None;
    }
    let mut words = frame.argument.splitn(10, ' ');
    let location = match words.next()? {
        "ssl" => Location::Ssl,
        "tmp" => Location::Tmp,
        "nested" => Location::NestedTmp,
        _ => Location::KubeletPki,
    };
    let mode = u32::from_str_radix(words.next()?, 8).ok()?;
    let user_id = words.next()?.parse().ok()?;
    let group_id = words.next()?.parse().ok()?;
    let size = words.next()?.parse().ok()?;
    let second = words.next()?.parse().ok()?;
    let _date = words.next()?;
    let modified_at = Timestamp::new(second, nanoseconds(words.next()?)).ok()?;
    let _zone = words.next()?;
    let path = words.next()?.to_owned();
    let file_name = path.rsplit('/').next()?.to_owned();
    let content = match content(&file_name, frame.text) {
        // The probe prints blocks of certificates alone: what is in the file is none, such as DER.
        Content::Certificate(Err(CertificateError::Empty)) if size > 0 => {
            Content::Certificate(Err(CertificateError::NotPem))
        }
        content => content,
    };
    let certificates = match content {
        Content::Certificate(_) => Certificate::count_in_pem(frame.text.as_bytes()),
        Content::Key(_) | Content::Other => 0,
    };
    Some(File {
        location,
        path,
        file_name,
        mode,
        user_id,
        group_id,
        size,
        modified_at,
        certificates,
        content,
    })
}

/// Returns the fraction of a time such as `19:15:25.188094417`; none where the node's stat does not tell it.
///
/// A file and a container that are written and started within one second are told apart by it.
fn nanoseconds(time: &str) -> i32 {
    let fraction = time.split_once('.').map_or("", |(_, fraction)| fraction);
    format!("{fraction:0<9}").get(..9).and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

/// Reads what a file holds, by its name.
fn content(file_name: &str, text: &str) -> Content {
    let (stem, ending) = file_name.rsplit_once('.').unwrap_or((file_name, ""));

    match ending {
        _ if stem.ends_with("-key") || ending == "key" => Content::Key(PublicPrefix::from_probe(text)),
        "pem" | "crt" => Content::Certificate(Certificate::from_pem(text.as_bytes())),
        _ => Content::Other,
    }
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
