//! An answer is the status and the beginning of the body that a GET request came back with.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::certificate::connect;
use super::{KubeError, within};

/// How much of a body is kept, in bytes; the rest is not read. A health page is some hundred bytes long.
const BODY_LIMIT: usize = 64 * 1024;

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
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("certroll/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::new())?;
    within(timeout, async move {
        match scheme {
            Scheme::Http => exchange(stream, request).await,
            Scheme::Https { server_name } => exchange(connect(stream, &server_name).await?, request).await,
        }
    })
    .await
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Answer, KubeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = pin!(async move {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        Ok(Answer { status, body: beginning(response.into_body()).await? })
    });
    // The answer is what counts: an orderly end of the connection behind it may take as long as the other end likes.
    match select(answer, pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, answer)) => answer.await,
    }
}

async fn beginning(mut body: Incoming) -> Result<String, KubeError> {
    let mut kept = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            let room = BODY_LIMIT - kept.len();
            kept.extend(data.iter().take(room));
        }
        if kept.len() == BODY_LIMIT {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&kept).into_owned())
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
            let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(BODY_LIMIT + 10));
            serve(far, endless).await;
        });
        let answer = get(near, Scheme::Http, "localhost", "/", LIMIT).await.unwrap();
        assert_eq!(answer.body.len(), BODY_LIMIT);
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
