//! Rancher's agent on a node: where it finds Rancher, what its log says of the connection, and what Rancher's address answers there.
//!
//! An agent that is not connected gets no new certificates, whatever Rancher's page says of the rotation.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    NodeFacts, Observation, Thresholds, certificate_file_name, certificates_of_container, key_file_name,
};
use crate::finding::Finding;
use crate::pki::{Certificate, Location};

/// A worker's agent asks Rancher for its configuration so often (rancher/rancher `pkg/rkenodeconfigclient`, `agentCheckInterval`).
pub const AGENT_CHECK_INTERVAL: Duration = Duration::from_mins(2);

/// So many of these intervals a worker's agent is given before the node is called stale: one may just have begun, and restarts
/// take their time.
pub const PATIENCE_INTERVALS: u32 = 2;

/// What Rancher's agent was started with and says of its connection. Its token is never read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Agent {
    /// Rancher's address (`CATTLE_SERVER`).
    pub server: Option<String>,
    /// Whether it reaches Rancher through a proxy.
    pub uses_proxy: bool,
    /// The last line about the connection in its log.
    pub log: Option<String>,
    /// What Rancher's address answered where this node asked it; `None` where it was not asked.
    pub ping: Option<Ping>,
}

/// What Rancher's address answered where a node asked it, as its agent does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// The certificate that is served; `None` in clear text, and where the connection failed.
    pub certificate: Option<Certificate>,
    /// Whether `/ping` was answered with `pong`, or why not.
    pub answer: Result<(), String>,
}

impl Agent {
    /// Returns whether the last line of its log about the connection says that there is none.
    pub fn is_disconnected(&self) -> bool {
        self.log.as_deref().is_some_and(is_disconnected)
    }
}

/// Returns whether a line of an agent's log says that it has no connection (rancher/rancher v2.2.8 and v2.4.8
/// `remotedialer/client.go`, `package/run.sh`).
fn is_disconnected(line: &str) -> bool {
    [
        "Failed to connect to proxy",
        "Remotedialer proxy error",
        "is not accessible",
        "does not match given --ca-checksum",
    ]
    .iter()
    .any(|words| line.contains(words))
}

/// Returns the findings about a node's agent and about Rancher as the node sees it.
pub(super) fn agent_findings(observation: &Observation, thresholds: &Thresholds) -> Vec<Finding> {
    let Some(agent) = &observation.agent else { return Vec::new() };
    let mut findings = Vec::new();
    findings.extend(disconnected(agent));
    if let Some(ping) = &agent.ping {
        let served = ping.certificate.as_ref();
        findings.extend(served.and_then(|served| certificate_finding(agent, served, thresholds)));
        // Whatever else is wrong: nothing gets better before the certificate is valid again.
        let has_ended = served.is_some_and(|served| served.not_after <= thresholds.now);
        if let Some(error) = ping.answer.as_ref().err().filter(|_| !has_ended) {
            findings.push(unreachable(agent, error));
        }
    }
    findings
}

fn disconnected(agent: &Agent) -> Option<Finding> {
    let line = agent.log.as_deref().filter(|line| is_disconnected(line))?;
    let finding = Finding::warning(
        "agent-not-connected",
        format!("the Rancher agent says that it cannot connect to Rancher: {}", cause(line)),
    );
    Some(finding.hint(way_out(line)))
}

/// Returns the end of a line of the log, where the cause stands: `... error="x509: certificate has expired"`.
fn cause(line: &str) -> &str {
    let quoted = line.rsplit_once("error=\"").map(|(_, error)| error.trim_end().trim_end_matches('"'));
    let after_message =
        || line.rsplit_once("msg=\"").map(|(_, message)| message.trim_end().trim_end_matches('"'));
    quoted.or_else(after_message).unwrap_or_else(|| line.trim_start_matches("ERROR: ").trim())
}

/// Returns what mends a lost connection, by its cause.
fn way_out(line: &str) -> &'static str {
    if line.contains("not yet valid") && !line.contains("has expired") {
        "compare the clocks of the node and of Rancher: look at NTP"
    } else if line.contains("has expired") {
        "renew the certificate that Rancher (or the load balancer before it) serves, and look at the node's clock"
    } else if line.contains("unknown authority") || line.contains("--ca-checksum") {
        "Rancher's authority is another one than the agent was registered with: bring the old one back, or run the registration command \
         of Rancher's UI on the node again"
    } else if line.contains("no such host") || line.contains("resolve host") {
        "the node does not resolve Rancher's name: look at its /etc/resolv.conf"
    } else if line.contains("401") || line.contains("403") {
        "Rancher does not take the agent's token: run the registration command of Rancher's UI on the node again"
    } else {
        "`docker logs` of the agent tells more; Rancher and what lies before it must let websockets through"
    }
}

/// Returns the finding about the certificate that Rancher serves. It is none of this cluster's: never an error here.
fn certificate_finding(agent: &Agent, served: &Certificate, thresholds: &Thresholds) -> Option<Finding> {
    let day = served.not_after.strftime("%Y-%m-%d");
    let rancher = agent.server.as_deref().unwrap_or("Rancher");
    let (code, verb) = if served.not_after <= thresholds.now {
        ("rancher-certificate-expired", "expired")
    } else if served.not_after <= thresholds.now + thresholds.expiring_within {
        ("rancher-certificate-expiring", "will expire")
    } else {
        return None;
    };
    let message = format!(
        "the certificate that {rancher} serves {verb} on {day}: without a valid one agents lose their connection, and workers get no new certificates"
    );
    Some(Finding::warning(code, message).hint(
        "renew Rancher's own certificate first: that of its ingress or load balancer; a self-signed one is made anew when Rancher \
         starts without it (rancher/rancher#26984)",
    ))
}

fn unreachable(agent: &Agent, error: &str) -> Finding {
    let server = agent.server.as_deref().unwrap_or("Rancher");
    Finding::warning("rancher-unreachable", format!("Rancher does not answer this node at {server}/ping: {error}"))
        .hint("the agent of a node that does not reach Rancher gets no new certificates: look at firewall, name resolution and Rancher itself")
}

/// Returns how long a worker's agent still has to restart what it wrote new files for; `None` where nothing is left to it.
///
/// Rancher tells a worker-only node when its agent asks, and the agent restarts what changed; it is called stale afterwards.
pub fn left_to_agent(
    node: &NodeFacts,
    observation: &Observation,
    container: &str,
    now: Timestamp,
) -> Option<Duration> {
    let agent_at_work = observation.rancher_agent().is_some_and(super::Container::is_running)
        && !observation.agent.as_ref().is_some_and(Agent::is_disconnected);
    if !node.is_worker_only() || !agent_at_work {
        return None;
    }
    let names = certificates_of_container(container).iter();
    let files = names.flat_map(|name| {
        [certificate_file_name(Location::Ssl, name), key_file_name(Location::Ssl, name)]
            .into_iter()
            .filter_map(|file| observation.file(Location::Ssl, &file))
    });
    let written = files.map(|file| file.modified_at).max()?;
    let there = now + SignedDuration::from_secs(observation.clock_skew_seconds);
    // A time that has not come yet says nothing, but for the seconds that reading two clocks takes.
    let age = Duration::try_from(there.duration_since(written) + SignedDuration::from_secs(2)).ok()?;
    (AGENT_CHECK_INTERVAL * PATIENCE_INTERVALS).checked_sub(age).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRED: &str = r#"time="2020-01-02T03:04:05Z" level=error msg="Failed to connect to proxy" error="x509: certificate has expired or is not yet valid""#;
    const CHECKSUM: &str = "ERROR: Configured cacerts checksum (aa) does not match given --ca-checksum (bb)";

    #[test]
    fn the_cause_is_taken_out_of_a_line_of_the_log() {
        assert_eq!(cause(EXPIRED), "x509: certificate has expired or is not yet valid");
        assert_eq!(
            cause(CHECKSUM),
            "Configured cacerts checksum (aa) does not match given --ca-checksum (bb)"
        );
        let empty = r#"level=error msg="Failed to connect to proxy. Empty dialer response" error="dial tcp: lookup r: no such host""#;
        assert_eq!(cause(empty), "dial tcp: lookup r: no such host");
    }

    #[test]
    fn each_cause_has_its_way_out() {
        assert!(way_out(EXPIRED).starts_with("renew the certificate"));
        assert!(way_out(CHECKSUM).contains("registration command"));
        assert!(way_out("x509: certificate signed by unknown authority").contains("registration command"));
        assert!(way_out("Response status: 401 - 401 Unauthorized").contains("token"));
        assert!(way_out("websocket: bad handshake").contains("websockets"));
    }

    #[test]
    fn a_connected_agent_is_no_finding() {
        assert!(!is_disconnected(r#"level=info msg="Connecting to proxy" url="wss://r/v3/connect""#));
        assert!(is_disconnected(EXPIRED) && is_disconnected(CHECKSUM));
    }
}
