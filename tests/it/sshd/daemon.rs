//! A real sshd on an address and a port of its own, which ends with its test.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, Once, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use tempfile::TempDir;

use super::operator::{Operator, ed25519};
use super::processes::end_with_descendants;

/// How long an sshd may take until it listens or says something; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// What it says once it can be connected to.
const READY: &str = "Server listening on ";

/// Returns sshd's absolute path, which it insists on; says why the suite is skipped where there is none.
pub(super) fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    static TOLD: Once = Once::new();
    let find = || {
        let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/sbin", "/usr/lib/ssh"];
        folders.iter().map(|folder| Path::new(folder).join("sshd")).find(|path| path.is_file())
    };
    let program = PROGRAM.get_or_init(find).as_deref();
    if program.is_none() {
        TOLD.call_once(|| skipped("all tests of `sshd::`: there is no sshd here (install openssh-server)"));
    }
    program
}

/// Says that something was not tested; printed past the tests' capture, or nobody would see it.
pub(super) fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

/// Returns whether files of this machine can be replaced for one process and what it starts.
pub(super) fn can_mount() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "mount", "--bind", "/etc/hosts", "/etc/hosts"]);
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// How an sshd is started.
#[derive(Debug, Default)]
pub(super) struct Setup<'a> {
    /// Lines of `sshd_config`; they outrank the usual ones.
    pub(super) config: &'a str,
    /// Its address; one that no other test has unless it is given.
    pub(super) address: Option<IpAddr>,
    /// How many addresses it has besides, up to 15.
    pub(super) further: usize,
    /// Its host key; a new one unless it is given.
    pub(super) host_key: Option<PrivateKey>,
    /// Files of this machine that it alone sees with another content (root).
    pub(super) files: &'a [(&'a str, String)],
    /// What it is started by.
    pub(super) wrapper: &'a [&'a str],
}

/// A running sshd; it ends with all that it has started when it is dropped.
pub(super) struct Daemon {
    pub(super) address: SocketAddr,
    /// All of its addresses.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) host_key: PrivateKey,
    folder: TempDir,
    process: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

/// What it has said so far.
#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Daemon {
    /// Starts an sshd that the operator knows and may enter; the lines outrank the usual ones.
    pub(super) fn start(operator: &Operator, config: &str) -> Self {
        Self::known(operator, &Setup { config, ..Setup::default() })
    }

    /// Starts an sshd that the operator knows and may enter.
    pub(super) fn known(operator: &Operator, setup: &Setup<'_>) -> Self {
        let daemon = Self::stranger(operator, setup);
        for address in &daemon.addresses {
            operator.know(*address, daemon.host_key.public_key());
        }
        daemon
    }

    /// Starts an sshd that the operator may enter, and whose host key is not in known_hosts.
    pub(super) fn stranger(operator: &Operator, setup: &Setup<'_>) -> Self {
        // A port that was free may be taken when sshd comes to it.
        (0..5).find_map(|_| Self::attempt(operator, setup)).expect("no port is free")
    }

    /// Returns nothing where somebody else has taken the port.
    fn attempt(operator: &Operator, setup: &Setup<'_>) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let address = free(setup.address.unwrap_or_else(own_address));
        let further = (0..setup.further).map(|_| free(own_address()));
        let addresses: Vec<SocketAddr> = std::iter::once(address).chain(further).collect();
        let host_key = setup.host_key.clone().unwrap_or_else(ed25519);
        write_secret(&folder.path().join("host_key"), &host_key.to_openssh(LineEnding::LF).unwrap());
        // Whoever logs in reads what lies there, and writes to the home.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        fs::set_permissions(folder.path().join("home"), Permissions::from_mode(0o777)).unwrap();
        fs::write(folder.path().join("authorized_keys"), operator.public_line()).unwrap();
        fs::write(folder.path().join("sshd_config"), config(folder.path(), &addresses, setup.config))
            .unwrap();
        let mut process = command(folder.path(), setup).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Log::default());
        let reader = {
            let (stderr, log) = (process.stderr.take().unwrap(), Arc::clone(&log));
            std::thread::spawn(move || log.follow(stderr))
        };
        let daemon = Self { address, addresses, host_key, folder, process, log, reader: Some(reader) };
        if daemon.log.waits_for(READY) {
            return Some(daemon);
        }
        let said = daemon.finish();
        assert!(said.contains("Address already in use"), "sshd does not start:\n{said}");
        None
    }

    /// Returns a path in its folder, where `home` is the home of those who log in.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the id of its process.
    pub(super) fn process(&self) -> u32 {
        self.process.id()
    }

    /// Ends it and returns all that it has logged.
    pub(super) fn finish(mut self) -> String {
        self.end();
        self.reader.take().unwrap().join().unwrap();
        self.log.lines.lock().unwrap().0.join("\n")
    }

    fn end(&mut self) {
        // The id of a process that has been waited for may be somebody else's by now.
        if !matches!(self.process.try_wait(), Ok(None)) {
            return;
        }
        end_with_descendants(self.process.id());
        let _ = self.process.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

impl Log {
    /// Reads to the end.
    fn follow(&self, stderr: impl std::io::Read) {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            self.lines.lock().unwrap().0.push(line);
            self.changed.notify_all();
        }
        self.lines.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    /// Returns whether a line says something, as soon as one does or none will.
    fn waits_for(&self, text: &str) -> bool {
        let says = |lines: &[String]| lines.iter().any(|line| line.contains(text));
        let lines = self.lines.lock().unwrap();
        let waits = |state: &mut (Vec<String>, bool)| !state.1 && !says(&state.0);
        let (lines, _) = self.changed.wait_timeout_while(lines, PATIENCE, waits).unwrap();
        says(&lines.0)
    }
}

/// Returns the configuration; of each keyword the first line holds.
fn config(folder: &Path, addresses: &[SocketAddr], lines: &str) -> String {
    let listen: Vec<String> = addresses.iter().map(|address| format!("ListenAddress {address}")).collect();
    let listen = listen.join("\n");
    let folder = folder.display();
    // From OpenSSH 9.8 on, whoever fails to log in is locked out for a while.
    let penalties = if knows("PerSourcePenalties=no") { "PerSourcePenalties no\n" } else { "" };
    format!(
        "{listen}\n{lines}\n\
         HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\nSetEnv HOME={folder}/home\n\
         StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nPermitUserRC no\nUseDNS no\nLogLevel VERBOSE\nLoginGraceTime 60\n\
         MaxStartups 200\n{penalties}"
    )
}

/// Returns the command that becomes the sshd: the program, in a view of the file system of its own where files are to differ.
fn command(folder: &Path, setup: &Setup<'_>) -> Command {
    let sshd = program().unwrap();
    // As packages do; sshd refuses to run as root without it.
    let _ = fs::DirBuilder::new().recursive(true).mode(0o755).create("/run/sshd");
    let mut words: Vec<OsString> = setup.wrapper.iter().map(OsString::from).collect();
    if !setup.files.is_empty() {
        let script =
            "until [ \"$1\" = -- ]; do mount --bind \"$1\" \"$2\"; shift 2; done; shift; exec \"$@\"";
        let wrapper = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sshd"];
        words.extend(wrapper.map(OsString::from));
        for (index, (path, content)) in setup.files.iter().enumerate() {
            let own = folder.join(format!("file-{index}"));
            fs::write(&own, content).unwrap();
            fs::set_permissions(&own, fs::metadata(path).unwrap().permissions()).unwrap();
            words.extend([own.into(), OsString::from(path)]);
        }
        words.push("--".into());
    }
    words.push(sshd.into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["-D", "-e", "-f"]).arg(folder.join("sshd_config"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Returns whether this sshd knows an option.
fn knows(option: &'static str) -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let mut command = Command::new(program().unwrap());
        let output = command.args(["-T", "-f", "/dev/null", "-o", option]).output().unwrap();
        !String::from_utf8_lossy(&output.stderr).contains("Bad configuration option")
    })
}

/// Returns an address of loopback that no other host of these tests has.
pub(super) fn own_address() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [.., process] = std::process::id().to_be_bytes();
    let [high, low] = (NEXT.fetch_add(1, Ordering::Relaxed) % 60_000 + 256).to_be_bytes();
    Ipv4Addr::new(127, 64 | (process & 63), high, low).into()
}

/// Returns a port of an address that nobody listens on.
fn free(address: IpAddr) -> SocketAddr {
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap()
}

/// Writes a file for its owner alone, as sshd and ssh want keys to be.
pub(super) fn write_secret(path: &Path, text: &str) {
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
