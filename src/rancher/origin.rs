//! An origin is scheme, host and port of a Rancher server: the one place where its token may go.

use std::fmt;

use reqwest::Url;

use super::RancherError;

/// Scheme, host and port of a Rancher server.
///
/// Rancher writes absolute links into its answers, made of `server-url` or of the Host header; behind a balancer they may name
/// another machine. Every request is therefore made from an origin and the path of a link, never from the link itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin(Url);

impl Origin {
    /// Reads the address that a person gave; its path does not matter (`https://rancher.example.net/v3` is often copied).
    pub(super) fn parse(text: &str) -> Result<Self, RancherError> {
        let mut url = Url::parse(text.trim()).map_err(|error| {
            // What stands before an `@` may be a password, also in what is no URL.
            let url = text.rsplit('@').next().unwrap_or_default().to_owned();
            RancherError::Address { url, reason: error.to_string() }
        })?;
        let refuse = |reason: &str| {
            let url = url.host_str().unwrap_or_default().to_owned();
            RancherError::Address { url, reason: reason.to_owned() }
        };
        if url.host().is_none() {
            return Err(refuse("it names no host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("it holds a user or a password, where everybody could read it"));
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" => return Err(refuse("plain http would send the token in clear text")),
            _ => return Err(refuse("it begins neither with https:// nor with http://")),
        }
        url.set_path("/");
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self(url))
    }

    /// Returns whether requests leave this machine: not for an address of its own loopback interface.
    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// Returns whether requests go in clear text.
    pub(super) fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }

    /// Returns the address of a path below the origin; its segments are escaped.
    pub(super) fn at(&self, segments: &[&str]) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        url
    }

    /// Returns the address of a collection below `/v3`, filtered by one field.
    pub(super) fn filtered(&self, collection: &str, field: &str, value: &str) -> Url {
        let mut url = self.at(&["v3", collection]);
        url.query_pairs_mut().append_pair(field, value);
        url
    }

    /// Returns path and query of a link on this origin, whatever host the link names.
    pub(super) fn rebase(&self, link: &str) -> Result<Url, RancherError> {
        let linked = self
            .0
            .join(link)
            .map_err(|error| RancherError::malformed("a link", format!("`{link}`: {error}")))?;
        let mut url = self.0.clone();
        url.set_path(linked.path());
        url.set_query(linked.query());
        Ok(url)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_copy_is_understood() {
        for text in [
            "https://rancher.example.net",
            "https://rancher.example.net/v3/",
            " https://rancher.example.net/c/c-x7k2p?a=b#c ",
        ] {
            assert_eq!(Origin::parse(text).unwrap().to_string(), "https://rancher.example.net", "{text}");
        }
        assert_eq!(Origin::parse("https://10.77.0.2:8443/").unwrap().to_string(), "https://10.77.0.2:8443");
        assert_eq!(Origin::parse("http://[::1]:80/v3").unwrap().to_string(), "http://[::1]");
    }

    #[test]
    fn a_token_never_travels_in_clear_text_or_to_nowhere() {
        for (text, reason) in [
            ("http://rancher.example.net", "clear text"),
            ("http://127.0.0.1.example.net", "clear text"),
            ("ftp://rancher.example.net", "neither with https"),
            ("rancher.example.net", "relative URL"),
            ("https://token-abc:secret@rancher.example.net", "a user or a password"),
        ] {
            let error = Origin::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn links_keep_their_path_alone() {
        let origin = Origin::parse("https://rancher.example.net").unwrap();
        for (link, expected) in [
            (
                "https://10.77.0.2:8443/v3/clusters/c-xx8vz?action=rotateCertificates",
                "https://rancher.example.net/v3/clusters/c-xx8vz?action=rotateCertificates",
            ),
            (
                "http://evil.example/v3/nodes?marker=m%3A1",
                "https://rancher.example.net/v3/nodes?marker=m%3A1",
            ),
            ("//evil.example/v3", "https://rancher.example.net/v3"),
            ("/v3/nodes", "https://rancher.example.net/v3/nodes"),
        ] {
            assert_eq!(origin.rebase(link).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn names_cannot_leave_their_place_in_an_address() {
        let origin = Origin::parse("https://rancher.example.net").unwrap();
        assert_eq!(origin.at(&["v3", "clusters", "a/../b?c"]).path(), "/v3/clusters/a%2F..%2Fb%3Fc");
        assert_eq!(origin.filtered("clusters", "name", "a&b=c").query(), Some("name=a%26b%3Dc"));
    }
}
