//! What a program took: wall time, processor time of itself and of its children, and its peak of memory.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use wait4::Wait4 as _;

/// One run of a program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    wall: Duration,
    cpu: Duration,
    peak: u64,
}

impl Measured {
    /// Returns the wall time, in seconds.
    pub(crate) fn wall(&self) -> f64 {
        self.wall.as_secs_f64()
    }

    /// Returns the processor time, user and system, in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        self.cpu.as_secs_f64()
    }

    /// Returns the most memory that one of its processes had resident.
    pub(crate) fn peak_mib(&self) -> f64 {
        self.peak as f64 / f64::from(1 << 20)
    }
}

/// How a look ends that saw every node and found something to say: these hosts serve nothing.
const FINDINGS: i32 = 3;

/// Runs a program to its end; its output goes nowhere, as that of all others. A host that it did not reach is an error.
pub(crate) fn run(command: &mut Command) -> Result<Measured> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let ended = command.spawn()?.wait4()?;
    let (wall, used) = (began.elapsed(), ended.rusage);
    ensure!(matches!(ended.status.code(), Some(0 | FINDINGS)), "{command:?} ended with {}", ended.status);
    Ok(Measured { wall, cpu: used.utime + used.stime, peak: used.maxrss })
}

/// Returns the median of a figure.
pub(crate) fn median(runs: &[Measured], figure: fn(&Measured) -> f64) -> f64 {
    middle(runs.iter().map(figure).collect())
}

/// Returns the median of the ratios of runs that were made side by side.
pub(crate) fn median_ratio(runs: &[Measured], floor: &[Measured], figure: fn(&Measured) -> f64) -> f64 {
    middle(runs.iter().zip(floor).map(|(run, floor)| figure(run) / figure(floor)).collect())
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
