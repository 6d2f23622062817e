//! An identity is the client certificate that requests are made with, and the CA that must have signed whoever answers.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroize as _;

use super::KubeError;
use super::certificate::{Witness, client_config};
use crate::pki::Certificate;

/// Who asks, and the CA that must have signed whoever answers; built once, used for many requests.
#[derive(Clone)]
pub struct Identity {
    verifying: ClientConfig,
    trusting: ClientConfig,
}

/// Who may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    /// A server that the CA has signed, for the name that it is asked by.
    Verified,
    /// Any server: kubelet signs its certificate itself. What it says is believed of itself alone.
    Any,
}

impl Identity {
    /// Takes a certificate, its key (PKCS#1, SEC1 or PKCS#8, PEM) and the cluster's CA into use.
    pub fn new(certificate_pem: &str, key_pem: &str, authority: &Certificate) -> Result<Self, KubeError> {
        let client = Arc::new(SingleCertAndKey::from(certified_key(certificate_pem, key_pem)?));
        let config = |verifier: Arc<dyn ServerCertVerifier>| -> Result<ClientConfig, KubeError> {
            let client = Arc::clone(&client);
            Ok(client_config(verifier)?.with_client_cert_resolver(client))
        };
        Ok(Self { verifying: config(verifier(authority)?)?, trusting: config(Arc::new(Witness::default()))? })
    }

    /// Returns the settings of a connection.
    pub(super) fn config(&self, server: Server) -> ClientConfig {
        match server {
            Server::Verified => self.verifying.clone(),
            Server::Any => self.trusting.clone(),
        }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Identity").finish_non_exhaustive()
    }
}

fn certified_key(certificate_pem: &str, key_pem: &str) -> Result<CertifiedKey, KubeError> {
    let unusable =
        |what: &str, error: &dyn std::fmt::Display| KubeError::Identity(format!("{what}: {error}"));
    let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable("its PEM", &error))?;
    if chain.is_empty() {
        return Err(KubeError::Identity("there is none in the text".to_owned()));
    }
    let mut der = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|_| KubeError::Identity("its key is no PEM of PKCS#1, SEC1 or PKCS#8".to_owned()))?;
    let key = aws_lc_rs::sign::any_supported_type(&der);
    der.zeroize();
    let certified = CertifiedKey::new(chain, key.map_err(|error| unusable("its key", &error))?);
    match certified.keys_match() {
        // A kind of key whose public half cannot be told shows in the handshake.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(error) => Err(unusable("it and its key", &error)),
    }
}

/// Returns what verifies servers against a CA.
fn verifier(authority: &Certificate) -> Result<Arc<WebPkiServerVerifier>, KubeError> {
    let unusable = |error: &dyn std::fmt::Display| KubeError::Identity(format!("the CA: {error}"));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.der.clone())).map_err(|error| unusable(&error))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| unusable(&error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::CertificateError;
    use rustls_pki_types::{ServerName, UnixTime};

    use super::*;

    /// A day after the golden clusters were made.
    const THEN: u64 = 1_795_392_000;

    /// Verifies a golden certificate against the golden CA, as a client does that asks by a name.
    fn verify(authority: &str, certificate: &str, name: &str) -> Result<(), rustls::Error> {
        let authority = Certificate::from_pem(authority.as_bytes()).unwrap();
        let leaf = CertificateDer::from(Certificate::from_pem(certificate.as_bytes()).unwrap().der);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(THEN));
        let verifier = verifier(&authority).unwrap();
        verifier.verify_server_cert(&leaf, &[], &name, &[], now).map(|_| ())
    }

    macro_rules! golden {
        ($path:literal) => {
            include_str!(concat!("../../tests/cases/golden/", $path))
        };
    }

    #[test]
    fn servers_of_real_clusters_are_verified() {
        let old = golden!("rke-v0.1.17/n1/ssl/kube-ca.pem");
        let new = golden!("rke-v0.2.8/n1/ssl/kube-ca.pem");
        for (authority, certificate, name) in [
            (old, golden!("rke-v0.1.17/n1/ssl/kube-apiserver.pem"), "127.0.0.1"),
            (old, golden!("rke-v0.1.17/n1/ssl/kube-etcd-10-77-0-11.pem"), "10.77.0.12"),
            (new, golden!("rke-v0.2.8/n1/ssl/kube-apiserver.pem"), "127.0.0.1"),
            (new, golden!("rke-v0.2.8/n1/ssl/kube-apiserver.pem"), "kubernetes.default.svc"),
            (new, golden!("rke-v0.2.8/n1/ssl/kube-etcd-10-77-0-11.pem"), "10.77.0.11"),
        ] {
            assert_eq!(verify(authority, certificate, name), Ok(()), "{name}");
        }
        let certificate = golden!("rke-v0.2.8/n1/ssl/kube-apiserver.pem");
        let refused = verify(old, certificate, "127.0.0.1").unwrap_err();
        let other_authority = [CertificateError::UnknownIssuer, CertificateError::BadSignature];
        assert!(other_authority.map(rustls::Error::InvalidCertificate).contains(&refused), "{refused}");
        let refused = verify(new, certificate, "10.77.0.99").unwrap_err();
        assert!(refused.to_string().contains("not valid for name"), "{refused}");
    }

    #[test]
    fn a_pair_that_does_not_belong_together_is_refused() {
        let authority = Certificate::from_pem(golden!("rke-v0.2.8/n1/ssl/kube-ca.pem").as_bytes()).unwrap();
        let certificate = golden!("rke-v0.2.8/n1/ssl/kube-node.pem");
        let refusal = |certificate: &str, key: &str| {
            Identity::new(certificate, key, &authority).map(|_| ()).unwrap_err().to_string()
        };
        let key = crate::pki::new_key(crate::pki::KeyAlgorithm::Rsa2048).unwrap();
        let before = "the client certificate cannot be used: ";
        assert!(refusal(certificate, &key).starts_with(&format!("{before}it and its key: ")));
        assert_eq!(refusal("", &key), format!("{before}there is none in the text"));
        let no_key = format!("{before}its key is no PEM of PKCS#1, SEC1 or PKCS#8");
        assert_eq!(refusal(certificate, "(removed)"), no_key);
    }
}
