//! Authorities: hosts and users whom one vouches for, and what is said of a host where it does not.

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::{Certificate, HashAlg, PrivateKey, PublicKeyBase64 as _};

use super::daemon::{Daemon, Setup};
use super::operator::{Operator, ed25519};

/// The end of a certificate that never ends.
const NEVER: u64 = u64::MAX - 1;

fn certificate(
    key: &PrivateKey,
    authority: &PrivateKey,
    kind: CertType,
    name: &str,
    end: u64,
) -> Certificate {
    let public = key.public_key().key_data().clone();
    let mut builder = Builder::new_with_random_nonce(&mut safe_rng(), public, 0, end).unwrap();
    builder.cert_type(kind).unwrap();
    builder.valid_principal(name).unwrap();
    builder.sign(authority).unwrap()
}

/// Starts an sshd with a host key of its own and a certificate for it.
fn certified(operator: &Operator, key: &PrivateKey, certificate: &Certificate) -> Daemon {
    operator.write("host", &key.to_openssh(LineEnding::LF).unwrap());
    operator.write("host-cert.pub", &certificate.to_openssh().unwrap());
    let path = operator.path("host");
    let config = format!("HostKey {0}\nHostCertificate {0}-cert.pub", path.display());
    let daemon = Daemon::stranger(operator, &Setup { config: &config, ..Setup::default() });
    operator.cluster(&[daemon.address]);
    daemon
}

fn line(marker: &str, key: &PrivateKey) -> String {
    format!("{marker} 127.* {} {}\n", key.algorithm(), key.public_key_base64())
}

#[tokio::test]
async fn hosts_that_an_authority_vouches_for() {
    let Some(operator) = Operator::new() else { return };
    let (authority, key) = (ed25519(), ed25519());
    let good = certificate(&key, &authority, CertType::Host, "127.*", NEVER);
    let _daemon = certified(&operator, &key, &good);
    let vouched = line("@cert-authority", &authority);
    operator.write(".ssh/known_hosts", &vouched);
    operator.reaches(&[]).await;
    assert_eq!(operator.read(".ssh/known_hosts"), vouched);
    for revoked in [&authority, &key] {
        operator.write(".ssh/known_hosts", &format!("{vouched}{}", line("@revoked", revoked)));
        let error = operator.fails(&["--host-keys", "off"]).await;
        let fingerprint = revoked.fingerprint(HashAlg::Sha256).to_string();
        assert!(error.contains("is revoked by") && error.contains(&fingerprint), "{error}");
    }
    let stranger = line("@cert-authority", &ed25519());
    operator.write(".ssh/known_hosts", &stranger);
    let error = operator.fails(&[]).await;
    assert!(error.contains("is not known: ssh-ed25519"), "{error}");
    operator.write(".ssh/known_hosts", &format!("{stranger}{}", line("", &key).trim_start()));
    operator.reaches(&[]).await;
}

#[tokio::test]
async fn host_certificates_that_do_not_hold() {
    let Some(operator) = Operator::new() else { return };
    let (authority, key) = (ed25519(), ed25519());
    for (kind, name, end, expected) in [
        (CertType::Host, "127.*", 1_000_000_000, "it expired on 2001-09-09T01:46:40Z"),
        (CertType::Host, "node-1", NEVER, "it is for node-1"),
    ] {
        let daemon = certified(&operator, &key, &certificate(&key, &authority, kind, name, end));
        operator.write(".ssh/known_hosts", &line("@cert-authority", &authority));
        let error = operator.fails(&[]).await;
        assert!(error.contains("host certificate of") && error.contains(expected), "{error}");
        let place = format!("{}:1", operator.path(".ssh/known_hosts").display());
        assert!(error.contains(&place), "{error}");
        operator.know(daemon.address, key.public_key());
        operator.reaches(&[]).await;
    }
}

#[tokio::test]
async fn users_that_an_authority_vouches_for() {
    let Some(operator) = Operator::new() else { return };
    let authority = ed25519();
    operator.write("authority.pub", &authority.public_key().to_openssh().unwrap());
    let trusted = operator.path("authority.pub");
    let config = format!("AuthorizedKeysFile none\nTrustedUserCAKeys {}", trusted.display());
    let daemon = Daemon::start(&operator, &config);
    operator.cluster(&[daemon.address]);
    let error = operator.fails(&[]).await;
    assert!(error.contains("does not let"), "{error}");
    let user = certificate(&operator.key, &authority, CertType::User, &operator.user, NEVER);
    operator.write("id_key-cert.pub", &user.to_openssh().unwrap());
    operator.reaches(&[]).await;
    std::fs::remove_file(operator.path("id_key-cert.pub")).unwrap();
    operator.write("elsewhere", &user.to_openssh().unwrap());
    let named = operator.read("cluster.yml").replace("port:", "ssh_cert_path: ~/elsewhere, port:");
    operator.write("cluster.yml", &named);
    operator.reaches(&[]).await;
}
