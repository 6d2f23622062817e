//! What Rancher, the API and the nodes themselves say of nodes, and what keeps Rancher's agents from doing their part.

use certroll::sim::{Fault, Layout, RancherOptions};

use super::{Rehearsal, name, of_kind, rancher, rehearse};

#[test]
fn an_agent_without_a_connection_is_found_with_what_to_do() {
    rehearse(async {
        let lab = Rehearsal::with_rancher(Layout::Healthy, RancherOptions::default()).await;
        lab.certroll(&["check"]).await.expect(0);
        lab.fleet.inject(&name("w-2"), Fault::AgentDisconnected);
        let check = lab.certroll(&["check", "-o", "json"]).await.expect(0).json();
        let findings = check["findings"].as_array().unwrap();
        let found: Vec<_> =
            findings.iter().filter(|finding| finding["code"] == "agent-not-connected").collect();
        assert_eq!(found.len(), 1, "{findings:?}");
        assert_eq!(found[0]["node"], "w-2");
        assert!(found[0]["message"].as_str().unwrap().ends_with(": websocket: bad handshake"), "{found:?}");
        assert!(found[0]["hint"].as_str().unwrap().contains("websockets"));
        // Rancher itself answers there: it is not called unreachable.
        assert!(!findings.iter().any(|finding| finding["code"] == "rancher-unreachable"), "{findings:?}");
    });
}

#[test]
fn all_who_were_asked_are_shown_where_they_disagree() {
    rehearse(async {
        let lab = Rehearsal::with_rancher(Layout::ExpiringSoon, RancherOptions::default()).await;
        let all_well = lab.with_token(&["check", "--read-keys", "-o", "json"]).await.json();
        for node in all_well["nodes"].as_array().unwrap() {
            assert_eq!((&node["rancher_state"], &node["ready"]), (&"active".into(), &true.into()), "{node}");
        }
        // To this node its kubelet's certificate has ended already: no API server hears from it.
        lab.fleet.inject(&name("w-1"), Fault::ClockSkew { seconds: 400 * 24 * 3600 });
        let words = ["check", "-n", "w-1,cp-1"];
        lab.with_token(&words)
            .await
            .expect(3)
            .shows("Rancher calls it unavailable; on the node itself kubelet and kube-proxy are well");
        lab.with_token(&[&words[..], &["--read-keys"]].concat()).await.expect(3).shows(
            "Rancher calls it unavailable, the API calls it not ready (Kubelet stopped posting node status);",
        );
        lab.certroll(&words).await.expect(3);
    });
}

#[test]
fn what_an_agent_is_about_to_restart_is_left_to_it() {
    rehearse(async {
        let lab = Rehearsal::with_rancher(Layout::Healthy, rancher(&[])).await;
        let folder = "/etc/kubernetes/ssl";
        lab.root(
            "w-3",
            &format!("cat {folder}/kube-node.pem >{folder}/new && mv {folder}/new {folder}/kube-node.pem"),
        )
        .await;
        let codes = |check: &serde_json::Value| -> Vec<String> {
            let findings = check["findings"].as_array().unwrap().iter();
            let of_containers = findings.filter_map(|finding| finding["code"].as_str());
            of_containers.filter(|code| code.starts_with("container-")).map(str::to_owned).collect()
        };
        let check = lab.certroll(&["check", "-o", "json"]).await.expect(0).json();
        assert_eq!(codes(&check), ["container-pending"]);
        // Without a connection the agent will not do it.
        lab.fleet.inject(&name("w-3"), Fault::AgentDisconnected);
        let check = lab.certroll(&["check", "-o", "json"]).await.expect(3).json();
        assert_eq!(codes(&check), ["container-stale"]);
        let events = lab.certroll(&["apply", "restart", "--yes", "-o", "json"]).await.expect(0).events();
        assert!(!of_kind(&events, "step_finished").is_empty());
        lab.certroll(&["check"]).await.expect(0);
    });
}
