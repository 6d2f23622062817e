//! Clusters as the real rke left them, told in the words of the probe: what `tests/cases/golden` holds becomes facts.
//!
//! Private keys were taken out of those files. A key's public prefix is made anew from its certificate's modulus, which is
//! what the probe would have printed of it.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a case that cannot be read fails its test"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certroll::facts::probe::read;
use certroll::facts::{Facts, NodeFacts};
use certroll::gather::facts_of;
use certroll::inventory::{Inventory, Node};
use certroll::plan::RancherNodeState;
use jiff::Timestamp;

/// A cluster that can be changed before it is looked at.
pub(crate) struct Golden {
    pub(crate) inventory: Inventory,
    nodes: BTreeMap<String, NodeFiles>,
    pub(crate) now: Timestamp,
}

/// What lies on a node: what the probe says of a file, by its path beneath `/etc/kubernetes`.
struct NodeFiles {
    files: BTreeMap<String, (u32, String)>,
    containers: String,
    kubelet: String,
}

const MARKER: &str = "certroll-test";

/// When the golden clusters were read out, a minute after their components had started.
pub(crate) const READ_OUT: &str = "2026-11-21T20:00:00Z";

impl Golden {
    /// Reads the cluster that an rke version left.
    pub(crate) fn read(version: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases/golden").join(version);
        let text = fs::read_to_string(folder.join("cluster.yml")).unwrap();
        let inventory = Inventory::parse(&text, "cluster.yml").unwrap().inventory;
        let nodes = inventory
            .nodes
            .iter()
            .map(|node| (node.name.to_string(), NodeFiles::read(&folder.join(node.name.as_str()))))
            .collect();
        Self { inventory, nodes, now: READ_OUT.parse().unwrap() }
    }

    /// Takes files off some nodes.
    pub(crate) fn without(mut self, nodes: &[&str], is_gone: impl Fn(&str) -> bool) -> Self {
        for node in nodes {
            self.nodes.get_mut(*node).unwrap().files.retain(|path, _| !is_gone(path));
        }
        self
    }

    /// Puts a file of another path in the place of one.
    pub(crate) fn with_file(mut self, node: &str, path: &str, from: (&str, &str)) -> Self {
        let found = self.nodes.get(from.0).unwrap().files.get(from.1).unwrap().clone();
        self.nodes.get_mut(node).unwrap().files.insert(path.to_owned(), found);
        self
    }

    /// Looks so many days later.
    pub(crate) fn days_later(mut self, days: i64) -> Self {
        self.now += jiff::SignedDuration::from_hours(24 * days);
        self
    }

    /// Returns what the probe would see.
    pub(crate) fn facts(&self) -> Facts {
        let nodes = self.inventory.nodes.iter().map(|node| self.node_facts(node)).collect();
        Facts { observed_at: self.now, nodes }
    }

    /// Returns what a Rancher says that has launched the cluster.
    pub(crate) fn rancher_nodes(&self) -> Vec<RancherNodeState> {
        let known = |node: &Node| RancherNodeState {
            names: vec![node.name.as_str().to_lowercase(), node.address.clone()],
            state: "active".to_owned(),
        };
        self.inventory.nodes.iter().map(known).collect()
    }

    fn node_facts(&self, node: &Node) -> NodeFacts {
        let printed = self.nodes.get(node.name.as_str()).unwrap().printed(self.now);
        let observation = read(&printed, MARKER, self.now).unwrap();
        facts_of(node, Ok(observation))
    }
}

impl NodeFiles {
    fn read(folder: &std::path::Path) -> Self {
        let listing = fs::read_to_string(folder.join("etc-kubernetes.txt")).unwrap();
        let mut files = BTreeMap::new();
        for line in listing.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [kind, mode, _, _, path] = words.as_slice() else { continue };
            if *kind == "f" {
                let mode = u32::from_str_radix(mode, 8).unwrap();
                files.insert((*path).to_owned(), (mode, content(folder, path)));
            }
        }
        Self {
            files,
            containers: fs::read_to_string(folder.join("containers.txt")).unwrap(),
            kubelet: fs::read_to_string(folder.join("kubelet.crt")).unwrap(),
        }
    }

    /// Returns the frames of the probe.
    fn printed(&self, now: Timestamp) -> String {
        let mut text = String::from("Welcome to this host!\n");
        let mut frame = |head: &str, body: &str| {
            let _ = write!(text, "\n{MARKER} {head}\n{body}");
        };
        frame("access docker sha256:0123", "");
        frame(&format!("clock {}", now.as_second()), "");
        frame("directory /etc/kubernetes", "");
        if self.files.keys().any(|path| path.starts_with(".tmp/")) {
            frame("tmp", "");
        }
        for (path, (mode, content)) in &self.files {
            let (["ssl" | ".tmp", _] | [".tmp", "ssl", _]) = path.split('/').collect::<Vec<_>>()[..] else {
                continue;
            };
            // Before the containers started, which was at a quarter past seven.
            frame(
                "files",
                &format!(
                    "{mode:o} 0 0 {} 1795288400 2026-11-21 19:13:20.250000000 +0000 /etc/kubernetes/{path}\n",
                    content.len()
                ),
            );
            frame(&format!("content /etc/kubernetes/{path}"), content);
        }
        frame(
            "files",
            "644 0 0 2209 1795288400 2026-11-21 19:13:20.250000000 +0000 /var/lib/kubelet/pki/kubelet.crt\n",
        );
        frame("content /var/lib/kubelet/pki/kubelet.crt", &self.kubelet);
        frame("writable yes", "");
        frame("space", "1000000 1024 0 0 /etc/kubernetes\n");
        frame("used", "200\t/etc/kubernetes\n");
        frame("containers", &self.containers);
        frame("end", "");
        text
    }
}

/// Returns what the probe prints of a file.
fn content(folder: &std::path::Path, path: &str) -> String {
    let place = folder.join(path.replace(".tmp/", "dot-tmp/"));
    match path.strip_suffix("-key.pem") {
        Some(stem) => public_prefix(&folder.join(format!("{}.pem", stem.replace(".tmp/", "dot-tmp/")))),
        None => fs::read_to_string(place).unwrap_or_else(|_| "kind: Config\n".to_owned()),
    }
}

/// Returns the first 364 base64 characters of the PKCS#1 key that belongs to a certificate.
fn public_prefix(certificate: &std::path::Path) -> String {
    let text = fs::read(certificate).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&text).unwrap();
    let parsed = pem.parse_x509().unwrap();
    let x509_parser::public_key::PublicKey::RSA(rsa) = parsed.public_key().parsed().unwrap() else {
        return "-----BEGIN EC PRIVATE KEY-----\n".to_owned();
    };
    let mut der = vec![0x30, 0x82, 0x04, 0xa4, 0x02, 0x01, 0x00, 0x02, 0x82, 0x01, 0x01];
    der.extend_from_slice(rsa.modulus);
    der.extend_from_slice(&[0x02, 0x03, 0x01, 0x00, 0x01]);
    let base64 = STANDARD.encode(&der);
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n", lines.join("\n"))
}
