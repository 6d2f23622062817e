//! An answer is the status and the beginning of the body that a GET request came back with.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::http::request::Builder;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use super::certificate::{ServedCertificate, Witness, connect, handshake};
use super::{KubeError, within};

/// How much of a body is kept, in bytes; the rest is not read. A health page is some hundred bytes long.
pub(super) const PAGE_LIMIT: usize = 64 * 1024;

/// How a request travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheme {
    /// In clear text.
    Http,
    /// Over TLS, to a server whose certificate is not checked.
    Https {
        /// The name or address that the handshake asks for.
        server_name: String,
    },
}

/// What a GET request came back with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, at most 64 KiB of it.
    pub body: String,
}

/// Sends one GET request over a stream and returns the answer.
///
/// The request says of the connection that it closes; the stream is not used again.
pub async fn get<S>(
    stream: S,
    scheme: Scheme,
    host: &str,
    path: &str,
    timeout: Duration,
) -> Result<Answer, KubeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = headed(Request::get(path), host).body(Empty::<Bytes>::new())?;
    let reply = within(timeout, async move {
        match scheme {
            Scheme::Http => exchange(stream, request, Excess::Cut(PAGE_LIMIT)).await,
            Scheme::Https { server_name } => {
                exchange(connect(stream, &server_name).await?, request, Excess::Cut(PAGE_LIMIT)).await
            }
        }
    });
    reply.await.map(Reply::into_answer)
}

/// Sends one GET request over TLS and returns the answer, and the certificate that the server showed, also where no answer came.
pub async fn get_with_certificate<S>(
    stream: S,
    host: &str,
    path: &str,
    timeout: Duration,
) -> (Option<ServedCertificate>, Result<Answer, KubeError>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let witness = Arc::new(Witness::default());
    let reply = within(timeout, async {
        let request = headed(Request::get(path), host).body(Empty::<Bytes>::new())?;
        let stream = handshake(stream, host, Arc::clone(&witness)).await?;
        exchange(stream, request, Excess::Cut(PAGE_LIMIT)).await
    });
    let answer = reply.await.map(Reply::into_answer);
    (witness.seen(), answer)
}

/// Gives a request the headers that every one has.
pub(super) fn headed(request: Builder, host: &str) -> Builder {
    request
        .header(HOST, host)
        .header(USER_AGENT, concat!("certroll/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
}

/// What becomes of a body beyond a size in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Excess {
    /// Its beginning is enough.
    Cut(usize),
    /// Half of it is worth nothing.
    Refuse(usize),
}

/// Status and body of an answer; the body may be secret.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Reply {
    pub(super) fn into_answer(self) -> Answer {
        Answer { status: self.status, body: String::from_utf8_lossy(&self.body).into_owned() }
    }
}

pub(super) async fn exchange<S, B>(stream: S, request: Request<B>, excess: Excess) -> Result<Reply, KubeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = pin!(async move {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        Ok(Reply { status, body: read(response.into_body(), excess).await? })
    });
    // The answer is what counts: an orderly end of the connection behind it may take as long as the other end likes.
    match select(answer, pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, answer)) => answer.await,
    }
}

async fn read(mut body: Incoming, excess: Excess) -> Result<Zeroizing<Vec<u8>>, KubeError> {
    let (Excess::Cut(limit) | Excess::Refuse(limit)) = excess;
    // A buffer that grows leaves copies behind: where the size is known, it is taken at once.
    let expected = body.size_hint().exact().and_then(|size| usize::try_from(size).ok());
    let mut kept = Zeroizing::new(Vec::with_capacity(expected.unwrap_or_default().min(limit)));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = limit - kept.len();
        kept.extend_from_slice(data.get(..room).unwrap_or(&data));
        match excess {
            Excess::Refuse(limit) if data.len() > room => return Err(KubeError::TooLarge { limit }),
            Excess::Cut(_) if data.len() >= room => break,
            _ => {}
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::ServerConfig;
    use rustls::crypto::aws_lc_rs;
    use rustls_pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Reads a request head and answers it with a text, then leaves the stream open.
    async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: String) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        // An end of the stream here or a reset: both mean that the client has gone.
        let _ = stream.read_u8().await;
        String::from_utf8(head).unwrap()
    }

    fn page(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn pipe() -> (DuplexStream, DuplexStream) {
        tokio::io::duplex(256 * 1024)
    }

    #[tokio::test]
    async fn a_page_comes_back_over_http() {
        let (near, far) = pipe();
        let server = tokio::spawn(serve(far, page("200 OK", "ok")));
        let answer = get(near, Scheme::Http, "localhost:10248", "/healthz", LIMIT).await.unwrap();
        assert_eq!(answer, Answer { status: 200, body: "ok".to_owned() });
        let head = server.await.unwrap();
        assert!(head.starts_with("GET /healthz HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: localhost:10248\r\n"), "{head}");
    }

    #[tokio::test]
    async fn a_page_comes_back_over_https_from_a_self_signed_server() {
        let own = rcgen::generate_simple_self_signed(vec!["somebody-else".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let (near, far) = pipe();
        tokio::spawn(async move {
            let stream = TlsAcceptor::from(Arc::new(config)).accept(far).await.unwrap();
            serve(stream, page("401 Unauthorized", "Unauthorized")).await;
        });
        let scheme = Scheme::Https { server_name: "127.0.0.1".to_owned() };
        let answer = get(near, scheme, "127.0.0.1", "/healthz", LIMIT).await.unwrap();
        assert_eq!(answer.status, 401);
    }

    #[tokio::test]
    async fn an_endless_body_is_cut() {
        let (near, far) = pipe();
        tokio::spawn(async move {
            let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(PAGE_LIMIT + 10));
            serve(far, endless).await;
        });
        let answer = get(near, Scheme::Http, "localhost", "/", LIMIT).await.unwrap();
        assert_eq!(answer.body.len(), PAGE_LIMIT);
    }

    #[tokio::test]
    async fn a_port_that_hangs_up_is_an_error() {
        let (near, far) = pipe();
        drop(far);
        let error = get(near, Scheme::Http, "localhost", "/healthz", LIMIT).await.unwrap_err();
        assert!(matches!(error, KubeError::Http(_)), "{error}");
    }

    #[tokio::test]
    async fn a_port_that_says_nothing_is_given_up() {
        let (near, _far) = pipe();
        let error =
            get(near, Scheme::Http, "localhost", "/healthz", Duration::from_millis(30)).await.unwrap_err();
        assert_eq!(error.to_string(), "no answer within 0.03 s");
    }
}
