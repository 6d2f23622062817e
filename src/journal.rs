//! The journal of a run is its events, one JSON document a line, each on disk before its effect leaves this machine.
//!
//! `execute` appends, `runs` and every later look read back; a torn last line is what a power cut leaves, and is left out.
#![expect(clippy::disallowed_methods, reason = "the journal owns the state folder")]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
    /// Another process has the journal open for writing: the run goes on.
    #[error("run {run} is still going on{}", by(owner, *pid))]
    Alive {
        /// The run.
        run: String,
        /// Who runs it.
        owner: String,
        /// Its process.
        pid: Option<u32>,
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

/// Returns by whom a run goes on, as far as its journal tells.
fn by(owner: &str, pid: Option<u32>) -> String {
    match pid {
        _ if owner.is_empty() => String::new(),
        Some(pid) => format!(": {owner} has it, process {pid}"),
        None => format!(": {owner} has it"),
    }
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    version: u32,
    #[serde(flatten)]
    event: Event,
}

/// The open journal of a run that is going on; while it is open, no other process can open it.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    history: History,
}

/// What a journal held when it was opened.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What its events amount to.
    pub state: RunState,
    /// The number of the last of them; 0 where there is none.
    pub sequence: u64,
}

impl Journal {
    /// Makes the folder of a run, with its plan and an empty journal (0700 and 0600); one that is there belongs to another run.
    pub fn create(folder: &Path, plan: &Plan) -> Result<Self, JournalError> {
        // A relative path may end in an empty one, which stands for the working folder.
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        make_folder(above)?;
        fs::DirBuilder::new().mode(0o700).create(folder).map_err(io_error("creating", folder))?;
        sync_folder(above)?;
        let plan_path = folder.join("plan.json");
        let text = serde_json::to_vec_pretty(plan)
            .map_err(|source| JournalError::Format { path: plan_path.clone(), source })?;
        write_private(&plan_path, &text)?;
        let path = folder.join(FILE_NAME);
        let file =
            private().create_new(true).append(true).open(&path).map_err(io_error("creating", &path))?;
        if !try_lock(&file).map_err(io_error("locking", &path))? {
            return Err(alive(folder, &RunState::default()));
        }
        sync_folder(folder)?;
        Ok(Self { file, path, history: History::default() })
    }

    /// Removes what [`Journal::create`] has made, for a run that was refused before it began.
    pub fn discard(folder: &Path) -> Result<(), JournalError> {
        for name in [FILE_NAME, "plan.json"] {
            let path = folder.join(name);
            fs::remove_file(&path).map_err(io_error("removing", &path))?;
        }
        fs::remove_dir(folder).map_err(io_error("removing", folder))
    }

    /// Opens the journal of a run that stopped, to go on with it: a torn last line is cut off.
    ///
    /// Only one process can have it open: [`JournalError::Alive`] says that the run has not stopped.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        let path = folder.join(FILE_NAME);
        let file =
            OpenOptions::new().read(true).append(true).open(&path).map_err(io_error("opening", &path))?;
        if !try_lock(&file).map_err(io_error("locking", &path))? {
            let state = read_events(&path).map(|events| RunState::of(&events)).unwrap_or_default();
            return Err(alive(folder, &state));
        }
        let text = fs::read(&path).map_err(io_error("reading", &path))?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        if whole < text.len() {
            file.set_len(whole as u64)
                .and_then(|()| file.sync_all())
                .map_err(io_error("cutting a torn line off", &path))?;
        }
        let events = parse_events(&path, text.get(..whole).unwrap_or_default())?;
        let sequence = events.last().map_or(0, |event| event.sequence);
        Ok(Self { file, path, history: History { state: RunState::of(&events), sequence } })
    }

    /// Returns what it held when it was opened.
    pub fn history(&self) -> &History {
        &self.history
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

/// The journal's name in the folder of its run.
const FILE_NAME: &str = "journal.jsonl";

/// Takes the lock that a living attempt has, and returns whether it was free; the system gives it back when the process ends,
/// however it ends.
fn try_lock(file: &File) -> io::Result<bool> {
    let until = Instant::now() + LOOKED_AT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            // Whoever lists the runs has it for a moment, to learn whether they live.
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOOKED_AT / 20),
            Err(TryLockError::WouldBlock) => return Ok(false),
            // A file system without locks: the lock on the nodes must do.
            Err(TryLockError::Error(error)) if is_without_locks(&error) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// How long somebody who only looks may have a journal's lock.
const LOOKED_AT: Duration = Duration::from_secs(1);

/// Returns whether a file system has no locks; one over NFS whose server runs no daemon for them says so in its own way.
fn is_without_locks(error: &io::Error) -> bool {
    let no_lock = rustix::io::Errno::NOLCK.raw_os_error();
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(no_lock)
}

/// Returns whether a process has a journal open for writing.
fn is_alive(path: &Path) -> bool {
    let lock = File::open(path).map(|file| file.try_lock_shared());
    matches!(lock, Ok(Err(TryLockError::WouldBlock)))
}

fn alive(folder: &Path, state: &RunState) -> JournalError {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let pid = state.attempts.last().and_then(|attempt| attempt.pid);
    JournalError::Alive { run: name, owner: state.owner.clone(), pid }
}

/// Makes a folder and those above it (0700); all their names survive a loss of power.
fn make_folder(folder: &Path) -> Result<(), JournalError> {
    let missing = folder.ancestors().take_while(|above| !above.exists()).count();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io_error("creating", folder))?;
    // A relative path ends in an empty one, which stands for the working folder.
    let above = folder.ancestors().skip(1).take(missing);
    above
        .map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above })
        .try_for_each(sync_folder)
}

fn sync_folder(folder: &Path) -> Result<(), JournalError> {
    File::open(folder).and_then(|open| open.sync_all()).map_err(io_error("syncing", folder))
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

    /// Begins the journal of a run, and returns its name: of two runs that begin at once each gets one of its own.
    pub fn begin(&self, start: Timestamp, plan: &Plan) -> Result<(String, Journal), JournalError> {
        loop {
            let name = self.free_name(start, plan);
            match Journal::create(&self.run(&name), plan) {
                Err(JournalError::Io { source, .. })
                    if source.kind() == io::ErrorKind::AlreadyExists && self.run(&name).exists() => {}
                journal => return Ok((name, journal?)),
            }
        }
    }

    /// Returns a name for a run that begins now: names sort in the order in which runs began, also those of one second.
    fn free_name(&self, start: Timestamp, plan: &Plan) -> String {
        let newest = self.runs().into_iter().next().unwrap_or_default();
        let seconds = (0..).map(|seconds| start + SignedDuration::from_secs(seconds));
        let mut names = seconds.map(|moment| run_name(moment, plan)).filter(|name| !self.run(name).exists());
        // A clock that was set back by more than a moment is left to itself.
        let next = names.next().unwrap_or_else(|| run_name(start, plan));
        if next > newest {
            return next;
        }
        names.take(60).find(|name| *name > newest).unwrap_or(next)
    }

    /// Returns the names of all runs, newest first.
    pub fn runs(&self) -> Vec<String> {
        let mut runs = names(&self.0);
        runs.retain(|name| self.0.join(name).join(FILE_NAME).is_file());
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
    /// Whether a process is at it now.
    pub is_alive: bool,
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
    let path = folder.join(FILE_NAME);
    let is_alive = is_alive(&path);
    let mut state = RunState::of(&read_events(&path)?);
    if state.run.is_empty() {
        // It was killed before its first event was on disk.
        state.run = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        state.cluster.clone_from(&plan.cluster);
    }
    state.procedure = Some(plan.procedure);
    state.undoes.clone_from(&plan.undoes);
    Ok(RecordedRun { folder: folder.to_owned(), plan, state, is_alive })
}

/// Reads the events of a journal; a torn last line is left out.
pub fn read_events(path: &Path) -> Result<Vec<Event>, JournalError> {
    let text = fs::read(path).map_err(io_error("reading", path))?;
    parse_events(path, &text)
}

/// Returns the events in a text of whole lines; what follows the last of them is torn.
pub fn parse_events(path: &Path, text: &[u8]) -> Result<Vec<Event>, JournalError> {
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
