//! The simulated fleet and Rancher, seen through the network as certroll sees them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot go on panics; it reads the clock and files itself"
)]

mod components;
mod effects;
mod hooks;
mod network;
mod rancher;
mod rancher_golden;
mod rancher_releases;
mod stored;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use certroll::inventory::{Inventory, MaxUnavailable, Node, NodeName, Role, SshCredentials};
use certroll::sim::{Fault, Fleet, FleetOptions, Layout, Privilege, RancherOptions};
use jiff::Timestamp;
use russh::ChannelMsg;
use russh::client::{self, Handle};
use russh::keys::{PrivateKeyWithHashAlg, load_secret_key};
use serde_json::Value;

/// Three control plane nodes with etcd, two workers, one node of etcd alone where asked for.
fn inventory(prefix: &str) -> Inventory {
    let node = |name: &str, number: u8, roles: &[Role]| Node {
        name: NodeName::new(name),
        address: format!("203.0.113.{number}"),
        internal_address: format!("10.0.0.{number}"),
        port: 22,
        user: "rancher".to_owned(),
        roles: roles.to_vec(),
        docker_socket: "/var/run/docker.sock".to_owned(),
        ssh: SshCredentials::default(),
        labels: BTreeMap::new(),
    };
    let both = [Role::ControlPlane, Role::Etcd];
    Inventory {
        cluster_name: "prod".to_owned(),
        kubernetes_version: Some("v1.11.6-rancher1-1".to_owned()),
        prefix_path: prefix.to_owned(),
        nodes: vec![
            node("cp-1", 1, &both),
            node("cp-2", 2, &[Role::ControlPlane]),
            node("etcd-1", 3, &[Role::Etcd]),
            node("etcd-2", 4, &[Role::Etcd]),
            node("w-1", 5, &[Role::Worker]),
            node("w-2", 6, &[Role::Worker]),
        ],
        bastion: None,
        authentication_sans: vec!["api.example.net".to_owned()],
        service_cluster_ip_ranges: vec!["10.43.0.0/16".to_owned()],
        cluster_domain: "cluster.local".to_owned(),
        generate_serving_certificate: false,
        ignore_docker_version: false,
        external_etcd_urls: Vec::new(),
        etcd_owner: None,
        max_unavailable_worker: MaxUnavailable::DEFAULT,
        system_images: BTreeMap::new(),
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

fn name(text: &str) -> NodeName {
    NodeName::new(text)
}

struct Lab {
    fleet: Fleet,
    _folder: tempfile::TempDir,
}

async fn lab(layout: Layout, change: impl FnOnce(&mut FleetOptions<'_>)) -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let inventory = inventory("/");
    let mut options = FleetOptions::new(&inventory, layout, Timestamp::now());
    change(&mut options);
    let fleet = Fleet::start(options, folder.path()).await.unwrap();
    Lab { fleet, _folder: folder }
}

/// Starts a fleet of an inventory that is not the usual one.
async fn lab_of(inventory: &Inventory, layout: Layout) -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let options = FleetOptions::new(inventory, layout, Timestamp::now());
    Lab { fleet: Fleet::start(options, folder.path()).await.unwrap(), _folder: folder }
}

struct AnyKey;

impl client::Handler for AnyKey {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

impl Lab {
    async fn login(&self, node: &str) -> Result<Handle<AnyKey>, russh::Error> {
        let address = self.fleet.address(&name(node)).unwrap();
        let mut session = client::connect(Arc::new(client::Config::default()), address, AnyKey).await?;
        let key = load_secret_key(&self.fleet.paths().ssh_key, None).unwrap();
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        assert!(session.authenticate_publickey("rancher", key).await?.success());
        Ok(session)
    }

    /// Runs a command as the login and returns status, stdout and stderr.
    async fn exec(&self, node: &str, line: &str, stdin: &str) -> (u32, String, String) {
        let session = self.login(node).await.unwrap();
        let mut channel = session.channel_open_session().await.unwrap();
        channel.exec(true, line).await.unwrap();
        channel.data(stdin.as_bytes()).await.unwrap();
        channel.eof().await.unwrap();
        let (mut status, mut stdout, mut stderr) = (None, Vec::new(), Vec::new());
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => stdout.extend_from_slice(&data),
                ChannelMsg::ExtendedData { data, .. } => stderr.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                _ => {}
            }
        }
        (status.unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    /// Runs a script as root, through the docker group.
    async fn root(&self, node: &str, script: &str, stdin: &str) -> (u32, String, String) {
        let (_, image, _) = self.exec(node, "docker inspect --format '{{.Image}}' kubelet", "").await;
        let line = format!(
            "exec docker run --rm -i --network none --userns host --security-opt label=disable -v /:/host \
             --entrypoint chroot {} /host sh -c '{}'",
            image.trim(),
            script.replace('\'', r"'\''")
        );
        self.exec(node, &line, stdin).await
    }

    /// Makes a TLS handshake with a port of a node and returns the certificate that it serves.
    async fn served(&self, node: &str, port: u16) -> Option<Vec<u8>> {
        let session = self.login(node).await.unwrap();
        let channel =
            session.channel_open_direct_tcpip("127.0.0.1", port.into(), "127.0.0.1", 0).await.ok()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let seen =
            Arc::new(Seen { certificate: std::sync::Mutex::default(), provider: Arc::clone(&provider) });
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let verifier: Arc<dyn rustls::client::danger::ServerCertVerifier> = Arc::clone(&seen) as _;
        let config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        // What matters is what the server shows, not whether it takes this client.
        let _ = connector.connect("localhost".try_into().unwrap(), channel.into_stream()).await;
        seen.certificate.lock().unwrap().clone()
    }

    /// Waits until something holds; a minute is far more than it takes.
    async fn eventually<F: Future<Output = bool>>(&self, what: &str, mut holds: impl FnMut() -> F) {
        let wait = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            while !holds().await {
                ticks.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .unwrap_or_else(|_| panic!("never came true: {what}"));
    }

    fn disk(&self, node: &str, path: &str) -> Vec<u8> {
        let pem = self.fleet.node(&name(node)).unwrap().file(path).unwrap();
        x509_parser::pem::parse_x509_pem(&pem).unwrap().1.contents
    }
}

#[derive(Debug)]
struct Seen {
    certificate: std::sync::Mutex<Option<Vec<u8>>>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl rustls::client::danger::ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        *self.certificate.lock().unwrap() = Some(end_entity.to_vec());
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

const SSL: &str = "/etc/kubernetes/ssl";

#[test]
fn a_user_of_the_docker_group_becomes_root_through_an_image_on_the_node() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        let (status, stdout, _) =
            lab.exec("cp-1", "exec sh -c 'id -u; sudo -n true; echo $?; cat'", "over the wire").await;
        assert_eq!((status, stdout.as_str()), (0, "1000\n1\nover the wire"));
        let (status, _, stderr) = lab.exec("cp-1", &format!("cat {SSL}/kube-ca.pem"), "").await;
        assert_eq!((status, stderr.contains("Permission denied")), (1, true));
        let (status, stdout, stderr) =
            lab.root("cp-1", &format!("umask 077; cat > {SSL}/x && stat -c '%a %u %n' {SSL}/x"), "new").await;
        assert_eq!((status, stdout, stderr), (0, format!("600 0 {SSL}/x\n"), String::new()));
        let effects = lab.fleet.effects();
        assert_eq!(
            effects.iter().map(|effect| effect.description.as_str()).collect::<Vec<_>>(),
            [format!("create {SSL}/x")]
        );
        let pulled =
            lab.exec("cp-1", "docker run --rm -v /:/host --entrypoint chroot alpine:3 /host true", "").await;
        assert_eq!(pulled.0, 125);
    });
}

#[test]
fn a_prefix_moves_the_files_and_not_what_containers_see() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let inventory = inventory("/opt/rke");
        let fleet =
            Fleet::start(FleetOptions::new(&inventory, Layout::Healthy, Timestamp::now()), folder.path())
                .await
                .unwrap();
        let lab = Lab { fleet, _folder: folder };
        let node = lab.fleet.node(&name("cp-1")).unwrap();
        assert!(node.file("/opt/rke/etc/kubernetes/ssl/kube-ca-key.pem").is_some());
        assert!(node.file("/etc/kubernetes/ssl/kube-ca.pem").is_none());
        assert!(node.is_ready() && node.etcd_serves());
        let (status, inside, _) =
            lab.exec("cp-1", "docker exec kubelet cat /etc/kubernetes/ssl/kube-ca.pem", "").await;
        assert_eq!(
            (status, Some(inside.into_bytes())),
            (0, node.file("/opt/rke/etc/kubernetes/ssl/kube-ca.pem"))
        );
        assert!(lab.served("cp-1", 6443).await.is_some());
    });
}

#[test]
fn a_disconnected_agent_fetches_nothing_and_says_why() {
    run(async {
        let lab = lab(Layout::Healthy, |options| options.rancher = Some(RancherOptions::default())).await;
        lab.fleet.inject(&name("w-1"), Fault::AgentDisconnected);
        let file = format!("{SSL}/kube-node.pem");
        let before = lab.disk("w-1", &file);
        lab.fleet.operator_rotates().await.unwrap();
        lab.eventually("w-2 has fetched", || async { lab.disk("w-2", &file) != before }).await;
        assert_eq!(lab.disk("w-1", &file), before);
        let script = "docker logs --tail 1 $(docker ps -q --filter name=k8s_agent_cattle-node-agent)";
        assert!(lab.exec("w-1", script, "").await.2.contains("Failed to connect to proxy"));
        lab.fleet.mend(&name("w-1"));
        lab.eventually("w-1 has fetched", || async { lab.disk("w-1", &file) != before }).await;
    });
}

#[test]
fn users_become_root_as_their_node_allows() {
    run(async {
        let privileges = BTreeMap::from([(name("w-1"), Privilege::Sudo), (name("w-2"), Privilege::Plain)]);
        let lab = lab(Layout::Healthy, |options| options.users = privileges).await;
        assert_eq!(lab.exec("w-1", "exec sudo -n sh -c 'id -u'", "").await.1, "0\n");
        assert_eq!(lab.exec("w-1", "docker ps", "").await.0, 1);
        assert_eq!(lab.exec("w-2", "docker ps", "").await.0, 1);
    });
}

#[test]
fn a_component_serves_the_certificate_that_it_started_with() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        let file = format!("{SSL}/kube-apiserver.pem");
        assert_eq!(lab.served("cp-1", 6443).await.unwrap(), lab.disk("cp-1", &file));
        assert_eq!(lab.served("w-1", 6443).await.unwrap(), lab.disk("cp-1", &file), "through nginx-proxy");
        assert_eq!(
            lab.served("cp-1", 2379).await.unwrap(),
            lab.disk("cp-1", &format!("{SSL}/kube-etcd-10-0-0-1.pem"))
        );
        lab.fleet.operator_rotates().await.unwrap();
        let before = lab.served("cp-1", 6443).await;
        lab.eventually("the API server is back", || async { lab.served("cp-1", 6443).await.is_some() }).await;
        assert_eq!(lab.served("cp-1", 6443).await.unwrap(), lab.disk("cp-1", &file), "{before:?}");
        let kept = lab.served("cp-1", 6443).await;
        lab.root("cp-1", &format!("cp {SSL}/kube-node.pem {SSL}/kube-apiserver.pem"), "").await;
        assert_eq!(lab.served("cp-1", 6443).await, kept, "without a restart");
        lab.root("cp-1", "docker restart kube-apiserver", "").await;
        assert_eq!(lab.served("cp-1", 6443).await, None, "a key of another certificate");
        assert_eq!(
            lab.exec("cp-1", "docker inspect -f '{{.State.Status}}' kube-apiserver", "").await.1,
            "restarting\n"
        );
    });
}

#[test]
fn an_expired_cluster_has_no_api_and_an_etcd_that_refuses() {
    run(async {
        let lab = lab(Layout::LegacyExpired, |_| {}).await;
        assert_eq!(lab.served("cp-1", 6443).await, None);
        assert!(lab.served("cp-1", 2379).await.is_some());
        assert!(lab.served("w-1", 10250).await.is_some());
        assert_eq!(lab.exec("cp-1", "docker exec etcd etcdctl endpoint health", "").await.0, 1);
        let listed = lab.root("cp-1", "ls -A /etc/kubernetes/.tmp /etc/kubernetes/ssl", "").await.1;
        assert!(listed.contains("kube-admin-key.pem") && !listed.contains("service-account"), "{listed}");
        let etcd_only = lab.root("etcd-1", "ls /etc/kubernetes/ssl; ls /etc/kubernetes/.tmp", "").await.1;
        assert_eq!(etcd_only.matches("kube-ca-key.pem").count(), 1, "only in .tmp: {etcd_only}");
        assert!(!etcd_only.contains("requestheader"));
    });
}

#[test]
fn etcdctl_and_templates_answer_as_docker_does() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        let (_, members, _) = lab.exec("etcd-1", "docker exec etcd etcdctl member list -w json", "").await;
        let members: Value = serde_json::from_str(&members).unwrap();
        assert_eq!(members["members"].as_array().unwrap().len(), 3);
        lab.root("etcd-2", "docker stop -t 5 etcd", "").await;
        let (status, stdout, _) =
            lab.exec("cp-1", "docker exec etcd etcdctl endpoint health --cluster", "").await;
        assert_eq!(
            (status, stdout.matches("is healthy").count(), stdout.matches("is unhealthy").count()),
            (1, 2, 1)
        );
        let format = "{{.Name}} {{.State.Running}} {{json .State.Status}}{{range .Mounts}}{{if eq .Destination \"/etc/kubernetes\"}} {{.Source}}{{end}}{{end}}";
        let (_, line, _) = lab.exec("w-1", &format!("docker inspect --format '{format}' kubelet"), "").await;
        assert_eq!(line, "/kubelet true \"running\" /etc/kubernetes\n");
        let (status, _, stderr) = lab.exec("w-1", "docker inspect --format '{{.Nothing}}' kubelet", "").await;
        assert_eq!((status, stderr.contains("map has no entry for key")), (1, true));
        let (_, rows, _) =
            lab.exec("w-1", "docker ps -a --no-trunc --format '{{.Names}}\\t{{.State}}'", "").await;
        assert_eq!(
            rows,
            "kube-proxy\trunning\nkubelet\trunning\nnginx-proxy\trunning\nservice-sidekick\tcreated\n"
        );
    });
}

#[test]
fn faults_come_and_go() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        let node = name("w-1");
        lab.fleet.inject(&node, Fault::Unreachable);
        lab.eventually("the node refuses", || async { lab.login("w-1").await.is_err() }).await;
        lab.fleet.mend(&node);
        lab.eventually("the node is back", || async { lab.login("w-1").await.is_ok() }).await;
        lab.fleet.inject(
            &node,
            Fault::CommandFails { pattern: "docker ps".to_owned(), status: 7, stderr: "broken\n".to_owned() },
        );
        assert_eq!(lab.exec("w-1", "docker ps", "").await, (7, String::new(), "broken\n".to_owned()));
        lab.fleet.inject(&node, Fault::DiskFull);
        assert_eq!(lab.root("w-1", "echo x > /tmp/x", "").await.0, 2);
        lab.fleet.inject(&node, Fault::ClockSkew { seconds: 3600 });
        let seconds: i64 = lab.exec("w-1", "date -u +%s", "").await.1.trim().parse().unwrap();
        assert!(seconds >= Timestamp::now().as_second() + 3590);
        lab.fleet.inject(&node, Fault::DropConnection { pattern: "uname".to_owned() });
        let session = lab.login("w-1").await.unwrap();
        let mut channel = session.channel_open_session().await.unwrap();
        channel.exec(true, "uname").await.unwrap();
        while let Some(message) = channel.wait().await {
            assert!(!matches!(message, ChannelMsg::ExitStatus { .. }), "no status is told");
        }
    });
}
