//! The end of a run, in words that are the same whoever made the keys: what lies on the nodes, in the cluster and on the bastion.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certroll::pki::{Certificate, PublicPrefix};
use certroll::sim::{Fleet, StoredKind};
use serde_json::Value;

use super::victim::Victim;

pub(crate) const KUBERNETES: &str = "/etc/kubernetes/";

/// What was there before the run.
pub(crate) struct Beginning {
    /// Contents by node and path.
    pub(crate) files: BTreeMap<(String, String), Vec<u8>>,
    /// Every PEM that was there, on nodes, in the cluster and on the bastion.
    known: BTreeSet<String>,
}

impl Beginning {
    pub(crate) fn of(fleet: &Fleet, folder: &Path) -> Self {
        let mut files = BTreeMap::new();
        for node in fleet.nodes() {
            for file in node.files() {
                let content = node.file(&file.path).unwrap_or_default();
                files.insert((node.name().to_string(), file.path), content);
            }
        }
        let mut known: BTreeSet<String> =
            files.values().flat_map(|content| pems(&text_of(content))).collect();
        for kind in [StoredKind::ConfigMap, StoredKind::Secret] {
            for name in fleet.stored_names(kind) {
                known.extend(pems(&opened(&fleet.stored(kind, &name).unwrap_or_default())));
            }
        }
        for name in ["cluster.rkestate", "kube_config_cluster.yml"] {
            if let Ok(text) = std::fs::read_to_string(folder.join(name)) {
                known.extend(pems(&plain(&text)));
            }
        }
        Self { files, known }
    }
}

/// What is left when a run has ended: a line a thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct End {
    things: BTreeMap<String, String>,
    /// `node container`, in order.
    pub(crate) restarts: Vec<String>,
}

impl End {
    pub(crate) fn of(victim: &Victim, beginning: &Beginning) -> Self {
        let mut teller = Teller { beginning, places: BTreeMap::new(), strangers: Vec::new() };
        let mut end = Self::default();
        end.things.insert("what serves".to_owned(), format!("{:?}", victim.fleet.serving()));
        teller.learn(&victim.fleet);
        for node in victim.fleet.nodes() {
            for file in node.files() {
                let content = node.file(&file.path).unwrap_or_default();
                let path = without_run(&file.path);
                let what = teller.file(&node.name().to_string(), &file.path, &content);
                let what = format!("{:o} {}:{} {what}", file.mode & 0o7777, file.uid, file.gid);
                end.things.insert(format!("{}: {path}", node.name()), what);
            }
            for container in node.containers() {
                end.things.insert(
                    format!("{}: container {}", node.name(), container.name),
                    format!("{}, with what lies on disk: {}", container.state, container.holds_disk),
                );
            }
        }
        for kind in [StoredKind::ConfigMap, StoredKind::Secret] {
            for name in victim.fleet.stored_names(kind) {
                let object = victim.fleet.stored(kind, &name).unwrap_or_default();
                let data = opened(object.get("data").unwrap_or(&Value::Null));
                end.things.insert(format!("{kind:?} {name}"), teller.tell(&data));
            }
        }
        end.add_bastion(victim.folder.path(), victim.folder.path(), &mut teller);
        end
    }

    fn add_bastion(&mut self, root: &Path, folder: &Path, teller: &mut Teller<'_>) {
        let mut paths: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                self.add_bastion(root, &path, teller);
                continue;
            }
            let name = without_run(&path.strip_prefix(root).unwrap().display().to_string());
            let mode =
                std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
            let is_rke = name == "cluster.rkestate" || name == "kube_config_cluster.yml";
            let what = match std::fs::read_to_string(&path) {
                Ok(text) if is_rke => teller.tell(&plain(&text)),
                _ => String::new(),
            };
            self.things.insert(format!("bastion: {name}"), format!("{:o} {what}", mode & 0o777));
        }
    }

    /// Forgets whether and when members were restarted that gave a quorum back: they are restarted side by side, and a resumption
    /// leaves one alone that is well by then, because a member reads its files at each handshake.
    pub(crate) fn forget_quorum(&mut self, members: &[&str]) {
        for member in members {
            self.restarts.retain(|restart| *restart != format!("{member} etcd"));
            self.things.remove(&format!("{member}: container etcd"));
        }
    }

    /// Says in what it differs from the end of an undisturbed run.
    pub(crate) fn difference(&self, undisturbed: &Self) -> Option<String> {
        let mut difference = String::new();
        let keys: BTreeSet<&String> = self.things.keys().chain(undisturbed.things.keys()).collect();
        for key in keys {
            let (now, then) = (self.things.get(key), undisturbed.things.get(key));
            if now != then {
                let shown = |thing: Option<&String>| {
                    thing.map_or("nothing".to_owned(), |text| text.chars().take(600).collect())
                };
                let _ =
                    write!(difference, "\n  {key}\n    is     {}\n    not    {}", shown(now), shown(then));
            }
        }
        if self.restarts != undisturbed.restarts {
            let _ = write!(
                difference,
                "\n  restarts\n    are    {:?}\n    not    {:?}",
                self.restarts, undisturbed.restarts
            );
        }
        (!difference.is_empty()).then_some(difference)
    }
}

/// Tells contents without keys, serials and dates.
struct Teller<'a> {
    beginning: &'a Beginning,
    /// Where each PEM lies.
    places: BTreeMap<String, BTreeSet<String>>,
    /// PEMs that lie on no node, in the order in which they were found.
    strangers: Vec<String>,
}

impl Teller<'_> {
    /// Learns where each PEM lies on the nodes.
    fn learn(&mut self, fleet: &Fleet) {
        for node in fleet.nodes() {
            for file in node.files().into_iter().filter(|file| !file.path.contains("/.certroll/")) {
                for pem in pems(&text_of(&node.file(&file.path).unwrap_or_default())) {
                    let place = format!("{} {}", node.name(), file.path.trim_start_matches(KUBERNETES));
                    self.places.entry(pem).or_default().insert(place);
                }
            }
        }
    }

    fn file(&self, node: &str, path: &str, content: &[u8]) -> String {
        if path.ends_with("/backup.tar") {
            return self.backup(node, content);
        }
        if path.ends_with("/written") {
            let text = text_of(content);
            let paths: BTreeSet<&str> = text.lines().filter_map(|line| line.splitn(3, ' ').nth(2)).collect();
            return format!("{paths:?}");
        }
        if path.ends_with("/backup.sum") {
            // The sums of an archive with dates in it.
            return format!("{} words", text_of(content).split_whitespace().count());
        }
        if path.ends_with("/full-cluster-state.json") {
            let pems = pems(&plain(&text_of(content)));
            let old = pems.iter().filter(|pem| self.beginning.known.contains(*pem)).count();
            return format!("{old} of {} PEMs are old", pems.len());
        }
        let is_old =
            self.beginning.files.get(&(node.to_owned(), path.to_owned())).is_some_and(|old| old == content);
        let pems = pems(&text_of(content));
        let [pem] = pems.as_slice() else {
            return if is_old { "as it was".to_owned() } else { format!("changed, {} bytes", content.len()) };
        };
        let age = if self.beginning.known.contains(pem) { "old" } else { "new" };
        let shared = self.places.get(pem).map(|places| format!("{places:?}")).unwrap_or_default();
        let pair = path.strip_suffix("-key.pem").map_or(path, |stem| stem).trim_end_matches(".pem");
        format!("{age} {} {shared} {}", describe(pem), self.fits(node, pair))
    }

    /// Says whether a pair belongs together, by the file beside it.
    fn fits(&self, node: &str, stem: &str) -> String {
        let stem = stem.trim_start_matches(KUBERNETES);
        let find = |name: String| {
            let place = format!("{node} {name}");
            self.places.iter().find(|(_, places)| places.contains(&place)).map(|(pem, _)| pem)
        };
        let pair = (find(format!("{stem}.pem")), find(format!("{stem}-key.pem")));
        let (Some(certificate), Some(key)) = pair else { return "alone".to_owned() };
        match Certificate::from_pem(certificate.as_bytes()) {
            Ok(certificate) => format!("{:?}", certificate.matches_key(&PublicPrefix::from_probe(key))),
            Err(error) => error.to_string(),
        }
    }

    /// Says whether a backup is whole: every file as it was.
    fn backup(&self, node: &str, content: &[u8]) -> String {
        let saved = archive(content);
        let missing: Vec<&String> = self
            .beginning
            .files
            .iter()
            .filter(|((of, path), _)| of == node && path.starts_with(KUBERNETES))
            .filter(|((_, path), content)| saved.get(path.trim_start_matches(KUBERNETES)) != Some(*content))
            .map(|((_, path), _)| path)
            .collect();
        format!("backup without {missing:?}")
    }

    /// Tells a text: each PEM in it by where it lies.
    fn tell(&mut self, text: &str) -> String {
        let mut told = text.to_owned();
        for pem in pems(text) {
            let age = if self.beginning.known.contains(&pem) { "old" } else { "new" };
            let place = match self.places.get(&pem) {
                Some(places) => format!("{places:?}"),
                None => {
                    let known = self.strangers.iter().position(|stranger| *stranger == pem);
                    let number = known.unwrap_or_else(|| {
                        self.strangers.push(pem.clone());
                        self.strangers.len() - 1
                    });
                    format!("stranger {number} {}", describe(&pem))
                }
            };
            told = told.replace(&pem, &format!("<{age} {place}>"));
        }
        // Ports, folders and revisions are each fleet's own.
        let own =
            |line: &&str| !["ssh_key_path", "sshKeyPath", "port"].iter().any(|word| line.contains(word));
        told.lines().filter(own).collect::<Vec<_>>().join("\n")
    }
}

/// Returns the plain files of an archive, by path.
pub(crate) fn archive(content: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(content).entries().into_iter().flatten().filter_map(Result::ok) {
        let mut entry = entry;
        if entry.header().entry_type().is_file() {
            let path = entry.path().map(|path| path.display().to_string()).unwrap_or_default();
            let mut content = Vec::new();
            let _ = std::io::Read::read_to_end(&mut entry, &mut content);
            files.insert(path.trim_start_matches("./").to_owned(), content);
        }
    }
    files
}

/// Says what a PEM is.
fn describe(pem: &str) -> String {
    if !pem.contains("BEGIN CERTIFICATE") {
        return "key".to_owned();
    }
    match Certificate::from_pem(format!("{pem}\n").as_bytes()) {
        Ok(certificate) => {
            format!("{} by {} for {:?}", certificate.subject, certificate.issuer, certificate.sans)
        }
        Err(error) => error.to_string(),
    }
}

fn text_of(content: &[u8]) -> String {
    String::from_utf8_lossy(content).into_owned()
}

/// Returns the PEM blocks of a text, each without the white space around it.
fn pems(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find("-----BEGIN ") {
        let Some(after) = rest.get(begin..) else { break };
        let end =
            after.find("-----END ").and_then(|end| Some(end + after.get(end + 9..)?.find("-----")? + 14));
        let Some(end) = end else { break };
        blocks.push(after.get(..end).unwrap_or_default().to_owned());
        rest = after.get(end..).unwrap_or_default();
    }
    blocks
}

/// Returns all texts of a document, a line a field, with what they hold in base64 and in JSON.
fn opened(value: &Value) -> String {
    match value {
        Value::Object(fields) => fields
            .iter()
            .fold(String::new(), |text, (name, value)| format!("{text}{name}: {}\n", opened(value))),
        Value::Array(values) => values.iter().fold(String::new(), |text, value| text + &opened(value) + "\n"),
        Value::String(text) => plain(text),
        other => other.to_string(),
    }
}

/// Returns a text with what it holds in base64 and in JSON laid open.
fn plain(text: &str) -> String {
    if let Ok(document @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str::<Value>(text) {
        return opened(&document);
    }
    let decode = |word: &str| {
        let bytes = STANDARD.decode(word.trim_matches('"')).ok().filter(|bytes| bytes.len() > 16)?;
        String::from_utf8(bytes).ok()
    };
    let line = |line: &str| {
        let (name, word) = line.rsplit_once(' ').unwrap_or(("", line));
        decode(word).map_or_else(|| line.to_owned(), |found| format!("{name} {}", plain(&found)))
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Returns a path in which every run has the same name.
fn without_run(path: &str) -> String {
    let is_run = |part: &&str| {
        let digits = |text: &str| text.chars().all(|letter| letter.is_ascii_digit());
        part.len() > 15 && part.split('-').take(2).all(digits) && part.as_bytes().get(8) == Some(&b'-')
    };
    let named = |part: &str| {
        let words = part.split('.').map(|word| if is_run(&word) { "RUN" } else { word });
        words.collect::<Vec<_>>().join(".")
    };
    let path = path.split('/').map(named).collect::<Vec<_>>().join("/");
    let parts = path.split('/');
    let parts = parts
        .map(|part| if part.starts_with("small-") || part.starts_with("large-") { "CLUSTER" } else { part });
    parts.collect::<Vec<_>>().join("/")
}
