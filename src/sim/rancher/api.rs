//! Rancher's API v3 as far as a rotation and an import ask for it: who is asking, what is asked for, and what goes wrong on purpose.
//!
//! The server hands it requests. Its answers are those of the real one, odd ones included.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::super::machine::SimNode;
use super::machines::{File, archive};
use super::norman::{self, Answer, Kind, Query};
use super::server::Site;
use super::{
    CLUSTER_ID, Flag, NodeSource, RancherFailure, RotateAction, Rotation, TokenRights, cluster, node,
};

/// The API, and what it has been asked so far.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) rotation: Arc<Rotation>,
    pub(super) site: Site,
    /// How often the action has been called.
    pub(super) calls: AtomicUsize,
    /// How often something else has been asked for since then.
    pub(super) looks: AtomicUsize,
    /// Tells the server to restart.
    pub(super) restart: Notify,
}

impl Api {
    /// Answers a request, unless what goes wrong cuts its connection.
    pub(super) async fn converse(&self, request: Request<Incoming>) -> std::io::Result<Answer> {
        tokio::time::sleep(self.rotation.options().answer_delay).await;
        let is_call = request.method() == Method::POST;
        let earlier = if is_call {
            self.calls.fetch_add(1, Ordering::SeqCst)
        } else if self.calls.load(Ordering::SeqCst) > 0 {
            self.looks.fetch_add(1, Ordering::SeqCst)
        } else {
            usize::MAX
        };
        let cut = || std::io::Error::other("the connection is cut");
        match self.rotation.options().failure {
            Some(RancherFailure::CallsRefused { status, times }) if is_call && earlier < times => {
                Ok(self.refusal(status))
            }
            Some(RancherFailure::LooksRefused { status, times }) if !is_call && earlier < times => {
                Ok(self.refusal(status))
            }
            Some(failure) if is_call && earlier == 0 => match failure {
                RancherFailure::CallLost => Err(cut()),
                RancherFailure::AnswerLost => {
                    self.answer(request).await;
                    Err(cut())
                }
                RancherFailure::AnswerHalved => Ok(halved(self.answer(request).await).await),
                RancherFailure::UpdateRace => Ok(self.lost_race()),
                RancherFailure::Restarts => {
                    let answer = self.answer(request).await;
                    self.restart.notify_one();
                    Ok(answer)
                }
                _ => Ok(self.answer(request).await),
            },
            _ => Ok(self.answer(request).await),
        }
    }

    /// Returns an error that somebody on the way gives to a request.
    fn refusal(&self, status: u16) -> Answer {
        let code = match status {
            _ if norman::is_of_a_proxy(status) => return norman::proxy_error(status),
            401 => return norman::unauthenticated(),
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            422 => "InvalidAction",
            _ => "ServerError",
        };
        let message = match status {
            409 => {
                "Operation cannot be fulfilled on clusters.management.cattle.io \"c-sim01\": the object has been modified; \
                    please apply your changes to the latest version and try again"
            }
            403 => {
                "clusters.management.cattle.io \"c-sim01\" is forbidden: User \"u-sim01\" cannot update resource \"clusters\""
            }
            _ => "the request was refused",
        };
        self.error(status, code, message)
    }

    fn error(&self, status: u16, code: &str, message: &str) -> Answer {
        norman::answer(status, &norman::error(status, code, message), &self.site.url)
    }

    fn found(&self, value: &Value) -> Answer {
        norman::answer(200, value, &self.site.url)
    }

    fn not_found(&self, kind: &str, name: &str) -> Answer {
        self.error(404, "NotFound", &format!("{kind}.management.cattle.io \"{name}\" not found"))
    }

    /// Answers as norman does: what belongs to a cluster names the schemas of that cluster.
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let id = request.uri().path().strip_prefix("/v3/clusters/").and_then(|rest| rest.split('/').next());
        let schemas = id.map(|id| format!("{}/v3/cluster/{id}", self.site.url));
        let mut answer = self.route(request).await;
        if let Some(schemas) = schemas.filter(|_| answer.headers().contains_key(norman::SCHEMAS)) {
            norman::sign(&mut answer, &schemas);
        }
        answer
    }

    async fn route(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let words: Vec<&str> = path.split('/').skip(1).collect();
        match words.as_slice() {
            ["ping"] => return norman::respond(200, "pong".to_owned()),
            ["v3", "settings", "cacerts"] => return self.found(&self.setting("cacerts", &self.site.ca)),
            _ => {}
        }
        let header = request.headers().get(AUTHORIZATION).and_then(|header| header.to_str().ok());
        if !header.is_some_and(|header| norman::carries(header, &self.site.token)) {
            return norman::unauthenticated();
        }
        let is_post = request.method() == Method::POST;
        if !is_post && request.method() != Method::GET {
            let message = format!("Method {} not supported", request.method());
            return self.error(405, "MethodNotAllow", &message);
        }
        match words.as_slice() {
            ["v3", "settings", name] if !is_post => match *name {
                "server-version" => self.found(&self.setting(name, &self.rotation.options().version)),
                "server-url" => self.found(&self.setting(name, &self.site.url)),
                name => self.not_found("settings", name),
            },
            ["v3", "clusters"] if !is_post => self.collection(&cluster::KIND, self.clusters(), &query),
            ["v3", "clusters", id] => match self.clusters().into_iter().find(|found| has_id(found, id)) {
                Some(found) if is_post => self.act(request, &found, query.value("action")).await,
                Some(found) => self.found(&found),
                None if self.is_hidden(id) => self.forbidden("clusters", id),
                None => self.not_found("clusters", id),
            },
            ["v3", "nodes"] if !is_post => self.collection(&node::KIND, self.nodes(), &query),
            ["v3", "clusters", CLUSTER_ID, "nodes"] if !is_post => {
                self.collection(&node::KIND, self.nodes(), &query)
            }
            ["v3", "nodes", id] if !is_post => match self.nodes().into_iter().find(|found| has_id(found, id))
            {
                Some(found) => self.found(&found),
                None => self.not_found("nodes", id),
            },
            ["v3", "nodes", id, "nodeconfig"] if !is_post => self.machine(id),
            ["v3", kind, ..] => {
                self.error(404, "NotFound", &format!("failed to find schema {}", kind.trim_end_matches('s')))
            }
            _ => norman::respond(404, "404 page not found\n".to_owned()),
        }
    }

    fn setting(&self, name: &str, value: &str) -> Value {
        json!({
            "type": "setting", "baseType": "setting", "id": name, "name": name, "value": value, "customized": false, "default": "",
            "source": "db", "links": { "self": format!("{}/v3/settings/{name}", self.site.url) },
        })
    }

    fn rights(&self) -> TokenRights {
        self.rotation.options().token
    }

    /// Returns the clusters that the token's owner sees.
    fn clusters(&self) -> Vec<Value> {
        if self.rights() == TokenRights::Stranger {
            return Vec::new();
        }
        let others = self.rotation.options().others.iter();
        let mut clusters = vec![cluster::cluster(&self.site, &self.rotation)];
        clusters.extend(others.map(|other| cluster::other(&self.site, &self.rotation, other)));
        clusters
    }

    fn nodes(&self) -> Vec<Value> {
        if self.rights() == TokenRights::Stranger {
            return Vec::new();
        }
        self.rotation.world().settle();
        let nodes = self.rotation.world().nodes.iter();
        nodes.map(|node| node::node(&self.site, &self.rotation, node)).collect()
    }

    /// Returns whether there is such a cluster, which the token's owner may not see.
    fn is_hidden(&self, id: &str) -> bool {
        let mut others = self.rotation.options().others.iter();
        self.rights() == TokenRights::Stranger
            && (id == CLUSTER_ID || others.any(|other| cluster::id(other) == id))
    }

    fn forbidden(&self, kind: &str, name: &str) -> Answer {
        let message = format!(
            "{kind}.management.cattle.io \"{name}\" is forbidden: User \"u-sim01\" cannot get resource \"{kind}\" in API group \
             \"management.cattle.io\" at the cluster scope"
        );
        self.error(403, "Forbidden", &message)
    }

    fn collection(&self, kind: &Kind, items: Vec<Value>, query: &Query) -> Answer {
        let limit = self.rotation.options().page_limit;
        self.found(&norman::collection(&self.site.url, kind, query, (items, limit)))
    }

    /// Answers with the archive of a machine that Rancher has made.
    fn machine(&self, id: &str) -> Answer {
        let is_wanted = |found: &&Arc<SimNode>| node::id(found) == id;
        let Some(found) = self.rotation.world().nodes.iter().find(is_wanted) else {
            return self.not_found("nodes", id);
        };
        match (self.rights(), self.rotation.options().nodes) {
            (TokenRights::Owner, NodeSource::NodeDriver) => {}
            // Its secret is not in the store.
            (TokenRights::Owner, NodeSource::Custom) => {
                return self.error(404, "NotFound", &format!("secrets \"{id}\" not found"));
            }
            (TokenRights::ReadOnly, _) => return self.error(403, "PermissionDenied", "can not update node "),
            (TokenRights::Stranger, _) => return self.forbidden("nodes", id),
        }
        let files = [
            File { name: "ca.pem", content: self.site.ca.as_bytes() },
            File { name: "id_rsa", content: self.site.ssh_key.as_bytes() },
            File { name: "id_rsa.pub", content: self.site.ssh_public_key.as_bytes() },
        ];
        let mut answer = Response::new(Full::new(Bytes::from(archive(found.name.as_str(), &files))));
        norman::sign(&mut answer, &format!("{}/v3", self.site.url));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename={}.zip", found.name)) {
            answer.headers_mut().insert(CONTENT_DISPOSITION, name);
        }
        answer
    }

    async fn act(&self, request: Request<Incoming>, found: &Value, action: Option<&str>) -> Answer {
        let action = action.unwrap_or_default();
        if action != "rotateCertificates" || self.rotation.release().action() == RotateAction::Absent {
            return self.error(422, "InvalidAction", &format!("Invalid action: {action}"));
        }
        if self.rights() != TokenRights::Owner {
            let (status, code) = self.rotation.release().denial();
            return self.error(status, code, "can not rotate certificates");
        }
        if !has_id(found, CLUSTER_ID) {
            return self.error(500, "ServerError", "rotating this cluster is not simulated");
        }
        let flag = match self.rotation.release().action() {
            RotateAction::OneService => {
                let body = request.into_body().collect().await;
                match rotation_input(&body.map(http_body_util::Collected::to_bytes).unwrap_or_default()) {
                    Ok(flag) => flag,
                    Err(cause) => return self.doubled(400, "failed to parse request content", &cause),
                }
            }
            RotateAction::Absent | RotateAction::Bodyless => {
                Flag { service: String::new(), with_authorities: false }
            }
        };
        let message = match (flag.with_authorities, flag.service.as_str()) {
            (true, _) => "rotating CA certificates and all components".to_owned(),
            (false, "") => "rotating certificates for all components".to_owned(),
            (false, service) => format!("rotating {service} certificates"),
        };
        self.rotation.ask(flag);
        self.found(&output(&message))
    }

    fn lost_race(&self) -> Answer {
        let cause = "unable to update Cluster c-sim01: Operation cannot be fulfilled on clusters.management.cattle.io \"c-sim01\": \
                     the object has been modified; please apply your changes to the latest version and try again";
        self.doubled(500, "failed to update cluster object", cause)
    }

    /// Returns the real answer to a call that fails: two JSON documents in one body, the second with a status of its own.
    fn doubled(&self, status: u16, message: &str, cause: &str) -> Answer {
        let error = norman::error(500, "ServerError", cause);
        let mut answer = norman::respond(status, format!("{}\n{error}\n", output(message)));
        norman::sign(&mut answer, &format!("{}/v3", self.site.url));
        answer
    }
}

fn has_id(resource: &Value, id: &str) -> bool {
    resource.get("id").and_then(Value::as_str) == Some(id)
}

fn output(message: &str) -> Value {
    json!({ "baseType": "rotateCertificateOutput", "message": message, "type": "rotateCertificateOutput" })
}

async fn halved(answer: Answer) -> Answer {
    let (parts, body) = answer.into_parts();
    let mut bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    bytes.truncate(bytes.len() / 2);
    Response::from_parts(parts, Full::new(bytes))
}

/// Reads the body as `json.Unmarshal` into `RotateCertificateInput` does.
fn rotation_input(body: &[u8]) -> Result<Flag, String> {
    let failed = |cause: &str| format!("unmarshaling input error: {cause}");
    if body.is_empty() {
        return Err(failed("unexpected end of JSON input"));
    }
    let input: Value = serde_json::from_slice(body).map_err(|_| failed("invalid character in JSON input"))?;
    let mismatch = |value: &Value, field: &str, wanted: &str| {
        let kind = match value {
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            Value::Bool(_) => "bool",
            Value::String(_) => "string",
            Value::Number(_) | Value::Null => "number",
        };
        failed(&format!(
            "json: cannot unmarshal {kind} into Go struct field RotateCertificateInput.{field} of type {wanted}"
        ))
    };
    let service = match input.get("services") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(service)) => service.clone(),
        Some(other) => return Err(mismatch(other, "services", "string")),
    };
    let with_authorities = match input.get("caCertificates") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(value)) => *value,
        Some(other) => return Err(mismatch(other, "caCertificates", "bool")),
    };
    Ok(Flag { service, with_authorities })
}
