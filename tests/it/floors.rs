//! The floors that the modules stand on: who may import whom, and which modules reach for nothing outside the process.

#![expect(clippy::disallowed_methods, reason = "the subject is the source's files")]
#![expect(clippy::unwrap_used, reason = "a source that cannot be read fails its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floors from the ground up; a module imports only from floors beneath its own.
const FLOORS: &[&[&str]] = &[
    &["clock", "command", "escape", "finding", "inventory", "pki"],
    &["facts"],
    &["plan"],
    &["event"],
    &["transport", "rancher", "kube", "workstation", "journal"],
    &["gather"],
    &["execute"],
    &["report"],
    &["cli"],
];

/// Who may import from its own floor.
const NEIGHBOURS: &[(&str, &str)] = &[
    // A finding names its node, and reading an inventory makes findings.
    ("finding", "inventory"),
    ("inventory", "finding"),
    // Errors of a file show its lines.
    ("inventory", "escape"),
    // Which files lie on a node follows from the inventory.
    ("pki", "inventory"),
    // Requests go over a channel of a session.
    ("kube", "transport"),
];

/// Who may not import from a floor beneath its own, and why.
const FORBIDDEN: &[(&str, &[&str])] = &[
    // What is shown is a record; who shows it reaches for nothing.
    ("report", &["clock", "transport", "rancher", "kube", "workstation", "journal", "gather", "execute"]),
    // A reader of the network knows no decisions.
    ("gather", &["plan", "event", "journal", "workstation"]),
    ("transport", &["facts", "plan", "event"]),
    ("rancher", &["facts", "plan", "event"]),
    ("kube", &["facts", "plan", "event"]),
    // The pure floors are told the time.
    ("facts", &["clock"]),
    ("plan", &["clock"]),
    ("event", &["clock"]),
];

/// Beside the floors: a simulated node lays out its files by itself, or a fault of the real code would cancel out.
const BESIDE: (&str, &[&str]) = ("sim", &["inventory"]);

/// Modules without effects: the same values in give the same values out.
const PURE: &[&str] =
    &["inventory", "pki", "command", "escape", "finding", "facts", "plan", "event", "report"];

/// The one file of a pure module that has an effect: bars know how wide the terminal is.
const EFFECTFUL_FILE: &str = "report/progress.rs";

/// What reaches outside the process.
const EFFECTS: &[&str] = &[
    "std::fs",
    "std::env::",
    "std::net::Tcp",
    "std::process",
    "std::thread",
    "std::io::std",
    "tokio",
    "reqwest",
    "russh",
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
];

/// One file of the source, without comments, texts and tests.
struct Source {
    /// Its path beneath `src`.
    path: PathBuf,
    code: String,
}

impl Source {
    /// Returns the module of the crate that the file belongs to; `lib.rs` and `main.rs` belong to none.
    fn module(&self) -> Option<String> {
        let first = self.path.components().next()?.as_os_str().to_str()?;
        let module = first.trim_end_matches(".rs").to_owned();
        (module != "lib" && module != "main").then_some(module)
    }

    /// Returns the modules of the crate that the file names.
    fn imports(&self, modules: &BTreeSet<String>) -> BTreeSet<String> {
        let depth = self.path.components().count();
        let named = names_after(&self.code, "crate::");
        let above = names_after(&self.code, &"super::".repeat(depth));
        named.into_iter().chain(above).filter(|name| modules.contains(name)).collect()
    }
}

/// Returns the names that follow a prefix, those of a group in braces too.
fn names_after(code: &str, prefix: &str) -> Vec<String> {
    let rests = code.match_indices(prefix).filter_map(|(at, _)| code.get(at + prefix.len()..));
    rests.flat_map(first_names).collect()
}

/// Returns the names that a path begins with: one, or those of `{a::b, c::{d, e}}` on its first level.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut level = 1;
    let mut names = vec![name(group)];
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => level += 1,
            '}' => level -= 1,
            ',' if level == 1 => names.extend(group.get(at + 1..).map(name)),
            _ => {}
        }
        if level == 0 {
            break;
        }
    }
    names
}

/// Returns the source's files, without those of tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_source = path.extension().is_some_and(|extension| extension == "rs");
            if path.is_dir() {
                folders.push(path);
            } else if is_source && !path.ends_with("tests.rs") {
                let code = code_of(&fs::read_to_string(&path).unwrap());
                sources.push(Source { path: path.strip_prefix(&root).unwrap().to_owned(), code });
            }
        }
    }
    sources
}

/// Returns a text without its tests, comments and texts in quotes.
fn code_of(text: &str) -> String {
    let without_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut code = String::new();
    let mut rest = without_tests;
    while let Some(letter) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if letter == '"' {
            length_of_text(rest)
        } else {
            code.push(letter);
            letter.len_utf8()
        };
        rest = rest.get(length..).unwrap();
    }
    code
}

/// Returns the length of the text in quotes that a code begins with.
fn length_of_text(code: &str) -> usize {
    let mut is_escaped = false;
    for (at, letter) in code.char_indices().skip(1) {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Returns every module with those that it may import.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let mut allowed = BTreeMap::new();
    let mut beneath = BTreeSet::new();
    for floor in FLOORS {
        for module in *floor {
            let mut imports = beneath.clone();
            imports
                .extend(NEIGHBOURS.iter().filter(|(from, _)| from == module).map(|(_, to)| (*to).to_owned()));
            for (_, forbidden) in FORBIDDEN.iter().filter(|(from, _)| from == module) {
                imports.retain(|name: &String| !forbidden.contains(&name.as_str()));
            }
            allowed.insert((*module).to_owned(), imports);
        }
        beneath.extend(floor.iter().map(|module| (*module).to_owned()));
    }
    if let Some(face) = allowed.get_mut("cli") {
        face.insert(BESIDE.0.to_owned());
    }
    allowed.insert(BESIDE.0.to_owned(), BESIDE.1.iter().map(|name| (*name).to_owned()).collect());
    allowed
}

#[test]
fn every_module_stands_on_a_floor() {
    let modules: BTreeSet<String> = sources().iter().filter_map(Source::module).collect();
    let placed: BTreeSet<String> = allowed().into_keys().collect();
    assert_eq!(modules, placed, "the modules of `src` and those of the table");
}

#[test]
fn modules_import_only_from_beneath() {
    let allowed = allowed();
    let modules: BTreeSet<String> = allowed.keys().cloned().collect();
    let mut seen = 0;
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(module) = source.module() else { continue };
        for import in source.imports(&modules) {
            seen += 1;
            if import != module && !allowed[&module].contains(&import) {
                wrong.push(format!("src/{}: {module} imports {import}", source.path.display()));
            }
        }
    }
    assert!(seen > 100, "only {seen} imports were found: the reader of sources is broken");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_modules_reach_for_nothing() {
    let mut wrong = Vec::new();
    for source in sources() {
        let is_pure = source.module().is_some_and(|module| PURE.contains(&module.as_str()));
        if !is_pure || source.path.ends_with(EFFECTFUL_FILE) {
            continue;
        }
        let found = EFFECTS.iter().filter(|effect| source.code.contains(**effect));
        wrong.extend(found.map(|effect| format!("src/{}: {effect}", source.path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bars_are_drawn_in_one_file() {
    let sources = sources();
    let naming: Vec<&Path> = sources
        .iter()
        .filter(|source| source.code.contains("indicatif"))
        .map(|source| source.path.as_path())
        .collect();
    assert_eq!(naming, [Path::new(EFFECTFUL_FILE)]);
}

#[test]
fn the_reader_of_sources_sees_code_alone() {
    let text = "//! crate::a\nuse crate::{b::c, d::{e, f}};\nlet x = \"crate::g \\\" \";\ncrate::h::i();\n\
                #[cfg(test)]\nmod tests {\n    use crate::j;\n}\n";
    let found = names_after(&code_of(text), "crate::");
    assert_eq!(found, ["b", "d", "h"]);
}
