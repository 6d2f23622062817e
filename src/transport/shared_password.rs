//! A shared password is given once for all hosts of a kind, and shown to no second one before the first has taken it.
//!
//! It comes from the settings, or from the operator as soon as a host asks for it: one for sudo, one for the logins of nodes, one for
//! those of jump hosts. A wrong one locks accounts (`pam_faillock`, or for all hosts at once in LDAP), so it is tried once on one host
//! alone.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::question::{PasswordPurpose, Question, Questions};
use super::{Endpoint, TransportError};
use crate::inventory::Secret;

/// How often the operator is asked: each wrong answer costs one host its one attempt.
const QUESTIONS: u32 = 3;

/// What is known of the password, for all hosts together.
#[derive(Debug)]
pub(super) struct SharedPassword {
    purpose: PasswordPurpose,
    questions: Questions,
    known: Arc<Mutex<Known>>,
}

/// What is known of the password.
#[derive(Debug)]
pub(super) struct Known {
    secret: Option<Secret>,
    standing: Standing,
    asked: u32,
}

/// How far the password may go.
#[derive(Debug, Clone)]
enum Standing {
    /// No host has seen it yet.
    Untried,
    /// A host has taken it: all may see it.
    Proven,
    /// A host has seen it, and refused it or never judged it: no other sees it.
    Refused(Endpoint),
}

/// A password in the hand of one host.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) secret: Secret,
    /// Keeps the others from it until the first host has judged it.
    first: Option<OwnedMutexGuard<Known>>,
}

impl SharedPassword {
    /// Returns the password of the settings, or one that is asked for when it is wanted.
    pub(super) fn new(purpose: PasswordPurpose, given: Option<Secret>, questions: Questions) -> Self {
        let known = Known { secret: given, standing: Standing::Untried, asked: 0 };
        Self { purpose, questions, known: Arc::new(Mutex::new(known)) }
    }

    /// Returns the password for a host that wants one; nothing where nobody knows it.
    ///
    /// Whoever comes while the first host tries it waits.
    pub(super) async fn for_host(&self, at: &Endpoint, user: &str) -> Result<Option<Trial>, TransportError> {
        let mut known = Arc::clone(&self.known).lock_owned().await;
        if known.secret.is_none() && known.asked < QUESTIONS {
            known.asked += 1;
            let refused_by = match &known.standing {
                Standing::Refused(by) => Some(by.clone()),
                Standing::Untried | Standing::Proven => None,
            };
            let (purpose, at, user) = (self.purpose, at.clone(), user.to_owned());
            let question = Question::Password { purpose, at, user, refused_by };
            // Who only presses Enter has none to give: an empty one would be a wrong attempt.
            let answer = self.questions.ask(question).await;
            known.secret = answer.filter(|secret| !secret.expose().is_empty());
            if known.secret.is_some() {
                known.standing = Standing::Untried;
            } else {
                // Nobody is there, or does not want to.
                known.asked = QUESTIONS;
            }
        }
        match (known.secret.clone(), &known.standing) {
            (Some(secret), Standing::Proven) => Ok(Some(Trial { secret, first: None })),
            (Some(secret), Standing::Untried) => Ok(Some(Trial { secret, first: Some(known) })),
            (_, Standing::Refused(by)) => {
                let (purpose, at, by) = (self.purpose, at.clone(), by.clone());
                Err(TransportError::PasswordNotTried { purpose, at, by })
            }
            (None, _) => Ok(None),
        }
    }

    /// Returns the password for a command, once a host has taken it.
    pub(super) async fn proven(&self) -> Option<Secret> {
        let known = self.known.lock().await;
        match known.standing {
            Standing::Proven => known.secret.clone(),
            Standing::Untried | Standing::Refused(_) => None,
        }
    }
}

impl Trial {
    /// Returns the password for a host that is shown it now, and counts it as refused there until the host has taken it: one that is
    /// lost on the way may have counted it, too.
    pub(super) fn show(&mut self, to: &Endpoint) -> Secret {
        if let Some(known) = &mut self.first {
            known.hold_back(to);
        }
        self.secret.clone()
    }

    /// Notes that the host has taken the password.
    pub(super) fn accept(self) {
        if let Some(mut known) = self.first {
            known.standing = Standing::Proven;
            known.secret = Some(self.secret);
        }
    }

    /// Notes that the host has refused it. One that another host has taken stays good for the rest.
    pub(super) fn refuse(self, by: &Endpoint) {
        if let Some(mut known) = self.first {
            known.hold_back(by);
        }
    }
}

impl Known {
    fn hold_back(&mut self, by: &Endpoint) {
        self.standing = Standing::Refused(by.clone());
        if self.asked > 0 {
            // Who typed it may type it again; a file stays as it is.
            self.secret = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::AskSecret;
    use std::sync::Mutex as Lock;

    /// Answers in turn, and then no more.
    struct Answers(Lock<Vec<&'static str>>);

    impl AskSecret for Answers {
        fn ask(&self, _: &Question) -> Option<Secret> {
            self.0.lock().unwrap().pop().map(|answer| Secret::new(answer.to_owned()))
        }
    }

    fn password(given: Option<&str>, answers: &[&'static str]) -> SharedPassword {
        let answers = Answers(Lock::new(answers.iter().rev().copied().collect()));
        let given = given.map(|text| Secret::new(text.to_owned()));
        SharedPassword::new(PasswordPurpose::Sudo, given, Questions::new(Arc::new(answers)))
    }

    async fn trial(password: &SharedPassword, host: &str) -> Result<Option<Trial>, TransportError> {
        password.for_host(&Endpoint::new(host, 22), "rke").await
    }

    #[tokio::test]
    async fn a_file_that_one_node_refuses_is_shown_to_no_other() {
        let password = password(Some("wrong"), &["never asked for"]);
        trial(&password, "n1").await.unwrap().unwrap().refuse(&Endpoint::new("n1", 22));
        let error = trial(&password, "n2").await.unwrap_err();
        assert!(error.to_string().contains("n1:22"), "{error}");
    }

    #[tokio::test]
    async fn the_second_node_waits_for_the_first() {
        let password = password(None, &["right"]);
        let first = trial(&password, "n1").await.unwrap().unwrap();
        let second = trial(&password, "n2");
        tokio::pin!(second);
        assert!(futures::poll!(&mut second).is_pending());
        first.accept();
        assert_eq!(second.await.unwrap().unwrap().secret.expose(), "right");
        // A node that has another password is its own trouble.
        trial(&password, "n3").await.unwrap().unwrap().refuse(&Endpoint::new("n3", 22));
        assert_eq!(trial(&password, "n4").await.unwrap().unwrap().secret.expose(), "right");
    }

    #[tokio::test]
    async fn a_password_that_the_first_host_never_judges_is_shown_to_no_other() {
        let password = password(None, &["first", "second"]);
        let mut lost = trial(&password, "n1").await.unwrap().unwrap();
        assert_eq!(lost.show(&Endpoint::new("n1", 22)).expose(), "first");
        drop(lost);
        let mut judged = trial(&password, "n2").await.unwrap().unwrap();
        assert_eq!(judged.show(&Endpoint::new("n2", 22)).expose(), "second");
        judged.accept();
        assert_eq!(trial(&password, "n3").await.unwrap().unwrap().secret.expose(), "second");
    }

    #[tokio::test]
    async fn a_password_that_was_not_shown_is_not_used_up() {
        let password = password(None, &["right", "never asked for"]);
        drop(trial(&password, "n1").await.unwrap().unwrap());
        assert_eq!(trial(&password, "n2").await.unwrap().unwrap().secret.expose(), "right");
    }

    #[tokio::test]
    async fn a_command_gets_no_password_that_no_node_has_taken() {
        let password = password(Some("right"), &[]);
        assert!(password.proven().await.is_none());
        trial(&password, "n1").await.unwrap().unwrap().accept();
        assert_eq!(password.proven().await.unwrap().expose(), "right");
    }

    #[tokio::test]
    async fn an_operator_who_mistypes_is_asked_again_for_another_node() {
        let password = password(None, &["wrnog", "right"]);
        trial(&password, "n1").await.unwrap().unwrap().refuse(&Endpoint::new("n1", 22));
        assert_eq!(trial(&password, "n2").await.unwrap().unwrap().secret.expose(), "right");
    }

    #[tokio::test]
    async fn nobody_is_asked_twice_who_does_not_answer() {
        for answers in [&[][..], &["", "never asked for"]] {
            let password = password(None, answers);
            assert!(trial(&password, "n1").await.unwrap().is_none());
            assert!(trial(&password, "n2").await.unwrap().is_none());
            assert_eq!(password.known.lock().await.asked, QUESTIONS);
        }
    }
}
