//! TLS as etcd and the components of Kubernetes speak it: what they serve, and which clients they take.
//!
//! Go's servers differ from rustls's in what they make of a client's certificate, and a client must get to see the difference.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use super::clock::Clock;

/// Which clients a TLS server takes (Go's `tls.ClientAuthType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clients {
    Anyone,
    /// A certificate is asked for, and judged by who answers the request (`RequestClientCert`): Kubernetes.
    Asked,
    /// A good certificate is a condition of the handshake (`RequireAndVerifyClientCert`): etcd.
    Required,
}

/// A TLS server to be.
pub(super) struct Server<'a> {
    pub(super) certificate: &'a [u8],
    pub(super) key: &'a [u8],
    pub(super) clients: Clients,
    /// The authority that signs the clients' certificates.
    pub(super) authority: Option<&'a [u8]>,
}

/// Tells rustls the fleet's time.
#[derive(Debug)]
struct FleetTime(Clock);

impl TimeProvider for FleetTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}

/// Judges client certificates as a server of Go does.
#[derive(Debug)]
struct Gatekeeper {
    verifier: Arc<dyn ClientCertVerifier>,
    clients: Clients,
}

impl ClientCertVerifier for Gatekeeper {
    fn client_auth_mandatory(&self) -> bool {
        self.clients == Clients::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.clients == Clients::Asked {
            return Ok(ClientCertVerified::assertion());
        }
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now);
        // Go answers "bad certificate" whatever is wrong with it; this error is the one for which rustls does, too.
        verified.map_err(|_| Error::InvalidCertificate(CertificateError::NotValidForName))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl Server<'_> {
    /// Returns the configuration; `None` where such a server would not start.
    pub(super) fn configuration(&self, clock: Clock) -> Option<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(self.certificate).collect::<Result<_, _>>().ok()?;
        let key = PrivateKeyDer::from_pem_slice(self.key).ok()?;
        let builder = ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(FleetTime(clock)));
        let builder = if self.clients == Clients::Required {
            // etcd 3.2 and 3.3 are built with Go 1.8 to 1.12, where TLS ends at 1.2: a client learns within the handshake
            // that it is refused.
            builder.with_protocol_versions(&[&rustls::version::TLS12]).ok()?
        } else {
            builder.with_safe_default_protocol_versions().ok()?
        };
        let builder = if self.clients == Clients::Anyone {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.authority?).ok()?).ok()?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = verifier.build().ok()?;
            builder.with_client_cert_verifier(Arc::new(Gatekeeper { verifier, clients: self.clients }))
        };
        builder.with_single_cert(chain, key).ok()
    }
}
