use crate::command::{Command, quote};
use crate::facts::{Facts, LockHolder, NodeFacts, Observation};
use crate::gather::Gatherer;
use crate::inventory::NodeName;
use crate::transport::TransportError;

/// Why the lock of a cluster was not taken; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another run holds it.
    #[error("{holder} holds the lock on {node} since {}", holder.since)]
    Held {
        /// On which node.
        node: NodeName,
        /// Who holds it.
        holder: LockHolder,
    },
    /// A node could not be asked.
    #[error("the lock on {node} could not be taken")]
    Transport {
        /// The node.
        node: NodeName,
        /// What went wrong.
        source: Box<TransportError>,
    },
    /// The node refused.
    #[error("the lock on {node} could not be taken: {said}")]
    Refused {
        /// The node.
        node: NodeName,
        /// What it said.
        said: String,
    },
}

impl LockError {
    /// Returns the way out.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Held { holder, .. } => {
                Some(format!("wait for it; if it is certainly dead, `--break-lock {}`", holder.run))
            }
            Self::Transport { source, .. } => source.hint(),
            Self::Refused { .. } => None,
        }
    }
}

/// The status of the script when somebody else has the lock.
const HELD: u32 = 75;

/// Takes the lock of a cluster on some nodes, or on none of them.
pub async fn take(
    gatherer: &Gatherer,
    facts: &Facts,
    nodes: &[NodeName],
    holder: &LockHolder,
    break_lock: Option<&str>,
) -> Result<(), LockError> {
    let mut taken: Vec<NodeName> = Vec::new();
    for name in nodes {
        let Some((node, seen)) = seen(facts, name) else { continue };
        let script = take_script(&seen.kubernetes_directory, holder, break_lock);
        // A connection may break after the file was made: that node gives it back too, if it holds ours.
        taken.push(name.clone());
        if let Err(error) = run(gatherer, node, seen, script).await {
            release(gatherer, facts, &taken, holder).await;
            return Err(error);
        }
    }
    Ok(())
}

/// Gives the lock back where this run still holds it, and returns the nodes where it could not.
pub async fn release(
    gatherer: &Gatherer,
    facts: &Facts,
    nodes: &[NodeName],
    holder: &LockHolder,
) -> Vec<NodeName> {
    let releases = nodes.iter().filter_map(|name| seen(facts, name)).map(|(node, seen)| async move {
        let script = release_script(&seen.kubernetes_directory, holder);
        run(gatherer, node, seen, script).await.is_err().then(|| node.name.clone())
    });
    futures::future::join_all(releases).await.into_iter().flatten().collect()
}

fn seen<'a>(facts: &'a Facts, name: &NodeName) -> Option<(&'a NodeFacts, &'a Observation)> {
    let node = facts.node(name)?;
    Some((node, node.observation()?))
}

/// The file is written aside and linked into place: of two runs exactly one makes it, and it is never half written.
fn take_script(directory: &str, holder: &LockHolder, break_lock: Option<&str>) -> String {
    let text = quote(&document(holder));
    let own = quote(&format!("lock.{}.{}", holder.run, holder.pid));
    let removal = break_lock.map(remove_if_held_by).unwrap_or_default();
    format!(
        "set -u\n\
         umask 077\n\
         cd {} || exit 1\n\
         mkdir -p .certroll && chmod 700 .certroll && cd .certroll || exit 1\n\
         {removal}\
         printf '%s\\n' {text} > {own} || exit 1\n\
         if ln {own} lock 2>/dev/null; then rm -f {own}; sync; exit 0; fi\n\
         rm -f {own}\n\
         if [ -f lock ]; then cat lock; exit {HELD}; fi\n\
         echo 'the file cannot be made' >&2\n\
         exit 1",
        quote(directory)
    )
}

fn release_script(directory: &str, holder: &LockHolder) -> String {
    format!("cd {}/.certroll || exit 0\n{}exit 0", quote(directory), remove_if_held_by(&holder.run))
}

/// Removes the lock of one run and of no other.
fn remove_if_held_by(run: &str) -> String {
    let pattern = quote(&format!("\"run\":\"{run}\""));
    format!("if [ -f lock ]; then case $(cat lock) in *{pattern}*) rm -f lock ;; esac; fi\n")
}

/// Returns the lock's file: one line of JSON.
fn document(holder: &LockHolder) -> String {
    serde_json::to_string(holder).unwrap_or_default()
}

async fn run(
    gatherer: &Gatherer,
    node: &NodeFacts,
    seen: &Observation,
    script: String,
) -> Result<(), LockError> {
    let Some(target) = gatherer.inventory().node(&node.name) else { return Ok(()) };
    let failed = |source| LockError::Transport { node: node.name.clone(), source: Box::new(source) };
    let session = gatherer.connect(target).await.map_err(failed)?;
    let result = session.run(&Command::new(script), &seen.access, &target.docker_socket).await;
    session.close().await;
    let output = result.map_err(failed)?;
    match output.status {
        Some(0) => Ok(()),
        Some(HELD) => Err(LockError::Held {
            node: node.name.clone(),
            holder: crate::facts::probe::lock_holder(&output.stdout_text()),
        }),
        _ => Err(LockError::Refused { node: node.name.clone(), said: output.stderr_text() }),
    }
}
