//! An origin is who decided on a setting of a connection: an option, the cluster.yml, a line of the ssh_config, or nobody.
//!
//! `route` notes it beside each value, and people read it at `-v`.

use std::fmt;

use super::ssh_config::{Found, Place};

/// Who decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An option of the command line, which outranks all else.
    Option(&'static str),
    /// What is written in the cluster.yml.
    ClusterFile,
    /// A line of the ssh_config.
    SshConfig(Place),
    /// Nobody: a default of RKE's, of OpenSSH's or of this program.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name) => formatter.write_str(name),
            Self::ClusterFile => formatter.write_str("cluster.yml"),
            Self::SshConfig(place) => place.fmt(formatter),
            Self::Default => formatter.write_str("default"),
        }
    }
}

/// A value, and who decided on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

impl<T> Chosen<T> {
    /// Returns a value that an option gave.
    pub(super) fn by_option(value: T, name: &'static str) -> Self {
        Self { value, origin: Origin::Option(name) }
    }

    /// Returns a value of the cluster.yml.
    pub(super) fn by_cluster_file(value: T) -> Self {
        Self { value, origin: Origin::ClusterFile }
    }

    /// Returns a value that nobody gave.
    pub(super) fn by_default(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }
}

impl<T> From<Found<T>> for Chosen<T> {
    fn from(found: Found<T>) -> Self {
        Self { value: found.value, origin: Origin::SshConfig(found.place) }
    }
}
