//! Containers of a simulated node: RKE's, with the arguments, mounts and labels of the real ones, and those of Rancher's agent.
//!
//! The layout makes them, `docker` shows and restarts them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::authority::Validity;

mod arguments;

pub(crate) use arguments::{Blueprint, containers};

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Component {
    Etcd,
    ApiServer,
    ControllerManager,
    Scheduler,
    Kubelet,
    Proxy,
    NginxProxy,
    Sidekick,
    Agent,
    ShareMount,
}

impl Component {
    /// Returns the name of RKE's container.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
            Self::NginxProxy => "nginx-proxy",
            Self::Sidekick => "service-sidekick",
            Self::Agent => "agent",
            Self::ShareMount => "share-mnt",
        }
    }

    /// Returns the files in `ssl` that it reads when it starts.
    pub(super) fn files(self, dashed_address: &str) -> Vec<String> {
        let pairs: &[&str] = match self {
            Self::Etcd => return pair_files(&[&format!("kube-etcd-{dashed_address}")]),
            Self::ApiServer => &[
                "kube-apiserver",
                "kube-node",
                "kube-apiserver-requestheader-ca",
                "kube-apiserver-proxy-client",
            ],
            Self::ControllerManager => &["kube-controller-manager"],
            Self::Scheduler => &["kube-scheduler"],
            Self::Kubelet => &["kube-node"],
            Self::Proxy => &["kube-proxy"],
            Self::NginxProxy | Self::Sidekick | Self::Agent | Self::ShareMount => return Vec::new(),
        };
        pair_files(pairs)
    }

    /// Returns the client certificates without which it stops working.
    fn clients(self) -> &'static [&'static str] {
        match self {
            // It asks etcd with the pair of kube-node. An expired certificate of its own is for its clients to notice.
            Self::ApiServer => &["kube-node.pem"],
            Self::ControllerManager => &["kube-controller-manager.pem"],
            Self::Scheduler => &["kube-scheduler.pem"],
            _ => &[],
        }
    }

    /// Returns how long a real one takes from `docker restart` to health, on two busy cores.
    pub(super) fn seconds_to_start(self) -> f64 {
        match self {
            Self::ApiServer => 10.0,
            Self::Etcd => 3.0,
            _ => 1.5,
        }
    }
}

fn pair_files(pairs: &[&str]) -> Vec<String> {
    let mut files = vec!["kube-ca.pem".to_owned()];
    files.extend(pairs.iter().flat_map(|pair| [format!("{pair}.pem"), format!("{pair}-key.pem")]));
    files
}

/// Docker's word for what a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running,
    Restarting,
    Exited,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }
}

/// A folder of the node that a container sees.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) mode: &'static str,
}

/// A container.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) component: Component,
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) image: String,
    pub(crate) path: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<String>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) restart_policy: &'static str,
    pub(crate) state: State,
    pub(crate) created: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) restart_count: u32,
    /// Whether etcd has seen a quorum since it started.
    pub(crate) joined: bool,
    /// What it read from `ssl` when it started.
    pub(crate) loaded: BTreeMap<String, Vec<u8>>,
    pub(crate) log: Vec<String>,
}

/// Docker's word for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Container {
    /// Returns whether a name or the beginning of an id means this container.
    pub(crate) fn answers_to(&self, name: &str) -> bool {
        let name = name.trim_start_matches('/');
        self.name == name || (name.len() >= 6 && self.id.starts_with(name))
    }

    /// Marks it as started with these files.
    pub(super) fn run(&mut self, now: Timestamp, loaded: BTreeMap<String, Vec<u8>>) {
        self.state = State::Running;
        self.started_at = Some(now);
        self.joined = false;
        self.loaded = loaded;
    }

    /// Returns whether a client certificate that it works with has expired.
    pub(super) fn has_expired_client(&self, now: Timestamp) -> bool {
        let expired = |name: &&str| {
            let validity = self.loaded.get(*name).and_then(|pem| Validity::of(pem));
            validity.is_none_or(|validity| !validity.holds(now))
        };
        self.component.clients().iter().any(expired)
    }

    /// Returns the id of its image.
    pub(crate) fn image_id(&self) -> String {
        image_id(&self.image)
    }

    fn process_number(&self) -> u32 {
        let running = self.state == State::Running;
        let digits = u32::from_str_radix(self.id.get(..4).unwrap_or_default(), 16).unwrap_or(0);
        if running { 1000 + digits % 30000 } else { 0 }
    }

    /// Returns what `docker inspect` knows of it.
    pub(crate) fn inspect(&self) -> Value {
        let time = |at: Option<Timestamp>| at.map_or_else(|| NEVER.to_owned(), |at| at.to_string());
        let mounts: Vec<Value> = self.mounts.iter().map(Mount::inspect).collect();
        let exit_code = i32::from(self.state == State::Restarting);
        json!({
            "Id": self.id,
            "Created": self.created.to_string(),
            "Name": format!("/{}", self.name),
            "Path": self.path,
            "Args": self.arguments,
            "Image": self.image_id(),
            "RestartCount": self.restart_count,
            "Driver": "overlay2",
            "Platform": "linux",
            "Mounts": mounts,
            "State": {
                "Status": self.state.as_str(),
                "Running": matches!(self.state, State::Running | State::Restarting),
                "Paused": false,
                "Restarting": self.state == State::Restarting,
                "OOMKilled": false,
                "Dead": false,
                "Pid": self.process_number(),
                "ExitCode": exit_code,
                "Error": "",
                "StartedAt": time(self.started_at),
                "FinishedAt": time(self.finished_at),
            },
            "Config": {
                "Hostname": "",
                "Image": self.image,
                "Labels": self.labels,
                "Env": self.environment,
                "Cmd": self.arguments,
                "Entrypoint": [self.path],
            },
            "HostConfig": {
                "NetworkMode": "host",
                "Privileged": matches!(self.component, Component::Kubelet | Component::Proxy),
                "RestartPolicy": { "Name": self.restart_policy, "MaximumRetryCount": 0 },
                "Binds": self.mounts.iter().map(|mount| format!("{}:{}", mount.source, mount.destination)).collect::<Vec<_>>(),
            },
        })
    }

    /// Returns the fields that `docker ps --format` knows.
    pub(crate) fn row(&self, id_length: usize) -> Value {
        let id: String = self.id.chars().take(id_length).collect();
        let labels: Vec<String> = self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mounts: Vec<&str> = self.mounts.iter().map(|mount| mount.source.as_str()).collect();
        let status = match self.state {
            State::Created => "Created",
            State::Running => "Up 4 days",
            State::Restarting => "Restarting (1) 20 seconds ago",
            State::Exited => "Exited (0) 4 days ago",
        };
        json!({
            "ID": id,
            "Names": self.name,
            "Image": self.image,
            "Command": format!("\"{}\"", self.path),
            "CreatedAt": self.created.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
            "RunningFor": "4 days ago",
            "Ports": "",
            "State": self.state.as_str(),
            "Status": status,
            "Size": "0B",
            "Labels": labels.join(","),
            "Mounts": mounts.join(","),
            "Networks": "host",
            "LocalVolumes": "0",
        })
    }
}

impl Mount {
    fn inspect(&self) -> Value {
        json!({
            "Type": "bind",
            "Source": self.source,
            "Destination": self.destination,
            "Mode": self.mode,
            "RW": self.mode != "ro",
            "Propagation": "rprivate",
        })
    }
}

/// Returns the hexadecimal SHA-256 of a text: ids that are the same at every start.
pub(crate) fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// Returns the id of an image.
pub(crate) fn image_id(image: &str) -> String {
    format!("sha256:{}", digest(image))
}
