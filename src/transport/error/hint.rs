//! The hints say what to do about a transport error.

use super::{ChangedHost, KeyError, Phase, RefusedCertificate, TransportError, UnknownHost, WayOut};
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
            Self::HostCertificateRefused(refused) => refused_certificate_hint(refused),
            Self::HostKeyChanged(changed) => changed_key_hint(changed),
            Self::HostKeyRevoked { .. } => {
                "the key must not be trusted any more: give the host a new one, and find out why it still has this one"
                    .to_owned()
            }
            Self::NoKey { reasons, .. } => return reasons.iter().find_map(key_hint),
            Self::AuthenticationRefused { at, user, refusal } => refusal_hint(at, user, refusal.way_out),
            Self::AgentSilent { .. } => {
                "does a security key wait to be touched, or the agent for a confirmation? answer it and run the same again"
                    .to_owned()
            }
            Self::Jump { cause, .. } => return cause.hint(),
            Self::JumpLoop { at, .. } => format!(
                "the ssh_config gives {} a `ProxyJump`, too: write `ProxyJump none` in a `Host` block of its own above that",
                at.host
            ),
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
            Self::PasswordNotTried { by, .. } => format!(
                "is it the password of the user on {}? accounts are locked after a few wrong ones, so it is tried on one host alone",
                by.host
            ),
            Self::NoPassword { .. } => {
                "`--become-password-file FILE` gives it, or run it on a terminal, where you are asked".to_owned()
            }
            Self::InputTooLarge { at, .. } => format!(
                "copy it to {0} as a file and have the command read that; or let its login run sudo without a terminal \
                 (`Defaults:USER !requiretty` in its sudoers)",
                at.host
            ),
            Self::NoRoom { .. } => "`--parallel` with a smaller number asks it for less at a time".to_owned(),
            Self::Windows { .. }
            | Self::ConnectionLost { .. }
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
    let UnknownHost { at, user, key, authority, signed_by, .. } = unknown;
    let authority = match (authority, signed_by) {
        (Some(place), Some(other)) => {
            format!(
                "; {place} names an authority, but the host's certificate is signed by another one, {other}"
            )
        }
        (Some(place), None) => format!(
            "; {place} names an authority, but the host shows no certificate: `HostCertificate` in its sshd_config names one"
        ),
        (None, _) => String::new(),
    };
    format!(
        "compare the fingerprint with what `ssh-keygen -lf` prints on the host itself for its {} key, then add the key with \
         `{}` or by one `ssh {}`; `--host-keys accept-new` trusts hosts at first sight{authority}",
        key.algorithm,
        key_scan(unknown),
        ssh_arguments(at, user),
    )
}

/// Returns the command that adds the key of a host to known_hosts.
fn key_scan(unknown: &UnknownHost) -> String {
    let UnknownHost { at, listed_as, file, .. } = unknown;
    let (host, file) = (quote(&at.host), quote(&file.to_string_lossy()));
    let rename = match lookup_name(listed_as) {
        _ if listed_as == at => String::new(),
        name => format!(" | sed {}", quote(&format!("s/^[^ ]*/{name}/"))),
    };
    format!("ssh-keyscan -p {} {host}{rename} >> {file}", at.port)
}

fn refused_certificate_hint(refused: &RefusedCertificate) -> String {
    let RefusedCertificate { unknown, authority, .. } = refused;
    let UnknownHost { listed_as, key, .. } = unknown;
    let kind = key.algorithm.trim_start_matches("ssh-").split('-').next().unwrap_or_default();
    format!(
        "have the authority ({authority}) sign the host's key anew with `ssh-keygen -s CA_KEY -h -I {host} -n {host} \
         ssh_host_{kind}_key.pub` and reload its sshd; or compare the key with what `ssh-keygen -lf` prints on the host itself, and \
         add it with `{}`",
        key_scan(unknown),
        host = quote(&listed_as.host),
    )
}

fn changed_key_hint(changed: &ChangedHost) -> String {
    format!(
        "if the host was reinstalled, remove the old key with `ssh-keygen -R {} -f {}` and compare the new one; if not, \
         somebody may be listening in: do not go on",
        quote(&lookup_name(&changed.listed_as)),
        quote(&changed.place.file.to_string_lossy()),
    )
}

fn refusal_hint(at: &Endpoint, user: &str, way_out: WayOut) -> String {
    let keys = format!(
        "the public key must be in `~/.ssh/authorized_keys` of `{user}`; `ssh -v {}` shows more; `--ssh-user`, `--ssh-key` and \
         `--ssh-agent` choose others",
        ssh_arguments(at, user)
    );
    match way_out {
        WayOut::AnotherKey => keys,
        WayOut::AnotherKeyOrPassword => format!("{keys}; it takes a password, too: `--ask-password`"),
        WayOut::OfferFewer => format!(
            "sshd counts every key that it is offered (`MaxAuthTries`): `--ssh-key FILE` has the right one offered first, and \
             `IdentitiesOnly yes` in ~/.ssh/config no other; {keys}"
        ),
        WayOut::AskPassword => {
            "`--ask-password` gives it the password, and lets you answer what else it asks".to_owned()
        }
        WayOut::CheckPassword => format!("is this the password of `{user}` on {}?", at.host),
        WayOut::AnswerOnTerminal => "run it on a terminal, where you can answer".to_owned(),
    }
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
        KeyError::SecurityKey { key } | KeyError::PublicHalf { key } => {
            Some(format!("load the key into the agent with `ssh-add` ({key}) and use `--ssh-agent`"))
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
