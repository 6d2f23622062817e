//! CAs for tests: RKE's own kind, and others that a cluster may have been given.

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// A CA's certificate and key, in PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Returns what RKE's CA says, apart from its key.
pub(super) fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    params.not_before = rcgen::date_time_ymd(2018, 3, 1);
    params.not_after = rcgen::date_time_ymd(2040, 3, 1);
    params
}

/// Makes a CA with a key of an algorithm.
pub(super) fn authority(algorithm: &'static rcgen::SignatureAlgorithm) -> Pair {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let certificate = params("kube-ca").self_signed(&key).unwrap().pem();
    Pair { certificate, key: key.serialize_pem() }
}
