//! Logins by an agent: which of its keys are offered, in which order, and what becomes of one that does not answer.

use std::sync::atomic::Ordering;
use std::time::Duration;

use certroll::transport::{AgentUse, Settings, Transport, TransportError};
use futures::future::{join_all, try_join_all};
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};

use super::agent::{Agent, Consent, Held};
use super::operator::*;
use super::server::{Forwarding, Server};

fn transport(operator: &Operator, agent: &Agent) -> Transport {
    let agent_socket = Some(agent.socket.clone());
    let signature_timeout = Duration::from_millis(100);
    let settings =
        Settings { agent: AgentUse::Always, agent_socket, signature_timeout, ..operator.settings() };
    Transport::new(settings, None).unwrap()
}

fn strangers(number: usize) -> Vec<Held> {
    std::iter::repeat_with(|| Held::Key(ed25519())).take(number).collect()
}

#[tokio::test]
async fn the_named_key_comes_first_and_keys_are_listed_once_for_all_hosts() {
    let operator = Operator::new();
    let server = operator.server().await;
    let encrypted = operator.key.encrypt(&mut safe_rng(), "only the agent knows").unwrap();
    let mut held = strangers(7);
    held.push(Held::Key(operator.key.clone()));
    let agent = Agent::start(&operator, held, Consent::Given);
    // The key itself, its public half beside what cannot be read, and the public half in its place.
    let public = operator.key.public_key().to_openssh().unwrap();
    for (key, public_half) in [
        (Some(encrypted.to_openssh(LineEnding::LF).unwrap().to_string()), None),
        (None, Some(public.clone())),
        (Some(public.clone()), None),
    ] {
        for (name, text) in [("id_key", key), ("id_key.pub", public_half)] {
            match text {
                Some(text) => operator.write(name, &text),
                None => operator.remove(name),
            }
        }
        let transport = transport(&operator, &agent);
        let before = agent.listed();
        let nodes = vec![node(server.address); 5];
        try_join_all(nodes.iter().map(|node| transport.connect(node))).await.unwrap();
        assert_eq!(agent.listed(), before + 1);
    }
    assert_eq!(agent.asked_to_sign(), 15, "for a key that the host would take, and for no other");
    assert_eq!(operator.passphrases.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_full_agent_is_cut_off_before_the_host_hangs_up() {
    let operator = Operator::new();
    let server = operator.server().await;
    let held = strangers(9);
    let names: Vec<String> =
        held.iter().map(|held| held.public_key().fingerprint(HashAlg::Sha256).to_string()).collect();
    let agent = Agent::start(&operator, held, Consent::Given);
    operator.remove("id_key");
    let error = transport(&operator, &agent).connect(&node(server.address)).await.unwrap_err();
    assert!(matches!(error, TransportError::AuthenticationRefused { .. }), "{error}");
    let (offered, left) = names.split_at(6);
    assert!(offered.iter().all(|name| error.to_string().contains(name)), "{error}");
    assert!(!left.iter().any(|name| error.to_string().contains(name)), "{error}");
    assert!(error.to_string().contains("the key `"), "the named key is missing: {error}");
    let hint = error.hint().unwrap();
    for part in ["MaxAuthTries", "--ssh-key", "IdentitiesOnly"] {
        assert!(hint.contains(part), "{hint}");
    }
}

#[tokio::test]
async fn keys_in_tokens_sign_through_the_agent() {
    for algorithm in [Algorithm::Ed25519, Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }] {
        let operator = Operator::new();
        let held = Held::InToken(random(algorithm));
        let host_key = ed25519();
        let server = Server::start(vec![host_key.clone()], &held.public_key(), Forwarding::Allowed).await;
        operator.know(server.address, host_key.public_key());
        let agent = Agent::start(&operator, vec![held], Consent::Given);
        transport(&operator, &agent).connect(&node(server.address)).await.unwrap();
        assert_eq!(agent.asked_to_sign(), 1);
    }
}

#[tokio::test]
async fn an_agent_that_will_not_sign_is_named_and_the_next_key_is_offered() {
    let operator = Operator::new();
    let server = operator.server().await;
    let agent = Agent::start(&operator, vec![Held::Key(operator.key.clone())], Consent::Refused);
    operator.remove("id_key");
    let error = transport(&operator, &agent).connect(&node(server.address)).await.unwrap_err();
    assert!(error.to_string().contains("the agent's `key 1`"), "{error}");
    assert!(error.to_string().contains("could not sign"), "{error}");
}

#[tokio::test]
async fn an_agent_that_waits_for_somebody_says_so_and_not_the_host() {
    let operator = Operator::new();
    let server = operator.server().await;
    let agent = Agent::start(&operator, vec![Held::Key(operator.key.clone())], Consent::Awaited);
    operator.remove("id_key");
    let transport = transport(&operator, &agent);
    let nodes = vec![node(server.address); 20];
    for result in join_all(nodes.iter().map(|node| transport.connect(node))).await {
        let error = result.unwrap_err();
        assert!(matches!(error, TransportError::AgentSilent { .. }), "{error}");
        assert!(error.to_string().contains("did not sign with the agent's `key 1`"), "{error}");
        assert!(error.hint().unwrap().contains("touched"), "{error}");
    }
    assert!(
        agent.asked_to_sign() < 20,
        "who waits behind one that nobody answers need not wait as long again"
    );
}

#[tokio::test]
async fn certificates_for_keys_of_the_agent_come_from_it_or_from_beside_the_key() {
    let operator = Operator::new();
    let (authority, host_key) = (ed25519(), ed25519());
    let server = Server::start(vec![host_key.clone()], authority.public_key(), Forwarding::Allowed).await;
    operator.know(server.address, host_key.public_key());
    let certificate = user_certificate(&operator.key, &authority);
    operator.remove("id_key");
    operator.write("id_key.pub", &operator.key.public_key().to_openssh().unwrap());
    let mut held = strangers(5);
    held.push(Held::Key(operator.key.clone()));
    let beside = Agent::at(operator.path("beside"), held.clone(), Consent::Given);
    operator.write("id_key-cert.pub", &certificate.to_openssh().unwrap());
    transport(&operator, &beside).connect(&node(server.address)).await.unwrap();

    operator.remove("id_key-cert.pub");
    held.push(Held::Certificate(Box::new(certificate), operator.key.clone()));
    let holder = Agent::at(operator.path("holder"), held, Consent::Given);
    transport(&operator, &holder).connect(&node(server.address)).await.unwrap();
    assert_eq!((beside.asked_to_sign(), holder.asked_to_sign()), (1, 1));
}
