//! A machine is a node or the bastion as the file describes it.
//!
//! `cluster` reads them, with RKE's defaults (`cluster/defaults.go`) and the checks of a single host (`cluster/validation.go`).

use super::fields::{Fields, Text};
use super::notes::{Noted, Notes};
use super::schema::{self, Level};
use super::source::{Place, quoted};
use super::{Bastion, Node, NodeName, Role, Secret, SshCredentials, ValueOrigin, spelling};
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
    /// Which of the two it is.
    pub(super) key_path_origin: ValueOrigin,
    /// `ssh_agent_auth`, which holds for all machines.
    pub(super) agent: bool,
}

/// A node, and where its parts stand in the file.
#[derive(Debug)]
pub(super) struct DraftNode {
    /// The node; texts that are missing are empty, and noted as problems.
    pub(super) node: Node,
    /// Whether all of its roles are known; what cannot be read may be any role.
    pub(super) roles_understood: bool,
    /// Where the address stands.
    pub(super) address_place: Place,
    /// Where the name stands.
    pub(super) name_place: Place,
    /// Where the internal address stands.
    pub(super) internal_address_place: Place,
}

/// Reads one node; messages call it what RKE does, `host (1)`.
pub(super) fn node(fields: &Fields<'_>, defaults: &SshDefaults, notes: &mut Notes<'_>) -> DraftNode {
    let address = required(fields, "address", &schema::NODE, notes);
    let user = required(fields, "user", &schema::NODE, notes);
    let own_name = fields.text("hostname_override", notes);
    let name = name(fields, own_name, address, notes);
    let internal_address = fields.text("internal_address", notes).ok().flatten();
    for (key, address) in [("address", address), ("internal_address", internal_address)] {
        check_address(fields, key, address, notes);
    }
    let roles = roles(fields, notes);
    let port = port(fields, notes);
    let place = |text: Option<Text<'_>>| text.or(address).map_or(fields.place(), |text| text.place);
    let draft = DraftNode {
        roles_understood: roles.understood,
        address_place: place(address),
        name_place: place(own_name.ok().flatten()),
        internal_address_place: place(internal_address),
        node: Node {
            name: NodeName::new(name),
            address: owned(address),
            internal_address: owned(internal_address.or(address)),
            port: port.unwrap_or(SSH_PORT),
            user: owned(user),
            roles: roles.roles,
            docker_socket: fields.string("docker_socket", notes).unwrap_or_else(|| DOCKER_SOCKET.to_owned()),
            ssh: credentials(fields, port, defaults, notes),
            labels: fields.text_map("labels", notes),
        },
    };
    for (role, text) in roles.repeated {
        let message = format!("the role `{role}` is given twice ({})", notes.locate(text.place));
        let finding = Finding::warning("duplicate-role", message).on(&draft.node.name);
        notes.find(finding.hint("name it once: RKE would count the node twice"));
    }
    if let Some(finding) = ignored_agent(fields, defaults, notes) {
        notes.find(finding.on(&draft.node.name));
    }
    draft
}

fn owned(text: Option<Text<'_>>) -> String {
    text.map(|text| text.value.to_owned()).unwrap_or_default()
}

/// Reads the bastion; `None` where it has no address, which is how `rke config --empty` says that there is none.
pub(super) fn bastion(fields: &Fields<'_>, defaults: &SshDefaults, notes: &mut Notes<'_>) -> Option<Bastion> {
    let Some(address) = fields.text("address", notes).ok()? else {
        if ["user", "port", "ssh_key", "ssh_key_path"].iter().any(|key| fields.string(key, notes).is_some()) {
            let place = notes.locate(fields.place());
            let message = format!("`bastion_host` has no `address`: it is not used, as RKE does ({place})");
            notes.find(
                Finding::warning("bastion-without-address", message).hint("add its `address`, or remove it"),
            );
        }
        return None;
    };
    check_address(fields, "address", Some(address), notes);
    let port = port(fields, notes);
    let bastion = Bastion {
        address: address.value.to_owned(),
        port: port.unwrap_or(SSH_PORT),
        user: owned(required(fields, "user", &schema::BASTION, notes)),
        ssh: credentials(fields, port, defaults, notes),
    };
    if let Some(finding) = ignored_agent(fields, defaults, notes) {
        notes.find(finding);
    }
    Some(bastion)
}

/// Reads a text that has no default.
fn required<'t>(fields: &Fields<'t>, key: &str, level: &Level, notes: &mut Notes<'_>) -> Option<Text<'t>> {
    let text = fields.text(key, notes).ok()?;
    if text.is_none() {
        missing(fields, key, level, notes);
    }
    text
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

/// Returns the name of a node: its own, or its address, in lower case.
fn name(
    fields: &Fields<'_>,
    own: Result<Option<Text<'_>>, Noted>,
    address: Option<Text<'_>>,
    notes: &mut Notes<'_>,
) -> String {
    let (text, hint) = match own {
        Ok(Some(own)) => (own, "use letters, digits, `-` and `.`, with a letter or digit at both ends"),
        // An address that is none is a problem of its own.
        Ok(None) => match address.filter(|address| is_address(address.value)) {
            Some(address) => (address, "the address serves as name: give the node a `hostname_override`"),
            None => return String::new(),
        },
        Err(Noted) => return String::new(),
    };
    let name = text.value.to_lowercase();
    if !is_subdomain(&name) {
        let message = format!("hostname_override {} for {} is not valid", quoted(&name), fields.name());
        notes.refuse(text.place, message, |problem| problem.label("not a DNS name").with_hint(hint));
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

/// Notes an address that cannot be one.
fn check_address(fields: &Fields<'_>, key: &str, address: Option<Text<'_>>, notes: &mut Notes<'_>) {
    if let Some(text) = address.filter(|text| !is_address(text.value)) {
        let message = format!("`{key}` of {} is not an address", fields.name());
        notes.refuse(text.place, message, |problem| {
            problem
                .label("a host name or an IP address is expected")
                .with_hint("`user` and `port` have keys of their own")
        });
    }
}

/// Returns whether a text can be an address. Addresses become part of file names and of commands.
fn is_address(text: &str) -> bool {
    let fits = |character: char| {
        character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_' | ':' | '%')
    };
    text.len() <= LONGEST_NAME && text.chars().all(fits)
}

/// The roles of a node as the file has them.
struct RoleList<'t> {
    /// Without repetition, in order.
    roles: Vec<Role>,
    /// The ones that are given again.
    repeated: Vec<(Role, Text<'t>)>,
    /// Whether all that is written there was understood.
    understood: bool,
}

/// Reads the roles.
fn roles<'t>(fields: &Fields<'t>, notes: &mut Notes<'_>) -> RoleList<'t> {
    let mut read = RoleList { roles: Vec::new(), repeated: Vec::new(), understood: true };
    let Ok(texts) = fields.texts("role", notes) else { return RoleList { understood: false, ..read } };
    if texts.is_empty() {
        missing(fields, "role", &schema::NODE, notes);
        read.understood = false;
    }
    for text in texts {
        match Role::ALL.into_iter().find(|role| role.as_str() == text.value) {
            Some(role) if read.roles.contains(&role) => read.repeated.push((role, text)),
            Some(role) => read.roles.push(role),
            None => {
                unknown_role(text, notes);
                read.understood = false;
            }
        }
    }
    read.roles.sort_unstable();
    read
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
            other => spelling::closest(other, words),
        };
        match meant {
            Some(meant) => problem.with_hint(format!("did you mean `{meant}`?")),
            None => problem.with_hint("RKE knows no other roles"),
        }
    });
}

/// Returns the port of sshd, where the file gives one.
fn port(fields: &Fields<'_>, notes: &mut Notes<'_>) -> Option<u16> {
    fields.number::<std::num::NonZeroU16>("port", "a port from 1 to 65535", notes).map(u16::from)
}

/// Returns how to log in to a machine with this port.
fn credentials(
    fields: &Fields<'_>,
    port: Option<u16>,
    defaults: &SshDefaults,
    notes: &mut Notes<'_>,
) -> SshCredentials {
    let own_key_path = fields.string("ssh_key_path", notes);
    SshCredentials {
        key: fields.string("ssh_key", notes).map(Secret::new),
        key_path_origin: if own_key_path.is_some() { ValueOrigin::File } else { defaults.key_path_origin },
        key_path: own_key_path.or_else(|| Some(defaults.key_path.clone())),
        certificate: fields.string("ssh_cert", notes),
        certificate_path: fields.string("ssh_cert_path", notes),
        agent: defaults.agent,
        port_origin: if port.is_some() { ValueOrigin::File } else { ValueOrigin::Default },
    }
}

/// Returns what to say of a machine that asks for the agent where the cluster does not.
fn ignored_agent(fields: &Fields<'_>, defaults: &SshDefaults, notes: &mut Notes<'_>) -> Option<Finding> {
    let ignored = fields.flag("ssh_agent_auth", notes) && !defaults.agent;
    ignored.then(|| {
        let place = notes.locate(fields.place_of("ssh_agent_auth"));
        let message = format!(
            "`ssh_agent_auth` of {} has no effect: the cluster's own counts ({place})",
            fields.name()
        );
        Finding::warning("ssh-agent-auth-ignored", message)
            .hint("set `ssh_agent_auth: true` at the top of the file")
    })
}
