//! Which containers a node runs and how they were started, as RKE 0.1.17 and 0.2.8 do it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Component, Container, Mount, State, digest};
use crate::inventory::Role;

/// What containers need to know of their node and cluster.
#[derive(Debug, Clone)]
pub(crate) struct Blueprint {
    pub(crate) node: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) internal_address: String,
    pub(crate) prefix: String,
    /// Names and internal addresses of the etcd members.
    pub(crate) members: Vec<(String, String)>,
    pub(crate) control_planes: Vec<String>,
    pub(crate) kubernetes_version: String,
    /// The file that service account tokens are signed with.
    pub(crate) service_account_key: &'static str,
    /// The middle of kubelet's file names, where its serving certificate is one of the cluster's.
    pub(crate) kubelet_certificate: Option<String>,
    /// The version of Rancher, where it launched the cluster.
    pub(crate) rancher: Option<String>,
    pub(crate) started_at: Timestamp,
}

/// A value that must never be read: RKE's deployers carry keys in their environment.
pub(crate) const SECRET_MARKER: &str = "KUBE_CA_KEY=simulated-secret-of-the-environment";

const SSL: &str = "/etc/kubernetes/ssl";

/// Returns the containers of a node, in the order in which `docker ps` shows them.
pub(crate) fn containers(blueprint: &Blueprint) -> Vec<Container> {
    let has = |role| blueprint.roles.contains(&role);
    let mut components = Vec::new();
    if blueprint.rancher.is_some() {
        components.extend([Component::Agent, Component::ShareMount]);
    }
    components.extend([Component::Proxy, Component::Kubelet]);
    if has(Role::ControlPlane) {
        components.extend([Component::Scheduler, Component::ControllerManager, Component::ApiServer]);
    } else {
        components.push(Component::NginxProxy);
    }
    components.push(Component::Sidekick);
    if has(Role::Etcd) {
        components.push(Component::Etcd);
    }
    components.into_iter().map(|component| blueprint.container(component)).collect()
}

impl Blueprint {
    fn container(&self, component: Component) -> Container {
        let name = match component {
            Component::Agent => self.agent_name(),
            component => component.name().to_owned(),
        };
        let state = match component {
            Component::Sidekick => State::Created,
            Component::ShareMount => State::Exited,
            _ => State::Running,
        };
        let is_rke = !matches!(component, Component::Agent | Component::ShareMount);
        let label = is_rke.then(|| ("io.rancher.rke.container.name".to_owned(), name.clone()));
        let agent_labels = [
            ("io.kubernetes.container.name", "agent"),
            ("io.kubernetes.pod.namespace", "cattle-system"),
            ("io.kubernetes.docker.type", "container"),
        ];
        let labels = agent_labels.into_iter().filter(|_| component == Component::Agent);
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).chain(label).collect();
        Container {
            component,
            id: digest(&format!("{}/{name}", self.node)),
            image: self.image(component),
            path: path(component).to_owned(),
            arguments: self.arguments(component),
            environment: self.environment(component),
            mounts: self.mounts(component),
            labels,
            restart_policy: if state == State::Running && is_rke { "always" } else { "" },
            state,
            created: self.started_at,
            started_at: (state != State::Created).then_some(self.started_at),
            finished_at: (state == State::Exited).then_some(self.started_at),
            restart_count: 0,
            joined: false,
            loaded: BTreeMap::new(),
            log: log(component),
            name,
        }
    }

    fn agent_name(&self) -> String {
        let hash = digest(&self.node);
        let (pod, uid) = (hash.get(..5).unwrap_or_default(), hash.get(8..40).unwrap_or_default());
        format!("k8s_agent_cattle-node-agent-{pod}_cattle-system_{uid}_0")
    }

    fn image(&self, component: Component) -> String {
        let version = self
            .kubernetes_version
            .rsplit_once('-')
            .map_or(self.kubernetes_version.as_str(), |(image, _)| image);
        let old = ["v1.8.", "v1.9.", "v1.10.", "v1.11.", "v1.12.", "v1.13."]
            .iter()
            .any(|begin| version.starts_with(begin));
        match component {
            Component::Etcd if old => "rancher/coreos-etcd:v3.2.24".to_owned(),
            Component::Etcd => "rancher/coreos-etcd:v3.3.10-rancher1".to_owned(),
            Component::NginxProxy | Component::Sidekick => "rancher/rke-tools:v0.1.42".to_owned(),
            Component::Agent | Component::ShareMount => {
                format!("rancher/rancher-agent:{}", self.rancher.as_deref().unwrap_or("latest"))
            }
            _ => format!("rancher/hyperkube:{version}"),
        }
    }

    fn environment(&self, component: Component) -> Vec<String> {
        let mut environment = vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_owned(), SECRET_MARKER.to_owned()];
        match component {
            Component::Etcd => {
                let file =
                    format!("{SSL}/kube-etcd-{}", self.internal_address.replace('.', "-").to_lowercase());
                environment.push("ETCDCTL_API=3".to_owned());
                environment.push(format!("ETCDCTL_CACERT={SSL}/kube-ca.pem"));
                environment.push(format!("ETCDCTL_CERT={file}.pem"));
                environment.push(format!("ETCDCTL_KEY={file}-key.pem"));
            }
            Component::NginxProxy => environment.push(format!("CP_HOSTS={}", self.control_planes.join(","))),
            _ => {}
        }
        environment
    }

    fn mounts(&self, component: Component) -> Vec<Mount> {
        let prefix = &self.prefix;
        let mount = |source: String, destination: &str, mode| Mount {
            source,
            destination: destination.to_owned(),
            mode,
        };
        let kubernetes = mount(format!("{prefix}/etc/kubernetes"), "/etc/kubernetes", "z");
        match component {
            Component::Etcd => {
                vec![mount(format!("{prefix}/var/lib/etcd"), "/var/lib/rancher/etcd", "z"), kubernetes]
            }
            Component::Kubelet => vec![
                mount("/etc/cni".to_owned(), "/etc/cni", "rw,z"),
                mount(format!("{prefix}/var/lib/kubelet"), "/var/lib/kubelet", "shared,z"),
                kubernetes,
                mount("/etc".to_owned(), "/host/etc", "ro"),
                mount("/usr".to_owned(), "/host/usr", "ro"),
            ],
            Component::NginxProxy | Component::Sidekick => Vec::new(),
            Component::Agent => vec![mount("/etc/kubernetes".to_owned(), "/etc/kubernetes", "")],
            Component::ShareMount => vec![mount("/var/run".to_owned(), "/var/run", "")],
            _ => vec![kubernetes],
        }
    }

    fn arguments(&self, component: Component) -> Vec<String> {
        let mut arguments: Vec<String> = match component {
            Component::Etcd => return self.etcd(),
            Component::ApiServer => return self.api_server(),
            Component::NginxProxy => return vec![format!("CP_HOSTS={}", self.control_planes.join(","))],
            Component::Sidekick => return Vec::new(),
            Component::Agent => return vec!["agent".to_owned()],
            Component::ShareMount => {
                return vec!["--no-register".to_owned(), "--only-write-certs".to_owned()];
            }
            component => vec![component.name().to_owned(), "--v=2".to_owned()],
        };
        let specific = match component {
            Component::ControllerManager => vec![
                format!("--kubeconfig={SSL}/kubecfg-kube-controller-manager.yaml"),
                format!("--root-ca-file={SSL}/kube-ca.pem"),
                format!("--service-account-private-key-file={SSL}/{}", self.service_account_key),
            ],
            Component::Scheduler => vec![format!("--kubeconfig={SSL}/kubecfg-kube-scheduler.yaml")],
            Component::Kubelet => vec![
                "--anonymous-auth=false".to_owned(),
                "--root-dir=/var/lib/kubelet".to_owned(),
                format!("--client-ca-file={SSL}/kube-ca.pem"),
                format!("--hostname-override={}", self.node),
                format!("--kubeconfig={SSL}/kubecfg-kube-node.yaml"),
            ],
            _ => vec![
                "--healthz-bind-address=0.0.0.0".to_owned(),
                format!("--hostname-override={}", self.node),
                format!("--kubeconfig={SSL}/kubecfg-kube-proxy.yaml"),
            ],
        };
        arguments.extend(specific);
        if let (Component::Kubelet, Some(name)) = (component, &self.kubelet_certificate) {
            arguments.push(format!("--tls-cert-file={SSL}/{name}.pem"));
            arguments.push(format!("--tls-private-key-file={SSL}/{name}-key.pem"));
        }
        arguments
    }

    fn etcd(&self) -> Vec<String> {
        let address = &self.internal_address;
        let file = format!("{SSL}/kube-etcd-{}", address.replace('.', "-").to_lowercase());
        let members: Vec<String> = self
            .members
            .iter()
            .map(|(name, address)| format!("etcd-{name}=https://{address}:2380"))
            .collect();
        vec![
            "--peer-client-cert-auth".to_owned(),
            "--client-cert-auth".to_owned(),
            format!("--name=etcd-{}", self.node),
            "--data-dir=/var/lib/rancher/etcd/".to_owned(),
            format!("--advertise-client-urls=https://{address}:2379,https://{address}:4001"),
            "--listen-client-urls=https://0.0.0.0:2379".to_owned(),
            "--listen-peer-urls=https://0.0.0.0:2380".to_owned(),
            format!("--initial-cluster={}", members.join(",")),
            format!("--trusted-ca-file={SSL}/kube-ca.pem"),
            format!("--cert-file={file}.pem"),
            format!("--key-file={file}-key.pem"),
            format!("--peer-cert-file={file}.pem"),
            format!("--peer-key-file={file}-key.pem"),
        ]
    }

    fn api_server(&self) -> Vec<String> {
        let servers: Vec<String> =
            self.members.iter().map(|(_, address)| format!("https://{address}:2379")).collect();
        let mut arguments = vec![
            "kube-apiserver".to_owned(),
            "--anonymous-auth=false".to_owned(),
            "--bind-address=0.0.0.0".to_owned(),
            "--secure-port=6443".to_owned(),
            format!("--etcd-servers={}", servers.join(",")),
            format!("--etcd-cafile={SSL}/kube-ca.pem"),
            format!("--etcd-certfile={SSL}/kube-node.pem"),
            format!("--etcd-keyfile={SSL}/kube-node-key.pem"),
            format!("--client-ca-file={SSL}/kube-ca.pem"),
            format!("--tls-cert-file={SSL}/kube-apiserver.pem"),
            format!("--tls-private-key-file={SSL}/kube-apiserver-key.pem"),
            format!("--kubelet-client-certificate={SSL}/kube-apiserver.pem"),
            format!("--kubelet-client-key={SSL}/kube-apiserver-key.pem"),
            format!("--service-account-key-file={SSL}/{}", self.service_account_key),
            format!("--requestheader-client-ca-file={SSL}/kube-apiserver-requestheader-ca.pem"),
            format!("--proxy-client-cert-file={SSL}/kube-apiserver-proxy-client.pem"),
            format!("--proxy-client-key-file={SSL}/kube-apiserver-proxy-client-key.pem"),
            "--requestheader-allowed-names=kube-apiserver-proxy-client".to_owned(),
        ];
        if self.kubelet_certificate.is_some() {
            arguments.push(format!("--kubelet-certificate-authority={SSL}/kube-ca.pem"));
        }
        arguments
    }
}

fn path(component: Component) -> &'static str {
    match component {
        Component::Etcd => "/usr/local/bin/etcd",
        Component::NginxProxy => "nginx-proxy",
        Component::Sidekick => "/bin/bash",
        Component::Agent | Component::ShareMount => "run.sh",
        _ => "/opt/rke-tools/entrypoint.sh",
    }
}

fn log(component: Component) -> Vec<String> {
    match component {
        Component::Agent => vec![
            "time=\"2026-11-21T18:40:11Z\" level=info msg=\"Rancher agent version is starting\"".to_owned(),
            "time=\"2026-11-21T18:40:12Z\" level=info msg=\"Connecting to proxy\" url=\"wss://rancher/v3/connect\"".to_owned(),
        ],
        Component::ShareMount => vec!["Found container_linux.go".to_owned()],
        component => vec![format!("{} started", component.name())],
    }
}
