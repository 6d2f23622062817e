//! What the cluster stores of its certificates, as its API gives it and takes it.

use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certroll::sim::{Layout, RkeFiles, StateObject, StoredKind};
use serde_json::{Value, json};

use super::network::{Leaf, Pair};
use super::{Lab, SSL, lab, name, run};

const OBJECTS: &str = "/api/v1/namespaces/kube-system";
const STATE: &str = "full-cluster-state";

fn text(lab: &Lab, node: &str, file: &str) -> String {
    let content = lab.fleet.node(&name(node)).unwrap().file(&format!("{SSL}/{file}")).unwrap();
    String::from_utf8(content).unwrap().trim_end().to_owned()
}

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/cases/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Returns the names of all fields beneath a value, without those of maps from names.
fn shape(entry: &Value) -> Vec<&String> {
    entry.as_object().unwrap().keys().collect()
}

#[test]
fn the_full_state_holds_the_pairs_of_the_nodes() {
    run(async {
        let lab = lab(Layout::Healthy, |options| options.rke_files = RkeFiles::Beside).await;
        let stored = lab.fleet.stored(StoredKind::ConfigMap, STATE).unwrap();
        let line = stored["data"][STATE].as_str().unwrap();
        assert!(
            line.starts_with(r#"{"desiredState":{"rkeConfig":{"nodes":[{"address":"127.7.0.1","port":""#)
        );
        let state: Value = serde_json::from_str(line).unwrap();
        assert_eq!(state["desiredState"], state["currentState"]);
        let bundle = state["currentState"]["certificatesBundle"].as_object().unwrap();
        let names: Vec<&str> = bundle.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "kube-admin",
                "kube-apiserver",
                "kube-apiserver-proxy-client",
                "kube-apiserver-requestheader-ca",
                "kube-ca",
                "kube-controller-manager",
                "kube-etcd-10-0-0-1",
                "kube-etcd-10-0-0-3",
                "kube-etcd-10-0-0-4",
                "kube-node",
                "kube-proxy",
                "kube-scheduler",
                "kube-service-account-token",
            ]
        );
        for (name, entry) in bundle.iter().filter(|(name, _)| *name != "kube-admin") {
            let node = if name.starts_with("kube-etcd") { "etcd-1" } else { "cp-2" };
            assert_eq!(
                entry["certificatePEM"].as_str().unwrap().trim_end(),
                text(&lab, node, &format!("{name}.pem"))
            );
            assert_eq!(
                entry["keyPEM"].as_str().unwrap().trim_end(),
                text(&lab, node, &format!("{name}-key.pem"))
            );
        }
        // The shape is that of the real one.
        let real = golden("rke-v0.2.8/bundle-shape.json");
        for (name, entry) in real.as_object().unwrap() {
            let own = &bundle[name];
            assert_eq!(shape(own), shape(entry), "{name}");
            for (field, value) in entry.as_object().unwrap().iter().filter(|(_, value)| value.is_string()) {
                assert_eq!(&own[field], value, "{name} {field}");
            }
        }
        let beside = |path: &Option<std::path::PathBuf>| {
            let path = path.clone().unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            (std::fs::read_to_string(path).unwrap(), mode)
        };
        let paths = lab.fleet.paths();
        let (rkestate, mode) = beside(&paths.rkestate);
        assert_eq!((serde_json::from_str::<Value>(&rkestate).unwrap(), mode), (state.clone(), 0o600));
        assert!(rkestate.starts_with("{\n  \"desiredState\": {\n    \"rkeConfig\": {\n      \"nodes\": ["));
        assert!(rkestate.ends_with("\n}"));
        let (kube_config, mode) = beside(&paths.kube_config);
        assert_eq!(mode, 0o600);
        assert_eq!(bundle["kube-admin"]["config"], json!(kube_config));
        assert!(kube_config.contains("server: \"https://127.7.0.1:6443\""));
        let admin = bundle["kube-admin"]["certificatePEM"].as_str().unwrap();
        assert!(kube_config.contains(&format!("client-certificate-data: {}", STANDARD.encode(admin))));
        let key = bundle["kube-admin"]["keyPEM"].as_str().unwrap().to_owned();
        let pair = Pair { certificate: admin.to_owned(), key };
        assert_eq!(lab.api(Some(&pair), "GET", "/api/v1/nodes", Value::Null).await.0, 200);
    });
}

#[test]
fn rke_0_1_keeps_a_secret_of_every_pair() {
    run(async {
        let lab = lab(Layout::LegacyExpired, |options| options.rke_files = RkeFiles::Beside).await;
        assert_eq!(lab.fleet.stored_names(StoredKind::ConfigMap), ["cluster-state"]);
        assert_eq!(
            (lab.fleet.paths().rkestate.is_some(), lab.fleet.paths().kube_config.is_some()),
            (false, true)
        );
        let secrets = lab.fleet.stored_names(StoredKind::Secret);
        let real = golden("rke-v0.1.17/api-secrets.json");
        let mut shapes = 0;
        for item in real["items"].as_array().unwrap() {
            let name = item["name"].as_str().unwrap().replace("10-77-0-1", "10-0-0-").replace("--", "-");
            let Some(secret) = lab.fleet.stored(StoredKind::Secret, &name) else { continue };
            let keys: Vec<Value> = secret["data"].as_object().unwrap().keys().map(|key| json!(key)).collect();
            assert_eq!(
                (Value::from(keys), &secret["type"]),
                (item["keys"].clone(), &json!("Opaque")),
                "{name}"
            );
            shapes += 1;
        }
        assert!(shapes >= 10, "{shapes} of {secrets:?}");
        let node = lab.fleet.stored(StoredKind::Secret, "kube-node").unwrap();
        let value = |key: &str| {
            String::from_utf8(STANDARD.decode(node["data"][key].as_str().unwrap()).unwrap()).unwrap()
        };
        assert_eq!(value("Certificate").trim_end(), text(&lab, "w-1", "kube-node.pem"));
        assert_eq!(value("KeyPath"), "/etc/kubernetes/ssl/kube-node-key.pem");
        assert_eq!(value("ConfigEnvName"), "KUBECFG_KUBE_NODE");
    });
}

#[test]
fn a_stored_object_is_replaced_only_as_kubernetes_lets_it_be() {
    run(async {
        let lab = lab(Layout::Healthy, |_| {}).await;
        let admin = Leaf::ADMIN.sign(&lab.pair("cp-1", "kube-ca"));
        let node = lab.pair("cp-1", "kube-node");
        let path = format!("{OBJECTS}/configmaps/{STATE}");
        let put = |client: Option<Pair>, path: String, body: Value| {
            let lab = &lab;
            async move { lab.api(client.as_ref(), "PUT", &path, body).await }
        };
        let (status, first) = lab.api(Some(&admin), "GET", &path, Value::Null).await;
        assert_eq!((status, Some(&first)), (200, lab.fleet.stored(StoredKind::ConfigMap, STATE).as_ref()));
        let mut second = first.clone();
        second["data"][STATE] = json!("{}");
        for (client, code) in [(None, 401), (Some(node), 403)] {
            let (status, refusal) = put(client, path.clone(), second.clone()).await;
            assert_eq!((status, &refusal["kind"], &refusal["code"]), (code, &json!("Status"), &json!(code)));
        }
        let (status, kept) = put(Some(admin.clone()), path.clone(), first.clone()).await;
        assert_eq!((status, &kept), (200, &first), "what changes nothing keeps its version");
        let (status, answer) = put(Some(admin.clone()), path.clone(), second.clone()).await;
        assert_eq!((status, &answer["data"]), (200, &second["data"]));
        assert_ne!(answer["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        assert_eq!(lab.fleet.stored(StoredKind::ConfigMap, STATE), Some(answer.clone()));
        let (status, refusal) = put(Some(admin.clone()), path.clone(), first.clone()).await;
        assert_eq!((status, &refusal["reason"]), (409, &json!("Conflict")));
        let mut blind = first.clone();
        blind["metadata"] = json!({ "name": STATE });
        assert_eq!(
            put(Some(admin.clone()), path.clone(), blind).await.0,
            200,
            "RKE updates without a version"
        );
        let mut large = answer.clone();
        large["metadata"]["resourceVersion"] = json!("");
        large["data"][STATE] = json!("x".repeat(1024 * 1024 + 1));
        assert_eq!(put(Some(admin.clone()), path.clone(), large).await.0, 422);
        for (wrong, code) in [
            (json!({ "metadata": { "name": "other" } }), 400),
            (json!({ "metadata": { "name": STATE }, "kind": "Secret" }), 400),
            (json!({ "metadata": { "name": STATE }, "data": { "a": 1 } }), 400),
            (json!({ "metadata": { "name": STATE, "uid": "other" } }), 409),
        ] {
            assert_eq!(put(Some(admin.clone()), path.clone(), wrong).await.0, code);
        }
        let missing = format!("{OBJECTS}/secrets/{STATE}");
        let (status, refusal) = lab.api(Some(&admin), "GET", &missing, Value::Null).await;
        assert_eq!((status, &refusal["reason"]), (404, &json!("NotFound")));
        assert_eq!(refusal["message"], json!("secrets \"full-cluster-state\" not found"));
        assert_eq!(put(Some(admin), missing, json!({ "metadata": { "name": STATE } })).await.0, 404);
        let puts: Vec<_> =
            lab.fleet.effects().into_iter().map(|effect| (effect.node, effect.description)).collect();
        let effect = (name("cp-1"), format!("put {path}"));
        assert_eq!(puts, [effect.clone(), effect.clone(), effect], "and what was refused is none");
    });
}

#[test]
fn newer_rke_keeps_its_state_in_a_secret() {
    run(async {
        let lab = lab(Layout::Healthy, |options| options.state_object = StateObject::Secret).await;
        let admin = Leaf::ADMIN.sign(&lab.pair("cp-1", "kube-ca"));
        assert!(lab.fleet.stored_names(StoredKind::ConfigMap).is_empty());
        let path = format!("{OBJECTS}/secrets/{STATE}");
        let (status, mut secret) = lab.api(Some(&admin), "GET", &path, Value::Null).await;
        assert_eq!(status, 200);
        let bytes = STANDARD.decode(secret["data"][STATE].as_str().unwrap()).unwrap();
        let state: Value = serde_json::from_slice(&bytes).unwrap();
        assert!(state["desiredState"]["certificatesBundle"]["kube-ca"]["keyPEM"].is_string());
        secret["data"][STATE] = json!("not base64");
        assert_eq!(lab.api(Some(&admin), "PUT", &path, secret.clone()).await.0, 400);
        secret["data"][STATE] = json!(STANDARD.encode("{}"));
        assert_eq!(lab.api(Some(&admin), "PUT", &path, secret).await.0, 200);
        let (_, list) = lab.api(Some(&admin), "GET", &format!("{OBJECTS}/secrets"), Value::Null).await;
        assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("SecretList"), 1));
    });
}
