//! The arguments are what was typed: the command line's grammar, and its help.
#![expect(
    clippy::doc_markdown,
    rustdoc::bare_urls,
    reason = "these comments are the help, which people read as it is"
)]

mod exec;
mod import;
mod pages;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::inventory::MaxUnavailable;
use crate::pki::Service;
use crate::plan::Majority;
use crate::transport::Jump;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

pub(super) use exec::ExecArguments;
pub(super) use import::{ImportArguments, ImportKubeconfig, ImportOutput, ImportRancher, ImportSource};
pub(super) use pages::{CompletionsArguments, ManArguments};
use values::{at_least_one, duration, limit, max_unavailable};

/// Renew the certificates of RKE Kubernetes clusters over SSH
///
/// certroll looks at every node of a cluster.yml, shows a plan that a second person can review, carries it out role by role,
/// and proves that it worked.
#[derive(Debug, Parser)]
#[command(name = "certroll", bin_name = "certroll", version, arg_required_else_help = true, max_term_width = 100, after_help = AFTER_HELP)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Arguments {
    /// Reads a command line, and notes what was typed there and what the environment says.
    pub(super) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(words)?;
        let mut arguments =
            Self::from_arg_matches(&matches).map_err(|error| error.format(&mut Self::command()))?;
        if matches.value_source("config") == Some(ValueSource::CommandLine) {
            arguments.common.config_source = ConfigSource::Typed;
        }
        Ok(arguments)
    }
}

/// Who names the cluster.yml.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ConfigSource {
    /// Whoever typed the command.
    Typed,
    /// RKE_CONFIG, or nobody.
    #[default]
    Elsewhere,
}

const AFTER_HELP: &str = "\
Exit statuses:
  0    done, or nothing to do; `check`: nothing worse than warnings
  1    a node or a step failed, or a node could not be looked at
  2    usage, or a file that is not valid
  3    `check`: expired, expiring or broken; `plan --detailed-exitcode`: something to do
  4    refused, and nothing was changed: a blocker, a stale plan, a lock, no terminal to ask on
  130  cancelled by the operator

A first look:
  certroll demo                         rehearse everything on a simulated cluster
  certroll check -c cluster.yml         what is, and what is wrong
  certroll plan -c cluster.yml --via manual";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the inventory as certroll understands it; connect nowhere
    Nodes,
    /// Look at every node: certificates, what is served, containers, health; change nothing
    Check(CheckArguments),
    /// Show what would be done, and why (the dry run)
    Plan(PlanArguments),
    /// Plan, show the plan, ask, and carry it out
    Apply(ApplyArguments),
    /// Take a run back: plan the way back, show it, ask, and carry it out
    Rollback(RollbackArguments),
    /// List the runs of this cluster, or show one
    Runs(RunsArguments),
    /// Run a command on the nodes in parallel
    ///
    /// The words behind `--` are joined by blanks and given to the login's shell, as ssh does. What nodes print is shown as it comes, line by
    /// line behind the name of the node, stdout on stdout and stderr on stderr. The command changes what it changes: there is no plan, no
    /// lock and no record of it.
    ///
    /// What is piped into stdin is given to every node; a terminal is not read. Each command may take as long as --command-timeout says (0
    /// or `none`: for ever). Ctrl-C cuts the connections and names what was not run; a command that was cut off may still run on its node.
    Exec(ExecArguments),
    /// Write a cluster.yml for a cluster that has none
    Import(ImportArguments),
    /// Rehearse the whole procedure on a simulated fleet inside this process; with -c, on one in the image of yours
    Demo(DemoArguments),
    /// Print the completions of a shell
    ///
    /// They are made from the same definitions as this help. To have them in every shell that is started from now on:
    ///
    ///   bash   certroll completions bash > ~/.local/share/bash-completion/completions/certroll
    ///   zsh    certroll completions zsh > ~/.zfunc/_certroll    (with ~/.zfunc in fpath, before compinit)
    ///   fish   certroll completions fish > ~/.config/fish/completions/certroll.fish
    #[command(verbatim_doc_comment)]
    Completions(CompletionsArguments),
    /// Print the manual page of certroll, or of one of its commands
    ///
    /// It is made from the same definitions as this help: `certroll man | man -l -`, `certroll man apply | man -l -`.
    Man(ManArguments),
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(super) struct Common {
    /// The cluster.yml; `-` for stdin [default: cluster.yml]
    #[arg(short, long, global = true, value_name = "FILE", env = "RKE_CONFIG", hide_env_values = true)]
    pub(super) config: Option<PathBuf>,
    #[arg(skip)]
    pub(super) config_source: ConfigSource,
    /// Only these nodes: names, addresses, globs, role=worker; a comma adds, `!` takes out
    #[arg(short, long, global = true, value_name = "PATTERN", allow_hyphen_values = true)]
    pub(super) nodes: Option<String>,
    /// How many connections may be open at a time
    #[arg(long, global = true, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    pub(super) parallel: usize,
    /// How long a connection may take until the login is done (90s, 5m) [default: ConnectTimeout of the ssh_config, else 10s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration)]
    pub(super) connect_timeout: Option<Duration>,
    /// How long a command on a node may take; 0 or `none` for as long as it likes
    #[arg(long, global = true, value_name = "DURATION", default_value = "60s", value_parser = limit)]
    pub(super) command_timeout: Duration,
    /// The user on every node, instead of the cluster.yml's
    #[arg(long, global = true, value_name = "USER")]
    pub(super) ssh_user: Option<String>,
    /// The private key for every node, instead of the cluster.yml's
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) ssh_key: Option<PathBuf>,
    /// Use the keys of the agent behind SSH_AUTH_SOCK
    #[arg(long, global = true)]
    pub(super) ssh_agent: bool,
    /// Ask for the password of the nodes, and for that of the jump hosts, where one asks for it, and let hosts ask for codes; one host
    /// tries it before others are shown it; without it keys alone log in
    #[arg(long, global = true)]
    pub(super) ask_password: bool,
    /// Pass these hosts on the way, instead of bastion_host: [USER@]HOST[:PORT][,...]
    #[arg(long, global = true, value_name = "HOSTS", value_delimiter = ',')]
    pub(super) jump: Option<Vec<Jump>>,
    /// OpenSSH's configuration, instead of ~/.ssh/config and /etc/ssh/ssh_config; `none` reads neither
    ///
    /// What the cluster.yml says wins over it, except for what RKE fills in (port 22, ~/.ssh/id_rsa), and an option wins over both. Patterns are
    /// compared with a node's `address`. Commands in it (ProxyCommand, Match exec) are never run; -v names what is not understood.
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) ssh_config: Option<PathBuf>,
    /// The file of known host keys, instead of those of the ssh_config or ~/.ssh/known_hosts
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) known_hosts: Option<PathBuf>,
    /// What to do with host keys that are not known [default: StrictHostKeyChecking of the ssh_config, else strict]
    ///
    /// `StrictHostKeyChecking no` means accept-new here: a key that has changed is refused all the same. Checks are off with `off` alone.
    #[arg(long, global = true, value_name = "POLICY", value_enum)]
    pub(super) host_keys: Option<HostKeys>,
    /// How to become root on a node
    #[arg(long = "become", global = true, value_name = "WAY", value_enum, default_value_t = Become::Auto)]
    pub(super) become_root: Become,
    /// The password for sudo where it wants one, in a file that only its owner can read [default: asked once on the terminal]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) become_password_file: Option<PathBuf>,
    /// The form of the output on stdout (`markdown` and `shell`: `plan` alone)
    #[arg(short, long, global = true, value_name = "FORM", value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
    /// How progress is shown on stderr
    #[arg(long, global = true, value_name = "KIND", value_enum, default_value_t = Progress::Auto)]
    pub(super) progress: Progress,
    /// When to use colour; NO_COLOR holds
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub(super) color: When,
    /// Where runs are recorded [default: $XDG_STATE_HOME/certroll, else ~/.local/state/certroll]
    #[arg(long, global = true, value_name = "DIR", env = "CERTROLL_STATE_DIR", hide_env_values = true)]
    pub(super) state_dir: Option<PathBuf>,
    /// Say less
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Say more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

#[derive(Debug, Clone, Args)]
pub(super) struct CheckArguments {
    /// A certificate that ends within so many days is expiring
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(super) warn_days: u16,
    /// Read private keys as a whole where their public part cannot be read by itself; and ask the API, as kube-node, which nodes are
    /// ready
    #[arg(long)]
    pub(super) read_keys: bool,
    /// Check this state of rke: a cluster.rkestate, a saved full-cluster-state, or `-`; connects only where -c is given too
    ///
    /// Reads a cluster.rkestate, or what `kubectl -n kube-system get configmap full-cluster-state -o yaml` (or `-o json`) prints, a Secret
    /// of that name, or the Secrets of rke v0.1.x. Ends, chains and keys are reported without any network. With the cluster.yml of -c the nodes are
    /// looked at as well, and what differs between state, disk and what is served is reported; RKE_CONFIG alone connects nowhere.
    #[arg(long, value_name = "FILE")]
    pub(super) state: Option<PathBuf>,
    // Last, for its heading would hold for what follows.
    #[command(flatten)]
    pub(super) rancher: RancherOptions,
}

/// How many days before its end a certificate is renewed.
pub(super) const RENEW_DAYS: u16 = 90;

/// What shapes a plan.
#[derive(Debug, Clone, Args)]
pub(super) struct PlanOptions {
    /// What to do: the whole procedure, its first step alone, or its last alone
    #[arg(value_enum, value_name = "PROCEDURE")]
    pub(super) procedure: Option<ProcedureName>,
    /// Who makes the new certificates
    #[arg(long, value_name = "METHOD", value_enum)]
    pub(super) via: Option<ViaName>,
    /// Renew what ends within so many days
    #[arg(long, value_name = "N", default_value_t = RENEW_DAYS)]
    pub(super) renew_days: u16,
    /// Renew, repair or restart all that was selected, needed or not
    #[arg(long)]
    pub(super) force: bool,
    /// Only this service's certificates: etcd, kubelet, kube-apiserver, kube-proxy, kube-scheduler, kube-controller-manager
    #[arg(long = "service", value_name = "NAME")]
    pub(super) services: Vec<Service>,
    /// How many workers may be unavailable at a time, instead of upgrade_strategy.max_unavailable_worker
    #[arg(long, value_name = "N|N%", value_parser = max_unavailable)]
    pub(super) max_unavailable: Option<MaxUnavailable>,
    /// How long Rancher or rke (default 20m) or the operator (default 60m) may take
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) wait: Option<Duration>,
    /// How long a component may take until it is healthy again after its restart; what waits for whole nodes takes up to 2.5 times that
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2m")]
    pub(super) health_timeout: Duration,
    /// Begin no stage that would not end within this time from the start (of a resume: from its own); what is left says so
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) deadline: Option<Duration>,
    /// Take the lock away from this run, which is certainly dead; one whose lease still lasts is respected all the same
    #[arg(long, value_name = "RUN")]
    pub(super) break_lock: Option<String>,
    /// Go on although controlplane or etcd nodes are down: no other run can be at work on them, and they keep what they have
    #[arg(long)]
    pub(super) without_majority: bool,
    #[command(flatten)]
    pub(super) direct: DirectOptions,
    #[command(flatten)]
    pub(super) rke: RkeOptions,
}

impl PlanOptions {
    /// Returns whether most of the control plane must be there.
    pub(super) fn majority(&self) -> Majority {
        if self.without_majority { Majority::Waived } else { Majority::Needed }
    }
}

/// How long certificates that certroll makes are valid, in days: as long as RKE's.
pub(super) const VALIDITY_DAYS: u16 = 3650;

/// What shapes a plan of `--via direct`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "With --via direct")]
pub(super) struct DirectOptions {
    /// How many days new certificates are valid; they never outlive their CA
    #[arg(long, value_name = "N", default_value_t = VALIDITY_DAYS, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) validity: u16,
    /// Have the kubelet make a new serving certificate of its own, where that is due
    #[arg(long)]
    pub(super) kubelet_serving: bool,
    /// Replace certificates that another CA has issued under RKE's names
    #[arg(long)]
    pub(super) replace_custom: bool,
    /// Have Rancher rotate afterwards, on a cluster that Rancher launched, so that its own copy agrees
    #[arg(long, value_name = "METHOD", value_enum, conflicts_with = "accept_rancher_revert")]
    pub(super) then: Option<ThenName>,
    /// Go on although Rancher will put its old certificates back until it rotates too
    #[arg(long)]
    pub(super) accept_rancher_revert: bool,
}

/// What shapes a plan of `--via rke`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "With --via rke")]
pub(super) struct RkeOptions {
    /// The `rke` command, instead of the first one in PATH; which version of it fits is what the plan says
    #[arg(long, value_name = "FILE")]
    pub(super) rke_binary: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ThenName {
    /// Through Rancher's API, once the cluster's own answers again
    Rancher,
}

/// How Rancher is reached. The token comes from RANCHER_TOKEN or a file, never from an argument.
#[expect(clippy::struct_field_names, reason = "an option is named after its field")]
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Rancher")]
pub(super) struct RancherOptions {
    /// Rancher's address, such as https://rancher.example.net
    #[arg(long, value_name = "URL", env = "RANCHER_URL", hide_env_values = true)]
    pub(super) rancher_url: Option<String>,
    /// The cluster's name or id in Rancher, where it is not cluster_name
    #[arg(long, value_name = "CLUSTER")]
    pub(super) rancher_cluster: Option<String>,
    /// The CA that signed Rancher's certificate
    #[arg(long, value_name = "FILE", conflicts_with = "rancher_ca_checksum")]
    pub(super) rancher_ca: Option<PathBuf>,
    /// The SHA-256 of Rancher's `cacerts` setting, as agents are given it
    #[arg(long, value_name = "SHA256")]
    pub(super) rancher_ca_checksum: Option<String>,
    /// A file that holds the token, instead of the environment's RANCHER_TOKEN
    #[arg(long, value_name = "FILE")]
    pub(super) rancher_token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct PlanArguments {
    #[command(flatten)]
    pub(super) options: PlanOptions,
    /// Keep the plan in a file, for `certroll apply --plan FILE`
    #[arg(long, value_name = "FILE")]
    pub(super) save: Option<PathBuf>,
    /// End with status 3 when there is something to do
    #[arg(long)]
    pub(super) detailed_exitcode: bool,
    // Last, for its heading would hold for what follows.
    #[command(flatten)]
    pub(super) rancher: RancherOptions,
}

#[derive(Debug, Clone, Args)]
pub(super) struct ApplyArguments {
    #[command(flatten)]
    pub(super) options: PlanOptions,
    /// Carry out this saved plan; its commands come from its actions
    #[arg(long, value_name = "FILE", conflicts_with_all = ["procedure", "via", "renew_days", "force", "services", "max_unavailable", "wait", "health_timeout", "nodes", "validity", "kubelet_serving", "replace_custom", "then", "accept_rancher_revert", "rke_binary"])]
    pub(super) plan: Option<PathBuf>,
    /// Go on with a run that stopped: the newest that has not ended well, or any part of a name
    ///
    /// The plan of the run is carried out once more, from a fresh look at the nodes: each step recognises what it has done already
    /// and does the rest. It is refused while the run still goes on, and where the cluster has moved on since (status 4). A run that
    /// ended well has nothing to resume (status 0).
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["plan", "procedure", "via", "renew_days", "force", "services", "max_unavailable", "wait", "health_timeout", "nodes", "validity", "kubelet_serving", "replace_custom", "then", "accept_rancher_revert", "rke_binary"])]
    pub(super) resume: Option<String>,
    /// Do not ask; never answers for host keys, fingerprints or passwords
    #[arg(short, long)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) rancher: RancherOptions,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[derive(Debug, Clone, Args)]
pub(super) struct RollbackArguments {
    /// Any unambiguous part of a run's name [default: the newest that changed something]
    #[arg(value_name = "RUN")]
    pub(super) run: Option<String>,
    /// List the backups that lie on the nodes, and how large they are; change nothing
    #[arg(long, conflicts_with_all = ["run", "keep", "force", "restore_rancher_files", "yes"])]
    pub(super) list: bool,
    /// Take nothing back; remove old backups from the nodes, all but those of the newest N runs: shown first, and asked for
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with_all = ["run", "force", "restore_rancher_files"])]
    pub(super) keep: Option<usize>,
    /// Go on although certificates of the backup have expired, others have changed files since, or a backup is missing
    #[arg(long)]
    pub(super) force: bool,
    /// Bring the files back that Rancher, rke or the operator wrote in the run, too; Rancher will write its own over them
    #[arg(long)]
    pub(super) restore_rancher_files: bool,
    /// How many workers may be unavailable at a time, instead of upgrade_strategy.max_unavailable_worker
    #[arg(long, value_name = "N|N%", value_parser = max_unavailable)]
    pub(super) max_unavailable: Option<MaxUnavailable>,
    /// How long a component may take until it is healthy again after its restart; what waits for whole nodes takes up to 2.5 times that
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2m")]
    pub(super) health_timeout: Duration,
    /// Begin no stage that would not end within this time from the start; what is left says so
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with_all = ["list", "keep"])]
    pub(super) deadline: Option<Duration>,
    /// Take the lock away from this run, which is certainly dead; one whose lease still lasts is respected all the same
    #[arg(long, value_name = "RUN")]
    pub(super) break_lock: Option<String>,
    /// Go on although controlplane or etcd nodes are down: no other run can be at work on them, and they keep what they have
    #[arg(long)]
    pub(super) without_majority: bool,
    /// Do not ask; never answers for host keys, fingerprints or passwords
    #[arg(short, long)]
    pub(super) yes: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct RunsArguments {
    /// Any unambiguous part of a run's name
    #[arg(value_name = "RUN")]
    pub(super) run: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct DemoArguments {
    /// Who makes the new certificates: the simulated Rancher, certroll itself, or a simulated operator
    #[arg(long, value_name = "METHOD", value_enum, default_value_t = ViaName::Rancher)]
    pub(super) via: ViaName,
    /// Keep the simulated fleet up and print the cluster.yml to use with the other commands
    #[arg(long)]
    pub(super) serve: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProcedureName {
    /// Repair, rotate, restart
    Rotate,
    /// Complete the legacy bundle `.tmp` on controlplane and etcd nodes
    Repair,
    /// Restart kubelet and kube-proxy where they are stale or the node is not active
    Restart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ViaName {
    /// Rancher 2.0.14, 2.1.9 and later, through its API
    Rancher,
    /// certroll itself, with the key of the cluster's own CA; needs neither Rancher nor rke
    Direct,
    /// You, in Rancher's UI; certroll says what to do and waits for it
    Manual,
    /// The `rke` command on this machine, from the folder of the cluster.yml
    Rke,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum HostKeys {
    /// Refuse them
    Strict,
    /// Remember those of new hosts, refuse changed ones
    AcceptNew,
    /// Verify nothing; warned of at every run
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Become {
    /// The first that works
    Auto,
    /// The login is root
    Root,
    /// `sudo -n`
    Sudo,
    /// A container of an image that is on the node
    Docker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people
    Text,
    /// For programs
    Json,
    /// For a ticket
    Markdown,
    /// A script that does the same without certroll
    Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Progress {
    /// Bars on a terminal, else lines
    Auto,
    /// Bars
    Bars,
    /// A line an event
    Lines,
    /// Nothing
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    /// On a terminal
    Auto,
    /// In any case
    Always,
    /// Not at all
    Never,
}
