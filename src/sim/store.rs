//! What the simulated etcd stores of Kubernetes: the `ConfigMap`s and `Secret`s of `kube-system`, one set for the cluster.
//!
//! The layout fills it, the API servers read and change it. A change is refused as kube-apiserver refuses it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::container::digest;

/// A kind of object that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoredKind {
    /// A `ConfigMap`.
    ConfigMap,
    /// A `Secret`.
    Secret,
}

impl StoredKind {
    /// Returns the kind of a path's plural (`secrets`).
    pub(crate) fn of_plural(plural: &str) -> Option<Self> {
        match plural {
            "configmaps" => Some(Self::ConfigMap),
            "secrets" => Some(Self::Secret),
            _ => None,
        }
    }

    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmaps",
            Self::Secret => "secrets",
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// Why a change is refused: the code and reason of a `Status`, and its message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    fn bad_request(message: &str) -> Self {
        Self { code: 400, reason: "BadRequest", message: message.to_owned() }
    }

    fn invalid(kind: StoredKind, name: &str, what: &str) -> Self {
        let message = format!("{} \"{name}\" is invalid: {what}", kind.as_str());
        Self { code: 422, reason: "Invalid", message }
    }

    pub(crate) fn not_found(kind: StoredKind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.plural());
        Self { code: 404, reason: "NotFound", message }
    }

    fn conflict(kind: StoredKind, name: &str, what: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {what}", kind.plural());
        Self { code: 409, reason: "Conflict", message }
    }
}

/// The namespace that all objects are in.
pub(crate) const NAMESPACE: &str = "kube-system";

/// How much one object may hold, in bytes (`MaxSecretSize`).
const LARGEST_DATA: usize = 1024 * 1024;

/// The stored objects.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    revision: u64,
    objects: BTreeMap<(StoredKind, String), Value>,
}

impl Store {
    /// Puts an object there with which the cluster begins; a Secret's values are given as they are, not in base64.
    pub(crate) fn begin(
        &mut self,
        (kind, name): (StoredKind, &str),
        data: &BTreeMap<String, String>,
        created: Timestamp,
    ) {
        self.revision = self.revision.max(290) + 1;
        let encoded = |value: &String| match kind {
            StoredKind::ConfigMap => value.clone(),
            StoredKind::Secret => STANDARD.encode(value),
        };
        let data: Map<String, Value> =
            data.iter().map(|(key, value)| (key.clone(), Value::from(encoded(value)))).collect();
        let id = digest(&format!("{}/{name}", kind.plural()));
        let part = |from: usize, to: usize| id.get(from..to).unwrap_or_default();
        let uid =
            format!("{}-{}-4{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32));
        let mut object = json!({
            "kind": kind.as_str(),
            "apiVersion": "v1",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "uid": uid,
                "resourceVersion": self.revision.to_string(),
                "creationTimestamp": created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            },
            "data": data,
        });
        if let (StoredKind::Secret, Value::Object(fields)) = (kind, &mut object) {
            fields.insert("type".to_owned(), Value::from("Opaque"));
        }
        self.objects.insert((kind, name.to_owned()), object);
    }

    /// Returns an object as the API gives it.
    pub(crate) fn get(&self, kind: StoredKind, name: &str) -> Option<Value> {
        self.objects.get(&(kind, name.to_owned())).cloned()
    }

    /// Returns the objects of a kind in the order of their names, and the revision of the list.
    pub(crate) fn list(&self, kind: StoredKind) -> (Vec<Value>, u64) {
        let of_kind = self.objects.iter().filter(|((other, _), _)| *other == kind);
        (of_kind.map(|(_, object)| object.clone()).collect(), self.revision)
    }

    /// Replaces an object and returns what is stored now.
    pub(crate) fn put(&mut self, kind: StoredKind, name: &str, body: &[u8]) -> Result<Value, Refusal> {
        let sent: Value = serde_json::from_slice(body).map_err(|error| {
            Refusal::bad_request(&format!("the object provided is unrecognized: {error}"))
        })?;
        let text = |pointer: &str| sent.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let fits = |given: &str, wanted: &str| given.is_empty() || given == wanted;
        if !fits(text("/kind"), kind.as_str()) || !fits(text("/apiVersion"), "v1") {
            let message = format!(
                "{} in version \"{}\" cannot be handled as a {}",
                text("/kind"),
                text("/apiVersion"),
                kind.as_str()
            );
            return Err(Refusal::bad_request(&message));
        }
        if text("/metadata/name") != name {
            let message = format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                text("/metadata/name")
            );
            return Err(Refusal::bad_request(&message));
        }
        if !fits(text("/metadata/namespace"), NAMESPACE) {
            return Err(Refusal::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let stored =
            self.objects.get(&(kind, name.to_owned())).ok_or_else(|| Refusal::not_found(kind, name))?;
        let own = |field: &str| stored.pointer(field).and_then(Value::as_str).unwrap_or_default();
        if !fits(text("/metadata/uid"), own("/metadata/uid")) {
            return Err(Refusal::conflict(
                kind,
                name,
                "Precondition failed: UID in precondition does not match",
            ));
        }
        if !fits(text("/metadata/resourceVersion"), own("/metadata/resourceVersion")) {
            let what =
                "the object has been modified; please apply your changes to the latest version and try again";
            return Err(Refusal::conflict(kind, name, what));
        }
        if kind == StoredKind::Secret && !fits(text("/type"), own("/type")) {
            return Err(Refusal::invalid(kind, name, "type: Invalid value: field is immutable"));
        }
        let data = data(kind, name, &sent)?;
        let mut next = stored.clone();
        if let Value::Object(fields) = &mut next {
            fields.insert("data".to_owned(), Value::Object(data));
        }
        if let Some(Value::Object(metadata)) = next.get_mut("metadata") {
            for field in ["labels", "annotations"] {
                match sent.pointer(&format!("/metadata/{field}")) {
                    Some(value) => metadata.insert(field.to_owned(), value.clone()),
                    None => metadata.remove(field),
                };
            }
        }
        // What changes nothing is not written and keeps its version.
        if next != *stored {
            self.revision += 1;
            if let Some(Value::Object(metadata)) = next.get_mut("metadata") {
                metadata.insert("resourceVersion".to_owned(), Value::from(self.revision.to_string()));
            }
            self.objects.insert((kind, name.to_owned()), next.clone());
        }
        Ok(next)
    }
}

/// Returns the data of a sent object; `stringData` of a Secret goes over it.
fn data(kind: StoredKind, name: &str, sent: &Value) -> Result<Map<String, Value>, Refusal> {
    let refused = |message: &str| {
        Refusal::bad_request(&format!(
            "{} in version \"v1\" cannot be handled as a {}: {message}",
            kind.as_str(),
            kind.as_str()
        ))
    };
    let mut data = Map::new();
    let mut size = 0;
    let mut take = |field: &str, encoded: Encoding| -> Result<(), Refusal> {
        let Some(values) = sent.get(field).filter(|values| !values.is_null()) else { return Ok(()) };
        let values = values.as_object().ok_or_else(|| refused("data is not a map"))?;
        for (key, value) in values {
            let text = value.as_str().ok_or_else(|| refused("a value is not a string"))?;
            let value = match (kind, encoded) {
                (StoredKind::Secret, Encoding::Base64) => {
                    size += STANDARD
                        .decode(text)
                        .map_err(|_| refused("illegal base64 data at input byte 0"))?
                        .len();
                    text.to_owned()
                }
                (StoredKind::Secret, Encoding::Plain) => {
                    size += text.len();
                    STANDARD.encode(text)
                }
                (StoredKind::ConfigMap, _) => {
                    size += text.len();
                    text.to_owned()
                }
            };
            data.insert(key.clone(), Value::from(value));
        }
        Ok(())
    };
    take("data", Encoding::Base64)?;
    if kind == StoredKind::Secret {
        take("stringData", Encoding::Plain)?;
    }
    if size > LARGEST_DATA {
        return Err(Refusal::invalid(kind, name, "data: Too long: must have at most 1048576 characters"));
    }
    Ok(data)
}

/// How a sent value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Base64,
    Plain,
}
