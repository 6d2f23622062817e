//! Becoming root through the real sudo, with every shell that a login may have: the sshd sees users and a sudoers of its own.

use std::path::Path;

use certroll::command::{
    Access, BecomeRoot, Body, Command, DEFAULT_DOCKER_SOCKET, Password, Search, WaysToRoot,
};
use certroll::inventory::{Inventory, Secret};
use certroll::transport::{Approach, AskSecret, Next, Question, Session, Settings, Transport};
use zeroize::Zeroizing;

use super::daemon::{Daemon, Setup, skipped};
use super::operator::Operator;

/// What `rke` has to type, and how `/etc/shadow` keeps it.
const PASSWORD: &str = "open sesame";
const HASH: &str =
    "$6$certroll$1XkWJ7cMkpKfBDhO3WiXwbrUVTFydMzzZ4ZGmWrNvQ2hyMe4wk3.BXdfy0JbTWUx1euXhIZyJ91NwVA38DXso0";

/// Sudoers in which the user `rke` needs no password, and in which it needs one.
const FREE: &str = "rke ALL=(ALL) NOPASSWD: ALL";
const ASKING: &str = "rke ALL=(ALL) ALL";

/// Returns an operator where an sshd can be given users of its own: by root, where all of some programs are there.
fn operator(programs: &[&str]) -> Option<Operator> {
    let operator = Operator::new()?;
    if operator.user != "root" {
        skipped("`sshd::root`: users of its own can be given to an sshd by root alone");
        return None;
    }
    let missing: Vec<_> = programs.iter().filter(|program| !Path::new(program).exists()).collect();
    if !missing.is_empty() {
        skipped(&format!("a test of `sshd::root`: {missing:?} are not here"));
        return None;
    }
    Some(operator)
}

/// Starts an sshd with a user `rke`, its login shell, and a sudoers.
fn start(operator: &Operator, shell: &str, sudoers: &str, config: &str) -> Daemon {
    let beside = |path: &'static str, line: &str| {
        let text = std::fs::read_to_string(path).unwrap();
        (path, format!("{}\n{line}\n", text.trim_end()))
    };
    std::fs::create_dir_all(operator.path("rke")).unwrap();
    // The home of `rke`, in that of the operator: a fish writes there.
    for (folder, mode) in [("", 0o755), ("rke", 0o777)] {
        let open = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(operator.path(folder), open).unwrap();
    }
    let files = [
        beside("/etc/passwd", &format!("rke:x:7654:7654::/:{shell}")),
        beside("/etc/shadow", &format!("rke:{HASH}:19000:0:99999:7:::")),
        ("/etc/sudoers", format!("Defaults !lecture\nroot ALL=(ALL) ALL\n{sudoers}\n")),
    ];
    let config = format!("SetEnv HOME={}\n{config}", operator.path("rke").display());
    Daemon::known(operator, &Setup { config: &config, files: &files, ..Setup::default() })
}

/// What `check` says of the one node, which `rke` logs in to.
async fn seen(operator: &Operator, daemon: &Daemon, options: &[&str]) -> (String, String) {
    operator.cluster(&[daemon.address]);
    let words = [&["check", "-o", "json", "--ssh-user", "rke"], options].concat();
    let seen = operator.certroll(&words).await.json();
    let text = |name: &str| seen["nodes"][0][name].as_str().unwrap_or_default().to_owned();
    (text("access"), text("error"))
}

#[tokio::test]
async fn login_shells_that_are_not_posix() {
    for shell in ["/usr/bin/fish", "/usr/bin/tcsh"] {
        let Some(operator) = operator(&["/usr/bin/sudo", shell]) else { return };
        let daemon = start(&operator, shell, FREE, "");
        assert_eq!(seen(&operator, &daemon, &[]).await, ("sudo".to_owned(), String::new()), "{shell}");
        let daemon = start(&operator, shell, &format!("{FREE}\nDefaults requiretty"), "");
        assert_eq!(seen(&operator, &daemon, &[]).await, ("sudo".to_owned(), String::new()), "{shell}");
    }
}

#[tokio::test]
async fn a_password_that_sudo_wants() {
    let Some(operator) = operator(&["/usr/bin/sudo"]) else { return };
    let daemon = start(&operator, "/bin/sh", ASKING, "");
    operator.write("password", &format!("{PASSWORD}\n"));
    let file = ["--become-password-file", "password"];
    assert_eq!(seen(&operator, &daemon, &file).await, ("sudo".to_owned(), String::new()));

    let (access, error) = seen(&operator, &daemon, &[]).await;
    assert!(access.is_empty() && error.contains("a password is required"), "{error}");
    operator.write("password", "wrong\n");
    let ended = operator.certroll(&[&["check", "--ssh-user", "rke"], &file[..]].concat()).await;
    let said = ended.expect(1).stdout.clone() + &ended.stderr;
    assert!(said.contains("no way to root") && said.contains("accounts are locked"), "{said}");
    assert!(!said.contains("wrong\n"), "{said}");
}

#[tokio::test]
async fn a_password_file_that_others_can_read_is_refused() {
    let Some(operator) = operator(&[]) else { return };
    operator.write("password", PASSWORD);
    std::fs::set_permissions(operator.path("password"), std::os::unix::fs::PermissionsExt::from_mode(0o640))
        .unwrap();
    let ended = operator.certroll(&["check", "--become-password-file", "password"]).await;
    assert_eq!(
        ended.expect(2).stderr,
        "error: the password file `password` is open to others than its owner (mode 0640)\n\
         hint: close it: `chmod 600 password`\n"
    );
}

#[tokio::test]
async fn logins_that_run_no_commands() {
    let Some(operator) = operator(&["/usr/bin/sudo", "/usr/sbin/nologin", "/bin/rbash"]) else { return };
    let cases = [
        ("/usr/sbin/nologin", "", "", "This account is currently not available"),
        ("/bin/sh", "ForceCommand echo only backups here", "", "only backups here"),
        ("/bin/rbash", "", "", "restricted"),
        ("/bin/bash", "", "exit 0", "it said nothing"),
    ];
    for (shell, config, profile, expected) in cases {
        let daemon = start(&operator, shell, FREE, config);
        std::fs::write(operator.path("rke/.bashrc"), profile).unwrap();
        let (access, error) = seen(&operator, &daemon, &[]).await;
        assert!(access.is_empty() && error.contains(expected), "{shell} {config}: {access} {error}");
    }
}

#[tokio::test]
async fn a_profile_that_talks() {
    let Some(operator) = operator(&["/usr/bin/sudo", "/bin/bash"]) else { return };
    let daemon = start(&operator, "/bin/bash", FREE, "");
    std::fs::write(operator.path("rke/.bashrc"), "echo Welcome; echo 'to this machine' >&2; set -x\n")
        .unwrap();
    assert_eq!(seen(&operator, &daemon, &[]).await, ("sudo".to_owned(), String::new()));
}

/// Knows nothing.
struct Nobody;

impl AskSecret for Nobody {
    fn ask(&self, _: &Question) -> Option<Secret> {
        None
    }
}

/// Logs in to the one node as `rke`, and finds the way to root.
async fn enter(operator: &Operator, daemon: &Daemon) -> (Session, Access) {
    operator.cluster(&[daemon.address]);
    let text = operator.read("cluster.yml").replace("~/", &format!("{}/", operator.path("").display()));
    let inventory = Inventory::parse(&text, "cluster.yml").unwrap().inventory;
    let mut settings = Settings::new(operator.path(""), std::sync::Arc::new(Nobody));
    settings.user = Some("rke".to_owned());
    settings.sudo_password = Some(Secret::new(PASSWORD.to_owned()));
    let transport = Transport::new(settings, None).unwrap();
    let session = transport.connect(&inventory.nodes[0]).await.unwrap();
    let ways = WaysToRoot {
        become_root: BecomeRoot::Auto,
        docker_socket: DEFAULT_DOCKER_SOCKET,
        marker: "certroll-test",
        password: Password::Absent,
    };
    let mut approach = Approach::new(&session, ways);
    loop {
        let stdin = approach.stdin(b"");
        let output = session.run_line(&approach.script(Body::Look(":")), Some(&stdin), None).await.unwrap();
        let search = Search::read(&output.stdout_text(), ways.marker);
        if approach.learn(&search).await.unwrap() == Next::Done {
            let Search::Found(access) = search else { panic!("{}", output.stdout_text()) };
            return (session, access);
        }
    }
}

#[tokio::test]
async fn commands_read_and_write_bytes_as_they_are_however_they_become_root() {
    let Some(operator) = operator(&["/usr/bin/sudo", "/usr/bin/fish"]) else { return };
    // Every byte, and lines that are no lines.
    let data: Vec<u8> =
        (0..200_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let requiretty = "Defaults requiretty";
    let sudoers = [
        (FREE.to_owned(), Access::Sudo),
        (ASKING.to_owned(), Access::SudoWithPassword),
        (format!("{FREE}\n{requiretty}"), Access::Sudo),
        (format!("{ASKING}\n{requiretty}"), Access::SudoWithPassword),
        (format!("{ASKING}\n{requiretty}\nDefaults use_pty"), Access::SudoWithPassword),
    ];
    for (sudoers, expected) in sudoers {
        for shell in ["/bin/sh", "/usr/bin/fish"] {
            let daemon = start(&operator, shell, &sudoers, "");
            let (session, access) = enter(&operator, &daemon).await;
            assert_eq!(access, expected, "{sudoers}");
            let command = Command::new("cat; id -u >&2; echo 'it'\\''s!' >&2; exit 3")
                .with_stdin(Zeroizing::new(data.clone()));
            let output = session.run(&command, &access, DEFAULT_DOCKER_SOCKET).await.unwrap();
            assert_eq!(
                (output.status, output.stderr_text().as_str()),
                (Some(3), "0\nit's!"),
                "{sudoers} {shell}"
            );
            assert!(*output.stdout == data, "{sudoers} {shell}: {} bytes", output.stdout.len());
            let output = session.run(&Command::new("cat"), &access, DEFAULT_DOCKER_SOCKET).await.unwrap();
            assert_eq!((output.status, output.stdout.len()), (Some(0), 0), "{sudoers} {shell}");
        }
    }
}
