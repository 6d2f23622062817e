//! A reach is a route in words: how a node would be reached, and who decided that.
//!
//! The face shows it (`certroll nodes`, `-v`); nothing is connected to, and no key is read.

use std::path::Path;

use crate::inventory::{Bastion, Node};

use super::login::{AgentKeys, CertificateSource, KeySource, Login};
use super::origin::Origin;
use super::route::{self, Planner, Route, Warning};
use super::ssh_config::{Found, Place};
use super::{AgentUse, Endpoint, HostKeyPolicy, Settings, TransportError};

/// How a node would be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Where the connection goes to.
    pub at: Endpoint,
    /// The user there.
    pub user: String,
    /// The files of private keys, in the order in which they are tried, `~/` in front where they are in the home folder.
    pub keys: Vec<String>,
    /// Whether the cluster.yml holds a private key itself.
    pub inline_key: bool,
    /// The files of OpenSSH certificates.
    pub certificates: Vec<String>,
    /// Whether the cluster.yml holds a certificate itself.
    pub inline_certificate: bool,
    /// Whether the agent is asked.
    pub agent: bool,
    /// The hosts on the way as `user@host:port`, nearest first.
    pub jumps: Vec<String>,
    /// Each part with who decided on it, as `port=2222 (~/.ssh/config:12)`; those of jump hosts after them.
    pub decisions: Vec<String>,
}

/// Something that is to be said of a line of the ssh_config.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Remark {
    /// The line.
    pub place: Place,
    /// What there is to say.
    pub text: String,
}

/// Returns how a node would be reached.
pub fn reach(settings: &Settings, bastion: Option<&Bastion>, node: &Node) -> Result<Reach, TransportError> {
    let route = Planner { settings, bastion }.route(node)?;
    Ok(Reach::of(&route, settings))
}

/// What is to be said of the ssh_config where some nodes are reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remarks {
    /// What every run tells.
    pub warnings: Vec<Remark>,
    /// What has no effect.
    pub unused: Vec<Remark>,
}

/// Returns what is to be said of the ssh_config where a node is reached; nothing where no way to it is found, for then that is.
pub fn remarks(settings: &Settings, bastion: Option<&Bastion>, node: &Node) -> Remarks {
    let route = Planner { settings, bastion }.route(node);
    route.map(|route| Remarks::of(&route.remarks)).unwrap_or_default()
}

impl Remarks {
    fn of(remarks: &route::Remarks) -> Self {
        Self {
            warnings: remarks.warnings.iter().map(warning).collect(),
            unused: remarks.unused.iter().map(|found| remark(found, found.value.clone())).collect(),
        }
    }
}

impl Reach {
    pub(super) fn of(route: &Route, settings: &Settings) -> Self {
        let Route { hops, hops_origin, login, .. } = route;
        let file = |key: &KeySource| match key {
            KeySource::Inline(_) => None,
            KeySource::File { path, .. } | KeySource::DefaultFile(path) => Some(shortened(path, settings)),
        };
        let certificate = |source: &CertificateSource| match source {
            CertificateSource::Inline(_) => None,
            CertificateSource::File(path) => Some(shortened(path, settings)),
        };
        let jumps: Vec<String> = hops.iter().map(|hop| format!("{}@{}", hop.user, hop.at)).collect();
        let mut decisions = decisions(login, settings);
        decisions.insert(0, jump_decision(&jumps, hops_origin));
        for hop in hops {
            let named = decisions_that_matter(hop, settings).into_iter();
            decisions.extend(named.map(|decision| format!("{}: {decision}", hop.at)));
        }
        Self {
            at: login.at.clone(),
            user: login.user.clone(),
            keys: login.keys.iter().filter_map(file).collect(),
            inline_key: login.keys.iter().any(|key| matches!(key, KeySource::Inline(_))),
            certificates: login.certificates.iter().filter_map(certificate).collect(),
            inline_certificate: login.certificates.iter().any(|source| certificate(source).is_none()),
            agent: login.agent == AgentUse::Always,
            jumps,
            decisions,
        }
    }
}

fn remark<T>(found: &Found<T>, text: String) -> Remark {
    Remark { place: found.place.clone(), text }
}

fn warning(found: &Found<Warning>) -> Remark {
    let text = match found.value {
        Warning::ProxyCommand => {
            "`ProxyCommand` is not run, and the host is connected to straight; use `ProxyJump`, `bastion_host` or `--jump`"
        }
        Warning::ForgottenHostKeys => {
            "new host keys are accepted and written down nowhere: who takes a host's place is not noticed"
        }
    };
    remark(found, text.to_owned())
}

fn jump_decision(jumps: &[String], origin: &Origin) -> String {
    let jumps = if jumps.is_empty() { "none".to_owned() } else { jumps.join(",") };
    format!("jump={jumps} ({origin})")
}

/// Returns the decisions on a login that somebody took; where it goes to and as whom in any case.
fn decisions_that_matter(login: &Login, settings: &Settings) -> Vec<String> {
    let is_default = |decision: &String| decision.ends_with(&format!("({})", Origin::Default));
    decisions(login, settings).into_iter().filter(|decision| !is_default(decision)).collect()
}

/// Returns all decisions on a login.
fn decisions(login: &Login, settings: &Settings) -> Vec<String> {
    let path = |path: &Path| shortened(path, settings);
    let key = |key: &KeySource| match key {
        KeySource::Inline(_) => "ssh_key".to_owned(),
        KeySource::File { path: file, .. } | KeySource::DefaultFile(file) => path(file),
    };
    let certificate = |source: &CertificateSource| match source {
        CertificateSource::Inline(_) => "ssh_cert".to_owned(),
        CertificateSource::File(file) => path(file),
    };
    let listed = |texts: Vec<String>| if texts.is_empty() { "none".to_owned() } else { texts.join(",") };
    let origins = &login.origins;
    let mut decisions = vec![
        ("host", login.at.host.clone(), &origins.host),
        ("port", login.at.port.to_string(), &origins.port),
        ("user", login.user.clone(), &origins.user),
        ("key", listed(login.keys.iter().map(key).collect()), &origins.keys),
        ("certificate", listed(login.certificates.iter().map(certificate).collect()), &origins.certificates),
        ("agent", agent(login, path), &origins.agent),
        ("agent-keys", agent_keys(login).to_owned(), &origins.agent_keys),
        ("host-keys", policy(login.host_keys).to_owned(), &origins.host_keys),
        (
            "known-hosts",
            listed(login.known_hosts.iter().map(|file| path(file)).collect()),
            &origins.known_hosts,
        ),
        ("connect-timeout", format!("{:?}", login.connect_timeout), &origins.connect_timeout),
        ("keepalive", format!("{:?}", login.keepalive), &origins.keepalive),
    ];
    if login.known_as != login.at {
        decisions.push(("known-as", login.known_as.host.clone(), &origins.known_as));
    }
    // A certificate, and which keys of an agent, are worth a word where there are any.
    decisions.retain(|(name, _, origin)| match *name {
        "certificate" => **origin != Origin::Default,
        "agent-keys" => login.agent == AgentUse::Always,
        _ => true,
    });
    decisions.into_iter().map(|(name, value, origin)| format!("{name}={value} ({origin})")).collect()
}

/// Returns a path as people write it.
fn shortened(path: &Path, settings: &Settings) -> String {
    match path.strip_prefix(&settings.home) {
        Ok(rest) if !settings.home.as_os_str().is_empty() => Path::new("~").join(rest).display().to_string(),
        _ => path.display().to_string(),
    }
}

fn agent(login: &Login, path: impl Fn(&Path) -> String) -> String {
    match (login.agent, &login.agent_socket) {
        (AgentUse::AsConfigured, _) => "no".to_owned(),
        (AgentUse::Always, Some(socket)) => path(socket),
        (AgentUse::Always, None) => "yes".to_owned(),
    }
}

fn agent_keys(login: &Login) -> &'static str {
    match login.agent_keys {
        AgentKeys::All => "all",
        AgentKeys::Named => "named",
    }
}

fn policy(policy: HostKeyPolicy) -> &'static str {
    match policy {
        HostKeyPolicy::Strict => "strict",
        HostKeyPolicy::AcceptNew => "accept-new",
        HostKeyPolicy::Off => "off",
    }
}
