//! The schema is the keys that RKE reads, level by level.
//!
//! It is made from RKE's `types/rke_types.go` (v0.1 to v1.7) and from what Rancher adds in its "Edit as YAML"; `unknown_keys`
//! and `Fields` read it. What RKE does not look into key by key (labels, arguments, manifests of Kubernetes) is free.

use super::spelling;

/// What stands under a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// A scalar, or something that is not looked into.
    Free,
    /// A mapping with known keys.
    Mapping(&'static Level),
    /// A list of mappings with known keys.
    List(&'static Level),
}

/// The keys that may stand in a mapping.
#[derive(Debug)]
pub(super) struct Level {
    /// What the mapping is, for messages.
    pub(super) noun: &'static str,
    /// Names of plain keys.
    free: &'static [&'static str],
    /// Names of keys that are looked into.
    nested: &'static [(&'static str, Shape)],
    /// The level whose keys may stand here too.
    base: Option<&'static Level>,
}

impl Level {
    /// Returns what may stand under a key; `None` where RKE does not know the key.
    pub(super) fn shape(&self, key: &str) -> Option<Shape> {
        let nested = self.nested.iter().find(|(name, _)| *name == key).map(|(_, shape)| *shape);
        let free = || self.free.contains(&key).then_some(Shape::Free);
        nested.or_else(free).or_else(|| self.base.and_then(|base| base.shape(key)))
    }

    /// Returns the names of all keys.
    pub(super) fn keys(&self) -> Vec<&'static str> {
        let mut keys: Vec<_> =
            self.free.iter().copied().chain(self.nested.iter().map(|(name, _)| *name)).collect();
        keys.extend(self.base.map(Level::keys).unwrap_or_default());
        keys
    }

    /// Returns the key that was probably meant by one that RKE does not know.
    pub(super) fn meant(&self, key: &str) -> Option<&'static str> {
        spelling::meant(key, &self.keys())
    }
}

/// The whole file.
pub(super) static CLUSTER: Level = Level {
    noun: "a cluster",
    free: &[
        "addons",
        "addons_include",
        "ssh_key_path",
        "ssh_cert_path",
        "ssh_agent_auth",
        "ignore_docker_version",
        "enable_cri_dockerd",
        "cri_dockerd_stream_server_address",
        "cri_dockerd_stream_server_port",
        "kubernetes_version",
        "cluster_name",
        "prefix_path",
        "win_prefix_path",
        "addon_job_timeout",
        "rotate_encryption_key",
        // v0.1.0.
        "enforce_docker_version",
    ],
    nested: &[
        ("nodes", Shape::List(&NODE)),
        ("services", Shape::Mapping(&SERVICES)),
        ("network", Shape::Mapping(&NETWORK)),
        ("authentication", Shape::Mapping(&AUTHENTICATION)),
        ("authorization", Shape::Mapping(&AUTHORIZATION)),
        ("system_images", Shape::Mapping(&SYSTEM_IMAGES)),
        ("private_registries", Shape::List(&PRIVATE_REGISTRY)),
        ("ingress", Shape::Mapping(&INGRESS)),
        ("cloud_provider", Shape::Mapping(&CLOUD_PROVIDER)),
        ("bastion_host", Shape::Mapping(&BASTION)),
        ("monitoring", Shape::Mapping(&MONITORING)),
        ("restore", Shape::Mapping(&RESTORE)),
        ("rotate_certificates", Shape::Mapping(&ROTATE_CERTIFICATES)),
        ("dns", Shape::Mapping(&DNS)),
        ("upgrade_strategy", Shape::Mapping(&UPGRADE_STRATEGY)),
    ],
    base: None,
};

/// What Rancher's "Edit as YAML" has around the cluster.
pub(super) static RANCHER_CLUSTER: Level = Level {
    noun: "a cluster of Rancher",
    free: &[
        "agent_env_vars",
        "agent_image_override",
        "annotations",
        "answers",
        "cluster_agent_deployment_customization",
        "cluster_template_id",
        "cluster_template_revision_id",
        "default_cluster_role_for_project_members",
        "default_pod_security_policy_template_id",
        "default_pod_security_admission_configuration_template_name",
        "description",
        "desired_agent_image",
        "desired_auth_image",
        "display_name",
        "docker_root_dir",
        "enable_cluster_alerting",
        "enable_cluster_monitoring",
        "enable_network_policy",
        "fleet_agent_deployment_customization",
        "fleet_workspace_name",
        "internal",
        "istio_enabled",
        "labels",
        "local_cluster_auth_endpoint",
        "name",
        "questions",
        "scheduled_cluster_scan",
        "windows_prefered_cluster",
    ],
    nested: &[("rancher_kubernetes_engine_config", Shape::Mapping(&CLUSTER))],
    // Nodes are often added at the wrong level; they are read there.
    base: Some(&CLUSTER),
};

/// How a machine is reached.
static ACCESS: Level = Level {
    noun: "a machine",
    free: &[
        "address",
        "port",
        "user",
        "ssh_agent_auth",
        "ssh_key",
        "ssh_key_path",
        "ssh_cert",
        "ssh_cert_path",
    ],
    nested: &[],
    base: None,
};

pub(super) static NODE: Level = Level {
    noun: "a node",
    free: &["nodeName", "internal_address", "role", "hostname_override", "docker_socket", "labels"],
    nested: &[("taints", Shape::List(&TAINT))],
    base: Some(&ACCESS),
};

static TAINT: Level =
    Level { noun: "a taint", free: &["key", "value", "effect", "timeAdded"], nested: &[], base: None };

pub(super) static BASTION: Level =
    Level { noun: "`bastion_host`", free: &["ignore_proxy_env_vars"], nested: &[], base: Some(&ACCESS) };

static SERVICES: Level = Level {
    noun: "`services`",
    free: &[],
    nested: &[
        ("etcd", Shape::Mapping(&ETCD)),
        ("kube-api", Shape::Mapping(&KUBE_API)),
        ("kube-controller", Shape::Mapping(&KUBE_CONTROLLER)),
        ("scheduler", Shape::Mapping(&SERVICE)),
        ("kubelet", Shape::Mapping(&KUBELET)),
        ("kubeproxy", Shape::Mapping(&SERVICE)),
        // Rancher 2.0.5 and 2.0.6.
        ("kube_api", Shape::Mapping(&KUBE_API)),
        ("kube_controller", Shape::Mapping(&KUBE_CONTROLLER)),
    ],
    base: None,
};

static SERVICE: Level = Level {
    noun: "a service",
    free: &[
        "image",
        "extra_args",
        "extra_args_array",
        "extra_binds",
        "extra_env",
        "win_extra_args",
        "win_extra_args_array",
        "win_extra_binds",
        "win_extra_env",
    ],
    nested: &[],
    base: None,
};

static ETCD: Level = Level {
    noun: "`services.etcd`",
    free: &[
        "external_urls",
        "ca_cert",
        "cert",
        "key",
        "path",
        "uid",
        "gid",
        "snapshot",
        "retention",
        "creation",
    ],
    nested: &[("backup_config", Shape::Mapping(&BACKUP))],
    base: Some(&SERVICE),
};

static BACKUP: Level = Level {
    noun: "`backup_config`",
    free: &["enabled", "interval_hours", "retention", "safe_timestamp", "timeout"],
    nested: &[("s3backupconfig", Shape::Mapping(&S3)), ("s3_backup_config", Shape::Mapping(&S3))],
    base: None,
};

static S3: Level = Level {
    noun: "`s3backupconfig`",
    free: &["access_key", "secret_key", "bucket_name", "region", "endpoint", "custom_ca", "folder"],
    nested: &[],
    base: None,
};

static KUBE_API: Level = Level {
    noun: "`services.kube-api`",
    free: &[
        "service_cluster_ip_range",
        "service_node_port_range",
        "pod_security_policy",
        "pod_security_configuration",
        "always_pull_images",
        "admission_configuration",
    ],
    nested: &[
        ("secrets_encryption_config", Shape::Mapping(&SECRETS_ENCRYPTION)),
        ("audit_log", Shape::Mapping(&AUDIT_LOG)),
        ("event_rate_limit", Shape::Mapping(&SWITCHED)),
    ],
    base: Some(&SERVICE),
};

static SECRETS_ENCRYPTION: Level = Level {
    noun: "`secrets_encryption_config`",
    free: &["enabled", "custom_config"],
    nested: &[],
    base: None,
};

static SWITCHED: Level =
    Level { noun: "`event_rate_limit`", free: &["enabled", "configuration"], nested: &[], base: None };

static AUDIT_LOG: Level = Level {
    noun: "`audit_log`",
    free: &["enabled"],
    nested: &[("configuration", Shape::Mapping(&AUDIT_LOG_CONFIGURATION))],
    base: None,
};

static AUDIT_LOG_CONFIGURATION: Level = Level {
    noun: "`audit_log.configuration`",
    free: &["max_age", "max_backup", "max_size", "path", "format", "policy"],
    nested: &[],
    base: None,
};

static KUBE_CONTROLLER: Level = Level {
    noun: "`services.kube-controller`",
    free: &["cluster_cidr", "service_cluster_ip_range"],
    nested: &[],
    base: Some(&SERVICE),
};

static KUBELET: Level = Level {
    noun: "`services.kubelet`",
    free: &[
        "cluster_domain",
        "infra_container_image",
        "cluster_dns_server",
        "fail_swap_on",
        "generate_serving_certificate",
    ],
    nested: &[],
    base: Some(&SERVICE),
};

static AUTHENTICATION: Level = Level {
    noun: "`authentication`",
    // `options` up to v0.2.
    free: &["strategy", "sans", "options"],
    nested: &[("webhook", Shape::Mapping(&WEBHOOK))],
    base: None,
};

static WEBHOOK: Level = Level {
    noun: "`authentication.webhook`",
    free: &["config_file", "cache_timeout"],
    nested: &[],
    base: None,
};

static AUTHORIZATION: Level =
    Level { noun: "`authorization`", free: &["mode", "options"], nested: &[], base: None };

static PRIVATE_REGISTRY: Level = Level {
    noun: "a private registry",
    free: &["url", "user", "password", "is_default"],
    nested: &[("ecr_credential_plugin", Shape::Mapping(&ECR))],
    base: None,
};

static ECR: Level = Level {
    noun: "`ecr_credential_plugin`",
    free: &["aws_access_key_id", "aws_secret_access_key", "aws_session_token"],
    nested: &[],
    base: None,
};

/// What the optional parts of a cluster have in common.
static ADDON: Level = Level {
    noun: "an add-on",
    free: &["options", "node_selector", "update_strategy", "tolerations"],
    nested: &[],
    base: None,
};

static NETWORK: Level = Level {
    noun: "`network`",
    free: &[
        "plugin",
        "mtu",
        "calico_network_provider",
        "canal_network_provider",
        "flannel_network_provider",
        "weave_network_provider",
        "aci_network_provider",
    ],
    nested: &[],
    base: Some(&ADDON),
};

static INGRESS: Level = Level {
    noun: "`ingress`",
    free: &[
        "provider",
        "extra_args",
        "dns_policy",
        "extra_envs",
        "extra_volumes",
        "extra_volume_mounts",
        "http_port",
        "https_port",
        "network_mode",
        "default_backend",
        "default_http_backend_priority_class_name",
        "nginx_ingress_controller_priority_class_name",
        "default_ingress_class",
    ],
    nested: &[],
    base: Some(&ADDON),
};

static MONITORING: Level = Level {
    noun: "`monitoring`",
    free: &["provider", "replicas", "metrics_server_priority_class_name"],
    nested: &[],
    base: Some(&ADDON),
};

static DNS: Level = Level {
    noun: "`dns`",
    free: &["provider", "upstreamnameservers", "reversecidrs", "stubdomains"],
    nested: &[
        ("nodelocal", Shape::Mapping(&NODELOCAL)),
        ("linear_autoscaler_params", Shape::Mapping(&LINEAR_AUTOSCALER)),
    ],
    base: Some(&ADDON),
};

static NODELOCAL: Level = Level {
    noun: "`dns.nodelocal`",
    free: &["ip_address", "update_strategy", "node_selector", "node_local_dns_priority_class_name"],
    nested: &[],
    base: None,
};

static LINEAR_AUTOSCALER: Level = Level {
    noun: "`linear_autoscaler_params`",
    free: &["cores_per_replica", "nodes_per_replica", "min", "max", "prevent_single_point_failure"],
    nested: &[],
    base: None,
};

static CLOUD_PROVIDER: Level = Level {
    noun: "`cloud_provider`",
    free: &[
        "name",
        "useInstanceMetadataHostname",
        "awsCloudProvider",
        "azureCloudProvider",
        "openstackCloudProvider",
        "vsphereCloudProvider",
        "harvesterCloudProvider",
        "customCloudProvider",
        // v0.1.
        "cloud_config",
    ],
    nested: &[],
    base: None,
};

static RESTORE: Level =
    Level { noun: "`restore`", free: &["restore", "snapshot_name"], nested: &[], base: None };

static ROTATE_CERTIFICATES: Level = Level {
    noun: "`rotate_certificates`",
    // RKE's structure has no names for YAML, so that the file has Go's in lower case; Rancher writes `ca_certificates`.
    free: &["cacertificates", "ca_certificates", "services"],
    nested: &[],
    base: None,
};

static UPGRADE_STRATEGY: Level = Level {
    noun: "`upgrade_strategy`",
    free: &["max_unavailable_worker", "max_unavailable_controlplane", "drain"],
    nested: &[("node_drain_input", Shape::Mapping(&NODE_DRAIN))],
    base: None,
};

static NODE_DRAIN: Level = Level {
    noun: "`node_drain_input`",
    free: &["force", "ignore_daemonsets", "delete_local_data", "grace_period", "timeout"],
    nested: &[],
    base: None,
};

pub(super) static SYSTEM_IMAGES: Level = Level {
    noun: "`system_images`",
    free: &[
        "etcd",
        "alpine",
        "nginx_proxy",
        "cert_downloader",
        "kubernetes_services_sidecar",
        "kubedns",
        "dnsmasq",
        "kubedns_sidecar",
        "kubedns_autoscaler",
        "coredns",
        "coredns_autoscaler",
        "nodelocal",
        "kubernetes",
        "flannel",
        "flannel_cni",
        "calico_node",
        "calico_cni",
        "calico_controllers",
        "calico_ctl",
        "calico_flexvol",
        "canal_node",
        "canal_cni",
        "canal_controllers",
        "canal_flannel",
        "canal_flexvol",
        // v0.1 misspelled it.
        "wave_node",
        "weave_node",
        "weave_cni",
        "pod_infra_container",
        "ingress",
        "ingress_backend",
        "ingress_webhook",
        "metrics_server",
        "windows_pod_infra_container",
        "aci_cni_deploy_container",
        "aci_host_container",
        "aci_opflex_container",
        "aci_mcast_container",
        "aci_ovs_container",
        "aci_controller_container",
        "aci_gbp_server_container",
        "aci_opflex_server_container",
        // v0.1.0.
        "service_sidekick_image",
        "kubedns_image",
        "dnsmasq_image",
        "kubedns_sidecar_image",
        "kubedns_autoscaler_image",
    ],
    nested: &[],
    base: None,
};
