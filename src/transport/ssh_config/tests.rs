use super::*;
use crate::transport::Jump;

const HERE: Here<'static> = Here { home: "/home/me", user: "me", variable: |_| None };

fn config(text: &str) -> SshConfig {
    SshConfig::parse(Path::new("config"), text).unwrap()
}

fn look_up(text: &str, host: &str) -> HostConfig {
    config(text).look_up(&Query { host, user: None, local_user: "me" })
}

fn value<T: Clone>(found: Option<&Found<T>>) -> Option<(T, usize)> {
    found.map(|found| (found.value.clone(), found.place.line))
}

fn port(text: &str, host: &str) -> Option<u16> {
    look_up(text, host).port.map(|found| found.value)
}

#[test]
fn the_first_value_wins() {
    let found = look_up(
        "Port 1\nHost node-*\nPort 2\nUser rke\nHost *\nUser other\nHostName %h.example.net\n",
        "node-1",
    );
    assert_eq!(value(found.port.as_ref()), Some((1, 1)));
    assert_eq!(value(found.user.as_ref()), Some(("rke".to_owned(), 4)));
    assert_eq!(value(found.host_name.as_ref()), Some(("node-1.example.net".to_owned(), 7)));
}

#[test]
fn identity_files_add_up_without_repetition() {
    let found =
        look_up("IdentityFile a\nHost x\nIdentityFile b\nHost *\nIdentityFile a\nIdentityFile c", "y");
    let files: Vec<(&str, usize)> =
        found.identity_files.iter().map(|(value, place)| (value.as_str(), place.line)).collect();
    assert_eq!(files, [("a", 1), ("c", 6)]);
}

#[test]
fn host_and_match_begin_a_new_block() {
    for (text, host, expected) in [
        ("Host a\nPort 1\nHost b\nPort 2", "b", Some(2)),
        ("Host a !b\nPort 1", "b", None),
        ("Host * !b\nPort 1", "b", None),
        ("Match host b\nPort 1", "b", Some(1)),
        ("Match host=B\nPort 1", "b", Some(1)),
        ("Match !host b\nPort 1", "b", None),
        ("Match all\nPort 1", "b", Some(1)),
        ("Match !all\nPort 1", "b", None),
        ("Host a\nMatch all\nPort 1", "b", Some(1)),
        ("Host b\nHostName c\nMatch host c\nPort 1", "b", Some(1)),
        ("Host b\nHostName c\nMatch host b\nPort 1", "b", None),
        ("Host b\nHostName c\nMatch originalhost b\nPort 1", "b", Some(1)),
        ("Match localuser me\nPort 1", "b", Some(1)),
        ("Match localuser you\nPort 1", "b", None),
        ("Match user me\nPort 1", "b", Some(1)),
        ("User you\nMatch user me\nPort 1", "b", None),
        ("Match host b user me\nPort 1", "b", Some(1)),
        ("Match host b user you\nPort 1", "b", None),
        ("Tag x\nMatch tagged x\nPort 1", "b", Some(1)),
        ("Match tagged x\nPort 1", "b", None),
        ("Match tagged \"\"\nPort 1", "b", Some(1)),
        ("Match canonical\nPort 1", "b", None),
        ("Match final\nPort 1\nMatch all\nPort 2", "b", Some(2)),
        ("Match !final\nPort 1", "b", Some(1)),
        ("Match final\nPort 1", "b", Some(1)),
        ("Match canonical all\nPort 1\nMatch final\nUser x", "b", Some(1)),
        ("Host b\nHostName c\nHost c\nPort 1\nMatch final\nUser x", "b", Some(1)),
        ("Host b\nHostName C\nHost c\nPort 1\nMatch final all\nUser x", "b", Some(1)),
        ("Match host b # a comment\nPort 1", "b", Some(1)),
    ] {
        assert_eq!(port(text, host), expected, "{text:?}");
    }
}

#[test]
fn a_name_is_decided_before_the_final_pass() {
    let found = look_up("Match final\nHostName c", "b");
    assert_eq!(found.host_name, None);
}

#[test]
fn what_runs_commands_or_looks_around_does_not_match_and_is_named() {
    for criterion in ["exec true", "!exec true", "localnetwork 10.0.0.0/8", "version *", "sessiontype exec"] {
        let found = look_up(&format!("Match host b {criterion}\nPort 1"), "b");
        assert_eq!(found.port, None, "{criterion}");
        let word = criterion.trim_start_matches('!').split(' ').next().unwrap();
        assert_eq!(found.unused.first().unwrap().value, format!("Match {word}"));
    }
    // It would not have matched anyway.
    assert_eq!(look_up("Match host a exec true\nPort 1", "b").unused.len(), 0);
    assert_eq!(look_up("Match exec true host a\nPort 1", "b").unused.len(), 0);
}

#[test]
fn what_is_not_understood_is_named_where_it_applies() {
    let text =
        "Host a\nControlMaster yes\nHost b\nControlPath none\nUseKeychain yes\nIdentityFile %C\nUser x";
    let found = look_up(text, "b");
    let unused: Vec<(&str, usize)> =
        found.unused.iter().map(|found| (found.value.as_str(), found.place.line)).collect();
    assert_eq!(unused, [("ControlPath", 4), ("UseKeychain", 5), ("IdentityFile %C", 6)]);
    assert_eq!(found.user.unwrap().value, "x");
}

#[test]
fn jumps_and_commands_leave_each_other_no_room() {
    let jumps = |text: &str| {
        let found = look_up(text, "b");
        let jumps =
            found.jumps.as_ref().map(|found| found.value.iter().map(Jump::to_string).collect::<Vec<_>>());
        (jumps, found.proxy_command().map(|found| found.value.clone()))
    };
    let chain = Some(vec!["a".to_owned(), "me@c:22".to_owned()]);
    let command = Some("nc %h %p".to_owned());
    assert_eq!(jumps("ProxyJump a,me@c:22 # x\nProxyCommand nc %h %p"), (chain.clone(), None));
    assert_eq!(jumps("ProxyJump = a,me@c:22"), (chain, None));
    assert_eq!(jumps("ProxyCommand nc %h %p\nProxyJump a"), (None, command.clone()));
    assert_eq!(jumps("ProxyCommand none\nProxyJump a"), (None, None));
    assert_eq!(jumps("ProxyJump none\nProxyJump a"), (Some(vec![]), None));
    assert_eq!(jumps("ProxyJump NONE\nProxyCommand nc %h %p"), (Some(vec![]), command));
}

#[test]
fn values_are_read_as_openssh_reads_them() {
    let found = look_up(
        "UserKnownHostsFile ~/.ssh/a \"/b c\"\nGlobalKnownHostsFile none\nStrictHostKeyChecking No\n\
         HostKeyAlias ALIAS\nConnectTimeout 1m30\nServerAliveInterval=15s\nServerAliveCountMax 2\nAddressFamily inet6\n\
         IdentitiesOnly TRUE\nPort ssh\nUser \"a b\"\n",
        "b",
    );
    assert_eq!(found.user_known_hosts.unwrap().value, ["~/.ssh/a", "/b c"]);
    assert!(found.global_known_hosts.unwrap().value.is_empty());
    assert_eq!(found.strictness.unwrap().value, Strictness::Off);
    assert_eq!(found.host_key_alias.unwrap().value, "alias");
    assert_eq!(found.connect_timeout.unwrap().value.as_secs(), 90);
    assert_eq!(found.alive_interval.unwrap().value.as_secs(), 15);
    assert_eq!(found.alive_count.unwrap().value, 2);
    assert_eq!(found.family.unwrap().value, AddressFamily::Inet6);
    assert_eq!(found.identities_only.unwrap().value, Switch::Yes);
    assert_eq!((found.port.unwrap().value, found.user.unwrap().value.as_str()), (22, "a b"));
    assert_eq!(
        look_up("ConnectTimeout none\nConnectTimeout 5", "b").connect_timeout.unwrap().value.as_secs(),
        5
    );
}

#[test]
fn a_malformed_file_is_refused_line_by_line() {
    let text = "Port 0\n\nUser\nIdentityFile \"a\nHost b \"\"\nMatch\nMatch host\nMatch colour blue\nProxyJump a@@b:x\n\
                Port 1 2\nIdentitiesOnly maybe\nConnectTimeout soon\nHostName %p\nMatch host a user b all\n";
    let error = SshConfig::parse(Path::new("config"), text).unwrap_err();
    let SshConfigError::Malformed(problems) = &error else { panic!("{error}") };
    let listed: Vec<String> =
        problems.iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect();
    insta::assert_snapshot!(listed.join("\n"), @r"
    config:1: `0` is no value of `Port`: a port from 1 to 65535 is expected
    config:3: `User` has no value
    config:4: a quote is not closed
    config:5: `host` has an empty value
    config:6: `Match` has no value
    config:7: `host` of `Match` has no value
    config:8: `colour` is not a criterion of `Match`
    config:9: `a@@b:x` is not a jump host, which is written as [USER@]HOST[:PORT]
    config:10: `Port` takes one value, and `2` is another
    config:11: `maybe` is no value of `IdentitiesOnly`: yes or no is expected
    config:12: `soon` is no value of `ConnectTimeout`: a time such as 90, 90s or 1m30s is expected
    config:13: `HostName`: `%p` means nothing here
    config:14: `all` cannot be combined with other criteria of `Match`
    ");
    assert!(error.to_string().ends_with("\n  and 3 more"), "{error}");
}

mod oracle;

mod files {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tempfile::TempDir;

    use super::*;

    struct Home(TempDir);

    impl Home {
        fn new(files: &[(&str, &str)]) -> Self {
            let home = Self(TempDir::new().unwrap());
            for (name, text) in files {
                home.write(name, text);
            }
            home
        }

        #[expect(clippy::disallowed_methods, reason = "the test lays out a home")]
        fn write(&self, name: &str, text: &str) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            self.mode(name, 0o600);
        }

        fn mode(&self, name: &str, mode: u32) {
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn read(&self, choice: &ConfigChoice) -> Result<SshConfig, SshConfigError> {
            SshConfig::read(choice, Here { home: self.0.path().to_str().unwrap(), ..HERE })
        }

        fn usual(&self) -> Result<SshConfig, SshConfigError> {
            self.read(&ConfigChoice::Usual)
        }
    }

    fn found(config: &SshConfig, host: &str) -> HostConfig {
        config.look_up(&Query { host, user: None, local_user: "me" })
    }

    #[test]
    fn files_are_included_where_they_are_named() {
        let home = Home::new(&[
            (".ssh/config", "Include conf.d/* ~/more\nHost b\nInclude only-b\nUser late\nMatch all\nPort 9"),
            (".ssh/conf.d/20", "Port 20\nHost never\n"),
            (".ssh/conf.d/10", "Host a\nPort 10\n"),
            (".ssh/conf.d/.hidden", "Port 1\n"),
            ("more", "ConnectTimeout 7\n"),
            (".ssh/only-b", "HostKeyAlias b\nHost a\nPort 3\n"),
        ]);
        let config = home.usual().unwrap();
        let a = found(&config, "a");
        assert_eq!(a.port.as_ref().unwrap().value, 10);
        assert_eq!(a.port.unwrap().place.to_string(), "~/.ssh/conf.d/10:2");
        assert_eq!(a.connect_timeout.unwrap().place.to_string(), "~/more:1");
        assert_eq!((a.host_key_alias, a.user), (None, None));
        let b = found(&config, "b");
        assert_eq!(b.port.unwrap().value, 20);
        assert_eq!(b.host_key_alias.unwrap().value, "b");
        assert_eq!(b.user.unwrap().value, "late", "an included `Host` ends with its file");
    }

    #[test]
    fn a_file_that_others_may_write_to_is_refused() {
        let home = Home::new(&[(".ssh/config", "Port 1\n"), ("other", "Port 2\n")]);
        home.mode(".ssh/config", 0o620);
        assert!(matches!(home.usual(), Err(SshConfigError::Untrusted { .. })));
        home.mode("other", 0o666);
        let named = home.read(&ConfigChoice::File(home.path("other"))).unwrap();
        assert_eq!(found(&named, "a").port.unwrap().value, 2, "the operator has named it");
        home.write("including", &format!("Include {}\n", home.path("other").display()));
        let included = home.read(&ConfigChoice::File(home.path("including")));
        assert!(matches!(included, Err(SshConfigError::Untrusted { .. })));
    }

    #[test]
    fn a_file_that_is_missing_is_one_only_where_it_was_named() {
        let home = Home::new(&[]);
        assert!(home.usual().is_ok());
        let error = home.read(&ConfigChoice::File(home.path("config"))).unwrap_err();
        assert!(matches!(error, SshConfigError::Unreadable { .. }), "{error}");
        assert!(home.read(&ConfigChoice::Nothing).is_ok());
    }

    #[test]
    fn circles_end() {
        let home = Home::new(&[(".ssh/config", "Include config\n")]);
        assert!(matches!(home.usual(), Err(SshConfigError::TooDeep { limit: 16, .. })));
        home.write(".ssh/config", "Include wide wide\n");
        home.write(".ssh/wide", "");
        for depth in 0..12 {
            home.write(&format!(".ssh/w{depth}"), &format!("Include w{} w{}\n", depth + 1, depth + 1));
        }
        home.write(".ssh/config", "Include w0\n");
        assert!(matches!(home.usual(), Err(SshConfigError::TooMany { .. })));
    }

    #[test]
    fn problems_of_all_files_are_told_at_once() {
        let home = Home::new(&[
            (".ssh/config", "Include a b\nPort x\n"),
            (".ssh/a", "User\n"),
            (".ssh/b", "\n\nMatch all host b\n"),
        ]);
        symlink("nowhere", home.path(".ssh/dangling")).unwrap();
        let Err(SshConfigError::Malformed(problems)) = home.usual() else { panic!() };
        let listed: Vec<String> =
            problems.iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect();
        assert_eq!(
            listed,
            [
                "~/.ssh/config:2: `x` is no value of `Port`: a port from 1 to 65535 is expected",
                "~/.ssh/a:1: `User` has no value",
                "~/.ssh/b:3: `all` cannot be combined with other criteria of `Match`",
            ]
        );
        home.write(".ssh/config", "Include dangling\nInclude %h ~nobody/b ${UNSET}\nPort 5\n");
        let config = found(&home.usual().unwrap(), "a");
        assert_eq!(config.port.unwrap().value, 5);
        let is_own = |found: &&Found<String>| found.place.file.starts_with("~");
        let unused: Vec<&str> =
            config.unused.iter().filter(is_own).map(|found| found.value.as_str()).collect();
        assert_eq!(unused, ["Include %h", "Include ~nobody/b", "Include ${UNSET}"]);
    }
}
