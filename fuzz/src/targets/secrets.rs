//! Certificates, keys, known hosts, and the files in which rke keeps them.

use certroll::inventory::Draft;
use certroll::pki::{Certificate, FullState, KubeConfig, PublicPrefix, SavedState, Signer};
use certroll::transport::{Endpoint, places_of};

use super::{files, signature};

/// A certificate that is put in the place of another.
fn replacement() -> String {
    String::from_utf8(files("fuzz/seeds", &["ec-leaf.pem"]).remove(0)).unwrap()
}

pub(super) fn certificate(input: &[u8]) -> u64 {
    let lines = input.split(|byte| *byte == b'\n').count();
    assert!(Certificate::count_in_pem(input) <= lines);
    let _ = PublicPrefix::from_probe(&String::from_utf8_lossy(input));
    let read = Certificate::from_pem(input).or_else(|_| Certificate::from_der(input));
    let certificate = match read {
        Err(error) => return signature(&error.to_string()),
        Ok(certificate) => certificate,
    };
    let again = Certificate::from_der(&certificate.der).expect("what was read can be read again");
    assert_eq!(again, certificate);
    certificate.is_signed_by(&certificate);
    certificate.common_name();
    let words =
        format!("{} {} {}", certificate.is_ca, certificate.sans.len(), certificate.subject.len() / 16);
    signature(&words.replace(|digit: char| digit.is_ascii_digit(), "x")) ^ certificate.sans.len() as u64
}

pub(super) fn key(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    let prefix = PublicPrefix::from_probe(&text);
    let mut words = match &prefix {
        PublicPrefix::Unknown { kind } => format!("{kind:?}"),
        PublicPrefix::Rsa { modulus } => format!("rsa {}", modulus.len() > 256),
        PublicPrefix::PublicKey { .. } => "whole".to_owned(),
    };
    let authority = files("fuzz/seeds", &["rsa-ca.pem"]).remove(0);
    match Signer::new(&authority, &text) {
        Ok(_) => words += " signs",
        Err(error) => words += &error.to_string(),
    }
    assert!(!words.contains("MII"), "an error quotes no key: {words}");
    signature(&words)
}

pub(super) fn known_hosts(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    let mut found = 0;
    for at in [Endpoint::new("node-1", 22), Endpoint::new("10.0.0.1", 2222), Endpoint::new("2001:db8::1", 22)]
    {
        let places = places_of(&text, &at);
        assert!(places.iter().all(|place| place.line >= 1 && place.line <= text.lines().count()));
        found = found * 8 + places.len().min(7);
    }
    found as u64
}

pub(super) fn full_state(input: &[u8]) -> u64 {
    if let Ok(saved) = SavedState::parse(input)
        && let Some(Ok(draft)) = saved.configuration().map(Draft::from_json)
    {
        draft.to_yaml(&[]).expect("what was read can be written");
    }
    let mut state = match FullState::parse(input) {
        Err(error) => return signature(&error.to_string()),
        Ok(state) => state,
    };
    let before = state.certificates();
    state.authority();
    let pem = replacement();
    let mut changed = 0;
    for name in before.iter().map(|entry| entry.name.clone()).take(8).collect::<Vec<_>>() {
        changed += u64::from(state.replace(&name, &pem, Some("KEY\n\"<&>\"\n")));
        assert!(!state.replace(&name, &pem, Some("KEY\n\"<&>\"\n")), "the second time nothing changes");
    }
    for text in [state.to_indented(), state.to_compact()] {
        let again = FullState::parse(text.as_bytes()).expect("what is written can be read again");
        assert_eq!(again.certificates().len(), before.len());
    }
    signature(&format!("{:?}", before.iter().map(|entry| entry.certificate.is_ok()).collect::<Vec<_>>()))
        ^ changed
}

pub(super) fn kube_config(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    let mut config = match KubeConfig::parse(&text) {
        Err(error) => return signature(&error.to_string()),
        Ok(config) => config,
    };
    let words = format!("{:?} {:?}", config.certificate().is_some(), config.authority().is_some());
    let server = config.server().map(str::to_owned);
    let written = Certificate::from_pem(replacement().as_bytes()).unwrap();
    if let Err(error) = config.replace(&replacement(), Some("KEY\n")) {
        return signature(&(words + &error.to_string()));
    }
    let again = KubeConfig::parse(config.as_str()).expect("what is written can be read again");
    let found = again.certificate().expect("a certificate is there").expect("and can be read");
    assert_eq!(found.sha256, written.sha256, "it is the one that was written");
    assert_eq!(again.server(), server.as_deref(), "nothing else moves");
    let is_changed = config.replace(&replacement(), Some("KEY\n")).expect("it was replaced before");
    assert!(!is_changed, "the second time nothing changes");
    signature(&words)
}
