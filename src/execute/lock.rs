//! The lock of a cluster is one file on each of its controlplane nodes, and a lease on it: the file's time of change, judged by
//! the node's own clock. Of two runs exactly one makes the file; whoever stops renewing the lease can be told from a live run.

use crate::command::{Command, quote, settle};
use crate::facts::{Facts, LEASE, Lock, LockHolder, NodeFacts, Observation};
use crate::gather::Gatherer;
use crate::inventory::{Node, NodeName, Role};
use crate::plan::{Majority, Plan};
use crate::transport::{Session, TransportError};

/// Why the lock of a cluster was not taken; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another run holds it.
    #[error("on {node}, {lock}")]
    Held {
        /// On which node.
        node: NodeName,
        /// Who holds it, and since when it was not renewed.
        lock: Lock,
    },
    /// Too few of the nodes were seen: another bastion may see the others.
    #[error("the lock can be taken on {reachable} of {of} controlplane nodes alone, which is no majority")]
    NoMajority {
        /// How many can be reached.
        reachable: usize,
        /// How many the plan names.
        of: usize,
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
            Self::Held { lock, .. } => Some(lock.hint()),
            Self::NoMajority { .. } => Some(
                "bring the others back; where they are down for good, and no other run can be at work, `--without-majority`"
                    .to_owned(),
            ),
            Self::Transport { source, .. } => source.hint(),
            Self::Refused { .. } => None,
        }
    }

    /// Returns whether somebody else or the cluster's state forbids it, so that there is nothing to put right on the way there.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Held { .. } | Self::NoMajority { .. })
    }
}

/// What becomes of a lock that lies on a node already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim<'a> {
    /// It is respected.
    Fresh,
    /// It is taken away from this run, if its lease has ended (`--break-lock`).
    Breaks(&'a str),
    /// It is taken over whatever its age, if it is this very run's (`--resume`): the caller knows that its process is dead. That
    /// of another run is taken away as by [`Claim::Breaks`] where one is named: each may lie on other nodes.
    Adopts(Option<&'a str>),
}

/// The status of the script when somebody else has the lock.
const HELD: u32 = 75;

/// Takes the lock of a cluster on the controlplane nodes of a plan that were seen, or on none of them.
///
/// Two runs that begin at once meet at the first node, in an order that depends on neither's inventory; the one that gets it asks
/// the rest side by side. Nobody waits for anybody, so there is no deadlock: where two runs see different first nodes, both may be
/// refused, but never can both win.
pub async fn take(
    gatherer: &Gatherer,
    facts: &Facts,
    plan: &Plan,
    holder: &LockHolder,
    claim: Claim<'_>,
) -> Result<(), LockError> {
    let mut places: Vec<_> = plan.lock_nodes.iter().filter_map(|name| seen(facts, name)).collect();
    places.sort_by(|(left, _), (right, _)| left.address.cmp(&right.address));
    let of = gatherer.inventory().with_role(Role::ControlPlane).count();
    if plan.majority == Majority::Needed && places.len() * 2 <= of {
        return Err(LockError::NoMajority { reachable: places.len(), of });
    }
    let mut taken: Vec<NodeName> = Vec::new();
    let (first, rest) = places.split_at_checked(1).unwrap_or((&places, &[]));
    for round in [first, rest] {
        // A connection may break after the file was made: that node gives it back too, if it holds ours.
        taken.extend(round.iter().map(|(node, _)| node.name.clone()));
        let answers = round.iter().map(|(node, seen)| {
            run(gatherer, node, seen, take_script(&seen.kubernetes_directory, holder, claim))
        });
        let failed = futures::future::join_all(answers).await.into_iter().find_map(Result::err);
        if let Some(error) = failed {
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

/// Prints who holds the lock: the node's time and the file's, then the file.
const SHOW: &str =
    "show() { printf '%s %s\\n' \"$(date +%s)\" \"$(stat -L -c %Y lock 2>/dev/null)\"; cat lock; }\n";

/// The file is written aside and linked into place: of two runs exactly one makes it, and it is never half written.
///
/// A lock is taken over under `lock.claim`, which is there only while this script runs: of two runs that break the same lock one finds
/// the other's in its place. One that is older than a lease was left by a node that lost its power.
fn take_script(directory: &str, holder: &LockHolder, claim: Claim<'_>) -> String {
    let text = quote(&document(holder));
    let own = quote(&format!("lock.{}.{}", holder.run, holder.pid));
    format!(
        "set -u\n\
         umask 077\n\
         {SHOW}\
         cd {} || exit 1\n\
         mkdir -p .certroll && chmod 700 .certroll && cd .certroll || exit 1\n\
         printf '%s\\n' {text} > {own} || exit 1\n\
         if ln {own} lock 2>/dev/null; then rm -f {own}; {settled}; exit 0; fi\n\
         {}\
         rm -f {own}\n\
         if [ -f lock ]; then show; exit {HELD}; fi\n\
         echo 'the file cannot be made' >&2\n\
         exit 1",
        quote(directory),
        takeover(&own, holder, claim),
        settled = settle(".")
    )
}

/// Returns the part of the script that replaces a lock in one go, where the claim allows it.
fn takeover(own: &str, holder: &LockHolder, claim: Claim<'_>) -> String {
    let (adopted, broken) = match claim {
        Claim::Fresh => return String::new(),
        Claim::Breaks(run) => (None, Some(run)),
        Claim::Adopts(broken) => (Some(holder.run.as_str()), broken.filter(|run| *run != holder.run)),
    };
    let lease = LEASE.as_secs();
    let pattern = |run: &str| quote(&format!("\"run\":\"{run}\""));
    // A claim outlives its script where its node lost its power just then. Of this very run it is dead, as its lock is.
    let dead = adopted.map(|run| format!("*{}*) rm -f lock.claim ;;\n  ", pattern(run))).unwrap_or_default();
    let arms = [(adopted, "true"), (broken, "ended lock")].into_iter().filter_map(|(run, condition)| {
        let pattern = pattern(run?);
        Some(format!(
            "*{pattern}*)\n  \
             if {condition} && mv -f {own} lock; then rm -f lock.claim; {}; exit 0; fi\n  \
             ;;\n",
            settle(".")
        ))
    });
    format!(
        // Without a time the age is none, and the lease lasts.
        "ended() {{\n  \
         now=$(date +%s) && renewed=$(stat -L -c %Y \"$1\") && age=$((now - renewed)) && \
         {{ [ \"$age\" -gt {lease} ] || [ \"$age\" -lt -{lease} ]; }}\n\
         }}\n\
         claimed() {{ ln {own} lock.claim 2>/dev/null; }}\n\
         if ! claimed; then\n  \
         case $(cat lock.claim) in\n  \
         {dead}\
         *) if ended lock.claim; then rm -f lock.claim; fi ;;\n  \
         esac\n  \
         if ! claimed; then\n    \
         rm -f {own}\n    \
         echo \"another run is taking this lock over; if none is, remove $(pwd)/lock.claim\" >&2\n    \
         exit 1\n  \
         fi\n\
         fi\n\
         case $(cat lock) in\n\
         {}\
         esac\n\
         rm -f lock.claim\n",
        arms.collect::<String>()
    )
}

/// Renews the lease where the lock is this attempt's; where somebody removed it, it is made again.
fn renew_script(directory: &str, holder: &LockHolder) -> String {
    let text = quote(&document(holder));
    let own = quote(&format!("lock.{}.{}", holder.run, holder.pid));
    format!(
        "set -u\n\
         umask 077\n\
         {SHOW}\
         cd {}/.certroll || exit 1\n\
         if [ ! -f lock ]; then\n  \
         printf '%s\\n' {text} > {own} || exit 1\n  \
         ln {own} lock 2>/dev/null\n  \
         rm -f {own}\n\
         fi\n\
         if [ \"$(cat lock)\" = {text} ]; then touch -c lock; exit; fi\n\
         show\n\
         exit {HELD}",
        quote(directory)
    )
}

/// Removes the lock of this attempt and no other.
fn release_script(directory: &str, holder: &LockHolder) -> String {
    let text = quote(&document(holder));
    format!(
        "cd {}/.certroll || exit 0\n\
         rm -f {}*\n\
         if [ -f lock ] && [ \"$(cat lock)\" = {text} ]; then rm -f lock; fi",
        quote(directory),
        // What an attempt left that was cut off before it linked its file into place.
        quote(&format!("lock.{}.", holder.run))
    )
}

/// Returns the lock's file: one line of JSON.
fn document(holder: &LockHolder) -> String {
    serde_json::to_string(holder).unwrap_or_default()
}

/// Runs a script of the lock over a connection of its own.
async fn run(
    gatherer: &Gatherer,
    node: &NodeFacts,
    seen: &Observation,
    script: String,
) -> Result<(), LockError> {
    let Some(target) = gatherer.inventory().node(&node.name) else { return Ok(()) };
    let failed = |source| LockError::Transport { node: node.name.clone(), source: Box::new(source) };
    let session = gatherer.connect(target).await.map_err(failed)?;
    let result = converse(&session, target, seen, script).await;
    session.close().await;
    result
}

/// Renews the lease on a node.
pub(super) async fn renew(
    session: &Session,
    node: &Node,
    seen: &Observation,
    holder: &LockHolder,
) -> Result<(), LockError> {
    converse(session, node, seen, renew_script(&seen.kubernetes_directory, holder)).await
}

/// Runs a script of the lock and reads its answer.
async fn converse(
    session: &Session,
    node: &Node,
    seen: &Observation,
    script: String,
) -> Result<(), LockError> {
    let output = session
        .run(&Command::new(script), &seen.access, &node.docker_socket)
        .await
        .map_err(|source| LockError::Transport { node: node.name.clone(), source: Box::new(source) })?;
    match output.status {
        Some(0) => Ok(()),
        Some(HELD) => {
            let text = output.stdout_text();
            let (times, file) = text.split_once('\n').unwrap_or((&text, ""));
            Err(LockError::Held { node: node.name.clone(), lock: Lock::read(file, times) })
        }
        _ => Err(LockError::Refused { node: node.name.clone(), said: output.stderr_text() }),
    }
}
