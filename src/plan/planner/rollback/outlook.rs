//! Which components can become healthy when old files come back: gates and health are asked of all but those.

use super::node::NodeUndo;
use super::{Draft, Objections, Undoing};
use crate::finding::Finding;
use crate::inventory::{NodeName, Role};
use crate::plan::Health;

/// What of a cluster works on certificates that have expired, when its old files are back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outage {
    /// At most components of single nodes, which their steps know.
    Single,
    /// The API: its servers, or what they reach etcd with. Nothing that needs it becomes healthy.
    Api,
    /// etcd, and with it the API.
    Etcd,
}

impl Outage {
    /// Returns what expires with the nodes' old files.
    pub(super) fn of(nodes: &[NodeUndo<'_>], objections: Objections) -> Self {
        let uses = |container| nodes.iter().any(|undo: &NodeUndo<'_>| undo.uses_expired(container));
        let control_plane = |undo: &&NodeUndo<'_>| undo.work.node.has(Role::ControlPlane);
        let mut control_plane = nodes.iter().filter(control_plane);
        match objections {
            Objections::Overruled if uses("etcd") => Self::Etcd,
            Objections::Overruled if control_plane.any(|undo| undo.uses_expired("kube-apiserver")) => {
                Self::Api
            }
            Objections::Overruled | Objections::Respected => Self::Single,
        }
    }

    /// Returns whether what asks the API gets an answer.
    pub(super) fn health_of_api(self) -> Health {
        if self == Self::Single { Health::Awaited } else { Health::NotAwaited }
    }

    /// Returns whether etcd members become healthy.
    pub(super) fn health_of_etcd(self) -> Health {
        if self == Self::Etcd { Health::NotAwaited } else { Health::Awaited }
    }

    /// Returns whether containers of a node become healthy.
    pub(super) fn health_of(self, undo: &NodeUndo<'_>, containers: &[String]) -> Health {
        let is_lost = |container: &String| match (container.as_str(), self) {
            (_, Self::Etcd) | ("etcd", _) => self == Self::Etcd,
            (_, Self::Api) => true,
            (container, Self::Single) => undo.uses_expired(container),
        };
        if containers.iter().any(is_lost) { Health::NotAwaited } else { Health::Awaited }
    }
}

impl Draft<'_> {
    /// Decides what can become healthy, and says so where something cannot.
    pub(super) fn outage(&mut self, undoing: &Undoing<'_>, nodes: &[NodeUndo<'_>]) -> Outage {
        let outage = Outage::of(nodes, undoing.objections);
        let expired = nodes.iter().filter(|undo| !undo.expired.is_empty());
        let expired: Vec<&NodeName> = expired.map(|undo| &undo.work.node.name).collect();
        if undoing.objections == Objections::Overruled && !expired.is_empty() {
            let message = match outage {
                Outage::Etcd => "certificates that have expired come back: no component is asked whether it is healthy, and none is waited for".to_owned(),
                Outage::Api => "certificates that have expired come back: no component but etcd is asked whether it is healthy, and none is waited for".to_owned(),
                Outage::Single => {
                    let names: Vec<&str> = expired.iter().map(|name| name.as_str()).collect();
                    format!("certificates that have expired come back on {}: components that use them are not waited for", names.join(", "))
                }
            };
            self.findings.push(
                Finding::warning("health-not-awaited", message)
                    .hint("`certroll check` tells afterwards what stands; `certroll plan` goes forward"),
            );
        }
        outage
    }
}
