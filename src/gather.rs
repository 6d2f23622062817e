//! The gatherer looks at nodes and returns facts: one connection and one probe a node, then what its ports serve.
//!
//! The face uses it for `check` and `plan`, `execute` to look again. An unreachable node is a fact, never an error.

mod agent;
mod backup;
mod ports;
mod readiness;

pub(crate) use ports::health_of as component_health;
pub(crate) use readiness::{api_nodes, readiness, status_of};

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Clock;
use crate::command::{BecomeRoot, Body, Output, Search};
use crate::facts::probe::{KeyReading, Probe, ProbeError, first_words, is_of_windows, read};
use crate::facts::{Facts, NodeFacts, Observation, Standing, Unseen};
use crate::inventory::{Inventory, Node, Role};
use crate::transport::{Approach, FanOut, Next, Session, Transport, TransportError};

/// How nodes are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How many connections may be open at a time.
    pub parallel: usize,
    /// How much of a private key may be read.
    pub keys: KeyReading,
    /// Which ways to root may be tried.
    pub become_root: BecomeRoot,
    /// The clock that a node's is compared with.
    pub clock: Clock,
}

/// Looks at the nodes of one inventory.
#[derive(Clone)]
pub struct Gatherer {
    inventory: Arc<Inventory>,
    transport: Arc<Transport>,
    settings: Settings,
    pings: Pings,
}

/// Whether nodes ask Rancher for its `/ping`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pings {
    /// They do; `check` alone has a use for it.
    Asked,
    /// They do not: a run looks again and again.
    Omitted,
}

impl Gatherer {
    /// Returns a gatherer for the nodes of an inventory.
    pub fn new(inventory: Arc<Inventory>, transport: Arc<Transport>, settings: Settings) -> Self {
        Self { inventory, transport, settings, pings: Pings::Omitted }
    }

    /// Has every node with a Rancher agent ask Rancher, too, where the agent would.
    #[must_use]
    pub fn asking_rancher(self) -> Self {
        Self { pings: Pings::Asked, ..self }
    }

    /// Returns the inventory whose nodes it looks at.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Looks at some nodes and returns what was seen, in their order; `seen` is told of each as it comes.
    pub async fn gather(&self, nodes: &[&Node], mut seen: impl FnMut(&NodeFacts)) -> Facts {
        let observed_at = self.settings.clock.now();
        let fan_out = FanOut::new(Arc::clone(&self.transport), self.settings.parallel);
        let mut found: Vec<Option<NodeFacts>> = nodes.iter().map(|_| None).collect();
        let look = async |(index, node): (usize, &&Node)| (index, self.look(node, &fan_out).await);
        let note = |(index, facts): (usize, NodeFacts)| {
            seen(&facts);
            if let Some(place) = found.get_mut(index) {
                *place = Some(facts);
            }
        };
        fan_out.each(nodes.iter().enumerate(), look, note).await;
        Facts { observed_at, nodes: found.into_iter().flatten().collect() }
    }

    /// Connects to a node, looks at it, and closes the connection.
    async fn look(&self, node: &Node, fan_out: &FanOut) -> NodeFacts {
        if let Some(label) = node.windows_label() {
            let evidence = format!("its label `{label}` says so");
            return facts_of(node, Err(Unseen::windows(&evidence)));
        }
        let result = match fan_out.connect(node).await {
            Ok(session) => {
                let mut result = self.observe(node, &session).await;
                if let Ok(observation) = &mut result
                    && self.pings == Pings::Asked
                {
                    agent::ask_rancher(&session, observation).await;
                }
                session.close().await;
                result
            }
            Err(TransportError::Windows { identification, .. }) if node.roles == [Role::Worker] => {
                Err(Unseen::windows(&format!("its SSH server is `{identification}`")))
            }
            Err(error) => Err(unseen(&error, matches!(error, TransportError::Windows { .. }))),
        };
        facts_of(node, result)
    }

    /// Connects to a node.
    pub async fn connect(&self, node: &Node) -> Result<Session, TransportError> {
        self.transport.connect(node).await
    }

    /// Looks at a node over a connection that is there.
    pub async fn observe(&self, node: &Node, session: &Session) -> Result<Observation, Unseen> {
        let mut observation = self.probe(node, session).await?;
        let version = self.inventory.kubernetes_version.as_deref();
        let (served, health) = futures::future::join(
            ports::served(&self.inventory, node, session, &observation),
            ports::health(node, session, &observation, version),
        )
        .await;
        observation.served = served;
        observation.health.extend(health);
        Ok(observation)
    }

    /// Runs the probe and reads its answer.
    async fn probe(&self, node: &Node, session: &Session) -> Result<Observation, Unseen> {
        let marker = format!("certroll-{}", self.settings.clock.now().as_nanosecond());
        let probe = Probe {
            node,
            prefix_path: &self.inventory.prefix_path,
            keys: self.settings.keys,
            become_root: self.settings.become_root,
            marker: &marker,
        };
        let (output, midway) = self.ask(session, &probe).await.map_err(|error| unseen(&error, true))?;
        // What a shell that cannot run anything has to say, it may say on either.
        let (stdout, stderr) = (output.stdout_text(), output.stderr_text());
        let stderr = first_words(stderr.trim().lines().next().unwrap_or_default());
        match read(&stdout, &marker, midway) {
            Ok(observation) => Ok(observation),
            Err(ProbeError::NotRun(said)) => {
                let said = if said.is_empty() { stderr } else { said };
                if node.roles == [Role::Worker] && is_of_windows(&said) {
                    return Err(Unseen::windows(&format!("its shell says `{said}`")));
                }
                Err(unread(&ProbeError::NotRun(said), String::new()))
            }
            Err(ProbeError::NoAccess(mut refused)) if !stderr.is_empty() => {
                let _ = write!(refused.reasons, " ({stderr})");
                Err(unread(&ProbeError::NoAccess(refused), String::new()))
            }
            Err(error) => Err(unread(&error, stderr)),
        }
    }

    /// Runs the probe, in the way that the node's answers ask for; returns the answer, and our time when the node read its clock.
    async fn ask(&self, session: &Session, probe: &Probe<'_>) -> Result<(Output, Timestamp), TransportError> {
        let body = probe.body();
        let mut approach = Approach::new(session, probe.ways());
        loop {
            let script = approach.script(Body::Look(&body));
            let asked_at = self.settings.clock.now();
            let output = session.run_line(&script, Some(&approach.stdin(&[])), None).await?;
            let midway = midway(asked_at, self.settings.clock.now());
            let search = Search::read(&output.stdout_text(), probe.marker);
            if approach.learn(&search).await? == Next::Done {
                return Ok((output, midway));
            }
        }
    }
}

/// Returns an answer that cannot be used as a fact, with what came on stderr.
fn unread(error: &ProbeError, stderr: String) -> Unseen {
    let said = if stderr.is_empty() { stderr } else { format!(" ({stderr})") };
    Unseen::fault(true, format!("{error}{said}"), error.hint())
}

/// Returns the moment between two others: when the node read its clock, as far as that can be told.
fn midway(before: Timestamp, after: Timestamp) -> Timestamp {
    before + after.duration_since(before) / 2
}

/// Returns a failure to connect or to run the probe as a fact.
fn unseen(error: &TransportError, reachable: bool) -> Unseen {
    Unseen::fault(reachable, error.to_string(), error.hint())
}

/// Returns the facts of a node.
pub fn facts_of(node: &Node, result: Result<Observation, Unseen>) -> NodeFacts {
    NodeFacts {
        name: node.name.clone(),
        address: node.address.clone(),
        roles: node.roles.clone(),
        result,
        standing: Standing::default(),
    }
}

/// How long one question to a port may take.
pub(crate) const PORT_TIMEOUT: Duration = Duration::from_secs(5);
