//! A full state is what the rke command remembers of a cluster: `cluster.rkestate`, and `full-cluster-state` in the cluster.
//!
//! `workstation` and `kube` read and write it. It holds every private key of the cluster: it is wiped after use, and never shown.

use zeroize::Zeroizing;

use super::json_text::{JsonError, JsonText};
use super::kube_config::KubeConfig;
use super::{Certificate, CertificateError, KUBE_CA, PublicPrefix};

/// The certificates of a state, by their name.
const BUNDLE: &str = "certificatesBundle";

/// Why a text is not a state of RKE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It is not a JSON object.
    #[error("{0}")]
    Json(#[from] JsonError),
    /// It has neither of the states.
    #[error("it has neither `desiredState` nor `currentState`, so rke did not write it")]
    NotAState,
}

/// Which of the two states of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateKind {
    /// What `rke up` is to make of the cluster.
    Desired,
    /// What the cluster was when rke ended.
    Current,
}

impl StateKind {
    /// Both, in the order of the file.
    pub const ALL: [Self; 2] = [Self::Desired, Self::Current];

    /// Returns the name that it has in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Desired => "desiredState",
            Self::Current => "currentState",
        }
    }
}

/// A certificate that a state holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateCertificate {
    /// The state that it is of.
    pub state: StateKind,
    /// Its name, such as `kube-node`.
    pub name: String,
    /// The certificate, or why it is none.
    pub certificate: Result<Certificate, CertificateError>,
    /// Whether a private key is beside it.
    pub has_key: bool,
}

/// The state of a cluster as rke keeps it (`cluster/state.go`); fields that certroll does not know stay as they are.
#[derive(Debug)]
pub struct FullState(JsonText);

impl FullState {
    /// Reads the text of a `.rkestate` file or of `full-cluster-state`.
    pub fn parse(text: &[u8]) -> Result<Self, StateError> {
        let json = JsonText::parse(text)?;
        let has = |state: StateKind| json.raw(&[state.as_str()]).is_some_and(|raw| raw.starts_with('{'));
        if StateKind::ALL.into_iter().any(has) { Ok(Self(json)) } else { Err(StateError::NotAState) }
    }

    /// Returns the certificates of both states, in the order of the text.
    pub fn certificates(&self) -> Vec<StateCertificate> {
        let of_state = |state: StateKind| {
            let names = self.0.names(&[state.as_str(), BUNDLE]);
            names.into_iter().map(move |name| self.certificate(state, name))
        };
        StateKind::ALL.into_iter().flat_map(of_state).collect()
    }

    fn certificate(&self, state: StateKind, name: String) -> StateCertificate {
        let pem = self.0.string(&[state.as_str(), BUNDLE, &name, "certificatePEM"]);
        let key = self.0.string(&[state.as_str(), BUNDLE, &name, "keyPEM"]);
        let certificate =
            pem.map_or(Err(CertificateError::Empty), |pem| Certificate::from_pem(pem.as_bytes()));
        StateCertificate { state, name, certificate, has_key: key.is_some_and(|key| !key.is_empty()) }
    }

    /// Returns kube-ca: the current state's, else the desired state's.
    pub fn authority(&self) -> Option<Certificate> {
        [StateKind::Current, StateKind::Desired]
            .into_iter()
            .find_map(|state| self.certificate(state, KUBE_CA.to_owned()).certificate.ok())
    }

    /// Returns the certificates of a name in both states, each with whether the key beside it is its own, where that can be told.
    pub fn pairs(&self, name: &str) -> Vec<(Certificate, Option<bool>)> {
        let of_state = |state: StateKind| {
            let key = self.0.string(&[state.as_str(), BUNDLE, name, "keyPEM"]);
            let certificate = self.certificate(state, name.to_owned()).certificate.ok()?;
            let key = key.filter(|key| !key.is_empty());
            let is_own = key.and_then(|key| certificate.matches_key(&PublicPrefix::from_probe(&key)));
            Some((certificate, is_own))
        };
        StateKind::ALL.into_iter().filter_map(of_state).collect()
    }

    /// Returns whether the key beside a certificate of a state is its own; `None` where there is no telling.
    pub fn key_matches(&self, state: StateKind, name: &str) -> Option<bool> {
        let key = self.0.string(&[state.as_str(), BUNDLE, name, "keyPEM"]).filter(|key| !key.is_empty())?;
        let certificate = self.certificate(state, name.to_owned()).certificate.ok()?;
        certificate.matches_key(&PublicPrefix::from_probe(&key))
    }

    /// Returns the configuration of the cluster in a state, as it is written; it may hold secrets.
    pub fn configuration(&self, state: StateKind) -> Option<&str> {
        self.0.raw(&[state.as_str(), "rkeConfig"]).filter(|raw| raw.starts_with('{'))
    }

    /// Puts another certificate, and another key where one is given, into both states where the name is there; returns whether
    /// anything changed.
    ///
    /// kube-admin's `config` is a kubeconfig that embeds the pair, and gets the new one too; those of other names point to files.
    pub fn replace(&mut self, name: &str, certificate_pem: &str, key_pem: Option<&str>) -> bool {
        let mut is_changed = false;
        for state in StateKind::ALL {
            let entry = [state.as_str(), BUNDLE, name];
            let [state, bundle, name] = entry;
            is_changed |= self.0.replace_string(&[state, bundle, name, "certificatePEM"], certificate_pem);
            if let Some(key_pem) = key_pem {
                is_changed |= self.0.replace_string(&[state, bundle, name, "keyPEM"], key_pem);
            }
            is_changed |=
                replace_config(&mut self.0, &[state, bundle, name, "config"], certificate_pem, key_pem);
        }
        is_changed
    }

    /// Takes a certificate over from another state of the same cluster, with its key and its kubeconfig, wherever both have it;
    /// returns whether anything changed.
    pub fn take_over(&mut self, other: &Self, name: &str) -> bool {
        let mut is_changed = false;
        for state in StateKind::ALL {
            for field in ["certificatePEM", "keyPEM", "config"] {
                let path = [state.as_str(), BUNDLE, name, field];
                if let Some(value) = other.0.string(&path) {
                    is_changed |= self.0.replace_string(&path, &value);
                }
            }
        }
        is_changed
    }

    /// Returns the text as rke writes the file: two spaces a level.
    pub fn to_indented(&self) -> Zeroizing<String> {
        self.0.to_indented()
    }

    /// Returns the text as rke writes it into the cluster: no white space.
    pub fn to_compact(&self) -> Zeroizing<String> {
        self.0.to_compact()
    }
}

/// Puts another pair into a kubeconfig that is a string of a document; one that embeds no pair stays as it is.
fn replace_config(json: &mut JsonText, path: &[&str], certificate_pem: &str, key_pem: Option<&str>) -> bool {
    let config = json.string(path).and_then(|text| KubeConfig::parse(&text).ok());
    config.is_some_and(|mut config| {
        config.replace(certificate_pem, key_pem) == Ok(true) && json.replace_string(path, config.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::KUBE_ADMIN;

    const FILE: &str = include_str!("../../tests/cases/golden/rke-v0.2.8/cluster.rkestate");
    const OTHER: &str = include_str!("../../tests/cases/golden/rke-v0.2.8/n1/ssl/kube-node.pem");

    fn state() -> FullState {
        FullState::parse(FILE.as_bytes()).unwrap()
    }

    /// Returns the text that the `ConfigMap` of the golden cluster holds.
    fn in_cluster() -> String {
        let object = include_bytes!("../../tests/cases/golden/rke-v0.2.8/full-cluster-state.json");
        JsonText::parse(object).unwrap().string(&["data", "full-cluster-state"]).unwrap().to_string()
    }

    #[test]
    fn an_unchanged_state_comes_out_as_it_went_in() {
        assert_eq!(*state().to_indented(), FILE);
        let compact = state().to_compact();
        assert_eq!(*FullState::parse(compact.as_bytes()).unwrap().to_indented(), FILE.trim_end());
        // Whoever took the keys out of the golden text left spaces in it.
        let value = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
        let stored = in_cluster();
        let again = FullState::parse(stored.as_bytes()).unwrap().to_compact();
        assert_eq!(value(&again), value(&stored));
        assert_eq!(*FullState::parse(again.as_bytes()).unwrap().to_compact(), *again);
    }

    #[test]
    fn certificates_and_the_authority_are_read() {
        let certificates = state().certificates();
        assert_eq!(certificates.len(), 26);
        assert!(certificates.iter().all(|found| found.certificate.is_ok() && found.has_key));
        assert_eq!(certificates.iter().filter(|found| found.state == StateKind::Desired).count(), 13);
        let authority = include_str!("../../tests/cases/golden/rke-v0.2.8/n1/ssl/kube-ca.pem");
        assert_eq!(state().authority(), Some(Certificate::from_pem(authority.as_bytes()).unwrap()));
        assert_eq!(FullState::parse(in_cluster().as_bytes()).unwrap().authority(), state().authority());
    }

    #[test]
    fn a_pair_is_replaced_in_both_states_and_nothing_else_changes() {
        let mut changed = state();
        assert!(changed.replace("kube-scheduler", OTHER, Some("a <key>\n")));
        let text = changed.to_indented();
        assert_eq!(text.matches(r#""keyPEM": "a \u003ckey\u003e\n","#).count(), 2, "escaped as Go does");
        let differing = text.lines().zip(FILE.lines()).filter(|(new, old)| new != old).count();
        assert_eq!((differing, text.lines().count()), (4, FILE.lines().count()));
        assert!(!changed.replace("kube-scheduler", OTHER, Some("a <key>\n")), "the same again");
        assert!(!changed.replace("kube-unknown", OTHER, None));
    }

    #[test]
    fn the_pair_in_the_kubeconfig_of_kube_admin_is_replaced_too() {
        let mut changed = state();
        assert!(changed.replace(KUBE_ADMIN, OTHER, Some("a key")));
        let text = changed.to_indented();
        assert_eq!(text.lines().zip(FILE.lines()).filter(|(new, old)| new != old).count(), 6);
        for state in StateKind::ALL {
            let config = changed.0.string(&[state.as_str(), BUNDLE, KUBE_ADMIN, "config"]).unwrap();
            let config = KubeConfig::parse(&config).unwrap();
            assert_eq!(config.certificate().unwrap().unwrap().common_name(), Some("system:node"));
            assert!(config.as_str().contains("YSBrZXk="));
        }
    }

    #[test]
    fn what_was_replaced_is_taken_over_from_the_old_state() {
        let mut changed = state();
        for name in [KUBE_ADMIN, "kube-scheduler"] {
            assert!(changed.replace(name, OTHER, Some("a key")));
            assert!(changed.take_over(&state(), name));
        }
        assert_eq!(*changed.to_indented(), FILE);
        assert!(!changed.take_over(&state(), "kube-scheduler"), "the same again");
        assert!(!changed.take_over(&state(), "kube-unknown"));
    }

    #[test]
    fn a_key_that_is_not_given_stays() {
        let mut changed = state();
        assert!(changed.replace("kube-apiserver", OTHER, None));
        let text = changed.to_indented();
        assert_eq!(text.lines().zip(FILE.lines()).filter(|(new, old)| new != old).count(), 2);
    }

    #[test]
    fn a_state_that_is_half_there_is_read() {
        let text = r#"{"desiredState":{"certificatesBundle":{"kube-ca":{"certificatePEM":"","keyPEM":""}}},"currentState":{}}"#;
        let state = FullState::parse(text.as_bytes()).unwrap();
        assert_eq!(state.authority(), None);
        let certificates = state.certificates();
        assert_eq!(certificates.len(), 1);
        assert_eq!(certificates[0].certificate, Err(CertificateError::Empty));
        assert!(!certificates[0].has_key);
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let refusal = |text: &[u8]| FullState::parse(text).unwrap_err().to_string();
        assert_eq!(refusal(&FILE.as_bytes()[..9000]), "it ends in the middle, in line 172");
        let other = "it has neither `desiredState` nor `currentState`, so rke did not write it";
        assert_eq!(refusal(b"{\"nodes\": []}"), other);
    }
}
