//! The look at backups: one connection and one command a node, which changes nothing there.

use futures::StreamExt as _;

use super::{Gatherer, unseen};
use crate::facts::backup::{BackupLook, Backups, NodeBackup};
use crate::facts::{Facts, Observation, Unseen};
use crate::inventory::Node;

impl Gatherer {
    /// Looks at what a run has saved on every node that was seen; without a run, at the folders of all runs alone.
    ///
    /// A node that was not seen stands in the answer with why.
    pub async fn backups(&self, facts: &Facts, run: Option<&str>) -> Backups {
        let looks = facts.nodes.iter().filter_map(|known| {
            let node = self.inventory.node(&known.name)?;
            Some(async move {
                let found = match &known.result {
                    Ok(seen) => self.look_at_backup(node, seen, run).await,
                    Err(unseen) => Err(unseen.clone()),
                };
                (known.name.clone(), found)
            })
        });
        futures::stream::iter(looks).buffer_unordered(self.settings.parallel).collect().await
    }

    async fn look_at_backup(
        &self,
        node: &Node,
        seen: &Observation,
        run: Option<&str>,
    ) -> Result<NodeBackup, Unseen> {
        let marker = format!("certroll-{}", self.settings.clock.now().as_nanosecond());
        let look = BackupLook { directory: &seen.kubernetes_directory, run, marker: &marker };
        let session = self.connect(node).await.map_err(|error| unseen(&error, false))?;
        let output = session.run(&look.command(), &seen.access, &node.docker_socket).await;
        session.close().await;
        let output = output.map_err(|error| unseen(&error, true))?;
        look.read(&output.stdout_text()).ok_or_else(|| {
            let error = format!("the look at its backups broke off: {}", output.stderr_text());
            Unseen::fault(true, error, None)
        })
    }
}
