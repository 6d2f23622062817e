//! The simulated Rancher held against answers of the real server v2.2.8 (`tests/cases/rancher`), field by field.

use std::collections::BTreeSet;
use std::path::Path;

use certroll::sim::{ClusterKind, Layout, OtherCluster, RancherFailure, RancherOptions};
use serde_json::Value;

use super::rancher::Api;
use super::{lab, run};

fn golden(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/rancher");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn golden_json(name: &str) -> Value {
    serde_json::from_str(&golden(name)).unwrap()
}

/// Fields of a cluster that have nothing to do with a rotation or an import; and the flag, which the one cluster has and the other not.
const LEFT_OUT: &[&str] = &[
    "/capabilities/ingressCapabilities",
    "/capabilities/loadBalancerCapabilities",
    "/rancherKubernetesEngineConfig/dns",
    "/rancherKubernetesEngineConfig/monitoring",
    "/appliedSpec/rancherKubernetesEngineConfig/dns",
    "/appliedSpec/rancherKubernetesEngineConfig/monitoring",
    "/rancherKubernetesEngineConfig/rotateCertificates",
];

/// Objects whose keys are names, not fields.
const MAPS: &[&str] = &["/annotations", "/labels", "/links", "/componentStatuses", "/extraArgs"];

/// Returns what of the real answer is missing here or of another type. Null fits everything, an item of a list stands for all.
fn differences(real: &Value, ours: Option<&Value>, path: &str) -> BTreeSet<String> {
    if LEFT_OUT.iter().any(|left_out| path.ends_with(left_out)) || MAPS.iter().any(|map| path.ends_with(map))
    {
        return BTreeSet::new();
    }
    let Some(ours) = ours else { return [format!("{path} is missing")].into() };
    match (real, ours) {
        (Value::Null, _) | (_, Value::Null) => BTreeSet::new(),
        (Value::Object(real), Value::Object(ours)) => real
            .iter()
            .flat_map(|(key, value)| differences(value, ours.get(key), &format!("{path}/{key}")))
            .collect(),
        (Value::Array(real), Value::Array(ours)) => match (real.first(), ours.first()) {
            (Some(real), Some(ours)) => differences(real, Some(ours), &format!("{path}[]")),
            _ => BTreeSet::new(),
        },
        _ if std::mem::discriminant(real) == std::mem::discriminant(ours) => BTreeSet::new(),
        _ => [format!("{path} is {ours} instead of {real}")].into(),
    }
}

#[test]
fn clusters_and_nodes_have_the_fields_of_real_ones() {
    run(async {
        let lab = lab(Layout::Healthy, |options| options.rancher = Some(RancherOptions::default())).await;
        let api = Api::of(&lab.fleet);
        let of_cluster =
            differences(&golden_json("cluster-provisioned.json"), Some(&api.cluster().await), "");
        let page = api.get("/v3/clusters?name=prod").await;
        let of_clusters = differences(&golden_json("clusters-by-name.json"), Some(&page), "");
        let nodes = api.get("/v3/nodes?clusterId=c-sim01").await;
        let of_nodes = differences(&golden_json("nodes.json"), Some(&nodes), "");
        let none = BTreeSet::new();
        assert_eq!((of_cluster, of_clusters, of_nodes), (none.clone(), none.clone(), none));
    });
}

#[test]
fn a_stuck_rotation_reads_as_a_real_one() {
    run(async {
        let never =
            RancherOptions { failure: Some(RancherFailure::NeverBegins), ..RancherOptions::default() };
        let lab = lab(Layout::Healthy, |options| options.rancher = Some(never)).await;
        let api = Api::of(&lab.fleet);
        api.rotate("{}").await;
        let cluster = api.cluster().await;
        let real: Value =
            serde_json::from_str(golden("stuck-timeline.jsonl").lines().next().unwrap()).unwrap();
        for field in ["state", "transitioning"] {
            assert_eq!(cluster[field], real[field], "{field}");
        }
        assert_eq!(
            cluster["rancherKubernetesEngineConfig"]["rotateCertificates"],
            real["rotateCertificates"]
        );
        let message = cluster["transitioningMessage"].as_str().unwrap();
        assert!(message.starts_with(&real["transitioningMessage"].as_str().unwrap()[..60]), "{message}");
        assert!(
            !cluster["conditions"].as_array().unwrap().iter().any(|condition| condition["type"] == "Updated")
        );
    });
}

/// Returns status, headers that say something, and body of an answer that was written down, with our names for its own.
fn written(name: &str, cluster: &str, url: &str) -> (u16, Vec<(String, String)>, String) {
    let text = golden(name).replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let ours = |text: &str| text.replace(cluster, "c-sim01").replace("https://10.77.0.2:8443", url);
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers = headers.filter(|(name, _)| *name != "Content-Length");
    (
        status,
        headers.map(|(name, value)| (name.to_lowercase(), ours(value))).collect(),
        ours(body).trim_end().to_owned(),
    )
}

#[test]
fn answers_are_those_of_the_real_server_to_the_letter() {
    run(async {
        let options = RancherOptions {
            others: vec![OtherCluster { name: "edge".to_owned(), kind: ClusterKind::K3s }],
            ..RancherOptions::default()
        };
        let lab = lab(Layout::Healthy, |fleet| fleet.rancher = Some(options)).await;
        let api = Api::of(&lab.fleet);
        let action = "/v3/clusters/c-sim01?action=rotateCertificates";
        let token = api.token();
        for (name, real_id, path, token, body) in [
            ("unauthorized.http", "c-p4wzh", "/v3/clusters", "", None),
            ("bad-token.http", "c-p4wzh", "/v3/clusters", "token-abcde:wrong", None),
            ("not-found.http", "c-unknown", "/v3/clusters/c-none", token, None),
            ("rotate-list.http", "c-p4wzh", action, token, Some(r#"{"services":["etcd"]}"#)),
            ("rotate-all.http", "c-p4wzh", action, token, Some("{}")),
        ] {
            let answer = api.ask(path, token, body).await;
            let (status, headers, text) = written(name, real_id, &api.url());
            assert_eq!(answer.status().as_u16(), status, "{name}");
            for (header, value) in headers {
                assert_eq!(answer.headers()[&header].to_str().unwrap(), value, "{name}: {header}");
            }
            let ours: Vec<Value> = documents(&answer.text().await.unwrap());
            assert_eq!(ours, documents(&text), "{name}");
        }
    });
}

fn documents(text: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>().unwrap()
}
