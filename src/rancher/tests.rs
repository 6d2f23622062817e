//! What a client says and understands, against a server on the loopback interface that answers as Rancher does.

mod server;

use std::time::Duration;

use serde_json::{Value, json};
use server::{Authority, Reply, Seen, Server};

use super::{Client, NoRotation, RancherError, Settings, Trust, first_look};
use crate::inventory::Secret;
use crate::pki::Service;

const TOKEN: &str = "token-abcde:verysecret";

fn settings(url: &str, trust: Trust) -> Settings {
    Settings {
        url: url.to_owned(),
        token: Secret::new(format!("{TOKEN}\n")),
        trust,
        timeout: Duration::from_secs(20),
    }
}

async fn client(server: &Server) -> Client {
    Client::new(settings(&server.url, Trust::SystemRoots)).await.unwrap()
}

/// Returns status and body of an answer of a real server.
fn captured(capture: &str) -> Reply {
    let (head, body) = capture.split_once("\n\n").or_else(|| capture.split_once("\r\n\r\n")).unwrap();
    Reply::new(head.split(' ').nth(1).unwrap().parse().unwrap(), body)
}

fn version(text: &str) -> Reply {
    Reply::json(&json!({ "type": "setting", "id": "server-version", "value": text }))
}

fn cluster_body(id: &str, name: &str) -> Value {
    json!({ "id": id, "name": name, "state": "active", "transitioning": "no", "rancherKubernetesEngineConfig": {},
        "actions": { "rotateCertificates": format!("https://10.77.0.2:8443/v3/clusters/{id}?action=rotateCertificates") } })
}

fn page(data: &[Value]) -> Reply {
    Reply::json(&json!({ "type": "collection", "data": data, "pagination": { "limit": 1000 } }))
}

#[tokio::test]
async fn a_ping_and_a_version_are_asked_for() {
    let server = Server::start(|seen: &Seen| match seen.target.as_str() {
        "/ping" => Reply::new(200, "pong"),
        "/v3/settings/server-version" => version("v2.2.8"),
        _ => Reply::new(500, ""),
    })
    .await;
    let client = client(&server).await;
    client.ping().await.unwrap();
    assert_eq!(client.server_version().await.unwrap().as_str(), "v2.2.8");
    let seen = server.seen();
    assert_eq!(seen[0].authorization, None);
    assert_eq!(seen[1].authorization.as_deref(), Some("Bearer token-abcde:verysecret"));
}

#[tokio::test]
async fn a_cluster_is_found_by_id_and_by_name() {
    let server = Server::start(|seen: &Seen| match seen.target.as_str() {
        "/v3/clusters/c-p4wzh" => Reply::json(&cluster_body("c-p4wzh", "judge")),
        "/v3/clusters?name=judge" => {
            Reply::new(200, include_str!("../../tests/cases/rancher/clusters-by-name.json"))
        }
        _ => captured(include_str!("../../tests/cases/rancher/not-found.http")),
    })
    .await;
    let client = client(&server).await;
    for wanted in ["c-p4wzh", "judge"] {
        let cluster = client.find_cluster(wanted).await.unwrap();
        assert_eq!((cluster.id.as_str(), cluster.name.as_str()), ("c-p4wzh", "judge"));
    }
}

#[tokio::test]
async fn what_is_not_one_cluster_is_answered_with_a_choice() {
    let server = Server::start(|seen: &Seen| match seen.target.as_str() {
        "/v3/clusters?name=twin" => page(&[cluster_body("c-1", "twin"), cluster_body("c-2", "twin")]),
        "/v3/clusters?name=c-none" => page(&[]),
        "/v3/clusters" => page(&[cluster_body("c-1", "twin"), cluster_body("local", "local")]),
        _ => captured(include_str!("../../tests/cases/rancher/not-found.http")),
    })
    .await;
    let client = client(&server).await;
    let several = client.find_cluster("twin").await.unwrap_err();
    assert_eq!(several.to_string(), "Rancher has several clusters `twin`: twin (c-1), twin (c-2)");
    assert_eq!(several.hint().as_deref(), Some("give the id to `--rancher-cluster`"));
    let none = client.find_cluster("c-none").await.unwrap_err();
    assert_eq!(none.to_string(), "Rancher has no cluster `c-none`; it has twin (c-1), local");
}

#[tokio::test]
async fn pages_are_followed_on_the_origin_alone() {
    let elsewhere = Server::start(|_: &Seen| Reply::new(500, "")).await;
    let next = format!("{}/v3/nodes?clusterId=c-1&marker=m2", elsewhere.url);
    let server = Server::start(move |seen: &Seen| match seen.target.as_str() {
        "/v3/nodes?clusterId=c-1" => Reply::json(&json!({
            "data": [{ "id": "c-1:m-1", "nodeName": "w-1" }], "pagination": { "next": next } })),
        "/v3/nodes?clusterId=c-1&marker=m2" => page(&[json!({ "id": "c-1:m-2", "nodeName": "w-2" })]),
        _ => Reply::new(404, ""),
    })
    .await;
    let nodes = client(&server).await.nodes("c-1").await.unwrap();
    assert_eq!(nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["w-1", "w-2"]);
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn a_list_without_an_end_is_given_up() {
    let server = Server::start(|_: &Seen| {
        Reply::json(&json!({ "data": [], "pagination": { "next": "/v3/nodes?clusterId=c-1&marker=again" } }))
    })
    .await;
    let error = client(&server).await.nodes("c-1").await.unwrap_err();
    assert!(error.to_string().ends_with("it does not end after 100 pages"), "{error}");
}

#[tokio::test]
async fn a_rotation_is_asked_for_as_the_schema_wants_it() {
    let server = Server::start(|seen: &Seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("GET", "/v3/clusters/c-p4wzh") => Reply::json(&cluster_body("c-p4wzh", "judge")),
        ("GET", "/v3/settings/server-version") => version("v2.2.8"),
        ("POST", "/v3/clusters/c-p4wzh?action=rotateCertificates") => {
            captured(include_str!("../../tests/cases/rancher/rotate-all.http"))
        }
        _ => Reply::new(404, ""),
    })
    .await;
    let client = client(&server).await;
    let cluster = client.cluster("c-p4wzh").await.unwrap();
    client.rotate_certificates(&cluster, None).await.unwrap();
    client.rotate_certificates(&cluster, Some(Service::KubeApiserver)).await.unwrap();
    let posted: Vec<Value> = server
        .seen()
        .iter()
        .filter(|seen| seen.method == "POST")
        .map(|seen| serde_json::from_str(&seen.body).unwrap())
        .collect();
    assert_eq!(
        posted,
        [json!({ "caCertificates": false, "services": "" }), json!({ "services": "kube-apiserver" })]
    );
}

#[tokio::test]
async fn a_server_that_would_rotate_everything_is_not_asked_for_one_service() {
    let server = Server::start(|seen: &Seen| match seen.target.as_str() {
        "/v3/clusters/c-1" => Reply::json(&cluster_body("c-1", "old")),
        "/v3/settings/server-version" => version("v2.1.9"),
        _ => Reply::new(500, ""),
    })
    .await;
    let client = client(&server).await;
    let cluster = client.cluster("c-1").await.unwrap();
    let error = client.rotate_certificates(&cluster, Some(Service::Etcd)).await.unwrap_err();
    assert_eq!(error.to_string(), "Rancher v2.1.9 rotates all services at once, not etcd alone");
    assert!(server.seen().iter().all(|seen| seen.method == "GET"));
}

#[tokio::test]
async fn a_missing_action_is_explained_by_the_version() {
    let server = Server::start(|seen: &Seen| match seen.target.as_str() {
        "/v3/clusters/c-1" => {
            Reply::json(&json!({ "id": "c-1", "name": "prod", "rancherKubernetesEngineConfig": {} }))
        }
        "/v3/settings/server-version" => version("v2.0.13"),
        _ => Reply::new(500, ""),
    })
    .await;
    let client = client(&server).await;
    let cluster = client.cluster("c-1").await.unwrap();
    let error = client.rotate_certificates(&cluster, None).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the certificates of cluster `prod (c-1)` cannot be rotated: Rancher v2.0.13 cannot rotate certificates, which \
         2.0.14 and 2.1.9 brought"
    );
    assert!(matches!(&error, RancherError::NoRotation { reason: NoRotation::OldServer(_), .. }));
    assert!(error.hint().unwrap().starts_with("upgrade Rancher to 2.0.14, 2.1.9 or later first"));
}

#[tokio::test]
async fn refusals_are_sentences_and_only_trouble_passes() {
    let unauthorized = || captured(include_str!("../../tests/cases/rancher/unauthorized.http"));
    let two_documents = || captured(include_str!("../../tests/cases/rancher/rotate-list.http"));
    let cases = [
        (unauthorized(), "Rancher does not accept the token: must authenticate", false),
        (Reply::new(403, r#"{"message":"no"}"#), "the user of the token may not do this: no", false),
        (
            Reply::new(
                401,
                r#"{"code":"Unauthorized","message":"can not rotate certificates","status":401}"#,
            ),
            "the user of the token may not do this: can not rotate certificates",
            false,
        ),
        (Reply::new(409, ""), "somebody else changed it at the same time: no reason given", true),
        (
            two_documents(),
            "Rancher refuses the request (HTTP 400): failed to parse request content: unmarshaling input error: json: \
             cannot unmarshal array into Go struct field RotateCertificateInput.services of type string",
            false,
        ),
        (Reply::new(429, "slow down"), "Rancher cannot answer now (HTTP 429): slow down", true),
        (
            Reply::new(502, "<h1>Bad Gateway</h1>"),
            "Rancher cannot answer now (HTTP 502): <h1>Bad Gateway</h1>",
            true,
        ),
        (
            Reply::new(200, "<html>"),
            "the cluster that Rancher gave cannot be read: expected value at line 1 column 1",
            false,
        ),
    ];
    for (reply, said, transient) in cases {
        let server = Server::start(move |_: &Seen| reply.clone()).await;
        let error = client(&server).await.cluster("c-1").await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.is_transient()), (said, transient));
    }
}

#[tokio::test]
async fn a_server_that_hangs_up_may_come_back() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            drop(listener.accept().await.unwrap());
        }
    });
    let client = Client::new(settings(&url, Trust::SystemRoots)).await.unwrap();
    let error = client.ping().await.unwrap_err();
    assert_eq!(error.to_string(), format!("Rancher at `{url}` does not answer"));
    assert!(error.is_transient());
}

#[tokio::test]
async fn the_token_does_not_follow_a_redirect() {
    let elsewhere = Server::start(|_: &Seen| Reply::json(&cluster_body("c-1", "trap"))).await;
    let location = format!("{}/v3/clusters/c-1?x=y", elsewhere.url);
    let server = Server::start(move |_: &Seen| Reply::redirect(307, &location)).await;
    let error = client(&server).await.cluster("c-1").await.unwrap_err();
    let shown = format!("{}/v3/clusters/c-1", elsewhere.url);
    assert_eq!(error.to_string(), format!("Rancher redirects to `{shown}`, and its token is not sent there"));
    assert!(!error.is_transient());
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_not_trusted() {
    let authority = Authority::new();
    let server = Server::start_tls(&authority, |_: &Seen| Reply::new(200, "pong")).await;
    let other = Trust::CertificateAuthority(Authority::new().pem.into_bytes());
    let error = Client::new(settings(&server.url, other)).await.unwrap().ping().await.unwrap_err();
    assert!(matches!(error, RancherError::UnknownAuthority { .. }), "{error:?}");
    assert!(!error.is_transient());
    assert!(error.hint().unwrap().contains("--rancher-ca"));
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_stranger_is_shown_with_the_checksum_that_agents_use_and_hears_no_token() {
    let authority = Authority::new();
    let own = json!({ "id": "cacerts", "value": authority.pem });
    let server = Server::start_tls(&authority, move |_: &Seen| Reply::json(&own)).await;
    let stranger = Client::new(settings(&server.url, Trust::SystemRoots)).await.unwrap();
    let error = stranger.handshake().await.unwrap_err();
    assert!(matches!(error, RancherError::UnknownAuthority { .. }), "{error:?}");
    let own = first_look(&server.url, Duration::from_secs(20)).await.unwrap().unwrap();
    assert_eq!((own.checksum.as_str(), &own.pem), (authority.checksum().as_str(), &authority.pem));
    assert_eq!(own.certificate.unwrap().common_name(), Some("rcgen self signed cert"));
    assert!(server.seen().iter().all(|seen| seen.authorization.is_none()), "{:?}", server.seen());
}

#[tokio::test]
async fn an_expired_certificate_is_told_with_its_date_whether_or_not_its_authority_is_trusted() {
    let authority = Authority::new();
    let server = Server::start_expired(&authority, |_: &Seen| Reply::new(200, "pong")).await;
    let given = Trust::CertificateAuthority(authority.pem.clone().into_bytes());
    for trust in [Trust::SystemRoots, given] {
        let error = Client::new(settings(&server.url, trust)).await.unwrap().handshake().await.unwrap_err();
        let said = format!(
            "the certificate of `{}` itself, Rancher's own, expired on 2019-01-01 at 00:00:00 UTC",
            server.url
        );
        assert_eq!(error.to_string(), said);
        assert!(!error.is_transient());
        assert!(error.hint().unwrap().starts_with("whoever runs Rancher renews it first"));
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_server_says_how_long_it_does_not_want_to_be_asked() {
    for (header, expected) in [("7", Some(Duration::from_secs(7))), ("Wed, 21 Oct 2026 07:28:00 GMT", None)] {
        let reply = Reply::new(429, "slow down").retry_after(header);
        let server = Server::start(move |_: &Seen| reply.clone()).await;
        let error = client(&server).await.cluster("c-1").await.unwrap_err();
        let RancherError::Unavailable { retry_after, .. } = error else { panic!("{error:?}") };
        assert_eq!(retry_after, expected);
    }
}

#[tokio::test]
async fn a_given_authority_is_trusted() {
    let authority = Authority::new();
    let server = Server::start_tls(&authority, |_: &Seen| version("v2.2.8")).await;
    let trust = Trust::CertificateAuthority(authority.pem.clone().into_bytes());
    let client = Client::new(settings(&server.url, trust)).await.unwrap();
    assert_eq!(client.server_version().await.unwrap().as_str(), "v2.2.8");
}

#[tokio::test]
async fn a_checksum_pins_the_servers_own_authority() {
    let authority = Authority::new();
    let own = json!({ "id": "cacerts", "value": authority.pem.trim_end() });
    let server = Server::start_tls(&authority, move |seen: &Seen| match seen.target.as_str() {
        "/v3/settings/cacerts" => Reply::json(&own),
        _ => version("v2.2.8"),
    })
    .await;
    let trust = Trust::Checksum(authority.checksum().to_uppercase());
    let client = Client::new(settings(&server.url, trust)).await.unwrap();
    assert_eq!(client.server_version().await.unwrap().as_str(), "v2.2.8");
    assert_eq!(server.seen()[0].authorization, None, "the token went to a server that was not verified");

    let wrong = Client::new(settings(&server.url, Trust::Checksum("0".repeat(64)))).await.unwrap_err();
    assert!(matches!(wrong, RancherError::ChecksumMismatch { .. }), "{wrong:?}");
    assert!(wrong.to_string().contains(&authority.checksum()), "{wrong}");
    let none = Client::new(settings(&server.url, Trust::Checksum("beef".to_owned()))).await.unwrap_err();
    assert_eq!(none.to_string(), "`beef` is not a SHA-256 checksum of 64 hexadecimal digits");
}

#[tokio::test]
async fn a_pinned_authority_must_have_signed_the_certificate() {
    let (honest, impostor) = (Authority::new(), Authority::new());
    let own = json!({ "id": "cacerts", "value": honest.pem });
    let server = Server::start_tls(&impostor, move |_: &Seen| Reply::json(&own)).await;
    let client = Client::new(settings(&server.url, Trust::Checksum(honest.checksum()))).await.unwrap();
    let error = client.server_version().await.unwrap_err();
    assert!(matches!(error, RancherError::UnknownAuthority { .. }), "{error:?}");
    assert_eq!(server.seen().len(), 1, "only the public setting was asked for");
}

#[tokio::test]
async fn a_server_without_an_authority_of_its_own_cannot_be_pinned() {
    let authority = Authority::new();
    let server =
        Server::start_tls(&authority, |_: &Seen| Reply::json(&json!({ "id": "cacerts", "value": "" }))).await;
    let error = Client::new(settings(&server.url, Trust::Checksum("0".repeat(64)))).await.unwrap_err();
    assert!(matches!(error, RancherError::NoOwnAuthority(_)), "{error:?}");
}

#[tokio::test]
async fn what_is_no_token_or_no_authority_is_refused_at_once() {
    for token in ["", "two words", "täken"] {
        let mut settings = settings("https://127.0.0.1:1", Trust::SystemRoots);
        settings.token = Secret::new(token.to_owned());
        assert!(matches!(Client::new(settings).await, Err(RancherError::Token)), "{token}");
    }
    let trust = Trust::CertificateAuthority(b"no certificate".to_vec());
    let error = Client::new(settings("https://127.0.0.1:1", trust)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the certificate authority of Rancher cannot be used: it holds no PEM certificate"
    );
}

#[tokio::test]
async fn a_client_does_not_show_its_token() {
    let server = Server::start(|_: &Seen| Reply::new(200, "pong")).await;
    let shown = format!("{:?}", client(&server).await);
    assert!(!shown.contains("verysecret"), "{shown}");
}
