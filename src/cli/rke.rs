//! What `--via rke` is planned from: the program, its files beside the cluster.yml, and what it will not hear of.

use std::path::Path;

use super::arguments::RkeOptions;
use super::failure::{FAILED, Failure, USAGE};
use super::settings::{Settings, search_path};
use crate::inventory::Inventory;
use crate::plan::{Rke, RkeAgent};
use crate::workstation::{bastion_files, find_rke, rke_files};

/// Finds rke and looks at what it works with.
pub(super) async fn target(
    settings: &Settings,
    inventory: &Inventory,
    options: &RkeOptions,
) -> Result<Rke, Failure> {
    let is_file = settings.config() != Path::new("-");
    let config = std::path::absolute(settings.config()).map_err(|error| Failure::new(FAILED, error))?;
    let config = if is_file { config.as_path() } else { settings.config() };
    let bastion = bastion_files(config).map_err(|error| {
        let hint = error.hint();
        Failure::new(USAGE, error).hint(hint.to_owned())
    })?;
    let common = &settings.common;
    let is_agent_known = inventory.nodes.iter().all(|node| node.ssh.agent);
    let given = [
        ("--ssh-user", common.ssh_user.is_some()),
        ("--ssh-key", common.ssh_key.is_some()),
        ("--jump", common.jump.is_some()),
    ];
    Ok(Rke {
        program: find_rke(options.rke_binary.as_deref(), search_path().as_deref()).await,
        config: is_file.then(|| config.to_owned()),
        bastion,
        files: rke_files(config),
        agent: if common.ssh_agent && !is_agent_known { RkeAgent::Asked } else { RkeAgent::AsConfigured },
        own_login: given.iter().filter(|(_, given)| *given).map(|(name, _)| format!("`{name}`")).collect(),
    })
}
