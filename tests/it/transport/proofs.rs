//! What hosts want beside a key: passwords, answers to their questions, and one after the other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certroll::inventory::{Node, Secret};
use certroll::transport::{
    AgentUse, AskSecret, FanOut, HearBanner, PasswordUse, Question, Session, Settings, Transport,
    TransportError,
};
use futures::future::{join_all, try_join_all};

use super::agent::{Agent, Consent, Held};
use super::operator::*;
use super::server::{Demand, Forwarding, Server};

const PASSWORD: &str = "correct horse";

const CODE: Demand = Demand::Answers(&[("Verification code: ", false, "123456")]);

/// Starts a server that the operator knows.
async fn demanding(operator: &Operator, demands: Vec<Demand>) -> Server {
    let host_key = ed25519();
    let server = Server::demanding(vec![host_key.clone()], demands, Forwarding::Allowed).await;
    operator.know(server.address, host_key.public_key());
    server
}

/// Answers questions for passwords in turn, and leaves others to the operator.
struct Typist {
    passwords: Mutex<VecDeque<&'static str>>,
    asked: Mutex<Vec<String>>,
    others: Arc<Passphrases>,
}

impl AskSecret for Typist {
    fn ask(&self, question: &Question) -> Option<Secret> {
        if !matches!(question, Question::Password { .. }) {
            return self.others.ask(question);
        }
        self.asked.lock().unwrap().push(question.to_string());
        self.passwords.lock().unwrap().pop_front().map(|answer| Secret::new(answer.to_owned()))
    }
}

fn typing(operator: &Operator, passwords: &[&'static str]) -> Arc<Typist> {
    let passwords = Mutex::new(passwords.iter().copied().collect());
    Arc::new(Typist { passwords, asked: Mutex::default(), others: Arc::clone(&operator.passphrases) })
}

fn asking(operator: &Operator, ask: Arc<Typist>) -> Settings {
    Settings { passwords: PasswordUse::Asked, ask, ..operator.settings() }
}

fn with_password(operator: &Operator, password: &'static str) -> Transport {
    Transport::new(asking(operator, typing(operator, &[password])), None).unwrap()
}

fn answering(codes: &[&'static str]) -> Operator {
    let codes = Mutex::new(codes.iter().copied().collect());
    Operator::asking(Passphrases { codes, ..Passphrases::default() })
}

#[tokio::test]
async fn a_password_logs_in_by_either_method() {
    let operator = Operator::new();
    for demand in [Demand::Password(PASSWORD), Demand::Answers(&[("Password: ", false, PASSWORD)])] {
        let server = demanding(&operator, vec![demand]).await;
        let transport = with_password(&operator, PASSWORD);
        let nodes = vec![node(server.address); 3];
        try_join_all(nodes.iter().map(|node| transport.connect(node))).await.unwrap();
    }
    operator.remove("id_key");
    let server = demanding(&operator, vec![Demand::Password(PASSWORD)]).await;
    with_password(&operator, PASSWORD).connect(&node(server.address)).await.unwrap();
    assert!(operator.passphrases.prompts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    let operator = Operator::new();
    for demand in [Demand::Password(PASSWORD), Demand::Answers(&[("Password: ", false, PASSWORD)])] {
        let server = demanding(&operator, vec![demand]).await;
        let error = with_password(&operator, "wrong").connect(&node(server.address)).await.unwrap_err();
        assert!(matches!(error, TransportError::AuthenticationRefused { .. }), "{error}");
        assert!(error.to_string().contains("the password"), "{error}");
        assert!(!error.to_string().contains("wrong"), "the password is not shown: {error}");
        assert!(error.hint().unwrap().contains("is this the password of `rke`"), "{error}");
        assert_eq!(server.refused_answers(), 1);
        assert_eq!(server.accepted(), 1);
    }
}

/// Connects to nodes, two at a time, and returns what became of it.
async fn fan_out(settings: Settings, nodes: &[Node]) -> Vec<Result<Session, TransportError>> {
    let fan_out = FanOut::new(Arc::new(Transport::new(settings, None).unwrap()), 2);
    let mut ended = Vec::new();
    fan_out.each(nodes, |node| fan_out.connect(node), |result| ended.push(result)).await;
    ended
}

#[tokio::test]
async fn a_wrong_password_is_shown_to_one_node_of_many() {
    let operator = Operator::new();
    for demand in [Demand::Password(PASSWORD), Demand::Answers(&[("Password: ", false, PASSWORD)])] {
        let server = demanding(&operator, vec![demand]).await;
        let nodes = vec![node(server.address); 6];
        // Nobody types it a second time.
        let typist = typing(&operator, &["wrong"]);
        let transport = Transport::new(asking(&operator, Arc::clone(&typist)), None).unwrap();
        let tried = join_all(nodes.iter().map(|node| transport.connect(node))).await;
        let mut errors: Vec<String> = tried.into_iter().map(|tried| tried.unwrap_err().to_string()).collect();
        errors
            .retain(|error| error.contains("has not accepted the one that was given: it is not tried here"));
        assert_eq!((errors.len(), server.refused_answers()), (5, 1), "{errors:?}");

        // Who mistypes is told, and asked again for another node; those who wait take no place from it.
        let typist = typing(&operator, &["wrong", PASSWORD]);
        let tried = fan_out(asking(&operator, Arc::clone(&typist)), &nodes).await;
        assert_eq!((tried.iter().filter(|tried| tried.is_ok()).count(), server.refused_answers()), (5, 2));
        let asked = typist.asked.lock().unwrap();
        assert!(
            asked.len() == 2 && asked[1].contains("has not accepted that one. Password of rke@"),
            "{asked:?}"
        );
    }
}

#[tokio::test]
async fn a_password_that_one_node_never_judges_is_shown_to_no_other() {
    let operator = Operator::new();
    let silent = demanding(&operator, vec![Demand::PasswordInSilence]).await;
    let server = demanding(&operator, vec![Demand::Password(PASSWORD)]).await;
    let typist = typing(&operator, &["wrong", PASSWORD]);
    let connect_timeout = Duration::from_secs(1);
    let settings = Settings { connect_timeout, ..asking(&operator, Arc::clone(&typist)) };
    let transport = Transport::new(settings, None).unwrap();
    let error = transport.connect(&node(silent.address)).await.unwrap_err();
    assert!(matches!(error, TransportError::TimedOut { .. }), "{error}");
    try_join_all(vec![node(server.address); 3].iter().map(|node| transport.connect(node))).await.unwrap();
    assert_eq!((server.refused_answers(), typist.asked.lock().unwrap().len()), (0, 2));
}

#[tokio::test]
async fn a_node_that_hangs_up_while_the_operator_types_is_connected_to_again() {
    let operator = Operator::new();
    let server = Arc::new(demanding(&operator, vec![Demand::Password(PASSWORD)]).await);
    let typist = Arc::new(SlowTypist { server: Arc::clone(&server), asked: AtomicUsize::new(0) });
    let settings =
        Settings { passwords: PasswordUse::Asked, ask: Arc::clone(&typist) as _, ..operator.settings() };
    // One alone: another may be hung up on at any point of its login.
    let ended = fan_out(settings, &[node(server.address)]).await;
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    let counts = [typist.asked.load(Ordering::SeqCst), server.accepted(), server.refused_answers()];
    assert_eq!(counts, [1, 2, 0]);
}

/// Types the password when the server has hung up, as with `LoginGraceTime`.
struct SlowTypist {
    server: Arc<Server>,
    asked: AtomicUsize,
}

impl AskSecret for SlowTypist {
    fn ask(&self, _: &Question) -> Option<Secret> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.server.hang_up();
        Some(Secret::new(PASSWORD.to_owned()))
    }
}

#[tokio::test]
async fn the_password_of_the_jump_hosts_is_not_that_of_the_nodes() {
    let operator = Operator::new();
    let gate = demanding(&operator, vec![Demand::Password("the gate's")]).await;
    let inner = demanding(&operator, vec![Demand::Password(PASSWORD)]).await;
    let typist = typing(&operator, &["the gate's", PASSWORD]);
    let jumps = Some(vec![format!("rke@{}", gate.address).parse().unwrap()]);
    let settings = Settings { jumps, ..asking(&operator, Arc::clone(&typist)) };
    let ended = fan_out(settings, &vec![node(inner.address); 3]).await;
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    assert_eq!((gate.refused_answers(), inner.refused_answers()), (0, 0));
    let asked = typist.asked.lock().unwrap();
    assert!(asked.len() == 2 && asked[0].contains("jump hosts") && asked[1].contains("nodes"), "{asked:?}");
}

#[tokio::test]
async fn a_wrong_password_is_shown_to_a_jump_host_once() {
    let operator = Operator::new();
    let gate = demanding(&operator, vec![Demand::Password("the gate's")]).await;
    let inner = demanding(&operator, vec![Demand::Password(PASSWORD)]).await;
    let typist = typing(&operator, &["wrong", PASSWORD, PASSWORD]);
    let jumps = Some(vec![format!("rke@{}", gate.address).parse().unwrap()]);
    let settings = Settings { jumps, ..asking(&operator, Arc::clone(&typist)) };
    for error in fan_out(settings, &vec![node(inner.address); 3]).await {
        let error = error.unwrap_err();
        assert!(error.hint().unwrap().contains("is this the password of `rke` on 127.0.0.1?"), "{error}");
    }
    assert_eq!((gate.refused_answers(), inner.accepted(), typist.asked.lock().unwrap().len()), (1, 0, 1));
}

#[tokio::test]
async fn nobody_is_asked_who_does_not_want_to_be() {
    let operator = answering(&["123456"]);
    let key = Demand::Key(operator.key.public_key().clone());
    for (demands, said) in [
        (vec![Demand::Password(PASSWORD)], "it takes no keys, but: password"),
        (vec![CODE], "it takes no keys, but: keyboard-interactive"),
        (vec![key, CODE], "and wants one more proof, by: keyboard-interactive"),
    ] {
        let server = demanding(&operator, demands).await;
        let error = operator.transport().connect(&node(server.address)).await.unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.hint().unwrap().contains("`--ask-password`"), "{error}");
        assert_eq!(server.refused_answers(), 0);
    }
    assert!(operator.passphrases.prompts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_key_and_then_a_code_in_the_words_of_the_host() {
    let operator = answering(&["123456", "123456"]);
    let demands = vec![Demand::Key(operator.key.public_key().clone()), CODE];
    let server = demanding(&operator, demands).await;
    let transport = with_password(&operator, PASSWORD);
    let nodes = vec![node(server.address); 2];
    try_join_all(nodes.iter().map(|node| transport.connect(node))).await.unwrap();
    let asked = format!("rke@{} asks: Prove it. Verification code: Hidden", server.address);
    assert_eq!(*operator.passphrases.prompts.lock().unwrap(), [asked.as_str(), asked.as_str()]);

    let error = transport.connect(&node(server.address)).await.unwrap_err();
    assert!(error.to_string().contains("it asks `Verification code:`, and nobody answers"), "{error}");
    assert!(error.hint().unwrap().contains("terminal"), "{error}");
}

#[tokio::test]
async fn every_proof_in_the_order_that_the_host_wants() {
    let operator = answering(&["Ada", "123456"]);
    let both = Demand::Answers(&[("Name: ", true, "Ada"), ("Password or code: ", false, "123456")]);
    let key = Demand::Key(operator.key.public_key().clone());
    let demands = vec![Demand::Password(PASSWORD), key, both];
    let server = demanding(&operator, demands).await;
    with_password(&operator, PASSWORD).connect(&node(server.address)).await.unwrap();
    let prompts = operator.passphrases.prompts.lock().unwrap();
    assert!(prompts[0].ends_with("Name: Shown") && prompts[1].ends_with("code: Hidden"), "{prompts:?}");
}

#[tokio::test]
async fn the_time_of_the_connection_stands_still_while_the_operator_thinks() {
    let thinks = Duration::from_millis(1500);
    let codes = Mutex::new(["123456"].into());
    let operator = Operator::asking(Passphrases { codes, thinks, ..Passphrases::default() });
    let server = demanding(&operator, vec![CODE]).await;
    let passwords = PasswordUse::Asked;
    let settings =
        Settings { passwords, connect_timeout: Duration::from_millis(1000), ..operator.settings() };
    Transport::new(settings, None).unwrap().connect(&node(server.address)).await.unwrap();
}

#[tokio::test]
async fn banners_are_heard_by_who_wants_to() {
    let operator = Operator::new();
    let server = operator.server().await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let banners: HearBanner = {
        let heard = Arc::clone(&heard);
        Arc::new(move |at, words| heard.lock().unwrap().push(format!("{at}: {words}")))
    };
    let settings = Settings { banners: Some(banners), ..operator.settings() };
    Transport::new(settings, None).unwrap().connect(&node(server.address)).await.unwrap();
    assert_eq!(*heard.lock().unwrap(), [format!("{}: Authorised use only.\n", server.address)]);
}

#[tokio::test]
async fn two_keys_one_after_the_other() {
    let operator = Operator::new();
    let second = ed25519();
    let demands = [&operator.key, &second].map(|key| Demand::Key(key.public_key().clone()));
    let server = demanding(&operator, demands.to_vec()).await;
    let agent = Agent::start(&operator, vec![Held::Key(ed25519()), Held::Key(second)], Consent::Given);
    let agent_socket = Some(agent.socket.clone());
    let settings = Settings { agent: AgentUse::Always, agent_socket, ..operator.settings() };
    Transport::new(settings, None).unwrap().connect(&node(server.address)).await.unwrap();
    let error = operator.transport().connect(&node(server.address)).await.unwrap_err();
    assert!(error.to_string().contains("and wants one more proof, by: publickey"), "{error}");
}
