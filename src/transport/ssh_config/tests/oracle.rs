//! What `ssh -G` says of the same files, where there is an `ssh`.
#![expect(clippy::disallowed_methods, reason = "the test asks OpenSSH")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Command;

use proptest::prelude::*;

use super::*;

/// What OpenSSH says: its words in the order in which they come, by keyword.
type Said = BTreeMap<String, Vec<String>>;

/// Returns what `ssh -G` says of a host; nothing where it refuses the file.
fn said(file: &Path, host: &str) -> Option<Said> {
    let output = Command::new("ssh").arg("-G").arg("-F").arg(file).arg(host).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut said = Said::new();
    for (keyword, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        said.entry(keyword.to_owned()).or_default().push(value.to_owned());
    }
    output.status.success().then_some(said)
}

/// Returns whether there is an OpenSSH to ask; says so where there is none, past the capture of the tests' output.
fn can_ask() -> bool {
    let is_there = Command::new("ssh").arg("-V").output().is_ok();
    if !is_there {
        let _ = writeln!(std::io::stderr(), "skipped: there is no `ssh` to compare the ssh_config with");
    }
    is_there
}

/// Returns what we say, in the words of OpenSSH, for the keywords that are told.
fn ours(config: &SshConfig, host: &str, local_user: &str) -> Said {
    let found = config.look_up(&Query { host, user: None, local_user });
    let mut said = Said::new();
    let mut say = |keyword: &str, values: Vec<String>| {
        if !values.is_empty() {
            said.insert(keyword.to_owned(), values);
        }
    };
    let text = |value: Option<&Found<String>>| value.map(|found| found.value.clone());
    let host_name = text(found.host_name.as_ref()).unwrap_or_else(|| host.to_owned());
    say("hostname", vec![lowercase_name(host_name)]);
    say("user", vec![text(found.user.as_ref()).unwrap_or_else(|| local_user.to_owned())]);
    say("port", vec![found.port.as_ref().map_or(22, |found| found.value).to_string()]);
    say("identityfile", found.identity_files.keys().cloned().collect());
    say("certificatefile", found.certificate_files.keys().cloned().collect());
    say("hostkeyalias", text(found.host_key_alias.as_ref()).into_iter().collect());
    let only = found.identities_only.as_ref().is_some_and(|found| found.value == Switch::Yes);
    say("identitiesonly", vec![if only { "yes" } else { "no" }.to_owned()]);
    let jumps = found.jumps.as_ref().map_or(&[][..], |found| &found.value);
    if jumps.is_empty() {
        say("proxycommand", found.proxy_command().map(|found| found.value.clone()).into_iter().collect());
    } else {
        say("proxyjump", vec![jumps.iter().map(Jump::to_string).collect::<Vec<_>>().join(",")]);
    }
    let files =
        found.user_known_hosts.as_ref().map(|found| found.value.join(" ")).filter(|files| !files.is_empty());
    say("userknownhostsfile", files.into_iter().collect());
    let alive = found.alive_interval.as_ref().map_or(0, |found| found.value.as_secs());
    say("serveraliveinterval", vec![alive.to_string()]);
    say("serveralivecountmax", vec![found.alive_count.as_ref().map_or(3, |found| found.value).to_string()]);
    let timeout =
        found.connect_timeout.as_ref().map_or("none".to_owned(), |found| found.value.as_secs().to_string());
    say("connecttimeout", vec![timeout]);
    let strictness = match found.strictness.as_ref().map(|found| found.value) {
        // OpenSSH asks; here nobody is asked.
        Some(Strictness::Strict) => "true",
        None => "ask",
        Some(Strictness::AcceptNew) => "accept-new",
        Some(Strictness::Off) => "false",
    };
    say("stricthostkeychecking", vec![strictness.to_owned()]);
    let family = match found.family.as_ref().map_or(AddressFamily::Any, |found| found.value) {
        AddressFamily::Any => "any",
        AddressFamily::Inet => "inet",
        AddressFamily::Inet6 => "inet6",
    };
    say("addressfamily", vec![family.to_owned()]);
    said
}

/// Compares a text, host by host.
fn compare(text: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    std::fs::write(&file, text).unwrap();
    let here = Here { home: "/nowhere", ..HERE };
    let read = SshConfig::read(&ConfigChoice::File(file.clone()), here);
    for host in HOSTS {
        let said = said(&file, host);
        assert_eq!(read.is_ok(), said.is_some(), "{host}: {:?}\n{text}", read.as_ref().err());
        let (Ok(read), Some(mut said)) = (&read, said) else { continue };
        // The answer to one more keyword is who runs the test.
        let local_user = local_user();
        let mut ours = ours(read, host, &local_user);
        let files: Vec<String> = said.remove("identityfile").unwrap_or_default();
        let is_default = files.iter().all(|file| file.starts_with("~/.ssh/id_"));
        let own = ours.remove("identityfile").unwrap_or_default();
        assert!(own == files || own.is_empty() && is_default, "{host}: {own:?} {files:?}\n{text}");
        if !ours.contains_key("userknownhostsfile") {
            said.remove("userknownhostsfile");
        }
        said.retain(|keyword, _| ours.contains_key(keyword) || WITHOUT_DEFAULT.contains(&keyword.as_str()));
        assert_eq!(ours, said, "{host}\n{text}");
    }
}

fn local_user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What OpenSSH is silent on where nobody sets it.
const WITHOUT_DEFAULT: [&str; 4] = ["certificatefile", "hostkeyalias", "proxyjump", "proxycommand"];

const HOSTS: [&str; 4] = ["cp-1", "CP-2.example.net", "10.0.0.7", "2001:db8::1"];

const LINES: &[&str] = &[
    "Host cp-?",
    "Host *.example.net !CP-2*",
    "Host 10.0.0.*",
    "Host 2001:*",
    "Host *",
    "Host \"cp-1\" 'x y'",
    "Host=cp-1",
    "Match all",
    "Match host cp-1",
    "Match host *.example.net,!cp-2.*",
    "Match originalhost cp-1",
    "Match !host cp-1",
    "Match user rke",
    "Match localuser nobody-at-all",
    "Match final",
    "Match final host real",
    "Match canonical",
    "Match host real",
    "Match all # with a comment",
    "HostName real",
    "HostName %h.Example.ORG",
    "HostName 192.0.2.1",
    "Port 2222",
    "  port=2200  ",
    "Port \"22\"",
    "User rke",
    "user = other",
    "IdentityFile ~/.ssh/one",
    "IdentityFile \"/with space/two\"",
    "IdentityFile %d/%r@%h",
    "IdentitiesOnly yes",
    "IdentitiesOnly no",
    "CertificateFile ~/.ssh/one-cert.pub",
    "ProxyJump gate",
    "ProxyJump me@gate:2200,other",
    "ProxyJump none",
    "ProxyCommand nc %h %p",
    "ProxyCommand none",
    "UserKnownHostsFile /known/a \"/known/b\"",
    "StrictHostKeyChecking accept-new",
    "StrictHostKeyChecking no",
    "StrictHostKeyChecking yes",
    "HostKeyAlias AN-alias",
    "ConnectTimeout 5",
    "ConnectTimeout 1m30s",
    "ConnectTimeout none",
    "ServerAliveInterval 15",
    "ServerAliveCountMax 7",
    "AddressFamily inet",
    "# a comment",
    "",
    "\t",
];

/// What OpenSSH refuses.
const WRONG_LINES: &[&str] = &[
    "Port 0",
    "Port 70000",
    "User",
    "Port 22 23",
    "IdentityFile \"open",
    "Match",
    "Match host",
    "Match colour blue",
    "Match host a user b all",
    "IdentitiesOnly perhaps",
    "ConnectTimeout soon",
    "StrictHostKeyChecking maybe",
    "ServerAliveCountMax x",
    "AddressFamily ipx",
    "ProxyJump a@@:x",
    "Host \"\"",
    "UserKnownHostsFile none a",
];

#[test]
fn what_openssh_refuses_is_refused() {
    if can_ask() {
        for line in WRONG_LINES {
            compare(line);
            compare(&format!("Host never\n{line}\n"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn values_are_those_of_openssh(lines in proptest::collection::vec(proptest::sample::select(LINES), 1..14)) {
        if can_ask() {
            compare(&lines.join("\n"));
        }
    }
}
