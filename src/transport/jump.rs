//! Jumps are the hosts that are passed on the way to a node, as people name them.
//!
//! The face parses `--jump` into [`Jump`]s, and the ssh_config its `ProxyJump`; a route makes hops of them.

use std::fmt;
use std::str::FromStr;

use super::Endpoint;

/// A host of `--jump` or `ProxyJump`: `[USER@]HOST[:PORT]`, an IPv6 address in brackets, or the same after `ssh://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jump {
    /// The user, where one is named.
    pub user: Option<String>,
    /// A name or an address without brackets; ssh_config may know more of it.
    pub host: String,
    /// The port, where one is named.
    pub port: Option<u16>,
}

impl fmt::Display for Jump {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(formatter, "{user}@")?;
        }
        match self.port {
            Some(port) => Endpoint::new(&self.host, port).fmt(formatter),
            None => formatter.write_str(&self.host),
        }
    }
}

/// Why a text is not a jump host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a jump host, which is written as [USER@]HOST[:PORT]")]
pub struct ParseJumpError {
    text: String,
}

impl FromStr for Jump {
    type Err = ParseJumpError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseJumpError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Jump> {
    let text = text.strip_prefix("ssh://").map_or(text, |rest| rest.trim_end_matches('/'));
    let (user, place) = match text.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, text),
    };
    let (host, port) = match place.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        // Without brackets, more than one colon is an IPv6 address.
        None => match place.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (place, None),
        },
    };
    let port = match port {
        Some(port) => Some(port.parse().ok().filter(|port| *port != 0)?),
        None => None,
    };
    if host.is_empty() || user == Some("") || text.contains(char::is_whitespace) {
        return None;
    }
    Some(Jump { user: user.map(str::to_owned), host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_are_written_as_for_ssh() {
        let jump = |user: Option<&str>, host: &str, port| {
            Some(Jump { user: user.map(str::to_owned), host: host.to_owned(), port })
        };
        for (text, expected) in [
            ("gate", jump(None, "gate", None)),
            ("rke@gate:2222", jump(Some("rke"), "gate", Some(2222))),
            ("me@corp@gate", jump(Some("me@corp"), "gate", None)),
            ("[2001:db8::1]:2222", jump(None, "2001:db8::1", Some(2222))),
            ("[2001:db8::1]", jump(None, "2001:db8::1", None)),
            ("2001:db8::1", jump(None, "2001:db8::1", None)),
            ("ssh://rke@gate:2222/", jump(Some("rke"), "gate", Some(2222))),
            ("", None),
            ("@gate", None),
            ("rke@", None),
            ("gate:", None),
            ("gate:0", None),
            ("gate:ssh", None),
            ("gate:70000", None),
            ("[gate", None),
            ("[gate]2222", None),
            ("a b", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
