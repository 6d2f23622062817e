//! Measures the fan-out over SSH: `certroll exec` and `certroll check` beside a bare loop and the tools of the field, in one run.
//!
//! `cargo bench --bench fanout` runs it all against sshd on the loopback network, in a network namespace of its own; `-- --help`
//! lists what can be left out. It needs root, for the namespace, and says so; a tool that is not installed is named and left out.
#![expect(clippy::print_stdout, reason = "the numbers are the product")]
#![expect(
    clippy::disallowed_methods,
    reason = "it starts the programs that it measures, and writes their files"
)]

mod crowd;
mod floor;
mod hosts;
mod measure;
mod tools;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, ValueEnum};

use hosts::{Folder, Hosts, KeyExchange};
use measure::{Measured, median_ratio};
use tools::Tool;

/// How many connections each program may have at a time.
const PARALLEL: usize = 64;

/// Measure the fan-out of certroll against a bare loop and the tools of the field
#[derive(Debug, Parser)]
struct Options {
    /// How many hosts
    #[arg(long, value_delimiter = ',', default_value = "50,200,500")]
    hosts: Vec<usize>,
    /// How often each program runs, by turns; medians count
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Which parts
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Part::ALL)]
    parts: Vec<Part>,
    /// How many simulated nodes
    #[arg(long, value_delimiter = ',', default_value = "1000,3000,10000")]
    crowd: Vec<usize>,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// `true` on every host, everybody with their own key exchange.
    Default,
    /// The same with curve25519 for everybody.
    Same,
    /// The whole look at hosts with the files of RKE.
    Check,
    /// `true` on every host behind a bastion.
    Bastion,
    /// Thousands of simulated nodes.
    Crowd,
    /// The planner alone, for as many nodes.
    Planner,
}

impl Part {
    const ALL: [Self; 6] =
        [Self::Default, Self::Same, Self::Check, Self::Bastion, Self::Crowd, Self::Planner];
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).is_some_and(|word| word == floor::WORD) {
        return floor::run(&words);
    }
    let options = Options::parse();
    if std::env::var_os(NAMESPACE).is_none() {
        return in_namespace();
    }
    describe_machine();
    let folder = Folder::new()?;
    let hosts = Hosts::start(&folder, options.hosts.iter().copied().max().unwrap_or_default())?;
    for part in Part::ALL.into_iter().filter(|part| options.parts.contains(part)) {
        match part {
            Part::Default => fan_out(&hosts, KeyExchange::Default, &options)?,
            Part::Same => fan_out(&hosts, KeyExchange::Curve25519, &options)?,
            Part::Check => look(&hosts, &options)?,
            Part::Bastion => behind_a_bastion(&hosts, &options)?,
            Part::Crowd => crowd::run(&hosts, &options.crowd)?,
            Part::Planner => crowd::plan_alone(&hosts, &options.crowd, options.rounds)?,
        }
    }
    Ok(())
}

/// The variable that says that the namespace is there.
const NAMESPACE: &str = "CERTROLL_BENCH_NAMESPACE";

/// Runs this program again in a network namespace, where sshd may listen on every address of 127.0.0.0/8 and nobody else comes.
fn in_namespace() -> Result<()> {
    let inside = "ip link set lo up && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", inside]).arg(std::env::current_exe()?).args(std::env::args().skip(1));
    let status = command.env(NAMESPACE, "yes").status().context("unshare (util-linux) cannot be run")?;
    ensure!(
        status.success(),
        "it needs root, for a network namespace, and `ip` (iproute2), or it failed: {status}"
    );
    Ok(())
}

fn describe_machine() {
    let first = |path: &str, key: &str| -> String {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{cores} cores, {}, Linux {}, load {}",
        first("/proc/cpuinfo", "model name"),
        first("/proc/sys/kernel/osrelease", ""),
        first("/proc/loadavg", "").split(' ').next().unwrap_or_default(),
    );
    println!("certroll {}, {}", env!("CARGO_PKG_VERSION"), tools::version("ssh", &["-V"]));
}

/// Runs `true` on every host with every tool.
fn fan_out(hosts: &Hosts, exchange: KeyExchange, options: &Options) -> Result<()> {
    println!("\n## `true` on every host, {PARALLEL} at a time, {}\n", exchange.title());
    for &count in &options.hosts {
        let crowd = hosts.list(exchange, count)?;
        let mut rows: Vec<(Tool, Vec<Measured>)> = Vec::new();
        for tool in Tool::ALL {
            match tool.command(hosts, &crowd) {
                Some(_) => rows.push((tool, Vec::new())),
                None => println!("SKIPPED: {} is not installed ({})", tool.name(), tool.package()),
            }
        }
        for round in 0..=options.rounds {
            for (tool, runs) in &mut rows {
                let mut command = tool.command(hosts, &crowd).context("a tool has gone")?;
                let run = measure::run(&mut command).with_context(|| tool.name().to_owned())?;
                // The first round fills caches.
                if round > 0 {
                    runs.push(run);
                }
            }
        }
        let floor = rows.iter().find(|(tool, _)| *tool == Tool::Floor).map(|(_, runs)| runs.clone());
        table(count, &rows, &floor.unwrap_or_default());
    }
    println!("\n{}", tools::versions());
    Ok(())
}

fn table(count: usize, rows: &[(Tool, Vec<Measured>)], floor: &[Measured]) {
    println!(
        "| {count} hosts | wall s | of the bare loop | client CPU ms a host | of the bare loop | peak MiB |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for (tool, runs) in rows {
        println!(
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} |",
            tool.name(),
            measure::median(runs, Measured::wall),
            median_ratio(runs, floor, Measured::wall),
            measure::median(runs, Measured::cpu) * 1000.0 / count as f64,
            median_ratio(runs, floor, Measured::cpu),
            measure::median(runs, Measured::peak_mib),
        );
    }
    println!();
}

/// Compares commands that run by turns, and prints a row for each; ratios are of the first.
fn compare(rounds: usize, mut commands: Vec<(String, Command)>) -> Result<()> {
    let mut rows: Vec<(String, Vec<Measured>)> =
        commands.iter().map(|(name, _)| (name.clone(), Vec::new())).collect();
    for round in 0..=rounds {
        for ((name, command), (_, runs)) in commands.iter_mut().zip(&mut rows) {
            let run = measure::run(command).with_context(|| name.clone())?;
            if round > 0 {
                runs.push(run);
            }
        }
    }
    println!("| | wall s | ratio | client CPU s | ratio | peak MiB |\n| --- | --- | --- | --- | --- | --- |");
    let Some((_, first)) = rows.first().cloned() else { bail!("there is nothing to compare") };
    for (name, runs) in &rows {
        println!(
            "| {name} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} |",
            measure::median(runs, Measured::wall),
            median_ratio(runs, &first, Measured::wall),
            measure::median(runs, Measured::cpu),
            median_ratio(runs, &first, Measured::cpu),
            measure::median(runs, Measured::peak_mib),
        );
    }
    Ok(())
}

/// Looks at hosts that have the files of RKE.
fn look(hosts: &Hosts, options: &Options) -> Result<()> {
    println!("\n## The whole look at hosts with the files of RKE\n");
    for &count in &options.hosts {
        let crowd = hosts.list(KeyExchange::Default, count)?;
        println!("{count} hosts:\n");
        compare(
            options.rounds,
            vec![
                ("`exec -- true`".to_owned(), hosts.exec(&crowd)),
                ("`check`".to_owned(), hosts.check(&crowd)),
            ],
        )?;
        println!();
    }
    Ok(())
}

/// Runs `true` on hosts behind a bastion and on the same without.
fn behind_a_bastion(hosts: &Hosts, options: &Options) -> Result<()> {
    println!("\n## `true` on hosts behind one bastion\n");
    for &count in &options.hosts {
        let straight = hosts.list(KeyExchange::Default, count)?;
        let behind = hosts.list_behind_bastion(count)?;
        println!("{count} hosts:\n");
        let before = hosts.bastion_connections()?;
        compare(
            options.rounds,
            vec![
                ("`exec -- true`, straight".to_owned(), hosts.exec(&straight)),
                ("`exec -- true`, behind the bastion".to_owned(), hosts.exec(&behind)),
            ],
        )?;
        let made = hosts.bastion_connections()? - before;
        println!("\n{:.1} connections to the bastion a run\n", made as f64 / (options.rounds + 1) as f64);
    }
    Ok(())
}

/// Returns the program that is measured.
fn certroll() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_certroll"))
}
