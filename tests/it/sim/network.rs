//! Requests to the ports of simulated nodes, with and without a client certificate, and certificates that a test makes itself.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, RsaKeySize,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use super::{Lab, SSL, Seen, name};

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// What a certificate of a test says.
pub(super) struct Leaf {
    pub(super) common_name: &'static str,
    pub(super) organization: Option<&'static str>,
    /// From when to when it is valid, in days from now.
    pub(super) days: (i64, i64),
}

impl Leaf {
    pub(super) const ADMIN: Self =
        Self { common_name: "kube-admin", organization: Some("system:masters"), days: (-1, 30) };
    pub(super) const NODE: Self =
        Self { common_name: "system:node", organization: Some("system:nodes"), days: (-1, 30) };
    pub(super) const ETCD: Self = Self { common_name: "kube-etcd", organization: None, days: (-1, 30) };
    pub(super) const API: Self = Self { common_name: "kube-apiserver", organization: None, days: (-1, 30) };

    /// Makes it with a new RSA key, signed by an authority.
    pub(super) fn sign(&self, authority: &Pair) -> Pair {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(organization) = self.organization {
            parameters.distinguished_name.push(DnType::OrganizationName, organization);
        }
        parameters.distinguished_name.push(DnType::CommonName, self.common_name);
        let day = |days: i64| {
            let at = Timestamp::now().saturating_add(SignedDuration::from_hours(24 * days)).unwrap();
            let seconds = u64::try_from(at.as_second()).unwrap();
            rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds)
        };
        (parameters.not_before, parameters.not_after) = (day(self.days.0), day(self.days.1));
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let issuer_key = KeyPair::from_pem(&authority.key).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&authority.certificate, issuer_key).unwrap();
        let certificate = parameters.signed_by(&key, &issuer).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A request.
pub(super) struct Ask<'a> {
    pub(super) node: &'a str,
    pub(super) port: u16,
    pub(super) client: Option<&'a Pair>,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) body: String,
}

impl<'a> Ask<'a> {
    pub(super) fn get(node: &'a str, port: u16, client: Option<&'a Pair>, path: &'a str) -> Self {
        Self { node, port, client, method: "GET", path, body: String::new() }
    }
}

impl Lab {
    /// Returns a pair of a node's `ssl`.
    pub(super) fn pair(&self, node: &str, file: &str) -> Pair {
        let read = |path: String| {
            String::from_utf8(self.fleet.node(&name(node)).unwrap().file(&path).unwrap()).unwrap()
        };
        Pair { certificate: read(format!("{SSL}/{file}.pem")), key: read(format!("{SSL}/{file}-key.pem")) }
    }

    /// Writes a pair into a node's `ssl`, each file in one instant.
    pub(super) async fn install(&self, node: &str, file: &str, pair: &Pair) {
        for (path, content) in
            [(format!("{SSL}/{file}.pem"), &pair.certificate), (format!("{SSL}/{file}-key.pem"), &pair.key)]
        {
            let script = format!("set -e; umask 077; cat > {path}.new; mv -f {path}.new {path}");
            let (status, _, stderr) = self.root(node, &script, content).await;
            assert_eq!((status, stderr.as_str()), (0, ""), "{path}");
        }
    }

    pub(super) async fn restart(&self, node: &str, container: &str) {
        let (status, _, stderr) = self.root(node, &format!("docker restart -t 5 {container}"), "").await;
        assert_eq!((status, stderr.as_str()), (0, ""), "{node} {container}");
    }

    /// Asks a port over TLS; the error says at which step it came to nothing.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<(u16, String), String> {
        let session = self.login(ask.node).await.unwrap();
        let channel = session
            .channel_open_direct_tcpip("127.0.0.1", ask.port.into(), "127.0.0.1", 0)
            .await
            .map_err(|_| "connection refused".to_owned())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let seen =
            Arc::new(Seen { certificate: std::sync::Mutex::default(), provider: Arc::clone(&provider) });
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(seen);
        let config = match ask.client {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector
            .connect("localhost".try_into().unwrap(), channel.into_stream())
            .await
            .map_err(|error| format!("handshake: {error}"))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::builder()
            .method(ask.method)
            .uri(ask.path)
            .header("host", "localhost")
            .body(Full::new(Bytes::from(ask.body)))
            .unwrap();
        let response = sender.send_request(request).await.map_err(|error| format!("request: {error}"))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Ok((status, String::from_utf8(body.to_vec()).unwrap()))
    }

    /// Asks the API server of `cp-1`.
    pub(super) async fn api(
        &self,
        client: Option<&Pair>,
        method: &str,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let ask = Ask { node: "cp-1", port: 6443, client, method, path, body };
        let (status, body) = self.ask(ask).await.unwrap();
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }
}
