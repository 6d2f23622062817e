//! A trail is what a run that stopped has changed on the nodes, as far as its journal tells: a resume tells it from what others did.

use super::basis::is_as_planned;
use super::{Action, CertificateSource, FileCopy, Plan, Restoration, Saved, TmpFolder, kube_admin_paths};
use crate::facts::{Content, File, Observation};
use crate::inventory::NodeName;
use crate::pki::{Authority, Certificate, Fingerprint, KUBE_ADMIN, KUBE_CA, Location};

/// The end of the names under which scripts make files complete before they are renamed into place.
const HALF_MADE: &str = ".certroll";

/// What a run has changed so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trail {
    /// The certificates that it made, by name.
    pub made: Vec<(String, Fingerprint)>,
    /// How far somebody else's rotation is.
    pub rotation: Rotated,
}

/// How far the rotation is that a plan leaves to somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rotated {
    /// It was not asked for.
    #[default]
    NotYet,
    /// It was asked for: whoever rotates may have written any leaf.
    Begun,
}

/// What a plan puts into a place.
enum Write<'a> {
    /// A certificate that the run makes or spreads.
    Certificate { name: &'a str },
    /// A private key; which one, the certificate beside it tells.
    Key,
    /// A copy of another file.
    Copy { from: &'a NodeName, copy: &'a FileCopy },
    /// Something that its owner makes anew.
    Anew,
    /// A file of a backup.
    Saved(&'a Saved),
    /// Nothing: what is there goes.
    Gone,
    /// The folder of the legacy bundle.
    Folder,
}

impl Trail {
    /// Returns whether the run's own steps account for a change on a node; `rest` is what the basis' key says behind its name.
    pub(super) fn explains(&self, plan: &Plan, (node, seen): (&NodeName, &Observation), rest: &str) -> bool {
        // A file that was not yet renamed into place when the power went: the next go makes it anew, and nothing uses it.
        if rest.ends_with(HALF_MADE) {
            return true;
        }
        let file = seen.files.iter().find(|file| file.path == rest);
        if self.rotation == Rotated::Begun && is_of_rotation(seen, rest, file) {
            return true;
        }
        match writes(plan, (node, seen), rest) {
            None => false,
            Some(Write::Folder | Write::Anew) => true,
            // A file that is gone was taken away by somebody else.
            Some(Write::Key) => file.is_some(),
            Some(Write::Gone) => file.is_none(),
            Some(Write::Saved(saved)) => match &saved.certificate {
                Some(sha256) => certificate_of(file).is_some_and(|certificate| certificate.sha256 == *sha256),
                None => file.is_some(),
            },
            Some(Write::Certificate { name }) => {
                certificate_of(file).is_some_and(|certificate| self.has_made(plan, name, &certificate.sha256))
            }
            Some(Write::Copy { from, copy }) => file.is_some_and(|file| is_copy(plan, from, copy, file)),
        }
    }

    /// Returns whether the run has made a certificate under a name, or spreads it.
    fn has_made(&self, plan: &Plan, name: &str, sha256: &Fingerprint) -> bool {
        let spread = plan.certificates.iter().filter(|certificate| certificate.name == name).any(|certificate| {
            matches!(&certificate.source, CertificateSource::Node { sha256: spread, .. } if spread == sha256)
        });
        spread || self.made.iter().any(|(made, own)| made == name && own == sha256)
    }
}

fn certificate_of(file: Option<&File>) -> Option<&Certificate> {
    match file.map(|file| &file.content) {
        Some(Content::Certificate(Ok(certificate))) => Some(certificate),
        _ => None,
    }
}

/// Returns whether a file is what its source was when the plan was made.
fn is_copy(plan: &Plan, from: &NodeName, copy: &FileCopy, file: &File) -> bool {
    is_as_planned(plan, from, &File { path: copy.source.clone(), ..file.clone() })
}

/// Returns whether a change may come from a rotation that somebody else carries out: leaves of the same CAs, their keys, the CA of
/// request headers, the bundle that rke works with, and containers that it starts anew.
fn is_of_rotation(seen: &Observation, rest: &str, file: Option<&File>) -> bool {
    let Some(file) = file else { return !rest.ends_with(&format!("/ssl/{KUBE_CA}.pem")) };
    let Some(certificate) = certificate_of(Some(file)) else {
        return file.location == Location::Tmp || !matches!(file.content, Content::Certificate(_));
    };
    if file.location == Location::Tmp {
        return true;
    }
    if certificate.is_ca {
        // That of request headers comes from the bundle, whatever that holds.
        return file.file_name != format!("{KUBE_CA}.pem");
    }
    let authorities = [KUBE_CA, Authority::RequestheaderCa.name()];
    authorities
        .iter()
        .filter_map(|name| seen.certificate(Location::Ssl, name))
        .any(|authority| certificate.is_signed_by(authority))
}

/// Returns what a plan writes to a place on a node, if it writes there.
fn writes<'a>(plan: &'a Plan, (node, seen): (&'a NodeName, &Observation), path: &str) -> Option<Write<'a>> {
    let directory = seen.kubernetes_directory.as_str();
    let is_folder = path == seen.tmp_directory();
    let steps = plan.steps().filter(|step| step.node.as_ref() == Some(node));
    steps.map(|step| &step.action).find_map(|action| match action {
        Action::CopyFiles { folder: TmpFolder::Made, .. }
        | Action::BringFiles { folder: TmpFolder::Made, .. }
        | Action::AddKubeAdmin { folder: TmpFolder::Made, .. }
            if is_folder =>
        {
            Some(Write::Folder)
        }
        Action::CopyFiles { copies, .. } => copy_to(node, copies, path),
        Action::BringFiles { from, copies, .. } => copy_to(from, copies, path),
        Action::AddKubeAdmin { .. } => {
            let [certificate, key] = kube_admin_paths(directory);
            match path {
                path if path == certificate => Some(Write::Certificate { name: KUBE_ADMIN }),
                path if path == key => Some(Write::Key),
                _ => None,
            }
        }
        Action::Switch { files, retired, .. } => {
            if retired.iter().any(|other| other == path) {
                return Some(Write::Anew);
            }
            let relative = path.strip_prefix(directory)?.strip_prefix('/')?;
            let file = files.iter().find(|file| file.path == relative)?;
            Some(match file.half {
                super::Half::Certificate => Write::Certificate { name: &file.certificate },
                super::Half::Key => Write::Key,
            })
        }
        Action::Restore { wanted, .. } => restored(directory, wanted, path),
        _ => None,
    })
}

/// Returns what a rollback puts into a place; whether it has, its step finds out from the backup.
fn restored<'a>(directory: &str, wanted: &'a Restoration, path: &str) -> Option<Write<'a>> {
    if wanted.retired.iter().any(|other| other == path) {
        return Some(Write::Anew);
    }
    let relative = path.strip_prefix(directory)?.strip_prefix('/')?;
    let is_made = wanted.folders.iter().any(|folder| folder.path == relative);
    if is_made || wanted.emptied.iter().any(|folder| folder == relative) {
        return Some(Write::Folder);
    }
    if wanted.removed.iter().any(|gone| gone == relative) {
        return Some(Write::Gone);
    }
    wanted.files.iter().find(|file| file.path == relative).map(Write::Saved)
}

fn copy_to<'a>(from: &'a NodeName, copies: &'a [FileCopy], path: &str) -> Option<Write<'a>> {
    copies.iter().find(|copy| copy.destination == path).map(|copy| Write::Copy { from, copy })
}
