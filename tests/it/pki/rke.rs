//! Every leaf of the golden clusters, which rke v0.1.17 and v0.2.8 made, is what `leaf` says and what `Signer` makes.

use certroll::facts::{Content, File};
use certroll::inventory::Inventory;
use certroll::pki::{
    Authority, Certificate, KeyAlgorithm, Location, Signer, SubjectKey, Usage, leaf, new_key, san_drift,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::authority;
use crate::golden::Golden;

/// The names that no rotation makes anew.
const KEPT: [&str; 3] = ["kube-ca", "kube-apiserver-requestheader-ca", "kube-service-account-token"];

/// Everything of a certificate that does not differ from one to the next: extensions with their order left aside.
fn form(der: &[u8]) -> (String, String, String, String, Vec<String>) {
    let (_, parsed) = X509Certificate::from_der(der).unwrap();
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    let mut extensions: Vec<String> = parsed
        .extensions()
        .iter()
        .map(|extension| format!("{} {}", extension.oid, extension.critical))
        .collect();
    extensions.sort();
    (
        format!("{} {}", parsed.version, parsed.subject()),
        format!("{:?}", parsed.signature_algorithm.algorithm),
        format!("{:?}", parsed.key_usage().unwrap().map(|usage| (usage.critical, usage.value.flags))),
        format!("client {} server {} any {}", usage.client_auth, usage.server_auth, usage.any),
        extensions,
    )
}

fn certificates(golden: &Golden) -> Vec<(File, Certificate)> {
    let facts = golden.facts();
    let files = facts.seen().flat_map(|(_, observation)| observation.files.clone());
    files
        .filter(|file| file.location != Location::KubeletPki)
        .filter_map(|file| match file.content.clone() {
            Content::Certificate(certificate) => Some((file, certificate.unwrap())),
            _ => None,
        })
        .collect()
}

fn agrees(file: &File, present: &Certificate, inventory: &Inventory, signer: &Signer, key: &str) {
    let name = file.certificate_name().unwrap();
    let path = &file.path;
    let Some(leaf) = leaf(name, inventory) else {
        assert!(KEPT.contains(&name), "{path} has no leaf");
        return;
    };
    assert!(!KEPT.contains(&name), "{path} has a leaf");
    assert_eq!(leaf.name, name);
    assert_eq!(leaf.sans, present.sans, "{path}: the same names in the same order");
    assert_eq!(san_drift(&leaf, present), None, "{path}");
    assert_eq!(leaf.clone().with_present_sans(present), leaf, "{path}");
    assert_eq!(KeyAlgorithm::of(present), Some(KeyAlgorithm::Rsa2048), "{path}");
    assert_eq!(present.issuer, format!("CN={}", leaf.authority.name()), "{path}");
    let made = signer.issue(&leaf, SubjectKey::Pem(key), 1 << 62, present.not_after).unwrap();
    assert_eq!(form(&made.der), form(&present.der), "{path}");
    let (_, parsed) = X509Certificate::from_der(&present.der).unwrap();
    let serves = parsed.extended_key_usage().unwrap().unwrap().value.server_auth;
    assert_eq!(leaf.usage == Usage::ClientAndServer, serves, "{path}");
}

#[test]
fn every_leaf_is_as_the_real_rke_made_it() {
    let pair = authority(&rcgen::PKCS_RSA_SHA256);
    let signer = Signer::new(pair.certificate.as_bytes(), &pair.key).unwrap();
    let key = new_key(KeyAlgorithm::Rsa2048).unwrap();
    for (version, count) in [("rke-v0.1.17", 75), ("rke-v0.2.8", 42)] {
        let golden = Golden::read(version);
        let certificates = certificates(&golden);
        assert_eq!(certificates.len(), count, "{version}");
        for (file, present) in &certificates {
            agrees(file, present, &golden.inventory, &signer, &key);
        }
        let proxy_client = leaf("kube-apiserver-proxy-client", &golden.inventory).unwrap();
        assert_eq!(proxy_client.authority, Authority::RequestheaderCa);
    }
}

/// A name that somebody added by hand stays when the certificate is renewed; one in other letters is none.
#[test]
fn names_beyond_those_of_the_inventory_are_kept() {
    let mut golden = Golden::read("rke-v0.2.8");
    let inventory = golden.inventory.clone();
    let pair = authority(&rcgen::PKCS_ECDSA_P256_SHA256);
    let signer = Signer::new(pair.certificate.as_bytes(), &pair.key).unwrap();
    let key = new_key(KeyAlgorithm::EcdsaP256).unwrap();
    let mut edited = leaf("kube-apiserver", &inventory).unwrap();
    edited.sans.extend(["API.example.com".to_owned(), "192.0.2.7".to_owned(), "fd00::7".to_owned()]);
    let end = pair_end(&signer);
    let present = signer.issue(&edited, SubjectKey::Pem(&key), 1, end).unwrap();
    let expected = ["new.example.com", "API.example.com", "192.0.2.7", "fd00::7"];

    golden.inventory.authentication_sans =
        vec!["api.example.com".to_owned(), "new.example.com".to_owned(), "FD00:0::7".to_owned()];
    let wanted = leaf("kube-apiserver", &golden.inventory).unwrap();
    let drift = san_drift(&wanted, &present).unwrap();
    assert_eq!(drift.lacking, ["new.example.com"]);
    assert_eq!(drift.beyond, ["192.0.2.7"]);
    let renewed = wanted.clone().with_present_sans(&present);
    assert_eq!(renewed.sans.len(), wanted.sans.len() + 1);
    let made = signer.issue(&renewed, SubjectKey::OfCertificate(&present), 2, end).unwrap();
    assert_eq!(KeyAlgorithm::of(&made), Some(KeyAlgorithm::EcdsaP256));
    for name in expected {
        assert!(made.sans.iter().any(|own| own.eq_ignore_ascii_case(name)), "{name} in {:?}", made.sans);
    }
}

fn pair_end(signer: &Signer) -> jiff::Timestamp {
    signer.certificate().not_after
}
