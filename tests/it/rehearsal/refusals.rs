//! What is refused, with nothing changed: each refusal names its cause and the way out.

use certroll::sim::{Fault, Layout};

use super::{Ended, KUBERNETES, Rehearsal, name, rancher, rehearse};

#[test]
fn questions_without_a_terminal_and_methods_without_a_body_are_refused_before_anything_is_looked_at() {
    rehearse(async {
        let lab = Rehearsal::with_rancher(Layout::LegacyExpired, rancher(&[])).await;
        lab.certroll(&["apply", "repair"]).await.expect(4).says("--yes");
        lab.certroll(&["plan"])
            .await
            .expect(2)
            .says("--via rancher, --via direct, --via rke or --via manual");
        lab.certroll(&["apply", "--yes"])
            .await
            .expect(2)
            .says("--via rancher, --via direct, --via rke or --via manual");
        lab.certroll(&["apply", "--via", "manual", "--plan", "x", "--yes"]).await.expect(2);
        lab.certroll(&["apply", "--via", "rancher", "--yes"]).await.expect(2).says("--rancher-url");
        let url = lab.fleet.rancher_url().unwrap();
        lab.certroll(&["apply", "--via", "rancher", "--yes", "--rancher-url", &url])
            .await
            .expect(2)
            .says("RANCHER_TOKEN");
        let file = lab.path("wrong-token");
        std::fs::write(&file, "token-abcde:wrong\n").unwrap();
        let words = ["plan", "--via", "rancher", "--rancher-token-file", file.to_str().unwrap()];
        let refused = lab.with_token(&words).await.expect(4).says("token");
        assert!(!refused.stderr.contains("token-abcde"), "{}", refused.stderr);
        lab.is_untouched();
    });
}

#[test]
fn a_rancher_that_nobody_vouches_for_is_refused_with_the_checksum_to_compare() {
    rehearse(async {
        let lab = Rehearsal::with_rancher(Layout::LegacyExpired, rancher(&[])).await;
        let mut command = lab.program(&["apply", "--via", "rancher", "--yes"]);
        command.env("RANCHER_URL", lab.fleet.rancher_url().unwrap());
        command.env("RANCHER_TOKEN", lab.fleet.rancher_token().unwrap());
        let refused = Ended::of(command.output().await.unwrap()).expect(4);
        let (_, checksum) = refused.stderr.trim_end().rsplit_once(' ').unwrap();
        let checksum = checksum.trim_end_matches('`').to_owned();
        insta::assert_snapshot!(
            "rancher_unknown",
            refused
                .stderr
                .replace(&checksum, "CHECKSUM")
                .replace(&lab.fleet.rancher_url().unwrap(), "RANCHER")
        );
        lab.is_untouched();
        let pinned = ["plan", "--via", "rancher", "--detailed-exitcode", "--rancher-ca-checksum", &checksum];
        let mut command = lab.program(&pinned);
        command.env("RANCHER_URL", lab.fleet.rancher_url().unwrap());
        command.env("RANCHER_TOKEN", lab.fleet.rancher_token().unwrap());
        Ended::of(command.output().await.unwrap()).expect(3);
    });
}

/// Commands that go on without Rancher say so, but for what was given and cannot be used.
#[test]
fn what_is_given_of_rancher_is_used_or_complained_of() {
    rehearse(async {
        let lab = Rehearsal::with_rancher(Layout::Healthy, rancher(&[])).await;
        let url = lab.fleet.rancher_url().unwrap();
        let check = ["check", "--rancher-url", &url];
        let with = |words: &[&'static str]| {
            let mut command = lab.program(&check);
            command.args(words).env("RANCHER_TOKEN", lab.fleet.rancher_token().unwrap());
            command
        };
        lab.certroll(&check).await.expect(0).says("going on without Rancher: no token is given");
        let mut silent = lab.program(&["check"]);
        let silent = Ended::of(silent.env("RANCHER_URL", &url).output().await.unwrap()).expect(0);
        assert!(!silent.stderr.contains("Rancher"), "{}", silent.stderr);
        for (words, complaint) in [
            (["--rancher-token-file", "nowhere"], "`nowhere` cannot be read"),
            (["--rancher-ca", "nowhere"], "`nowhere` cannot be read"),
            (["--rancher-ca-checksum", "abc"], "`abc` is not a SHA-256 checksum"),
        ] {
            Ended::of(with(&words).output().await.unwrap()).expect(2).says(complaint);
        }
        Ended::of(with(&[]).output().await.unwrap())
            .expect(0)
            .says("going on without Rancher: the certificate of ")
            .says("`--rancher-ca-checksum ");
        lab.is_untouched();
    });
}

#[test]
fn blockers_stop_an_apply_before_it_touches_a_node() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::LegacyExpired).await;
        let split = ["apply", "--via", "manual", "--yes", "-n", "cp-1,role=worker"];
        lab.certroll(&split).await.expect(4).shows("leaves out cp-2, etcd-1");

        lab.fleet.inject(&name("etcd-1"), Fault::Unreachable);
        let apply = ["apply", "--via", "manual", "--yes"];
        lab.certroll(&apply).await.expect(4).shows("etcd-1").says("nothing was changed");
        let repair = ["apply", "repair", "--yes", "-o", "json"];
        let refused = lab.certroll(&repair).await.expect(4).says("blocker: etcd-1: ");
        assert_eq!(refused.stdout, "", "no event without a run");
        lab.certroll(&["plan", "repair"]).await.expect(4).shows("etcd-1");
        lab.fleet.mend(&name("etcd-1"));
        lab.is_untouched();

        lab.root("cp-1", "cp /etc/kubernetes/ssl/kube-apiserver.pem /etc/kubernetes/.tmp/kube-ca.pem").await;
        let effects = lab.effects();
        lab.certroll(&apply).await.expect(4).shows("is another CA");
        lab.certroll(&["apply", "repair", "--yes"]).await.expect(4).shows(".tmp/kube-ca.pem");
        assert_eq!(lab.effects(), effects);
        assert!(!lab.state().exists(), "a refusal is no run");
    });
}

#[test]
fn a_saved_plan_is_carried_out_while_it_fits_and_refused_when_something_has_moved() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::LegacyExpired).await;
        let (fits, stale) = (lab.path("repair.plan"), lab.path("rotate.plan"));
        let (fits, stale) = (fits.to_str().unwrap(), stale.to_str().unwrap());
        lab.certroll(&["plan", "repair", "--save", fits])
            .await
            .expect(0)
            .shows(&format!("certroll apply --plan {fits}"));
        lab.certroll(&["plan", "--via", "manual", "--save", stale]).await.expect(0);
        lab.is_untouched();
        lab.certroll(&["apply", "--plan", fits, "--yes"]).await.expect(0);
        assert!(lab.files("cp-1", KUBERNETES).contains_key(".tmp/kube-apiserver-proxy-client.pem"));

        let effects = lab.effects();
        lab.certroll(&["apply", "--plan", stale, "--yes"])
            .await
            .expect(4)
            .says("the plan is stale")
            .says("node cp-1 /etc/kubernetes/.tmp/kube-apiserver-proxy-client.pem");
        lab.certroll(&["apply", "--plan", fits, "--yes"]).await.expect(4).says("the plan is stale");
        std::fs::write(lab.path("no.plan"), "{}").unwrap();
        lab.certroll(&["apply", "--plan", "no.plan", "--yes"]).await.expect(2).says("no.plan");
        assert_eq!(lab.effects(), effects);
    });
}
