//! Settings are the options with everything resolved that the environment and the home folder have a say in.
#![expect(clippy::disallowed_methods, reason = "the environment is read here alone")]

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock};

use super::arguments::{Become, Common, HostKeys};
use super::failure::{Failure, REFUSED, USAGE};
use super::selection;
use super::sudo_password;
use super::terminal::{AskOnTerminal, Terminal};
use crate::clock::Clock;
use crate::command::BecomeRoot;
use crate::escape::shown_lines;
use crate::facts::probe::KeyReading;
use crate::finding::Finding;
use crate::gather::{self, Gatherer};
use crate::inventory::{Inventory, Node, NodeName, Parsed};
use crate::transport::{self, AgentUse, ConfigChoice, HostKeyPolicy, PasswordUse, Transport, TypedOption};
use crate::workstation::config_file::read_config;

/// Everything that a command needs to know of options and environment.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) common: Common,
    pub(super) clock: Clock,
    pub(super) state_folder: PathBuf,
    transport: transport::Settings,
    /// The same with the ssh_config, once somebody has asked for it.
    configured: Arc<OnceLock<transport::Settings>>,
}

/// A cluster.yml that was read.
pub(super) struct Loaded {
    pub(super) inventory: Arc<Inventory>,
    pub(super) findings: Vec<Finding>,
    /// The nodes that `-n` selects; `None` without it.
    pub(super) selected: Option<BTreeSet<NodeName>>,
}

impl Loaded {
    /// Returns the selected nodes, in the order of the file.
    pub(super) fn nodes(&self) -> Vec<&Node> {
        let is_selected =
            |node: &&Node| self.selected.as_ref().is_none_or(|names| names.contains(&node.name));
        self.inventory.nodes.iter().filter(is_selected).collect()
    }

    /// Returns what was noticed about the file. People get each way out beside its place, for ten of them in a row beneath a
    /// report would belong to nothing.
    pub(super) fn findings_for(&self, terminal: &Terminal) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        if terminal.is_json() {
            return findings;
        }
        for finding in &mut findings {
            if let Some(hint) = finding.hint.take() {
                finding.message = format!("{}: {hint}", finding.message);
            }
        }
        findings
    }
}

impl Settings {
    pub(super) fn new(common: &Common) -> Result<Self, Failure> {
        let home = variable("HOME").map(PathBuf::from).unwrap_or_default();
        let mut transport = transport::Settings::new(&home, Arc::new(AskOnTerminal));
        if let Some(limit) = common.connect_timeout {
            transport.connect_timeout = limit;
            transport.typed.insert(TypedOption::ConnectTimeout);
        }
        transport.command_timeout = common.command_timeout;
        transport.user.clone_from(&common.ssh_user);
        transport.key_path.clone_from(&common.ssh_key);
        transport.jumps.clone_from(&common.jump);
        transport.agent_socket = variable("SSH_AUTH_SOCK").map(PathBuf::from);
        if common.ssh_agent {
            transport.agent = AgentUse::Always;
        }
        if common.verbose > 0 {
            let terminal = Terminal::new(common);
            transport.banners = Some(Arc::new(move |at, words| {
                for line in shown_lines(words).filter(|line| !line.trim().is_empty()) {
                    terminal.tell(&format!("{at} says: {line}"));
                }
            }));
        }
        if let Some(user) = variable("USER").or_else(|| variable("LOGNAME")) {
            transport.login_name = user;
        }
        if let Some(file) = &common.known_hosts {
            transport.known_hosts = vec![file.clone()];
            transport.typed.insert(TypedOption::KnownHosts);
        }
        if let Some(policy) = common.host_keys {
            transport.host_keys = match policy {
                HostKeys::Strict => HostKeyPolicy::Strict,
                HostKeys::AcceptNew => HostKeyPolicy::AcceptNew,
                HostKeys::Off => HostKeyPolicy::Off,
            };
            transport.typed.insert(TypedOption::HostKeys);
        }
        transport.variable = variable;
        transport.sudo_password =
            common.become_password_file.as_deref().map(sudo_password::read).transpose()?;
        let state_folder = match &common.state_dir {
            Some(folder) => folder.clone(),
            None => default_state_folder(&home)?,
        };
        let configured = Arc::default();
        Ok(Self { common: common.clone(), clock: Clock::System, state_folder, transport, configured })
    }

    /// Returns how hosts are connected to, with the ssh_config, which is read once and only where somebody connects.
    pub(super) fn connections(&self) -> Result<&transport::Settings, Failure> {
        if let Some(settings) = self.configured.get() {
            return Ok(settings);
        }
        let choice = match &self.common.ssh_config {
            None => ConfigChoice::Usual,
            Some(file) if file.as_os_str().eq_ignore_ascii_case("none") => ConfigChoice::Nothing,
            Some(file) => ConfigChoice::File(file.clone()),
        };
        let mut settings = self.transport.clone();
        settings.read_ssh_config(&choice).map_err(|error| {
            let hint = error.hint().to_owned();
            Failure::new(USAGE, error).hint(hint)
        })?;
        if self.common.ask_password && !AskOnTerminal::can_answer() {
            let hint = "run it on a terminal, or log in with keys: `--ssh-key FILE`, `--ssh-agent`";
            let message = "`--ask-password` needs a terminal to ask on; nothing was done";
            return Err(Failure::message(REFUSED, message).hint(hint.to_owned()));
        }
        if self.common.ask_password {
            settings.passwords = PasswordUse::Asked;
        }
        Ok(self.configured.get_or_init(|| settings))
    }

    /// Returns the path of the cluster.yml.
    pub(super) fn config(&self) -> &Path {
        self.common.config.as_deref().unwrap_or(Path::new("cluster.yml"))
    }

    /// Reads the cluster.yml; what is noticed about it is returned, not told.
    pub(super) fn load(&self) -> Result<Loaded, Failure> {
        let path = self.config();
        let text = read_config(path, Inventory::LARGEST_TEXT).map_err(|error| {
            let hint = error.hint().to_owned();
            Failure::new(USAGE, error).hint(hint)
        })?;
        let name = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
        let Parsed { inventory, findings } =
            Inventory::parse(&text, &name).map_err(|error| Failure::message(USAGE, error))?;
        let selected = self
            .common
            .nodes
            .as_deref()
            .map(|pattern| selection::select(&inventory, pattern))
            .transpose()
            .map_err(|error| Failure::new(USAGE, error))?;
        Ok(Loaded { inventory: Arc::new(inventory), findings, selected })
    }

    /// Returns the way to the nodes of an inventory.
    pub(super) fn transport(&self, inventory: &Inventory) -> Result<Transport, Failure> {
        Transport::new(self.connections()?.clone(), inventory.bastion.as_ref()).map_err(|error| {
            let hint = error.hint();
            Failure::new(USAGE, error).hint(hint)
        })
    }

    /// Returns who looks at the nodes of an inventory.
    pub(super) fn gatherer(&self, inventory: &Arc<Inventory>, keys: KeyReading) -> Result<Gatherer, Failure> {
        let transport = self.transport(inventory)?;
        let settings = gather::Settings {
            parallel: self.common.parallel,
            keys,
            become_root: self.become_root(),
            clock: self.clock,
        };
        Ok(Gatherer::new(Arc::clone(inventory), Arc::new(transport), settings))
    }

    /// Returns which ways to root may be tried.
    pub(super) fn become_root(&self) -> BecomeRoot {
        match self.common.become_root {
            Become::Auto => BecomeRoot::Auto,
            Become::Root => BecomeRoot::Root,
            Become::Sudo => BecomeRoot::Sudo,
            Become::Docker => BecomeRoot::Docker,
        }
    }

    /// Warns of settings that give safety away, and tells what of the ssh_config has no effect.
    pub(super) fn warn(&self, loaded: &Loaded, terminal: &Terminal) -> Result<(), Failure> {
        if self.common.host_keys == Some(HostKeys::Off) {
            terminal.tell("warning: host keys are not verified (`--host-keys off`): anybody on the way can read and change everything");
        }
        let bastion = loaded.inventory.bastion.as_ref();
        super::remarks::tell(self.connections()?, bastion, &loaded.nodes(), terminal);
        if self.common.verbose > 1 {
            super::remarks::tell_decisions(self.connections()?, bastion, &loaded.nodes(), terminal);
        }
        Ok(())
    }

    /// Returns who runs this: user and host of the bastion.
    pub(super) fn owner(&self) -> String {
        let host = variable("HOSTNAME").or_else(host_name).unwrap_or_else(|| "unknown".to_owned());
        format!("{}@{host}", self.transport.login_name)
    }
}

/// Returns where programs are looked for.
pub(super) fn search_path() -> Option<OsString> {
    env::var_os("PATH")
}

/// Returns the token from the environment.
pub(super) fn rancher_token() -> Option<String> {
    variable("RANCHER_TOKEN")
}

/// Returns Rancher's address from the environment.
pub(super) fn rancher_url() -> Option<String> {
    variable("RANCHER_URL")
}

/// Returns whether colours are unwanted (<https://no-color.org>).
pub(super) fn has_no_color() -> bool {
    variable("NO_COLOR").is_some()
}

/// Returns whether this process was started to outlive its terminal (`nohup`), as the system tells it until signals are listened to.
pub(super) fn outlives_terminal() -> bool {
    static IGNORES_HANGUPS: LazyLock<bool> = LazyLock::new(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        // SIGHUP is signal 1, the lowest bit.
        ignored.is_some_and(|mask| mask & 1 == 1)
    });
    *IGNORES_HANGUPS
}

/// Returns a variable of the environment that is set to something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns this machine's name.
fn host_name() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned())
}

/// Returns the state folder of the XDG base directory specification.
fn default_state_folder(home: &Path) -> Result<PathBuf, Failure> {
    match variable("XDG_STATE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute()) {
        Some(folder) => Ok(folder.join("certroll")),
        None if home.is_absolute() => Ok(home.join(".local/state/certroll")),
        None => Err(Failure::usage("neither HOME nor XDG_STATE_HOME says where runs are recorded")
            .hint("give --state-dir DIR".to_owned())),
    }
}
