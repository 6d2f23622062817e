//! A served certificate is what a port shows in a TLS handshake, whether or not the handshake then succeeds.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{KubeError, within};

/// The leaf certificate that a port serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedCertificate {
    /// The certificate, DER.
    pub der: Vec<u8>,
}

/// Returns the certificate that the other end of a stream serves, also when it then refuses a client without a certificate.
///
/// etcd with `--client-cert-auth` shows its certificate first and answers "bad certificate" afterwards; that is an `Ok` here,
/// and so is an expired certificate.
pub async fn served_certificate<S>(
    stream: S,
    server_name: &str,
    timeout: Duration,
) -> Result<ServedCertificate, KubeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let witness = Arc::new(Witness::default());
    let outcome = within(timeout, handshake(stream, server_name, Arc::clone(&witness))).await;
    match (witness.seen(), outcome) {
        (Some(served), _) => Ok(served),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => Err(KubeError::Tls(rustls::Error::NoCertificatesPresented)),
    }
}

/// Makes a TLS connection to a server that may serve any certificate.
pub(super) async fn connect<S>(stream: S, server_name: &str) -> Result<TlsStream<S>, KubeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    handshake(stream, server_name, Arc::default()).await
}

pub(super) async fn handshake<S>(
    stream: S,
    server_name: &str,
    witness: Arc<Witness>,
) -> Result<TlsStream<S>, KubeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = client_config(witness)?.with_no_client_auth();
    connect_with(stream, server_name, config).await
}

/// Begins the settings of a client that verifies servers in some way.
pub(super) fn client_config(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, KubeError> {
    Ok(ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier))
}

/// Makes a TLS connection to the server of a name.
pub(super) async fn connect_with<S>(
    stream: S,
    server_name: &str,
    mut config: ClientConfig,
) -> Result<TlsStream<S>, KubeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let name = ServerName::try_from(server_name.to_owned())
        .map_err(|source| KubeError::ServerName { name: server_name.to_owned(), source })?;
    // Servers built with Go before 1.20 do not know extended master secrets.
    config.require_ems = false;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(KubeError::Handshake)
}

/// Remembers the certificate of a server and accepts it, whatever it is.
///
/// Signatures are not checked either: certificates of old Go versions fail in parsers that are strict, and to see what is
/// served is the whole purpose. Whether it is the right certificate is decided by comparing it with the one on disk.
#[derive(Debug, Default)]
pub(super) struct Witness {
    seen: OnceLock<Vec<u8>>,
}

impl Witness {
    /// Returns the certificate that was seen.
    pub(super) fn seen(&self) -> Option<ServedCertificate> {
        self.seen.get().map(|der| ServedCertificate { der: der.clone() })
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.seen.get_or_init(|| end_entity.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, Issuer, KeyPair};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
    use rustls_pki_types::PrivateKeyDer;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    struct Identity {
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: RootCertStore,
    }

    fn expired_identity() -> Identity {
        let authority_key = KeyPair::generate().unwrap();
        let authority = CertificateParams::new(Vec::new()).unwrap().self_signed(&authority_key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let mut params = CertificateParams::new(vec!["kube-etcd".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2017, 1, 1);
        params.not_after = rcgen::date_time_ymd(2018, 1, 1);
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::new(CertificateParams::new(Vec::new()).unwrap(), authority_key);
        let leaf = params.signed_by(&key, &issuer).unwrap();
        Identity {
            chain: vec![leaf.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            roots,
        }
    }

    /// Starts one server behind a pipe: the client's end, the certificate that it serves, whether it refused the client.
    fn server_that_wants_a_client_certificate(
        version: &'static SupportedProtocolVersion,
    ) -> (tokio::io::DuplexStream, Vec<u8>, tokio::task::JoinHandle<bool>) {
        let identity = expired_identity();
        let served = identity.chain[0].to_vec();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(identity.roots), Arc::clone(&provider))
                .build()
                .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(identity.chain, identity.key)
            .unwrap();
        let (near, far) = tokio::io::duplex(16 * 1024);
        let refused =
            tokio::spawn(async move { TlsAcceptor::from(Arc::new(config)).accept(far).await.is_err() });
        (near, served, refused)
    }

    #[tokio::test]
    async fn an_expired_certificate_is_seen_although_the_server_refuses_the_client() {
        for version in rustls::ALL_VERSIONS {
            let (stream, served, refused) = server_that_wants_a_client_certificate(version);
            let seen = served_certificate(stream, "10.0.0.11", LIMIT).await.unwrap();
            assert_eq!(seen.der, served, "{:?}", version.version);
            assert!(refused.await.unwrap(), "the server let a client without a certificate in");
        }
    }

    #[tokio::test]
    async fn a_port_without_tls_is_a_failed_handshake() {
        let (near, mut far) = tokio::io::duplex(16 * 1024);
        tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut far, b"HTTP/1.0 400 Bad Request\r\n\r\n").await.unwrap();
        });
        let error = served_certificate(near, "localhost", LIMIT).await.unwrap_err();
        assert!(matches!(error, KubeError::Handshake(_)), "{error}");
    }

    #[tokio::test]
    async fn a_silent_port_is_given_up() {
        let (near, _far) = tokio::io::duplex(16 * 1024);
        let error = served_certificate(near, "localhost", Duration::from_millis(30)).await.unwrap_err();
        assert!(matches!(error, KubeError::Timeout(_)), "{error}");
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_asked_for_is_refused() {
        let (near, _far) = tokio::io::duplex(64);
        let error = served_certificate(near, "not a name", LIMIT).await.unwrap_err();
        assert_eq!(error.to_string(), "`not a name` is neither a host name nor an address");
    }
}
