use std::path::Path;

use super::{Imported, USAGE};
use crate::cli::failure::Failure;
use crate::inventory::Draft;
use crate::pki::{SavedState, SavedStateError};
use crate::workstation::{WorkstationError, read_secret};

/// Reads a state of rke, or the configuration that rke v0.1.x keeps.
pub(super) fn read(path: &Path) -> Result<Imported, Failure> {
    let text = read_secret(path).map_err(|error| {
        let hint = WorkstationError::hint(&error).to_owned();
        Failure::new(USAGE, error).hint(hint)
    })?;
    let file = if path == Path::new("-") { "stdin".to_owned() } else { format!("`{}`", path.display()) };
    let draft = configuration(&text).map_err(|cause| {
        Failure::message(USAGE, format!("{file} holds no configuration of a cluster: {cause}")).hint(
            "name a `cluster.rkestate`, what `kubectl -n kube-system get configmap full-cluster-state -o yaml` prints, or the `cluster-state.yml` of rke v0.1.x"
                .to_owned(),
        )
    })?;
    let notes = notes(&draft);
    Ok(Imported {
        draft,
        origin: format!("rke's state in {file}"),
        notes,
        keys: Vec::new(),
        unfetched: Vec::new(),
    })
}

/// Reads the configuration out of a state in any form.
fn configuration(text: &[u8]) -> Result<Draft, String> {
    let state = match SavedState::parse(text) {
        Ok(state) => state,
        Err(SavedStateError::ConfigurationAlone | SavedStateError::ClusterFile) => {
            return crate::pki::legacy_configuration(text)
                .ok_or_else(|| "it is not text".to_owned())
                .and_then(|text| Draft::from_yaml(&text).map_err(|error| error.to_string()));
        }
        Err(error) => return Err(error.to_string()),
    };
    let configuration = state.configuration().ok_or("it holds certificates alone")?;
    Draft::from_json(configuration).map_err(|error| error.to_string())
}

/// Returns what was left out.
pub(super) fn notes(draft: &Draft) -> Vec<String> {
    let mut notes: Vec<String> = draft
        .inline_keys()
        .map(|machine| {
            let name = machine.name();
            format!("the private key of {name} is in the configuration itself (`ssh_key`) and was not copied: keep it in a file and name that (`ssh_key_path`)")
        })
        .collect();
    if draft.withholds_etcd_key() {
        notes
            .push("the client key of the external etcd was not copied; certroll does not need it".to_owned());
    }
    notes
}
