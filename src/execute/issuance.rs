//! The new certificates of a run: keys are made on all cores while the run goes on, and signed once the CA's key has been read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::SignedDuration;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::earlier::InUse;
use super::{Execution, Fault, StepError};
use crate::event::{EventKind, IssuedCertificate};
use crate::inventory::Inventory;
use crate::kube::Identity;
use crate::pki::{
    Authority, Certificate, IssueError, KUBE_ADMIN, KeyAlgorithm, Leaf, Location, Signer, SubjectKey, leaf,
    new_key,
};
use crate::plan::{Action, CaKey, CertificateSource, KeySource, NewCertificate, Plan, Rotated};

/// The name under which the run's own client pair is made; no file is called so.
const OWN: &str = "certroll";

/// The kind of the run's own key: it never lies on a node, and Go has taken it since before there was Kubernetes. An RSA key
/// would take a processor a thousand times as long.
const OWN_ALGORITHM: KeyAlgorithm = KeyAlgorithm::EcdsaP256;

/// How long the run's own client pair is valid: it asks health and state while the run goes on, and is never stored.
const OWN_VALIDITY: SignedDuration = SignedDuration::from_hours(24);

/// A new certificate, with its private key where the run has it.
pub(super) struct Pair {
    pub(super) certificate: Certificate,
    /// `None` where the key stays what it is, and was not read.
    pub(super) key_pem: Option<Zeroizing<String>>,
}

/// All that a run has issued.
pub(super) struct Issued {
    pub(super) pairs: BTreeMap<String, Pair>,
    /// kube-ca, as it was read beside its key.
    pub(super) authority: Certificate,
    /// Who the run is when it asks etcd and the API: an administrator for a day.
    pub(super) identity: Identity,
}

impl Issued {
    /// Returns the new pair of a name.
    pub(super) fn pair(&self, name: &str) -> Result<&Pair, StepError> {
        self.pairs.get(name).ok_or_else(|| StepError::new(format!("no new certificate of {name} was made")))
    }

    /// Returns who shows the pair of a name; `None` where the run does not have its key.
    pub(super) fn identity_of(&self, name: &str) -> Option<Result<Identity, crate::kube::KubeError>> {
        let pair = self.pairs.get(name)?;
        let key = pair.key_pem.as_ref()?;
        Some(Identity::new(&pair.certificate.to_pem(), key, &self.authority))
    }
}

/// Keys by the names of their certificates.
type Keys = BTreeMap<String, Zeroizing<String>>;

/// The making of a run's certificates.
pub(super) struct Issuance {
    makers: Mutex<Vec<JoinHandle<Result<Keys, IssueError>>>>,
    stop: Arc<AtomicBool>,
    issued: OnceCell<Result<Issued, StepError>>,
}

impl Issuance {
    /// Begins to make the keys of a plan that are needed, on all cores and beside everything else.
    pub(super) fn begin(plan: &Plan, is_needed: impl Fn(&str) -> bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut wanted: VecDeque<(String, KeyAlgorithm)> = plan
            .certificates
            .iter()
            .filter(|certificate| is_needed(&certificate.name))
            .filter_map(key_to_make)
            .collect();
        if !plan.ca_keys.is_empty() {
            wanted.push_front((OWN.to_owned(), OWN_ALGORITHM));
        }
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(wanted.len());
        let queue = Arc::new(Mutex::new(wanted));
        let makers = (0..workers)
            .map(|_| {
                let (queue, stop) = (Arc::clone(&queue), Arc::clone(&stop));
                tokio::task::spawn_blocking(move || make_keys(&queue, &stop))
            })
            .collect();
        Self { makers: Mutex::new(makers), stop, issued: OnceCell::new() }
    }

    /// Returns what has been issued so far, if anything was.
    pub(super) fn so_far(&self) -> Option<&Issued> {
        self.issued.get()?.as_ref().ok()
    }

    /// Waits until all keys are made.
    async fn keys(&self) -> Result<Keys, StepError> {
        let makers = std::mem::take(&mut *self.makers.lock().unwrap_or_else(PoisonError::into_inner));
        let mut keys = Keys::new();
        for maker in makers {
            let made = maker.await.map_err(|error| StepError::new(error.to_string()))?;
            keys.append(&mut made.map_err(|error| StepError::new(error.to_string()))?);
        }
        Ok(keys)
    }
}

impl Drop for Issuance {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Returns the key that a new certificate needs.
fn key_to_make(certificate: &NewCertificate) -> Option<(String, KeyAlgorithm)> {
    match &certificate.source {
        CertificateSource::Made { key: KeySource::Made { algorithm }, .. } => {
            Some((certificate.name.clone(), *algorithm))
        }
        CertificateSource::Made { key: KeySource::Kept { .. }, .. } | CertificateSource::Node { .. } => None,
    }
}

/// Makes keys until none is wanted any more.
fn make_keys(queue: &Mutex<VecDeque<(String, KeyAlgorithm)>>, stop: &AtomicBool) -> Result<Keys, IssueError> {
    let mut keys = Keys::new();
    while !stop.load(Ordering::SeqCst) {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((name, algorithm)) = next else { break };
        keys.insert(name, new_key(algorithm)?);
    }
    Ok(keys)
}

/// The CAs that sign in a run.
struct Signers {
    kube_ca: Signer,
    requestheader_ca: Option<Signer>,
}

impl Signers {
    fn of(&self, authority: Authority) -> Result<&Signer, StepError> {
        match authority {
            Authority::KubeCa => Ok(&self.kube_ca),
            Authority::RequestheaderCa => self
                .requestheader_ca
                .as_ref()
                .ok_or_else(|| StepError::new("the key of the requestheader CA was not read")),
        }
    }
}

impl Execution<'_> {
    /// Returns the run's certificates; the first who asks has them made.
    ///
    /// A failure is final: the keys are used up by then, and who asks later is to hear the cause.
    pub(super) async fn issued(&self) -> Result<&Issued, StepError> {
        self.issuance
            .issued
            .get_or_init(|| Box::pin(self.issue()))
            .await
            .as_ref()
            .map_err(|error| StepError { fault: Fault::Lasting, ..error.clone() })
    }

    /// Reads the CA's keys and the pairs that are spread, signs, and wipes the CA's keys.
    ///
    /// What is new is in the journal before anybody gets it: a later attempt finds it again where a node has it in use.
    async fn issue(&self) -> Result<Issued, StepError> {
        let plan = &self.run.plan;
        let mut keys = self.issuance.keys().await?;
        let signers = self.signers(&plan.ca_keys).await?;
        let own_key = keys.remove(OWN).ok_or_else(|| StepError::new("the run's own key was not made"))?;
        let identity = own_identity(&signers, self.run.gatherer.inventory(), &own_key, self.run.clock.now())?;
        let authority = signers.kube_ca.certificate().clone();
        let mut pairs = BTreeMap::new();
        let mut made = Vec::new();
        let wanted = if self.is_handed_over() { &[] } else { plan.certificates.as_slice() };
        for certificate in wanted {
            let pair = match &certificate.source {
                CertificateSource::Made { leaf, key, not_after } => {
                    if let Some(pair) = self.find_again(certificate, &authority).await? {
                        pair
                    } else {
                        let pair =
                            self.make(signers.of(leaf.authority)?, leaf, (key, *not_after), &mut keys)?;
                        made.push(IssuedCertificate {
                            name: certificate.name.clone(),
                            sha256: pair.certificate.sha256.clone(),
                            not_after: pair.certificate.not_after,
                        });
                        pair
                    }
                }
                CertificateSource::Node { node, directory, sha256 } => {
                    let pair = self.fetch_pair(node, directory, &certificate.name).await?;
                    if pair.certificate.sha256 != *sha256 {
                        return Err(StepError::new(format!(
                            "{} on {node} is another one now",
                            certificate.name
                        ))
                        .hint("make a new plan"));
                    }
                    pair
                }
            };
            pairs.insert(certificate.name.clone(), pair);
        }
        self.tell_issued(made)?;
        Ok(Issued { pairs, authority, identity })
    }

    /// Returns whether an earlier attempt has put all new pairs into place and left the cluster to a rotation of somebody else's: what
    /// lies on the nodes is not the run's any more, and none of it is made again.
    fn is_handed_over(&self) -> bool {
        let is_put = |action: &Action| matches!(action, Action::Switch { .. });
        let mut switches = self.run.plan.steps().filter(|step| is_put(&step.action));
        self.earlier.trail(&self.run.plan).rotation == Rotated::Begun
            && switches.all(|step| self.earlier.well_in(&step.id).is_some())
    }

    /// Writes into the journal what was made.
    pub(super) fn tell_issued(&self, certificates: Vec<IssuedCertificate>) -> Result<(), StepError> {
        if certificates.is_empty() {
            return Ok(());
        }
        let issued = EventKind::CertificatesIssued { certificates };
        self.recorder.record(issued).map_err(|error| StepError::new(super::chain(&error)))
    }

    /// Makes a certificate, for the key that it is to have.
    fn make(
        &self,
        signer: &Signer,
        leaf: &Leaf,
        (key, not_after): (&KeySource, jiff::Timestamp),
        keys: &mut Keys,
    ) -> Result<Pair, StepError> {
        match key {
            KeySource::Made { .. } => {
                let key_pem = keys
                    .remove(&leaf.name)
                    .ok_or_else(|| StepError::new(format!("no key was made for {}", leaf.name)))?;
                let certificate = sign(signer, leaf, SubjectKey::Pem(&key_pem), not_after)?;
                Ok(Pair { certificate, key_pem: Some(key_pem) })
            }
            KeySource::Kept { sha256 } => {
                let present = self
                    .run
                    .facts
                    .seen()
                    .filter_map(|(_, seen)| seen.certificate(Location::Ssl, &leaf.name))
                    .find(|present| present.sha256 == *sha256)
                    .ok_or_else(|| StepError::new(format!("the present {} was not seen", leaf.name)))?;
                let certificate = sign(signer, leaf, SubjectKey::OfCertificate(present), not_after)?;
                Ok(Pair { certificate, key_pem: None })
            }
        }
    }

    /// Returns the pair that an earlier attempt made and that a node has in use, if there is one.
    ///
    /// A node that lost its power between the two halves has the new certificate and the old key: that is no pair, and its switch is
    /// made again. A node that does not give its pair is passed over where another one does: in place of one that is in use, none is
    /// made.
    async fn find_again(
        &self,
        wanted: &NewCertificate,
        authority: &Certificate,
    ) -> Result<Option<Pair>, StepError> {
        let name = wanted.name.as_str();
        let mut unread = None;
        for found in self.earlier.places(&self.run.facts, Location::Ssl, name) {
            if wanted.keeps_key() {
                return Ok(Some(Pair { certificate: found.certificate.clone(), key_pem: None }));
            }
            let folder = format!("{}/ssl", found.seen.kubernetes_directory);
            let is_known_whole = found.seen.key_matches(Location::Ssl, name) == Some(true);
            let read = match self.fetch_pair(found.node, &folder, name).await {
                Ok(pair) if !is_known_whole && !is_whole(&pair, authority) => continue,
                read => read.and_then(|pair| as_seen(&found, pair, (name, authority))),
            };
            match read {
                Ok(pair) => return Ok(Some(pair)),
                Err(error) => unread = Some(error),
            }
        }
        unread.map_or(Ok(None), Err)
    }

    /// Reads a pair back that was seen on a node: it is still the one that was seen, and its halves belong together.
    pub(super) async fn fetch_again(
        &self,
        found: &InUse<'_>,
        folder: &str,
        (name, authority): (&str, &Certificate),
    ) -> Result<Pair, StepError> {
        as_seen(found, self.fetch_pair(found.node, folder, name).await?, (name, authority))
    }

    /// Reads the CAs' pairs from the nodes that the plan names.
    async fn signers(&self, ca_keys: &[CaKey]) -> Result<Signers, StepError> {
        let mut kube_ca = None;
        let mut requestheader_ca = None;
        for ca_key in ca_keys {
            let signer = self.read_signer(ca_key).await?;
            match ca_key.authority {
                Authority::KubeCa => kube_ca = Some(signer),
                Authority::RequestheaderCa => requestheader_ca = Some(signer),
            }
        }
        let kube_ca =
            kube_ca.ok_or_else(|| StepError::new("the plan names no node that holds kube-ca's key"))?;
        Ok(Signers { kube_ca, requestheader_ca })
    }
}

/// Returns whether the halves of a pair belong together.
fn is_whole(pair: &Pair, authority: &Certificate) -> bool {
    let key = pair.key_pem.as_ref().map(|key| key.as_str()).unwrap_or_default();
    Identity::new(&pair.certificate.to_pem(), key, authority).is_ok()
}

/// Makes sure that a pair that was read back is the one that was seen, and whole.
fn as_seen(
    found: &InUse<'_>,
    pair: Pair,
    (name, authority): (&str, &Certificate),
) -> Result<Pair, StepError> {
    if pair.certificate.sha256 == found.certificate.sha256 && is_whole(&pair, authority) {
        return Ok(pair);
    }
    Err(StepError::new(format!("{name} on {} is another one now", found.node))
        .hint("somebody else writes there too: stop that, then `certroll apply --resume` again"))
}

/// Makes the pair that the run itself shows.
fn own_identity(
    signers: &Signers,
    inventory: &Inventory,
    key_pem: &str,
    now: jiff::Timestamp,
) -> Result<Identity, StepError> {
    let leaf = leaf(KUBE_ADMIN, inventory).ok_or_else(|| StepError::new("kube-admin is not known"))?;
    let certificate = sign(&signers.kube_ca, &leaf, SubjectKey::Pem(key_pem), now + OWN_VALIDITY)?;
    Identity::new(&certificate.to_pem(), key_pem, signers.kube_ca.certificate())
        .map_err(|error| StepError::new(super::chain(&error)))
}

fn sign(
    signer: &Signer,
    leaf: &Leaf,
    key: SubjectKey<'_>,
    not_after: jiff::Timestamp,
) -> Result<Certificate, StepError> {
    signer
        .issue(leaf, key, super::files::random_serial()?, not_after)
        .map_err(|error| StepError::new(format!("{}: {error}", leaf.name)))
}
