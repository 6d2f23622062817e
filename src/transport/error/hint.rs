//! The hints say what to do about a transport error.

use super::{ChangedHost, KeyError, Phase, TransportError, UnknownHost};
use crate::command::quote;
use crate::transport::Endpoint;
use crate::transport::known_hosts::lookup_name;

impl TransportError {
    /// Returns what to do about it, as far as that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::KnownHosts { .. } => "check its permissions, or name another with `--known-hosts`".to_owned(),
            Self::NameLookup { .. } => "check the spelling of the address, or use an IP address".to_owned(),
            Self::Refused { at } => format!("is sshd running there, and does it listen on port {}?", at.port),
            Self::Unreachable { .. } => {
                "is the host up? behind a bastion, `bastion_host` or `--jump` is needed".to_owned()
            }
            Self::TimedOut { at, phase, .. } => time_hint(at, *phase),
            Self::HostKeyUnknown(unknown) => unknown_key_hint(unknown),
            Self::HostKeyChanged(changed) => changed_key_hint(changed),
            Self::HostKeyRevoked { .. } => {
                "the key must not be trusted any more: give the host a new one, and find out why it still has this one"
                    .to_owned()
            }
            Self::NoKey { reasons, .. } => return reasons.iter().find_map(key_hint),
            Self::AuthenticationRefused { at, user, .. } => format!(
                "the public key must be in `~/.ssh/authorized_keys` of `{user}`; `ssh -v {}` shows more; `--ssh-user`, \
                 `--ssh-key` and `--ssh-agent` choose others",
                ssh_arguments(at, user)
            ),
            Self::Jump { cause, .. } => return cause.hint(),
            Self::ForwardingProhibited { at, .. } => {
                format!("set `AllowTcpForwarding yes` in sshd_config of {}", at.host)
            }
            Self::CommandTimedOut { .. } => {
                "it may still be running there; `--command-timeout` gives commands more time".to_owned()
            }
            Self::OutputTooLarge { at, .. } => format!(
                "log in to {} and see what its shell prints: an honest answer is far smaller",
                at.host
            ),
            Self::AnswerLost { .. } => {
                "look at the host again before the same is done once more: `certroll check` shows how it stands".to_owned()
            }
            Self::Handshake { at, .. } => {
                format!("does an sshd listen on port {}? `ssh -v` shows what it says", at.port)
            }
            Self::ConnectionLost { .. }
            | Self::ForwardRefused { .. }
            | Self::ChannelRefused { .. } => return None,
        })
    }
}

fn time_hint(at: &Endpoint, phase: Phase) -> String {
    match phase {
        Phase::NameLookup => "use an IP address, or give it more time with `--connect-timeout`".to_owned(),
        Phase::Connect => format!(
            "is the host up, and does every firewall on the way let port {} through? `--connect-timeout` gives it more \
             time; behind a bastion, `bastion_host` or `--jump` is needed",
            at.port
        ),
        Phase::KeyExchange | Phase::Authentication | Phase::Channel => {
            "the host may be overloaded; `--connect-timeout` gives it more time".to_owned()
        }
    }
}

fn unknown_key_hint(unknown: &UnknownHost) -> String {
    let UnknownHost { at, user, key, file, authority } = unknown;
    let authority = authority.as_ref().map_or_else(String::new, |place| {
        format!("; {place} names an authority, but certificates of hosts are not understood here")
    });
    format!(
        "compare the fingerprint with what `ssh-keygen -lf` prints on the host itself for its {} key, then add the key with \
         `ssh-keyscan -p {} {} >> {}` or by one `ssh {}`; `--host-keys accept-new` trusts hosts at first sight{authority}",
        key.algorithm,
        at.port,
        quote(&at.host),
        quote(&file.to_string_lossy()),
        ssh_arguments(at, user),
    )
}

fn changed_key_hint(changed: &ChangedHost) -> String {
    format!(
        "if the host was reinstalled, remove the old key with `ssh-keygen -R {} -f {}` and compare the new one; if not, \
         somebody may be listening in: do not go on",
        quote(&lookup_name(&changed.at)),
        quote(&changed.place.file.to_string_lossy()),
    )
}

fn ssh_arguments(at: &Endpoint, user: &str) -> String {
    let target = quote(&format!("{user}@{}", at.host));
    if at.port == 22 { target } else { format!("-p {} {target}", at.port) }
}

fn key_hint(error: &KeyError) -> Option<String> {
    match error {
        KeyError::Missing { .. } | KeyError::NoneNamed => Some(
            "name a key with `ssh_key_path` or `--ssh-key`, or use the agent with `--ssh-agent`".to_owned(),
        ),
        KeyError::Unreadable { .. } => Some("check its owner and its mode".to_owned()),
        KeyError::NoPassphrase { .. } | KeyError::LeftToAgent { .. } => {
            Some("run it on a terminal, or load the key with `ssh-add` and use `--ssh-agent`".to_owned())
        }
        KeyError::Agent { .. } => {
            Some("start it with `eval $(ssh-agent)` and add a key with `ssh-add`".to_owned())
        }
        KeyError::Invalid { .. } => {
            Some("a key in another form can be converted with `ssh-keygen -p -f FILE`".to_owned())
        }
        KeyError::WrongPassphrase { .. } | KeyError::Certificate { .. } => None,
    }
}
