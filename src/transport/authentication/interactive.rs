//! Answers are what the operator gives a host that wants more than keys: the password, and what it asks in its own words.

use russh::MethodKind;
use russh::client::{AuthResult, KeyboardInteractiveAuthResponse, Prompt};

use super::{Answer, End, Exchange, PasswordState};
use crate::inventory::Secret;
use crate::transport::question::Question;
use crate::transport::shared_password::Trial;
use crate::transport::{Echo, TransportError};

/// How many times a host may ask within one method: some ask for a password, then for a code, then whether the code was right.
const MAX_ROUNDS: usize = 8;

/// Words that tell a prompt for something else from one for the password.
const NOT_THE_PASSWORD: [&str; 12] =
    ["one", "otp", "oath", "token", "code", "pin", "new", "old", "retype", "again", "expired", "change"];

impl Exchange<'_> {
    /// Answers in one method.
    pub(super) async fn answer(&mut self, method: MethodKind) -> Result<Answer, TransportError> {
        match method {
            MethodKind::KeyboardInteractive => self.converse().await,
            MethodKind::Password if matches!(self.password, PasswordState::Unasked) => {
                let Some(password) = self.show_password().await? else {
                    self.note("it asks for a password, and none was given".to_owned());
                    return Ok(Answer::Refused);
                };
                self.has_answered = true;
                let result =
                    self.handle.authenticate_password(&self.means.login.user, password.expose()).await;
                let answer = self.judge(result).await?;
                Ok(self.accept(answer, "the password"))
            }
            _ => Ok(Answer::Refused),
        }
    }

    /// Returns the password, which the host is shown now, once, and asks the operator for it where nobody has before.
    ///
    /// Who is not the first host waits for its word, and their time stands still.
    async fn show_password(&mut self) -> Result<Option<Secret>, TransportError> {
        let Some(password) = self.means.password else { return Ok(None) };
        let login = self.means.login;
        let trial = self.means.deadline.beside(password.for_host(&login.at, &login.user)).await?;
        let Some(mut trial) = trial else {
            self.password = PasswordState::Absent;
            return Ok(None);
        };
        if self.handle.is_closed() {
            // Nobody has seen it, and another connection may take it.
            let said = self.means.fate.reason().unwrap_or("it hung up");
            let reason = format!("{said} while its password was waited for (`LoginGraceTime` of sshd)");
            return Err(TransportError::ConnectionLost { at: login.at.clone(), reason });
        }
        self.offered.push("the password".to_owned());
        let secret = trial.show(&login.at);
        self.password = PasswordState::Shown(trial);
        Ok(Some(secret))
    }

    /// Lets others have the password where the host was shown it.
    fn password_accepted(&mut self) {
        if let Some(trial) = self.judged() {
            trial.accept();
        }
    }

    /// Lets others ask for another one where the host was shown this one.
    fn password_refused(&mut self) {
        if let Some(trial) = self.judged() {
            trial.refuse(&self.means.login.at);
        }
    }

    /// Returns the trial that the host has ended with its word.
    fn judged(&mut self) -> Option<Trial> {
        match std::mem::replace(&mut self.password, PasswordState::Judged) {
            PasswordState::Shown(trial) => Some(trial),
            other => {
                self.password = other;
                None
            }
        }
    }

    /// Answers what the host asks, with the password where it plainly asks for that, otherwise in the operator's words.
    async fn converse(&mut self) -> Result<Answer, TransportError> {
        let user = &self.means.login.user;
        let mut response = self.handle.authenticate_keyboard_interactive_start(user, None).await;
        for _ in 0..MAX_ROUNDS {
            let (instructions, prompts) = match response {
                Ok(KeyboardInteractiveAuthResponse::InfoRequest { name: _, instructions, prompts }) => {
                    (instructions, prompts)
                }
                Ok(KeyboardInteractiveAuthResponse::Success) => {
                    return Ok(self.accept(Answer::Welcome, "the answers"));
                }
                Ok(KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success }) => {
                    let result = AuthResult::Failure { remaining_methods, partial_success };
                    let answer = self.judge(Ok(result)).await?;
                    return Ok(self.accept(answer, "the answers"));
                }
                Err(error) => return self.judge(Err(error)).await,
            };
            let Some(answers) = self.answers_to(&instructions, &prompts).await? else {
                // The conversation cannot be left but by hanging up.
                return Ok(Answer::Refused);
            };
            response = self.handle.authenticate_keyboard_interactive_respond(answers).await;
        }
        self.note(format!("it asked more than {MAX_ROUNDS} times"));
        self.ended = Some(End::Unanswered);
        Ok(Answer::Refused)
    }

    /// Returns an answer to each prompt, or nothing where there is none.
    async fn answers_to(
        &mut self,
        instructions: &str,
        prompts: &[Prompt],
    ) -> Result<Option<Vec<String>>, TransportError> {
        let mut answers = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let text = prompt.prompt.trim();
            let is_password = prompts.len() == 1 && !prompt.echo && asks_for_the_password(text);
            let known = match self.password {
                PasswordState::Unasked if is_password => self.show_password().await?,
                PasswordState::Shown(_) | PasswordState::Judged if is_password => {
                    self.note("it asks for the password once more".to_owned());
                    self.ended = Some(End::WrongPassword);
                    return Ok(None);
                }
                _ => None,
            };
            let answer = match known {
                Some(password) => Some(password),
                None => self.answer_of_the_operator(instructions, prompt).await,
            };
            let Some(answer) = answer else { return Ok(None) };
            self.has_answered = true;
            answers.push(answer.expose().to_owned());
        }
        Ok(Some(answers))
    }

    async fn answer_of_the_operator(&mut self, instructions: &str, prompt: &Prompt) -> Option<Secret> {
        let words = [instructions.trim(), prompt.prompt.trim()];
        let words: Vec<&str> = words.into_iter().filter(|words| !words.is_empty()).collect();
        let question = Question::HostPrompt {
            at: self.means.login.at.clone(),
            user: self.means.login.user.clone(),
            text: words.join(" "),
            echo: if prompt.echo { Echo::Shown } else { Echo::Hidden },
        };
        let answer = self.means.deadline.beside(self.means.questions.ask(question)).await;
        if answer.is_some() {
            self.offered.push(format!("an answer to `{}`", prompt.prompt.trim()));
        } else {
            self.note(format!("it asks `{}`, and nobody answers", prompt.prompt.trim()));
            self.ended = Some(End::Unanswered);
        }
        answer
    }

    /// Notes what the host says to what was typed.
    fn accept(&mut self, answer: Answer, what: &str) -> Answer {
        match answer {
            Answer::Partial => {
                self.password_accepted();
                self.accepted.push(what.to_owned());
            }
            Answer::Welcome => self.password_accepted(),
            Answer::Refused => self.password_refused(),
        }
        answer
    }
}

/// Returns whether a prompt asks plainly for the user's password: `Password:`, `rke@node-1's password:`, `LDAP Password:`.
fn asks_for_the_password(prompt: &str) -> bool {
    let prompt = prompt.to_lowercase();
    let words: Vec<&str> = prompt.split(|letter: char| !letter.is_alphanumeric()).collect();
    words.contains(&"password") && !words.iter().any(|word| NOT_THE_PASSWORD.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_given_to_those_who_plainly_ask_for_it() {
        for (prompt, expected) in [
            ("Password: ", true),
            ("password:", true),
            ("rke@node-1's password:", true),
            ("Password for rke@EXAMPLE.NET:", true),
            ("LDAP Password: ", true),
            ("Verification code: ", false),
            ("One-time password (OATH) for `rke': ", false),
            ("OTP Password:", false),
            ("New password: ", false),
            ("Retype new password:", false),
            ("Password has expired. Change it now:", false),
            ("Passcode or option (1-3): ", false),
            ("Passphrase:", false),
            ("", false),
        ] {
            assert_eq!(asks_for_the_password(prompt), expected, "{prompt}");
        }
    }
}
