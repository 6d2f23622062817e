//! A node's standing is what others say of it: Rancher its state, the API whether it is ready.
//!
//! Each can be wrong by itself: Rancher says active before workers have their certificates, the API believes a kubelet for
//! 40 s after its last word, and a healthy component may talk to nobody. Where they disagree, all of them are shown.

use super::{NodeFacts, Observation, restart_reason};
use crate::finding::Finding;

/// What others say of a node, where they could be asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Rancher's word: `active`, `unavailable`, ...
    pub rancher: Option<String>,
    /// Whether the API calls it ready.
    pub ready: Option<Readiness>,
}

/// What the API says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether it is ready.
    pub ready: bool,
    /// What the condition says (`Kubelet stopped posting node status.`).
    pub message: String,
}

impl Standing {
    /// Returns whether nobody who was asked says anything but good of the node.
    pub fn is_good(&self) -> bool {
        self.rancher.as_deref().is_none_or(is_active) && self.ready.as_ref().is_none_or(|word| word.ready)
    }

    /// Says who says what, beside what was seen on the node itself: `Rancher calls it unavailable, the API ready; on the node
    /// itself kubelet and kube-proxy are well`.
    pub fn sentence(&self, own: &str) -> String {
        let rancher = self.rancher.as_ref().map(|state| format!("Rancher calls it {state}"));
        let ready = self.ready.as_ref().map(|word| match (word.ready, word.message.trim_end_matches('.')) {
            (true, _) => "the API calls it ready".to_owned(),
            (false, "") => "the API calls it not ready".to_owned(),
            (false, message) => format!("the API calls it not ready ({message})"),
        });
        let said: Vec<String> = rancher.into_iter().chain(ready).collect();
        format!("{}; on the node itself {own}", said.join(", "))
    }
}

/// Returns whether a state of a node in Rancher's words says that it is connected and ready. A node that the operator has
/// cordoned or drained is as well as an active one: Rancher shows that word instead (rancher/norman `nodes` formatter).
pub fn is_active(state: &str) -> bool {
    matches!(state, "active" | "cordoned" | "draining" | "drained")
}

/// What a node itself says of the components that the written procedure restarts.
pub(super) const OWN_WELL: &str = "kubelet and kube-proxy are well";

/// Returns the finding about a node of which not everybody says the same, or of which others say no good.
pub(super) fn standing_finding(node: &NodeFacts, observation: &Observation) -> Option<Finding> {
    if node.standing == Standing::default() {
        return None;
    }
    let own = ["kubelet", "kube-proxy"]
        .iter()
        .find_map(|container| Some(format!("{container} {}", restart_reason(observation, container)?)));
    if node.standing.is_good() && own.is_none() {
        return None;
    }
    let is_one_voice = !node.standing.is_good() && own.is_some();
    let message = node.standing.sentence(own.as_deref().unwrap_or(OWN_WELL));
    let code = if is_one_voice { "node-not-active" } else { "node-states-differ" };
    let finding = Finding::warning(code, message);
    Some(finding.hint(match (&node.standing.rancher, own) {
        (Some(state), None) if !is_active(state) => {
            "Rancher hears of the node through its agents: look at the finding about them, or at `docker logs` of cattle-node-agent"
        }
        (_, None) => "the kubelet does not reach an API server: look at `docker logs kubelet` and, on a worker, `docker logs nginx-proxy`",
        (_, Some(_)) => "`certroll plan restart` shows what it takes",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_all_who_were_asked() {
        let standing = Standing {
            rancher: Some("active".to_owned()),
            ready: Some(Readiness {
                ready: false,
                message: "Kubelet stopped posting node status.".to_owned(),
            }),
        };
        assert!(!standing.is_good());
        assert_eq!(
            standing.sentence(OWN_WELL),
            "Rancher calls it active, the API calls it not ready (Kubelet stopped posting node status); \
             on the node itself kubelet and kube-proxy are well"
        );
    }

    #[test]
    fn a_drained_node_is_as_well_as_an_active_one() {
        assert!(Standing { rancher: Some("drained".to_owned()), ready: None }.is_good());
        assert!(!Standing { rancher: Some("unavailable".to_owned()), ready: None }.is_good());
    }
}
