//! What a person sees who types a command: stdout, stderr and the exit status together, of the built program.
//!
//! The environment is fixed, there is no terminal, and no command of these connects anywhere.

#![expect(clippy::disallowed_methods, reason = "the built program is started, on files made for it")]
#![expect(clippy::unwrap_used, reason = "a program that does not start fails its test")]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const MINIMAL: &str = "nodes:\n- address: 10.0.0.11\n  user: rancher\n  role: [controlplane, etcd, worker]\n";

/// An empty home, in which commands are typed.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Returns a home with the smallest cluster.yml.
    fn with_cluster() -> Self {
        let home = Self::new();
        home.write("cluster.yml", MINIMAL);
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Returns what a command line shows.
    fn types(&self, line: &str) -> String {
        self.feeds("", line)
    }

    /// Returns what a command line shows that is given a text on stdin.
    fn feeds(&self, stdin: &str, line: &str) -> String {
        let mut child = Command::new(env!("CARGO_BIN_EXE_certroll"))
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .env_clear()
            .env("HOME", self.0.path())
            .env("USER", "operator")
            .env("TMPDIR", self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that reads no stdin may have ended before.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        let status = output.status.code().unwrap();
        let mut shown = format!("$ certroll {line}\nexit status {status}\n");
        for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
            let text = String::from_utf8(bytes).unwrap();
            if !text.is_empty() {
                write!(shown, "--- {name}\n{text}").unwrap();
            }
        }
        shown.replace(&self.0.path().display().to_string(), "~")
    }
}

/// Returns one of the written cases of cluster files.
fn case(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/inventory");
    fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn help() {
    insta::assert_snapshot!(Home::new().types("--help"));
}

#[test]
fn help_of_each_command() {
    for command in [
        "nodes",
        "check",
        "plan",
        "apply",
        "rollback",
        "runs",
        "exec",
        "import",
        "demo",
        "completions",
        "man",
    ] {
        let shown = Home::new().types(&format!("{command} -h"));
        // The options of every command are in the help of `certroll` already.
        let own = shown.split("\nOptions of every command:").next().unwrap();
        insta::assert_snapshot!(format!("help_of_{command}"), own);
    }
}

#[test]
fn help_of_each_import() {
    for source in ["rancher", "rkestate", "kubeconfig"] {
        let shown = Home::new().types(&format!("import {source} -h"));
        let own = shown.split("\nOptions of every command:").next().unwrap();
        insta::assert_snapshot!(format!("help_of_import_{source}"), own);
    }
}

#[test]
fn import_of_a_golden_state() {
    let home = Home::new();
    home.write("cluster.rkestate", include_str!("../cases/golden/rke-v0.2.8/cluster.rkestate"));
    insta::assert_snapshot!(home.types("import rkestate cluster.rkestate"));
    let legacy = include_str!("../cases/golden/rke-v0.1.17/cluster.yml");
    let indented = format!("    {}\n", legacy.trim_end().replace('\n', "\n    "));
    let object = format!("kind: ConfigMap\ndata:\n  cluster-state: |\n{indented}");
    let shown = home.feeds(&object, "import rkestate -");
    assert!(shown.contains("exit status 0") && shown.contains("5 nodes"), "{shown}");
    let shown = home.types("import rkestate cluster.rkestate --ssh-user other --ssh-key other");
    for unused in ["note: --ssh-user was not used", "note: --ssh-key was not used"] {
        assert!(shown.contains("exit status 0") && shown.contains(unused), "{shown}");
    }
}

#[test]
fn import_of_a_state_with_a_key_in_it_and_a_machine_without_an_address() {
    let home = Home::new();
    home.write(
        "own.rkestate",
        r#"{"currentState":{"rkeConfig":{"sshKeyPath":"~/.ssh/all","nodes":[
            {"address":"10.0.0.1","user":"u","role":["etcd","controlplane"]},
            {"address":"10.0.0.2","user":"u","role":["worker"],"sshKey":"SECRET"},
            {"hostnameOverride":"w-2","user":"u","role":["worker"]},
            {"address":"10.0.0.4","user":"u","role":[]}]}}}"#,
    );
    home.write("none.rkestate", r#"{"currentState":{"rkeConfig":{"nodes":[{"hostnameOverride":"w-2"}]}}}"#);
    let lines = [
        "import rkestate own.rkestate",
        "import rkestate own.rkestate --ssh-key ~/.ssh/own",
        "import rkestate none.rkestate",
    ];
    insta::assert_snapshot!(lines.map(|line| home.types(line)).join("\n"));
}

#[test]
fn imports_that_cannot_be() {
    let home = Home::new();
    home.write("empty.rkestate", "{}");
    home.write("cluster.yml", MINIMAL);
    home.write("nobody.rkestate", r#"{"currentState":{"rkeConfig":{"nodes":[{"address":"10.0.0.1","role":["etcd","controlplane"]},{"address":"10.0.0.2","user":"u","role":["worker"]}]}}}"#);
    let lines = [
        "import rkestate missing.rkestate",
        "import rkestate empty.rkestate",
        "import rkestate nobody.rkestate --save new.yml",
        "import rkestate nobody.rkestate -o json",
        "import rkestate nobody.rkestate -n cp-1",
        "import rancher",
        "check --state missing.rkestate",
        "check --state empty.rkestate",
        "check --state cluster.yml",
        "check --state - -c -",
    ];
    insta::assert_snapshot!(lines.map(|line| home.types(line)).join("\n"));
    assert!(!home.path("new.yml").exists());
}

#[test]
fn nothing_typed_is_answered_with_the_help() {
    let shown = Home::new().types("");
    assert!(shown.contains("exit status 2") && shown.contains("Usage: certroll"), "{shown}");
}

#[test]
fn an_unknown_command() {
    insta::assert_snapshot!(Home::new().types("chek"));
}

#[test]
fn nodes() {
    let home = Home::new();
    home.write("cluster.yml", case("valid/bastion.yml"));
    insta::assert_snapshot!("nodes_text", home.types("nodes"));
    insta::assert_snapshot!("nodes_json", home.types("nodes -o json"));
}

#[test]
fn nodes_says_which_keys_are_unknown() {
    let home = Home::new();
    home.write("cluster.yml", case("valid/misspelled.yml"));
    insta::assert_snapshot!("nodes_unknown_keys", home.types("nodes"));
}

#[test]
fn nodes_of_a_file_that_is_not_valid() {
    let home = Home::new();
    home.write("cluster.yml", case("invalid/role-unknown.yml"));
    insta::assert_snapshot!(home.types("nodes"));
}

#[test]
fn nodes_from_stdin() {
    let home = Home::new();
    insta::assert_snapshot!("nodes_stdin", home.feeds(MINIMAL, "nodes -c -"));
    insta::assert_snapshot!("nodes_stdin_not_valid", home.feeds("nodes: []\n", "nodes -c -"));
}

#[test]
fn files_that_are_none() {
    let home = Home::new();
    fs::create_dir(home.path("folder")).unwrap();
    home.write("latin1.yml", b"cluster_name: caf\xe9\n");
    home.write("bomb.yml", case("invalid/alias-bomb.yml"));
    let made = Command::new("mkfifo").arg(home.path("pipe")).status().unwrap();
    assert!(made.success());
    let shown = ["missing.yml", "folder", "pipe", "latin1.yml", "bomb.yml"]
        .map(|name| home.types(&format!("nodes -c {name}")))
        .join("\n");
    insta::assert_snapshot!(shown);
}

#[test]
fn a_file_of_100_megabytes_is_not_read() {
    let home = Home::new();
    File::create(home.path("junk")).unwrap().set_len(100_000_000).unwrap();
    let began = Instant::now();
    let shown = home.types("nodes -c junk");
    // It takes milliseconds; the bound is for a busy machine, and reading the file as YAML would take far longer.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    insta::assert_snapshot!(shown);
}

#[test]
fn patterns_and_jumps_that_mean_nothing() {
    let home = Home::with_cluster();
    let lines = ["nodes -n w-9", "nodes -n role=master", "nodes -n [a", "nodes --jump a@@b:99999"];
    insta::assert_snapshot!(lines.map(|line| home.types(line)).join("\n"));
}

#[test]
fn plan_needs_a_method() {
    let home = Home::with_cluster();
    let lines = ["plan", "plan --via direct --rke-binary rke", "plan --via rancher"];
    insta::assert_snapshot!(lines.map(|line| home.types(line)).join("\n"));
}

#[test]
fn apply_of_a_plan_takes_no_options_that_shape_one() {
    insta::assert_snapshot!(Home::with_cluster().types("apply --plan prod.plan --force"));
}

#[test]
fn apply_of_files_that_are_no_plan() {
    let home = Home::with_cluster();
    home.write("text.plan", "not a plan");
    let lines = ["apply --yes --plan missing.plan", "apply --yes --plan text.plan"];
    insta::assert_snapshot!(lines.map(|line| home.types(line)).join("\n"));
}

#[test]
fn forms_that_are_those_of_a_plan_alone() {
    let home = Home::with_cluster();
    insta::assert_snapshot!(["check -o markdown", "nodes -o shell"].map(|line| home.types(line)).join("\n"));
}

#[test]
fn runs_where_there_are_none() {
    let home = Home::with_cluster();
    let lines = ["runs", "runs -o json", "runs 7f3a"];
    insta::assert_snapshot!(lines.map(|line| home.types(line)).join("\n"));
}

#[test]
fn options_out_of_range() {
    let home = Home::with_cluster();
    let lines = ["check --parallel 0", "check --connect-timeout 10", "plan --max-unavailable 0%"];
    insta::assert_snapshot!(lines.map(|line| home.types(line)).join("\n"));
}

#[test]
fn long_help_of_exec_and_completions() {
    for command in ["exec", "completions"] {
        let shown = Home::new().types(&format!("{command} --help"));
        let (own, others) = shown.split_once("\nOptions of every command:").unwrap();
        let after = others.split_once("\nWith `-o json`").map_or("", |(_, after)| after);
        insta::assert_snapshot!(format!("long_help_of_{command}"), format!("{own}...{after}"));
    }
}

#[test]
fn completions_know_every_command_and_option() {
    for shell in ["bash", "zsh", "fish"] {
        let shown = Home::new().types(&format!("completions {shell}"));
        assert!(shown.contains("exit status 0"), "{shown}");
        for word in ["rollback", "as-root", "host-keys", "accept-new", "rkestate"] {
            assert!(shown.contains(word), "{shell}: no {word}");
        }
    }
    let refused = Home::new().types("completions tcsh");
    assert!(
        refused.contains("exit status 2") && refused.contains("[possible values: bash, zsh, fish]"),
        "{refused}"
    );
}

#[test]
fn a_manual_page_is_printed_for_each_command() {
    for (line, title) in [
        ("man", ".TH certroll 1"),
        ("man exec", ".TH certroll-exec 1"),
        ("man import rancher", ".TH certroll-import-rancher 1"),
    ] {
        let shown = Home::new().types(line);
        assert!(shown.contains("exit status 0") && shown.contains(title), "{shown}");
        assert!(line == "man" || shown.contains("\\-\\-known\\-hosts"), "{line}: options of every command");
    }
    insta::assert_snapshot!(Home::new().types("man exek"));
}

#[test]
fn manual_pages_are_written_into_a_folder() {
    let home = Home::new();
    assert!(home.types("man --dir share/man1").contains("exit status 0"));
    let mut pages: Vec<String> = fs::read_dir(home.path("share/man1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    insta::assert_snapshot!(pages.join(" "));
}
