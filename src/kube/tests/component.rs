use super::site::{Authority, Clients, Site, Validity};
use crate::kube::{Identity, KubeError, etcd_health, is_authenticated};

fn page(body: &'static str, status: u16) -> (Authority, Site) {
    let authority = Authority::new();
    let site = Site::new(&authority, Clients::Verified, move |seen| {
        assert_eq!(seen.line, "GET /health");
        (status, body.to_owned())
    });
    (authority, site)
}

async fn health(body: &'static str, status: u16) -> Result<bool, KubeError> {
    let (authority, site) = page(body, status);
    let health = etcd_health(&site, &authority.identity(Validity::Good), "10.0.0.11").await;
    assert_eq!(site.dialled(), ["10.0.0.11:2379"]);
    health
}

#[tokio::test]
async fn an_etcd_member_says_how_it_is() {
    assert!(health("{\"health\":\"true\",\"reason\":\"\"}", 200).await.unwrap());
    assert!(health("{\"health\": true}", 200).await.unwrap());
    assert!(!health("{\"health\":\"false\"}", 503).await.unwrap());
    assert!(!health("{\"health\":\"false\"}", 200).await.unwrap());
    let error = health("404 page not found\n", 404).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "`GET https://10.0.0.11:2379/health` was answered with HTTP 404: 404 page not found"
    );
}

#[tokio::test]
async fn an_etcd_member_refuses_a_certificate_that_has_expired_or_is_of_another_authority() {
    for version in rustls::ALL_VERSIONS {
        let authority = Authority::new();
        let site = Site::of_versions(&authority, Clients::Verified, &[version], |_| (200, String::new()));
        let expired = authority.identity(Validity::Expired);
        let stranger = identity_of_a_stranger(&authority);
        for identity in [expired, stranger] {
            let error = etcd_health(&site, &identity, "10.0.0.11").await.unwrap_err();
            let KubeError::Failed { asked, source } = error else { panic!("{error}") };
            assert_eq!(asked, "GET https://10.0.0.11:2379/health");
            assert!(matches!(*source, KubeError::ClientRefused(_)), "{:?}: {source:?}", version.version);
            let known = is_authenticated(&site, &identity, "10.0.0.11", 2379, "/health").await;
            assert!(!known.unwrap());
        }
    }
}

/// Makes a client that trusts a CA and was signed by another.
fn identity_of_a_stranger(trusted: &Authority) -> Identity {
    let own = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
    Identity::new(&own.cert.pem(), &own.signing_key.serialize_pem(), &trusted.certificate).unwrap()
}

#[tokio::test]
async fn a_server_says_with_its_status_whether_it_knows_who_asks() {
    // kubelet signs its certificate itself: its CA is another than the cluster's.
    let (own, cluster) = (Authority::new(), Authority::new());
    let identity = cluster.identity(Validity::Good);
    let asked = |status| {
        let site = Site::new(&own, Clients::Any, move |_| (status, "Unauthorized".to_owned()));
        let identity = &identity;
        async move { is_authenticated(&site, identity, "127.0.0.1", 10250, "/healthz").await }
    };
    for (status, known) in [(200, true), (403, true), (404, true), (401, false)] {
        assert_eq!(asked(status).await.unwrap(), known, "{status}");
    }
    let error = asked(500).await.unwrap_err();
    let message = "`GET https://127.0.0.1:10250/healthz` was answered with HTTP 500: Unauthorized";
    assert_eq!(error.to_string(), message);
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_asked() {
    let (own, cluster) = (Authority::new(), Authority::new());
    let site = Site::new(&own, Clients::Any, |seen| panic!("it was asked for {}", seen.line));
    let identity = cluster.identity(Validity::Good);
    let error = etcd_health(&site, &identity, "10.0.0.11").await.unwrap_err();
    let KubeError::Failed { source, .. } = error else { panic!("{error}") };
    assert!(matches!(*source, KubeError::Handshake(_)), "{source:?}");

    // A server that the CA signed for other names.
    let site = Site::new(&cluster, Clients::Any, |seen| panic!("it was asked for {}", seen.line));
    let error = etcd_health(&site, &identity, "10.0.0.99").await.unwrap_err();
    let KubeError::Failed { source, .. } = error else { panic!("{error}") };
    assert!(matches!(*source, KubeError::Handshake(_)), "{source:?}");
}
