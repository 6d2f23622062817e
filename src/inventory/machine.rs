//! A machine is a node or the bastion as the file describes it.
//!
//! `cluster` reads them, with RKE's defaults (`cluster/defaults.go`) and the checks of a single host (`cluster/validation.go`).

use super::fields::{Fields, Text};
use super::notes::{Noted, Notes};
use super::schema::{self, Level};
use super::source::{Place, quoted};
use super::{Bastion, Node, NodeName, Role, Secret, SshCredentials};
use crate::finding::Finding;

/// RKE's `DefaultSSHPort`.
const SSH_PORT: u16 = 22;
/// RKE's `DockerSock` (`hosts/dialer.go`).
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// The longest name that DNS carries.
const LONGEST_NAME: usize = 253;

/// What the cluster says of SSH for all machines.
#[derive(Debug)]
pub(super) struct SshDefaults {
    /// `ssh_key_path`, or RKE's default.
    pub(super) key_path: String,
    /// `ssh_agent_auth`, which holds for all machines.
    pub(super) agent: bool,
}

/// A node, and where its parts stand in the file.
#[derive(Debug)]
pub(super) struct DraftNode {
    /// The node; texts that are missing are empty, and noted as problems.
    pub(super) node: Node,
    /// Where the address stands.
    pub(super) address_place: Place,
    /// Where the name stands.
    pub(super) name_place: Place,
    /// Where the internal address stands.
    pub(super) internal_address_place: Place,
}

/// Reads one node; `host` is what RKE calls it, `host (1)`.
pub(super) fn node(fields: &Fields<'_>, defaults: &SshDefaults, notes: &mut Notes<'_>) -> DraftNode {
    let address = required(fields, "address", &schema::NODE, notes);
    let user = required(fields, "user", &schema::NODE, notes);
    let name = name(fields, notes);
    let (roles, repeated) = roles(fields, notes);
    let internal_address = fields.string("internal_address", notes).unwrap_or_else(|| address.clone());
    check_address(fields, "address", notes);
    check_address(fields, "internal_address", notes);
    let node = Node {
        name: NodeName::new(name),
        internal_address,
        port: port(fields, notes),
        user,
        roles,
        docker_socket: fields.string("docker_socket", notes).unwrap_or_else(|| DOCKER_SOCKET.to_owned()),
        ssh: credentials(fields, defaults, notes),
        labels: fields.text_map("labels", notes),
        address,
    };
    for role in repeated {
        let place = notes.locate(fields.place_of("role"));
        let message = format!("the role `{role}` is given twice ({place})");
        notes.find(
            Finding::warning("duplicate-role", message)
                .on(&node.name)
                .hint("name it once: RKE would count the node twice"),
        );
    }
    if own_agent_ignored(fields, defaults, notes) {
        notes.find(agent_finding(fields, notes).on(&node.name));
    }
    DraftNode {
        address_place: fields.place_of("address"),
        name_place: fields.place_of(if fields.entry("hostname_override").is_some() {
            "hostname_override"
        } else {
            "address"
        }),
        internal_address_place: fields.place_of(if fields.entry("internal_address").is_some() {
            "internal_address"
        } else {
            "address"
        }),
        node,
    }
}

/// Reads the bastion; `None` where it has no address, which is how `rke config --empty` says that there is none.
pub(super) fn bastion(fields: &Fields<'_>, defaults: &SshDefaults, notes: &mut Notes<'_>) -> Option<Bastion> {
    let address = fields.text("address", notes).ok()?;
    let Some(address) = address.map(|text| text.value.to_owned()) else {
        if ["user", "port", "ssh_key", "ssh_key_path"].iter().any(|key| fields.string(key, notes).is_some()) {
            let place = notes.locate(fields.place());
            let message = format!("`bastion_host` has no `address` and is not used, as RKE does ({place})");
            notes.find(
                Finding::warning("bastion-without-address", message).hint("add its `address`, or remove it"),
            );
        }
        return None;
    };
    check_address(fields, "address", notes);
    let bastion = Bastion {
        address,
        port: port(fields, notes),
        user: required(fields, "user", &schema::BASTION, notes),
        ssh: credentials(fields, defaults, notes),
    };
    if own_agent_ignored(fields, defaults, notes) {
        let finding = agent_finding(fields, notes);
        notes.find(finding);
    }
    Some(bastion)
}

/// Reads a text that has no default; it is empty where it is missing.
fn required(fields: &Fields<'_>, key: &str, level: &Level, notes: &mut Notes<'_>) -> String {
    match fields.text(key, notes) {
        Ok(Some(text)) => text.value.to_owned(),
        Ok(None) => {
            missing(fields, key, level, notes);
            String::new()
        }
        Err(Noted) => String::new(),
    }
}

/// Notes that a machine lacks a key, in RKE's words, and where it was probably meant.
fn missing(fields: &Fields<'_>, key: &str, level: &Level, notes: &mut Notes<'_>) {
    let message = format!("{key} for {} is not provided", fields.name());
    match fields.misspelled(key, level) {
        Some(entry) => notes.refuse(entry.place, message, |problem| {
            problem.label("not a key that RKE reads").with_hint(format!("did you mean `{key}`?"))
        }),
        None if fields.entry(key).is_some() => notes
            .refuse(fields.place_of(key), message, |problem| problem.label("empty").with_hint(example(key))),
        None => notes.refuse(fields.place(), message, |problem| {
            problem.label(format!("has no `{key}`")).with_hint(example(key))
        }),
    };
}

/// Returns the line to add for a key that is missing.
fn example(key: &str) -> &'static str {
    match key {
        "address" => "add `address:` with the address that SSH connects to",
        "user" => "add `user:` with the user that SSH logs in as; RKE has no default",
        _ => "add `role: [controlplane, etcd, worker]`, or some of them",
    }
}

/// Returns the name of a node: `hostname_override`, or its address, in lower case.
fn name(fields: &Fields<'_>, notes: &mut Notes<'_>) -> String {
    let own = fields.text("hostname_override", notes);
    let text = match own {
        Ok(Some(text)) => Some(text),
        Ok(None) => fields.text("address", notes).ok().flatten(),
        Err(Noted) => None,
    };
    let Some(Text { value, place }) = text else { return String::new() };
    let name = value.to_lowercase();
    if !is_subdomain(&name) {
        let message = format!(
            "hostname_override [{}] for {} is not valid",
            quoted(&name).trim_matches('`'),
            fields.name()
        );
        notes.refuse(place, message, |problem| {
            let problem = problem
                .label("a name has letters, digits, `-` and `.`, and starts and ends with a letter or digit");
            match own {
                Ok(Some(_)) => problem,
                _ => problem.with_hint("the address serves as name: give the node a `hostname_override`"),
            }
        });
    }
    name
}

/// Returns whether a text is what Kubernetes calls a DNS-1123 subdomain.
fn is_subdomain(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |character: char| {
            character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-'
        };
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.chars().all(inner)
    };
    name.len() <= LONGEST_NAME && name.split('.').all(is_label)
}

/// Notes an address that cannot be one. Addresses become part of file names and of commands.
fn check_address(fields: &Fields<'_>, key: &str, notes: &mut Notes<'_>) {
    let Ok(Some(text)) = fields.text(key, notes) else { return };
    let fits = |character: char| {
        character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_' | ':' | '%')
    };
    if text.value.len() > LONGEST_NAME || !text.value.chars().all(fits) {
        let message = format!("`{key}` of {} is not an address", fields.name());
        notes.refuse(text.place, message, |problem| {
            problem.label("a host name or an IP address, without user and port")
        });
    }
}

/// Returns the roles in order, and those that are given more than once.
fn roles(fields: &Fields<'_>, notes: &mut Notes<'_>) -> (Vec<Role>, Vec<Role>) {
    let Ok(texts) = fields.texts("role", notes) else { return (Vec::new(), Vec::new()) };
    if texts.is_empty() {
        missing(fields, "role", &schema::NODE, notes);
    }
    let mut roles = Vec::new();
    let mut repeated = Vec::new();
    for text in texts {
        match Role::ALL.into_iter().find(|role| role.as_str() == text.value) {
            Some(role) if roles.contains(&role) => repeated.push(role),
            Some(role) => roles.push(role),
            None => unknown_role(text, notes),
        }
    }
    roles.sort_unstable();
    (roles, repeated)
}

/// Notes a role that RKE does not know.
fn unknown_role(text: Text<'_>, notes: &mut Notes<'_>) {
    let words = Role::ALL.map(Role::as_str);
    notes.refuse(text.place, format!("the role {} is not known", quoted(text.value)), |problem| {
        let problem = problem.label(format!("one of {}", words.join(", ")));
        let lower = text.value.to_lowercase();
        let meant = match lower.as_str() {
            "master" | "control_plane" | "control-plane" | "server" => Some("controlplane"),
            "agent" => Some("worker"),
            other => schema::closest(other, words),
        };
        match meant {
            Some(meant) => problem.with_hint(format!("did you mean `{meant}`?")),
            None => problem,
        }
    });
}

/// Returns the port of sshd.
fn port(fields: &Fields<'_>, notes: &mut Notes<'_>) -> u16 {
    fields.number::<std::num::NonZeroU16>("port", "a port from 1 to 65535", notes).map_or(SSH_PORT, u16::from)
}

/// Returns how to authenticate on a machine.
fn credentials(fields: &Fields<'_>, defaults: &SshDefaults, notes: &mut Notes<'_>) -> SshCredentials {
    SshCredentials {
        key: fields.string("ssh_key", notes).map(Secret::new),
        key_path: fields.string("ssh_key_path", notes).or_else(|| Some(defaults.key_path.clone())),
        certificate: fields.string("ssh_cert", notes),
        certificate_path: fields.string("ssh_cert_path", notes),
        agent: defaults.agent,
    }
}

/// Returns whether a machine asks for the agent and the cluster does not.
fn own_agent_ignored(fields: &Fields<'_>, defaults: &SshDefaults, notes: &mut Notes<'_>) -> bool {
    fields.flag("ssh_agent_auth", notes) && !defaults.agent
}

fn agent_finding(fields: &Fields<'_>, notes: &Notes<'_>) -> Finding {
    let place = notes.locate(fields.place_of("ssh_agent_auth"));
    let message =
        format!("`ssh_agent_auth` of {} has no effect: the cluster's own counts ({place})", fields.name());
    Finding::warning("ssh-agent-auth-ignored", message)
        .hint("set `ssh_agent_auth: true` at the top of the file")
}
