//! A site is a TLS server behind a pipe, with a CA that signed it and its clients.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, DuplexStream};
use tokio_rustls::TlsAcceptor;

use crate::kube::{Dial, Identity, KubeError};
use crate::pki::Certificate;

/// A CA such as kube-ca.
pub(super) struct Authority {
    pub(super) certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// Until when a certificate is valid.
#[derive(Clone, Copy)]
pub(super) enum Validity {
    Good,
    Expired,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kube-ca");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Makes a certificate for some names and a key.
    fn issue(&self, names: &[&str], validity: Validity, key: &KeyPair) -> rcgen::Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if matches!(validity, Validity::Expired) {
            params.not_before = rcgen::date_time_ymd(2017, 1, 1);
            params.not_after = rcgen::date_time_ymd(2018, 1, 1);
        }
        params.signed_by(key, &self.issuer).unwrap()
    }

    /// Makes an identity that the CA has signed.
    pub(super) fn identity(&self, validity: Validity) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = self.issue(&[], validity, &key);
        Identity::new(&certificate.pem(), &key.serialize_pem(), &self.certificate).unwrap()
    }

    /// Makes an identity of a key that is there (PEM).
    pub(super) fn identity_of(&self, key_pem: &str) -> Identity {
        let certificate = self.issue(&[], Validity::Good, &KeyPair::from_pem(key_pem).unwrap());
        Identity::new(&certificate.pem(), key_pem, &self.certificate).unwrap()
    }
}

/// Whether a server speaks to clients without a good certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Clients {
    /// As etcd with `--client-cert-auth`: the handshake fails.
    Verified,
    /// As kube-apiserver and kubelet: the answer depends on who asks.
    Any,
}

/// A request as the server saw it.
pub(super) struct Seen {
    /// Method, path and query.
    pub(super) line: String,
    pub(super) host: String,
    pub(super) body: String,
}

type Answers = Arc<dyn Fn(&Seen) -> (u16, String) + Send + Sync>;

/// A server; each connection to it is a new pipe.
pub(super) struct Site {
    config: Arc<ServerConfig>,
    answers: Answers,
    dialled: Mutex<Vec<String>>,
}

impl Site {
    /// Makes a server with the names of an RKE certificate, which answers by a function.
    pub(super) fn new(
        authority: &Authority,
        clients: Clients,
        answers: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        Self::of_versions(authority, clients, rustls::ALL_VERSIONS, answers)
    }

    pub(super) fn of_versions(
        authority: &Authority,
        clients: Clients,
        versions: &[&'static SupportedProtocolVersion],
        answers: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = authority.issue(&["127.0.0.1", "10.0.0.11", "kubernetes"], Validity::Good, &key);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.certificate.der.clone())).unwrap();
        let verifier = match clients {
            Clients::Verified => {
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .unwrap()
            }
            Clients::Any => Arc::new(NoClientAuth),
        };
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Always(Arc::new(CertifiedKey::new(
                vec![certificate.der().clone()],
                aws_lc_rs::sign::any_supported_type(&key).unwrap(),
            )))));
        Self { config: Arc::new(config), answers: Arc::new(answers), dialled: Mutex::default() }
    }

    /// Returns where connections were made to.
    pub(super) fn dialled(&self) -> Vec<String> {
        self.dialled.lock().unwrap().clone()
    }
}

impl Dial for Site {
    type Stream = DuplexStream;

    async fn dial(&self, host: &str, port: u16) -> Result<DuplexStream, KubeError> {
        self.dialled.lock().unwrap().push(format!("{host}:{port}"));
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve(far, Arc::clone(&self.config), Arc::clone(&self.answers)));
        Ok(near)
    }
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

async fn serve(stream: DuplexStream, config: Arc<ServerConfig>, answers: Answers) {
    let stream = match TlsAcceptor::from(config).accept(stream).into_fallible().await {
        Ok(stream) => stream,
        Err((_, mut stream)) => {
            // The alert is on its way; the stream ends when the client has read it and gone.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
    };
    let service = service_fn(|request: Request<Incoming>| {
        let answers = Arc::clone(&answers);
        async move {
            let line = format!("{} {}", request.method(), request.uri());
            let host = request.headers()["host"].to_str().unwrap().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let (status, body) =
                answers(&Seen { line, host, body: String::from_utf8(body.to_vec()).unwrap() });
            let answer = Response::builder().status(status).body(Full::new(Bytes::from(body)));
            Ok::<_, Infallible>(answer.unwrap())
        }
    });
    // A client that has its answer and goes is no failure.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
