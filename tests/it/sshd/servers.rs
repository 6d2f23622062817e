//! Servers that are configured as people do: each has what it may have, and says clearly what it does not allow.

use std::fs;

use super::daemon::{Daemon, Setup};
use super::operator::{Heard, Operator};

/// What comes of a command on one server.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// It runs as anywhere.
    Runs,
    /// Something else runs in its place: its status, and a part of what it prints.
    Instead(u32, &'static str),
    /// It does not run, and this is part of the reason that is given.
    Refused(&'static str),
}

use Outcome::{Instead, Refused, Runs};

/// Lines of `sshd_config`, and what comes of them.
const SERVERS: [(&str, Outcome); 26] = [
    ("", Runs),
    ("MaxSessions 1", Runs),
    ("MaxSessions 0", Refused("refused a session")),
    ("MaxAuthTries 1", Runs),
    ("MaxStartups 1", Runs),
    ("AllowTcpForwarding no\nDisableForwarding yes", Runs),
    ("PermitTTY no", Runs),
    ("Subsystem sftp /bin/false", Runs),
    ("Banner /etc/passwd", Runs),
    ("RekeyLimit 16K", Runs),
    ("Compression no\nTCPKeepAlive no\nClientAliveInterval 1\nUseDNS yes", Runs),
    ("KexAlgorithms diffie-hellman-group14-sha256", Runs),
    ("KexAlgorithms ecdh-sha2-nistp521\nCiphers aes256-ctr\nMACs hmac-sha2-512", Runs),
    ("KexAlgorithms sntrup761x25519-sha512@openssh.com", Refused("no common algorithm")),
    ("Ciphers chacha20-poly1305@openssh.com", Runs),
    ("Ciphers aes256-cbc", Refused("no common algorithm")),
    ("MACs hmac-md5\nCiphers aes128-ctr", Refused("no common algorithm")),
    ("PubkeyAuthentication no\nPasswordAuthentication yes", Refused("it takes no keys, but: password")),
    (
        "AuthenticationMethods publickey,password\nPasswordAuthentication yes",
        Refused("and wants one more proof, by: password"),
    ),
    ("PubkeyAcceptedAlgorithms rsa-sha2-512", Refused("does not let")),
    ("AllowUsers somebody-else", Refused("does not let")),
    (
        "ForceCommand echo \"in place of $SSH_ORIGINAL_COMMAND\"; exit 3",
        Instead(3, "in place of printf out;"),
    ),
    ("ForceCommand /usr/sbin/nologin", Instead(1, "This account is currently not available")),
    ("ForceCommand internal-sftp", Instead(1, "")),
    ("ForceCommand kill -KILL $$", Refused("ended by signal KILL")),
    ("ForceCommand kill -KILL $PPID", Refused("was lost before a command answered")),
];

#[tokio::test]
async fn a_command_on_servers_of_every_kind() {
    let Some(operator) = Operator::new() else { return };
    let daemons: Vec<Daemon> = SERVERS.map(|(config, _)| Daemon::start(&operator, config)).into();
    operator.cluster(&daemons.iter().map(|daemon| daemon.address).collect::<Vec<_>>());
    let command = "printf out; printf err >&2; head -c 100000 /dev/zero | tr '\\0' x";
    let (status, heard) = operator.exec(&["--command-timeout", "3s"], command).await;
    assert_eq!((status, heard.len()), (1, SERVERS.len()));
    let expected = "out".to_owned() + &"x".repeat(100_000);
    for ((config, outcome), node) in SERVERS.into_iter().zip(&heard) {
        match outcome {
            Runs => assert!(
                node.status == Some(0) && node.stdout == expected && node.stderr == "err",
                "{config}: {:?} {} {:?}",
                node.status,
                node.stdout.len(),
                node.error
            ),
            Instead(status, text) => {
                let printed = format!("{}{}", node.stdout, node.stderr);
                assert!(node.status == Some(status) && printed.contains(text), "{config}: {node:?}");
            }
            Refused(reason) => assert_is_refused(config, reason, node),
        }
    }
}

#[track_caller]
fn assert_is_refused(config: &str, reason: &str, node: &Heard) {
    let error = node.error.as_deref().unwrap_or_default();
    assert!(node.status.is_none() && error.contains(reason), "{config}: {:?} {error}", node.status);
    assert_eq!(error.lines().count(), 1, "{config}: {error}");
}

#[tokio::test]
async fn a_look_at_nodes_that_chatter_or_forbid() {
    let Some(operator) = Operator::new() else { return };
    let chatter = "echo 'Welcome to the node!'; echo; echo 'M access root'; echo oops >&2\n";
    operator.write("rc", chatter);
    let rc = operator.path("rc");
    let environment = format!("SetEnv BASH_ENV={0} ENV={0}", rc.display());
    let servers = [
        "",
        environment.as_str(),
        "Banner /etc/passwd",
        "MaxSessions 1",
        "AllowTcpForwarding no\nDisableForwarding yes",
        "PermitTTY no",
        "ForceCommand echo no shell for you",
        "ForceCommand /usr/sbin/nologin",
    ];
    let daemons: Vec<Daemon> = servers.iter().map(|config| Daemon::start(&operator, config)).collect();
    fs::write(daemons[0].path("home/.bashrc"), chatter).unwrap();
    operator.cluster(&daemons.iter().map(|daemon| daemon.address).collect::<Vec<_>>());
    let seen = operator.certroll(&["check", "-o", "json"]).await.expect(1).json();
    let errors: Vec<&str> = seen["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["error"].as_str().unwrap_or_default())
        .collect();
    for error in &errors[..6] {
        // A plain user may have no way to root on this machine; the look came that far.
        let is_seen =
            error.is_empty() || operator.user != "root" && error.starts_with("no way to root: uid ");
        assert!(is_seen, "{errors:#?}");
    }
    for (error, said) in
        errors[6..].iter().zip(["no shell for you", "This account is currently not available"])
    {
        assert!(error.contains(said) && error.lines().count() == 1, "{error}");
    }
}

#[tokio::test]
async fn a_node_that_lets_few_log_in_at_a_time() {
    let Some(operator) = Operator::new() else { return };
    let setup = Setup { config: "MaxStartups 2:50:10", further: 14, ..Setup::default() };
    let (one, two) = (Daemon::known(&operator, &setup), Daemon::known(&operator, &setup));
    operator.cluster(&[one.addresses.clone(), two.addresses.clone()].concat());
    operator.reaches(&[]).await;
}
