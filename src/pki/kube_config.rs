//! A kubeconfig is the text with which `kubectl` finds a cluster and says who asks: RKE's `kube_config_<file>`.
//!
//! It is read for what it embeds, and changed by replacing the embedded pair in its place; the rest is the operator's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_saphyr::{DuplicateKeyPolicy, Location, Options, Spanned};
use zeroize::Zeroizing;

use super::{Certificate, CertificateError, KUBE_ADMIN};

/// Why a kubeconfig is not read or not changed; its text is never quoted, for it is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KubeConfigError {
    /// It is not YAML, or something else than a kubeconfig.
    #[error("it is not a kubeconfig: line {line}, column {column}")]
    Invalid {
        /// The line, counted from 1; 0 where it is not known.
        line: u64,
        /// The column, counted from 1; 0 where it is not known.
        column: u64,
    },
    /// `current-context` leads to no user.
    #[error("its `current-context` names no user of it")]
    NoUser,
    /// The user has no `client-certificate-data` and `client-key-data`.
    #[error("its user has no embedded certificate and key, so there is nothing to replace in it")]
    NotEmbedded,
    /// The data is folded over lines or written in another way that has no single place.
    #[error("its embedded data is not written in one line, and cannot be replaced in its place")]
    Folded,
}

/// A kubeconfig with the certificates of its current context.
pub struct KubeConfig {
    text: Zeroizing<String>,
    server: Option<String>,
    authority: Option<Result<Certificate, CertificateError>>,
    certificate: Option<Result<Certificate, CertificateError>>,
    certificate_data: Option<Place>,
    key_data: Option<Place>,
}

/// Where a value stands in the text; `None` where it has no single place.
type Place = Option<(usize, usize)>;

impl KubeConfig {
    /// Reads a kubeconfig.
    pub fn parse(text: &str) -> Result<Self, KubeConfigError> {
        let document =
            Document::parse(text).map_err(|(line, column)| KubeConfigError::Invalid { line, column })?;
        let (cluster, user) = document.current().ok_or(KubeConfigError::NoUser)?;
        let embedded = |data: &Option<Spanned<Wiped>>| data.as_ref().map(|data| certificate_of(&data.value));
        Ok(Self {
            server: cluster.and_then(|cluster| cluster.server.clone()),
            authority: cluster.and_then(|cluster| embedded(&cluster.authority_data)),
            certificate: embedded(&user.certificate_data),
            certificate_data: user.certificate_data.as_ref().map(|data| place_of(data, text)),
            key_data: user.key_data.as_ref().map(|data| place_of(data, text)),
            text: Zeroizing::new(text.to_owned()),
        })
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the URL of the API server.
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// Returns the CA that the API server is verified against, where it is embedded.
    pub fn authority(&self) -> Option<Result<&Certificate, &CertificateError>> {
        self.authority.as_ref().map(Result::as_ref)
    }

    /// Returns the certificate of the user, where it is embedded.
    pub fn certificate(&self) -> Option<Result<&Certificate, &CertificateError>> {
        self.certificate.as_ref().map(Result::as_ref)
    }

    /// Puts another certificate, and another key where one is given, in the place of the embedded ones; returns whether anything
    /// changed.
    pub fn replace(&mut self, certificate_pem: &str, key_pem: Option<&str>) -> Result<bool, KubeConfigError> {
        let mut edits = vec![(self.certificate_data, certificate_pem)];
        edits.extend(key_pem.map(|pem| (self.key_data, pem)));
        let mut replaced = Vec::new();
        for (place, pem) in edits {
            let (start, end) = place.ok_or(KubeConfigError::NotEmbedded)?.ok_or(KubeConfigError::Folded)?;
            replaced.push((start, end, Zeroizing::new(STANDARD.encode(pem))));
        }
        replaced.sort_by_key(|(start, ..)| *start);
        let text = spliced(&self.text, &replaced).ok_or(KubeConfigError::Folded)?;
        let is_changed = *text != *self.text;
        *self = Self::parse(&text)?;
        Ok(is_changed)
    }
}

impl std::fmt::Debug for KubeConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KubeConfig").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Whom a new kubeconfig leads to.
#[derive(Debug, Clone, Copy)]
pub struct ClusterAddress<'a> {
    /// The URL of the API server; RKE's is `https://<address of a control plane node>:6443`.
    pub server: &'a str,
    /// The `cluster_name` of cluster.yml.
    pub name: &'a str,
    /// The certificate of kube-ca (PEM).
    pub authority_pem: &'a str,
}

/// Returns the kubeconfig of kube-admin as RKE lays it out (`pki/kubeconfig.go`): names in double quotes, no line end at the end.
pub fn admin_kube_config(
    cluster: ClusterAddress<'_>,
    certificate_pem: &str,
    key_pem: &str,
) -> Zeroizing<String> {
    let (server, name) = (quoted(cluster.server), quoted(cluster.name));
    let user = quoted(&format!("{KUBE_ADMIN}-{}", cluster.name));
    let authority = STANDARD.encode(cluster.authority_pem);
    let certificate = STANDARD.encode(certificate_pem);
    let key = Zeroizing::new(STANDARD.encode(key_pem));
    let head = [
        "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    api-version: v1\n    certificate-authority-data: ",
        &authority,
        "\n    server: ",
        &server,
        "\n  name: ",
        &name,
    ];
    let context = [
        "\ncontexts:\n- context:\n    cluster: ",
        &name,
        "\n    user: ",
        &user,
        "\n  name: ",
        &name,
        "\ncurrent-context: ",
        &name,
    ];
    let users = [
        "\nusers:\n- name: ",
        &user,
        "\n  user:\n    client-certificate-data: ",
        &certificate,
        "\n    client-key-data: ",
        &key,
    ];
    joined(&[&head[..], &context[..], &users[..]].concat())
}

/// Returns a value in the double quotes of YAML.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Returns parts as one text, in memory that is taken once: a buffer that grows leaves copies behind.
fn joined(parts: &[&str]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        text.push_str(part);
    }
    text
}

/// Returns a text with other values at some places, which are in their order.
fn spliced(text: &str, values: &[(usize, usize, Zeroizing<String>)]) -> Option<Zeroizing<String>> {
    let mut parts = Vec::new();
    let mut at = 0;
    for (start, end, value) in values {
        parts.extend([text.get(at..*start)?, value.as_str()]);
        at = *end;
    }
    parts.push(text.get(at..)?);
    Some(joined(&parts))
}

/// Returns where the letters of a value stand, without quotes around them.
fn place_of(value: &Spanned<Wiped>, text: &str) -> Place {
    let (start, end) = bytes_of(value.referenced)?;
    let written = text.get(start..end)?;
    let bare = written.trim_matches(['"', '\'']);
    let start = start + written.find(bare)?;
    (*bare == *value.value.0).then_some((start, start + bare.len()))
}

fn bytes_of(location: Location) -> Place {
    let span = location.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    Some((start, start + usize::try_from(span.byte_len()?).ok()?))
}

fn certificate_of(data: &Wiped) -> Result<Certificate, CertificateError> {
    let pem = STANDARD.decode(data.0.as_bytes()).map_err(|_| CertificateError::NotPem)?;
    Certificate::from_pem(&pem)
}

/// Returns how a kubeconfig is read: snippets are off, for an error must not quote a key.
fn options() -> Options {
    serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        ignore_binary_tag_for_string: true,
        with_snippet: false,
    }
}

/// What is read of a kubeconfig.
#[derive(Deserialize)]
pub(super) struct Document {
    #[serde(rename = "current-context")]
    current_context: Option<String>,
    clusters: Option<Vec<NamedCluster>>,
    contexts: Option<Vec<NamedContext>>,
    users: Option<Vec<NamedUser>>,
}

impl Document {
    /// Reads a kubeconfig; the error is its line and column, 0 where they are not known.
    pub(super) fn parse(text: &str) -> Result<Self, (u64, u64)> {
        serde_saphyr::from_str_with_options(text, options())
            .map_err(|error| error.location().map_or((0, 0), |location| (location.line(), location.column())))
    }

    /// Returns the cluster and the user of a context, of the current one where none is named.
    pub(super) fn context(&self, name: Option<&str>) -> Option<(&NamedCluster, &User)> {
        let name = name.or(self.current_context.as_deref()).filter(|name| !name.is_empty())?;
        let context = &self.contexts.iter().flatten().find(|named| named.name == name)?.context;
        let cluster = self.clusters.iter().flatten().find(|named| named.name == context.cluster)?;
        let user = self.users.iter().flatten().find(|named| named.name == context.user)?;
        Some((cluster, &user.user))
    }

    /// Returns the names of the contexts.
    pub(super) fn context_names(&self) -> Vec<String> {
        self.contexts.iter().flatten().map(|named| named.name.clone()).collect()
    }

    /// Returns the cluster and the user of the current context; without one, those that are the only ones.
    fn current(&self) -> Option<(Option<&Cluster>, &User)> {
        let clusters = self.clusters.as_deref().unwrap_or_default();
        let users = self.users.as_deref().unwrap_or_default();
        let current = self.current_context.as_deref().filter(|name| !name.is_empty());
        let Some(current) = current else {
            let [user] = users else { return None };
            return Some((clusters.first().map(|named| &named.cluster), &user.user));
        };
        let contexts = self.contexts.as_deref().unwrap_or_default();
        let context = &contexts.iter().find(|named| named.name == current)?.context;
        let cluster = clusters.iter().find(|named| named.name == context.cluster);
        let user = users.iter().find(|named| named.name == context.user)?;
        Some((cluster.map(|named| &named.cluster), &user.user))
    }
}

#[derive(Deserialize)]
pub(super) struct NamedCluster {
    pub(super) name: String,
    pub(super) cluster: Cluster,
}

#[derive(Deserialize)]
pub(super) struct Cluster {
    pub(super) server: Option<String>,
    #[serde(rename = "certificate-authority-data")]
    pub(super) authority_data: Option<Spanned<Wiped>>,
    #[serde(rename = "certificate-authority")]
    pub(super) authority_file: Option<String>,
    #[serde(rename = "insecure-skip-tls-verify")]
    pub(super) is_insecure: Option<bool>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
pub(super) struct User {
    #[serde(rename = "client-certificate-data")]
    pub(super) certificate_data: Option<Spanned<Wiped>>,
    #[serde(rename = "client-key-data")]
    pub(super) key_data: Option<Spanned<Wiped>>,
    #[serde(rename = "client-certificate")]
    pub(super) certificate_file: Option<String>,
    #[serde(rename = "client-key")]
    pub(super) key_file: Option<String>,
    pub(super) token: Option<Wiped>,
    #[serde(rename = "tokenFile")]
    pub(super) token_file: Option<String>,
    pub(super) exec: Option<IgnoredAny>,
    #[serde(rename = "auth-provider")]
    pub(super) auth_provider: Option<IgnoredAny>,
}

/// A text that is wiped after use.
pub(super) struct Wiped(Zeroizing<String>);

impl Wiped {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Wiped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterAddress<'static> =
        ClusterAddress { server: "https://10.0.0.1:6443", name: "local", authority_pem: "CA" };

    fn of_rke() -> String {
        admin_kube_config(CLUSTER, "certificate", "key").to_string()
    }

    #[test]
    fn a_golden_kubeconfig_gets_another_pair_and_nothing_else_changes() {
        let text = include_str!("../../tests/cases/golden/rke-v0.2.8/kube_config_cluster.yml");
        let mut config = KubeConfig::parse(text).unwrap();
        assert_eq!(config.server(), Some("https://10.77.0.13:6443"));
        assert_eq!(config.authority().unwrap().unwrap().subject, "CN=kube-ca");
        assert_eq!(config.certificate().unwrap().unwrap().common_name(), Some(KUBE_ADMIN));

        let other = include_str!("../../tests/cases/golden/rke-v0.2.8/n1/ssl/kube-node.pem");
        assert_eq!(config.replace(other, Some("a key")), Ok(true));
        assert_eq!(config.certificate().unwrap().unwrap().common_name(), Some("system:node"));
        let changed: Vec<&str> = config
            .as_str()
            .lines()
            .zip(text.lines())
            .filter(|(new, old)| new != old)
            .map(|(new, _)| new)
            .collect();
        let data = format!("    client-certificate-data: {}", STANDARD.encode(other));
        assert_eq!(changed, [data.as_str(), "    client-key-data: \"YSBrZXk=\""]);
        assert_eq!(config.as_str().lines().count(), text.lines().count());
        assert_eq!(config.replace(other, None), Ok(false), "the same again");
    }

    #[test]
    fn a_new_one_is_laid_out_as_rke_does() {
        let text = include_str!("../../tests/cases/golden/rke-v0.1.17/kube_config_cluster.yml");
        let config = KubeConfig::parse(text).unwrap();
        let authority = config.authority().unwrap().unwrap().to_pem();
        let certificate = config.certificate().unwrap().unwrap().to_pem();
        let cluster =
            ClusterAddress { server: config.server().unwrap(), name: "judge", authority_pem: &authority };
        let made = admin_kube_config(cluster, &certificate, "key");
        // The key was taken out of the golden file.
        assert_eq!(made.replace("a2V5", "\"(removed)\""), text);
    }

    #[test]
    fn the_pair_of_the_current_context_is_replaced() {
        let text = "users:\n- {name: other, user: {client-certificate-data: b3RoZXI=, client-key-data: b3RoZXI=}}\n\
                    - name: admin # ours\n  user: {client-key-data: 'b2xk', client-certificate-data: \"b2xk\"}\n\
                    contexts: [{name: here, context: {user: admin, cluster: gone}}]\ncurrent-context: here\n";
        let mut config = KubeConfig::parse(text).unwrap();
        assert_eq!(config.replace("c", Some("k")), Ok(true));
        assert_eq!(config.as_str(), text.replace("'b2xk'", "'aw=='").replace("\"b2xk\"", "\"Yw==\""));
        assert_eq!(config.server(), None);
    }

    #[test]
    fn what_has_no_embedded_pair_is_not_changed() {
        let files = of_rke()
            .replace("client-certificate-data: ", "client-certificate: ")
            .replace("client-key-data: ", "client-key: ");
        let mut config = KubeConfig::parse(&files).unwrap();
        assert_eq!(config.replace("c", Some("k")), Err(KubeConfigError::NotEmbedded));
        assert_eq!(config.as_str(), files);

        let folded = of_rke().replace("client-key-data: a2V5", "client-key-data: |-\n      a2\n      V5");
        let mut config = KubeConfig::parse(&folded).unwrap();
        assert_eq!(config.replace("c", Some("k")), Err(KubeConfigError::Folded));
        assert_eq!(config.as_str(), folded);
    }

    #[test]
    fn what_is_no_kubeconfig_is_refused_without_being_quoted() {
        let refusal = |text: &str| KubeConfig::parse(text).unwrap_err();
        assert!(matches!(refusal("users: [secret"), KubeConfigError::Invalid { .. }));
        assert!(matches!(refusal("users: secret"), KubeConfigError::Invalid { line: 1, column: 8 }));
        assert_eq!(refusal("kind: Config"), KubeConfigError::NoUser);
        let lost = of_rke().replace("current-context: \"local\"", "current-context: \"gone\"");
        assert_eq!(refusal(&lost), KubeConfigError::NoUser);
    }
}
