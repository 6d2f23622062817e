use std::path::Path;

use zeroize::Zeroizing;

use super::{FAILED, Imported, REFUSED, USAGE};
use crate::cli::arguments::ImportKubeconfig;
use crate::cli::failure::Failure;
use crate::inventory::{Draft, DraftMachine, Role};
use crate::kube::{Remote, RemoteError, RemoteIdentity, RemoteNode};
use crate::pki::{Access, Credentials, Material, SavedState};
use crate::workstation::{WorkstationError, read_secret};

/// Asks the API server of a kubeconfig.
pub(super) async fn read(arguments: &ImportKubeconfig) -> Result<Imported, Failure> {
    let path = &arguments.file;
    let access = access(path, arguments.context.as_deref())?;
    let remote = remote(path, &access)?;
    let known = remote.nodes().await.map_err(|error| failure(FAILED, error))?;
    roles_are_known(&known)?;
    let mut notes = Vec::new();
    let mut draft = match remote.cluster_state().await {
        Ok(Some(state)) => of_state(&state, &mut notes),
        Ok(None) => {
            notes.push(
                "the cluster holds no `full-cluster-state`, so users, ports and keys are not known"
                    .to_owned(),
            );
            Draft::default()
        }
        Err(error) => {
            notes.push(format!(
                "rke's state in the cluster cannot be read, so users, ports and keys are not known: {error}"
            ));
            Draft::default()
        }
    };
    notes.extend(super::rkestate::notes(&draft));
    join(&mut draft, &known, &mut notes);
    if draft.cluster_name.is_none() {
        draft.cluster_name = Some(access.cluster.clone());
    }
    if draft.kubernetes_version.is_none() {
        let of_control_plane = known.iter().find(|node| node.roles.contains(&Role::ControlPlane));
        draft.kubernetes_version = of_control_plane.and_then(|node| node.kubelet_version.clone());
    }
    let origin = format!("the API server {}", access.server);
    Ok(Imported { draft, origin, notes, keys: Vec::new(), unfetched: Vec::new() })
}

fn access(path: &Path, context: Option<&str>) -> Result<Access, Failure> {
    let text = secret(path)?;
    let text = std::str::from_utf8(&text)
        .map_err(|_| Failure::usage(format!("`{}` is not UTF-8 text", path.display())))?;
    Access::parse(text, context).map_err(|error| {
        let hint = error.hint().to_owned();
        Failure::usage(format!("`{}` cannot be used: {error}", path.display())).hint(hint)
    })
}

/// Makes the client; certificates, keys and tokens in files of their own are read beside the kubeconfig.
fn remote(path: &Path, access: &Access) -> Result<Remote, Failure> {
    let bytes = |material: &Material| match material {
        Material::Embedded(bytes) => Ok(bytes.clone()),
        Material::File(file) => secret(&path.parent().unwrap_or(Path::new("")).join(file)),
    };
    let authority = access.authority.as_ref().map(bytes).transpose()?;
    let identity = match &access.credentials {
        Credentials::Certificate { certificate, key } => {
            let (certificate, key) = (bytes(certificate)?, bytes(key)?);
            let mut pem = Zeroizing::new(Vec::with_capacity(certificate.len() + key.len() + 1));
            pem.extend_from_slice(&certificate);
            pem.push(b'\n');
            pem.extend_from_slice(&key);
            RemoteIdentity::Certificate(pem)
        }
        Credentials::Token(token) => {
            let bytes = bytes(token)?;
            let text = std::str::from_utf8(&bytes).map_err(|_| Failure::usage("the token is not text"))?;
            RemoteIdentity::Token(Zeroizing::new(text.trim().to_owned()))
        }
    };
    let authority = authority.as_ref().map(|pem| pem.as_slice());
    Remote::new(&access.server, authority, identity).map_err(|error| failure(USAGE, error))
}

fn secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    read_secret(path).map_err(|error| {
        let hint = WorkstationError::hint(&error).to_owned();
        Failure::new(USAGE, error).hint(hint)
    })
}

fn failure(status: u8, error: RemoteError) -> Failure {
    let hint = error.hint().to_owned();
    Failure::new(status, error).hint(hint)
}

/// Refuses a cluster whose nodes do not say what they are: RKE labels every one.
fn roles_are_known(nodes: &[RemoteNode]) -> Result<(), Failure> {
    let unknown: Vec<&str> =
        nodes.iter().filter(|node| node.roles.is_empty()).map(|node| node.name.as_str()).collect();
    if unknown.is_empty() && !nodes.is_empty() {
        return Ok(());
    }
    let message = if nodes.is_empty() {
        "the cluster has no nodes".to_owned()
    } else {
        format!("no role of RKE is on {}", unknown.join(", "))
    };
    Err(Failure::message(REFUSED, message).hint(
        "RKE labels its nodes `node-role.kubernetes.io/controlplane`, `etcd` and `worker`: is it a cluster of RKE?"
            .to_owned(),
    ))
}

/// Returns what the state says; where it cannot be read, that is noted.
fn of_state(state: &SavedState, notes: &mut Vec<String>) -> Draft {
    match state.configuration().map(Draft::from_json) {
        Some(Ok(draft)) => draft,
        Some(Err(error)) => {
            notes.push(format!("of `full-cluster-state` only the certificates can be read: {error}"));
            Draft::default()
        }
        None => Draft::default(),
    }
}

/// Makes the nodes those of the API, each with what the state knows of it.
fn join(draft: &mut Draft, found: &[RemoteNode], notes: &mut Vec<String>) {
    let had_state = !draft.nodes.is_empty();
    let mut known = std::mem::take(&mut draft.nodes);
    for node in found {
        let is_it = |machine: &DraftMachine| {
            machine.is_known_as(&node.name)
                || node.address.as_deref().is_some_and(|address| machine.is_known_as(address))
        };
        let place = known.iter().position(is_it);
        if place.is_none() && had_state {
            notes.push(format!("{} is not in rke's state, so its user and key are not known", node.name));
        }
        let mut machine = place.map(|place| known.remove(place)).unwrap_or_default();
        machine.hostname_override = Some(node.name.clone());
        if machine.address.is_none() {
            machine.address.clone_from(&node.address);
            machine.internal_address.clone_from(&node.internal_address);
        }
        machine.set_roles(&node.roles);
        draft.nodes.push(machine);
    }
    for machine in known {
        notes.push(format!("{} is in rke's state and not in the cluster; it was left out", machine.name()));
    }
}
