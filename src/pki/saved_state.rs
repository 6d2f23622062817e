//! A saved state is what rke keeps of a cluster's certificates, in any form in which somebody has put it into a file.
//!
//! `check --state` and the imports read it: a `.rkestate` file, the object `full-cluster-state` as `kubectl get -o json|yaml` prints it,
//! or the Secrets of rke v0.1.x. Of a private key only whether it is there and fits is kept; the text is wiped.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_saphyr::{DuplicateKeyPolicy, Options};
use zeroize::Zeroizing;

use super::{Certificate, CertificateError, FullState, JsonError, PublicPrefix, StateError, StateKind};

/// The name of the state's object, and of its one member.
const FULL_STATE: &str = "full-cluster-state";

/// Why a text holds no state of rke; the text itself is never quoted, for it is secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SavedStateError {
    /// It is a state that cannot be read.
    #[error("{0}")]
    State(#[from] StateError),
    /// It is neither JSON nor YAML, or something else than an object.
    #[error("it is neither a `.rkestate` file nor an object of Kubernetes: line {line}, column {column}")]
    Neither {
        /// The line, counted from 1; 0 where it is not known.
        line: u64,
        /// The column, counted from 1; 0 where it is not known.
        column: u64,
    },
    /// It is an object of Kubernetes that holds no state.
    #[error("it is {0} of Kubernetes without `full-cluster-state` and without a certificate of rke")]
    OtherObject(String),
    /// A member of a Secret is not base64.
    #[error("its `full-cluster-state` is not base64, as it is in a Secret")]
    NotBase64,
    /// It is what rke v0.1.x notes of a cluster: its configuration.
    #[error("it is the configuration that rke v0.1.x keeps of a cluster; it holds no certificates")]
    ConfigurationAlone,
    /// It is a cluster.yml, or the configuration that rke v0.1.x keeps, taken out of its object: they are written alike.
    #[error("it is a cluster.yml, which holds no certificates")]
    ClusterFile,
}

/// A certificate of a saved state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedCertificate {
    /// The states that hold it; none in the Secrets of rke v0.1.x.
    pub states: Vec<StateKind>,
    /// Its name, such as `kube-node`.
    pub name: String,
    /// The certificate, or why it is none.
    pub certificate: Result<Certificate, CertificateError>,
    /// Whether a private key is beside it.
    pub has_key: bool,
    /// Whether that key is its own; `None` where there is no telling.
    pub key_matches: Option<bool>,
}

impl SavedCertificate {
    /// Returns the path that rke gives it on a node, without the prefix (`pki/constants.go`).
    pub fn path(&self) -> String {
        format!("/etc/kubernetes/ssl/{}.pem", self.name)
    }
}

/// What somebody saved of rke's state.
pub struct SavedState {
    /// The certificates, those that both states hold alike once.
    pub certificates: Vec<SavedCertificate>,
    configuration: Option<Zeroizing<String>>,
}

impl SavedState {
    /// Reads a text in any of the forms.
    pub fn parse(text: &[u8]) -> Result<Self, SavedStateError> {
        match Object::parse(text)? {
            Some(object) => Self::of_object(&object),
            None => Ok(Self::of_state(&FullState::parse(text)?)),
        }
    }

    /// Takes over what a state holds.
    pub fn of_state(state: &FullState) -> Self {
        let configuration = [StateKind::Current, StateKind::Desired]
            .into_iter()
            .find_map(|kind| state.configuration(kind))
            .map(|text| Zeroizing::new(text.to_owned()));
        let mut certificates: Vec<SavedCertificate> = Vec::new();
        for found in state.certificates() {
            let key_matches = state.key_matches(found.state, &found.name);
            let same = |known: &&mut SavedCertificate| {
                known.name == found.name
                    && known.certificate == found.certificate
                    && (known.has_key, known.key_matches) == (found.has_key, key_matches)
            };
            match certificates.iter_mut().find(same) {
                Some(known) => known.states.push(found.state),
                None => certificates.push(SavedCertificate {
                    states: vec![found.state],
                    name: found.name,
                    certificate: found.certificate,
                    has_key: found.has_key,
                    key_matches,
                }),
            }
        }
        Self { certificates, configuration }
    }

    fn of_object(object: &Object) -> Result<Self, SavedStateError> {
        let parts = object.items.as_deref().unwrap_or(std::slice::from_ref(object));
        if let Some(state) = parts.iter().find_map(Object::full_state) {
            return Ok(Self::of_state(&FullState::parse(&state?)?));
        }
        let certificates: Vec<_> = parts.iter().filter_map(Object::certificate).collect();
        if !certificates.is_empty() {
            return Ok(Self { certificates, configuration: None });
        }
        if parts.iter().any(|part| part.value("cluster-state").is_some()) {
            return Err(SavedStateError::ConfigurationAlone);
        }
        let kind = object.kind.as_deref().unwrap_or("an object");
        let shown: String = kind.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
        Err(SavedStateError::OtherObject(format!("a {shown}")))
    }

    /// Returns the configuration of the cluster as rke keeps it (JSON); it may hold secrets.
    pub fn configuration(&self) -> Option<&str> {
        self.configuration.as_deref().map(String::as_str)
    }

    /// Returns the certificate of a name that counts: the current state's, else the desired state's.
    pub fn certificate(&self, name: &str) -> Option<&SavedCertificate> {
        let named = || self.certificates.iter().filter(|saved| saved.name == name);
        named().find(|saved| saved.states.contains(&StateKind::Current)).or_else(|| named().next())
    }

    /// Returns the certificate of a name in a state that another one is of, too.
    pub fn beside(&self, other: &SavedCertificate, name: &str) -> Option<&SavedCertificate> {
        let shares = |saved: &&SavedCertificate| {
            saved.states == other.states || saved.states.iter().any(|state| other.states.contains(state))
        };
        self.certificates.iter().filter(|saved| saved.name == name).find(shares)
    }
}

impl std::fmt::Debug for SavedState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SavedState").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

/// Returns the configuration that rke v0.1.x keeps of a cluster (`cluster-state`), in its YAML; it may hold secrets.
///
/// `None` where the text is none, after [`SavedStateError::ConfigurationAlone`] or [`SavedStateError::ClusterFile`] said that it is one.
pub fn legacy_configuration(text: &[u8]) -> Option<Zeroizing<String>> {
    let text = std::str::from_utf8(text).ok()?;
    let Ok(Some(object)) = Object::parse(text.as_bytes()) else {
        return Some(Zeroizing::new(text.to_owned()));
    };
    let parts = object.items.as_deref().unwrap_or(std::slice::from_ref(&object));
    let value = parts.iter().find_map(|part| part.value("cluster-state"))?;
    Some(Zeroizing::new(value.to_owned()))
}

/// An object of Kubernetes, or a list of them, as `kubectl get` prints it.
#[derive(Deserialize)]
struct Object {
    kind: Option<String>,
    metadata: Option<Metadata>,
    data: Option<BTreeMap<String, Wiped>>,
    items: Option<Vec<Object>>,
}

#[derive(Deserialize)]
struct Metadata {
    name: Option<String>,
}

impl Object {
    /// Reads a text; `None` where it is JSON without a `kind`, as rke's own file is.
    fn parse(text: &[u8]) -> Result<Option<Self>, SavedStateError> {
        let text = std::str::from_utf8(text).map_err(|_| StateError::Json(JsonError::NotText))?;
        let object: Self = if text.trim_start().starts_with('{') {
            // What is torn or misspelled is told better by the reader of states.
            match serde_json::from_str(text) {
                Ok(object) => object,
                Err(_) => return Ok(None),
            }
        } else {
            serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
                let (line, column) =
                    error.location().map_or((0, 0), |location| (location.line(), location.column()));
                SavedStateError::Neither { line, column }
            })?
        };
        match object.kind {
            Some(_) => Ok(Some(object)),
            None if text.trim_start().starts_with('{') => Ok(None),
            None if text.lines().any(|line| line.starts_with("nodes:")) => Err(SavedStateError::ClusterFile),
            None => Err(SavedStateError::Neither { line: 1, column: 1 }),
        }
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.data.as_ref()?.get(key).map(|value| value.0.as_str())
    }

    /// Returns the state that it holds, or why it cannot be read; `None` where there is none.
    fn full_state(&self) -> Option<Result<Zeroizing<Vec<u8>>, SavedStateError>> {
        let value = self.value(FULL_STATE)?;
        Some(match self.kind.as_deref() {
            Some("Secret") => decoded(value).ok_or(SavedStateError::NotBase64),
            _ => Ok(Zeroizing::new(value.as_bytes().to_vec())),
        })
    }

    /// Returns the certificate that a Secret of rke v0.1.x holds (v0.1.17 `cluster/certificates.go` `saveCertToKubernetes`).
    fn certificate(&self) -> Option<SavedCertificate> {
        let name = self.metadata.as_ref()?.name.clone().filter(|name| name.starts_with("kube-"))?;
        let certificate = decoded(self.value("Certificate")?)
            .map_or(Err(CertificateError::NotPem), |pem| Certificate::from_pem(&pem));
        let key = self.value("Key").and_then(decoded).filter(|key| !key.is_empty());
        let prefix = key.as_ref().and_then(|key| std::str::from_utf8(key).ok().map(PublicPrefix::from_probe));
        let key_matches = certificate.as_ref().ok().zip(prefix).and_then(|(own, key)| own.matches_key(&key));
        Some(SavedCertificate { states: Vec::new(), name, certificate, has_key: key.is_some(), key_matches })
    }
}

/// Returns how an object is read: snippets are off, for an error must not quote a key.
fn options() -> Options {
    serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        ignore_binary_tag_for_string: true,
        with_snippet: false,
    }
}

fn decoded(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    STANDARD.decode(text.trim()).ok().map(Zeroizing::new)
}

/// A text that is wiped after use.
struct Wiped(Zeroizing<String>);

impl<'de> Deserialize<'de> for Wiped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(Self(Zeroizing::new(text.unwrap_or_default())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../../tests/cases/golden/rke-v0.2.8/cluster.rkestate");
    const OBJECT: &str = include_str!("../../tests/cases/golden/rke-v0.2.8/full-cluster-state.json");

    fn parse(text: &str) -> Result<SavedState, SavedStateError> {
        SavedState::parse(text.as_bytes())
    }

    #[test]
    fn every_form_of_the_golden_state_is_the_same_state() {
        let state = parse(FILE).unwrap();
        assert_eq!(state.certificates.len(), 13, "both states hold the same");
        assert!(state.certificates.iter().all(|saved| saved.states == StateKind::ALL && saved.has_key));
        assert_eq!(parse(OBJECT).unwrap().certificates, state.certificates);

        let in_object: serde_json::Value = serde_json::from_str(OBJECT).unwrap();
        let yaml = serde_saphyr::to_string(&in_object).unwrap();
        assert!(!yaml.trim_start().starts_with('{'), "{yaml}");
        assert_eq!(parse(&yaml).unwrap().certificates, state.certificates);

        let list = format!("apiVersion: v1\nkind: List\nitems:\n- {OBJECT}");
        assert_eq!(parse(&list).unwrap().certificates, state.certificates);

        let secret =
            format!(r#"{{"kind":"Secret","data":{{"full-cluster-state":"{}"}}}}"#, STANDARD.encode(FILE));
        assert_eq!(parse(&secret).unwrap().certificates, state.certificates);
        assert!(state.configuration().unwrap().contains("\"clusterName\""));
    }

    #[test]
    fn secrets_of_rke_0_1_are_read() {
        let pem = include_str!("../../tests/cases/golden/rke-v0.1.17/n1/ssl/kube-node.pem");
        let text = format!(
            "kind: List\nitems:\n- kind: Secret\n  metadata: {{name: kube-node}}\n  data:\n    Certificate: {}\n    Key: {}\n\
             - kind: Secret\n  metadata: {{name: default-token-x}}\n  data: {{token: eA==}}\n",
            STANDARD.encode(pem),
            STANDARD.encode("(removed)"),
        );
        let state = parse(&text).unwrap();
        assert_eq!(state.certificates.len(), 1);
        let saved = state.certificate("kube-node").unwrap();
        assert_eq!(saved.certificate.as_ref().unwrap().common_name(), Some("system:node"));
        assert_eq!((saved.has_key, saved.key_matches), (true, None));
        assert_eq!(state.configuration(), None);
    }

    #[test]
    fn states_that_differ_are_both_kept() {
        let other = include_str!("../../tests/cases/golden/rke-v0.2.8/n1/ssl/kube-node.pem");
        let mut value: serde_json::Value = serde_json::from_str(FILE).unwrap();
        value["currentState"]["certificatesBundle"]["kube-proxy"]["certificatePEM"] = other.into();
        let state = parse(&value.to_string()).unwrap();
        assert_eq!(state.certificates.len(), 14);
        let current = state.certificate("kube-proxy").unwrap();
        assert_eq!(current.states, [StateKind::Current]);
        assert_eq!(current.certificate.as_ref().unwrap().common_name(), Some("system:node"));
        assert_eq!(state.beside(current, "kube-ca").unwrap().states, StateKind::ALL);
    }

    #[test]
    fn what_holds_no_state_is_refused_without_being_quoted() {
        let refusal = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(
            refusal(&FILE[..9000]),
            "it ends in the middle, in line 172",
            "a torn file is still a file of rke"
        );
        assert_eq!(
            refusal("kind: ConfigMap\ndata: {a: secret}\n"),
            "it is a ConfigMap of Kubernetes without `full-cluster-state` and without a certificate of rke"
        );
        assert_eq!(
            refusal("kind: Secret\ndata: {full-cluster-state: '{secret}'}\n"),
            "its `full-cluster-state` is not base64, as it is in a Secret"
        );
        for (text, error) in [
            ("nodes:\n- address: 10.0.0.1\n", SavedStateError::ClusterFile),
            ("nodes: [{address: 10.0.0.1}]\n", SavedStateError::ClusterFile),
            ("kind: ConfigMap\ndata: {cluster-state: 'nodes: []'}\n", SavedStateError::ConfigurationAlone),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
        for text in ["secret", "a: [secret", ""] {
            let said = refusal(text);
            assert!(said.starts_with("it is neither") && !said.contains("secret"), "{said}");
        }
    }
}
