use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use jiff::Timestamp;

use super::arguments::{Arguments, Command, DemoArguments, ViaName};
use super::failure::{FAILED, Failure, USAGE, WORRYING};
use super::settings::Settings;
use super::terminal::{Terminal, stop_wanted};
use crate::inventory::{Inventory, NodeName, Parsed, Role};
use crate::journal::{ClusterFolder, read_runs};
use crate::plan::StageName;
use crate::sim::{Fleet, FleetOptions, Layout, RancherOptions, RkeFiles, SimError};

/// The cluster of a demo without `--config`: what most people who need certroll have.
const CLUSTER: &str = include_str!("demo/cluster.yml");

/// How often the simulated operator looks whether it is asked.
const OPERATOR_DELAY: Duration = Duration::from_secs(1);

/// The exit status of a rehearsed command.
type Status = u8;

/// Rehearses the whole procedure on a simulated fleet, with the real pipeline and the real SSH client.
pub(super) async fn run(
    settings: &Settings,
    terminal: &Terminal,
    arguments: &DemoArguments,
) -> Result<Status, Failure> {
    if arguments.via == ViaName::Rke {
        return Err(Failure::usage(
            "the demonstration has no `rke` command: the real one would find no docker on simulated nodes",
        )
        .hint("use --via rancher, --via direct or --via manual".to_owned()));
    }
    let inventory = inventory(settings)?;
    if !inventory.external_etcd_urls.is_empty() {
        return Err(Failure::usage(
            "the simulated fleet has no external etcd: give a cluster.yml with nodes of role etcd",
        ));
    }
    let folder = tempfile::Builder::new()
        .prefix("certroll-demo-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .map_err(|error| Failure::new(FAILED, error))?;
    let options = fleet_options(&inventory, arguments.via, settings.clock.now());
    let fleet = Fleet::start(options, folder.path()).await.map_err(failure)?;
    let rehearsal =
        Rehearsal { terminal, fleet: &fleet, folder: folder.path(), cluster: inventory.cluster_name.clone() };
    if arguments.serve {
        return rehearsal.serve(arguments.via).await;
    }
    rehearsal.rehearse(arguments.via).await
}

/// Returns the inventory whose image the fleet is made in.
fn inventory(settings: &Settings) -> Result<Inventory, Failure> {
    if settings.common.config.is_some() {
        return Ok((*settings.load()?.inventory).clone());
    }
    let Parsed { inventory, .. } =
        Inventory::parse(CLUSTER, "demo").map_err(|error| Failure::message(USAGE, error))?;
    Ok(inventory)
}

/// Returns the cluster that a method is for: one that Rancher launched, or one that the `rke` command built and has lost.
fn fleet_options(inventory: &Inventory, via: ViaName, now: Timestamp) -> FleetOptions<'_> {
    if via == ViaName::Direct {
        let mut options = FleetOptions::new(inventory, Layout::Expired028, now);
        options.rke_files = RkeFiles::Beside;
        return options;
    }
    let mut options = FleetOptions::new(inventory, Layout::LegacyExpired, now);
    options.rancher = Some(rancher(inventory));
    options
}

/// Returns a Rancher whose agents leave some workers on old certificates, as the real ones do (rancher#21709).
fn rancher(inventory: &Inventory) -> RancherOptions {
    let workers = inventory.nodes.iter().filter(|node| node.roles == [Role::Worker]);
    let stale: Vec<NodeName> = workers.map(|node| node.name.clone()).step_by(2).take(2).collect();
    RancherOptions { stale_workers: stale, ..RancherOptions::default() }
}

fn failure(error: SimError) -> Failure {
    Failure::new(FAILED, error)
}

struct Rehearsal<'a> {
    terminal: &'a Terminal,
    fleet: &'a Fleet,
    folder: &'a Path,
    cluster: String,
}

impl Rehearsal<'_> {
    /// Runs check, plan, apply and check, as an operator would type them.
    async fn rehearse(&self, via: ViaName) -> Result<Status, Failure> {
        let layout = if via == ViaName::Direct { "built by rke 0.2.8" } else { "legacy layout" };
        self.say(&format!(
            "A simulated cluster: {layout}, every leaf certificate expired. Nothing real is touched.",
        ));
        if via == ViaName::Rancher {
            self.say(
                "A simulated Rancher v2.2.8 launched it. Its rotation loops until `.tmp` is repaired, and its agents leave two of \
                 the workers on the old certificates (rancher#21709): both are part of the procedure.",
            );
        }
        let before = self.command(&["check"]).await?;
        expect("check", before, WORRYING)?;
        let via = method(via);
        self.command(&["plan", "--via", via]).await?;
        let apply = ["apply", "--via", via, "--yes"];
        let applied = match via {
            "manual" => {
                let operator = async {
                    self.until_asked().await;
                    self.say("(the simulated operator rotates the certificates in Rancher)");
                    self.fleet.operator_rotates().await.map_err(failure)
                };
                tokio::try_join!(self.command(&apply), operator)?.0
            }
            _ => self.command(&apply).await?,
        };
        expect("apply", applied, 0)?;
        let after = self.command(&["check"]).await?;
        expect("check", after, 0)?;
        self.command(&["runs"]).await?;
        self.say(&format!("\nThat was the whole procedure, with the real pipeline over real SSH and TLS. With your own cluster.yml:\n  certroll check -c cluster.yml\n  certroll plan -c cluster.yml --via {via}"));
        Ok(0)
    }

    /// Waits until the run asks its operator to rotate, as its journal tells.
    async fn until_asked(&self) {
        let is_asked = || {
            let folders = ClusterFolder::of_cluster(&self.folder.join("state"), &self.cluster);
            read_runs(&folders).0.iter().any(|run| run.state.has_begun(StageName::Rotate))
        };
        while !is_asked() {
            tokio::time::sleep(OPERATOR_DELAY).await;
        }
    }

    /// Runs one command line against the fleet.
    async fn command(&self, words: &[&str]) -> Result<Status, Failure> {
        self.say(&format!("\n$ certroll {}", words.join(" ")));
        let arguments = Arguments::try_parse_from(self.command_line(words))
            .map_err(|error| Failure::new(FAILED, error))?;
        let settings = Settings::new(&arguments.common)?;
        match arguments.command {
            Command::Check(check) => Box::pin(super::check::run(&settings, self.terminal, &check)).await,
            Command::Plan(plan) => Box::pin(super::plan::run(&settings, self.terminal, &plan)).await,
            Command::Apply(apply) => Box::pin(super::apply::run(&settings, self.terminal, &apply)).await,
            Command::Rollback(rollback) => {
                Box::pin(super::rollback::run(&settings, self.terminal, &rollback)).await
            }
            Command::Runs(runs) => super::runs::run(&settings, self.terminal, &runs),
            Command::Nodes
            | Command::Exec(_)
            | Command::Import(_)
            | Command::Demo(_)
            | Command::Completions(_)
            | Command::Man(_) => Ok(0),
        }
    }

    /// Returns the words of a command line with the options that lead to the fleet.
    fn command_line(&self, words: &[&str]) -> Vec<String> {
        let paths = self.fleet.paths();
        let mut line: Vec<String> = ["certroll"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        let mut option = |name: &str, value: String| line.extend([name.to_owned(), value]);
        option("--config", paths.cluster_yml.display().to_string());
        // What holds for the operator's hosts does not for these.
        option("--ssh-config", "none".to_owned());
        option("--known-hosts", paths.known_hosts.display().to_string());
        option("--state-dir", self.folder.join("state").display().to_string());
        let talks_to_rancher = words.contains(&"--via");
        if let (true, Some(url)) = (talks_to_rancher, self.fleet.rancher_url()) {
            option("--rancher-url", url);
            for (name, path) in
                [("--rancher-ca", &paths.rancher_ca), ("--rancher-token-file", &paths.rancher_token)]
            {
                if let Some(path) = path {
                    option(name, path.display().to_string());
                }
            }
        }
        line
    }

    /// Keeps the fleet up until Ctrl-C or SIGTERM, and says how the other commands reach it.
    async fn serve(&self, via: ViaName) -> Result<Status, Failure> {
        let via = method(via);
        let words = self.command_line(&["plan", "--via", via]);
        let options: Vec<&str> = words.iter().skip(4).map(String::as_str).collect();
        self.terminal.print(&self.fleet.paths().cluster_yml.display().to_string());
        self.say("The simulated fleet is up until Ctrl-C. The cluster.yml is the path on stdout; use it so:");
        let reach: Vec<&str> = options.iter().take(6).copied().collect();
        self.say(&format!("  certroll check {}", reach.join(" ")));
        self.say(&format!("  certroll plan --via {via} {}", options.join(" ")));
        stop_wanted().await;
        Ok(0)
    }

    fn say(&self, text: &str) {
        self.terminal.mention(text);
    }
}

/// Returns the word of a method on the command line.
fn method(via: ViaName) -> &'static str {
    match via {
        ViaName::Manual => "manual",
        ViaName::Direct => "direct",
        ViaName::Rancher | ViaName::Rke => "rancher",
    }
}

/// A rehearsal that ends otherwise than it should is a failure of the rehearsal.
fn expect(command: &str, status: Status, expected: Status) -> Result<(), Failure> {
    if status == expected {
        return Ok(());
    }
    Err(Failure::message(FAILED, format!("`{command}` ended with status {status} instead of {expected}")))
}
