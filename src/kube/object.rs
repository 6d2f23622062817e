//! Objects are the places in the cluster where rke keeps certificates: its full state, and in v0.1.x a Secret a certificate.
//!
//! An object is written back as it was read, but for what was replaced in it. It holds private keys and is wiped after use.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::pki::{Certificate, CertificateError, FullState, JsonText, KubeConfig, PublicPrefix};

/// The name of the state's object, and of its one member.
pub(super) const FULL_STATE: &str = "full-cluster-state";

/// What kind of object holds the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateHolder {
    /// Since rke 1.4.19, 1.5.10 and 1.6.
    Secret,
    /// Before.
    ConfigMap,
}

impl StateHolder {
    /// Returns the path of the object in the API.
    pub(super) fn path(self) -> String {
        let kind = match self {
            Self::Secret => "secrets",
            Self::ConfigMap => "configmaps",
        };
        format!("/api/v1/namespaces/kube-system/{kind}/{FULL_STATE}")
    }
}

/// `kube-system/full-cluster-state`, as it was when it was read.
#[derive(Debug)]
pub struct ClusterStateObject {
    /// What kind of object it is.
    pub holder: StateHolder,
    /// The state, to be changed.
    pub state: FullState,
    object: JsonText,
}

impl ClusterStateObject {
    /// Reads an object of the API; the error says what is wrong without quoting it.
    pub(super) fn read(holder: StateHolder, body: &[u8]) -> Result<Self, String> {
        let object = versioned(body)?;
        let text = match holder {
            StateHolder::Secret => decoded(&object, FULL_STATE),
            StateHolder::ConfigMap => {
                object.string(&["data", FULL_STATE]).map(|text| Zeroizing::new(text.as_bytes().to_vec()))
            }
        };
        let text = text.ok_or_else(|| format!("there is no `{FULL_STATE}` in its data"))?;
        let state = FullState::parse(&text).map_err(|error| format!("its `{FULL_STATE}`: {error}"))?;
        Ok(Self { holder, state, object })
    }

    /// Returns the object as it is to be written.
    pub(super) fn into_body(mut self) -> Zeroizing<Vec<u8>> {
        let state = self.state.to_compact();
        match self.holder {
            StateHolder::Secret => replace_decoded(&mut self.object, FULL_STATE, &state),
            StateHolder::ConfigMap => self.object.replace_string(&["data", FULL_STATE], &state),
        };
        Zeroizing::new(self.object.as_str().as_bytes().to_vec())
    }
}

/// `kube-system/<name>` of rke v0.1.x: a certificate, its key and its kubeconfig in a Secret.
#[derive(Debug)]
pub struct CertificateSecret {
    name: String,
    object: JsonText,
}

impl CertificateSecret {
    /// Reads an object of the API; the error says what is wrong without quoting it.
    pub(super) fn read(name: &str, body: &[u8]) -> Result<Self, String> {
        Ok(Self { name: name.to_owned(), object: versioned(body)? })
    }

    /// Returns the certificate's name, such as `kube-node`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the object as the API has it.
    pub fn as_str(&self) -> &str {
        self.object.as_str()
    }

    /// Returns the certificate, or why there is none.
    pub fn certificate(&self) -> Result<Certificate, CertificateError> {
        decoded(&self.object, "Certificate")
            .map_or(Err(CertificateError::Empty), |pem| Certificate::from_pem(&pem))
    }

    /// Returns whether a private key is in it.
    pub fn has_key(&self) -> bool {
        decoded(&self.object, "Key").is_some_and(|key| !key.is_empty())
    }

    /// Returns whether the private key in it is that of its certificate, where that can be told.
    pub fn key_matches(&self) -> Option<bool> {
        let key = decoded(&self.object, "Key").filter(|key| !key.is_empty())?;
        let prefix = PublicPrefix::from_probe(std::str::from_utf8(&key).ok()?);
        self.certificate().ok()?.matches_key(&prefix)
    }

    /// Puts another certificate, and another key where one is given, in the place of those that are there; returns whether anything
    /// changed. A kubeconfig that embeds the pair (kube-admin's) gets the new one too.
    pub fn replace(&mut self, certificate_pem: &str, key_pem: Option<&str>) -> bool {
        let mut is_changed = replace_decoded(&mut self.object, "Certificate", certificate_pem);
        if let Some(key_pem) = key_pem {
            is_changed |= replace_decoded(&mut self.object, "Key", key_pem);
        }
        let config = decoded(&self.object, "Config");
        let config = config.and_then(|text| KubeConfig::parse(std::str::from_utf8(&text).ok()?).ok());
        if let Some(mut config) = config
            && config.replace(certificate_pem, key_pem) == Ok(true)
        {
            is_changed |= replace_decoded(&mut self.object, "Config", config.as_str());
        }
        is_changed
    }

    /// Reads a copy that was kept of an object; the error says what is wrong without quoting it.
    pub fn of_copy(name: &str, copy: &[u8]) -> Result<Self, String> {
        Self::read(name, copy)
    }

    /// Takes the certificate over from a copy of the object, with its key and its kubeconfig; returns whether anything changed.
    pub fn take_over(&mut self, copy: &Self) -> bool {
        let mut is_changed = false;
        for key in ["Certificate", "Key", "Config"] {
            if let Some(value) = copy.object.string(&["data", key]) {
                is_changed |= self.object.replace_string(&["data", key], &value);
            }
        }
        is_changed
    }

    /// Returns the object as it is to be written.
    pub(super) fn into_body(self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.object.as_str().as_bytes().to_vec())
    }
}

/// Reads an object that says which version it is: written back without one, it would overwrite what others wrote meanwhile.
fn versioned(body: &[u8]) -> Result<JsonText, String> {
    let object = JsonText::parse(body).map_err(|error| error.to_string())?;
    match object.string(&["metadata", "resourceVersion"]) {
        Some(version) if !version.is_empty() => Ok(object),
        _ => Err("it has no `resourceVersion`".to_owned()),
    }
}

/// Returns a value of a Secret, where it is there.
fn decoded(secret: &JsonText, key: &str) -> Option<Zeroizing<Vec<u8>>> {
    secret.string(&["data", key]).and_then(|text| STANDARD.decode(text.as_bytes()).ok()).map(Zeroizing::new)
}

/// Puts another value in the place of one of a Secret; returns whether anything changed.
fn replace_decoded(secret: &mut JsonText, key: &str, value: &str) -> bool {
    secret.replace_string(&["data", key], &Zeroizing::new(STANDARD.encode(value)))
}
