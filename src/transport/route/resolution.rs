//! A resolution decides on each part of a login: what was given first, then the ssh_config, then a default.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::super::login::{AgentKeys, CertificateSource, KeySource, Login, Origins};
use super::super::origin::{Chosen, Origin};
use super::super::ssh_config::{
    Found, Here, HostConfig, Place, Strictness, Switch, TokenError, Tokens, lowercase_name,
};
use super::super::{AgentUse, Endpoint, HostKeyPolicy, Settings, TypedOption};
use super::{DEFAULT_PORT, Host, Remarks, Warning};

/// How many signs of life may be missed before a connection is dead.
const MISSED_KEEPALIVES: u32 = 3;
/// What a file is called that keeps nothing.
const NOWHERE: &str = "/dev/null";

/// A host on its way to a login.
pub(super) struct Resolution<'a> {
    pub(super) settings: &'a Settings,
    pub(super) host: Host<'a>,
    pub(super) config: HostConfig,
    pub(super) remarks: &'a mut Remarks,
}

/// The agent: whether it is asked, where, and who says so.
struct AgentChoice {
    agent: AgentUse,
    socket: Option<PathBuf>,
    origin: Origin,
}

impl Resolution<'_> {
    /// Decides.
    pub(super) fn login(mut self) -> Login {
        let home = self.settings.home.to_string_lossy();
        let here = Here { home: &home, user: &self.settings.login_name, variable: self.settings.variable };
        let named = Chosen { value: self.host.name.to_owned(), origin: self.host.named_by.clone() };
        let host =
            self.config.host_name.take().map_or(named, |found| {
                Found { value: lowercase_name(found.value), place: found.place }.into()
            });
        let port = self.host.port.take().or_else(|| self.config.port.take().map(Chosen::from));
        let port = port.unwrap_or(Chosen::by_default(self.host.otherwise.port));
        let at = Endpoint::new(&host.value, port.value);
        let alias = self.config.host_key_alias.take().map(Chosen::from);
        let known_as = match &alias {
            Some(alias) => Endpoint::new(&alias.value, DEFAULT_PORT),
            None => at.clone(),
        };
        let mut tokens = Tokens {
            original_host: self.host.name,
            host: &at.host,
            port: at.port,
            user: "",
            known_as: if alias.is_some() { &known_as.host } else { self.host.name },
            here,
        };
        let user = self.user(&tokens);
        tokens.user = &user.value;
        let keys = self.keys(&tokens);
        let certificates = self.certificates(&tokens);
        let agent = self.agent(&tokens);
        let agent_keys = self.config.identities_only.take().map(Chosen::from);
        let known_hosts = self.known_hosts(&tokens);
        let host_keys = self.host_keys(&known_hosts);
        let timeout = self.connect_timeout();
        let alive = self.config.alive_interval.take().map(Chosen::from);
        let alive = alive.unwrap_or(Chosen::by_default(self.settings.keepalive));
        let family = self.config.family.take().map(|found| found.value);
        let missed = self.config.alive_count.take().map_or(MISSED_KEEPALIVES, |found| found.value.max(1));
        Login {
            known_as,
            family: family.unwrap_or_default(),
            origins: Origins {
                host: host.origin,
                port: port.origin,
                user: user.origin,
                keys: keys.origin,
                certificates: certificates.origin,
                agent: agent.origin,
                agent_keys: agent_keys.as_ref().map_or(Origin::Default, |keys| keys.origin.clone()),
                known_as: alias.map_or(Origin::Default, |alias| alias.origin),
                known_hosts: known_hosts.origin,
                host_keys: host_keys.origin,
                connect_timeout: timeout.origin,
                keepalive: alive.origin,
            },
            user: user.value,
            keys: keys.value,
            certificates: certificates.value,
            agent: agent.agent,
            agent_socket: agent.socket,
            agent_keys: match agent_keys.map(|keys| keys.value) {
                Some(Switch::Yes) => AgentKeys::Named,
                Some(Switch::No) | None => AgentKeys::All,
            },
            known_hosts: known_hosts.value,
            host_keys: host_keys.value,
            connect_timeout: timeout.value,
            keepalive: alive.value,
            missed_keepalives: missed,
            at,
        }
    }

    fn is_typed(&self, option: TypedOption) -> bool {
        self.settings.typed.contains(&option)
    }

    fn user(&mut self, tokens: &Tokens<'_>) -> Chosen<String> {
        if let Some(user) = self.host.user.take() {
            return user;
        }
        let found = self.config.user.take();
        let filled = found.and_then(|found| self.filled(&found, |value| tokens.text(value)));
        filled.map_or_else(|| self.host.otherwise.user.clone(), Chosen::from)
    }

    fn keys(&mut self, tokens: &Tokens<'_>) -> Chosen<Vec<KeySource>> {
        if let Some(keys) = self.host.keys.take() {
            return keys;
        }
        let found = std::mem::take(&mut self.config.identity_files);
        let Some((_, place)) = found.first() else {
            return Chosen::by_default(std::mem::take(&mut self.host.otherwise.keys));
        };
        let origin = Origin::SshConfig(place.clone());
        let filled = self.files(found, tokens);
        let source = |found: Found<PathBuf>| {
            let origin = format!("`IdentityFile` ({})", found.place);
            KeySource::File { path: found.value, origin }
        };
        Chosen { value: filled.into_iter().map(source).collect(), origin }
    }

    fn certificates(&mut self, tokens: &Tokens<'_>) -> Chosen<Vec<CertificateSource>> {
        if let Some(certificates) = self.host.certificates.take() {
            return certificates;
        }
        let found = std::mem::take(&mut self.config.certificate_files);
        let Some((_, place)) = found.first() else { return Chosen::by_default(Vec::new()) };
        let origin = Origin::SshConfig(place.clone());
        let filled = self.files(found, tokens);
        let value = filled.into_iter().map(|found| CertificateSource::File(found.value)).collect();
        Chosen { value, origin }
    }

    /// Returns whether the agent is asked. `IdentityAgent` says which one, and that it is; `none` does not outrank the inventory.
    fn agent(&mut self, tokens: &Tokens<'_>) -> AgentChoice {
        let settings = self.settings;
        let usual = || settings.agent_socket.clone();
        let found = self.config.identity_agent.take();
        let found = found.filter(|found| !found.value.eq_ignore_ascii_case("none"));
        let named = found.and_then(|found| {
            let socket = match found.value.as_str() {
                "SSH_AUTH_SOCK" => usual(),
                value => match value.strip_prefix('$').filter(|name| !name.starts_with('{')) {
                    Some(variable) => (settings.variable)(variable).map(PathBuf::from),
                    None => self.filled(&found, |value| tokens.path(value)).map(|found| found.value),
                },
            };
            Some((socket?, Origin::SshConfig(found.place)))
        });
        match (self.host.agent.take(), named) {
            (Some(agent), named) => {
                let socket = named.map_or_else(usual, |(socket, _)| Some(socket));
                AgentChoice { agent: agent.value, socket, origin: agent.origin }
            }
            (None, Some((socket, origin))) => {
                AgentChoice { agent: AgentUse::Always, socket: Some(socket), origin }
            }
            (None, None) => {
                AgentChoice { agent: AgentUse::AsConfigured, socket: usual(), origin: Origin::Default }
            }
        }
    }

    fn known_hosts(&mut self, tokens: &Tokens<'_>) -> Chosen<Vec<PathBuf>> {
        let settings = self.settings;
        let usual = &settings.known_hosts;
        if self.is_typed(TypedOption::KnownHosts) {
            return Chosen::by_option(usual.clone(), "--known-hosts");
        }
        let (own, global) = (self.config.user_known_hosts.take(), self.config.global_known_hosts.take());
        let place = own.as_ref().map(|found| &found.place).or(global.as_ref().map(|found| &found.place));
        let Some(place) = place.cloned() else { return Chosen::by_default(usual.clone()) };
        let mut files: Vec<PathBuf> = match own {
            Some(Found { value, place }) => {
                let one = |value: &String| Found { value: value.clone(), place: place.clone() };
                let filled =
                    value.iter().filter_map(|file| self.filled(&one(file), |file| tokens.path(file)));
                filled.map(|found| found.value).collect()
            }
            None => usual.iter().take(1).cloned().collect(),
        };
        if files.is_empty() {
            // New keys go to the first file.
            files.push(PathBuf::from(NOWHERE));
        }
        match global {
            Some(found) => files.extend(found.value.into_iter().map(PathBuf::from)),
            None => files.extend(usual.iter().skip(1).cloned()),
        }
        Chosen { value: files, origin: Origin::SshConfig(place) }
    }

    /// Decides on keys that are not known. Nothing in a file turns checks off: `no` accepts new keys, and refuses changed ones.
    fn host_keys(&mut self, known_hosts: &Chosen<Vec<PathBuf>>) -> Chosen<HostKeyPolicy> {
        if self.is_typed(TypedOption::HostKeys) {
            return Chosen::by_option(self.settings.host_keys, "--host-keys");
        }
        let Some(Found { value, place }) = self.config.strictness.take() else {
            return Chosen::by_default(self.settings.host_keys);
        };
        let policy = match value {
            Strictness::Strict => HostKeyPolicy::Strict,
            Strictness::AcceptNew | Strictness::Off => HostKeyPolicy::AcceptNew,
        };
        if value == Strictness::Off {
            let text = "StrictHostKeyChecking no (new host keys are accepted, changed ones are refused; \
                        `--host-keys off` alone accepts them)";
            self.remarks.unused.push(Found { value: text.to_owned(), place: place.clone() });
        }
        let is_forgetful = known_hosts.value.first().is_none_or(|file| file == Path::new(NOWHERE));
        if policy == HostKeyPolicy::AcceptNew && is_forgetful {
            self.remarks.warnings.push(Found { value: Warning::ForgottenHostKeys, place: place.clone() });
        }
        Chosen { value: policy, origin: Origin::SshConfig(place) }
    }

    fn connect_timeout(&mut self) -> Chosen<std::time::Duration> {
        if self.is_typed(TypedOption::ConnectTimeout) {
            return Chosen::by_option(self.settings.connect_timeout, "--connect-timeout");
        }
        let found = self.config.connect_timeout.take().map(Chosen::from);
        found.unwrap_or(Chosen::by_default(self.settings.connect_timeout))
    }

    /// Fills in the names of files; `none` is no file.
    fn files(&mut self, found: IndexMap<String, Place>, tokens: &Tokens<'_>) -> Vec<Found<PathBuf>> {
        let files = found.into_iter().map(|(value, place)| Found { value, place });
        let files = files.filter(|found| !found.value.eq_ignore_ascii_case("none"));
        files.filter_map(|found| self.filled(&found, |value| tokens.path(value))).collect()
    }

    /// Fills in a value; where that cannot be done, it counts for nothing and is named.
    fn filled<T>(
        &mut self,
        found: &Found<String>,
        fill: impl FnOnce(&str) -> Result<T, TokenError>,
    ) -> Option<Found<T>> {
        match fill(&found.value) {
            Ok(value) => Some(Found { value, place: found.place.clone() }),
            Err(error) => {
                let value = format!("`{}` ({error})", found.value);
                self.remarks.unused.push(Found { value, place: found.place.clone() });
                None
            }
        }
    }
}
