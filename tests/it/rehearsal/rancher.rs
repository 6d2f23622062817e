//! Rancher as it is: slow, restarting, at its wits' end, older or newer than wanted. What it says is held against the nodes, and every
//! end names the way out.

use certroll::sim::{
    ClusterKind, Layout, OtherCluster, RancherFailure, RancherOptions, ServerCertificate, TokenRights,
};
use serde_json::Value;

use super::direct::{BRISK, TRIO};
use super::{Ended, KUBERNETES, Rehearsal, of_kind, rancher, rehearse};

const APPLY: [&str; 6] = ["apply", "--via", "rancher", "--yes", "-o", "json"];

/// Starts a small cluster that Rancher launched, and that is rotated as fast as it can be.
async fn brisk(layout: Layout, options: RancherOptions) -> Rehearsal {
    Rehearsal::of(TRIO, layout, |fleet| {
        fleet.rancher = Some(options);
        fleet.pace = BRISK;
    })
    .await
}

fn failing(failure: RancherFailure) -> RancherOptions {
    RancherOptions { failure: Some(failure), ..rancher(&[]) }
}

/// Returns how the steps of the stage `rotate` ended.
fn rotations(ended: &Ended) -> Vec<Value> {
    let events = ended.events();
    let finished = of_kind(&events, "step_finished").into_iter();
    finished.filter(|event| event["stage"] == "rotate").map(|event| event["outcome"].clone()).collect()
}

/// Returns what the steps of the stage `rotate` said meanwhile.
fn said(ended: &Ended) -> Vec<String> {
    let events = ended.events();
    let progress = of_kind(&events, "step_progress").into_iter().filter(|event| event["stage"] == "rotate");
    progress.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn contains(lines: &[String], text: &str) {
    assert!(lines.iter().any(|line| line.contains(text)), "no `{text}` in {lines:#?}");
}

#[test]
fn a_rotation_that_fails_without_an_end_is_given_up_with_what_the_nodes_show() {
    rehearse(async {
        let endless = failing(RancherFailure::EndlessRetry);
        let lab = Rehearsal::of(TRIO, Layout::Expired028, |fleet| fleet.rancher = Some(endless)).await;
        let ended = lab.with_token(&[&APPLY[..], &["--wait", "30s"]].concat()).await.expect(1);
        let rotations = rotations(&ended);
        assert_eq!(rotations.len(), 1);
        insta::assert_snapshot!(
            "rancher_endless_retry",
            format!(
                "{}\nhint: {}",
                rotations[0]["error"].as_str().unwrap(),
                rotations[0]["hint"].as_str().unwrap()
            )
        );
        contains(
            &said(&ended),
            "Rancher failed 1x: Failed to rotate certificates: can't find old certificates",
        );
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
        lab.with_token(&["plan", "--via", "rancher"]).await.expect(0).shows("tries again and again");
    });
}

#[test]
fn a_rotation_that_succeeds_after_some_tries_is_waited_for() {
    rehearse(async {
        let lab = brisk(Layout::Expired028, failing(RancherFailure::TriesFail(2))).await;
        let ended = lab.with_token(&APPLY).await.expect(0);
        let rotated = &rotations(&ended)[0];
        assert!(
            rotated["message"].as_str().unwrap().contains("planned certificates have changed (cp-1 "),
            "{rotated}"
        );
        lab.certroll(&["check"]).await.expect(0);
    });
}

#[test]
fn what_passes_is_waited_out_and_said_to_be_a_wait() {
    rehearse(async {
        for (failure, waits) in [
            (RancherFailure::CallsRefused { status: 429, times: 2 }, "(HTTP 429)"),
            (RancherFailure::LooksRefused { status: 503, times: 2 }, "(HTTP 503)"),
            (RancherFailure::UpdateRace, "failed to update cluster object"),
        ] {
            let lab = brisk(Layout::Expired028, failing(failure)).await;
            let ended = lab.with_token(&APPLY).await.expect(0);
            let said = said(&ended);
            contains(&said, "waiting for Rancher since ");
            contains(&said, waits);
        }
    });
}

#[test]
fn a_rancher_that_restarts_in_the_middle_is_waited_for_and_asked_once() {
    rehearse(async {
        let restarting = failing(RancherFailure::Restarts);
        let lab = Rehearsal::of(TRIO, Layout::Expired028, |fleet| fleet.rancher = Some(restarting)).await;
        lab.with_token(&APPLY).await.expect(0);
        let calls = lab.effects().into_iter().filter(|effect| effect.contains("rotateCertificates"));
        assert_eq!(calls.count(), 1);
        lab.certroll(&["check"]).await.expect(0);
    });
}

#[test]
fn a_token_that_ends_in_the_middle_is_told_with_the_way_to_go_on() {
    rehearse(async {
        let lab = brisk(
            Layout::Expired028,
            failing(RancherFailure::LooksRefused { status: 401, times: usize::MAX }),
        )
        .await;
        let ended = lab.with_token(&APPLY).await.expect(1);
        let rotated = &rotations(&ended)[0];
        assert!(
            rotated["error"].as_str().unwrap().starts_with("Rancher does not accept the token: "),
            "{rotated}"
        );
        let hint = rotated["hint"].as_str().unwrap();
        assert!(
            hint.starts_with("the token has expired meanwhile") && hint.contains("apply --resume"),
            "{hint}"
        );
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
    });
}

#[test]
fn a_token_without_the_right_is_told_from_one_that_is_wrong() {
    rehearse(async {
        let reader = RancherOptions { token: TokenRights::ReadOnly, ..rancher(&[]) };
        let lab = brisk(Layout::Expired028, reader).await;
        let ended = lab.with_token(&APPLY).await.expect(1);
        let rotated = &rotations(&ended)[0];
        assert_eq!(rotated["error"], "the user of the token may not do this: can not rotate certificates");
        assert!(rotated["hint"].as_str().unwrap().contains("an owner of the cluster"), "{rotated}");
    });
}

#[test]
fn services_are_asked_for_one_after_the_other_and_each_is_seen_on_the_nodes() {
    rehearse(async {
        let lab = brisk(Layout::Healthy, rancher(&[])).await;
        let services = ["--force", "--service", "etcd", "--service", "kube-scheduler"];
        let ended = lab.with_token(&[&APPLY[..], &services].concat()).await.expect(0);
        let order: Vec<String> = ended
            .events()
            .iter()
            .filter(|event| event["stage"] == "rotate" && event["step"].is_string())
            .filter(|event| event["kind"] != "step_progress")
            .map(|event| format!("{} {}", event["kind"].as_str().unwrap(), event["step"].as_str().unwrap()))
            .collect();
        assert_eq!(
            order,
            [
                "step_started rotate/cluster/1",
                "step_finished rotate/cluster/1",
                "step_started rotate/cluster/2",
                "step_finished rotate/cluster/2"
            ]
        );
        let rotations = rotations(&ended);
        for (rotated, counts) in rotations.iter().zip(["9 of 9", "3 of 3"]) {
            let message = rotated["message"].as_str().unwrap();
            assert!(message.contains(&format!(": {counts} planned certificates have changed")), "{message}");
        }
        let calls = lab.effects().into_iter().filter(|effect| effect.contains("rotateCertificates"));
        assert_eq!(calls.count(), 2);
    });
}

#[test]
fn a_rancher_that_has_done_nothing_is_not_believed() {
    rehearse(async {
        let old = RancherOptions { version: "v2.0.14".to_owned(), ..rancher(&[]) };
        let lab = Rehearsal::with_rancher(Layout::LegacyExpired, old).await;
        let ended = lab.with_token(&[&APPLY[..], &["--wait", "40s"]].concat()).await.expect(1);
        let rotated = &rotations(&ended)[0];
        let error = rotated["error"].as_str().unwrap();
        assert!(error.starts_with("Rancher takes the rotation for done, but 0 of "), "{error}");
    });
}

#[test]
fn what_rancher_cannot_do_is_a_blocker_that_names_the_way_out() {
    rehearse(async {
        let other = |name: &str, kind| OtherCluster { name: name.to_owned(), kind };
        let others = vec![other("edge", ClusterKind::K3s), other("core", ClusterKind::Rke2)];
        let lab = brisk(Layout::Expired028, RancherOptions { others, ..rancher(&[]) }).await;
        let plan = |cluster| ["plan", "--via", "rancher", "--rancher-cluster", cluster];
        lab.with_token(&plan("edge"))
            .await
            .expect(4)
            .shows("it is a K3s cluster")
            .shows("`k3s certificate rotate`");
        lab.with_token(&plan("core"))
            .await
            .expect(4)
            .shows("it is an RKE2 cluster")
            .shows("`rke2 certificate rotate`");

        let old = |version: &str| RancherOptions { version: version.to_owned(), ..rancher(&[]) };
        let lab = brisk(Layout::Expired028, old("v2.1.8")).await;
        lab.with_token(&["plan", "--via", "rancher"])
            .await
            .expect(4)
            .shows("Rancher v2.1.8 cannot rotate certificates, which 2.0.14 and 2.1.9 brought")
            .shows("upgrade Rancher to 2.0.14, 2.1.9 or later first")
            .shows("--accept-rancher-revert");
        let lab = brisk(Layout::Expired028, old("v2.1.9")).await;
        lab.with_token(&["plan", "--via", "rancher", "--service", "etcd"])
            .await
            .expect(4)
            .shows("Rancher v2.1.9 reads no `services` and rotates all of them");
        lab.is_untouched();
    });
}

#[test]
fn a_saved_plan_is_for_one_cluster_of_one_rancher() {
    rehearse(async {
        let others = vec![OtherCluster { name: "edge".to_owned(), kind: ClusterKind::K3s }];
        let lab = brisk(Layout::Expired028, RancherOptions { others, ..rancher(&[]) }).await;
        lab.with_token(&["plan", "--via", "rancher", "--save", "x.plan"]).await.expect(0);
        let apply = ["apply", "--plan", "x.plan", "--yes"];
        lab.with_token(&[&apply[..], &["--rancher-cluster", "edge"]].concat())
            .await
            .expect(4)
            .says("the plan has Rancher rotate cluster `c-sim01` of ")
            .says("--rancher-cluster c-sim01");
        lab.is_untouched();
        lab.with_token(&apply).await.expect(0);
    });
}

#[test]
fn a_rotation_of_the_ca_that_is_asked_for_is_not_taken_for_this_one() {
    rehearse(async {
        let lab = brisk(Layout::Expired028, rancher(&[])).await;
        lab.with_token(&["plan", "--via", "rancher", "--save", "x.plan"]).await.expect(0);
        let authority = std::fs::read(lab.fleet.paths().rancher_ca.as_ref().unwrap()).unwrap();
        let authority = reqwest::Certificate::from_pem_bundle(&authority).unwrap();
        let client = reqwest::Client::builder().tls_certs_only(authority).no_proxy().build().unwrap();
        let action =
            format!("{}/v3/clusters/c-sim01?action=rotateCertificates", lab.fleet.rancher_url().unwrap());
        let call = client.post(action).bearer_auth(lab.fleet.rancher_token().unwrap());
        let body = r#"{"caCertificates":true,"services":""}"#;
        assert!(call.body(body).send().await.unwrap().status().is_success());
        lab.with_token(&["plan", "--via", "rancher"])
            .await
            .expect(4)
            .shows("Rancher has been told to give this cluster a new CA");
        let ended = lab.with_token(&["apply", "--plan", "x.plan", "--yes", "-o", "json"]).await.expect(1);
        assert_eq!(rotations(&ended)[0]["error"], "Rancher has been told to give this cluster a new CA");
        let calls = lab.effects().into_iter().filter(|effect| effect.contains("rotateCertificates"));
        assert_eq!(calls.count(), 1, "that of the CA");
    });
}

#[test]
fn a_rancher_whose_own_certificate_has_expired_says_since_when() {
    rehearse(async {
        let expired = RancherOptions { certificate: ServerCertificate::Expired, ..rancher(&[]) };
        let lab = brisk(Layout::Expired028, expired).await;
        let refused = lab.with_token(&["plan", "--via", "rancher"]).await.expect(4);
        let error = refused.stderr.replace(&lab.fleet.rancher_url().unwrap(), "RANCHER");
        // What lies beneath tells the seconds until this moment.
        let lines: Vec<&str> =
            error.lines().filter(|line| !line.trim_start().starts_with("cause:")).collect();
        insta::assert_snapshot!("rancher_expired", lines.join("\n"));
    });
}
