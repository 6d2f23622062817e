//! A cluster made of certificates that rke v0.1.17 made, seen through the probe.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certroll::command::DEFAULT_DOCKER_SOCKET;
use certroll::facts::probe::read;
use certroll::facts::{Content, Facts, NodeFacts, Standing, Unseen};
use certroll::inventory::{Inventory, MaxUnavailable, Node, NodeName, Role, SshCredentials};
use certroll::pki::Certificate;
use jiff::Timestamp;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

macro_rules! pem {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../cases/report/", $name, ".pem")))),*]
    };
}

/// The certificates of a control plane and etcd node, with the kube-admin pair of its `.tmp`.
const CERTIFICATES: [(&str, &str); 12] = pem![
    "kube-admin",
    "kube-apiserver",
    "kube-apiserver-proxy-client",
    "kube-apiserver-requestheader-ca",
    "kube-ca",
    "kube-controller-manager",
    "kube-etcd-10-77-0-11",
    "kube-etcd-10-77-0-12",
    "kube-etcd-10-77-0-13",
    "kube-node",
    "kube-proxy",
    "kube-scheduler",
];

const MARKER: &str = "certroll-frame-5f1d";

/// The certificates end on 2027-11-21, their CA in 2036.
pub(super) const THREE_DAYS_LATE: &str = "2027-11-24T19:34:21Z";
pub(super) const IN_TIME: &str = "2027-06-01T12:00:00Z";
const STARTED: &str = "2026-11-22T08:00:00Z";
const WRITTEN: &str = "2026-11-21T19:40:00Z";

pub(super) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn pem(name: &str) -> &'static str {
    CERTIFICATES.iter().find(|(known, _)| *known == name).unwrap().1
}

/// Returns what the probe prints of the key of a certificate: its public beginning.
fn key_prefix(name: &str) -> String {
    let der = Certificate::from_pem(pem(name).as_bytes()).unwrap().der;
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    let PublicKey::RSA(rsa) = parsed.public_key().parsed().unwrap() else { panic!("not an RSA key") };
    let head = [0x30, 0x82, 0x04, 0xa4, 0x02, 0x01, 0x00, 0x02, 0x82, 0x01, 0x01];
    let der = [head.as_slice(), rsa.modulus, &[0x02, 0x03, 0x01, 0x00, 0x01]].concat();
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n", lines.join("\n"))
}

/// A machine whose probe answers can be made up.
#[derive(Clone)]
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) roles: Vec<Role>,
    pub(super) access: &'static str,
    /// Folder (`ssl`, `tmp`), file name, time of the last change.
    pub(super) files: Vec<(&'static str, String, &'static str)>,
    /// Name, state, start.
    pub(super) containers: Vec<(String, &'static str, &'static str)>,
    pub(super) has_tmp: bool,
    pub(super) etcd: &'static str,
    pub(super) unseen: Option<&'static str>,
}

impl Machine {
    pub(super) fn control_plane(name: &str, address: &str) -> Self {
        let names: Vec<&str> =
            CERTIFICATES.iter().map(|(name, _)| *name).filter(|name| *name != "kube-admin").collect();
        let containers =
            ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"];
        let mut machine = Self::new(name, address, vec![Role::ControlPlane, Role::Etcd], &names, &containers);
        machine.etcd = "https://127.0.0.1:2379 is healthy: successfully committed proposal: took = 1.9ms";
        machine
    }

    /// A member of etcd that holds no key of the CA.
    pub(super) fn etcd(name: &str, address: &str) -> Self {
        let members = ["kube-etcd-10-77-0-11", "kube-etcd-10-77-0-12", "kube-etcd-10-77-0-13"];
        let names = [["kube-ca", "kube-node", "kube-proxy"], members].concat();
        Self::new(name, address, vec![Role::Etcd], &names, &["etcd", "kubelet", "kube-proxy"])
            .without_file("kube-ca-key.pem")
    }

    pub(super) fn worker(name: &str, address: &str) -> Self {
        let names = ["kube-ca", "kube-node", "kube-proxy"];
        let mut machine =
            Self::new(name, address, vec![Role::Worker], &names, &["kubelet", "kube-proxy", "nginx-proxy"]);
        machine.access = "root";
        machine
    }

    fn new(name: &str, address: &str, roles: Vec<Role>, names: &[&str], containers: &[&str]) -> Self {
        let mut machine = Self {
            name: name.to_owned(),
            address: address.to_owned(),
            roles,
            access: "docker sha256:1f2e",
            files: Vec::new(),
            containers: containers.iter().map(|name| ((*name).to_owned(), "running", STARTED)).collect(),
            has_tmp: false,
            etcd: "",
            unseen: None,
        };
        for name in names {
            machine.add_pair("ssl", name);
        }
        for name in names.iter().filter(|name| WITH_KUBECFG.contains(name)) {
            machine.files.push(("ssl", format!("kubecfg-{name}.yaml"), WRITTEN));
        }
        machine
    }

    fn add_pair(&mut self, folder: &'static str, name: &str) {
        self.files.push((folder, format!("{name}.pem"), WRITTEN));
        self.files.push((folder, format!("{name}-key.pem"), WRITTEN));
    }

    /// Copies `ssl` to `.tmp`, as the written procedure does, but for the files that it forgets.
    pub(super) fn with_bundle_without(mut self, forgotten: &[&str]) -> Self {
        let copies: Vec<_> = self
            .files
            .iter()
            .filter(|(folder, file, _)| {
                *folder == "ssl" && !forgotten.iter().any(|name| file.starts_with(name))
            })
            .map(|(_, file, written)| ("tmp", file.clone(), *written))
            .collect();
        self.files.extend(copies);
        if !forgotten.contains(&"kube-admin") {
            self.add_pair("tmp", "kube-admin");
        }
        self.has_tmp = true;
        self
    }

    /// Leaves a container as it was before its certificate was written.
    pub(super) fn with_container(mut self, name: &str, state: &'static str, started: &'static str) -> Self {
        self.containers.retain(|(known, _, _)| known != name);
        self.containers.push((name.to_owned(), state, started));
        self
    }

    pub(super) fn without_file(mut self, file: &str) -> Self {
        self.files.retain(|(_, known, _)| known != file);
        self
    }

    pub(super) fn unreachable(mut self, error: &'static str) -> Self {
        self.unseen = Some(error);
        self
    }

    pub(super) fn node(&self) -> Node {
        Node {
            name: NodeName::new(&self.name),
            address: self.address.clone(),
            internal_address: self.address.clone(),
            port: 22,
            user: "rancher".to_owned(),
            roles: self.roles.clone(),
            docker_socket: DEFAULT_DOCKER_SOCKET.to_owned(),
            ssh: SshCredentials { key_path: Some("~/.ssh/id_rsa".to_owned()), ..SshCredentials::default() },
            labels: [].into(),
        }
    }

    fn probe_output(&self, asked_at: Timestamp) -> String {
        let mut text = "Welcome to this machine.\n".to_owned();
        let mut frame = |head: &str, body: &str| {
            let _ = write!(text, "\n{MARKER} {head}\n{body}");
        };
        frame(&format!("access {}", self.access), "");
        frame(&format!("clock {}", asked_at.as_second()), "");
        frame("directory /etc/kubernetes", "");
        if self.has_tmp {
            frame("tmp", "");
        }
        for (folder, file, written) in &self.files {
            let path = if *folder == "tmp" { ".tmp" } else { folder };
            let body = match file.strip_suffix("-key.pem") {
                Some(name) => key_prefix(name),
                None => file.strip_suffix(".pem").map(pem).unwrap_or_default().to_owned(),
            };
            let line = format!(
                "600 0 0 1676 {} 2026-11-21 19:15:25.000000000 +0000 /etc/kubernetes/{path}/{file}\n",
                time(written).as_second()
            );
            frame("files", &line);
            frame(&format!("content /etc/kubernetes/{path}/{file}"), &body);
        }
        frame("writable yes", "");
        frame("space", "20971520 1024 2621440 1000000 /etc/kubernetes\n");
        frame("used", "160\t/etc/kubernetes\n");
        let containers: Vec<String> = self.containers.iter().map(container_line).collect();
        frame("containers", &containers.concat());
        if !self.etcd.is_empty() {
            frame("etcd 0", &format!("{}\n", self.etcd));
        }
        frame("end", "");
        text
    }

    fn facts(&self, asked_at: Timestamp) -> NodeFacts {
        let result = match self.unseen {
            Some(error) => Err(Unseen::fault(false, error.to_owned(), None)),
            None => Ok(read(&self.probe_output(asked_at), MARKER, asked_at).unwrap()),
        };
        NodeFacts {
            name: NodeName::new(&self.name),
            address: self.address.clone(),
            roles: self.roles.clone(),
            result,
            standing: Standing::default(),
        }
    }
}

/// Returns what `docker inspect` prints of a container.
fn container_line((name, state, started): &(String, &str, &str)) -> String {
    let image = "rancher/hyperkube:v1.12.6-rancher1";
    let state = format!("{{\"Status\":\"{state}\",\"StartedAt\":\"{started}\"}}");
    format!("\"/{name}\"\t\"{image}\"\t{state}\t0\n")
}

const WITH_KUBECFG: [&str; 6] = [
    "kube-apiserver-proxy-client",
    "kube-apiserver-requestheader-ca",
    "kube-controller-manager",
    "kube-node",
    "kube-proxy",
    "kube-scheduler",
];

/// Returns three nodes of control plane and etcd, without legacy bundles.
pub(super) fn control_planes() -> [Machine; 3] {
    [("cp-1", "10.77.0.11"), ("cp-2", "10.77.0.12"), ("cp-3", "10.77.0.13")]
        .map(|(name, address)| Machine::control_plane(name, address))
}

/// Returns workers `w-1`, `w-2`, ...
pub(super) fn workers(number: usize) -> Vec<Machine> {
    (1..=number)
        .map(|number| {
            Machine::worker(&format!("w-{number}"), &format!("10.77.{}.{}", 1 + number / 200, number % 200))
        })
        .collect()
}

pub(super) fn inventory(machines: &[Machine]) -> Inventory {
    Inventory {
        cluster_name: "prod".to_owned(),
        kubernetes_version: Some("v1.12.6-rancher1-1".to_owned()),
        prefix_path: "/".to_owned(),
        nodes: machines.iter().map(Machine::node).collect(),
        bastion: None,
        authentication_sans: Vec::new(),
        service_cluster_ip_ranges: vec!["10.43.0.0/16".to_owned()],
        cluster_domain: "cluster.local".to_owned(),
        generate_serving_certificate: false,
        ignore_docker_version: false,
        external_etcd_urls: Vec::new(),
        etcd_owner: None,
        max_unavailable_worker: MaxUnavailable::DEFAULT,
        system_images: [].into(),
    }
}

pub(super) fn facts(machines: &[Machine], observed_at: Timestamp) -> Facts {
    let mut nodes: Vec<_> = machines.iter().map(|machine| machine.facts(observed_at)).collect();
    let names: Vec<String> =
        machines.iter().flat_map(|machine| [machine.name.clone(), machine.address.clone()]).collect();
    let seen = nodes.iter_mut().filter_map(|node| node.result.as_mut().ok());
    for file in seen.flat_map(|seen| &mut seen.files) {
        // rke made these certificates for a cluster whose nodes had other names.
        if let Content::Certificate(Ok(certificate)) = &mut file.content
            && !certificate.sans.is_empty()
        {
            certificate.sans.extend(names.iter().cloned());
        }
    }
    Facts { observed_at, nodes }
}
