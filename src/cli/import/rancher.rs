use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use zeroize::Zeroizing;

use super::{Imported, lack};
use crate::cli::arguments::ImportRancher;
use crate::cli::failure::{Failure, REFUSED, USAGE};
use crate::cli::rancher::{client, failure};
use crate::cli::terminal::Terminal;
use crate::inventory::{Draft, DraftMachine};
use crate::rancher::{Client, Cluster, LaunchedMachine, RancherError};

/// How many archives are asked for at a time.
const PARALLEL: usize = 8;

/// How often an archive is asked for that Rancher cannot give at the moment.
const TRIES: usize = 4;

/// How long the first pause between two tries is; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How long a pause may be that Rancher asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

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
    // Nodes in it are among Rancher's machines, which know more.
    draft.nodes.clear();
    draft.cluster_name = Some(cluster.name.clone());
    // Paths of Rancher's own machine mean nothing here.
    draft.ssh_key_path = None;
    draft.ssh_cert_path = None;
    draft.ssh_agent_auth = false;
    let mut imported = Imported {
        notes: super::rkestate::notes(&draft),
        draft,
        origin: format!("cluster {} ({}) of {}", cluster.name, cluster.id, client.address()),
        keys: Vec::new(),
        unfetched: Vec::new(),
    };
    // Asked for when the first key is there: without one no folder is needed, whatever the cluster is called.
    let folder = || keys_folder(arguments, &cluster.name);
    add(&client, &launched.machines, folder, &mut imported).await?;
    imported.draft.nodes.sort_by(|left, right| left.name().cmp(right.name()));
    Ok(imported)
}

/// Adds the machines that are set up, each with its key where Rancher gives it.
async fn add(
    client: &Client,
    machines: &[LaunchedMachine],
    folder: impl Fn() -> Result<PathBuf, Failure>,
    imported: &mut Imported,
) -> Result<(), Failure> {
    let mut found = Vec::new();
    for machine in machines {
        let node = node(machine);
        match lack(&node) {
            Some(lack) => {
                imported.notes.push(format!("{} has {lack} yet ({}): left out", machine.name, machine.state));
            }
            None => found.push((machine, node)),
        }
    }
    let offers_some = machines.iter().any(|machine| machine.is_made_by_rancher && machine.offers_key());
    let mut looks = futures::stream::iter(found)
        .map(|(machine, node)| async move { (machine, node, key_of(client, machine).await) })
        .buffered(PARALLEL);
    while let Some((machine, mut node, key)) = looks.next().await {
        let name = &machine.name;
        match key {
            Ok(Some(key)) => imported.keys.push(kept(&mut node, &folder()?, key)?),
            Ok(None) if !machine.is_made_by_rancher => {}
            Ok(None) if offers_some => imported.notes.push(format!("Rancher offers no key of {name} (yet)")),
            Ok(None) => imported.notes.push(format!(
                "Rancher made {name} and gives its key to owners of the cluster alone; this token's user is none"
            )),
            Err(error) => {
                imported.notes.push(format!("the key of {name} cannot be had from Rancher: {error}"));
                imported.unfetched.push(name.clone());
            }
        }
        imported.draft.nodes.push(node);
    }
    Ok(())
}

/// Asks for the key of a machine; a Rancher that is busy or restarts is asked again.
async fn key_of(
    client: &Client,
    machine: &LaunchedMachine,
) -> Result<Option<Zeroizing<String>>, RancherError> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match client.machine_key(machine).await {
            Err(error) if error.is_transient() => {
                let asked = match error {
                    RancherError::Unavailable { retry_after, .. } => retry_after,
                    _ => None,
                };
                tokio::time::sleep(asked.unwrap_or(pause).min(LONGEST_PAUSE)).await;
                pause *= 2;
            }
            answer => return answer,
        }
    }
    client.machine_key(machine).await
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
        if !is_file_name(cluster) {
            return Err(unfit(cluster).hint("name a folder for the keys with --keys DIR".to_owned()));
        }
        beside.join(format!("{cluster}-keys"))
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
    if !is_file_name(node.name()) {
        return Err(unfit(node.name())
            .hint("its key is kept under the node's name, and Kubernetes takes no such name: look at the node in Rancher".to_owned()));
    }
    let path = folder.join(node.name());
    let text = path
        .to_str()
        .ok_or_else(|| Failure::usage(format!("`{}` is not UTF-8, as a cluster.yml is", path.display())))?;
    node.ssh_key_path = Some(text.to_owned());
    Ok((path, key))
}

/// Returns whether a name that Rancher gave can be that of a file: it must not lead elsewhere.
fn is_file_name(name: &str) -> bool {
    let fits = |letter: char| letter.is_alphanumeric() || "-_. ".contains(letter);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(fits)
}

fn unfit(name: &str) -> Failure {
    Failure::message(REFUSED, format!("`{name}` cannot be the name of a file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_node_that_leads_elsewhere_is_refused_with_a_hint_of_its_own() {
        for name in ["../w-1", ".ssh", "a/b", ""] {
            let mut node =
                DraftMachine { hostname_override: Some(name.to_owned()), ..DraftMachine::default() };
            let error = kept(&mut node, Path::new("/keys"), Zeroizing::new(String::new())).unwrap_err();
            assert!(error.status == REFUSED && !error.text().contains("--keys"), "{}", error.text());
        }
    }
}
