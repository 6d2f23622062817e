//! What the operator types at a terminal: passphrases and passwords, asked once for all nodes and never shown.

use std::process::Stdio;

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::accounts::{Accounts, PASSWORD};
use super::daemon::{Daemon, skipped};
use super::operator::Operator;

/// Runs the program at a terminal of its own, types an answer whenever a prompt shows, and returns status and screen.
async fn at_terminal(operator: &Operator, words: &str, answers: &[(&str, &str)]) -> Option<(i32, String)> {
    at_shell(operator, &format!("{} {words}", env!("CARGO_BIN_EXE_certroll")), answers).await
}

/// The same for a line of a shell.
async fn at_shell(operator: &Operator, line: &str, answers: &[(&str, &str)]) -> Option<(i32, String)> {
    if !std::path::Path::new("/usr/bin/script").exists() {
        skipped("what is typed at a terminal: there is no `script` here (util-linux)");
        return None;
    }
    let mut command = operator.command("/usr/bin/script");
    let mut child = command.args(["-qec", line, "/dev/null"]).stdin(Stdio::piped()).spawn().unwrap();
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = String::new();
    let mut answers = answers.iter();
    let mut next = answers.next();
    let watch = async {
        let mut bytes = [0; 4096];
        let mut seen = 0;
        loop {
            let count = screen.read(&mut bytes).await.unwrap_or(0);
            if count == 0 {
                break;
            }
            shown += &String::from_utf8_lossy(&bytes[..count]);
            if let Some((prompt, answer)) = next
                && shown[seen..].contains(prompt)
            {
                seen = shown.len();
                next = answers.next();
                keyboard.write_all(format!("{answer}\r").as_bytes()).await.unwrap();
            }
        }
        child.wait().await.unwrap()
    };
    let Ok(status) = tokio::time::timeout(super::operator::LIMIT, watch).await else {
        panic!("`{line}` does not end:\n{shown}")
    };
    Some((status.code().unwrap(), shown))
}

#[tokio::test]
async fn the_passphrase_of_an_encrypted_key_is_asked_for_once() {
    let Some(operator) = Operator::new() else { return };
    let nodes = [Daemon::start(&operator, ""), Daemon::start(&operator, "")];
    operator.cluster(&nodes.each_ref().map(|node| node.address));
    let encrypted = operator.key.encrypt(&mut safe_rng(), "open-sesame").unwrap();
    operator.write("id_key", &encrypted.to_openssh(LineEnding::LF).unwrap());
    let answers = [("assphrase", "open-sesame")];
    let Some((status, shown)) = at_terminal(&operator, "exec -- echo here", &answers).await else { return };
    assert_eq!((status, shown.matches("assphrase").count()), (0, 1), "{shown}");
    assert!(!shown.contains("sesame") && shown.matches("here").count() == 2, "{shown}");

    let error = operator.exec(&[], "true").await.1.remove(0).error.unwrap();
    assert!(error.contains("is encrypted and no passphrase was given"), "{error}");
}

#[tokio::test]
async fn ctrl_c_at_a_question_leaves_the_terminal_as_it_was() {
    let Some(operator) = Operator::new() else { return };
    operator.cluster(&[Daemon::start(&operator, "").address]);
    let encrypted = operator.key.encrypt(&mut safe_rng(), "open-sesame").unwrap();
    operator.write("id_key", &encrypted.to_openssh(LineEnding::LF).unwrap());
    for words in ["exec -- true", "check"] {
        // The shell says what it finds afterwards: Ctrl-C at the first moment of a question is for it, too.
        let program = env!("CARGO_BIN_EXE_certroll");
        let line = format!("trap : INT; {program} {words}; echo status $?; stty -a");
        let Some((_, shown)) = at_shell(&operator, &line, &[("assphrase", "\u{3}")]).await else { return };
        assert!(shown.contains("status 130"), "{shown}");
        for setting in [" echo ", " icanon ", "isig "] {
            assert!(shown.contains(setting), "{setting}: {shown}");
        }
    }
}

#[tokio::test]
async fn a_password_is_asked_for_once_where_it_is_wanted() {
    let Some(operator) = Operator::new() else { return };
    let accounts = [("one", "/bin/sh", ""), ("two", "/bin/sh", "")];
    // Where a key is enough, nobody is asked.
    for (methods, questions) in [("password", 1), ("publickey,password", 1), ("publickey password", 0)] {
        let config = format!("PasswordAuthentication yes\nAuthenticationMethods {methods}");
        let Some(sshd) = Accounts::configured(&operator, &accounts, &config) else { return };
        let answers = [("assword", PASSWORD)];
        let asked = at_terminal(&operator, "exec --ask-password -- echo reached", &answers).await;
        let Some((status, shown)) = asked else { return };
        assert_eq!((status, shown.matches("assword").count()), (0, questions), "{methods}: {shown}");
        assert!(!shown.contains(PASSWORD) && shown.matches("reached").count() == 2, "{methods}: {shown}");
        let log = sshd.daemon.finish();
        assert!(!log.contains(PASSWORD) && !log.contains("Failed password"), "{methods}: {log}");
    }
}

#[tokio::test]
async fn a_mistyped_password_is_shown_to_one_node_and_asked_for_again_at_another() {
    let Some(operator) = Operator::new() else { return };
    let accounts = [("one", "/bin/sh", ""), ("two", "/bin/sh", ""), ("three", "/bin/sh", "")];
    let config = "PasswordAuthentication yes\nAuthenticationMethods publickey,password";
    let Some(sshd) = Accounts::configured(&operator, &accounts, config) else { return };
    let wrong = ("assword", "wrong-and-secret");
    let again = "has not accepted that one. Password of";
    for (second, reached, untried) in [(PASSWORD, 2, 0), ("", 0, 2)] {
        let words = "exec --ask-password -- echo reached";
        let Some((status, shown)) = at_terminal(&operator, words, &[wrong, (again, second)]).await else {
            return;
        };
        assert_eq!(status, 1, "{shown}");
        assert_eq!(shown.matches("it is not tried here").count(), untried, "{shown}");
        assert_eq!(shown.matches("reached\r\n").count(), reached, "{shown}");
        assert!(!shown.contains("wrong-and-secret") && shown.contains("is this the password of"), "{shown}");
    }
    let asked = at_terminal(&operator, "exec --ask-password -- true", &[("assword", "\u{3}")]).await.unwrap();
    assert_eq!((asked.0, asked.1.matches("Password of").count()), (130, 1), "{}", asked.1);
    let log = sshd.daemon.finish();
    assert_eq!(log.matches("Failed password").count(), 2, "{log}");
    assert!(!log.contains("wrong-and-secret"), "{log}");
}

#[tokio::test]
async fn passwords_are_not_asked_for_where_there_is_no_terminal() {
    let Some(operator) = Operator::new() else { return };
    let daemon = Daemon::start(&operator, "");
    operator.cluster(&[daemon.address]);
    operator.certroll(&["exec", "--ask-password", "--", "true"]).await.expect(4);
    let log = daemon.finish();
    assert!(!log.contains("Connection from"), "{log}");
}
