//! What rke keeps of the cluster: in the API, and in files on the bastion. With the old certificates in there, its next run
//! would put them back.

use zeroize::Zeroizing;

use super::issuance::Issued;
use super::step::{Peer, Turn};
use super::{Execution, StepError};
use crate::command::{Command, quote, settle};
use crate::event::Outcome;
use crate::inventory::NodeName;
use crate::kube::{ApiServer, KubeError, StateHolder};
use crate::pki::{ClusterAddress, FullState, JsonText, KUBE_ADMIN};
use crate::plan::RUN_VARIABLE;
use crate::workstation::{BackupPath, KubeConfigFile, StateFile, WorkstationError};

/// How often an object is read and written again when somebody else has written it in between.
pub(super) const WRITE_ATTEMPTS: usize = 5;

impl Execution<'_> {
    /// Writes new certificates into what rke keeps in the API.
    pub(super) async fn update_cluster_state(
        &self,
        turn: Turn<'_>,
        nodes: &[NodeName],
        names: &[String],
    ) -> Result<Outcome, StepError> {
        let issued = self.issued().await?;
        let hint = "the nodes have their new certificates; rke's state in the API has the old ones: plan again when the API answers";
        let peer = self.api_server(turn, nodes, issued).await.map_err(|error| error.hint(hint))?;
        let api = ApiServer::new(&peer.session, &issued.identity);
        self.update_over(&api, &peer, names, issued).await.map_err(|error| error.about(&peer.node.name))
    }

    /// Returns the first of some nodes whose API server answers an administrator.
    pub(super) async fn api_server(
        &self,
        turn: Turn<'_>,
        nodes: &[NodeName],
        issued: &Issued,
    ) -> Result<Peer<'_>, StepError> {
        let mut last = StepError::new("the plan names no API server");
        for node in nodes {
            let peer = match self.peer(node).await {
                Ok(peer) => peer,
                Err(error) => {
                    last = error.about(node);
                    continue;
                }
            };
            match super::answers_well(&ApiServer::new(&peer.session, &issued.identity)).await {
                Ok(()) => return Ok(peer),
                Err(reason) => {
                    self.progress(turn, format!("the API server of {node}: {reason}"));
                    last = StepError::new(format!("the API server of {node}: {reason}"));
                }
            }
        }
        Err(last)
    }

    /// Writes over one API server.
    async fn update_over(
        &self,
        api: &ApiServer<'_>,
        peer: &Peer<'_>,
        names: &[String],
        issued: &Issued,
    ) -> Result<Outcome, StepError> {
        let mut written = Vec::new();
        let mut is_there = false;
        for attempt in 1.. {
            match self.update_full_state(api, peer, names, issued).await {
                Ok(Object::Written(object)) => written.push(object),
                Ok(Object::Same) => is_there = true,
                Ok(Object::Absent) => {}
                Err(Written::Conflict) if attempt < WRITE_ATTEMPTS => continue,
                Err(error) => return Err(error.into()),
            }
            break;
        }
        let mut secrets = 0;
        for name in names {
            match self.update_secret(api, peer, name, issued).await? {
                Object::Written(_) => secrets += 1,
                Object::Same => is_there = true,
                Object::Absent => {}
            }
        }
        if secrets > 0 {
            written.push(format!("{secrets} secrets of rke 0.1"));
        }
        Ok(match written.as_slice() {
            [] if is_there => {
                Outcome::Unneeded { message: "what rke keeps in the API has them already".to_owned() }
            }
            [] => Outcome::Unneeded { message: "rke keeps nothing of this cluster in the API".to_owned() },
            written => Outcome::Done { message: format!("{} written", written.join(" and ")) },
        })
    }

    /// Writes into `kube-system/full-cluster-state`.
    async fn update_full_state(
        &self,
        api: &ApiServer<'_>,
        peer: &Peer<'_>,
        names: &[String],
        issued: &Issued,
    ) -> Result<Object, Written> {
        let Some(mut object) = api.cluster_state().await? else { return Ok(Object::Absent) };
        of_this_cluster(&object.state, issued, "kube-system/full-cluster-state")?;
        let old = object.state.to_compact();
        let certificates = object.state.certificates();
        let found = certificates.iter().filter_map(|found| found.certificate.as_ref().ok());
        let is_own = found.into_iter().any(|found| self.is_made_by_run(&found.sha256));
        replace(&mut object.state, names, issued)?;
        if object.state.to_compact() == old {
            return Ok(Object::Same);
        }
        // What this run has written is not the old state: that was kept before.
        if !is_own {
            self.keep(peer, "full-cluster-state.json", old.as_bytes()).await?;
        }
        let kind = match object.holder {
            StateHolder::ConfigMap => "ConfigMap",
            StateHolder::Secret => "Secret",
        };
        api.replace_cluster_state(object).await?;
        Ok(Object::Written(format!("the {kind} kube-system/full-cluster-state")))
    }

    /// Writes into the secret of a certificate, as rke 0.1 keeps them.
    async fn update_secret(
        &self,
        api: &ApiServer<'_>,
        peer: &Peer<'_>,
        name: &str,
        issued: &Issued,
    ) -> Result<Object, StepError> {
        let pair = issued.pair(name)?;
        for _ in 0..WRITE_ATTEMPTS {
            let found =
                api.certificate_secret(name).await.map_err(|error| StepError::new(super::chain(&error)))?;
            let Some(mut secret) = found else { return Ok(Object::Absent) };
            let old = Zeroizing::new(secret.as_str().to_owned());
            let is_own = secret.certificate().is_ok_and(|found| self.is_made_by_run(&found.sha256));
            let key = pair.key_pem.as_ref().map(|key| key.as_str());
            if !secret.replace(&pair.certificate.to_pem(), key) {
                return Ok(Object::Same);
            }
            if !is_own {
                self.keep(peer, &format!("secret-{name}.json"), old.as_bytes()).await?;
            }
            match api.replace_certificate_secret(secret).await {
                Ok(()) => return Ok(Object::Written(name.to_owned())),
                Err(KubeError::Conflict { .. }) => {}
                Err(error) => return Err(StepError::new(super::chain(&error))),
            }
        }
        Err(StepError::new(format!(
            "the secret kube-system/{name} is written by somebody else again and again"
        )))
    }

    /// Keeps what an object held in the run's folder on the node, and reads it back: it is overwritten next.
    ///
    /// What the run has kept first stays: when it comes by again, the object may hold what it wrote itself. A connection that breaks
    /// ends what the script reads: a part of the content gets no name.
    pub(super) async fn keep(
        &self,
        peer: &Peer<'_>,
        file_name: &str,
        content: &[u8],
    ) -> Result<(), StepError> {
        let directory = quote(&peer.planned.kubernetes_directory);
        let file_name = quote(file_name);
        let script = format!(
            "{RUN_VARIABLE}={}\n\
             set -eu\numask 077\n\
             mkdir -p {directory}/.certroll/\"${RUN_VARIABLE}\"\n\
             cd {directory}/.certroll/\"${RUN_VARIABLE}\"\n\
             if [ -e {file_name} ]; then echo kept >&2\n\
             else\n  \
             cat >{file_name}.new\n  \
             case $(cksum <{file_name}.new) in\n  \
             *' {size}') ;;\n  \
             *) rm -f {file_name}.new; echo 'a part of it arrived' >&2; exit 1 ;;\n  \
             esac\n  \
             {settled}\n  \
             mv -f {file_name}.new {file_name}\n  \
             {settled}\n\
             fi\n\
             cat {file_name}",
            self.run.holder.run,
            size = content.len(),
            settled = settle(".")
        );
        let command = Command::new(script).with_stdin(Zeroizing::new(content.to_vec()));
        let output = peer
            .session
            .run(&command, &peer.planned.access, &peer.node.docker_socket)
            .await
            .map_err(|error| StepError::of_transport(&error))?;
        if !output.succeeded() {
            return Err(StepError::new(format!("the old state could not be kept: {}", output.stderr_text())));
        }
        let is_kept_before = output.stderr_text().lines().any(|line| line == "kept");
        if is_kept_before && JsonText::parse(&output.stdout).is_err() {
            return Err(StepError::new("what the run has kept of the old state before is torn")
                .hint("did the node lose power? nothing was written into the API: make a new plan"));
        }
        if !is_kept_before && output.stdout.as_slice() != content {
            return Err(StepError::new("the old state was kept, but another content is read back")
                .hint("is the disk full or failing? nothing was written into the API"));
        }
        Ok(())
    }

    /// Writes new certificates into rke's state file on the bastion.
    pub(super) async fn update_state_file(&self, path: &str, names: &[String]) -> Result<Outcome, StepError> {
        let issued = self.issued().await?;
        let Some(mut file) = StateFile::open(path.into()).map_err(|error| on_bastion(&error))? else {
            return Ok(Outcome::Unneeded { message: format!("`{path}` is not there any more") });
        };
        of_this_cluster(&file.state, issued, path)?;
        let old = file.state.to_compact();
        replace(&mut file.state, names, issued)?;
        if file.state.to_compact() == old {
            return Ok(Outcome::Unneeded { message: format!("`{path}` has them already") });
        }
        let backup = file.write(&self.run.holder.run).map_err(|error| on_bastion(&error))?;
        Ok(told(path, backup.as_ref()))
    }

    /// Writes the new kube-admin pair into the bastion's kubeconfig file, or makes the file.
    pub(super) async fn update_kube_config(&self, path: &str, server: &str) -> Result<Outcome, StepError> {
        let issued = self.issued().await?;
        let pair = issued.pair(KUBE_ADMIN)?;
        let key =
            pair.key_pem.as_ref().ok_or_else(|| StepError::new("the key of kube-admin was not made"))?;
        let certificate = pair.certificate.to_pem();
        let file = if let Some(mut file) =
            KubeConfigFile::open(path.into()).map_err(|error| on_bastion(&error))?
        {
            if file.summary().authority.as_ref() != Some(&issued.authority.sha256) {
                return Err(StepError::new(format!("`{path}` is of another cluster: it was left as it is"))
                    .hint("move it away; certroll then makes a new one"));
            }
            if !file.replace(&certificate, key).map_err(|error| on_bastion(&error))? {
                return Ok(Outcome::Unneeded { message: format!("`{path}` has the pair already") });
            }
            file
        } else {
            let authority_pem = issued.authority.to_pem();
            let cluster =
                ClusterAddress { server, name: &self.run.plan.cluster, authority_pem: &authority_pem };
            KubeConfigFile::make(path.into(), cluster, &certificate, key)
                .map_err(|error| on_bastion(&error))?
        };
        let backup = file.write(&self.run.holder.run).map_err(|error| on_bastion(&error))?;
        Ok(told(path, backup.as_ref()))
    }
}

/// Returns an error about a file of the bastion as that of a step.
pub(super) fn on_bastion(error: &WorkstationError) -> StepError {
    let hint = error.hint();
    StepError::new(super::chain(error)).hint(hint)
}

/// Says what was written.
fn told(path: &str, backup: Option<&BackupPath>) -> Outcome {
    let message = match backup {
        Some(backup) => format!("`{path}` written; the old one is `{}`", backup.as_path().display()),
        None => format!("`{path}` made"),
    };
    Outcome::Done { message }
}

/// A state of another CA is another cluster's: it is never written to.
pub(super) fn of_this_cluster(state: &FullState, issued: &Issued, place: &str) -> Result<(), StepError> {
    let found = state.authority().map(|authority| authority.sha256);
    if found.as_ref() == Some(&issued.authority.sha256) {
        return Ok(());
    }
    Err(StepError::new(format!("`{place}` is of another CA: it was left as it is"))
        .hint("the next `rke up` would believe it: move it away"))
}

/// Puts the new pairs into a state.
fn replace(state: &mut FullState, names: &[String], issued: &Issued) -> Result<(), StepError> {
    for name in names {
        let pair = issued.pair(name)?;
        let key = pair.key_pem.as_ref().map(|key| key.as_str());
        state.replace(name, &pair.certificate.to_pem(), key);
    }
    Ok(())
}

/// What became of an object in the API.
enum Object {
    /// It is not there.
    Absent,
    /// It has the new certificates already.
    Same,
    /// It was written; how people call it.
    Written(String),
}

/// Why an object was not written.
enum Written {
    /// Somebody else has written it in between.
    Conflict,
    /// Something else.
    Failed(StepError),
}

impl From<KubeError> for Written {
    fn from(error: KubeError) -> Self {
        match error {
            KubeError::Conflict { .. } => Self::Conflict,
            error => Self::Failed(StepError::new(super::chain(&error))),
        }
    }
}

impl From<StepError> for Written {
    fn from(error: StepError) -> Self {
        Self::Failed(error)
    }
}

impl From<Written> for StepError {
    fn from(written: Written) -> Self {
        match written {
            Written::Conflict => {
                Self::new("kube-system/full-cluster-state is written by somebody else again and again")
            }
            Written::Failed(error) => error,
        }
    }
}
