//! A release of Rancher: what its API has, and which RKE it embeds. The simulated one reads it off its version.
//!
//! Facts are from the sources of rancher/rancher at the tags of each line, and of rancher/rke at those that they vendor.

/// A version of Rancher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release(u16, u16, u16);

/// What the API has to rotate certificates with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RotateAction {
    Absent,
    /// No body is read, all services are rotated; the flag is an empty object.
    Bodyless,
    /// The body has authorities or not, and one service as a string.
    OneService,
}

/// The RKE inside, as far as rotations differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// v0.1.18: takes the cluster's state from its API; leaves etcd running; keeps kube-apiserver's key.
    V01,
    /// v0.2.0 to v0.2.2: reads no certificates from a legacy cluster without `cluster-state.yml`.
    V020,
    /// v0.2.3 to v0.2.11: gives a legacy bundle up that lacks one file.
    V023,
    /// v0.3 and v1.0: makes requestheader and proxy-client pairs where a legacy bundle lacks them.
    V03,
    /// From v1.1 on: looks for the keys of a legacy bundle under the wrong names, and finds none.
    V11,
}

impl Release {
    /// Reads a version such as `v2.2.8` or `2.4.0-rc3`; parts that are missing or no numbers count as 0.
    pub(crate) fn of(version: &str) -> Self {
        let mut parts =
            version.trim_start_matches('v').split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let mut part = || parts.next().unwrap_or(0);
        Self(part(), part(), part())
    }

    pub(crate) fn action(self) -> RotateAction {
        match self {
            Self(2, 0, patch) if patch < 14 => RotateAction::Absent,
            Self(2, 1, patch) if patch < 9 => RotateAction::Absent,
            Self(2, 0 | 1, _) => RotateAction::Bodyless,
            _ => RotateAction::OneService,
        }
    }

    pub(crate) fn engine(self) -> Engine {
        match self {
            Self(2, 0 | 1, _) => Engine::V01,
            Self(2, 2, patch) if patch < 4 => Engine::V020,
            Self(2, 2, _) => Engine::V023,
            Self(2, 3, _) => Engine::V03,
            _ => Engine::V11,
        }
    }

    /// Returns whether a cluster shows `certificatesExpiration` (rancher#20994).
    pub(crate) fn shows_expirations(self) -> bool {
        self >= Self(2, 2, 5)
    }

    /// Returns whether a node shows its `nodePlan`.
    pub(crate) fn shows_node_plans(self) -> bool {
        self >= Self(2, 4, 0)
    }

    /// Returns the status and the code with which the action is denied to those who may not update the cluster.
    pub(crate) fn denial(self) -> (u16, &'static str) {
        if self < Self(2, 3, 0) { (401, "Unauthorized") } else { (403, "PermissionDenied") }
    }
}
