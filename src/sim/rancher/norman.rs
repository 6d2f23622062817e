//! What norman, the framework beneath Rancher's API, makes of requests and answers: errors, filters, pages, the state of a resource.
//!
//! The API answers with it. Read in rancher/rancher v2.2.8, `vendor/github.com/rancher/norman` and `rancher/types/status`.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

/// The header that names the schemas of an answer.
pub(super) const SCHEMAS: &str = "x-api-schemas";

/// An answer of the API.
pub(super) type Answer = Response<Full<Bytes>>;

/// Returns an answer with a body of JSON.
pub(super) fn respond(status: u16, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns an answer to somebody whose token was taken, with the headers that such answers have.
pub(super) fn answer(status: u16, body: &Value, url: &str) -> Answer {
    let mut response = respond(status, format!("{body}\n"));
    sign(&mut response, &format!("{url}/v3"));
    response
}

/// Adds the headers that norman gives to each of its answers.
///
/// The schemas lie beneath `/v3`, or beneath the cluster that a resource belongs to.
pub(super) fn sign(response: &mut Answer, base: &str) {
    let headers = response.headers_mut();
    headers.insert(hyper::header::EXPIRES, HeaderValue::from_static("Wed 24 Feb 1982 18:42:00 GMT"));
    if let Ok(schemas) = HeaderValue::from_str(&format!("{base}/schemas")) {
        headers.insert(HeaderName::from_static(SCHEMAS), schemas);
    }
}

/// Returns an error of norman's: its status is a number, beside the code.
pub(super) fn error(status: u16, code: &str, message: &str) -> Value {
    json!({ "baseType": "error", "code": code, "message": message, "status": status, "type": "error" })
}

/// Returns an error of the filter before norman: its status is a string, and there is no code.
pub(super) fn unauthenticated() -> Answer {
    let body = json!({ "type": "error", "status": "401", "message": "must authenticate" });
    respond(401, format!("{body}\n"))
}

/// Returns an error of an nginx before Rancher; 429 and 503 say when to come again.
pub(super) fn proxy_error(status: u16) -> Answer {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let title = match status {
        503 => "503 Service Temporarily Unavailable".to_owned(),
        504 => "504 Gateway Time-out".to_owned(),
        _ => code.to_string(),
    };
    let body = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n\
         <hr><center>nginx/1.17.10</center>\r\n</body>\r\n</html>\r\n"
    );
    let mut response = respond(status, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    if matches!(status, 429 | 503) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Returns whether a proxy before Rancher answers with a status, rather than Rancher itself.
pub(super) fn is_of_a_proxy(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

/// Returns whether the value of a header `Authorization` holds a token, as Bearer or as user and password.
pub(super) fn carries(header: &str, token: &str) -> bool {
    header.strip_prefix("Bearer ").is_some_and(|given| given.trim() == token)
        || header.strip_prefix("Basic ").is_some_and(|given| given.trim() == STANDARD.encode(token))
}

/// A kind of resource, as far as its collections tell.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) id: &'static str,
    pub(super) plural: &'static str,
    /// The fields that can be filtered by; those of text can be sorted by, too.
    pub(super) text_fields: &'static [&'static str],
    pub(super) other_fields: &'static [&'static str],
}

/// Returns the page of a collection that a request asks for (norman `parse/collection.go`, `api/handler/query.go`).
///
/// Items are in the order of their ids, and a marker is the id of a page's first item.
pub(super) fn collection(url: &str, kind: &Kind, query: &Query, (items, page): (Vec<Value>, usize)) -> Value {
    let own = format!("{url}/v3/{}", kind.plural);
    let names = || kind.text_fields.iter().chain(kind.other_fields);
    let mut filters = Map::new();
    for name in names() {
        let condition = query.value(name).map(|value| json!([{ "modifier": "eq", "value": value }]));
        filters.insert((*name).to_owned(), condition.unwrap_or_default());
    }
    let fits = |item: &Value| {
        names().all(|name| query.value(name).is_none_or(|wanted| as_text(item.get(*name)) == wanted))
    };
    let id = |item: &Value| as_text(item.get("id"));
    let mut items: Vec<Value> = items.into_iter().filter(fits).collect();
    items.sort_by_key(id);
    let limit = match query.value("limit").and_then(|limit| limit.parse::<i64>().ok()) {
        Some(-1 | 10_001..) => 10_000,
        Some(limit) => usize::try_from(limit).unwrap_or(page),
        None => page,
    };
    let first = query.value("marker").and_then(|marker| items.iter().position(|item| id(item) == marker));
    let (first, total) = (first.unwrap_or(0), items.len());
    let last = first.saturating_add(limit).min(total);
    let mut pagination = json!({ "limit": limit, "total": total });
    let marker = |index: usize| {
        let id = items.get(index).map(&id).unwrap_or_default();
        Value::from(format!("{own}?{}", query.with("marker", &id)))
    };
    if let Value::Object(pagination) = &mut pagination
        && (first > 0 || last < total)
    {
        pagination.insert("partial".to_owned(), Value::from(true));
        pagination.insert("first".to_owned(), marker(0));
        if first > 0 {
            pagination.insert("previous".to_owned(), marker(first.saturating_sub(limit)));
        }
        if last > first && last < total {
            pagination.insert("next".to_owned(), marker(last));
        }
        if limit > 0 && limit < total {
            pagination.insert("last".to_owned(), marker(total - limit));
        }
    }
    let sorted = kind.text_fields.iter().map(|name| {
        ((*name).to_owned(), Value::from(format!("{own}?{}", query.without("marker").with("sort", name))))
    });
    json!({
        "type": "collection", "resourceType": kind.id, "links": { "self": own }, "createTypes": { kind.id: own }, "actions": {},
        "pagination": pagination, "filters": filters,
        "sort": {
            "order": "asc", "reverse": format!("{own}?{}", query.without("marker").with("order", "desc")),
            "links": sorted.collect::<Map<_, _>>(),
        },
        "data": items.get(first..last).unwrap_or_default(),
    })
}

fn as_text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// One condition of a resource.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub(super) kind: &'static str,
    pub(super) status: &'static str,
    pub(super) message: String,
    pub(super) reason: &'static str,
    pub(super) changed: Option<String>,
}

impl Condition {
    /// Returns a condition that holds.
    pub(super) fn fulfilled(kind: &'static str) -> Self {
        Self { kind, status: "True", message: String::new(), reason: "", changed: None }
    }

    pub(super) fn json(&self) -> Value {
        let mut fields = json!({ "type": self.kind, "status": self.status });
        let texts = [
            ("message", self.message.as_str()),
            ("reason", self.reason),
            ("lastUpdateTime", self.changed.as_deref().unwrap_or_default()),
        ];
        if let Value::Object(fields) = &mut fields {
            for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
                fields.insert(name.to_owned(), Value::from(text));
            }
        }
        fields
    }
}

/// What is told of a resource as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) state: &'static str,
    pub(super) transitioning: &'static str,
    pub(super) message: String,
}

/// Derives the state of a resource from its conditions (rancher/types v2.2 `status/status.go`).
pub(super) fn summary(conditions: &[Condition]) -> Summary {
    let (mut state, mut failed, mut changing, mut message) = ("", false, false, String::new());
    if let Some(condition) = conditions.iter().find(|condition| condition.reason == "Error") {
        failed = true;
        message.clone_from(&condition.message);
    }
    for condition in conditions {
        let Some(named) = while_not_true(condition.kind) else { continue };
        if condition.status == "False" {
            (failed, state) = (true, named);
            join(&mut message, &condition.message);
        } else if condition.status == "Unknown" && state.is_empty() {
            (changing, state) = (true, named);
            join(&mut message, &condition.message);
        }
    }
    let ready = conditions.iter().find(|condition| condition.kind == "Ready");
    if let Some(ready) = ready.filter(|ready| state.is_empty() && ready.status != "True") {
        state = "unavailable";
        failed |= ready.status == "Unknown";
        changing = true;
        join(&mut message, &ready.message);
    }
    let transitioning = if failed {
        "error"
    } else if changing {
        "yes"
    } else {
        "no"
    };
    Summary { state: if state.is_empty() { "active" } else { state }, transitioning, message }
}

/// Returns the state of a resource one of whose conditions does not hold.
fn while_not_true(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Pending" => "pending",
        "Provisioned" | "AgentDeployed" => "provisioning",
        "Updated" => "updating",
        "Waiting" => "waiting",
        "Initialized" => "initializing",
        "Registered" => "registering",
        _ => return None,
    })
}

fn join(message: &mut String, next: &str) {
    if message.is_empty() {
        next.clone_into(message);
    } else if !next.is_empty() && !message.eq_ignore_ascii_case(next) {
        message.push_str("; ");
        message.push_str(next);
    }
}

/// The parameters of a request.
#[derive(Debug, Clone)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(name, value)| (decode(name), decode(value))).collect())
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn without(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(found, _)| found != name).cloned().collect())
    }

    /// Returns the text of these parameters with one more, in the order of their names as Go encodes them.
    fn with(&self, name: &str, value: &str) -> String {
        let mut pairs = self.without(name).0;
        pairs.push((name.to_owned(), value.to_owned()));
        pairs.sort();
        let pairs = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
        pairs.collect::<Vec<_>>().join("&")
    }
}

fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else if byte == b' ' {
            encoded.push('+');
        } else {
            // Writing into a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped =
            after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = after.get(2..).unwrap_or_default();
        } else {
            bytes.push(if *first == b'+' { b' ' } else { *first });
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
