//! The `rke` command is found, asked for its version, and run: line by line, within a time, and never left behind.
//!
//! It runs in a process group of its own: a Ctrl-C on the terminal is certroll's to hear. Where certroll itself is killed, rke ends at
//! the next line that it writes, for nobody reads it any more.

#![expect(clippy::disallowed_methods, reason = "programs of the bastion are started here")]

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::facts::{RkeLine, RkeProgram, RkeVersion};

/// How long rke may take to say its version.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// How long rke may take to end when it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// How long what it has printed last is waited for once it has ended: somebody else may hold its output open.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The longest line that is kept, in bytes; the rest of it is dropped.
const LONGEST: usize = 16 << 10;

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct RkeCall<'a> {
    /// The program.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [String],
    /// The folder that it runs in.
    pub folder: &'a Path,
    /// How long it may take.
    pub limit: Duration,
}

/// How a run of rke ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RkeEnd {
    /// With an exit status.
    Exited(i32),
    /// By a signal.
    Killed(i32),
    /// It took too long, and was ended.
    TookTooLong,
    /// It was ended because the run was.
    Stopped,
}

/// Returns the program that is meant: the file that was named, else the first `rke` of the folders in `search`.
pub async fn find_rke(named: Option<&Path>, search: Option<&OsStr>) -> RkeProgram {
    let path = match named {
        Some(named) => match std::path::absolute(named) {
            Ok(path) if is_program(&path) => path,
            _ => {
                return unusable(
                    format!("`{}` is not a program that this user may run", named.display()),
                    "name the `rke` command with --rke-binary FILE, and see that it is executable",
                );
            }
        },
        None => match search.and_then(in_search_path) {
            Some(path) => path,
            None => {
                return unusable(
                    "there is no `rke` command in PATH".to_owned(),
                    "take the one that built this cluster from github.com/rancher/rke/releases and name it with --rke-binary FILE; \
                     `--via direct` needs none",
                );
            }
        },
    };
    match version_of(&path).await {
        Ok(version) => RkeProgram::Found { path, version },
        Err(cause) => unusable(
            format!("`{}` does not say its version: {cause}", path.display()),
            "is it the `rke` command, and built for this machine? `rke --version` must print `rke version v...`",
        ),
    }
}

fn unusable(cause: String, hint: &str) -> RkeProgram {
    RkeProgram::Unusable { cause, hint: hint.to_owned() }
}

fn in_search_path(search: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(search)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join("rke"))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Asks a program for its version.
pub async fn version_of(path: &Path) -> Result<RkeVersion, String> {
    let arguments = ["--version".to_owned()];
    let call = RkeCall { program: path, arguments: &arguments, folder: Path::new("/"), limit: VERSION_LIMIT };
    let mut said = Vec::new();
    let end = run_rke(&call, |line| said.push(line.to_owned()), std::future::pending()).await;
    match end.map_err(|error| error.to_string())? {
        RkeEnd::Exited(0) => {}
        RkeEnd::Exited(status) => return Err(format!("it ended with status {status}")),
        RkeEnd::Killed(signal) => return Err(format!("it was ended by signal {signal}")),
        RkeEnd::TookTooLong | RkeEnd::Stopped => {
            return Err(format!("it did not end within {} s", VERSION_LIMIT.as_secs()));
        }
    }
    let text = said.join("\n");
    let said = said.iter().map(|line| RkeLine::parse(line).text).find(|line| !line.is_empty());
    RkeVersion::of_output(&text).ok_or_else(|| match said {
        Some(line) => format!("it says `{line}`"),
        None => "it says nothing".to_owned(),
    })
}

/// Runs rke, tells every line that it prints, and returns how it ended; `stop` ends it before its time.
///
/// Dropping the future ends it too, with all that it has started.
pub async fn run_rke(
    call: &RkeCall<'_>,
    mut tell: impl FnMut(&str),
    stop: impl Future<Output = ()>,
) -> io::Result<RkeEnd> {
    let mut command = Command::new(call.program);
    command.args(call.arguments).current_dir(call.folder).process_group(0);
    // It is told all by its arguments, and a token of Rancher's is none of its business.
    command.env_remove("RKE_CONFIG").env_remove("RANCHER_TOKEN");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut group = Group::of(&child);
    let (sender, mut lines) = mpsc::channel(256);
    let readers = [
        child.stdout.take().map(|output| tokio::spawn(read_lines(output, sender.clone()))),
        child.stderr.take().map(|output| tokio::spawn(read_lines(output, sender.clone()))),
    ];
    drop(sender);
    let deadline = tokio::time::sleep_until(Instant::now() + call.limit);
    tokio::pin!(deadline, stop);
    let end = loop {
        tokio::select! {
            Some(line) = lines.recv() => tell(&line),
            status = child.wait() => break end_of(status?),
            () = &mut deadline => {
                group.end(&mut child).await;
                break RkeEnd::TookTooLong;
            }
            () = &mut stop => {
                group.end(&mut child).await;
                break RkeEnd::Stopped;
            }
        }
    };
    group.is_over = true;
    let rest = async {
        while let Some(line) = lines.recv().await {
            tell(&line);
        }
    };
    let _ = tokio::time::timeout(LAST_LINES, rest).await;
    for reader in readers.into_iter().flatten() {
        reader.abort();
    }
    Ok(end)
}

fn end_of(status: ExitStatus) -> RkeEnd {
    use std::os::unix::process::ExitStatusExt as _;
    match status.code() {
        Some(code) => RkeEnd::Exited(code),
        None => RkeEnd::Killed(status.signal().unwrap_or_default()),
    }
}

/// Reads lines, each cut where it is too long to be one.
async fn read_lines(mut output: impl AsyncRead + Unpin, sender: mpsc::Sender<String>) {
    let mut chunk = [0_u8; 4096];
    let mut line: Vec<u8> = Vec::new();
    loop {
        let count = match output.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        for byte in chunk.iter().take(count) {
            if *byte == b'\n' {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).await.is_err() {
                    return;
                }
                line.clear();
            } else if line.len() < LONGEST {
                line.push(*byte);
            }
        }
    }
    if !line.is_empty() {
        let _ = sender.send(String::from_utf8_lossy(&line).into_owned()).await;
    }
}

/// A process with all that it has started, until it is over.
struct Group {
    leader: Option<Pid>,
    is_over: bool,
}

impl Group {
    fn of(child: &Child) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Self { leader, is_over: false }
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            let _ = kill_process_group(leader, signal);
        }
    }

    /// Asks it to end, and ends it where it does not.
    async fn end(&mut self, child: &mut Child) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
            self.signal(Signal::KILL);
            let _ = child.wait().await;
        }
        self.is_over = true;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(leader) = self.leader.filter(|_| !self.is_over) else { return };
        self.signal(Signal::TERM);
        // Nothing can be awaited here, and the process may end right after.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        for _ in 0..20 {
            match waitid(WaitId::Pid(leader), look) {
                Ok(None) => std::thread::sleep(Duration::from_millis(50)),
                _ => break,
            }
        }
        self.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a program and returns its folder and path.
    fn program(body: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rke");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        (folder, path)
    }

    fn run(body: &str, limit: Duration) -> (RkeEnd, Vec<String>) {
        let (folder, path) = program(body);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let call = RkeCall { program: &path, arguments: &["a b".to_owned()], folder: folder.path(), limit };
        let mut lines = Vec::new();
        let ran = run_rke(&call, |line| lines.push(line.to_owned()), std::future::pending());
        (runtime.block_on(ran).unwrap(), lines)
    }

    #[test]
    fn lines_of_both_outputs_are_told_and_the_status_is() {
        let (end, mut lines) = run("echo \"$1\"; echo two >&2; printf three; exit 7", GRACE);
        lines.sort();
        assert_eq!((end, lines), (RkeEnd::Exited(7), ["a b", "three", "two"].map(str::to_owned).into()));
    }

    #[test]
    fn what_takes_too_long_is_ended_with_all_that_it_has_started() {
        let limit = Duration::from_millis(300);
        let (end, lines) = run("sleep 600 & echo $!; wait", limit);
        assert_eq!(end, RkeEnd::TookTooLong);
        let child = Pid::from_raw(lines[0].parse().unwrap()).unwrap();
        // Whoever adopts it may take a moment to hear of its end.
        let is_gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.as_raw_nonzero()));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        let began = std::time::Instant::now();
        while !is_gone() {
            assert!(began.elapsed() < Duration::from_secs(20), "it is still there");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_program_is_found_and_says_its_version() {
        let (folder, path) = program("echo rke version v0.2.8");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(find_rke(None, Some(folder.path().as_os_str())));
        let RkeProgram::Found { path: found, version } = found else { panic!("{found:?}") };
        assert_eq!((found, version.as_str()), (path.clone(), "v0.2.8"));
        let empty = tempfile::tempdir().unwrap();
        let missing = runtime.block_on(find_rke(None, Some(empty.path().as_os_str())));
        assert!(matches!(missing, RkeProgram::Unusable { .. }));
        let (_folder, other) = program("echo something else; exit 0");
        let RkeProgram::Unusable { cause, .. } = runtime.block_on(find_rke(Some(&other), None)) else {
            panic!("it is not rke")
        };
        assert!(cause.ends_with("it says `something else`"), "{cause}");
    }
}
