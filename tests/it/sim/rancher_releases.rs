//! What the simulated Rancher is by its version, and whom it lets do what.

use certroll::sim::{
    ClusterKind, Layout, NodeSource, OtherCluster, RancherFailure, RancherOptions, ServerCertificate,
    TokenRights,
};
use serde_json::{Value, json};

use super::rancher::Api;
use super::{Lab, lab, run};

async fn with(layout: Layout, rancher: RancherOptions) -> (Lab, Api) {
    let lab = lab(layout, |options| options.rancher = Some(rancher)).await;
    let api = Api::of(&lab.fleet);
    (lab, api)
}

fn of(version: &str) -> RancherOptions {
    RancherOptions {
        version: version.to_owned(),
        failure: Some(RancherFailure::NeverBegins),
        ..RancherOptions::default()
    }
}

#[test]
fn each_release_has_the_action_of_its_sources() {
    run(async {
        let all = json!({ "type": "/v3/schemas/rotateCertificates" });
        let one =
            json!({ "caCertificates": false, "services": "", "type": "/v3/schemas/rotateCertificates" });
        for (version, list, empty, flag) in [
            ("v2.0.13", 422, 422, Value::Null),
            ("v2.1.8", 422, 422, Value::Null),
            ("v2.0.14", 200, 200, all.clone()),
            ("v2.1.9", 200, 200, all),
            ("v2.2.0", 400, 400, Value::Null),
            ("v2.9.0", 400, 400, Value::Null),
        ] {
            let (_lab, api) = with(Layout::Healthy, of(version)).await;
            let cluster = api.cluster().await;
            assert_eq!(cluster["actions"]["rotateCertificates"].is_string(), list != 422, "{version}");
            assert_eq!(cluster["certificatesExpiration"].is_object(), version == "v2.9.0", "{version}");
            assert_eq!(api.rotate(r#"{"services":["etcd"]}"#).await.0, list, "{version}");
            assert_eq!(api.rotate("").await.0, empty, "{version}");
            assert_eq!(
                api.cluster().await["rancherKubernetesEngineConfig"]["rotateCertificates"],
                flag,
                "{version}"
            );
            if list == 400 {
                assert_eq!(api.rotate(r#"{"services":""}"#).await.0, 200, "{version}");
                assert_eq!(
                    api.cluster().await["rancherKubernetesEngineConfig"]["rotateCertificates"],
                    one,
                    "{version}"
                );
            }
        }
    });
}

#[test]
fn a_token_sees_and_changes_what_its_owner_may() {
    run(async {
        for (version, status) in [("v2.2.8", 401), ("v2.4.0", 403)] {
            let reader = RancherOptions { token: TokenRights::ReadOnly, ..of(version) };
            let (_lab, api) = with(Layout::Healthy, reader).await;
            let (refused, body) = api.rotate("{}").await;
            assert_eq!(refused, status, "{version}");
            assert!(body.contains("can not rotate certificates"), "{body}");
            assert!(api.cluster().await["links"]["update"].is_null());
        }
        let stranger = RancherOptions { token: TokenRights::Stranger, ..of("v2.2.8") };
        let (_lab, api) = with(Layout::Healthy, stranger).await;
        assert_eq!(api.get("/v3/clusters").await["data"], json!([]));
        assert_eq!(api.cluster().await["status"], 403);
        assert_eq!(api.rotate("{}").await.0, 403);
    });
}

#[test]
fn pages_begin_with_the_item_that_their_marker_names() {
    run(async {
        let kinds = [ClusterKind::Rke2, ClusterKind::K3s, ClusterKind::Imported, ClusterKind::Local];
        let others = kinds.map(|kind| OtherCluster { name: format!("{kind:?}").to_lowercase(), kind });
        let small = RancherOptions { page_limit: 2, others: others.into(), ..of("v2.6.0") };
        let (_lab, api) = with(Layout::Healthy, small).await;
        let (mut path, mut ids, mut pages) = ("/v3/clusters".to_owned(), Vec::new(), 0);
        while !path.is_empty() {
            let page = api.get(&path).await;
            assert_eq!(
                (&page["pagination"]["total"], &page["pagination"]["partial"]),
                (&json!(5), &json!(true))
            );
            ids.extend(
                page["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()),
            );
            pages += 1;
            path = page["pagination"]["next"].as_str().unwrap_or_default().replace(&api.url(), "");
            if let Some((_, marker)) = path.split_once("marker=") {
                assert!(marker.starts_with('c') || marker == "local", "{path}");
            }
        }
        assert_eq!((pages, ids.len(), ids.is_sorted()), (3, 5, true), "{ids:?}");
        for cluster in api.get("/v3/clusters?limit=-1").await["data"].as_array().unwrap() {
            let can_rotate = cluster["actions"]["rotateCertificates"].is_string();
            assert_eq!(can_rotate, cluster["driver"] == "rancherKubernetesEngine", "{}", cluster["name"]);
        }
    });
}

/// Reads the first file of an archive whose name ends so; its sizes stand in the directory alone, as Go writes it.
#[expect(clippy::indexing_slicing, reason = "an archive that is cut short fails its test")]
fn entry(archive: &[u8], wanted: &str) -> Vec<u8> {
    let end = archive.len() - 22;
    let number = |at: usize, length: usize| {
        archive[at..at + length].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let (count, mut at) = (number(end + 10, 2), number(end + 16, 4));
    for _ in 0..count {
        let (size, name_length, offset) = (number(at + 24, 4), number(at + 28, 2), number(at + 42, 4));
        let name = String::from_utf8(archive[at + 46..at + 46 + name_length].to_vec()).unwrap();
        if name == wanted {
            let start = offset + 30 + number(offset + 26, 2) + number(offset + 28, 2);
            assert_eq!(number(offset + 22, 4), 0, "the header before the data tells no size");
            return archive[start..start + size].to_vec();
        }
        at += 46 + name_length;
    }
    panic!("no {wanted} among {count}");
}

#[test]
fn machines_of_a_node_driver_have_their_keys_in_an_archive() {
    run(async {
        let driver = RancherOptions { nodes: NodeSource::NodeDriver, ..of("v2.2.8") };
        let (lab, api) = with(Layout::Healthy, driver).await;
        let nodes = api.get("/v3/nodes?nodeName=w-1").await;
        let node = &nodes["data"][0];
        assert_eq!((&node["sshUser"], &node["customConfig"]), (&json!("rancher"), &Value::Null));
        let link = node["links"]["nodeConfig"].as_str().unwrap().replace(&api.url(), "");
        let answer = api.ask(&link, api.token(), None).await;
        let archive = answer.bytes().await.unwrap();
        let key = std::fs::read(&lab.fleet.paths().ssh_key).unwrap();
        assert_eq!(entry(&archive, "w-1/id_rsa"), key);
        assert!(!entry(&archive, "w-1/id_rsa.pub").is_empty());

        let (_lab, api) = with(Layout::Healthy, of("v2.2.8")).await;
        let nodes = api.get("/v3/nodes?nodeName=w-1").await;
        let node = &nodes["data"][0];
        assert_eq!((&node["sshUser"], &node["links"]["nodeConfig"]), (&json!("root"), &Value::Null));
    });
}

#[test]
fn refusals_end_after_as_many_as_were_asked_for() {
    run(async {
        let busy = RancherFailure::CallsRefused { status: 429, times: 1 };
        let (_lab, api) = with(Layout::Healthy, RancherOptions { failure: Some(busy), ..of("v2.2.8") }).await;
        let path = "/v3/clusters/c-sim01?action=rotateCertificates";
        let answer = api.ask(path, api.token(), Some("{}")).await;
        assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (429, "1"));
        assert_eq!(api.rotate("{}").await.0, 200);

        let (_lab, api) = with(
            Layout::Healthy,
            RancherOptions { failure: Some(RancherFailure::UpdateRace), ..of("v2.2.8") },
        )
        .await;
        let (status, body) = api.rotate("{}").await;
        assert_eq!((status, body.lines().count()), (500, 2), "{body}");
        assert_eq!(api.cluster().await["rancherKubernetesEngineConfig"]["rotateCertificates"], Value::Null);
    });
}

#[test]
fn an_expired_server_certificate_is_not_taken() {
    run(async {
        let expired = RancherOptions { certificate: ServerCertificate::Expired, ..of("v2.2.8") };
        let (_lab, api) = with(Layout::Healthy, expired).await;
        let error = api.try_to_ask("/ping").await.unwrap_err();
        assert!(format!("{error:?}").contains("Expired"), "{error:?}");
    });
}

#[test]
fn a_restart_in_the_middle_ends_in_a_rotation_all_the_same() {
    run(async {
        let restarts =
            RancherOptions { failure: Some(RancherFailure::Restarts), ..RancherOptions::default() };
        let (lab, api) = with(Layout::Healthy, restarts).await;
        let before = lab.disk("cp-1", "/etc/kubernetes/ssl/kube-node.pem");
        assert_eq!(api.rotate("{}").await.0, 200);
        lab.eventually("connections are refused", || async { api.try_to_ask("/v3/clusters").await.is_err() })
            .await;
        lab.eventually("the proxy answers", || async {
            api.try_to_ask("/v3/clusters").await.is_ok_and(|answer| answer.status().as_u16() == 503)
        })
        .await;
        lab.eventually("Rancher is done", || async {
            let answer = api.try_to_ask("/v3/clusters/c-sim01").await;
            let Ok(answer) = answer else { return false };
            let Ok(cluster) = answer.json::<Value>().await else { return false };
            let updated = cluster["conditions"].as_array().is_some_and(|conditions| {
                conditions
                    .iter()
                    .any(|condition| condition["type"] == "Updated" && condition["status"] == "True")
            });
            updated && cluster["rancherKubernetesEngineConfig"]["rotateCertificates"].is_null()
        })
        .await;
        assert_ne!(lab.disk("cp-1", "/etc/kubernetes/ssl/kube-node.pem"), before);
    });
}

#[test]
fn a_try_that_failed_is_tried_again_with_the_flag_set() {
    run(async {
        let fails =
            RancherOptions { failure: Some(RancherFailure::TriesFail(1)), ..RancherOptions::default() };
        let (lab, api) = with(Layout::Healthy, fails).await;
        assert_eq!(api.rotate("{}").await.0, 200);
        lab.eventually("the first try has failed", || async {
            let cluster = api.cluster().await;
            let flag = &cluster["rancherKubernetesEngineConfig"]["rotateCertificates"];
            cluster["transitioning"] == "error" && cluster["state"] == "updating" && flag.is_object()
        })
        .await;
        lab.eventually("Rancher is done", || async {
            let cluster = api.cluster().await;
            cluster["state"] == "active"
                && cluster["rancherKubernetesEngineConfig"]["rotateCertificates"].is_null()
        })
        .await;
    });
}

#[test]
fn rancher_2_1_takes_an_expired_cluster_of_2_0_for_a_new_one() {
    run(async {
        let (lab, api) = with(
            Layout::LegacyExpired,
            RancherOptions { version: "v2.1.9".to_owned(), ..RancherOptions::default() },
        )
        .await;
        let before = lab.disk("cp-1", "/etc/kubernetes/ssl/kube-node.pem");
        assert_eq!(api.rotate("").await.0, 200);
        lab.eventually("Rancher calls it done", || async {
            let cluster = api.cluster().await;
            cluster["rancherKubernetesEngineConfig"]["rotateCertificates"].is_null()
        })
        .await;
        assert_eq!(lab.disk("cp-1", "/etc/kubernetes/ssl/kube-node.pem"), before);
    });
}
