//! Certificates of OpenSSH: users' that an sshd trusts (`TrustedUserCAKeys`).

use std::process::Command;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;

use super::daemon::Daemon;
use super::operator::{Operator, ed25519};

/// Makes an authority whose key lies in the operator's home, and returns its public line.
fn authority(operator: &Operator) -> String {
    let key = ed25519();
    let line = key.public_key().to_openssh().unwrap();
    operator.write("ca", &key.to_openssh(LineEnding::LF).unwrap());
    operator.write("ca.pub", &line);
    line
}

/// Has the authority sign a key, and returns the name of the certificate.
fn sign(operator: &Operator, name: &str, key: &PrivateKey, options: &[&str]) -> String {
    operator.write(&format!("{name}.pub"), &key.public_key().to_openssh().unwrap());
    let mut command = Command::new("ssh-keygen");
    command.current_dir(operator.path("")).args(["-q", "-s", "ca", "-I", "test"]).args(options);
    let output = command.arg(format!("{name}.pub")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    format!("{name}-cert.pub")
}

const LONG_AGO: [&str; 2] = ["-V", "20200101:20200201"];

#[tokio::test]
async fn a_certificate_of_the_user_opens_the_door() {
    let Some(operator) = Operator::new() else { return };
    authority(&operator);
    let trusted = operator.path("ca.pub");
    let daemon = Daemon::start(
        &operator,
        &format!("AuthorizedKeysFile none\nTrustedUserCAKeys {}", trusted.display()),
    );
    operator.cluster(&[daemon.address]);
    let text = operator.read("cluster.yml").replace("user:", "ssh_cert_path: ~/id_key-cert.pub, user:");
    operator.write("cluster.yml", &text);
    let principal = ["-n", &operator.user];
    sign(&operator, "id_key", &operator.key, &principal);
    operator.reaches(&[]).await;
    sign(&operator, "id_key", &operator.key, &["-n", "somebody-else"]);
    let error = operator.fails(&[]).await;
    assert!(error.contains("does not let") && error.contains("certificate"), "{error}");
    sign(&operator, "id_key", &operator.key, &[principal, LONG_AGO].concat());
    let error = operator.fails(&[]).await;
    assert!(error.contains("certificate"), "{error}");
    let log = daemon.finish();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
}
