//! An access is what a kubeconfig says of one cluster: where its API server is, whom to trust, and who asks.
//!
//! `import kubeconfig` asks with it. Programs that make credentials (`exec`, `auth-provider`) are not run.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::kube_config::{Cluster, Document, User};

/// Why a kubeconfig does not say how to ask; its text is never quoted, for it is secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// It is not YAML, or something else than a kubeconfig.
    #[error("it is not a kubeconfig: line {line}, column {column}")]
    Invalid {
        /// The line, counted from 1; 0 where it is not known.
        line: u64,
        /// The column, counted from 1; 0 where it is not known.
        column: u64,
    },
    /// The context is not there, or leads to no cluster or no user.
    #[error("it has no {wanted} with a cluster and a user; its contexts are {}", list(.contexts))]
    NoContext {
        /// What was looked for.
        wanted: String,
        /// The contexts that there are.
        contexts: Vec<String>,
    },
    /// The cluster has no `server`.
    #[error("its cluster has no `server`")]
    NoServer,
    /// The server's certificate is not to be verified.
    #[error("it says `insecure-skip-tls-verify`: whoever answers would get the credentials")]
    Insecure,
    /// The user has nothing that is understood.
    #[error("its user has neither a client certificate with its key nor a token{0}")]
    NoCredentials(&'static str),
    /// Embedded data is not base64.
    #[error("its `{0}` is not base64")]
    NotBase64(&'static str),
}

impl AccessError {
    /// Returns the way out.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Insecure => "put the CA of the API server into `certificate-authority-data`",
            Self::NoCredentials(_) => {
                "name a kubeconfig with a certificate or a token, such as the `kube_config_cluster.yml` that rke writes or the one that Rancher gives"
            }
            Self::NoContext { .. } => "name one with --context",
            Self::Invalid { .. } | Self::NoServer | Self::NotBase64(_) => {
                "name a kubeconfig that `kubectl --kubeconfig FILE get nodes` works with"
            }
        }
    }
}

fn list(contexts: &[String]) -> String {
    if contexts.is_empty() { "none".to_owned() } else { contexts.join(", ") }
}

/// Something that a kubeconfig embeds or names a file for.
#[derive(Clone, PartialEq, Eq)]
pub enum Material {
    /// It is in the kubeconfig itself.
    Embedded(Zeroizing<Vec<u8>>),
    /// It is in this file; a relative path begins at the kubeconfig's folder.
    File(String),
}

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Somebody with a client certificate (PEM) and its key.
    Certificate {
        /// The certificate.
        certificate: Material,
        /// The private key.
        key: Material,
    },
    /// Somebody with a token.
    Token(Material),
}

/// How the API server of a cluster is asked.
pub struct Access {
    /// The name of the cluster in the kubeconfig.
    pub cluster: String,
    /// The URL of the API server.
    pub server: String,
    /// The CA that the server's certificate must be signed by (PEM); the system's where there is none.
    pub authority: Option<Material>,
    /// Who asks.
    pub credentials: Credentials,
}

impl Access {
    /// Reads a context of a kubeconfig: that of a name, else the current one.
    pub fn parse(text: &str, context: Option<&str>) -> Result<Self, AccessError> {
        let document =
            Document::parse(text).map_err(|(line, column)| AccessError::Invalid { line, column })?;
        let found = document.context(context);
        let (cluster, user) = found.ok_or_else(|| AccessError::NoContext {
            wanted: context.map_or_else(|| "current context".to_owned(), |name| format!("context `{name}`")),
            contexts: document.context_names(),
        })?;
        if cluster.cluster.is_insecure == Some(true) {
            return Err(AccessError::Insecure);
        }
        Ok(Self {
            cluster: cluster.name.clone(),
            server: cluster.cluster.server.clone().ok_or(AccessError::NoServer)?,
            authority: authority(&cluster.cluster)?,
            credentials: credentials(user)?,
        })
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Access").field("server", &self.server).finish_non_exhaustive()
    }
}

fn authority(cluster: &Cluster) -> Result<Option<Material>, AccessError> {
    let data = cluster.authority_data.as_ref().map(|data| data.value.as_str());
    material("certificate-authority-data", data, cluster.authority_file.as_deref())
}

fn credentials(user: &User) -> Result<Credentials, AccessError> {
    let data = user.certificate_data.as_ref().map(|data| data.value.as_str());
    let certificate = material("client-certificate-data", data, user.certificate_file.as_deref())?;
    let data = user.key_data.as_ref().map(|data| data.value.as_str());
    let key = material("client-key-data", data, user.key_file.as_deref())?;
    if let (Some(certificate), Some(key)) = (certificate, key) {
        return Ok(Credentials::Certificate { certificate, key });
    }
    if let Some(token) = user.token.as_ref().filter(|token| !token.as_str().is_empty()) {
        let token = Zeroizing::new(token.as_str().as_bytes().to_vec());
        return Ok(Credentials::Token(Material::Embedded(token)));
    }
    if let Some(file) = user.token_file.as_ref().filter(|file| !file.is_empty()) {
        return Ok(Credentials::Token(Material::File(file.clone())));
    }
    Err(AccessError::NoCredentials(match (&user.exec, &user.auth_provider) {
        (None, None) => "",
        _ => "; the program that makes its credentials is not run",
    }))
}

/// Returns what is embedded, else what is in a file, as kubectl does.
fn material(
    field: &'static str,
    data: Option<&str>,
    file: Option<&str>,
) -> Result<Option<Material>, AccessError> {
    match (data.filter(|data| !data.is_empty()), file.filter(|file| !file.is_empty())) {
        (Some(data), _) => {
            let bytes = STANDARD.decode(data.trim()).map_err(|_| AccessError::NotBase64(field))?;
            Ok(Some(Material::Embedded(Zeroizing::new(bytes))))
        }
        (None, Some(file)) => Ok(Some(Material::File(file.to_owned()))),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
clusters:
- {name: prod, cluster: {server: 'https://rancher.example.net/k8s/clusters/c-x7k2p'}}
- {name: lab, cluster: {server: 'https://10.0.0.1:6443', certificate-authority: ca.pem}}
- {name: open, cluster: {server: 'https://10.0.0.1:6443', insecure-skip-tls-verify: true}}
users:
- {name: me, user: {token: 'kubeconfig-u-1:secret'}}
- {name: file, user: {client-certificate: me.pem, client-key: me.key}}
- {name: program, user: {exec: {command: aws}}}
contexts:
- {name: prod, context: {cluster: prod, user: me}}
- {name: lab, context: {cluster: lab, user: file}}
- {name: open, context: {cluster: open, user: me}}
- {name: program, context: {cluster: lab, user: program}}
current-context: prod
";

    fn refusal(context: &str) -> String {
        Access::parse(TEXT, Some(context)).unwrap_err().to_string()
    }

    #[test]
    fn the_context_that_is_asked_for_is_read() {
        let access = Access::parse(TEXT, None).unwrap();
        assert_eq!(
            (access.cluster.as_str(), access.server.as_str()),
            ("prod", "https://rancher.example.net/k8s/clusters/c-x7k2p")
        );
        let token = Material::Embedded(Zeroizing::new(b"kubeconfig-u-1:secret".to_vec()));
        assert!(access.credentials == Credentials::Token(token) && access.authority.is_none());
        let lab = Access::parse(TEXT, Some("lab")).unwrap();
        assert!(lab.authority == Some(Material::File("ca.pem".to_owned())));
        assert!(matches!(lab.credentials, Credentials::Certificate { key: Material::File(_), .. }));
        let golden = include_str!("../../tests/cases/golden/rke-v0.2.8/kube_config_cluster.yml");
        let golden = golden.replace("(removed)", "a2V5");
        assert!(matches!(
            Access::parse(&golden, None).unwrap().credentials,
            Credentials::Certificate { key: Material::Embedded(_), .. }
        ));
    }

    #[test]
    fn what_cannot_be_asked_with_is_refused_without_being_quoted() {
        assert_eq!(
            refusal("gone"),
            "it has no context `gone` with a cluster and a user; its contexts are prod, lab, open, program"
        );
        assert!(refusal("open").contains("insecure-skip-tls-verify"));
        assert!(refusal("program").contains("is not run"));
        let invalid = Access::parse("users: secret", None).unwrap_err().to_string();
        assert!(!invalid.contains("secret"), "{invalid}");
    }
}
