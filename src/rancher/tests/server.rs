//! A server on the loopback interface that answers as a test says and remembers what it was asked.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, LOCATION, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::PrivateKeyDer;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) authorization: Option<String>,
    pub(super) body: String,
}

/// One answer.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    status: u16,
    location: Option<String>,
    retry_after: Option<String>,
    body: String,
}

impl Reply {
    pub(super) fn new(status: u16, body: &str) -> Self {
        Self { status, location: None, retry_after: None, body: body.to_owned() }
    }

    pub(super) fn json(body: &Value) -> Self {
        Self::new(200, &body.to_string())
    }

    pub(super) fn retry_after(self, value: &str) -> Self {
        Self { retry_after: Some(value.to_owned()), ..self }
    }

    pub(super) fn redirect(status: u16, location: &str) -> Self {
        Self { location: Some(location.to_owned()), ..Self::new(status, "") }
    }
}

type Log = Arc<Mutex<Vec<Seen>>>;

pub(super) struct Server {
    pub(super) url: String,
    log: Log,
}

impl Server {
    pub(super) async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, Arc::new(answer)).await
    }

    pub(super) async fn start_tls(
        authority: &Authority,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        Self::listen(Some(authority.acceptor(&leaf)), Arc::new(answer)).await
    }

    /// Starts a server whose own certificate has expired.
    pub(super) async fn start_expired(
        authority: &Authority,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        leaf.not_before = rcgen::date_time_ymd(2018, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2019, 1, 1);
        Self::listen(Some(authority.acceptor(&leaf)), Arc::new(answer)).await
    }

    /// Returns the requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    async fn listen<A>(acceptor: Option<TlsAcceptor>, answer: Arc<A>) -> Self
    where
        A: Fn(&Seen) -> Reply + Send + Sync + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let log = Log::default();
        let shared = Arc::clone(&log);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, answer, log) = (acceptor.clone(), Arc::clone(&answer), Arc::clone(&shared));
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, answer, log).await,
                        // A client that does not trust this server ends the handshake.
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, answer, log).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url, log }
    }
}

async fn serve<S, A>(stream: S, answer: Arc<A>, log: Log)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(&Seen) -> Reply + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
        async move {
            let seen = record(request).await;
            let reply = answer(&seen);
            log.lock().unwrap().push(seen);
            let mut response = Response::builder().status(reply.status).header(CONNECTION, "close");
            if let Some(location) = reply.location {
                response = response.header(LOCATION, location);
            }
            if let Some(value) = reply.retry_after {
                response = response.header(RETRY_AFTER, value);
            }
            Ok::<_, Infallible>(response.body(Full::new(Bytes::from(reply.body))).unwrap())
        }
    });
    // The client may hang up first.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn record(request: Request<Incoming>) -> Seen {
    let (head, body) = request.into_parts();
    let authorization = head.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    Seen {
        method: head.method.to_string(),
        target: head.uri.path_and_query().unwrap().to_string(),
        authorization,
        body: String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap(),
    }
}

/// A certificate authority of a server.
pub(super) struct Authority {
    pub(super) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem().replace("\r\n", "\n");
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Returns the checksum as Rancher's agents are given it.
    pub(super) fn checksum(&self) -> String {
        use std::fmt::Write as _;
        Sha256::digest(format!("{}\n", self.pem.trim_end())).iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    fn acceptor(&self, leaf: &CertificateParams) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}
