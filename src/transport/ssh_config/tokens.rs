//! Tokens are the parts of a value that stand for something else: `%h`, `${NAME}`, and `~` at its beginning.
//!
//! `parse` refuses those that OpenSSH refuses; a login fills them in when it knows host and user.

use std::path::PathBuf;

/// What is known of a connection when the values of its settings are filled in.
#[derive(Debug, Clone, Copy)]
pub(in crate::transport) struct Tokens<'a> {
    /// `%n`: the host as it was asked for.
    pub(in crate::transport) original_host: &'a str,
    /// `%h`: the host that is connected to.
    pub(in crate::transport) host: &'a str,
    /// `%p`
    pub(in crate::transport) port: u16,
    /// `%r`: the user there.
    pub(in crate::transport) user: &'a str,
    /// `%k`: the name under which the host's key is known.
    pub(in crate::transport) known_as: &'a str,
    /// What does not depend on the host.
    pub(in crate::transport) here: Here<'a>,
}

/// What is known of this machine.
#[derive(Debug, Clone, Copy)]
pub(in crate::transport) struct Here<'a> {
    /// `%d` and `~`
    pub(in crate::transport) home: &'a str,
    /// `%u`
    pub(in crate::transport) user: &'a str,
    /// `${NAME}`
    pub(in crate::transport) variable: fn(&str) -> Option<String>,
}

/// Why a value cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::transport) enum TokenError {
    /// OpenSSH does not know it either.
    #[error("`%{0}` means nothing here")]
    Unknown(String),
    /// OpenSSH knows it.
    #[error("`%{0}` is not understood here")]
    NotUnderstood(char),
    /// A variable of the environment is missing.
    #[error("the variable `{0}` is not set")]
    Unset(String),
    /// `${` without its end.
    #[error("`${{` has no `}}`")]
    OpenVariable,
    /// The home of somebody else, or where there is none.
    #[error("`~{0}` is not understood here")]
    OtherHome(String),
}

/// The tokens that are understood, beside `%%`.
const UNDERSTOOD: &str = "dhknpru";
/// The tokens that OpenSSH knows besides: names of this machine, its user's number, a hash of it all, the jump host.
const KNOWN: &str = "CiIjlLHtTf";

/// Returns what is wrong with the `%` tokens of a value; variables and homes are looked at when they are filled in.
pub(super) fn check(value: &str) -> Result<(), TokenError> {
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        if letter == '%' {
            match letters.next() {
                Some('%') => {}
                Some(token) if UNDERSTOOD.contains(token) => {}
                Some(token) if KNOWN.contains(token) => return Err(TokenError::NotUnderstood(token)),
                token => return Err(TokenError::Unknown(token.map(String::from).unwrap_or_default())),
            }
        }
    }
    Ok(())
}

/// Returns a `HostName` with `%h` filled in; `check_host_name` has seen to the rest.
pub(super) fn host_name(value: &str, host: &str) -> String {
    // No text of a file holds a NUL by then, so it can keep the place of `%%`.
    value.replace("%%", "\0").replace("%h", host).replace('\0', "%")
}

/// Returns what is wrong with a `HostName`, which knows `%h` and `%%` alone.
pub(super) fn check_host_name(value: &str) -> Result<(), TokenError> {
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        if letter == '%' {
            match letters.next() {
                Some('%' | 'h') => {}
                token => return Err(TokenError::Unknown(token.map(String::from).unwrap_or_default())),
            }
        }
    }
    Ok(())
}

impl Tokens<'_> {
    /// Returns a path with its tokens filled in.
    pub(in crate::transport) fn path(&self, value: &str) -> Result<PathBuf, TokenError> {
        Ok(PathBuf::from(self.text(&self.here.in_home(value)?)?))
    }

    /// Returns a text with its tokens filled in, `~` left alone.
    pub(in crate::transport) fn text(&self, value: &str) -> Result<String, TokenError> {
        self.here.filled(value, |token| match token {
            'h' => Some(self.host.to_owned()),
            'n' => Some(self.original_host.to_owned()),
            'k' => Some(self.known_as.to_owned()),
            'p' => Some(self.port.to_string()),
            'r' => Some(self.user.to_owned()),
            _ => None,
        })
    }
}

impl Here<'_> {
    /// Returns a path with what is filled in that does not depend on a host, `~` left alone.
    pub(super) fn text(&self, value: &str) -> Result<String, TokenError> {
        self.filled(value, |_| None)
    }

    /// Returns a path with `~/` filled in.
    pub(super) fn in_home(&self, value: &str) -> Result<String, TokenError> {
        let Some(rest) = value.strip_prefix('~') else { return Ok(value.to_owned()) };
        match rest.strip_prefix('/') {
            Some(rest) => Ok(format!("{}/{}", self.home.trim_end_matches('/'), rest.trim_start_matches('/'))),
            None if rest.is_empty() => Ok(self.home.to_owned()),
            None => Err(TokenError::OtherHome(rest.split('/').next().unwrap_or(rest).to_owned())),
        }
    }

    fn filled(&self, value: &str, of_host: impl Fn(char) -> Option<String>) -> Result<String, TokenError> {
        let mut text = String::with_capacity(value.len());
        let mut rest = value;
        while let Some(at) = rest.find(['%', '$']) {
            let (before, from) = rest.split_at(at);
            text.push_str(before);
            if let Some(after) = from.strip_prefix("${") {
                let (name, after) = after.split_once('}').ok_or(TokenError::OpenVariable)?;
                text.push_str(&(self.variable)(name).ok_or_else(|| TokenError::Unset(name.to_owned()))?);
                rest = after;
                continue;
            }
            let mut letters = from.chars();
            if letters.next() == Some('$') {
                text.push('$');
            } else {
                match letters.next() {
                    Some('%') => text.push('%'),
                    Some('d') => text.push_str(self.home),
                    Some('u') => text.push_str(self.user),
                    Some(token) => match of_host(token) {
                        Some(value) => text.push_str(&value),
                        None => return Err(TokenError::NotUnderstood(token)),
                    },
                    None => return Err(TokenError::Unknown(String::new())),
                }
            }
            rest = letters.as_str();
        }
        text.push_str(rest);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Here<'static> =
        Here { home: "/home/me", user: "me", variable: |name| (name == "KEYS").then(|| "/keys".to_owned()) };

    const TOKENS: Tokens<'static> = Tokens {
        original_host: "cp-1",
        host: "10.0.0.1",
        port: 2222,
        user: "rke",
        known_as: "alias",
        here: HERE,
    };

    #[test]
    fn paths_are_filled_in() {
        for (value, expected) in [
            ("~/.ssh/%r@%h", Ok("/home/me/.ssh/rke@10.0.0.1")),
            ("%d/%u/%n:%p", Ok("/home/me/me/cp-1:2222")),
            ("${KEYS}/100%%", Ok("/keys/100%")),
            ("%k$x", Ok("alias$x")),
            ("~", Ok("/home/me")),
            ("a~/b", Ok("a~/b")),
            ("~root/key", Err(TokenError::OtherHome("root".to_owned()))),
            ("${NOWHERE}", Err(TokenError::Unset("NOWHERE".to_owned()))),
            ("${KEYS", Err(TokenError::OpenVariable)),
            ("%C", Err(TokenError::NotUnderstood('C'))),
            ("50%", Err(TokenError::Unknown(String::new()))),
        ] {
            assert_eq!(TOKENS.path(value), expected.map(PathBuf::from), "{value}");
        }
    }

    #[test]
    fn tokens_are_checked_before_a_host_is_known() {
        assert_eq!(check("~/%d/%h%%"), Ok(()));
        assert_eq!(check("%C"), Err(TokenError::NotUnderstood('C')));
        assert_eq!(check("%z"), Err(TokenError::Unknown("z".to_owned())));
        assert_eq!(check_host_name("%h.example.net%%"), Ok(()));
        assert_eq!(check_host_name("%p"), Err(TokenError::Unknown("p".to_owned())));
        assert_eq!(host_name("%h.%%h", "a"), "a.%h");
    }
}
