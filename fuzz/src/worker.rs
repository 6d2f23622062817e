//! A worker feeds one target until its time is up or something breaks.
//!
//! The input at hand lies in a file, for the driver to find when this process is ended by the system.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::mutate::Mutator;
use crate::targets::{Target, known};
use crate::{ALLOCATOR, save};

/// How much memory one input may take beyond what the worker itself has.
pub(super) const MEMORY_LIMIT: usize = 64 << 20;

/// How long one input may take. Generous: other work may have the processors, and nothing is optimised.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// An input that takes longer is worth a look.
const SLOW: Duration = Duration::from_secs(1);

/// The stack of the program's threads: what fits into it there has to fit here.
const STACK: usize = 2 << 20;

/// Inputs are cut there: a node's whole answer is smaller.
const LONGEST: usize = 256 << 10;

/// How many inputs that did something new are kept to be changed further.
const LARGEST_CORPUS: usize = 3000;

/// Returns the file in which a worker keeps the input at hand.
pub(super) fn current_input(folder: &Path, target: &str) -> PathBuf {
    folder.join(format!("{target}.current"))
}

/// What a run of one input came to.
type Verdict = Result<u64, String>;

/// Feeds a target, and returns the exit status of the process.
pub(super) fn work(
    target: &'static Target,
    folder: &Path,
    seconds: u64,
    seed: u64,
    input: Option<&Path>,
) -> ExitCode {
    let feeder = Feeder::new(target, folder);
    if let Some(path) = input {
        let input = fs::read(path).expect("the input can be read");
        return feeder.on_a_thread(move |feeder| match feeder.feed(&input) {
            Ok(_) => {
                println!("nothing broke");
                true
            }
            Err(message) => {
                println!("FAILED: {message}");
                false
            }
        });
    }
    let time = Duration::from_secs(seconds);
    feeder.on_a_thread(move |feeder| feeder.search(seed, time))
}

/// Feeds inputs to one target.
struct Feeder {
    target: &'static Target,
    folder: PathBuf,
    current: File,
    /// When the input at hand was begun, in milliseconds of `clock`, and one more; 0 while there is none.
    begun: Arc<AtomicU64>,
    clock: Instant,
    panicked: Arc<Mutex<String>>,
}

impl Feeder {
    fn new(target: &'static Target, folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder for what is found");
        let panicked = Arc::new(Mutex::new(String::new()));
        let told = Arc::clone(&panicked);
        set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            *told.lock().expect("the hook alone holds it") =
                format!("{place}: {}", info.payload_as_str().unwrap_or("?"));
        }));
        Self {
            target,
            folder: folder.to_owned(),
            current: File::create(current_input(folder, target.name)).expect("a file for the input at hand"),
            begun: Arc::default(),
            clock: Instant::now(),
            panicked,
        }
    }

    /// Works on a thread with the stack of the program's, while this one watches the clock.
    fn on_a_thread(self, work: impl FnOnce(&Self) -> bool + Send + 'static) -> ExitCode {
        let (begun, clock, target, folder) =
            (Arc::clone(&self.begun), self.clock, self.target, self.folder.clone());
        let worker = thread::Builder::new().stack_size(STACK).spawn(move || work(&self));
        let worker = worker.expect("a thread can be made");
        while !worker.is_finished() {
            thread::sleep(Duration::from_millis(20));
            let since = begun.load(Ordering::Acquire);
            let spent = elapsed(clock).saturating_sub(since.saturating_sub(1));
            if since > 0 && Duration::from_millis(spent) > TIME_LIMIT {
                let input = fs::read(current_input(&folder, target.name)).unwrap_or_default();
                let path = save(&folder, target.name, "hang", &input);
                println!("FAILED: no end after {TIME_LIMIT:?}: {}", path.display());
                return ExitCode::FAILURE;
            }
        }
        match worker.join() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(_) => {
                println!("FAILED: the driver: {}", self_told(&Mutex::new(String::new())));
                ExitCode::FAILURE
            }
        }
    }

    /// Feeds seeds, then changed ones, until time is up; returns whether nothing broke.
    fn search(&self, seed: u64, time: Duration) -> bool {
        let mut corpus = (self.target.seeds)();
        corpus.extend(known(self.target.name).into_iter().map(|(_, input)| input));
        let mut signatures = HashSet::new();
        let (mut slowest, mut slow) = (Duration::ZERO, Vec::new());
        let mut runs = 0_u64;
        let mut quick = Vec::new();
        for input in corpus {
            let started = Instant::now();
            match self.feed(&input) {
                Ok(signature) => drop(signatures.insert(signature)),
                Err(message) => return self.broken(&input, &message),
            }
            // What is slow by design, such as a bomb that is defused at its limit, is fed and not changed further.
            if started.elapsed() < SLOW / 2 {
                quick.push(input);
            }
        }
        let mut corpus = quick;
        let seeds = corpus.len();
        let end = Instant::now() + time;
        let mut mutator = Mutator::new(seed, self.target.dictionary, LONGEST);
        while Instant::now() < end {
            let input = mutator.next(&corpus);
            let kept = input.clone();
            let started = Instant::now();
            match self.feed(&input) {
                Ok(signature) if signatures.insert(signature) && corpus.len() < LARGEST_CORPUS => {
                    corpus.push(input);
                }
                Ok(_) => {}
                Err(message) => return self.broken(&input, &message),
            }
            runs += 1;
            if started.elapsed() > slowest {
                slowest = started.elapsed();
                slow = kept;
            }
        }
        if slowest > SLOW {
            let path = save(&self.folder, self.target.name, "slow", &slow);
            println!("slow: {} bytes took {slowest:.1?}: {}", slow.len(), path.display());
        }
        println!(
            "ok: {runs} inputs from {seeds} seeds, {} outcomes, the slowest {slowest:.1?}",
            signatures.len()
        );
        true
    }

    /// Feeds one input.
    fn feed(&self, input: &[u8]) -> Verdict {
        self.current
            .set_len(0)
            .and_then(|()| self.current.write_all_at(input, 0))
            .expect("the input is kept");
        let room = ALLOCATOR.allocated() + MEMORY_LIMIT;
        ALLOCATOR.set_limit(room).expect("there is room");
        self.begun.store(elapsed(self.clock) + 1, Ordering::Release);
        let result = catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
        self.begun.store(0, Ordering::Release);
        ALLOCATOR.set_limit(usize::MAX).expect("there is room");
        result.map_err(|_| self_told(&self.panicked))
    }

    /// Tells and saves an input that broke something, as small as a few tries make it; returns false.
    fn broken(&self, input: &[u8], message: &str) -> bool {
        let small = self.smaller(input, message);
        let path = save(&self.folder, self.target.name, "panic", &small);
        println!("FAILED: {message}\n{:>12} saved as {} ({} bytes)", "", path.display(), small.len());
        false
    }

    /// Takes parts away for as long as the same place panics.
    fn smaller(&self, input: &[u8], message: &str) -> Vec<u8> {
        let place = |message: &str| message.split(": ").next().unwrap_or_default().to_owned();
        let end = Instant::now() + Duration::from_secs(10);
        let mut small = input.to_vec();
        let mut tried = HashMap::new();
        let mut size = small.len() / 2;
        while size > 0 {
            let mut at = 0;
            while at < small.len() && Instant::now() < end {
                let mut less = small.clone();
                less.drain(at..(at + size).min(small.len()));
                let still = *tried
                    .entry(less.clone())
                    .or_insert_with(|| self.feed(&less).is_err_and(|other| place(&other) == place(message)));
                if still {
                    small = less;
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
        small
    }
}

fn elapsed(clock: Instant) -> u64 {
    u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn self_told(told: &Mutex<String>) -> String {
    let told = told.lock().expect("the hook alone holds it").clone();
    // A report in a message would be many screens long.
    told.chars().take(600).collect()
}
