//! Thousands of nodes: `check` and `plan` on a simulated fleet, which is a process of its own, and the planner alone.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use certroll::command::BecomeRoot;
use certroll::facts::probe::{KeyReading, Probe, read};
use certroll::facts::{Facts, NodeFacts, Standing};
use certroll::inventory::{Inventory, MaxUnavailable};
use certroll::plan::{Majority, Policy, Procedure, Renewal, Via, plan};
use jiff::{SignedDuration, Timestamp};

use super::hosts::Hosts;
use super::{certroll, measure};

/// Looks at fleets of these sizes, and plans for them.
pub(crate) fn run(hosts: &Hosts<'_>, counts: &[usize]) -> Result<()> {
    println!("\n## Simulated nodes\n");
    println!("| nodes | `check` wall s | ms a node | peak MiB | `plan` wall s | ms a node | peak MiB |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for &count in counts {
        let fleet = Fleet::start(hosts, count)?;
        let check = measure::run(&mut fleet.certroll("check", &[]))?;
        let planned = measure::run(&mut fleet.certroll("plan", &["--via", "manual"]))?;
        let each = 1000.0 / count as f64;
        println!(
            "| {count} | {:.1} | {:.2} | {:.0} | {:.1} | {:.2} | {:.0} |",
            check.wall(),
            check.wall() * each,
            check.peak_mib(),
            planned.wall(),
            planned.wall() * each,
            planned.peak_mib(),
        );
    }
    Ok(())
}

fn cluster(count: usize) -> Result<String> {
    let mut text = "kubernetes_version: v1.11.6-rancher1-1\nnodes:\n".to_owned();
    for number in 1..=count {
        let role = if number <= 3 { "controlplane, etcd" } else { "worker" };
        let (high, low) = (number / 250, 1 + number % 250);
        writeln!(
            text,
            "- {{address: 10.0.{high}.{low}, hostname_override: n{number}, user: rke, role: [{role}]}}"
        )?;
    }
    Ok(text)
}

/// A simulated fleet that ends with this value.
#[derive(Debug)]
struct Fleet {
    process: Child,
    cluster_yml: PathBuf,
}

impl Fleet {
    fn start(hosts: &Hosts<'_>, count: usize) -> Result<Self> {
        let file = hosts.file(&format!("crowd-{count}.yml"), &cluster(count)?)?;
        let mut command = Command::new(certroll());
        command.args(["demo", "--serve", "--via", "manual", "--config"]).arg(file);
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = process.stdout.take().context("the fleet has no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let fleet = Self { process, cluster_yml: PathBuf::from(line.trim()) };
        ensure!(fleet.cluster_yml.is_file(), "the simulated fleet did not start");
        Ok(fleet)
    }

    fn certroll(&self, name: &str, arguments: &[&str]) -> Command {
        let folder = self.cluster_yml.with_file_name("");
        let mut command = Command::new(certroll());
        command.arg(name).args(arguments).arg("--config").arg(&self.cluster_yml);
        command
            .arg("--known-hosts")
            .arg(folder.join("known_hosts"))
            .arg("--state-dir")
            .arg(folder.join("state"));
        command.args(["--progress", "none"]).env("HOME", &folder);
        command
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // It removes its folder when it is asked to end, and is not worth an error here.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// Plans for clusters of these sizes, with the facts of a node that holds all files of RKE for every node.
pub(crate) fn plan_alone(hosts: &Hosts<'_>, counts: &[usize], rounds: usize) -> Result<()> {
    println!("\n## The planner alone\n");
    println!("| nodes | s | ms a node |\n| --- | --- | --- |");
    for &count in counts {
        let mut times = planner(hosts, count, rounds)?;
        times.sort();
        let median = times.get(times.len() / 2).context("no rounds")?.as_secs_f64();
        println!("| {count} | {median:.3} | {:.3} |", median * 1000.0 / count as f64);
    }
    Ok(())
}

/// Returns how long the planner takes, round by round.
fn planner(hosts: &Hosts<'_>, count: usize, rounds: usize) -> Result<Vec<Duration>> {
    let inventory = Inventory::parse(&cluster(count)?, "cluster.yml")?.inventory;
    let node = inventory.nodes.first().context("no nodes")?;
    let marker = "certroll-bench";
    let probe = Probe {
        node,
        prefix_path: &hosts.prefix_path(),
        keys: KeyReading::PublicPrefix,
        become_root: BecomeRoot::Auto,
        marker,
    };
    let output = Command::new("sh").args(["-c", &probe.script()]).env("PATH", hosts.path()).output()?;
    let now = Timestamp::now();
    let observation = read(&String::from_utf8_lossy(&output.stdout), marker, now)?;
    let facts = Facts {
        observed_at: now,
        nodes: inventory
            .nodes
            .iter()
            .map(|node| NodeFacts {
                name: node.name.clone(),
                address: node.address.clone(),
                roles: node.roles.clone(),
                result: Ok(observation.clone()),
                standing: Standing::default(),
            })
            .collect(),
    };
    let policy = Policy {
        procedure: Procedure::Rotate,
        via: Some(Via::Manual),
        services: Vec::new(),
        renew_within: SignedDuration::from_hours(24 * 90),
        renewal: Renewal::All,
        max_unavailable_worker: MaxUnavailable::DEFAULT,
        selected: None,
        rancher: None,
        wait: Duration::from_mins(60),
        health_timeout: certroll::plan::HEALTH_TIMEOUT,
        direct: None,
        rke: None,
        break_lock: None,
        majority: Majority::Needed,
        now,
    };
    let run = || {
        let began = Instant::now();
        let made = plan(&inventory, &facts, &policy);
        let elapsed = began.elapsed();
        let steps: usize = made.stages.iter().map(|stage| stage.steps.len()).sum();
        ensure!(steps > count, "the plan has {steps} steps for {count} nodes");
        Ok(elapsed)
    };
    (0..rounds).map(|_| run()).collect()
}
