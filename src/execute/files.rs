use std::io::Read as _;

use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use super::issuance::Pair;
use super::step::{Place, Seat};
use super::{Execution, StepError};
use crate::command::{Command, quote};
use crate::event::{IssuedCertificate, Outcome};
use crate::facts::{Observation, bundle_names};
use crate::inventory::NodeName;
use crate::pki::{
    Authority, Certificate, KUBE_ADMIN, KUBE_CA, KeyAlgorithm, KeyPair, Location, Signer, SubjectKey, leaf,
    new_key,
};
use crate::plan::{CaKey, FileCopy, KubeAdminSource};

/// A kube-admin pair that certroll makes for the legacy bundle serves one rotation (design: 30 days).
const KUBE_ADMIN_VALIDITY: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A file on its way: its name, and what it holds.
pub(super) type Parcel = (String, Zeroizing<Vec<u8>>);

impl Execution<'_> {
    /// Adds copies of files of the same node.
    pub(super) async fn copy_files(&self, place: &Place<'_>) -> Result<Outcome, StepError> {
        let printed = self.run_commands(place, None).await?;
        self.added(place, &printed).await
    }

    /// Adds copies of files of a control plane node.
    pub(super) async fn bring_files(
        &self,
        place: &Place<'_>,
        from: &NodeName,
        copies: &[FileCopy],
    ) -> Result<Outcome, StepError> {
        let sources: Vec<&str> = copies.iter().map(|copy| copy.source.as_str()).collect();
        let found = self.fetch(from, &sources).await?;
        let parcels = copies.iter().map(|copy| {
            let (_, content) = found
                .iter()
                .find(|(path, _)| *path == copy.source)
                .ok_or_else(|| StepError::new(format!("{from} did not send `{}`", copy.source)))?;
            Ok((file_name(&copy.destination).to_owned(), content.clone()))
        });
        let parcels = parcels.collect::<Result<Vec<Parcel>, StepError>>()?;
        self.deliver(place, &parcels).await
    }

    /// Adds the kube-admin pair.
    pub(super) async fn add_kube_admin(
        &self,
        place: &Place<'_>,
        source: &KubeAdminSource,
    ) -> Result<Outcome, StepError> {
        let names = [format!("{KUBE_ADMIN}.pem"), format!("{KUBE_ADMIN}-key.pem")];
        let parcels = match source {
            KubeAdminSource::Node { node, directory } => {
                // The two that were asked for alone: a node may send more than that.
                let (certificate, key) = self.fetch_files(node, directory, KUBE_ADMIN).await?;
                names.into_iter().zip([certificate, key]).collect()
            }
            KubeAdminSource::Made { signer, directory } => {
                let pair =
                    self.kube_admin.get_or_try_init(|| self.make_kube_admin(signer, directory)).await?;
                let certificate = Zeroizing::new(pair.certificate.to_pem().into_bytes());
                let key = Zeroizing::new(pair.key_pem.as_bytes().to_vec());
                names.into_iter().zip([certificate, key]).collect::<Vec<Parcel>>()
            }
        };
        self.deliver(place, &parcels).await
    }

    /// Makes the kube-admin pair with the CA's key of a control plane node, which is read, used and wiped.
    ///
    /// What an earlier attempt made is taken again where a node has it: all bundles hold the same pair.
    async fn make_kube_admin(&self, signer: &NodeName, directory: &str) -> Result<KeyPair, StepError> {
        if let Some(found) = self.earlier.in_use(&self.run.facts, Location::Tmp, KUBE_ADMIN) {
            let authority = self.run.facts.kube_ca().ok_or_else(|| StepError::new("kube-ca was not seen"))?;
            let folder = found.seen.tmp_directory();
            let Pair { certificate, key_pem } =
                self.fetch_again(&found, &folder, (KUBE_ADMIN, authority)).await?;
            let key_pem = key_pem.ok_or_else(|| StepError::new("the key of kube-admin was not read"))?;
            return Ok(KeyPair { certificate, key_pem });
        }
        let Some(kube_ca) = self.run.plan.kube_ca.clone() else {
            return Err(StepError::new("the plan names no kube-ca"));
        };
        let ca_key = CaKey {
            authority: Authority::KubeCa,
            node: signer.clone(),
            directory: directory.to_owned(),
            sha256: kube_ca,
        };
        let authority = self.read_signer(&ca_key).await?;
        let failed = |error: crate::pki::IssueError| StepError::new(format!("{signer}: {error}"));
        let key_pem = tokio::task::spawn_blocking(|| new_key(KeyAlgorithm::Rsa2048))
            .await
            .map_err(|error| StepError::new(error.to_string()))?
            .map_err(failed)?;
        let leaf = leaf(KUBE_ADMIN, self.run.gatherer.inventory())
            .ok_or_else(|| StepError::new("kube-admin is not known"))?;
        let not_after = self.run.clock.now() + KUBE_ADMIN_VALIDITY;
        let certificate =
            authority.issue(&leaf, SubjectKey::Pem(&key_pem), random_serial()?, not_after).map_err(failed)?;
        self.tell_issued(vec![IssuedCertificate {
            name: KUBE_ADMIN.to_owned(),
            sha256: certificate.sha256.clone(),
            not_after,
        }])?;
        Ok(KeyPair { certificate, key_pem })
    }

    /// Reads a CA's pair from the node that the plan names; the key is the CA's, and the CA the one of the plan.
    pub(super) async fn read_signer(&self, ca_key: &CaKey) -> Result<Signer, StepError> {
        let CaKey { authority, node, directory, sha256 } = ca_key;
        let (certificate, key) = self.fetch_files(node, directory, authority.name()).await?;
        let failed = |error: crate::pki::IssueError| {
            StepError::new(format!("{node}: {error}"))
                .hint("nothing was changed by it: put the pair right, then plan again")
        };
        let key = std::str::from_utf8(&key)
            .map_err(|_| StepError::new(format!("{node}: the key of {} is not PEM", authority.name())))?;
        let signer = Signer::new(&certificate, key).map_err(failed)?;
        if signer.certificate().sha256 != *sha256 {
            return Err(StepError::new(format!(
                "{} on {node} is not the CA that the plan was made for",
                authority.name()
            ))
            .hint("make a new plan"));
        }
        Ok(signer)
    }

    /// Reads a pair of a node that others get too.
    pub(super) async fn fetch_pair(
        &self,
        node: &NodeName,
        directory: &str,
        name: &str,
    ) -> Result<Pair, StepError> {
        let (certificate, key) = self.fetch_files(node, directory, name).await?;
        let failed = |error: &dyn std::fmt::Display| StepError::new(format!("{name} on {node}: {error}"));
        let certificate = Certificate::from_pem(&certificate).map_err(|error| failed(&error))?;
        let key = String::from_utf8(key.to_vec()).map_err(|_| failed(&"the key is not PEM"))?;
        Ok(Pair { certificate, key_pem: Some(Zeroizing::new(key)) })
    }

    /// Reads the two files of a pair.
    async fn fetch_files(
        &self,
        node: &NodeName,
        directory: &str,
        name: &str,
    ) -> Result<(Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>), StepError> {
        let certificate_path = format!("{directory}/{name}.pem");
        let key_path = format!("{directory}/{name}-key.pem");
        let mut found = self.fetch(node, &[&certificate_path, &key_path]).await?;
        let mut take = |path: &str| {
            let place = found.iter().position(|(name, _)| name == path);
            place.map(|place| found.swap_remove(place).1)
        };
        match (take(&certificate_path), take(&key_path)) {
            (Some(certificate), Some(key)) => Ok((certificate, key)),
            _ => Err(StepError::new(format!("{node} did not send the pair of {name}"))),
        }
    }

    /// Reads files of another node, as root, over its own connection.
    pub(super) async fn fetch(&self, from: &NodeName, paths: &[&str]) -> Result<Vec<Parcel>, StepError> {
        let source = self.run.gatherer.inventory().node(from);
        let planned = self.run.facts.node(from).and_then(|node| node.observation());
        let (Some(node), Some(planned)) = (source, planned) else {
            return Err(StepError::new(format!("{from} was not seen")));
        };
        let mut seat = Seat::default();
        let session = self.session(node, &mut seat).await.map_err(|error| error.about(from))?;
        let words: Vec<String> = paths.iter().map(|path| quote(path.trim_start_matches('/'))).collect();
        let command = Command::new(format!("tar -C / -cf - {}", words.join(" ")));
        let result = session.run(&command, &planned.access, &node.docker_socket).await;
        seat.close().await;
        let output = result.map_err(|error| StepError::of_transport(&error).about(from))?;
        if !output.succeeded() {
            return Err(StepError::new(format!("{from}: {}", output.stderr_text())));
        }
        unpack(&output.stdout)
            .map_err(|error| StepError::new(format!("{from}: the archive is damaged: {error}")))
    }

    /// Sends files to the node of a step.
    async fn deliver(&self, place: &Place<'_>, parcels: &[Parcel]) -> Result<Outcome, StepError> {
        let archive =
            pack(parcels, self.run.clock.now()).map_err(|error| StepError::new(error.to_string()))?;
        let printed = self.run_commands(place, Some(archive)).await?;
        self.added(place, &printed).await
    }

    /// Looks at the bundle again: every pair that is whole now must belong together.
    async fn added(&self, place: &Place<'_>, printed: &str) -> Result<Outcome, StepError> {
        let observation = self.observe(place).await?;
        let names = bundle_names(self.run.gatherer.inventory());
        if let Some(file) =
            names.iter().find(|file| observation.key_matches(Location::Tmp, &file.name) == Some(false))
        {
            return Err(StepError::new(format!(
                "`.tmp/{0}.pem` does not belong to `.tmp/{0}-key.pem`",
                file.name
            ))
            .hint("the backup holds the folder as it was; nothing was overwritten"));
        }
        self.authority_is_one(&observation)?;
        let added = printed.lines().filter(|line| line.starts_with("added ")).count();
        let kept = printed.lines().filter(|line| line.starts_with("kept ")).count();
        Ok(match (added, kept) {
            (0, kept) => Outcome::Unneeded { message: format!("all {kept} files are there already") },
            (added, 0) => Outcome::Done { message: format!("{added} files added") },
            (added, kept) => {
                Outcome::Done { message: format!("{added} files added, {kept} were there already") }
            }
        })
    }

    /// rke will sign with the kube-ca of the bundle: it must be the cluster's.
    fn authority_is_one(&self, observation: &Observation) -> Result<(), StepError> {
        let bundled = observation.certificate(Location::Tmp, KUBE_CA).map(|authority| &authority.sha256);
        if bundled.is_some() && bundled != self.run.plan.kube_ca.as_ref() {
            return Err(StepError::new("`.tmp/kube-ca.pem` is not the cluster's CA"));
        }
        Ok(())
    }
}

impl StepError {
    /// Says of which node an error speaks.
    pub(super) fn about(self, node: &NodeName) -> Self {
        Self { error: format!("{node}: {}", self.error), ..self }
    }
}

/// Returns a serial number as RKE has them: random, positive, of at most 63 bits.
pub(super) fn random_serial() -> Result<u64, StepError> {
    let mut bytes = [0; 8];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(&mut bytes).map_err(|_| StepError::new("no random numbers can be had"))?;
    Ok(u64::from_be_bytes(bytes) >> 1)
}

/// Returns the last part of a path.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Returns an archive of files that root alone may read.
pub(super) fn pack(parcels: &[Parcel], written_at: Timestamp) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // The whole buffer is reserved at once: one that grows would leave copies of keys behind.
    let size: usize = parcels.iter().map(|(_, content)| content.len() + 2048).sum();
    let mut archive = tar::Builder::new(WipedWriter(Zeroizing::new(Vec::with_capacity(size + 4096))));
    for (name, content) in parcels {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(u64::try_from(written_at.as_second()).unwrap_or_default());
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content.as_slice())?;
    }
    Ok(archive.into_inner()?.0)
}

/// Returns the files of an archive, with full paths.
pub(super) fn unpack(archive: &[u8]) -> std::io::Result<Vec<Parcel>> {
    let mut parcels = Vec::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = format!("/{}", entry.path()?.display());
        if entry.header().entry_type().is_dir() {
            continue;
        }
        // A link has no content of its own: an empty file would be delivered in its place.
        if !entry.header().entry_type().is_file() {
            return Err(std::io::Error::other(format!("`{path}` is not a plain file")));
        }
        // Enough at once, so that no copy of a key is left behind; a size that is not true reserves no more than there is.
        let size = usize::try_from(entry.size()).unwrap_or(usize::MAX).min(archive.len());
        let mut content = Zeroizing::new(Vec::with_capacity(size));
        entry.read_to_end(&mut content)?;
        parcels.push((path, content));
    }
    Ok(parcels)
}

/// A buffer that is wiped, as a writer.
struct WipedWriter(Zeroizing<Vec<u8>>);

impl std::io::Write for WipedWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an archive with one entry, whose header is spoilt before it is sealed.
    fn archive(name: &str, content: &[u8], spoil: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        let place = header.as_old_mut();
        for (to, from) in place.name.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        spoil(&mut header);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
        bytes
    }

    #[test]
    fn names_of_an_archive_are_names_and_nothing_is_written() {
        for name in ["../../etc/passwd", "/etc/passwd", "a/../../b"] {
            let found = unpack(&archive(name, b"x", |_| {})).unwrap();
            // Who reads it looks for the paths that were asked for; these are none of them.
            assert_eq!(found.len(), 1);
            assert!(!found.iter().any(|(path, _)| path == "/etc/kubernetes/ssl/kube-ca.pem"), "{found:?}");
        }
    }

    #[test]
    fn links_devices_and_sparse_files_are_refused() {
        use tar::EntryType;
        for kind in [
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Char,
            EntryType::Block,
            EntryType::Fifo,
            EntryType::GNUSparse,
        ] {
            let bytes = archive("key.pem", b"", |header| {
                header.set_entry_type(kind);
                let _ = header.set_link_name("/etc/shadow");
            });
            assert!(unpack(&bytes).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn sizes_that_are_not_true_cost_no_memory() {
        for size in [1 << 33, (1 << 63) - 1, u64::MAX] {
            let bytes = archive("key.pem", b"short", |header| header.set_size(size));
            let content =
                unpack(&bytes).map(|found| found.into_iter().map(|(_, content)| content.len()).sum());
            assert!(content.unwrap_or(0_usize) <= bytes.len(), "{size}");
        }
        // A long name of any length is read no further than the archive goes.
        let bytes = archive("././@LongLink", b"n", |header| {
            header.set_entry_type(tar::EntryType::GNULongName);
            header.set_size(1 << 40);
        });
        assert!(unpack(&bytes).map_or(true, |found| found.is_empty()));
    }
}
