use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use zeroize::Zeroizing;

use super::Imported;
use crate::cli::arguments::ImportRancher;
use crate::cli::failure::{Failure, REFUSED, USAGE};
use crate::cli::rancher::{client, failure};
use crate::cli::terminal::Terminal;
use crate::inventory::{Draft, DraftMachine};
use crate::rancher::{Client, Cluster, LaunchedMachine};

/// How many archives are asked for at a time.
const PARALLEL: usize = 8;

/// Asks Rancher for a cluster that it launched.
pub(super) async fn read(arguments: &ImportRancher, terminal: &Terminal) -> Result<Imported, Failure> {
    let client = client(&arguments.rancher, terminal).await?;
    let cluster = cluster(&client, arguments.rancher.rancher_cluster.as_deref()).await?;
    if !cluster.launched_by_rke {
        let driver = cluster.driver.as_deref().unwrap_or("nobody says what");
        let message = format!("Rancher did not launch `{}` with RKE (it is {driver})", cluster.name);
        return Err(Failure::message(REFUSED, message).hint(
            "RKE2 and K3s rotate certificates by themselves; a cluster that `rke` built is imported with `certroll import rkestate`"
                .to_owned(),
        ));
    }
    let launched = client.launched(&cluster).await.map_err(failure)?;
    let mut draft = match launched.configuration.as_deref() {
        Some(text) => Draft::from_json(text).map_err(|error| Failure::new(USAGE, error))?,
        None => Draft::default(),
    };
    let mut notes = super::rkestate::notes(&draft);
    draft.cluster_name = Some(cluster.name.clone());
    // Paths of Rancher's own machine mean nothing here.
    draft.ssh_key_path = None;
    draft.ssh_cert_path = None;
    draft.ssh_agent_auth = false;
    let folder = keys_folder(arguments, &cluster.name)?;
    let mut keys = Vec::new();
    let client = &client;
    let mut looks = futures::stream::iter(&launched.machines)
        .map(|machine| async move { (machine, client.machine_key(machine).await) })
        .buffered(PARALLEL);
    while let Some((machine, key)) = looks.next().await {
        let mut node = node(machine);
        match key {
            Ok(Some(key)) => keys.push(kept(&mut node, &folder, key)?),
            Ok(None) if machine.is_made_by_rancher => notes.push(format!(
                "Rancher made {} and gives its key to owners of the cluster alone; this token's user is none",
                machine.name
            )),
            Ok(None) => {}
            Err(error) => {
                notes.push(format!("the key of {} cannot be had from Rancher: {error}", machine.name));
            }
        }
        draft.nodes.push(node);
    }
    drop(looks);
    draft.nodes.sort_by(|left, right| left.name().cmp(right.name()));
    let origin = format!("cluster {} ({}) of {}", cluster.name, cluster.id, client.address());
    Ok(Imported { draft, origin, notes, keys })
}

/// Returns the cluster of a name or an id; without one, the names that there are.
async fn cluster(client: &Client, wanted: Option<&str>) -> Result<Cluster, Failure> {
    if let Some(wanted) = wanted {
        return client.find_cluster(wanted).await.map_err(failure);
    }
    let labels = client.cluster_labels().await.map_err(failure)?;
    let there = if labels.is_empty() { "none that this token can see".to_owned() } else { labels.join(", ") };
    Err(Failure::usage(format!("which cluster is to be imported? Rancher has {there}"))
        .hint("give --rancher-cluster NAME, or an id such as c-x7k2p".to_owned()))
}

fn node(machine: &LaunchedMachine) -> DraftMachine {
    let mut node = DraftMachine {
        address: machine.address.clone(),
        internal_address: machine.internal_address.clone(),
        hostname_override: Some(machine.name.clone()),
        user: machine.user.clone(),
        port: machine.port.clone().filter(|port| port != "22"),
        ..DraftMachine::default()
    };
    node.set_roles(&machine.roles);
    node
}

/// Returns where the keys go: an absolute path, for the cluster.yml is used from anywhere.
fn keys_folder(arguments: &ImportRancher, cluster: &str) -> Result<PathBuf, Failure> {
    let folder = if let Some(folder) = &arguments.keys {
        folder.clone()
    } else {
        let beside = arguments.output.save.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        beside.join(format!("{}-keys", file_name(cluster)?))
    };
    std::path::absolute(&folder)
        .map_err(|error| Failure::usage(format!("`{}` cannot be used: {error}", folder.display())))
}

/// Gives a node the file that its key will lie in.
fn kept(
    node: &mut DraftMachine,
    folder: &Path,
    key: Zeroizing<String>,
) -> Result<(PathBuf, Zeroizing<String>), Failure> {
    let path = folder.join(file_name(node.name())?);
    let text = path
        .to_str()
        .ok_or_else(|| Failure::usage(format!("`{}` is not UTF-8, as a cluster.yml is", path.display())))?;
    node.ssh_key_path = Some(text.to_owned());
    Ok((path, key))
}

/// Returns a name that Rancher gave as that of a file: it must not lead elsewhere.
fn file_name(name: &str) -> Result<&str, Failure> {
    let fits = |letter: char| letter.is_alphanumeric() || "-_. ".contains(letter);
    if !name.is_empty() && !name.starts_with('.') && name.chars().all(fits) {
        Ok(name)
    } else {
        Err(Failure::message(REFUSED, format!("`{name}` cannot be the name of a file"))
            .hint("name a folder for the keys with --keys DIR".to_owned()))
    }
}
