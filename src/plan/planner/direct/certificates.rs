//! Which certificates are made, whose keys they are for, and which are spread from a node that has a good one.

use super::Draft;
use crate::facts::{CertificateStatus, certificate_status};
use crate::inventory::NodeName;
use crate::pki::{Authority, Certificate, KUBE_ADMIN, KeyAlgorithm, Leaf, Location, leaf};
use crate::plan::policy::Direct;
use crate::plan::{CertificateSource, KeySource, NewCertificate, Renewal};

/// Returns the names of the certificates that are renewed, shared ones first.
pub(super) fn due_names(
    draft: &Draft<'_>,
    direct: &Direct,
    due: &[(&NodeName, String, CertificateStatus)],
) -> Vec<String> {
    // What is switched already may be missing in rke's state: an unfinished run's work is completed.
    let all = draft.policy.renewal == Renewal::All || !unfinished_runs(draft).is_empty();
    let mut names: Vec<String> = if all {
        draft.facts.seen().flat_map(|(node, seen)| draft.rotated_names(node, seen)).collect()
    } else {
        due.iter().map(|(_, name, _)| name.clone()).collect()
    };
    // rke renews kube-admin with all services or not at all (§3.1).
    let renews_all = draft.policy.services.is_empty();
    if renews_all && (!names.is_empty() || kube_config_is_due(draft, direct)) {
        names.push(KUBE_ADMIN.to_owned());
    }
    names.sort_by_key(|name| (is_of_one_node(name), name.clone()));
    names.dedup();
    names
}

/// Returns the runs of `--via direct` that broke off after they had laid files aside.
pub(super) fn unfinished_runs(draft: &Draft<'_>) -> Vec<String> {
    let mut runs: Vec<String> =
        draft.facts.seen().flat_map(|(_, seen)| seen.unfinished_runs.iter().cloned()).collect();
    runs.sort();
    runs.dedup();
    runs
}

/// Returns whether a certificate is named after a node: etcd members and kubelets have their own.
fn is_of_one_node(name: &str) -> bool {
    name.starts_with("kube-etcd-") || name.starts_with("kube-kubelet-")
}

/// Returns whether the kube-admin certificate of the bastion's kubeconfig is due.
fn kube_config_is_due(draft: &Draft<'_>, direct: &Direct) -> bool {
    let Some(file) = &direct.bastion.kube_config else { return false };
    let own = file.authority.as_ref() == draft.facts.kube_ca().map(|authority| &authority.sha256);
    own && file
        .admin
        .as_ref()
        .is_some_and(|admin| admin.not_after <= draft.thresholds.now + draft.thresholds.expiring_within)
}

/// Decides where each certificate of some names comes from.
pub(super) fn new_certificates(draft: &Draft<'_>, direct: &Direct, names: &[String]) -> Vec<NewCertificate> {
    names.iter().filter_map(|name| new_certificate(draft, direct, name)).collect()
}

fn new_certificate(draft: &Draft<'_>, direct: &Direct, name: &str) -> Option<NewCertificate> {
    let leaf = leaf(name, draft.inventory)?;
    let authority = authority(draft, leaf.authority)?;
    let source = good_pair(draft, &leaf, authority).unwrap_or_else(|| made(draft, direct, leaf, authority));
    let replaces = draft.facts.seen().filter_map(|(node, seen)| {
        Some((node.name.clone(), seen.certificate(Location::Ssl, name)?.not_after))
    });
    Some(NewCertificate { name: name.to_owned(), source, replaces: replaces.collect() })
}

/// Returns the certificate of a CA as the first node that shows it has it.
pub(super) fn authority<'a>(draft: &Draft<'a>, authority: Authority) -> Option<&'a Certificate> {
    draft.facts.seen().find_map(|(_, seen)| seen.certificate(Location::Ssl, authority.name()))
}

/// Finds a node whose pair is good for long enough: after a run that stopped half way, the other nodes get the same one.
fn good_pair(draft: &Draft<'_>, leaf: &Leaf, authority: &Certificate) -> Option<CertificateSource> {
    if draft.policy.renewal == Renewal::All {
        return None;
    }
    draft.facts.seen().find_map(|(node, seen)| {
        let file = seen.certificate_file(Location::Ssl, &leaf.name)?;
        let certificate = seen.certificate(Location::Ssl, &leaf.name)?;
        let is_good = certificate_status(seen, file, &draft.thresholds).0 == CertificateStatus::Ok
            && seen.key_matches(Location::Ssl, &leaf.name) == Some(true)
            && certificate.is_signed_by(authority);
        is_good.then(|| CertificateSource::Node {
            node: node.name.clone(),
            directory: format!("{}/ssl", seen.kubernetes_directory),
            sha256: certificate.sha256.clone(),
        })
    })
}

/// Decides what a made certificate says: what RKE puts into it, and what the present one has.
fn made(draft: &Draft<'_>, direct: &Direct, leaf: Leaf, authority: &Certificate) -> CertificateSource {
    let present = present(draft, direct, &leaf.name);
    let key = match present {
        Some(present) if keeps_key(draft, &leaf.name) => KeySource::Kept { sha256: present.sha256.clone() },
        Some(present) => {
            KeySource::Made { algorithm: KeyAlgorithm::of(present).unwrap_or(KeyAlgorithm::Rsa2048) }
        }
        None => KeySource::Made { algorithm: KeyAlgorithm::Rsa2048 },
    };
    let leaf = match present {
        Some(present) => leaf.with_present_sans(present),
        None => leaf,
    };
    let not_after = (draft.policy.now + direct.validity).min(authority.not_after);
    CertificateSource::Made { leaf, key, not_after }
}

/// Returns the certificate of a name that is in use now, as the first node that shows it has it.
pub(super) fn present<'a>(draft: &Draft<'a>, direct: &'a Direct, name: &str) -> Option<&'a Certificate> {
    if name == KUBE_ADMIN {
        return direct.bastion.kube_config.as_ref().and_then(|file| file.admin.as_ref());
    }
    draft.facts.seen().find_map(|(_, seen)| seen.certificate(Location::Ssl, name))
}

/// Returns whether the key of a certificate has another use, so that it must stay.
///
/// rke before 0.2 signs service account tokens with kube-apiserver's own key (§0); an API server that such an rke started
/// goes on doing so until its container is made anew.
fn keeps_key(draft: &Draft<'_>, name: &str) -> bool {
    name == "kube-apiserver" && crate::plan::planner::signs_tokens_with_its_own_key(draft.facts)
}
