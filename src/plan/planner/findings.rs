//! What a reviewer is told beside the stages.

use super::{Policy, Renewal, is_legacy_layout};
use crate::facts::{CertificateStatus, Facts};
use crate::finding::Finding;
use crate::inventory::NodeName;

/// Returns what a reviewer should know of rke before bundles are completed for it; each was seen with the real rke v0.2.8.
pub(super) fn what_rke_does_with_bundles(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !is_legacy_layout(facts) {
        let message = "rke 0.2 takes no kube-service-account-token pair from `.tmp`: it makes one of kube-apiserver's key there, \
                       and every service account token of the cluster stops being valid";
        findings.push(
            Finding::warning("service-account-key-at-risk", message)
                .hint("bring back cluster.rkestate or `full-cluster-state` instead, if either can be had; else restart all pods afterwards"),
        );
    }
    if !facts.is_rancher_launched() {
        let message = "rke reads `.tmp` only where a kube_config_<file> lies beside its cluster.yml (an expired one will do), and \
                       where no cluster.rkestate of an earlier, failed attempt does";
        findings.push(Finding::info("rke-conditions", message));
    }
    findings
}

/// Returns what makes the rotation due, in a sentence.
pub(super) fn due_finding(due: &[(&NodeName, String, CertificateStatus)], policy: &Policy) -> Finding {
    let mut names: Vec<&str> = due.iter().map(|(_, name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let days = policy.renew_within.as_hours() / 24;
    let message = if due.is_empty() {
        "--force: the certificates are good for longer; the old ones stay valid until they expire".to_owned()
    } else {
        let verb = if names.len() == 1 { "is" } else { "are" };
        format!(
            "{} ({}) {verb} due: expired, expiring within {days} days, or unusable",
            if names.len() == 1 {
                "1 certificate".to_owned()
            } else {
                format!("{} certificates", names.len())
            },
            names.join(", ")
        )
    };
    let finding = Finding::info("certificates-due", message);
    if policy.renewal == Renewal::All {
        finding.hint("a leaked CA key needs a new CA, which certroll does not make yet")
    } else {
        finding
    }
}
