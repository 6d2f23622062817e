//! A saved state is judged by itself, and beside what nodes hold and serve.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{CertificateStatus, Content, Facts, NodeFacts, Observation, Thresholds, effective_not_after};
use crate::finding::{Finding, Severity};
use crate::inventory::{Inventory, Node};
use crate::pki::{
    Certificate, Class, Fingerprint, KUBE_CA, Location, SavedCertificate, SavedState, Service, StateKind,
    class,
};

/// The CA of the aggregation layer.
const REQUESTHEADER_CA: &str = "kube-apiserver-requestheader-ca";

/// Certificates that rke does not make: nobody needs their keys to renew the others.
const NEEDS_NO_KEY: [&str; 2] = ["kube-etcd-client", "kube-etcd-client-ca"];

/// What is wrong with a certificate of a state by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// It cannot be read.
    Unreadable,
    /// The key beside it is another one's.
    Key,
    /// The CA of the state did not sign it.
    Chain,
}

/// Returns how a certificate of a saved state stands, and when it stops working.
pub fn saved_status(
    state: &SavedState,
    saved: &SavedCertificate,
    thresholds: &Thresholds,
) -> (CertificateStatus, Option<Timestamp>) {
    let Ok(certificate) = &saved.certificate else { return (CertificateStatus::Invalid, None) };
    let authority = signer(state, saved).filter(|authority| certificate.is_signed_by(authority));
    let end = effective_not_after(certificate, authority);
    let is_broken = flaw(state, saved).is_some();
    let status = if is_broken { CertificateStatus::Invalid } else { thresholds.status_of_end(end) };
    (status, Some(end))
}

/// Returns the name of the CA that signs a certificate; `None` where the state holds none for it.
fn signer_name(name: &str) -> Option<&'static str> {
    match name {
        KUBE_CA | REQUESTHEADER_CA | "kube-etcd-client" | "kube-etcd-client-ca" => None,
        "kube-apiserver-proxy-client" => Some(REQUESTHEADER_CA),
        _ => Some(KUBE_CA),
    }
}

/// Returns the CA of the state that should have signed a certificate.
fn signer<'a>(state: &'a SavedState, saved: &SavedCertificate) -> Option<&'a Certificate> {
    state.beside(saved, signer_name(&saved.name)?)?.certificate.as_ref().ok()
}

fn flaw(state: &SavedState, saved: &SavedCertificate) -> Option<Flaw> {
    let Ok(certificate) = &saved.certificate else { return Some(Flaw::Unreadable) };
    if saved.key_matches == Some(false) {
        return Some(Flaw::Key);
    }
    let is_broken = match saved.name.as_str() {
        // One that another CA has signed is a finding of its own.
        KUBE_CA | REQUESTHEADER_CA => {
            certificate.subject == certificate.issuer && !certificate.is_signed_by(certificate)
        }
        _ => signer(state, saved).is_some_and(|authority| !certificate.is_signed_by(authority)),
    };
    is_broken.then_some(Flaw::Chain)
}

/// Returns what is worth knowing of a saved state by itself.
pub fn assess_saved_state(state: &SavedState, thresholds: &Thresholds) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut ends: BTreeMap<(CertificateStatus, String), Vec<&str>> = BTreeMap::new();
    for saved in &state.certificates {
        let (status, end) = saved_status(state, saved, thresholds);
        match (class(Location::Ssl, &saved.name), status) {
            (_, CertificateStatus::Invalid) => findings.extend(invalid(state, saved)),
            (Class::Informational, _) | (_, CertificateStatus::Ok) => {}
            (_, status) => {
                let day = end.map(|end| end.strftime("%Y-%m-%d").to_string()).unwrap_or_default();
                let names = ends.entry((status, day)).or_default();
                if !names.contains(&saved.name.as_str()) {
                    names.push(&saved.name);
                }
            }
        }
    }
    for ((status, day), names) in ends {
        let (severity, code, verb) = match status {
            CertificateStatus::Expired => (Severity::Error, "certificate-expired", "expired"),
            _ => (Severity::Warning, "certificate-expiring", "will expire"),
        };
        findings.push(Finding::new(
            severity,
            code,
            format!("{} of the state {verb} on {day}", certificates(&names)),
        ));
    }
    findings.extend(authority_findings(state));
    findings.extend(halves(state));
    findings.extend(keyless(state));
    findings
}

/// Returns a count of certificates with their names.
fn certificates(names: &[&str]) -> String {
    match names {
        [name] => format!("the certificate of {name}"),
        names => format!("{} certificates ({})", names.len(), names.join(", ")),
    }
}

/// Returns the finding about a certificate that cannot be used.
fn invalid(state: &SavedState, saved: &SavedCertificate) -> Option<Finding> {
    let cause = match (flaw(state, saved)?, &saved.certificate) {
        (_, Err(error)) => error.to_string(),
        (Flaw::Key, _) => "it does not belong to the private key beside it".to_owned(),
        (_, Ok(_)) if signer_name(&saved.name).is_none() => {
            "it says that it signed itself, but its signature is another's".to_owned()
        }
        (_, Ok(certificate)) => format!(
            "the {} of the state did not sign it; its issuer is `{}`",
            signer_name(&saved.name).unwrap_or(KUBE_CA),
            certificate.issuer
        ),
    };
    let severity = match class(Location::Ssl, &saved.name) {
        Class::Informational => Severity::Warning,
        _ => Severity::Error,
    };
    let message = format!("`{}` of the state{} cannot be used: {cause}", saved.name, place(saved));
    Some(Finding::new(severity, "certificate-invalid", message))
}

/// Returns which of the states a certificate is of, where that is not both.
fn place(saved: &SavedCertificate) -> String {
    match saved.states.as_slice() {
        [state] => format!(" (`{}`)", state.as_str()),
        _ => String::new(),
    }
}

/// Returns the findings about the CA itself.
fn authority_findings(state: &SavedState) -> Vec<Finding> {
    let Some(saved) = state.certificate(KUBE_CA) else {
        return vec![
            Finding::error(
                "state-without-ca",
                "the state holds no kube-ca, so nothing can be signed from it",
            )
            .hint("is it the state of this cluster, and whole?"),
        ];
    };
    let Ok(authority) = &saved.certificate else { return Vec::new() };
    let mut findings = Vec::new();
    if authority.subject != authority.issuer {
        let message = format!(
            "kube-ca of the state did not sign itself: `{}` issued it, as RKE never does",
            authority.issuer
        );
        findings.push(Finding::warning("ca-not-self-signed", message));
    }
    if !authority.is_ca {
        let message = "kube-ca of the state may not sign certificates: it is not a CA";
        findings.push(Finding::error("ca-not-a-ca", message));
    }
    findings
}

/// Returns the finding about two states that do not agree: a run of rke did not come to its end.
fn halves(state: &SavedState) -> Option<Finding> {
    let mut names: Vec<&str> = state
        .certificates
        .iter()
        .filter(|saved| matches!(saved.states.as_slice(), [_]))
        .map(|saved| saved.name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() || !state.certificates.iter().any(|saved| saved.states.contains(&StateKind::Current))
    {
        return None;
    }
    let message = format!(
        "`desiredState` and `currentState` do not hold the same {}: a run of rke may have ended early",
        names.join(", ")
    );
    Some(
        Finding::warning("state-halves-differ", message)
            .hint("`certroll check -c cluster.yml --state FILE` tells which of the two is on the nodes"),
    )
}

/// Returns the finding about certificates whose keys are not in the state.
fn keyless(state: &SavedState) -> Option<Finding> {
    let names: Vec<&str> = state
        .certificates
        .iter()
        .filter(|saved| !saved.has_key && !NEEDS_NO_KEY.contains(&saved.name.as_str()))
        .map(|saved| saved.name.as_str())
        .collect();
    if names.is_empty() {
        return None;
    }
    let message = format!("the state holds no private key of {}: rke cannot renew from it", names.join(", "));
    Some(
        Finding::warning("state-without-key", message)
            .hint("keep the file as rke wrote it, with its keys, for `rke` to work with"),
    )
}

/// Returns where state, disk and what is served are not the same, a finding a node and file.
pub fn state_drift(state: &SavedState, inventory: &Inventory, facts: &Facts) -> Vec<Finding> {
    let of_node = |(node, observation)| node_drift(state, inventory, node, observation);
    facts.seen().flat_map(of_node).collect()
}

fn node_drift(
    state: &SavedState,
    inventory: &Inventory,
    node: &NodeFacts,
    observation: &Observation,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in observation.files.iter().filter(|file| file.location == Location::Ssl) {
        let (Content::Certificate(Ok(on_disk)), Some(name)) = (&file.content, file.certificate_name()) else {
            continue;
        };
        let Some(saved) = state.certificate(name) else {
            let message = format!("`ssl/{}` is on the node alone: the state has none", file.file_name);
            findings.push(Finding::info("state-lacks-certificate", message).on(&node.name));
            continue;
        };
        let Ok(in_state) = &saved.certificate else { continue };
        if in_state.sha256 == on_disk.sha256 {
            continue;
        }
        if holds(state, name, on_disk) {
            let message =
                format!("`ssl/{}` is that of `desiredState`, not of `currentState`", file.file_name);
            findings.push(
                Finding::warning("state-differs", message)
                    .on(&node.name)
                    .hint("a run of rke deployed it and did not come to its end: let `rke` finish"),
            );
            continue;
        }
        let served = service_of(inventory, node, name).and_then(|service| served(observation, service));
        let served = served.map(|(port, sha256)| match sha256 {
            sha256 if *sha256 == on_disk.sha256 => format!("; port {port} serves that on disk"),
            sha256 if *sha256 == in_state.sha256 => format!("; port {port} serves the state's"),
            _ => format!("; port {port} serves a third one"),
        });
        let differs = drift(name, &file.file_name, (in_state, on_disk), &served.unwrap_or_default());
        findings.push(differs.on(&node.name));
    }
    findings
}

/// Returns whether any of the states holds a certificate under a name.
fn holds(state: &SavedState, name: &str, certificate: &Certificate) -> bool {
    let same = |saved: &SavedCertificate| {
        saved.certificate.as_ref().is_ok_and(|own| own.sha256 == certificate.sha256)
    };
    state.certificates.iter().any(|saved| saved.name == name && same(saved))
}

/// Returns the component of a node that serves the certificate of a name. Every member of etcd holds those of all, and serves its own.
fn service_of(inventory: &Inventory, node: &NodeFacts, name: &str) -> Option<Service> {
    let own = || inventory.node(&node.name).map(Node::file_name_address);
    match name {
        "kube-apiserver" => Some(Service::KubeApiserver),
        name => {
            let member = name.strip_prefix("kube-etcd-")?;
            (own()? == member).then_some(Service::Etcd)
        }
    }
}

/// Returns the port of a component, and what it serves.
fn served(observation: &Observation, service: Service) -> Option<(u16, &Fingerprint)> {
    let served = observation.served.iter().find(|served| served.service == service)?;
    Some((served.port, &served.certificate.as_ref().ok()?.sha256))
}

/// Returns the finding about a file that is not what the state holds.
fn drift(
    name: &str,
    file_name: &str,
    (in_state, on_disk): (&Certificate, &Certificate),
    served: &str,
) -> Finding {
    let day = |certificate: &Certificate| certificate.not_after.strftime("%Y-%m-%d").to_string();
    let message = format!(
        "`ssl/{file_name}` is not the state's: on disk until {}, in the state until {}{served}",
        day(on_disk),
        day(in_state)
    );
    if class(Location::Ssl, name) == Class::Ca {
        return Finding::error("state-differs", message).hint(
            "rke would sign with the state's CA, which these nodes do not trust: is it the state of this cluster?",
        );
    }
    Finding::warning("state-differs", message).hint(if in_state.not_after < on_disk.not_after {
        "the next `rke up` puts the state's certificates back: bring its state up to date before"
    } else {
        "the state is ahead of the nodes: a run of rke may have ended before it deployed them"
    })
}
