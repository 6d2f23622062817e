//! The journal of a run is its events, one JSON document a line, each on disk before its effect leaves this machine.
//!
//! `execute` appends, `runs` and every later look read back; a torn last line is what a power cut leaves, and is left out.
#![expect(clippy::disallowed_methods, reason = "the journal owns the state folder")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::event::{Event, EventKind, RunState};
use crate::pki::Fingerprint;
use crate::plan::Plan;

/// The version of the journal's form.
const JOURNAL_VERSION: u32 = 1;

/// Why the journal cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refuses.
    #[error("{doing} `{}`", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("`{}` is not a plan or journal of certroll", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// No run has such a name.
    #[error("no run of this cluster is named `{0}`")]
    NoSuchRun(String),
    /// More than one run has such a name.
    #[error("more than one run matches `{name}`: {}", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// The runs that match.
        candidates: Vec<String>,
    },
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    version: u32,
    #[serde(flatten)]
    event: Event,
}

/// The open journal of a run that is going on.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Makes the folder of a run, with its plan and an empty journal (0700 and 0600).
    pub fn create(folder: &Path, plan: &Plan) -> Result<Self, JournalError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(io_error("creating", folder))?;
        let plan_path = folder.join("plan.json");
        let text = serde_json::to_vec_pretty(plan)
            .map_err(|source| JournalError::Format { path: plan_path.clone(), source })?;
        write_private(&plan_path, &text)?;
        let path = folder.join("journal.jsonl");
        let file =
            private().create_new(true).append(true).open(&path).map_err(io_error("creating", &path))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("syncing", folder))?;
        Ok(Self { file, path })
    }

    /// Appends an event; lifecycle events are on disk when this returns.
    pub fn append(&mut self, event: &Event) -> Result<(), JournalError> {
        let line = Line { version: JOURNAL_VERSION, event: event.clone() };
        let mut text = serde_json::to_vec(&line)
            .map_err(|source| JournalError::Format { path: self.path.clone(), source })?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(io_error("writing", &self.path))?;
        if matches!(event.kind, EventKind::StepProgress { .. }) {
            return Ok(());
        }
        self.file.sync_data().map_err(io_error("syncing", &self.path))
    }
}

/// Returns a function that wraps what the system said.
fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> JournalError + 'a {
    move |source| JournalError::Io { doing, path: path.to_owned(), source }
}

/// Returns options for a file that nobody else may read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Writes a file that nobody else may read, and waits until it is on disk.
fn write_private(path: &Path, text: &[u8]) -> Result<(), JournalError> {
    let mut file =
        private().write(true).create(true).truncate(true).open(path).map_err(io_error("creating", path))?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(io_error("writing", path))
}

/// Saves a plan where the operator wants it (0600).
pub fn save_plan(path: &Path, plan: &Plan) -> Result<(), JournalError> {
    let text = serde_json::to_vec_pretty(plan)
        .map_err(|source| JournalError::Format { path: path.to_owned(), source })?;
    write_private(path, &text)
}

/// Reads a saved plan.
pub fn load_plan(path: &Path) -> Result<Plan, JournalError> {
    let text = fs::read(path).map_err(io_error("reading", path))?;
    serde_json::from_slice(&text).map_err(|source| JournalError::Format { path: path.to_owned(), source })
}

/// The state folder of one cluster: its runs.
#[derive(Debug, Clone)]
pub struct ClusterFolder(PathBuf);

impl ClusterFolder {
    /// Returns the folder of a cluster, which is named after the cluster and its CA.
    pub fn new(state_folder: &Path, cluster: &str, kube_ca: &Fingerprint) -> Self {
        Self(state_folder.join(format!("{}-{}", file_name(cluster), kube_ca.short())))
    }

    /// Returns the folders of all clusters of a name, whatever their CA.
    pub fn of_cluster(state_folder: &Path, cluster: &str) -> Vec<Self> {
        let prefix = format!("{}-", file_name(cluster));
        let is_one = |name: &str| {
            let digits = name.strip_prefix(prefix.as_str()).unwrap_or_default();
            digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        names(state_folder)
            .into_iter()
            .filter(|name| is_one(name))
            .map(|name| Self(state_folder.join(name)))
            .collect()
    }

    /// Returns the folder of a run.
    pub fn run(&self, run: &str) -> PathBuf {
        self.0.join(run)
    }

    /// Returns a name for a run that begins now: two runs of one second get two names.
    pub fn free_name(&self, start: Timestamp, plan: &Plan) -> String {
        let seconds = (0..).map(|seconds| start + SignedDuration::from_secs(seconds));
        let mut names = seconds.map(|moment| run_name(moment, plan));
        names.find(|name| !self.run(name).exists()).unwrap_or_else(|| run_name(start, plan))
    }

    /// Returns the names of all runs, newest first.
    pub fn runs(&self) -> Vec<String> {
        let mut runs = names(&self.0);
        runs.retain(|name| self.0.join(name).join("journal.jsonl").is_file());
        runs.sort();
        runs.reverse();
        runs
    }
}

/// Returns a cluster's name as a part of a path.
fn file_name(cluster: &str) -> String {
    cluster
        .chars()
        .map(|letter| if letter.is_alphanumeric() || "-_.".contains(letter) { letter } else { '_' })
        .collect()
}

/// Returns the names in a folder; none where there is no folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// A run that was read back.
#[derive(Debug, Clone)]
pub struct RecordedRun {
    /// Its folder.
    pub folder: PathBuf,
    /// What was planned.
    pub plan: Plan,
    /// What its events amount to.
    pub state: RunState,
}

/// Reads every run of some folders, newest first, and returns beside them why some could not be read.
pub fn read_runs(folders: &[ClusterFolder]) -> (Vec<RecordedRun>, Vec<JournalError>) {
    let mut runs = Vec::new();
    let mut damaged = Vec::new();
    for path in folders.iter().flat_map(|folder| folder.runs().into_iter().map(|name| folder.run(&name))) {
        match read_run(&path) {
            Ok(run) => runs.push(run),
            Err(error) => damaged.push(error),
        }
    }
    runs.sort_by(|left, right| right.state.run.cmp(&left.state.run));
    (runs, damaged)
}

/// Reads one run back.
pub fn read_run(folder: &Path) -> Result<RecordedRun, JournalError> {
    let plan = load_plan(&folder.join("plan.json"))?;
    let state = RunState::of(&read_events(&folder.join("journal.jsonl"))?);
    Ok(RecordedRun { folder: folder.to_owned(), plan, state })
}

/// Reads the events of a journal; a torn last line is left out.
pub fn read_events(path: &Path) -> Result<Vec<Event>, JournalError> {
    let text = fs::read(path).map_err(io_error("reading", path))?;
    let whole = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    // A kind of event that a later certroll wrote is skipped; what is no JSON at all is damage.
    let parse = |line: &[u8]| match serde_json::from_slice::<Line>(line) {
        Ok(line) => Some(Ok(line.event)),
        Err(_) if serde_json::from_slice::<serde_json::Value>(line).is_ok() => None,
        Err(source) => Some(Err(JournalError::Format { path: path.to_owned(), source })),
    };
    whole.filter_map(parse).collect()
}

/// Finds the one run that a part of a name means.
pub fn find_run(mut runs: Vec<RecordedRun>, part: &str) -> Result<RecordedRun, JournalError> {
    runs.retain(|run| run.state.run.contains(part));
    match runs.len() {
        0 => Err(JournalError::NoSuchRun(part.to_owned())),
        1 => Ok(runs.remove(0)),
        _ => Err(JournalError::Ambiguous {
            name: part.to_owned(),
            candidates: runs.into_iter().map(|run| run.state.run).collect(),
        }),
    }
}

/// Returns the name of a run: its start in UTC, and the plan's four digits.
pub fn run_name(start: Timestamp, plan: &Plan) -> String {
    format!("{}-{}", start.strftime("%Y%m%d-%H%M%S"), plan.id)
}
