//! The ways to root, tried by the shells of this machine beside a `sudo` and a `docker` that are scripts.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on panics")]
#![expect(
    clippy::disallowed_methods,
    reason = "the programs of a node are written, and its shell started, by the test"
)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use certroll::command::{
    Access, BecomeRoot, Body, DEFAULT_DOCKER_SOCKET, Missing, Password, Search, WaysToRoot, with_password,
};

const MARKER: &str = "certroll-test";

/// A `sudo` that takes the password `open sesame`, and reads it as the real one does: a line, and no byte of what follows.
const ASKING_SUDO: &str = r#"
echo "$*" >>"$CALLS"
case $1 in -n) echo 'sudo: a password is required' >&2; exit 1 ;; esac
while [ "$1" != -p ]; do shift; done
shift 2
IFS= read -r given || { echo 'sudo: no password was provided' >&2; exit 1; }
if [ "$given" != 'open sesame' ]; then
  printf 'Sorry, try again.\n' >&2
  IFS= read -r given && echo "tried again: $given" >>"$CALLS"
  printf 'sudo: no password was provided\nsudo: 1 incorrect password attempt\n' >&2
  exit 1
fi
exec "$@"
"#;

/// What a node answered.
struct Answer {
    search: Search,
    stdout: String,
    status: Option<i32>,
    /// What `sudo` was called with.
    calls: String,
}

/// A folder of programs that a node has.
struct Node(tempfile::TempDir);

impl Node {
    fn with(programs: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in
            [("id", "echo 1000"), ("sudo", "exit 1"), ("docker", "exit 1")].iter().chain(programs)
        {
            program(folder.path(), name, text);
        }
        Self(folder)
    }

    /// Gives a script to a shell, as sshd gives it to that of the login.
    fn run(&self, shell: &[&str], script: &str, stdin: &[u8]) -> Answer {
        let path = self.0.path().to_str().unwrap();
        let calls = format!("{path}/calls");
        let (program, arguments) = shell.split_first().unwrap();
        let mut child = Command::new(program)
            .args(arguments)
            .args(["-c", script])
            .env("PATH", format!("{path}:/usr/bin:/bin"))
            .env("CALLS", &calls)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Who finds no way to root reads nothing.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        let output = child.wait_with_output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        Answer {
            search: Search::read(&stdout, MARKER),
            stdout,
            status: output.status.code(),
            calls: fs::read_to_string(calls).unwrap_or_default(),
        }
    }
}

fn program(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn ways(become_root: BecomeRoot, password: Password) -> WaysToRoot<'static> {
    WaysToRoot { become_root, docker_socket: DEFAULT_DOCKER_SOCKET, marker: MARKER, password }
}

/// The shells of this machine that a node's login may have; `sh` is on every one.
fn shells() -> Vec<Vec<&'static str>> {
    let all: [&[&str]; 5] =
        [&["/bin/sh"], &["/bin/bash"], &["/bin/dash"], &["/usr/bin/zsh"], &["/usr/bin/busybox", "sh"]];
    let is_there = |shell: &&[&str]| Path::new(shell[0]).exists() && runs_what_is_in_its_path(shell);
    all.into_iter().filter(is_there).map(<[&str]>::to_vec).collect()
}

/// Returns whether a shell runs the programs that these tests write: a static busybox has its own `id`, wherever `PATH` leads.
fn runs_what_is_in_its_path(shell: &[&str]) -> bool {
    let node = Node::with(&[("id", "echo 4711")]);
    let answer =
        Command::new(shell[0]).args(&shell[1..]).args(["-c", "id"]).env("PATH", node.0.path()).output();
    answer.unwrap().stdout == b"4711\n"
}

#[test]
fn a_command_gets_its_data_and_its_status_is_the_answer() {
    let body = Body::Command("cat; exit 127");
    for shell in shells() {
        let root = Node::with(&[("id", "echo 0"), ("sudo", ASKING_SUDO)]);
        let answer = root.run(&shell, &ways(BecomeRoot::Auto, Password::Absent).script(body), b"data\n");
        assert_eq!((answer.search, answer.status), (Search::Found(Access::Root), Some(127)), "{shell:?}");
        assert!(answer.stdout.ends_with("access root\ndata\n"), "{shell:?}: {}", answer.stdout);

        // A password that nobody asks for is not data.
        let stdin = with_password("open sesame", b"data\n");
        let script = ways(BecomeRoot::Auto, Password::OnStdin).script(body);
        let answer = root.run(&shell, &script, &stdin);
        assert!(answer.stdout.ends_with("access root\ndata\n"), "{shell:?}: {}", answer.stdout);
        assert_eq!(answer.calls, "", "{shell:?}");

        let free = Node::with(&[("sudo", "[ \"$1\" = -n ] && shift\nexec \"$@\"")]);
        let answer = free.run(&shell, &script, &stdin);
        assert_eq!((answer.search, answer.status), (Search::Found(Access::Sudo), Some(127)), "{shell:?}");
        assert!(answer.stdout.ends_with("access sudo\ndata\n"), "{shell:?}: {}", answer.stdout);
    }
}

#[test]
fn a_password_reaches_sudo_alone() {
    let script = ways(BecomeRoot::Auto, Password::OnStdin).script(Body::Command("cat"));
    for shell in shells() {
        let node = Node::with(&[("sudo", ASKING_SUDO)]);
        let answer = node.run(&shell, &script, &with_password("open sesame", b"data\n"));
        assert_eq!(answer.search, Search::Found(Access::SudoWithPassword), "{shell:?}: {}", answer.stdout);
        assert!(answer.stdout.ends_with("access sudo password\ndata\n"), "{shell:?}: {}", answer.stdout);
        assert!(!answer.calls.contains("sesame"), "{shell:?}: {}", answer.calls);

        let line = Access::SudoWithPassword.wrap("cat; exit 3", DEFAULT_DOCKER_SOCKET);
        let answer = node.run(&shell, &line, &with_password("open sesame", b"more\n"));
        assert_eq!((answer.stdout.as_str(), answer.status), ("more\n", Some(3)), "{shell:?}");
    }
}

#[test]
fn a_profile_that_traces_shows_no_password() {
    let script = ways(BecomeRoot::Auto, Password::OnStdin).script(Body::Command("cat; env"));
    let line = Access::SudoWithPassword.wrap("cat; env", DEFAULT_DOCKER_SOCKET);
    let node = Node::with(&[("sudo", ASKING_SUDO)]);
    for script in [script, line] {
        let script = format!("exec 2>&1; set -ax\n{script}");
        let answer = node.run(&["/bin/sh"], &script, &with_password("open sesame", b"data\n"));
        assert!(answer.stdout.contains("data\n"), "{}", answer.stdout);
        assert!(!answer.stdout.contains("sesame"), "{}", answer.stdout);
    }
}

#[test]
fn a_wrong_password_is_tried_once_and_eats_no_data() {
    let node = Node::with(&[("sudo", ASKING_SUDO)]);
    let script = ways(BecomeRoot::Auto, Password::OnStdin).script(Body::Command("cat"));
    let answer = node.run(&["/bin/sh"], &script, &with_password("guess", b"data\n"));
    let Search::Refused(refused) = answer.search else { panic!("{}", answer.stdout) };
    assert_eq!(refused.missing, Some(Missing::RightPassword));
    assert_eq!(
        refused.reasons,
        "uid 1000; sudo: sudo: a password is required; docker: ; with the password: sudo: 1 incorrect password attempt"
    );
    assert_eq!(answer.calls, "-n true\n-k -S -p  true\n");

    let line = Access::SudoWithPassword.wrap("cat", DEFAULT_DOCKER_SOCKET);
    let answer = node.run(&["/bin/sh"], &line, &with_password("guess", b"data\n"));
    assert_eq!((answer.stdout.as_str(), answer.status), ("", Some(1)));
    assert!(!answer.calls.contains("tried again"), "{}", answer.calls);
}

#[test]
fn what_sudo_misses_is_told() {
    let cases = [
        ("sudo: a password is required", Some(Missing::Password)),
        ("sudo: sorry, a password is required to run sudo", Some(Missing::Password)),
        ("sudo: sorry, you must have a tty to run sudo", Some(Missing::Terminal)),
        ("someone is not in the sudoers file.", None),
    ];
    for (said, missing) in cases {
        let node = Node::with(&[("sudo", &format!("echo '{said}' >&2; exit 1"))]);
        let script = ways(BecomeRoot::Sudo, Password::Absent).script(Body::Look(":"));
        let answer = node.run(&["/bin/sh"], &script, b"");
        let Search::Refused(refused) = answer.search else { panic!("{}", answer.stdout) };
        assert_eq!(refused.missing, missing, "{said}");
        assert!(refused.reasons.contains(said), "{}", refused.reasons);
    }
    // Who wants docker alone is not told of sudo.
    let node = Node::with(&[("sudo", ASKING_SUDO)]);
    let script = ways(BecomeRoot::Docker, Password::Absent).script(Body::Look(":"));
    let answer = node.run(&["/bin/sh"], &script, b"");
    let Search::Refused(refused) = answer.search else { panic!("{}", answer.stdout) };
    assert_eq!((refused.missing, answer.calls.as_str()), (None, ""));
}

#[test]
fn a_command_is_begun_in_one_image_alone() {
    // An image without `chroot` first, then one that has it; the command itself ends as docker does when it finds none.
    let docker = r#"
case $1 in
inspect) exit 1 ;;
images) printf 'sha256:bare\nsha256:whole\n' ;;
run)
  case "$*" in *sha256:bare*) echo 'docker: no chroot' >&2; exit 127 ;; esac
  while [ "$1" != /host ]; do shift; done
  shift
  exec "$@" ;;
esac
"#;
    let node = Node::with(&[("docker", docker)]);
    let found = || Search::Found(Access::Docker { image: "sha256:whole".to_owned() });
    let script = ways(BecomeRoot::Auto, Password::Absent).script(Body::Command("cat; exit 127"));
    let answer = node.run(&["/bin/sh"], &script, b"data\n");
    assert_eq!((answer.search, answer.status), (found(), Some(127)), "{}", answer.stdout);
    assert_eq!(answer.stdout, "\ncertroll-test access docker sha256:whole\ndata\n");

    let script = ways(BecomeRoot::Auto, Password::Absent).script(Body::Look("echo seen"));
    let answer = node.run(&["/bin/sh"], &script, b"");
    assert_eq!(answer.search, found(), "{}", answer.stdout);
    assert!(answer.stdout.ends_with("access docker sha256:whole\nseen\n"), "{}", answer.stdout);
}
