use jiff::Timestamp;
use serde::Serialize;

use super::certificates::Said;
use super::{Review, commands};
use crate::finding::Finding;
use crate::inventory::NodeName;
use crate::pki::{Authority, Fingerprint, Service};
use crate::plan::{
    Action, CaKey, CertificateSource, KeySource, NewCertificate, NotHandled, Procedure, Stage, StageName,
    Step, StepId, Via,
};
use crate::report::DOCUMENT_VERSION;

/// A plan for scripts.
#[derive(Debug, Serialize)]
pub struct PlanDocument<'a> {
    version: u32,
    id: &'a str,
    cluster: &'a str,
    procedure: Procedure,
    #[serde(skip_serializing_if = "Option::is_none")]
    undoes: Option<&'a str>,
    via: Option<Via>,
    services: &'a [Service],
    created_at: Timestamp,
    observed_at: Timestamp,
    fingerprint: &'a Fingerprint,
    has_work: bool,
    expected_seconds: ExpectedSeconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_seconds: Option<u64>,
    certificates: Vec<CertificateEntry<'a>>,
    ca_keys: Vec<CaKeyEntry<'a>>,
    stages: Vec<StageEntry<'a>>,
    not_handled: &'a [NotHandled],
    blockers: &'a [Finding],
    findings: &'a [Finding],
}

#[derive(Debug, Serialize)]
struct ExpectedSeconds {
    least: u64,
    most: u64,
}

#[derive(Debug, Serialize)]
struct CertificateEntry<'a> {
    name: &'a str,
    subject: String,
    sans: Vec<String>,
    /// `None` where the key comes with the pair of a node.
    key: Option<&'a KeySource>,
    not_after: Option<Timestamp>,
    signer: Option<&'static str>,
    source: SourceEntry<'a>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum SourceEntry<'a> {
    Made,
    Node { node: &'a NodeName, directory: &'a str, sha256: &'a Fingerprint },
}

#[derive(Debug, Serialize)]
struct CaKeyEntry<'a> {
    authority: &'static str,
    node: &'a NodeName,
    directory: &'a str,
    sha256: &'a Fingerprint,
}

#[derive(Debug, Serialize)]
struct StageEntry<'a> {
    name: StageName,
    title: &'a str,
    max_unavailable: usize,
    steps: Vec<StepEntry<'a>>,
}

#[derive(Debug, Serialize)]
struct StepEntry<'a> {
    id: &'a StepId,
    node: Option<&'a NodeName>,
    action: &'a Action,
    reason: &'a str,
    commands: Vec<String>,
}

/// Returns a plan for scripts, with the commands of every step.
pub fn document<'a>(review: &Review<'a>) -> PlanDocument<'a> {
    let plan = review.plan;
    let (least, most) = plan.expected_seconds;
    PlanDocument {
        version: DOCUMENT_VERSION,
        id: &plan.id,
        cluster: &plan.cluster,
        procedure: plan.procedure,
        undoes: plan.undoes.as_deref(),
        via: plan.via,
        services: &plan.services,
        created_at: plan.created_at,
        observed_at: plan.observed_at,
        fingerprint: &plan.fingerprint,
        has_work: plan.has_work(),
        expected_seconds: ExpectedSeconds { least, most },
        deadline_seconds: plan.deadline.map(|deadline| deadline.as_secs()),
        certificates: plan
            .certificates
            .iter()
            .map(|certificate| certificate_entry(review, certificate))
            .collect(),
        ca_keys: plan.ca_keys.iter().map(ca_key_entry).collect(),
        stages: plan.stages.iter().map(|stage| stage_entry(review, stage)).collect(),
        not_handled: &plan.not_handled,
        blockers: &plan.blockers,
        findings: &plan.findings,
    }
}

fn certificate_entry<'a>(review: &Review<'_>, certificate: &'a NewCertificate) -> CertificateEntry<'a> {
    let said = Said::of(certificate, review.facts);
    let (key, source) = match &certificate.source {
        CertificateSource::Made { key, .. } => (Some(key), SourceEntry::Made),
        CertificateSource::Node { node, directory, sha256 } => {
            (None, SourceEntry::Node { node, directory, sha256 })
        }
    };
    CertificateEntry {
        name: &certificate.name,
        subject: said.subject,
        sans: said.sans,
        key,
        not_after: said.not_after,
        signer: said.signer.map(Authority::name),
        source,
    }
}

fn ca_key_entry(key: &CaKey) -> CaKeyEntry<'_> {
    CaKeyEntry {
        authority: key.authority.name(),
        node: &key.node,
        directory: &key.directory,
        sha256: &key.sha256,
    }
}

fn stage_entry<'a>(review: &Review<'a>, stage: &'a Stage) -> StageEntry<'a> {
    let step = |step: &'a Step| StepEntry {
        id: &step.id,
        node: step.node.as_ref(),
        action: &step.action,
        reason: &step.reason,
        commands: commands::commands(step, review.facts),
    };
    StageEntry {
        name: stage.name,
        title: &stage.title,
        max_unavailable: stage.max_unavailable,
        steps: stage.steps.iter().map(step).collect(),
    }
}
