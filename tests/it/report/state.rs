use certroll::facts::{Thresholds, assess_saved_state};
use certroll::pki::SavedState;
use certroll::report::check::CheckStatus;
use certroll::report::check::state::{StateCheck, document, state_status, text};
use certroll::report::style::Style;
use jiff::SignedDuration;

use super::cluster::time;

const GOLDEN: &str = include_str!("../../cases/golden/rke-v0.2.8/cluster.rkestate");

/// Shows the golden state at a time, and what it amounts to.
fn at(now: &str, state: &str) -> (String, String, CheckStatus) {
    let state = SavedState::parse(state.as_bytes()).unwrap();
    let thresholds = Thresholds { now: time(now), expiring_within: SignedDuration::from_hours(30 * 24) };
    let mut findings = assess_saved_state(&state, &thresholds);
    findings.sort_by_key(|finding| finding.severity);
    let check = StateCheck {
        file: "cluster.rkestate",
        cluster: "judge",
        kubernetes_version: Some("v1.15.3-rancher1-1"),
        state: &state,
        findings: &findings,
        thresholds,
    };
    let document = certroll::report::json(&document(&check));
    (text(&check, Style::PLAIN), document, state_status(&check))
}

#[test]
fn a_state_that_is_well() {
    let (shown, document, status) = at("2027-01-01T00:00:00Z", GOLDEN);
    assert_eq!(status, CheckStatus::Fine);
    insta::assert_snapshot!(shown);
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    insta::assert_json_snapshot!(document["state"]["certificates"][1]);
}

#[test]
fn a_state_whose_certificates_end() {
    assert_eq!(at("2036-11-01T00:00:00Z", GOLDEN).2, CheckStatus::Worrying, "expiring");
    let (shown, _, status) = at("2036-11-30T00:00:00Z", GOLDEN);
    assert_eq!(status, CheckStatus::Worrying);
    insta::assert_snapshot!(shown);
}

#[test]
fn a_state_that_was_torn_apart() {
    let mut value: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
    for state in ["desiredState", "currentState"] {
        let bundle = value[state]["certificatesBundle"].as_object_mut().unwrap();
        bundle.remove("kube-ca");
        bundle["kube-node"]["keyPEM"] = "".into();
        bundle["kube-proxy"]["certificatePEM"] = "-----BEGIN CERTIFICATE-----\nAAAA\n".into();
    }
    let scheduler = value["currentState"]["certificatesBundle"]["kube-node"]["certificatePEM"].clone();
    value["currentState"]["certificatesBundle"]["kube-scheduler"]["certificatePEM"] = scheduler;
    let (shown, _, status) = at("2027-01-01T00:00:00Z", &value.to_string());
    assert_eq!(status, CheckStatus::Worrying);
    insta::assert_snapshot!(shown);
}
