//! What `docker inspect` told the probe of RKE's containers and of Rancher's agent, as facts.
//!
//! A container has a line of columns with tabs between; what only some have follows on lines of their own, which begin with a word
//! and the container's name.

use jiff::Timestamp;
use serde::Deserialize;

use super::{Frame, text_of};
use crate::facts::{Agent, CATTLE_NODE_AGENT, Container};

/// What was inspected.
#[derive(Debug, Default)]
pub(super) struct Inspected {
    pub(super) containers: Vec<Container>,
    /// The value of kube-apiserver's `--service-account-key-file`.
    pub(super) service_account_key_file: Option<String>,
    /// Rancher's agent: the first that docker lists, for the newest comes first.
    pub(super) agent: Option<Agent>,
}

impl Inspected {
    /// Reads the frame of containers and that of the agent's log.
    pub(super) fn read(frames: &[Frame<'_>]) -> Self {
        let lines =
            || frames.iter().filter(|frame| frame.kind == "containers").flat_map(|frame| frame.text.lines());
        let is_gone = |container: &Container| {
            container.is_writer() && !container.is_running() && !container.is_rancher_agent()
        };
        // What a helper of rke leaves behind says nothing, and comes and goes.
        let containers: Vec<Container> =
            lines().filter_map(container).filter(|container| !is_gone(container)).collect();
        let said: Vec<Said<'_>> = lines().filter_map(Said::read).collect();
        let key_file = said.iter().find(|said| said.word == "argument" && said.name == "kube-apiserver");
        let service_account_key_file = key_file.and_then(Said::value);
        let agent = frames.iter().any(|frame| frame.kind == "agent-log").then(|| {
            let first = containers.iter().find(|container| container.name.starts_with(CATTLE_NODE_AGENT));
            let of_agent = |word| {
                let is_its = |said: &&Said<'_>| {
                    said.word == word && first.is_some_and(|first| first.name == said.name)
                };
                said.iter().find(is_its)
            };
            Agent {
                server: of_agent("variable").and_then(Said::value),
                uses_proxy: of_agent("proxy").is_some(),
                log: text_of(frames, "agent-log"),
                ping: None,
            }
        });
        Self { containers, service_account_key_file, agent }
    }
}

/// What only some containers have: `<argument|variable|proxy> /<name> <JSON of name=value>`.
struct Said<'a> {
    word: &'a str,
    name: &'a str,
    json: &'a str,
}

impl<'a> Said<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        let (name, json) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(Self { word, name: name.strip_prefix('/')?, json })
    }

    /// Returns what stands behind the `=`, if anything does.
    fn value(&self) -> Option<String> {
        let text: String = serde_json::from_str(self.json).ok()?;
        let value = text.split_once('=')?.1.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }
}

/// What a container does, as JSON.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    started_at: String,
}

/// Returns whether docker gives such names (moby `RestrictedNamePattern`): what else a node may say ends up in commands.
fn is_container_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter))
}

/// Reads one container: name, image, state and restart count.
fn container(line: &str) -> Option<Container> {
    let mut columns = line.split('\t');
    let name: String = serde_json::from_str(columns.next()?).ok()?;
    if !is_container_name(name.trim_start_matches('/')) {
        return None;
    }
    let image: String = serde_json::from_str(columns.next()?).ok()?;
    let state: State = serde_json::from_str(columns.next()?).ok()?;
    let restart_count = columns.next()?.trim().parse().ok()?;
    // docker writes year 1 for a container that never started.
    let started_at = state.started_at.parse::<Timestamp>().ok().filter(|time| time.as_second() > 0);
    Some(Container {
        name: name.trim_start_matches('/').to_owned(),
        image,
        state: state.status,
        started_at,
        restart_count,
    })
}
