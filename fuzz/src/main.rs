//! The driver feeds parsers of certroll with inputs that are made from good ones by chance, for as long as it is told.
//!
//! Each target runs in a process of its own, so that a stack that overflows or memory beyond the limit ends that process alone;
//! this one then saves the input that did it. `fuzz/README.md` says how it is used.
#![expect(
    clippy::disallowed_methods,
    reason = "the driver starts processes, reads the clock and keeps its own files"
)]

mod mutate;
mod targets;
mod worker;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;

use cap::Cap;
use clap::Parser;

use targets::{ALL, Target};

/// Every allocation is counted, and refused beyond the limit that the worker sets.
#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

/// Feeds parsers of certroll with inputs made by chance.
#[derive(Parser)]
struct Arguments {
    /// The targets; `all` for every one.
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What chance begins with; the one of a run before makes the same inputs again.
    #[arg(long)]
    seed: Option<u64>,
    /// How many targets run at a time; as many as there are processors by default.
    #[arg(long)]
    jobs: Option<usize>,
    /// Where inputs that break something are written.
    #[arg(long, default_value = "target/fuzz")]
    found: PathBuf,
    /// Feeds this file alone to the target.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Works on one target, in the process that the driver started for it.
    #[arg(long, hide = true)]
    worker: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut chosen = Vec::new();
    for name in &arguments.targets {
        let matching = ALL.iter().filter(|target| name == "all" || target.name == name);
        let before = chosen.len();
        chosen.extend(matching);
        if chosen.len() == before {
            let names: Vec<&str> = ALL.iter().map(|target| target.name).collect();
            eprintln!("no target is called `{name}`; there are: {}", names.join(", "));
            return ExitCode::from(2);
        }
    }
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    if let (true, [target]) = (arguments.worker, chosen.as_slice()) {
        return worker::work(target, &arguments.found, arguments.seconds, seed, arguments.input.as_deref());
    }
    println!("seed {seed}, {} s a target", arguments.seconds);
    fs::create_dir_all(&arguments.found).expect("a folder for what is found");
    let jobs = arguments.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let failed = run_all(&arguments, &chosen, seed, jobs.max(1));
    println!("{} targets, {failed} failed", chosen.len());
    ExitCode::from(u8::from(failed > 0))
}

/// Runs targets, some at a time, and returns how many failed.
fn run_all(arguments: &Arguments, chosen: &[&Target], seed: u64, jobs: usize) -> usize {
    let waiting = std::sync::Mutex::new(chosen.iter());
    let take = || waiting.lock().expect("nobody panics with it").next().copied();
    thread::scope(|scope| {
        let run = || {
            let mut failed = 0;
            while let Some(target) = take() {
                failed += usize::from(!run_one(arguments, target, seed));
            }
            failed
        };
        let runners: Vec<_> = (0..jobs).map(|_| scope.spawn(run)).collect();
        runners.into_iter().map(|runner| runner.join().expect("a runner does not panic")).sum()
    })
}

/// Runs a target in a process of its own and returns whether it ended well.
fn run_one(arguments: &Arguments, target: &Target, seed: u64) -> bool {
    let mut child = start(arguments, target, seed);
    let output = child.stdout.take().expect("it was piped");
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        println!("{:<12} {line}", target.name);
    }
    let status = child.wait().expect("it was started");
    if status.success() {
        return true;
    }
    // A panic or a hang has been told and saved; what the system ended could not say a word.
    if status.code().is_none() {
        let current = worker::current_input(&arguments.found, target.name);
        let saved = save(&arguments.found, target.name, "ended", &fs::read(&current).unwrap_or_default());
        println!(
            "{:<12} FAILED: {status}: the stack overflowed, or more than {} MiB were wanted: {}",
            target.name,
            worker::MEMORY_LIMIT >> 20,
            saved.display()
        );
    }
    false
}

fn start(arguments: &Arguments, target: &Target, seed: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.arg(target.name).arg("--worker").arg("--found").arg(&arguments.found);
    command.args(["--seconds", &arguments.seconds.to_string(), "--seed", &seed.to_string()]);
    if let Some(input) = &arguments.input {
        command.arg("--input").arg(input);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("this program starts itself")
}

/// Writes an input that broke something, and returns its path.
fn save(folder: &Path, target: &str, what: &str, input: &[u8]) -> PathBuf {
    let folder = folder.join(target);
    fs::create_dir_all(&folder).expect("a folder for what is found");
    let name = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = folder.join(format!("{what}-{name:016x}"));
    fs::write(&path, input).expect("a file for what is found");
    path
}
