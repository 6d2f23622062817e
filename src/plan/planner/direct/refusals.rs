//! What forbids a rotation with the cluster's own CA, and what its reviewer should know.

use super::certificates::{authority, present};
use super::{Decided, Draft};
use crate::facts::{CertificateStatus, Content, Observation, certificate_status, key_file_name};
use crate::finding::Finding;
use crate::inventory::Role;
use crate::pki::{
    Authority, Certificate, Class, KUBE_CA, KeyKind, Location, PublicPrefix, Service, leaf, san_drift,
};
use crate::plan::blockers::{CLOCK_OUTSIDE, first_end, of_new};
use crate::plan::policy::{AfterDirect, CustomCertificates};
use crate::plan::{CaKey, CertificateSource, KeySource};

impl<'a> Draft<'a> {
    /// Blocks on all that makes the rotation wrong or dangerous.
    pub(super) fn refuse_direct(&mut self, decided: &Decided<'a>) {
        self.refuse_authority_that_ends(KUBE_CA, self.facts.kube_ca());
        let mut signers: Vec<Authority> = decided
            .certificates
            .iter()
            .filter_map(|certificate| certificate.leaf().map(|leaf| leaf.authority))
            // The run asks etcd and the API with a pair of its own, which kube-ca signs too.
            .chain([Authority::KubeCa])
            .collect();
        signers.sort_unstable();
        signers.dedup();
        for signer in signers {
            self.refuse_unusable_signer(signer);
        }
        self.refuse_custom_certificates(decided);
        self.refuse_custom_api_servers(decided);
        self.refuse_leaving_expired(decided);
        self.refuse_kept_keys_that_differ(decided);
        self.refuse_clocks(decided);
        self.refuse_rancher_revert(decided);
        self.name_differences(decided);
    }

    /// A CA's key must be at hand, in the clear, and the CA's; its certificate must be one and readable everywhere.
    pub(in crate::plan::planner) fn refuse_unusable_signer(&mut self, signer: Authority) {
        let name = signer.name();
        let certificate = authority(self, signer);
        let mut source = None;
        for (node, seen) in self.facts.seen() {
            if let Some(cause) = unusable_certificate(seen, name) {
                let message = format!("`ssl/{name}.pem` cannot be used: {cause}");
                self.blockers.push(Finding::error("ca-unreadable", message).on(&node.name).hint(
                    "it must hold one certificate in PEM, the same one on every node; put it right by hand",
                ));
            }
            if !node.has(Role::ControlPlane) {
                continue;
            }
            self.blockers.extend(differs(seen, name, certificate).map(|finding| finding.on(&node.name)));
            match unusable_key(seen, name) {
                None if source.is_none() => source = Some((node, seen)),
                None => {}
                Some((cause, hint)) => {
                    let message = format!("`ssl/{name}-key.pem` cannot be used: {cause}");
                    self.blockers.push(Finding::error("ca-key-unusable", message).on(&node.name).hint(hint));
                }
            }
        }
        if let (Some((node, seen)), Some(certificate)) = (source, certificate) {
            self.ca_keys.push(CaKey {
                authority: signer,
                node: node.name.clone(),
                directory: format!("{}/ssl", seen.kubernetes_directory),
                sha256: certificate.sha256.clone(),
            });
        } else if !self.blockers.iter().any(|blocker| blocker.code == "ca-key-unusable") {
            let message = format!("no control plane node shows a key of {name}: nothing can be signed");
            self.blockers.push(
                Finding::error("ca-key-missing", message)
                    .hint("bring `ssl/kube-ca-key.pem` back from a backup; if it is lost, the cluster needs a new CA, which certroll does not make yet"),
            );
        }
        if signer == Authority::RequestheaderCa {
            self.refuse_authority_that_ends(name, certificate);
        }
    }

    /// A certificate under RKE's name that another CA has issued was put there by somebody for a reason.
    fn refuse_custom_certificates(&mut self, decided: &Decided<'a>) {
        for (node, seen) in self.scope() {
            let custom: Vec<&str> = decided
                .certificates
                .iter()
                .filter(|certificate| {
                    let Some(leaf) = leaf(&certificate.name, self.inventory) else { return false };
                    let file = seen.certificate_file(Location::Ssl, &leaf.name);
                    let of_another = seen.certificate(Location::Ssl, &leaf.name).is_some_and(|present| {
                        authority(self, leaf.authority).is_some_and(|found| present.issuer != found.subject)
                    });
                    of_another || file.is_some_and(|file| file.certificates > 1)
                })
                .map(|certificate| certificate.name.as_str())
                .collect();
            if custom.is_empty() {
                continue;
            }
            let message =
                format!("{}: not issued by this cluster's CA, or not alone in the file", custom.join(", "));
            let finding = if decided.direct.custom == CustomCertificates::Refused {
                Finding::error("custom-certificate", message)
                    .hint("`--replace-custom` replaces them with RKE's; a `--service` that does not own them leaves them alone")
            } else {
                Finding::warning("custom-certificate", message)
                    .hint("--replace-custom: they are replaced; the backup keeps them")
            };
            let list = if decided.direct.custom == CustomCertificates::Refused {
                &mut self.blockers
            } else {
                &mut self.findings
            };
            list.push(finding.on(&node.name));
        }
    }

    /// An API server that serves a certificate of another CA cannot be told from somebody else's.
    fn refuse_custom_api_servers(&mut self, decided: &Decided<'a>) {
        let is_replaced = decided.certificates.iter().any(|certificate| certificate.name == "kube-apiserver");
        let Some(authority) = self.facts.kube_ca() else { return };
        for (node, seen) in self.facts.seen() {
            let served = seen.served.iter().find(|served| served.service == Service::KubeApiserver);
            let Some(Ok(certificate)) = served.map(|served| &served.certificate) else { continue };
            let on_disk = seen.certificate(Location::Ssl, "kube-apiserver");
            let goes = is_replaced && on_disk.is_some_and(|found| found.sha256 == certificate.sha256);
            if !goes && !certificate.is_signed_by(authority) {
                let message = "kube-apiserver serves a certificate that kube-ca did not sign: the run could not verify whom it asks";
                self.blockers.push(
                    Finding::error("api-server-custom-certificate", message)
                        .on(&node.name)
                        .hint("`--via manual` or `--via rancher` rotate such a cluster"),
                );
            }
        }
    }

    /// With `--service` others may stay behind that have expired: components that load them, or ask those that do, do not come back.
    fn refuse_leaving_expired(&mut self, decided: &Decided<'a>) {
        if self.policy.services.is_empty() {
            return;
        }
        for (node, seen) in self.scope() {
            let expired: Vec<&str> = seen
                .files
                .iter()
                .filter(|file| file.location == Location::Ssl && file.class() == Class::Leaf)
                .filter(|file| {
                    certificate_status(seen, file, &self.thresholds).0 == CertificateStatus::Expired
                })
                .filter_map(|file| file.certificate_name())
                .filter(|name| !decided.certificates.iter().any(|certificate| certificate.name == *name))
                .collect();
            if !expired.is_empty() {
                let message =
                    format!("`--service` leaves {} behind, which have expired too", expired.join(", "));
                self.blockers.push(Finding::error("service-leaves-expired", message).on(&node.name).hint(
                    "drop `--service`: components do not come back while what they load or ask has expired",
                ));
            }
        }
    }

    /// A key that is kept must be one: a certificate for one node's key is of no use on the others.
    fn refuse_kept_keys_that_differ(&mut self, decided: &Decided<'a>) {
        for certificate in &decided.certificates {
            let CertificateSource::Made { key: KeySource::Kept { .. }, .. } = &certificate.source else {
                continue;
            };
            let Some(reference) = present(self, decided.direct, &certificate.name) else { continue };
            for (node, seen) in self.facts.seen().filter(|(node, _)| node.has(Role::ControlPlane)) {
                let own = seen.certificate(Location::Ssl, &certificate.name);
                let differs = own.is_some_and(|own| !own.has_same_key_as(reference));
                let has_key =
                    seen.file(Location::Ssl, &key_file_name(Location::Ssl, &certificate.name)).is_some();
                if differs || !has_key {
                    let message = format!(
                        "the key of {} signs service account tokens and must stay, but this node has {}",
                        certificate.name,
                        if has_key { "another one" } else { "none" }
                    );
                    self.blockers.push(
                        Finding::error("service-account-key-differs", message).on(&node.name).hint(
                            "find out which key the API servers use, and put the pair right by hand first",
                        ),
                    );
                }
            }
        }
    }

    /// A node whose clock lies outside a new certificate's validity would refuse it.
    fn refuse_clocks(&mut self, decided: &Decided<'a>) {
        let (Some(begin), Some(end)) =
            (self.facts.kube_ca().map(|authority| authority.not_before), first_end(&decided.certificates))
        else {
            return;
        };
        for (node, seen) in self.scope() {
            let is_told = |blocker: &Finding| {
                blocker.code == CLOCK_OUTSIDE && blocker.node.as_ref() == Some(&node.name)
            };
            if self.blockers.iter().any(is_told) {
                continue;
            }
            let found = of_new(seen, self.facts.observed_at, (begin, end));
            self.blockers.extend(found.map(|finding| finding.on(&node.name)));
        }
    }

    /// Rancher's agents would write Rancher's own, old copies back within minutes.
    fn refuse_rancher_revert(&mut self, decided: &Decided<'a>) {
        if !self.is_rancher_launched {
            return;
        }
        let message = "Rancher launched this cluster and keeps its own copy of the certificates: its agents write the old ones back within minutes";
        match decided.direct.after {
            AfterDirect::Nothing => self.blockers.push(
                Finding::error("rancher-would-revert", message)
                    .hint("`--then rancher` has Rancher rotate at the end of the same plan; `--accept-rancher-revert` leaves it at that"),
            ),
            AfterDirect::Rancher => self.findings.push(Finding::info(
                "rancher-rotates-after",
                "Rancher rotates at the end, once the API answers again, so that its copy agrees",
            )),
            AfterDirect::RevertAccepted => self.findings.push(
                Finding::warning("rancher-would-revert", message)
                    .hint("have Rancher rotate as soon as it reaches the cluster again"),
            ),
        }
    }

    /// Names where new certificates differ from the present ones, and where their CA cuts them short.
    fn name_differences(&mut self, decided: &Decided<'a>) {
        for certificate in &decided.certificates {
            let CertificateSource::Made { leaf, .. } = &certificate.source else { continue };
            let Some(present) = present(self, decided.direct, &leaf.name) else { continue };
            let Some(drift) = san_drift(leaf, present).filter(|drift| !drift.lacking.is_empty()) else {
                continue;
            };
            let message = format!("{} gains the names {}", leaf.name, drift.lacking.join(", "));
            self.findings.push(
                Finding::info("san-added", message)
                    .hint("cluster.yml asks for them, the present certificate lacks them"),
            );
        }
        let wanted = self.policy.now + decided.direct.validity;
        let cut: Vec<&Certificate> = [Authority::KubeCa, Authority::RequestheaderCa]
            .into_iter()
            .filter(|signer| {
                decided
                    .certificates
                    .iter()
                    .any(|new| new.leaf().is_some_and(|leaf| leaf.authority == *signer))
            })
            .filter_map(|signer| authority(self, signer))
            .filter(|found| found.not_after < wanted)
            .collect();
        for found in cut {
            let message = format!(
                "new certificates end on {} with their CA ({}), not after {} days",
                found.not_after.strftime("%F"),
                found.common_name().unwrap_or_default(),
                decided.direct.validity.as_hours() / 24
            );
            self.findings.push(Finding::info("validity-cut-by-ca", message));
        }
    }
}

/// Says that a node has another CA than the one that signs. kube-ca is compared for every plan.
fn differs(seen: &Observation, name: &str, reference: Option<&Certificate>) -> Option<Finding> {
    let own = seen.certificate(Location::Ssl, name)?;
    if name == KUBE_CA || reference.is_none_or(|reference| reference.sha256 == own.sha256) {
        return None;
    }
    let message = format!("`ssl/{name}.pem` is another CA than that of the other nodes");
    Some(
        Finding::error("ca-differs", message)
            .hint("find out which one the API servers trust, and put that file right by hand first"),
    )
}

/// Says why a CA's certificate on a node cannot be used; a node that has none has its own finding.
fn unusable_certificate(seen: &Observation, name: &str) -> Option<String> {
    let file = seen.certificate_file(Location::Ssl, name)?;
    match &file.content {
        Content::Certificate(Err(error)) => Some(error.to_string()),
        _ if file.certificates > 1 => Some(format!("the file holds {} certificates", file.certificates)),
        _ => None,
    }
}

/// Says why the key of a CA on a control plane node cannot be used, and the way out.
fn unusable_key(seen: &Observation, name: &str) -> Option<(&'static str, &'static str)> {
    let bring = "bring the right one from another control plane node or from a backup";
    let Some(file) = seen.file(Location::Ssl, &key_file_name(Location::Ssl, name)) else {
        return Some(("it is missing", bring));
    };
    let Content::Key(prefix) = &file.content else { return Some(("it is no key", bring)) };
    if seen.key_matches(Location::Ssl, name) == Some(false) {
        return Some(("it does not belong to the CA's certificate", bring));
    }
    match prefix {
        PublicPrefix::Unknown { kind: KeyKind::Encrypted } => Some((
            "it is encrypted",
            "certroll takes no passphrase for it: `openssl rsa -in kube-ca-key.pem -out ...` on the node, as RKE has it",
        )),
        PublicPrefix::Unknown { kind: KeyKind::NotAKey } => Some(("it is empty or no PEM key", bring)),
        // An RSA key whose modulus cannot be read is damaged, or shorter than any that RKE made.
        PublicPrefix::Unknown { kind: KeyKind::Pkcs1 } => Some(("it is cut short or damaged", bring)),
        _ => None,
    }
}
