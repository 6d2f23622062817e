//! What a real sshd wants beside one key: a touched token, a second key, a password, an answer through PAM.

use std::path::Path;

use certroll::inventory::Secret;
use certroll::transport::{AskSecret, PasswordUse, Question, Settings, Transport, TransportError};
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey, key::safe_rng};

use super::daemon::{Daemon, Setup, skipped};
use super::operator::{Operator, ed25519};
use crate::transport::agent::{Agent, Consent, Held};

/// A password, and what /etc/shadow has for it.
const PASSWORD: &str = "correct horse";
const HASH: &str =
    "$6$certroll$b.8K1Fzacn1G33s7MzqYzGEM2f2YGvAHXRrdPWWX43zn1wpQZfGsa9bC/6e597OdDpmrwxXjIaoBfvjD4.iqs.";

/// A PAM that asks for the password and lets everybody who knows it in.
const PAM: &str =
    "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n";

#[tokio::test]
async fn keys_in_tokens() {
    let Some(mut operator) = Operator::new() else { return };
    for algorithm in [Algorithm::Ed25519, Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }] {
        let in_token = Held::InToken(PrivateKey::random(&mut safe_rng(), algorithm.clone()).unwrap());
        operator.write("token.pub", &in_token.public_key().to_openssh().unwrap());
        let config = format!("AuthorizedKeysFile {}", operator.path("token.pub").display());
        let daemon = Daemon::start(&operator, &config);
        operator.cluster(&[daemon.address]);
        let socket = operator.path(&format!("agent-{algorithm}"));
        let held = vec![Held::Key(ed25519()), Held::Key(ed25519()), in_token];
        let agent = Agent::at(socket.clone(), held, Consent::Given);
        operator.set("SSH_AUTH_SOCK", socket.display().to_string());
        // The named key is the public half of the one in the token.
        operator.reaches(&["--ssh-agent", "--ssh-key", "token.pub"]).await;
        assert_eq!(agent.asked_to_sign(), 1);
        let log = daemon.finish();
        assert!(!log.contains("Failed publickey"), "{log}");
        let error = Daemon::start(&operator, &config);
        operator.cluster(&[error.address]);
        let error = operator.fails(&["--ssh-key", "token.pub"]).await;
        assert!(error.contains("is a public key, whose private half no SSH agent holds"), "{error}");
    }
}

#[tokio::test]
async fn a_second_key() {
    let Some(mut operator) = Operator::new() else { return };
    let second = ed25519();
    let lines = operator.public_line() + &second.public_key().to_openssh().unwrap();
    operator.write("both.pub", &lines);
    let config = format!(
        "AuthorizedKeysFile {}\nAuthenticationMethods publickey,publickey",
        operator.path("both.pub").display()
    );
    let daemon = Daemon::start(&operator, &config);
    operator.cluster(&[daemon.address]);
    let error = operator.fails(&[]).await;
    assert!(error.contains("and wants one more proof, by: publickey"), "{error}");
    let _agent = Agent::at(operator.path("agent"), vec![Held::Key(second)], Consent::Given);
    operator.set("SSH_AUTH_SOCK", operator.path("agent").display().to_string());
    operator.reaches(&["--ssh-agent"]).await;
}

/// Starts an sshd that knows the password of who runs the tests; nothing where only root could do so.
fn with_password(operator: &Operator, config: &str) -> Option<Daemon> {
    if operator.user != "root" || !Path::new("/etc/pam.d/sshd").exists() {
        skipped("passwords: only root can give sshd another /etc/shadow, and it needs PAM");
        return None;
    }
    let shadow = format!("root:{HASH}:19000:0:99999:7:::\n");
    let files = [("/etc/shadow", shadow), ("/etc/pam.d/sshd", PAM.to_owned())];
    Some(Daemon::known(operator, &Setup { config, files: &files, ..Setup::default() }))
}

fn transport(operator: &Operator, password: Option<&'static str>) -> Transport {
    let settings = Settings {
        passwords: password.map_or(PasswordUse::Never, |_| PasswordUse::Asked),
        known_hosts: vec![operator.path(".ssh/known_hosts")],
        ..Settings::new(operator.path(""), std::sync::Arc::new(Typist(password)))
    };
    Transport::new(settings, None).unwrap()
}

/// Types a password, and answers nothing else.
struct Typist(Option<&'static str>);

impl AskSecret for Typist {
    fn ask(&self, question: &Question) -> Option<Secret> {
        let password = self.0.filter(|_| matches!(question, Question::Password { .. }));
        password.map(|password| Secret::new(password.to_owned()))
    }
}

#[tokio::test]
async fn passwords_alone_and_after_a_key() {
    let Some(operator) = Operator::new() else { return };
    for (pam, methods) in [
        ("UsePAM no\nPasswordAuthentication yes", "password"),
        ("UsePAM yes\nPasswordAuthentication yes", "password"),
        ("UsePAM yes\nKbdInteractiveAuthentication yes", "keyboard-interactive"),
        ("UsePAM no\nPasswordAuthentication yes", "publickey,password"),
        ("UsePAM yes\nKbdInteractiveAuthentication yes", "publickey,keyboard-interactive:pam"),
    ] {
        let config = format!("{pam}\nAuthenticationMethods {methods}\nMaxAuthTries 3");
        let Some(daemon) = with_password(&operator, &config) else { return };
        let mut node = crate::transport::operator::node(daemon.address);
        node.user.clone_from(&operator.user);
        transport(&operator, Some(PASSWORD)).connect(&node).await.unwrap();
        for (password, hint) in [(Some("wrong"), "is this the password of"), (None, "--ask-password")] {
            let error = transport(&operator, password).connect(&node).await.unwrap_err();
            assert!(matches!(error, TransportError::AuthenticationRefused { .. }), "{methods}: {error}");
            assert!(error.hint().unwrap().contains(hint), "{methods}: {error} {:?}", error.hint());
        }
        let log = daemon.finish();
        let refused = ["Failed password for", "Failed keyboard-interactive/pam for"];
        assert_eq!(refused.map(|line| log.matches(line).count()).iter().sum::<usize>(), 1, "{log}");
    }
}
