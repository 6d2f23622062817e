//! Where the bytes of keys and tokens could be found while a run goes on and after it: in no form, in no place but their own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certroll::sim::Layout;
use tokio::io::AsyncReadExt as _;

use super::direct::{BRISK, SMALL};
use super::{Rehearsal, rancher, rehearse};

/// Bytes of secrets in the forms in which they could be written, each with the secret that it is of.
#[derive(Default)]
struct Needles(BTreeMap<Vec<u8>, String>);

impl Needles {
    fn add(&mut self, bytes: impl Into<Vec<u8>>, name: &str) {
        self.0.entry(bytes.into()).or_insert_with(|| name.to_owned());
    }

    /// Adds a text that is secret as a whole.
    fn add_text(&mut self, text: &str, name: &str) {
        self.add(text, name);
        self.add(STANDARD.encode(text).trim_end_matches('='), name);
        self.add(hex(text.as_bytes()), name);
    }

    /// Adds a key in PEM: of its private part, pieces of 24 bytes as they are, in hex and in base64 of every alignment, pieces
    /// of the PEM itself, and of its base64, in which kubeconfigs have it.
    fn add_key(&mut self, pem: &str, name: &str) {
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(&body).unwrap();
        // Version, modulus and exponent of an RSA key are public; of other keys the first bytes say the kind.
        let private = if der.len() > 600 { 280 } else { 10 };
        for start in (private..der.len().saturating_sub(32)).step_by(32) {
            let Some(piece) = der.get(start..start + 24) else { continue };
            self.add(piece, name);
            self.add(hex(piece), name);
            self.add(hex(piece).to_uppercase(), name);
            for shift in 0..3 {
                let aligned = &piece[shift..shift + 21];
                self.add(STANDARD.encode(aligned), name);
            }
        }
        for line in body.as_bytes().chunks(64).skip(if der.len() > 600 { 6 } else { 1 }) {
            if line.len() == 64 {
                self.add(line, name);
            }
        }
        let embedded = STANDARD.encode(pem);
        for chunk in embedded.as_bytes().chunks(64).skip(if der.len() > 600 { 9 } else { 2 }) {
            if chunk.len() == 64 {
                self.add(chunk, name);
            }
        }
    }

    /// Adds every private key that lies on a node.
    fn add_nodes(&mut self, lab: &Rehearsal) {
        for node in &lab.inventory.nodes {
            for file in lab.fleet.node(&node.name).unwrap().files() {
                if ["-key.pem", ".key"].iter().any(|ending| file.path.ends_with(ending)) {
                    let pem = String::from_utf8(lab.file(node.name.as_str(), &file.path).unwrap()).unwrap();
                    self.add_key(&pem, &format!("{} of {}", file.path, node.name));
                }
            }
        }
    }

    /// Expects none of them in something.
    #[track_caller]
    fn are_not_in(&self, place: &str, bytes: &[u8]) {
        // A text may be wrapped, and JSON writes line ends as `\n`.
        let text: Vec<u8> = bytes.iter().copied().filter(|byte| !b"\n\r".contains(byte)).collect();
        let joined = String::from_utf8_lossy(bytes).replace("\\n", "").into_bytes();
        for haystack in [bytes, &text, &joined] {
            assert_eq!(self.first_in(haystack), None, "{place}");
        }
    }

    /// Returns the secret of which something holds a piece.
    fn first_in(&self, haystack: &[u8]) -> Option<&str> {
        // By the first bytes: there are thousands of pieces, and many bytes to look through.
        let mut by_head: BTreeMap<&[u8], Vec<(&[u8], &str)>> = BTreeMap::new();
        for (piece, name) in &self.0 {
            by_head.entry(&piece[..8]).or_default().push((piece, name));
        }
        haystack.windows(8).enumerate().find_map(|(at, head)| {
            let candidates = by_head.get(head)?;
            candidates.iter().find(|(piece, _)| haystack[at..].starts_with(piece)).map(|(_, name)| *name)
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns every file and folder beneath a folder, itself included.
fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(everything(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// What `ps` and `/proc` show of a process and of those that it started, for as long as it lives.
async fn overheard(process: u32) -> Vec<(String, Vec<u8>)> {
    let mut heard: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    while let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) {
        if status.contains("State:\tZ") {
            break;
        }
        for member in family(process) {
            for file in ["cmdline", "environ"] {
                // Another user's process, or one that has ended meanwhile: nobody can read it.
                let Ok(bytes) = std::fs::read(format!("/proc/{member}/{file}")) else { continue };
                heard.insert(bytes, format!("{file} of a process on the bastion"));
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    heard.into_iter().map(|(bytes, place)| (place, bytes)).collect()
}

/// Returns a process and all that descend from it.
fn family(process: u32) -> Vec<u32> {
    let mut members = vec![process];
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    for thread in threads {
        let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        members.extend(children.split_whitespace().filter_map(|child| child.parse().ok()).flat_map(family));
    }
    members
}

/// Runs the program to its end, and returns what it said and what was to be seen of it.
async fn watched(lab: &Rehearsal, words: &[&str]) -> Vec<(String, Vec<u8>)> {
    let paths = lab.fleet.paths();
    let mut command = lab.program(words);
    command.env("RANCHER_URL", lab.fleet.rancher_url().unwrap());
    // From a file: in the environment it would be the operator who shows it.
    command.arg("--rancher-token-file").arg(paths.rancher_token.as_ref().unwrap());
    command.arg("--rancher-ca").arg(paths.rancher_ca.as_ref().unwrap());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let process = child.id().unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ends =
        async { tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err), child.wait()) };
    let (ended, mut heard) =
        tokio::time::timeout(super::LIMIT, async { tokio::join!(ends, overheard(process)) }).await.unwrap();
    let status = ended.2.unwrap();
    assert!(
        status.success(),
        "{words:?}: {}\n{}",
        String::from_utf8_lossy(&out),
        String::from_utf8_lossy(&err)
    );
    let shows = |part: &str| heard.iter().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains(part));
    assert!(shows("--rancher-token-file"), "the argument list was seen while it ran");
    heard.push((format!("stdout of {words:?}"), out));
    heard.push((format!("stderr of {words:?}"), err));
    heard
}

#[test]
fn no_byte_of_a_key_or_token_is_anywhere_but_in_its_place() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Expired028, |options| {
            options.rancher = Some(rancher(&[]));
            options.pace = BRISK;
        })
        .await;
        let mut needles = Needles::default();
        needles.add_nodes(&lab);
        let paths = lab.fleet.paths().clone();
        needles.add_key(&std::fs::read_to_string(&paths.ssh_key).unwrap(), "the operator's SSH key");
        needles.add_text(lab.fleet.rancher_token().unwrap(), "the token");

        let saved = lab.path("saved.plan");
        let saved_name = saved.to_str().unwrap();
        let mut said = Vec::new();
        let options = ["--via", "direct", "--then", "rancher"];
        for words in [
            [&["plan", "-vv", "--save", saved_name][..], &options].concat(),
            vec!["apply", "-vv", "--yes", "--plan", saved_name],
            [&["plan", "-o", "shell", "--force"][..], &options].concat(),
            [&["plan", "-o", "markdown", "--force"][..], &options].concat(),
            [&["apply", "-o", "json", "--force", "--yes"][..], &options].concat(),
        ] {
            said.extend(watched(&lab, &words).await);
            // Of every generation: those before, and those that this command has made.
            needles.add_nodes(&lab);
        }
        for words in [
            &["check", "-vv"][..],
            &["check", "-o", "json", "--read-keys"],
            &["runs", "-v"],
            &["runs", "-o", "json"],
        ] {
            let ended = lab.certroll(words).await.expect(0);
            said.push((format!("{words:?}"), (ended.stdout + &ended.stderr).into_bytes()));
        }
        for (node, line) in lab.fleet.command_lines() {
            said.push((format!("argument list on {node}"), line.into_bytes()));
        }
        // What was seen of the SSH key's file: its own place, and the token's.
        let own = [
            Some(&paths.ssh_key),
            paths.rancher_token.as_ref(),
            paths.rkestate.as_ref(),
            paths.kube_config.as_ref(),
        ];
        let mut files = 0;
        for path in everything(lab.folder.path()).into_iter().filter(|path| path.is_file()) {
            if !own.iter().flatten().any(|own| path.starts_with(own)) {
                said.push((path.display().to_string(), std::fs::read(&path).unwrap()));
                files += usize::from(path.starts_with(lab.state()));
            }
        }
        assert!(files >= 4, "plans and journals of two runs are among them");
        assert!(needles.0.len() > 5000, "{} pieces of secrets are looked for", needles.0.len());
        for (place, bytes) in &said {
            needles.are_not_in(place, bytes);
        }
        let key = lab.file("cp-1", "/etc/kubernetes/ssl/kube-node-key.pem").unwrap();
        assert!(needles.first_in(&key).is_some(), "a key would be found");
        let embedded = format!("client-key-data: {}\n", STANDARD.encode(&key));
        assert!(needles.first_in(embedded.as_bytes()).is_some(), "and one in a kubeconfig");
        nobody_else_reads(&lab.state());
        assert_eq!(std::fs::metadata(&saved).unwrap().permissions().mode() & 0o777, 0o600);
    });
}

/// Expects files of mode 0600 and folders of mode 0700, all of the same owner.
fn nobody_else_reads(state: &Path) {
    let all = everything(state);
    assert!(all.len() >= 6, "{all:?}");
    let owner = std::fs::metadata(state).unwrap().uid();
    for path in all {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o777, expected, "{}", path.display());
        assert_eq!(metadata.uid(), owner, "{}", path.display());
    }
}

#[test]
fn the_memory_of_the_program_is_dumped_nowhere() {
    rehearse(async {
        let folder = tempfile::tempdir().unwrap();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_certroll"));
        // It waits for the inventory on stdin, so that it can be looked at.
        command.args(["nodes", "--config", "-"]).env_clear().env("HOME", folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().unwrap();
        let process = child.id().unwrap();
        let is_off = || {
            let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
            let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
            line.split_whitespace().filter(|word| *word == "0").count() == 2
        };
        let looks = async {
            while !is_off() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(super::LIMIT, looks).await.expect("the limit is 0, and cannot be raised");
        // The kernel gives the files of a process that is not dumpable to root, whoever runs it.
        let undumpable = async {
            while std::fs::metadata(format!("/proc/{process}/environ")).unwrap().uid() != 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(super::LIMIT, undumpable).await.expect("it is not dumpable");
        drop(child);
    });
}
