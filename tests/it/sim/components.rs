//! What etcd, kubelet and kube-apiserver make of their clients, and of new files.

use std::collections::BTreeSet;

use certroll::inventory::Role;
use certroll::sim::{Fault, Layout, RancherOptions};
use jiff::Timestamp;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::network::{Ask, Leaf, Pair};
use super::{Lab, SSL, inventory, lab, lab_of, name, run};

const ETCD_PAIR: &str = "kube-etcd-10-0-0-1";

fn stranger() -> Pair {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    Pair { certificate: parameters.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

#[test]
fn etcd_takes_clients_of_the_authority_alone() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        let node = lab.pair("cp-1", "kube-node");
        let health = |client| lab.ask(Ask::get("cp-1", 2379, client, "/health"));
        assert_eq!(health(Some(&node)).await, Ok((200, r#"{"health":"true"}"#.to_owned())));
        let ca = lab.pair("cp-1", "kube-ca");
        let late = Leaf { days: (-30, -1), ..Leaf::NODE }.sign(&ca);
        let early = Leaf { days: (1, 30), ..Leaf::NODE }.sign(&ca);
        let unknown = stranger();
        for bad in [&late, &early, &unknown] {
            let error = health(Some(bad)).await.unwrap_err();
            assert_eq!(error, "handshake: received fatal alert: BadCertificate");
        }
        assert!(health(None).await.unwrap_err().starts_with("handshake: "));
        // At the next handshake it serves what lies on disk then, without a restart.
        let new = Leaf::ETCD.sign(&ca);
        lab.install("cp-1", ETCD_PAIR, &new).await;
        let served = lab.served("cp-1", 2379).await.unwrap();
        assert_eq!(served, lab.disk("cp-1", &format!("{SSL}/{ETCD_PAIR}.pem")));
        assert!(health(Some(&node)).await.is_ok());
        lab.root("etcd-1", "docker stop etcd", "").await;
        assert_eq!(lab.fleet.serving().etcd_members, 2);
        lab.root("etcd-2", "docker stop etcd", "").await;
        assert_eq!(health(Some(&node)).await, Ok((503, r#"{"health":"false"}"#.to_owned())));
        assert_eq!(lab.fleet.serving().api_servers, 0);
        let (status, page) = lab.api(Some(&Leaf::ADMIN.sign(&ca)), "GET", "/healthz", Value::Null).await;
        assert_eq!((status, page.to_string().contains("etcd failed")), (500, true));
    });
}

#[test]
fn an_etcd_member_that_starts_without_a_quorum_takes_connections_and_is_silent() {
    run(async {
        let lab = lab(Layout::Expired028, |_| {}).await;
        let ca = lab.pair("cp-1", "kube-ca");
        let client = Leaf::NODE.sign(&ca);
        let health = |node| lab.ask(Ask::get(node, 2379, Some(&client), "/health"));
        assert_eq!(health("cp-1").await, Ok((503, r#"{"health":"false"}"#.to_owned())));
        assert_eq!(lab.fleet.serving().etcd_members, 0);
        let list =
            "docker exec -e ETCDCTL_API=3 etcd etcdctl --dial-timeout=2s --command-timeout=5s member list";
        assert_eq!(lab.exec("cp-1", list, "").await.0, 1);
        for (node, address) in [("cp-1", 1), ("etcd-1", 3)] {
            lab.install(node, &format!("kube-etcd-10-0-0-{address}"), &Leaf::ETCD.sign(&ca)).await;
            lab.restart(node, "etcd").await;
            if node == "cp-1" {
                lab.eventually("one member runs", || async { lab.fleet.serving().etcd_members == 1 }).await;
                let patience = std::time::Duration::from_millis(300);
                assert!(tokio::time::timeout(patience, health("cp-1")).await.is_err(), "it answers nothing");
                assert_eq!(lab.exec("cp-1", list, "").await.0, 1);
            }
        }
        lab.eventually("two members run", || async { lab.fleet.serving().etcd_members == 2 }).await;
        assert_eq!(health("cp-1").await, Ok((200, r#"{"health":"true"}"#.to_owned())));
        let (status, members, _) = lab.exec("cp-1", list, "").await;
        assert_eq!(status, 0);
        let rows: Vec<Vec<&str>> = members.lines().map(|line| line.split(", ").collect()).collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(
            rows[0][1..],
            ["started", "etcd-cp-1", "https://10.0.0.1:2380", "https://10.0.0.1:2379,https://10.0.0.1:4001"]
        );
        let health = "docker exec etcd etcdctl --command-timeout=5s endpoint health";
        let (status, line, _) = lab.exec("cp-1", health, "").await;
        assert_eq!((status, line.contains("127.0.0.1:2379 is healthy")), (0, true));
    });
}

#[test]
fn an_expired_cluster_comes_back_pair_by_pair() {
    run(async {
        for layout in [Layout::Expired028, Layout::LegacyExpired, Layout::LegacyTmpMissing] {
            let lab = lab(layout, |_| {}).await;
            let ca = lab.pair("cp-1", "kube-ca");
            let admin = Leaf::ADMIN.sign(&ca);
            let api = || lab.ask(Ask::get("cp-1", 6443, Some(&admin), "/healthz"));
            assert_eq!(api().await, Err("connection refused".to_owned()), "{layout:?}");
            for (node, address) in [("cp-1", 1), ("etcd-1", 3)] {
                lab.install(node, &format!("kube-etcd-10-0-0-{address}"), &Leaf::ETCD.sign(&ca)).await;
                lab.restart(node, "etcd").await;
            }
            lab.eventually("a quorum", || async { lab.fleet.serving().etcd_members == 2 }).await;
            assert_eq!(lab.fleet.serving().api_servers, 0, "its client pair has expired");
            lab.install("cp-1", "kube-apiserver", &Leaf::API.sign(&ca)).await;
            let node = Leaf::NODE.sign(&ca);
            lab.install("cp-1", "kube-node", &node).await;
            lab.restart("cp-1", "kube-apiserver").await;
            lab.eventually("the API answers", || async { api().await == Ok((200, "ok".to_owned())) }).await;
            assert_eq!(lab.fleet.serving().api_servers, 1);
            let ready = |node: &str| lab.fleet.node(&name(node)).unwrap().is_ready();
            lab.install("w-1", "kube-node", &node).await;
            assert!(!ready("w-1"), "kubelet holds what it has read at its start");
            let unready = node_condition(&lab, &admin, "w-1").await;
            assert_eq!(unready["status"], "Unknown");
            assert_eq!(unready["message"], "Kubelet stopped posting node status.");
            lab.restart("w-1", "kubelet").await;
            lab.eventually("w-1 is ready", || async { ready("w-1") }).await;
            assert_eq!(node_condition(&lab, &admin, "w-1").await["status"], "True");
        }
    });
}

async fn node_condition(lab: &Lab, client: &Pair, node: &str) -> Value {
    let (status, list) = lab.api(Some(client), "GET", "/api/v1/nodes", Value::Null).await;
    assert_eq!(status, 200);
    let list_of = |value: &Value, path: &str| value.pointer(path).unwrap().as_array().unwrap().clone();
    let is = |value: &Value, path: &str, text: &str| value.pointer(path).unwrap() == text;
    let item = list_of(&list, "/items").into_iter().find(|item| is(item, "/metadata/name", node)).unwrap();
    let conditions = list_of(&item, "/status/conditions");
    conditions.into_iter().find(|condition| is(condition, "/type", "Ready")).unwrap()
}

#[test]
fn the_api_knows_users_by_their_certificates() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        let ca = lab.pair("cp-1", "kube-ca");
        let admin = Leaf::ADMIN.sign(&ca);
        let late = Leaf { days: (-30, -1), ..Leaf::ADMIN }.sign(&ca);
        let node = lab.pair("cp-1", "kube-node");
        for path in ["/healthz", "/version", "/api/v1/nodes"] {
            for nobody in [None, Some(&late), Some(&stranger())] {
                let (status, answer) = lab.api(nobody, "GET", path, Value::Null).await;
                assert_eq!((status, &answer["kind"], &answer["code"]), (401, &json!("Status"), &json!(401)));
            }
            assert_eq!(lab.api(Some(&admin), "GET", path, Value::Null).await.0, 200, "{path}");
        }
        assert_eq!(lab.api(Some(&node), "GET", "/healthz", Value::Null).await, (200, json!("ok")));
        assert_eq!(lab.api(Some(&node), "GET", "/api/v1/nodes", Value::Null).await.0, 200);
        let secrets = "/api/v1/namespaces/kube-system/secrets";
        assert_eq!(lab.api(Some(&node), "GET", secrets, Value::Null).await.0, 403);
        let (_, version) = lab.api(Some(&admin), "GET", "/version", Value::Null).await;
        assert_eq!((&version["gitVersion"], &version["minor"]), (&json!("v1.11.6"), &json!("11")));
        let (_, nodes) = lab.api(Some(&admin), "GET", "/api/v1/nodes", Value::Null).await;
        let first = &nodes["items"][0];
        assert_eq!(nodes["items"].as_array().unwrap().len(), 6);
        assert_eq!(first["metadata"]["labels"]["node-role.kubernetes.io/etcd"], "true");
        assert_eq!(first["status"]["addresses"][0], json!({"type": "InternalIP", "address": "10.0.0.1"}));
        // The same pair goes on working while files change: it has read them at its start.
        lab.install("cp-1", "kube-node", &late).await;
        assert_eq!(lab.fleet.serving().api_servers, 2);
        lab.restart("cp-1", "kube-apiserver").await;
        assert_eq!(lab.fleet.serving().api_servers, 1);
        lab.install("cp-1", "kube-node", &node).await;
        lab.eventually("it is back", || async { lab.fleet.serving().api_servers == 2 }).await;
    });
}

#[test]
fn kubelet_asks_for_a_certificate_and_makes_its_own_when_it_has_none() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        let client = lab.pair("w-1", "kube-node");
        let health = |client| lab.ask(Ask::get("w-1", 10250, client, "/healthz"));
        assert_eq!(health(Some(&client)).await, Ok((200, "ok".to_owned())));
        assert_eq!(health(None).await, Ok((401, "Unauthorized".to_owned())));
        assert_eq!(health(Some(&stranger())).await, Ok((401, "Unauthorized".to_owned())));
        let pki = "/var/lib/kubelet/pki";
        let before = lab.served("w-1", 10250).await.unwrap();
        lab.restart("w-1", "kubelet").await;
        lab.eventually("kubelet is back", || async { lab.served("w-1", 10250).await.is_some() }).await;
        assert_eq!(lab.served("w-1", 10250).await.unwrap(), before, "the files are there");
        let key = lab.fleet.node(&name("w-1")).unwrap().file(&format!("{pki}/kubelet.key"));
        lab.root("w-1", &format!("rm -f {pki}/kubelet.crt {pki}/kubelet.key"), "").await;
        assert_eq!(lab.served("w-1", 10250).await.unwrap(), before, "it has them in memory");
        lab.restart("w-1", "kubelet").await;
        lab.eventually("kubelet is back", || async { lab.served("w-1", 10250).await.is_some() }).await;
        let served = lab.served("w-1", 10250).await.unwrap();
        assert_eq!(served, lab.disk("w-1", &format!("{pki}/kubelet.crt")));
        assert_ne!(lab.fleet.node(&name("w-1")).unwrap().file(&format!("{pki}/kubelet.key")), key);
        let (_, certificate) = X509Certificate::from_der(&served).unwrap();
        let now = Timestamp::now().as_second();
        let days = (certificate.validity().not_after.timestamp() - now) / 86_400;
        assert!((364..=365).contains(&days), "{days}");
        assert!(certificate.subject().to_string().starts_with("CN=w-1@"), "{}", certificate.subject());
        assert!(certificate.issuer().to_string().starts_with("CN=w-1-ca@"), "{}", certificate.issuer());
        let (_, modes, _) =
            lab.root("w-1", &format!("stat -c '%a %u:%g' {pki}/kubelet.crt {pki}/kubelet.key"), "").await;
        assert_eq!(modes, "644 0:0\n600 0:0\n");
    });
}

#[test]
fn kubelets_serve_certificates_of_the_cluster_where_the_inventory_says_so() {
    run(async {
        let mut inventory = inventory("/");
        inventory.generate_serving_certificate = true;
        inventory.etcd_owner = Some((52034, 52035));
        let lab = lab_of(&inventory, Layout::Healthy).await;
        let file = format!("{SSL}/kube-kubelet-10-0-0-5.pem");
        assert_eq!(lab.served("w-1", 10250).await.unwrap(), lab.disk("w-1", &file));
        assert_eq!(lab.disk("cp-2", &file), lab.disk("w-1", &file), "every node holds the pairs of all");
        let der = lab.disk("w-1", &file);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=kube-kubelet-10-0-0-5");
        assert_eq!(names(&der), BTreeSet::from(["127.7.0.5", "10.0.0.5", "w-1"].map(str::to_owned)));
        let arguments = "docker inspect -f '{{json .Args}}' ";
        let (_, kubelet, _) = lab.exec("w-1", &format!("{arguments} kubelet"), "").await;
        assert!(
            kubelet.contains("--tls-cert-file=/etc/kubernetes/ssl/kube-kubelet-10-0-0-5.pem"),
            "{kubelet}"
        );
        let (_, api, _) = lab.exec("cp-1", &format!("{arguments} kube-apiserver"), "").await;
        assert!(api.contains("--kubelet-certificate-authority=/etc/kubernetes/ssl/kube-ca.pem"), "{api}");
        let (_, owners, _) = lab
            .root(
                "cp-1",
                &format!(
                    "cd {SSL}; stat -c '%a %u:%g' kube-etcd-10-0-0-3-key.pem kube-ca.pem kube-ca-key.pem"
                ),
                "",
            )
            .await;
        assert_eq!(owners, "600 52034:52035\n644 0:0\n600 0:0\n");
        let yml = std::fs::read_to_string(&lab.fleet.paths().cluster_yml).unwrap();
        let read = certroll::inventory::Inventory::parse(&yml, "cluster.yml").unwrap().inventory;
        assert_eq!((read.generate_serving_certificate, read.etcd_owner), (true, Some((52034, 52035))));
    });
}

/// Returns the alternative names of a certificate.
fn names(der: &[u8]) -> BTreeSet<String> {
    use x509_parser::extensions::GeneralName;
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    let extension = certificate.subject_alternative_name().unwrap().unwrap();
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => {
            std::net::Ipv4Addr::from(<[u8; 4]>::try_from(*bytes).unwrap()).to_string()
        }
        other => panic!("{other:?}"),
    };
    extension.value.general_names.iter().map(name).collect()
}

#[test]
fn certificates_carry_the_names_that_rke_gives_them() {
    run(async {
        let lab = lab(Layout::Healthy, |options| options.rancher = Some(RancherOptions::default())).await;
        let common = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "127.0.0.1",
            "10.43.0.1",
        ];
        let with = |own: &[&str]| -> BTreeSet<String> {
            common.iter().chain(own).map(|name| (*name).to_owned()).collect()
        };
        assert_eq!(
            names(&lab.disk("cp-2", &format!("{SSL}/kube-apiserver.pem"))),
            with(&["cp-1", "127.7.0.1", "10.0.0.1", "cp-2", "127.7.0.2", "10.0.0.2", "api.example.net"])
        );
        let members = with(&[
            "cp-1",
            "127.7.0.1",
            "10.0.0.1",
            "etcd-1",
            "127.7.0.3",
            "10.0.0.3",
            "etcd-2",
            "127.7.0.4",
            "10.0.0.4",
        ]);
        for node in inventory("/").with_role(Role::Etcd) {
            for member in inventory("/").with_role(Role::Etcd) {
                let file = format!("{SSL}/kube-etcd-{}.pem", member.file_name_address());
                assert_eq!(names(&lab.disk(node.name.as_str(), &file)), members);
            }
        }
        let files = lab.fleet.node(&name("cp-2")).unwrap().files();
        assert!(!files.iter().any(|file| file.path.contains("kube-etcd-")), "cp-2 has no etcd");
    });
}

#[test]
fn faults_of_a_renewal() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        let container = |name: &str| Fault::UnhealthyAfterRestart { container: name.to_owned() };
        lab.fleet.inject(&name("etcd-1"), container("etcd"));
        assert_eq!(lab.fleet.serving().etcd_members, 3, "nothing happens before a restart");
        lab.restart("etcd-1", "etcd").await;
        lab.restart("cp-1", "etcd").await;
        lab.eventually("the other is back", || async { lab.fleet.serving().etcd_members == 2 }).await;
        lab.fleet.mend(&name("etcd-1"));
        lab.eventually("mended", || async { lab.fleet.serving().etcd_members == 3 }).await;
        lab.fleet.inject(&name("cp-1"), container("kube-apiserver"));
        lab.restart("cp-1", "kube-apiserver").await;
        assert_eq!(lab.fleet.serving().api_servers, 1);
        let folder = "/etc/kubernetes/.certroll".to_owned();
        lab.fleet.inject(&name("w-1"), Fault::NoSpaceBeneath { folder });
        let (status, _, stderr) = lab
            .root("w-1", "mkdir -p /etc/kubernetes/.certroll && : > /etc/kubernetes/.certroll/x", "")
            .await;
        assert_eq!((status, stderr.contains("No space left")), (2, true));
        assert_eq!(lab.root("w-1", ": > /etc/kubernetes/x; df -Pk /etc | tail -n 1 | wc -l", "").await.0, 0);
        lab.fleet.mend(&name("w-1"));
        assert_eq!(lab.root("w-1", ": > /etc/kubernetes/.certroll/x", "").await.0, 0);
    });
}
