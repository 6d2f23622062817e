//! Logins that differ in where and who: address, port, user, and what known_hosts says of the host.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::Command;

use russh::keys::{HashAlg, PublicKeyBase64 as _};

use super::daemon::{Daemon, Setup, skipped};
use super::operator::{Operator, ed25519};

/// Returns a line of known_hosts with a name and the host's key.
fn line(name: &str, daemon: &Daemon) -> String {
    let key = daemon.host_key.public_key();
    format!("{name} {} {}\n", key.algorithm(), key.public_key_base64())
}

fn bracketed(at: SocketAddr) -> String {
    format!("[{}]:{}", at.ip(), at.port())
}

#[tokio::test]
async fn a_key_at_a_port_of_its_own() {
    let Some(operator) = Operator::new() else { return };
    let daemon = Daemon::start(&operator, "");
    operator.cluster(&[daemon.address]);
    operator.reaches(&[]).await;
    let log = daemon.finish();
    assert_eq!(log.matches("Connection from ").count(), 1, "{log}");
    assert!(log.contains(&format!("Accepted publickey for {} from", operator.user)), "{log}");
}

#[tokio::test]
async fn known_hosts_in_every_form() {
    let Some(operator) = Operator::new() else { return };
    let daemon = Daemon::start(&operator, "");
    operator.cluster(&[daemon.address]);
    let at = bracketed(daemon.address);
    let SocketAddr::V4(address) = daemon.address else { unreachable!() };
    let wildcard = format!(
        "[{}.*]:{}",
        address.ip().octets().map(|octet| octet.to_string())[..3].join("."),
        at.rsplit(':').next().unwrap()
    );
    let forms = [
        at.clone(),
        format!("other.example,{at}"),
        wildcard,
        daemon.address.ip().to_string(),
        "*".to_owned(),
        format!("other,*,!{at}x"),
    ];
    for form in forms {
        operator.write(".ssh/known_hosts", &format!("# a comment\n\n{}", line(&form, &daemon)));
        operator.reaches(&[]).await;
    }
    operator.write(".ssh/known_hosts", &line(&at, &daemon));
    let hashed =
        Command::new("ssh-keygen").arg("-Hf").arg(operator.path(".ssh/known_hosts")).output().unwrap();
    assert!(hashed.status.success() && operator.read(".ssh/known_hosts").starts_with("|1|"), "{hashed:?}");
    operator.reaches(&[]).await;
}

#[tokio::test]
async fn host_keys_that_are_not_as_known() {
    let Some(operator) = Operator::new() else { return };
    let daemon = Daemon::stranger(&operator, &Setup::default());
    operator.cluster(&[daemon.address]);
    let at = bracketed(daemon.address);
    let fingerprint = daemon.host_key.fingerprint(HashAlg::Sha256).to_string();
    let mut other = line(&at, &daemon);
    let other_key = ed25519().public_key_base64();
    other.replace_range(other.rfind(' ').unwrap().., &format!(" {other_key}\n"));
    let negated = line(&format!("*,!{at},!{}", daemon.address.ip()), &daemon);
    let revoked = format!("{0}@revoked {0}", line(&at, &daemon));
    for (known, expected) in [
        ("", "is not known: ssh-ed25519"),
        (negated.as_str(), "is not known: ssh-ed25519"),
        (&other, "has changed: it shows ssh-ed25519"),
        (&revoked, "is revoked by"),
    ] {
        operator.write(".ssh/known_hosts", known);
        let error = operator.fails(&[]).await;
        assert!(error.contains(expected) && error.contains(&fingerprint), "{known}: {error}");
        assert!(error.contains(&daemon.address.to_string()), "{error}");
        assert_eq!(operator.read(".ssh/known_hosts"), known, "strict writes nothing");
    }
    let log = daemon.finish();
    assert!(!log.contains("publickey"), "no key is offered to a host that is not known: {log}");
}

#[tokio::test]
async fn accept_new_takes_a_key_once_and_never_another_one() {
    let Some(operator) = Operator::new() else { return };
    let daemon = Daemon::stranger(&operator, &Setup::default());
    operator.cluster(&[daemon.address]);
    operator.reaches(&["--host-keys", "accept-new"]).await;
    let known = operator.read(".ssh/known_hosts");
    assert_eq!(known, line(&bracketed(daemon.address), &daemon));
    operator.reaches(&[]).await;
    let other = ed25519().public_key_base64();
    let changed = known.replace(&daemon.host_key.public_key_base64(), &other);
    operator.write(".ssh/known_hosts", &changed);
    let error = operator.fails(&["--host-keys", "accept-new"]).await;
    assert!(error.contains("has changed"), "{error}");
    assert_eq!(operator.read(".ssh/known_hosts"), changed);
}

#[tokio::test]
async fn users_and_keys_that_options_name() {
    let Some(operator) = Operator::new() else { return };
    let daemon = Daemon::start(&operator, "");
    operator.cluster(&[daemon.address]);
    let error = operator.fails(&["--ssh-user", "nobody-of-that-name"]).await;
    assert!(error.contains("does not let `nobody-of-that-name` in"), "{error}");
    operator.write("cluster.yml", &operator.read("cluster.yml").replace("id_key", "elsewhere"));
    let error = operator.fails(&[]).await;
    assert!(error.contains("elsewhere`, named by `ssh_key_path`, does not exist"), "{error}");
    operator.reaches(&["--ssh-key", "id_key", "--ssh-user", &operator.user]).await;
}

#[tokio::test]
async fn an_address_of_ipv6() {
    let Some(operator) = Operator::new() else { return };
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return skipped("a node at an address of IPv6: this machine has no `::1`");
    }
    let setup = Setup { address: Some(IpAddr::V6(Ipv6Addr::LOCALHOST)), ..Setup::default() };
    let daemon = Daemon::known(&operator, &setup);
    operator.cluster(&[daemon.address]);
    operator.reaches(&[]).await;
    operator.write(".ssh/known_hosts", "");
    let error = operator.fails(&[]).await;
    assert!(error.contains(&format!("host key of {} is not known", daemon.address)), "{error}");
}
