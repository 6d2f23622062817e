//! A route is the way to a node: the jump hosts that are passed, and how each hop is entered.
//!
//! The transport makes one for each node it connects to, from the options, the inventory and the ssh_config, in this order of
//! rank; what the ssh_config says outranks defaults alone.

mod resolution;

use std::path::PathBuf;
use std::sync::Arc;

use crate::inventory::{Bastion, Node, SshCredentials, ValueOrigin};

use super::login::{CertificateSource, KeySource, Login};
use super::origin::{Chosen, Origin};
use super::ssh_config::{Found, Query};
use super::{AgentUse, Jump, Settings, TransportError};

use resolution::Resolution;

/// The names of the keys that OpenSSH tries when nobody names one, in `~/.ssh/`.
const DEFAULT_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];
/// The port of sshd.
const DEFAULT_PORT: u16 = 22;
/// How many hosts are passed at most: a jump host may have a `ProxyJump` of its own.
const LONGEST: usize = 16;

/// The way to a node.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// The jump hosts in the order in which they are passed.
    pub(super) hops: Vec<Arc<Login>>,
    /// Who decided on them.
    pub(super) hops_origin: Origin,
    pub(super) login: Arc<Login>,
    /// What the ssh_config says that has no effect, or another one than people may expect.
    pub(super) remarks: Remarks,
}

/// What is to be told about the ssh_config of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Remarks {
    /// What every run warns of.
    pub(super) warnings: Vec<Found<Warning>>,
    /// What is told to those who want to know more.
    pub(super) unused: Vec<Found<String>>,
}

/// What a person has to know of the ssh_config before a host is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Warning {
    /// A command stands there for the connection, and is not run.
    ProxyCommand,
    /// New host keys are accepted and not written down, so that nothing is ever compared.
    ForgottenHostKeys,
}

impl Remarks {
    fn take(&mut self, other: Self) {
        self.warnings.extend(other.warnings);
        self.unused.extend(other.unused);
    }
}

/// Makes routes under one set of settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planner<'a> {
    pub(super) settings: &'a Settings,
    pub(super) bastion: Option<&'a Bastion>,
}

/// What is known of a host before the ssh_config is asked.
struct Host<'a> {
    /// The name that patterns are compared with.
    name: &'a str,
    named_by: Origin,
    port: Option<Chosen<u16>>,
    user: Option<Chosen<String>>,
    keys: Option<Chosen<Vec<KeySource>>>,
    certificates: Option<Chosen<Vec<CertificateSource>>>,
    agent: Option<Chosen<AgentUse>>,
    /// What holds where neither this nor the ssh_config says anything.
    otherwise: Otherwise,
}

/// Values of the lowest rank.
struct Otherwise {
    port: u16,
    user: Chosen<String>,
    keys: Vec<KeySource>,
}

/// A login, and what else the ssh_config says of its host.
struct Hop {
    login: Login,
    /// The hosts on the way there.
    jumps: Option<Found<Vec<Jump>>>,
    proxy_command: Option<Found<String>>,
    remarks: Remarks,
}

impl Hop {
    /// Returns what is to be told when the host is connected to straight, without the command that OpenSSH would run.
    fn remarks_of_straight_connection(&mut self) -> Remarks {
        let mut remarks = std::mem::take(&mut self.remarks);
        let command = self.proxy_command.take();
        remarks
            .warnings
            .extend(command.map(|found| Found { value: Warning::ProxyCommand, place: found.place }));
        remarks
    }
}

impl Planner<'_> {
    /// Returns the way to a node: through `--jump`, else `bastion_host`, else its `ProxyJump`.
    pub(super) fn route(&self, node: &Node) -> Result<Route, TransportError> {
        let mut hop = self.hop(self.node(node));
        let (hops, hops_origin, mut remarks) = match (&self.settings.jumps, self.bastion) {
            (Some(jumps), _) => {
                let origin = Origin::Option("--jump");
                let (hops, remarks) = self.chain(jumps, &origin, &mut Vec::new())?;
                (hops, origin, remarks)
            }
            (None, Some(bastion)) => {
                let gate = self.hop(self.bastion(bastion));
                let (hops, remarks) = self.before(gate, &mut Vec::new())?;
                (hops, Origin::ClusterFile, remarks)
            }
            (None, None) => match hop.jumps.take().filter(|jumps| !jumps.value.is_empty()) {
                Some(Found { value, place }) => {
                    let origin = Origin::SshConfig(place);
                    let (hops, remarks) = self.chain(&value, &origin, &mut vec![hop.login.clone()])?;
                    (hops, origin, remarks)
                }
                None => (Vec::new(), Origin::Default, hop.remarks_of_straight_connection()),
            },
        };
        remarks.take(hop.remarks);
        Ok(Route { hops, hops_origin, login: Arc::new(hop.login), remarks })
    }

    /// Returns the logins of a list of jump hosts. As with OpenSSH, the first one may have a `ProxyJump` of its own.
    fn chain(
        &self,
        jumps: &[Jump],
        origin: &Origin,
        behind: &mut Vec<Login>,
    ) -> Result<(Vec<Arc<Login>>, Remarks), TransportError> {
        let Some((first, rest)) = jumps.split_first() else { return Ok((Vec::new(), Remarks::default())) };
        let (mut hops, mut remarks) = self.before(self.hop(self.jump(first, origin)), behind)?;
        for jump in rest {
            let mut hop = self.hop(self.jump(jump, origin));
            remarks.take(std::mem::take(&mut hop.remarks));
            hops.push(Arc::new(hop.login));
        }
        Ok((hops, remarks))
    }

    /// Returns a jump host that is reached first, after those that it is itself reached through. `behind` are the hosts that wait
    /// for it, to notice when it leads back to one of them.
    fn before(
        &self,
        mut hop: Hop,
        behind: &mut Vec<Login>,
    ) -> Result<(Vec<Arc<Login>>, Remarks), TransportError> {
        let is_same = |other: &Login| other.at == hop.login.at && other.user == hop.login.user;
        if behind.iter().any(is_same) || behind.len() >= LONGEST {
            return Err(TransportError::JumpLoop { at: hop.login.at, user: hop.login.user });
        }
        let jumps = hop.jumps.take().filter(|jumps| !jumps.value.is_empty());
        let Some(Found { value, place }) = jumps else {
            let remarks = hop.remarks_of_straight_connection();
            return Ok((vec![Arc::new(hop.login)], remarks));
        };
        behind.push(hop.login.clone());
        let (mut hops, mut remarks) = self.chain(&value, &Origin::SshConfig(place), behind)?;
        behind.pop();
        remarks.take(hop.remarks);
        hops.push(Arc::new(hop.login));
        Ok((hops, remarks))
    }

    /// Returns what options and inventory say of a node.
    fn node<'n>(&self, node: &'n Node) -> Host<'n> {
        let user = self.settings.user.clone().map(|user| Chosen::by_option(user, "--ssh-user"));
        let mut host = self.machine(&node.address, node.port, &node.ssh);
        host.user = Some(user.unwrap_or_else(|| Chosen::by_cluster_file(node.user.clone())));
        self.outrank_keys(&mut host);
        host
    }

    /// Returns what the inventory says of its bastion, which keeps the user and the key that it has there.
    fn bastion<'b>(&self, bastion: &'b Bastion) -> Host<'b> {
        let user = Chosen::by_cluster_file(bastion.user.clone());
        Host { user: Some(user), ..self.machine(&bastion.address, bastion.port, &bastion.ssh) }
    }

    /// Returns what is known of a jump host. `--ssh-user` and `--ssh-key` hold for those of `--jump`, and what the inventory says
    /// of its bastion is the next best guess for them; for those of `ProxyJump` OpenSSH knows neither.
    fn jump<'j>(&self, jump: &'j Jump, origin: &Origin) -> Host<'j> {
        let is_typed = matches!(origin, Origin::Option(_));
        let bastion = self.bastion.filter(|_| is_typed);
        let credentials = bastion.map(|bastion| bastion.ssh.clone()).unwrap_or_default();
        let same = bastion.filter(|bastion| bastion.address == jump.host);
        let mut host = self.machine(&jump.host, same.map_or(DEFAULT_PORT, |same| same.port), &credentials);
        // Of another host, the bastion's port says nothing.
        host.port = host.port.filter(|_| same.is_some());
        match bastion.map(|bastion| (bastion, Chosen::by_cluster_file(bastion.user.clone()))) {
            Some((_, user)) if same.is_some() => host.user = Some(user),
            Some((_, user)) => {
                host.otherwise.user = user;
                host.otherwise.keys = host.keys.take().map_or(host.otherwise.keys, |keys| keys.value);
            }
            None => {
                let default_key = |name| KeySource::DefaultFile(self.settings.home.join(".ssh").join(name));
                host.otherwise.keys = DEFAULT_KEYS.into_iter().map(default_key).collect();
            }
        }
        if is_typed {
            let user = self.settings.user.clone().map(|user| Chosen::by_option(user, "--ssh-user"));
            host.user = user.or(host.user);
            self.outrank_keys(&mut host);
        }
        let named = |user: &String| Chosen { value: user.clone(), origin: origin.clone() };
        host.named_by = origin.clone();
        host.user = jump.user.as_ref().map(named).or(host.user);
        host.port = jump.port.map(|value| Chosen { value, origin: origin.clone() }).or(host.port);
        host
    }

    /// Lets `--ssh-key` take the place of all other keys.
    fn outrank_keys(&self, host: &mut Host<'_>) {
        if let Some(path) = &self.settings.key_path {
            let key = KeySource::File { path: path.clone(), origin: "`--ssh-key`".to_owned() };
            host.keys = Some(Chosen::by_option(vec![key], "--ssh-key"));
            host.certificates = Some(Chosen::by_option(Vec::new(), "--ssh-key"));
        }
    }

    /// Returns what the inventory says of a machine, its user aside.
    fn machine<'m>(&self, name: &'m str, port: u16, credentials: &SshCredentials) -> Host<'m> {
        let from_home = |path: &String| match path.strip_prefix("~/") {
            Some(rest) => self.settings.home.join(rest),
            None => PathBuf::from(path),
        };
        let file = |path| KeySource::File { path: from_home(path), origin: "`ssh_key_path`".to_owned() };
        // RKE reads the path only where the file has no key itself, and its default path is always filled in.
        let (given, default) = match (&credentials.key, &credentials.key_path, credentials.key_path_origin) {
            (Some(key), _, _) => (vec![KeySource::Inline(key.clone())], vec![]),
            (None, Some(path), ValueOrigin::File) => (vec![file(path)], vec![]),
            (None, Some(path), ValueOrigin::Default) => (vec![], vec![file(path)]),
            (None, None, _) => (vec![], vec![]),
        };
        let inline = credentials.certificate.clone().map(CertificateSource::Inline);
        let in_file = || credentials.certificate_path.as_ref().map(from_home).map(CertificateSource::File);
        let certificate = inline.or_else(in_file);
        let agent = match (credentials.agent, self.settings.agent) {
            (_, AgentUse::Always) => Some(Chosen::by_option(AgentUse::Always, "--ssh-agent")),
            (true, AgentUse::AsConfigured) => Some(Chosen::by_cluster_file(AgentUse::Always)),
            (false, AgentUse::AsConfigured) => None,
        };
        let is_given = credentials.port_origin == ValueOrigin::File;
        Host {
            name,
            named_by: Origin::ClusterFile,
            port: is_given.then_some(Chosen::by_cluster_file(port)),
            user: None,
            keys: (!given.is_empty()).then_some(Chosen::by_cluster_file(given)),
            certificates: certificate.map(|certificate| Chosen::by_cluster_file(vec![certificate])),
            agent,
            otherwise: Otherwise {
                port,
                user: Chosen::by_default(self.settings.login_name.clone()),
                keys: default,
            },
        }
    }

    /// Asks the ssh_config about a host, and decides.
    fn hop(&self, host: Host<'_>) -> Hop {
        let settings = self.settings;
        let query = Query {
            host: host.name,
            user: host.user.as_ref().map(|user| user.value.as_str()),
            local_user: &settings.login_name,
        };
        let mut config = settings.ssh_config.look_up(&query);
        let unused = std::mem::take(&mut config.unused).into_iter().collect();
        let mut remarks = Remarks { unused, warnings: Vec::new() };
        let proxy_command = config.proxy_command().cloned();
        let jumps = config.jumps.take();
        let login = Resolution { settings, host, config, remarks: &mut remarks }.login();
        Hop { login, jumps, proxy_command, remarks }
    }
}
