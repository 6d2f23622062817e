//! A process of the simulated shell: who it is, what it knows, and what it reads and writes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Command, Sink, Source, parse};
use crate::sim::boundary::Turn;
use crate::sim::clock::lock;
use crate::sim::files::{Errno, Files, Owner, join};
use crate::sim::life::Life;
use crate::sim::machine::{SimNode, World};

/// Why a script stops before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unwind {
    Exit(i32),
    Return(i32),
    Break(u32),
    Continue(u32),
    /// The client went away, or the script would never end.
    Killed,
}

/// What a script left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// The switches of `set`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options {
    pub(super) errexit: Switch,
    pub(super) nounset: Switch,
    pub(super) noclobber: Switch,
    pub(super) noglob: Switch,
}

/// On or off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Switch {
    On,
    #[default]
    Off,
}

#[derive(Debug, Clone)]
pub(super) struct Variable {
    pub(super) value: String,
    pub(super) exported: Switch,
}

/// The commands that one script may run: far more than any script of a rotation needs, few enough to end soon.
const STEP_LIMIT: u64 = 100_000;

/// How long a `sleep` really takes.
const LONGEST_SLEEP: Duration = Duration::from_millis(3);

/// A running shell.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) world: Arc<World>,
    pub(crate) node: Arc<SimNode>,
    pub(crate) who: Owner,
    /// The container whose view of the files this process has.
    pub(crate) container: Option<String>,
    pub(crate) folder: String,
    pub(crate) umask: u32,
    pub(crate) stdin: Source,
    pub(super) sinks: BTreeMap<usize, Sink>,
    pub(super) variables: BTreeMap<String, Variable>,
    pub(super) functions: BTreeMap<String, Arc<Command>>,
    pub(super) name: String,
    pub(super) positional: Vec<String>,
    pub(super) options: Options,
    pub(super) trap: Option<String>,
    pub(super) status: i32,
    /// How many conditions surround the running command: `set -e` does not act there.
    pub(super) conditions: u32,
    pub(super) write_failed: bool,
    /// Whether what was written last found no reader.
    pub(super) pipe_broken: bool,
    /// Whether `trap '' PIPE` stands.
    pub(super) ignores_pipe: bool,
    pub(super) number: u32,
    slept: Rc<Cell<Duration>>,
    steps: Rc<Cell<u64>>,
    life: Arc<Life>,
}

impl Process {
    /// Returns the shell of a login.
    pub(crate) fn login(world: &Arc<World>, node: &Arc<SimNode>, life: Arc<Life>) -> Self {
        let home =
            if node.login.who.is_root() { "/root".to_owned() } else { format!("/home/{}", node.login.name) };
        let mut process = Self {
            world: Arc::clone(world),
            node: Arc::clone(node),
            who: node.login.who,
            container: None,
            folder: home.clone(),
            umask: 0o022,
            stdin: Source::default(),
            sinks: BTreeMap::from([(1, Sink::wire(&life)), (2, Sink::wire(&life))]),
            variables: BTreeMap::new(),
            functions: BTreeMap::new(),
            name: "sh".to_owned(),
            positional: Vec::new(),
            options: Options::default(),
            trap: None,
            status: 0,
            conditions: 0,
            write_failed: false,
            pipe_broken: false,
            ignores_pipe: false,
            number: world.next_process(),
            slept: Rc::default(),
            steps: Rc::new(Cell::new(STEP_LIMIT)),
            life,
        };
        for (name, value) in
            [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", &home), ("USER", &node.login.name)]
        {
            process.export(name, value);
        }
        process
    }

    /// Runs a script as the login's shell does, and returns what it left behind.
    pub(crate) fn run_login(mut self, script: &str, stdin: Source) -> Option<Ended> {
        self.stdin = stdin;
        let (stdout, stderr) = (self.sink(1), self.sink(2));
        let status = self.run_script(script).ok()?;
        Some(Ended { status, stdout: stdout.take(), stderr: stderr.take() })
    }

    /// Runs a script with a shell of its own, up to its end and its trap; the error is that it was killed.
    pub(crate) fn run_script(&mut self, script: &str) -> Result<i32, Unwind> {
        match parse(script) {
            Ok(script) => {
                let result = self.run(&script);
                self.finish(result)
            }
            Err(message) => {
                self.complain(&format!("sh: {message}"));
                Ok(2)
            }
        }
    }

    /// Ends a shell: what unwinds becomes its status, and its trap runs.
    pub(super) fn finish(&mut self, result: Result<i32, Unwind>) -> Result<i32, Unwind> {
        let status = match result {
            Ok(status) | Err(Unwind::Exit(status) | Unwind::Return(status)) => status,
            Err(Unwind::Break(_) | Unwind::Continue(_)) => self.status,
            Err(Unwind::Killed) => return Err(Unwind::Killed),
        };
        let Some(trap) = self.trap.take() else { return Ok(status) };
        self.status = status;
        match parse(&trap).map(|script| self.run(&script)) {
            Ok(Err(Unwind::Killed)) => Err(Unwind::Killed),
            Ok(Err(Unwind::Exit(changed))) => Ok(changed),
            _ => Ok(status),
        }
    }

    /// Returns a shell that inherits what a child process inherits, with arguments of its own.
    pub(crate) fn child(&self, who: Owner, arguments: &[String]) -> Self {
        let mut child = self.clone();
        child.who = who;
        child.functions.clear();
        child.variables.retain(|_, variable| variable.exported == Switch::On);
        child.options = Options::default();
        child.trap = None;
        child.conditions = 0;
        child.number = self.world.next_process();
        if let Some((name, rest)) = arguments.split_first() {
            child.name.clone_from(name);
            child.positional = rest.to_vec();
        } else {
            "sh".clone_into(&mut child.name);
            child.positional.clear();
        }
        child
    }

    /// Forgets the variables that a new container does not get from who starts it.
    pub(crate) fn variables_of_container(&mut self) {
        self.variables.retain(|name, _| name == "PATH");
        self.export("HOME", "/root");
    }

    /// Counts a command; the error says that there were too many, or that the client is gone.
    pub(super) fn step(&mut self) -> Result<(), Unwind> {
        if self.life.has_ended() {
            return Err(Unwind::Killed);
        }
        let left = self.steps.get().saturating_sub(1);
        self.steps.set(left);
        if left == 0 {
            self.complain("sh: the simulation ends a script that does not end by itself");
            return Err(Unwind::Killed);
        }
        Ok(())
    }

    /// Returns a variable's value.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|variable| variable.value.as_str())
    }

    /// Gives a variable a value; it stays exported if it was.
    pub(crate) fn assign(&mut self, name: &str, value: &str) {
        let exported = self.variables.get(name).map_or(Switch::Off, |variable| variable.exported);
        self.variables.insert(name.to_owned(), Variable { value: value.to_owned(), exported });
    }

    /// Gives a variable a value that child processes see.
    pub(crate) fn export(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), Variable { value: value.to_owned(), exported: Switch::On });
    }

    /// Asks whether something happens that is the next effect, and is no change of a file.
    pub(crate) fn announce(&self) -> Result<(), Unwind> {
        self.life.change();
        match self.world.log.announce() {
            Turn::Happens => Ok(()),
            Turn::Ends => {
                self.life.end();
                Err(Unwind::Killed)
            }
        }
    }

    /// Lets it write where there is always a reader, whatever becomes of the client.
    pub(crate) fn detach(&mut self) {
        self.sinks.values_mut().for_each(Sink::detach);
    }

    /// Returns where a descriptor leads.
    pub(crate) fn sink(&self, descriptor: usize) -> Sink {
        self.sinks.get(&descriptor).cloned().unwrap_or(Sink::Null)
    }

    /// Makes a descriptor lead elsewhere.
    pub(crate) fn set_sink(&mut self, descriptor: usize, sink: Sink) {
        self.sinks.insert(descriptor, sink);
    }

    /// Writes to stdout.
    pub(crate) fn put(&mut self, bytes: impl AsRef<[u8]>) {
        let Err(error) = self.sink(1).write(bytes.as_ref()) else { return };
        self.pipe_broken |= error == Errno::Pipe;
        if !self.write_failed {
            self.write_failed = true;
            self.complain(&format!("write error: {error}"));
        }
    }

    /// Writes a line to stdout.
    pub(crate) fn put_line(&mut self, line: &str) {
        self.put(format!("{line}\n"));
    }

    /// Writes a line to stderr.
    pub(crate) fn complain(&mut self, message: &str) {
        // A message that cannot be written has nobody to be told to.
        let written = self.sink(2).write(format!("{message}\n").as_bytes());
        self.pipe_broken |= written == Err(Errno::Pipe);
    }

    /// Writes a line to stderr and returns a status for it.
    pub(crate) fn fail(&mut self, status: i32, message: &str) -> i32 {
        self.complain(message);
        status
    }

    /// Returns an absolute path on the node for a path as this process names it.
    pub(crate) fn path(&self, path: &str) -> String {
        let path = join(&self.folder, path);
        match (&self.container, path.strip_prefix("/etc/kubernetes")) {
            (Some(_), Some(rest)) => format!("{}/etc/kubernetes{rest}", self.node.prefix),
            _ => path,
        }
    }

    /// Does something with the node's files.
    pub(crate) fn files<T>(&self, action: impl FnOnce(&mut Files) -> T) -> T {
        let (world, node) = (&self.world, &self.node);
        let before = world.log.count();
        let result = {
            let files = &mut lock(&node.machine).files;
            files.life = Some(Arc::clone(&self.life));
            let result = action(files);
            files.life = None;
            result
        };
        let in_place = |description: &str| description.contains("/etc/kubernetes/ssl/");
        world.log.judge(&node.name, (before, in_place), || world.serving());
        result
    }

    /// Sleeps: hardly in real time, but `date` in this script shows the full time.
    pub(crate) fn sleep(&mut self, duration: Duration) {
        self.slept.set(self.slept.get().saturating_add(duration));
        std::thread::sleep(duration.min(LONGEST_SLEEP));
    }

    /// Returns the node's time as this script sees it, in seconds since 1970.
    pub(crate) fn seconds(&self) -> i64 {
        self.node.now(&self.world.clock).as_second().saturating_add_unsigned(self.slept.get().as_secs())
    }
}
