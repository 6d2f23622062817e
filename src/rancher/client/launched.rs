//! A launched cluster is one that Rancher made with RKE: its configuration, its machines, and the keys of those that Rancher made too.

use std::io::{Cursor, Read as _};

use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::answer::{complaint, parse};
use super::super::{Cluster, RancherError};
use super::Client;
use crate::inventory::Role;
use crate::pki::JsonText;

/// How large an archive of a machine may be, in bytes: a dozen of keys and certificates.
const ARCHIVE_LIMIT: usize = 1024 * 1024;

/// How large a private key may be, in bytes.
const KEY_LIMIT: u64 = 64 * 1024;

/// How many files an archive of a machine may hold.
const FILES_LIMIT: usize = 100;

/// Where a cluster has RKE's configuration.
const CONFIGURATION: &str = "rancherKubernetesEngineConfig";

/// The name of the login's private key in a folder of docker-machine.
const KEY_FILE: &str = "id_rsa";

/// A machine of a cluster, as far as it can be logged in to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchedMachine {
    /// The id (`c-x7k2p:m-0123456789ab`).
    pub id: String,
    /// The name in Kubernetes, or the one that it registered with.
    pub name: String,
    /// The address to log in at.
    pub address: Option<String>,
    /// The address that components use among themselves.
    pub internal_address: Option<String>,
    /// The user that logs in; `None` for a custom node, of which Rancher reports `root` without knowing.
    pub user: Option<String>,
    /// The port of sshd, where the configuration names one.
    pub port: Option<String>,
    /// The roles, in the order of [`Role::ALL`].
    pub roles: Vec<Role>,
    /// Whether a node driver made it.
    pub is_made_by_rancher: bool,
    /// The state that people see (`active`, `provisioning`).
    pub state: String,
    /// The link of the archive with its key; `None` where Rancher offers none to this token.
    key_link: Option<String>,
}

impl LaunchedMachine {
    /// Returns whether Rancher offers the machine's key to this token.
    pub fn offers_key(&self) -> bool {
        self.key_link.is_some()
    }
}

/// What Rancher keeps of a cluster that it launched.
#[derive(Debug, Clone)]
pub struct LaunchedCluster {
    /// The configuration in RKE's own terms (JSON, camelCase); it may hold secrets.
    pub configuration: Option<Zeroizing<String>>,
    /// The machines that RKE was given, in no order.
    pub machines: Vec<LaunchedMachine>,
}

/// The nodes that RKE was given, in the cluster's applied configuration.
#[derive(Deserialize, Default)]
struct Applied {
    nodes: Option<Vec<AppliedNode>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AppliedNode {
    node_id: Option<String>,
    address: Option<String>,
    internal_address: Option<String>,
    port: Option<String>,
    user: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MachineBody {
    id: String,
    node_name: Option<String>,
    hostname: Option<String>,
    requested_hostname: Option<String>,
    ip_address: Option<String>,
    external_ip_address: Option<String>,
    ssh_user: Option<String>,
    node_template_id: Option<String>,
    custom_config: Option<CustomConfig>,
    control_plane: Option<bool>,
    etcd: Option<bool>,
    worker: Option<bool>,
    state: Option<String>,
    links: Option<Links>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomConfig {
    address: Option<String>,
    internal_address: Option<String>,
    user: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Links {
    node_config: Option<String>,
}

impl Client {
    /// Returns names and ids of every cluster that the token can see.
    pub async fn cluster_labels(&self) -> Result<Vec<String>, RancherError> {
        Ok(super::labels(&self.clusters(self.origin.at(&["v3", "clusters"])).await?))
    }

    /// Returns what Rancher keeps of a cluster that it launched, to be put into a cluster.yml.
    pub async fn launched(&self, cluster: &Cluster) -> Result<LaunchedCluster, RancherError> {
        let request = self.http.get(self.origin.at(&["v3", "clusters", &cluster.id]));
        let body = Zeroizing::new(self.authorized(request).await?);
        let (configuration, applied) = configuration(&body)?;
        let first = self.origin.filtered("nodes", "clusterId", &cluster.id);
        let bodies = self.list::<MachineBody>("the list of nodes", first).await?;
        let machines = bodies.into_iter().map(|body| machine(body, &applied)).collect();
        Ok(LaunchedCluster { configuration, machines })
    }

    /// Returns the private key with which Rancher logs in to a machine that it made; `None` where it offers none.
    pub async fn machine_key(
        &self,
        machine: &LaunchedMachine,
    ) -> Result<Option<Zeroizing<String>>, RancherError> {
        let Some(link) = &machine.key_link else { return Ok(None) };
        let archive = self.archive(link).await?;
        key_of(&archive).map(Some)
    }

    /// Downloads an archive; it holds private keys.
    async fn archive(&self, link: &str) -> Result<Zeroizing<Vec<u8>>, RancherError> {
        let unanswered = |error| RancherError::unanswered(&self.origin.to_string(), error);
        let request = self.http.get(self.origin.rebase(link)?).bearer_auth(self.token.expose());
        let mut response = request.send().await.map_err(unanswered)?;
        let status = response.status();
        if status.is_redirection() {
            return Err(RancherError::Redirected(super::destination(&response)));
        }
        let retry_after = super::retry_after(&response);
        // Taken at once: a buffer that grows leaves copies of keys behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(ARCHIVE_LIMIT));
        while let Some(chunk) = response.chunk().await.map_err(unanswered)? {
            if bytes.len() + chunk.len() > ARCHIVE_LIMIT {
                return Err(malformed("it is larger than 1 MiB"));
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            Ok(bytes)
        } else {
            let complaint = complaint(&String::from_utf8_lossy(&bytes));
            Err(RancherError::refused(status.as_u16(), complaint, retry_after))
        }
    }
}

fn malformed(reason: impl std::fmt::Display) -> RancherError {
    RancherError::malformed("the archive of a machine", reason)
}

/// Returns the configuration of a cluster, and the nodes that it was applied to.
fn configuration(body: &str) -> Result<(Option<Zeroizing<String>>, Vec<AppliedNode>), RancherError> {
    let cluster =
        JsonText::parse(body.as_bytes()).map_err(|error| RancherError::malformed("the cluster", error))?;
    let there = |path: &[&str]| {
        cluster.raw(path).filter(|raw| raw.starts_with('{')).map(str::to_owned).map(Zeroizing::new)
    };
    let applied = there(&["appliedSpec", CONFIGURATION]);
    let nodes = match &applied {
        Some(text) => parse::<Applied>("the cluster", text)?.nodes,
        None => None,
    };
    Ok((there(&[CONFIGURATION]).or(applied), nodes.unwrap_or_default()))
}

/// Returns a machine from what Rancher reports of it and from what RKE was given.
fn machine(body: MachineBody, applied: &[AppliedNode]) -> LaunchedMachine {
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let given = applied.iter().find(|node| node.node_id.as_deref() == Some(&body.id));
    let of_given =
        |field: fn(&AppliedNode) -> &Option<String>| filled(given.and_then(|node| field(node).clone()));
    let is_made_by_rancher = filled(body.node_template_id).is_some();
    let custom = body.custom_config;
    let (custom_address, custom_internal, custom_user) =
        custom.map_or((None, None, None), |custom| (custom.address, custom.internal_address, custom.user));
    // What RKE was given names the files of etcd: where it is known, nothing else counts.
    let address = of_given(|node| &node.address)
        .or_else(|| filled(custom_address))
        .or_else(|| filled(body.external_ip_address))
        .or_else(|| filled(body.ip_address.clone()));
    let internal_address = match given {
        Some(_) => of_given(|node| &node.internal_address),
        None => filled(custom_internal).or_else(|| filled(body.ip_address)),
    }
    .filter(|internal| Some(internal) != address.as_ref());
    let user = if is_made_by_rancher {
        filled(body.ssh_user).or_else(|| of_given(|node| &node.user))
    } else {
        filled(custom_user)
    };
    let held =
        [(Role::ControlPlane, body.control_plane), (Role::Etcd, body.etcd), (Role::Worker, body.worker)];
    LaunchedMachine {
        name: filled(body.node_name)
            .or_else(|| filled(body.hostname))
            .or_else(|| filled(body.requested_hostname))
            .unwrap_or_else(|| body.id.clone()),
        address,
        internal_address,
        user,
        port: of_given(|node| &node.port),
        roles: held.into_iter().filter(|(_, held)| *held == Some(true)).map(|(role, _)| role).collect(),
        is_made_by_rancher,
        state: filled(body.state).unwrap_or_else(|| "in no state".to_owned()),
        key_link: filled(body.links.and_then(|links| links.node_config)),
        id: body.id,
    }
}

/// Returns the private key in an archive of a machine: `<machine>/id_rsa` (`pkg/api/customization/node/node.go`, all of 2.0 to 2.9).
///
/// Nothing is unpacked: the one file is read, whatever its folder is called, and paths that lead elsewhere refuse the archive.
fn key_of(archive: &[u8]) -> Result<Zeroizing<String>, RancherError> {
    let mut archive = zip::ZipArchive::new(Cursor::new(archive)).map_err(malformed)?;
    if archive.len() > FILES_LIMIT {
        return Err(malformed(format!("it holds more than {FILES_LIMIT} files")));
    }
    let mut key = None;
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).map_err(malformed)?;
        let Some(path) = file.enclosed_name() else {
            return Err(malformed("the path of a file in it leads out of it"));
        };
        if file.name().map_err(malformed)?.split(['/', '\\']).any(|part| part == "..") {
            return Err(malformed("the path of a file in it leads out of it"));
        }
        if path.file_name().is_none_or(|name| name != KEY_FILE) || !file.is_file() {
            continue;
        }
        if key.is_some() {
            return Err(malformed(format!("it holds several `{KEY_FILE}`")));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_LIMIT as usize + 1));
        file.by_ref().take(KEY_LIMIT + 1).read_to_end(&mut bytes).map_err(malformed)?;
        if bytes.len() as u64 > KEY_LIMIT {
            return Err(malformed(format!("its `{KEY_FILE}` is larger than any key")));
        }
        let text = std::str::from_utf8(&bytes).ok().filter(|text| text.starts_with("-----BEGIN "));
        key = Some(Zeroizing::new(
            text.ok_or_else(|| malformed(format!("its `{KEY_FILE}` is no private key")))?.to_owned(),
        ));
    }
    key.ok_or_else(|| malformed(format!("there is no `{KEY_FILE}` in it")))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::rancher::answer::Page;

    const KEY: &str = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n";

    /// Returns an archive as Rancher writes it: files without compression.
    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in files {
            let options =
                zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
            writer.start_file(*name, options).unwrap();
            writer.write_all(content.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn the_key_of_a_machine_is_found_in_its_archive() {
        let archive =
            archive(&[("w-1/id_rsa.pub", "ssh-rsa AAAA"), ("w-1/ca.pem", "x"), ("w-1/id_rsa", KEY)]);
        assert_eq!(*key_of(&archive).unwrap(), KEY);
    }

    #[test]
    fn an_archive_that_is_not_one_of_a_machine_is_refused() {
        let refusal = |archive: &[u8]| key_of(archive).unwrap_err().to_string();
        let big = format!("-----BEGIN {}", "x".repeat(70_000));
        for (files, said) in [
            (vec![("w-1/id_rsa", KEY), ("w-1/../../etc/passwd", "x")], "leads out of it"),
            (vec![("/etc/id_rsa", "no key")], "is no private key"),
            (vec![("a/id_rsa", KEY), ("b/id_rsa", KEY)], "several"),
            (vec![("a/config.json", "{}")], "no `id_rsa`"),
            (vec![("a/id_rsa", big.as_str())], "larger than any key"),
        ] {
            let said_now = refusal(&archive(&files));
            assert!(said_now.contains(said) && !said_now.contains("MIIE"), "{said}: {said_now}");
        }
        assert!(refusal(b"<html>").contains("the archive of a machine"));
    }

    #[test]
    fn a_golden_cluster_has_custom_nodes_of_which_no_user_is_known() {
        let body = include_str!("../../../tests/cases/rancher/cluster-provisioned.json");
        let (text, applied) = configuration(body).unwrap();
        assert!(text.unwrap().contains("\"kubernetesVersion\""));
        assert_eq!(applied.len(), 4);
        let page: Page<MachineBody> =
            parse("nodes", include_str!("../../../tests/cases/rancher/nodes.json")).unwrap();
        let machines: Vec<_> = page.data.into_iter().map(|body| machine(body, &applied)).collect();
        assert_eq!(machines[1].name, "n2");
        assert_eq!(machines[1].address.as_deref(), Some("10.77.0.12"));
        assert_eq!(machines[1].internal_address, None);
        assert_eq!(machines[1].port.as_deref(), Some("22"));
        assert_eq!(machines[1].roles, [Role::ControlPlane, Role::Etcd]);
        assert!(machines.iter().all(|machine| machine.user.is_none() && machine.key_link.is_none()));
    }

    #[test]
    fn a_machine_that_rancher_made_has_a_user_and_a_link() {
        let body = r#"{"id":"c-1:m-2","nodeName":"w-1","requestedHostname":"w1","nodeTemplateId":"cattle-global-nt:nt-1",
            "ipAddress":"10.0.0.2","externalIpAddress":"203.0.113.2","sshUser":"ubuntu","worker":true,
            "links":{"nodeConfig":"https://elsewhere/v3/nodes/c-1:m-2/nodeconfig"}}"#;
        let found = machine(parse("the node", body).unwrap(), &[]);
        assert_eq!(
            (found.address.as_deref(), found.internal_address.as_deref()),
            (Some("203.0.113.2"), Some("10.0.0.2"))
        );
        assert_eq!(found.user.as_deref(), Some("ubuntu"));
        assert!(found.is_made_by_rancher && found.offers_key());
    }
}
