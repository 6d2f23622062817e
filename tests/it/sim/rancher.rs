//! The simulated Rancher: its API, and what a rotation leaves on the nodes.

use certroll::sim::{Fleet, Layout, RancherFailure, RancherOptions};
use serde_json::{Value, json};

use super::{SSL, lab, name, run};

pub(super) struct Api {
    client: reqwest::Client,
    url: String,
    token: String,
}

impl Api {
    pub(super) fn of(fleet: &Fleet) -> Self {
        let ca = std::fs::read(fleet.paths().rancher_ca.as_ref().unwrap()).unwrap();
        let ca = reqwest::Certificate::from_pem(&ca).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([ca]).build().unwrap();
        Self { client, url: fleet.rancher_url().unwrap(), token: fleet.rancher_token().unwrap().to_owned() }
    }

    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Asks with a token, where it is not empty; a body makes it a call.
    pub(super) async fn ask(&self, path: &str, token: &str, body: Option<&str>) -> reqwest::Response {
        let url = format!("{}{path}", self.url);
        let request = match body {
            Some(body) => self.client.post(url).body(body.to_owned()),
            None => self.client.get(url),
        };
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        request.send().await.unwrap()
    }

    pub(super) async fn try_to_ask(&self, path: &str) -> reqwest::Result<reqwest::Response> {
        self.client.get(format!("{}{path}", self.url)).bearer_auth(&self.token).send().await
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        self.ask(path, &self.token, None).await.json().await.unwrap()
    }

    pub(super) async fn rotate(&self, body: &str) -> (u16, String) {
        let url = format!("{}/v3/clusters/c-sim01?action=rotateCertificates", self.url);
        let response =
            self.client.post(url).bearer_auth(&self.token).body(body.to_owned()).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Calls the action, and returns the status of the answer where there is one.
    pub(super) async fn try_to_rotate(&self) -> Option<u16> {
        let url = format!("{}/v3/clusters/c-sim01?action=rotateCertificates", self.url);
        let answer = self.client.post(url).bearer_auth(&self.token).body("{}").send().await.ok()?;
        Some(answer.status().as_u16())
    }

    pub(super) async fn cluster(&self) -> Value {
        self.get("/v3/clusters/c-sim01").await
    }
}

#[test]
fn rancher_answers_as_the_real_one() {
    run(async {
        let never =
            RancherOptions { failure: Some(RancherFailure::NeverBegins), ..RancherOptions::default() };
        let lab = lab(Layout::Healthy, |options| options.rancher = Some(never)).await;
        let api = Api::of(&lab.fleet);
        let unauthorized = api.client.get(format!("{}/v3/clusters", api.url)).send().await.unwrap();
        assert_eq!(unauthorized.status().as_u16(), 401);
        assert_eq!(unauthorized.json::<Value>().await.unwrap()["status"], "401");
        assert_eq!(api.get("/v3/clusters/c-none").await["status"], 404);
        assert_eq!(api.get("/v3/settings/server-version").await["value"], "v2.2.8");
        assert_eq!(api.get("/v3/clusters?name=prod").await["data"].as_array().unwrap().len(), 1);
        assert_eq!(api.get("/v3/clusters?name=other").await["data"].as_array().unwrap().len(), 0);
        let (status, body) = api.rotate(r#"{"services":["etcd"]}"#).await;
        let documents: Vec<Value> =
            serde_json::Deserializer::from_str(&body).into_iter().collect::<Result<_, _>>().unwrap();
        assert_eq!((status, documents.len(), &documents[1]["status"]), (400, 2, &json!(500)));
        assert_eq!(api.rotate("").await.0, 400);
        assert_eq!(api.rotate(r#"{"services":"nonsense"}"#).await.0, 200);
        let flag = &api.cluster().await["rancherKubernetesEngineConfig"]["rotateCertificates"];
        assert_eq!(
            *flag,
            json!({ "caCertificates": false, "services": "nonsense", "type": "/v3/schemas/rotateCertificates" })
        );
        let mut names = Vec::new();
        let mut page = "/v3/nodes?clusterId=c-sim01&limit=4".to_owned();
        while !page.is_empty() {
            let nodes = api.get(&page).await;
            names.extend(nodes["data"].as_array().unwrap().iter().map(|node| node["nodeName"].clone()));
            page = nodes["pagination"]["next"].as_str().unwrap_or_default().replace(&api.url, "");
        }
        assert_eq!(names.len(), 6);
    });
}

#[test]
fn a_legacy_cluster_loops_until_its_bundle_is_repaired_and_leaves_stale_workers_behind() {
    run(async {
        let stale = RancherOptions { stale_workers: vec![name("w-2")], ..RancherOptions::default() };
        let lab = lab(Layout::LegacyExpired, |options| options.rancher = Some(stale)).await;
        let api = Api::of(&lab.fleet);
        assert_eq!(api.rotate("{}").await.0, 200);
        lab.eventually("Rancher loops", || async {
            let cluster = api.cluster().await;
            cluster["transitioningMessage"] == "CA Certificate or Key is empty"
                && cluster["transitioning"] == "error"
        })
        .await;
        let script = "cd /etc/kubernetes/.tmp && for end in .pem -key.pem; do \
                      cp -p kube-ca$end kube-apiserver-requestheader-ca$end; cp -p kube-apiserver$end kube-apiserver-proxy-client$end; done";
        for node in ["cp-1", "cp-2", "etcd-1", "etcd-2"] {
            assert_eq!(lab.root(node, script, "").await.0, 0);
        }
        lab.eventually("Rancher is done", || async {
            let cluster = api.cluster().await;
            cluster["state"] == "active"
                && cluster["rancherKubernetesEngineConfig"]["rotateCertificates"].is_null()
        })
        .await;
        let state_of = |nodes: &Value, wanted: &str| {
            let node = nodes["data"]
                .as_array()
                .unwrap()
                .iter()
                .find(|node| node["nodeName"] == wanted)
                .unwrap()
                .clone();
            node["state"].clone()
        };
        lab.eventually("w-1 is active", || async {
            state_of(&api.get("/v3/nodes").await, "w-1") == "active"
        })
        .await;
        let new = lab.disk("cp-1", &format!("{SSL}/kube-node.pem"));
        lab.eventually("w-2 has its files", || async {
            lab.disk("w-2", &format!("{SSL}/kube-node.pem")) == new
        })
        .await;
        assert_eq!(state_of(&api.get("/v3/nodes").await, "w-2"), "unavailable");
        lab.root("w-2", "docker restart kubelet kube-proxy", "").await;
        lab.eventually("w-2 is active", || async {
            state_of(&api.get("/v3/nodes").await, "w-2") == "active"
        })
        .await;
        let (_, arguments, _) =
            lab.exec("cp-1", "docker inspect -f '{{join .Args \" \"}}' kube-apiserver", "").await;
        assert!(
            arguments.contains(
                "--service-account-key-file=/etc/kubernetes/ssl/kube-service-account-token-key.pem"
            )
        );
    });
}
