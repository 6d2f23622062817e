//! How a simulated Rancher behaves: who starts a fleet says so, the server and its embedded RKE read it.

use std::time::Duration;

use crate::inventory::NodeName;

/// How the simulated Rancher behaves.
#[derive(Debug, Clone)]
pub struct RancherOptions {
    /// Its version (`v2.2.8`), which decides what its API has and which RKE rotates (2.0.0 to 2.9).
    pub version: String,
    /// How often the agents of worker nodes ask, in the fleet's time; Rancher's default is 120 s.
    pub agent_check_interval: Duration,
    /// Workers that get the new files and are not restarted: their `share-mnt` container writes them first, and the agent then sees
    /// no difference (rancher#21709).
    pub stale_workers: Vec<NodeName>,
    /// What goes wrong with rotations.
    pub failure: Option<RancherFailure>,
    /// What the token's owner may do.
    pub token: TokenRights,
    /// Where the cluster's nodes came from.
    pub nodes: NodeSource,
    /// Other clusters that the same Rancher knows.
    pub others: Vec<OtherCluster>,
    /// How many items a page holds where the request does not say; norman's default is 1000.
    pub page_limit: usize,
    /// How long each answer takes, in real time.
    pub answer_delay: Duration,
    /// What certificate the server shows.
    pub certificate: ServerCertificate,
}

impl Default for RancherOptions {
    fn default() -> Self {
        Self {
            version: "v2.2.8".to_owned(),
            agent_check_interval: Duration::from_secs(120),
            stale_workers: Vec::new(),
            failure: None,
            token: TokenRights::Owner,
            nodes: NodeSource::Custom,
            others: Vec::new(),
            page_limit: 1000,
            answer_delay: Duration::ZERO,
            certificate: ServerCertificate::Valid,
        }
    }
}

/// What goes wrong with rotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RancherFailure {
    /// It fails before any node is touched and is tried again for ever, with the flag set (rancher#23423).
    EndlessRetry,
    /// So many tries fail before any node is touched, and the next one succeeds.
    TriesFail(u8),
    /// It never begins: the flag is set, and nothing happens.
    NeverBegins,
    /// The connection is cut when the action is called for the first time, before Rancher has heard of it.
    CallLost,
    /// The action is called, and the connection is cut before the answer to the first call.
    AnswerLost,
    /// Of the answer to the first call half arrives.
    AnswerHalved,
    /// Somebody else has changed the cluster in the same moment: the first call cannot update it, and says so with status 500.
    UpdateRace,
    /// So many calls of the action are answered with an error and not heard: 429, 502, 503 and 504 by a proxy before Rancher (in
    /// HTML; 429 and 503 with a `Retry-After` of one second), others by Rancher itself.
    CallsRefused {
        /// The HTTP status.
        status: u16,
        /// How many calls.
        times: usize,
    },
    /// So many requests after the first call are answered with an error, as with [`Self::CallsRefused`]; other calls are not counted.
    LooksRefused {
        /// The HTTP status.
        status: u16,
        /// How many requests.
        times: usize,
    },
    /// After the first call Rancher is restarted: for 20 s of the fleet's time connections are refused, for 20 s more the proxy
    /// before it answers 503, then it goes on from the flag.
    Restarts,
}

/// What the owner of the token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenRights {
    /// Everything.
    #[default]
    Owner,
    /// See the cluster, and change nothing.
    ReadOnly,
    /// Nothing here: the cluster is not his, and is in no list of his.
    Stranger,
}

/// Where the nodes of a cluster came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NodeSource {
    /// Somebody ran the agent on hosts that he had; Rancher has no key for them.
    #[default]
    Custom,
    /// Rancher made them with a node driver, and keeps their SSH keys.
    NodeDriver,
}

/// What certificate the server shows, signed by the authority that `/v3/settings/cacerts` gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerCertificate {
    /// One that is valid.
    #[default]
    Valid,
    /// One that expired in 2021.
    Expired,
}

/// Another cluster in Rancher's list; it has no nodes here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherCluster {
    /// The name that people gave it.
    pub name: String,
    /// What it is.
    pub kind: ClusterKind,
}

/// The kinds of clusters that Rancher lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterKind {
    /// RKE's, launched by Rancher.
    Rke,
    /// RKE2's, launched by Rancher 2.6 or later.
    Rke2,
    /// k3s's, imported.
    K3s,
    /// Imported, of a kind that Rancher does not know.
    Imported,
    /// The cluster that Rancher itself runs in.
    Local,
}
