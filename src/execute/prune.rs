use std::collections::BTreeMap;

use futures::StreamExt as _;

use crate::facts::Facts;
use crate::gather::Gatherer;
use crate::inventory::NodeName;
use crate::plan::{Fate, RunBackups, prune_command};

/// Removes the backups that go from the nodes that have them, and returns why where it did not work.
pub async fn prune_backups(
    gatherer: &Gatherer,
    facts: &Facts,
    runs: &[RunBackups],
    parallel: usize,
) -> Vec<(NodeName, String)> {
    let mut by_node: BTreeMap<&NodeName, Vec<&str>> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.fate == Fate::Goes) {
        for (node, _) in &run.places {
            by_node.entry(node).or_default().push(&run.run);
        }
    }
    let removals = by_node.into_iter().map(|(name, runs)| async move {
        remove(gatherer, facts, name, &runs).await.err().map(|error| (name.clone(), error))
    });
    let failed: Vec<Option<(NodeName, String)>> =
        futures::stream::iter(removals).buffer_unordered(parallel.max(1)).collect().await;
    failed.into_iter().flatten().collect()
}

async fn remove(gatherer: &Gatherer, facts: &Facts, name: &NodeName, runs: &[&str]) -> Result<(), String> {
    let node = gatherer.inventory().node(name);
    let seen = facts.node(name).and_then(|node| node.observation());
    let (Some(node), Some(seen)) = (node, seen) else { return Err("the node was not seen".to_owned()) };
    let session = gatherer.connect(node).await.map_err(|error| error.to_string())?;
    let command = prune_command(&seen.kubernetes_directory, runs);
    let output = session.run(&command, &seen.access, &node.docker_socket).await;
    session.close().await;
    let output = output.map_err(|error| error.to_string())?;
    if output.succeeded() { Ok(()) } else { Err(output.stderr_text()) }
}
