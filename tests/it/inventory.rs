//! A cluster.yml as people and tools write it: what is read from it, and how a bad one is refused.

#![expect(clippy::disallowed_methods, reason = "the cases are files")]
#![expect(clippy::unwrap_used, reason = "a case that cannot be read fails its test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use certroll::finding::Severity;
use certroll::inventory::{Inventory, MaxUnavailable, Role};
use proptest::prelude::*;

fn cases(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/inventory").join(kind);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .collect();
    files.sort();
    files
}

/// Calls a check with the text, the file name and the bare name of every case.
fn with_cases(kind: &str, check: impl Fn(&str, &str, &str)) -> usize {
    let files = cases(kind);
    for path in &files {
        let text = fs::read_to_string(path).unwrap();
        let file = path.file_name().unwrap().to_str().unwrap();
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(path.parent().unwrap());
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| check(&text, file, file.trim_end_matches(".yml")));
    }
    files.len()
}

#[test]
fn valid_files_are_read() {
    let seen = with_cases("valid", |text, file, name| match Inventory::parse(text, file) {
        Ok(parsed) => insta::assert_snapshot!(name, format!("{:#?}", parsed)),
        Err(invalid) => panic!("{file} was refused: {invalid}"),
    });
    assert!(seen >= 13, "{seen} cases");
}

#[test]
fn invalid_files_are_refused_with_line_and_way_out() {
    let seen = with_cases("invalid", |text, file, name| match Inventory::parse(text, file) {
        Ok(parsed) => panic!("{file} was taken: {parsed:#?}"),
        Err(invalid) => insta::assert_snapshot!(name, invalid.to_string()),
    });
    assert!(seen >= 45, "{seen} cases");
}

#[test]
fn no_refusal_shows_a_secret() {
    with_cases("invalid", |text, file, _| {
        let shown = Inventory::parse(text, file).unwrap_err().to_string();
        assert!(
            !shown.contains("SECRET") && !shown.contains("hunter") && !shown.contains('\u{1b}'),
            "{shown}"
        );
    });
}

#[test]
fn the_example_is_read_without_a_warning() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("inventory.example.yml");
    let parsed = Inventory::parse(&fs::read_to_string(path).unwrap(), "inventory.example.yml").unwrap();
    let worse: Vec<_> = parsed.findings.iter().filter(|finding| finding.severity != Severity::Info).collect();
    assert!(worse.is_empty(), "{worse:#?}");
    let inventory = parsed.inventory;
    assert_eq!(inventory.with_role(Role::Etcd).count(), 3);
    assert_eq!(inventory.max_unavailable_worker, MaxUnavailable::Percent(20));
    assert!(inventory.bastion.is_some());
}

#[test]
fn a_problem_tells_its_place() {
    let invalid =
        Inventory::parse("nodes:\n- address: a\n  user: u\n  role: [etcd, master]\n", "c.yml").unwrap_err();
    let problem = invalid.problems().next().unwrap();
    assert_eq!((problem.line(), problem.column(), problem.width()), (4, 16, 6));
    assert_eq!(problem.message(), "the role `master` is not known");
    assert_eq!(problem.hint(), Some("did you mean `controlplane`?"));
}

#[test]
fn a_refusal_keeps_the_warnings() {
    let text = "nodes:\n- {address: a, usr: u, role: [etcd, controlplane]}\n";
    let invalid = Inventory::parse(text, "c.yml").unwrap_err();
    assert_eq!(invalid.findings().len(), 1);
    assert_eq!(invalid.findings()[0].code, "unknown-key");
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn hostile_texts_are_refused_fast() {
    let junk = [
        "x".repeat(100 << 20),
        "[".repeat(1 << 20),
        "a: {".repeat(1 << 18),
        "- a\n".repeat(1 << 20),
        "-\n".repeat(150_000),
        format!("nodes:\n{}", "-\n".repeat(100_000)),
        format!("? {}\n: 1\n", "x".repeat(3 << 20)),
        format!("nodes:\n- role: [{}]\n", "x".repeat(3 << 20)),
        format!("nodes:\n- colour: blue\n{}", lines(90_000, |key| format!("  k{key}: 1"))),
        lines(90_000, |key| format!("k{key}: 1")),
        lines(500, |depth| format!("{}a:", " ".repeat(depth))),
    ];
    for text in junk {
        let started = Instant::now();
        let shown = Inventory::parse(&text, "junk.yml").unwrap_err().to_string();
        assert!(shown.len() < 10_000, "{} bytes", shown.len());
        assert!(started.elapsed() < Duration::from_mins(1), "{:?} for {:.20}", started.elapsed(), text);
    }
}

#[test]
fn thousands_of_nodes_are_read() {
    let nodes = lines(5_000, |index| {
        let roles = if index < 3 { "controlplane, etcd" } else { "worker" };
        let address = format!("10.{}.{}.{}", index >> 16, (index >> 8) & 255, index & 255);
        format!(
            "- address: {address}\n  user: rancher\n  hostname_override: n{index}\n  port: 22\n  role: [{roles}]"
        )
    });
    let parsed = Inventory::parse(&format!("nodes:\n{nodes}"), "large.yml").unwrap();
    assert_eq!(parsed.inventory.nodes.len(), 5_000);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        let _ = Inventory::parse(&text, "any.yml").map_err(|invalid| invalid.to_string());
    }

    #[test]
    fn no_yaml_makes_it_panic(text in "([a-z_]{1,8}|nodes|role|services|ssh_key|address|user|etcd|[\\[\\]{}:,&*|>'\"#\t\r\n -]){0,80}") {
        let _ = Inventory::parse(&text, "any.yml").map_err(|invalid| invalid.to_string());
    }

    #[test]
    fn no_value_makes_it_panic(value in "\\PC{0,40}", key in "address|user|port|role|labels|ssh_key|hostname_override|internal_address") {
        let text = format!("nodes:\n- address: 10.0.0.1\n  user: u\n  role: [etcd, controlplane]\n- {key}: {value}\n");
        let _ = Inventory::parse(&text, "any.yml").map_err(|invalid| invalid.to_string());
    }

    #[test]
    fn a_damaged_file_never_panics(cut in 0_usize..14_000, inserted in "\\PC{0,3}") {
        let text = include_str!("../cases/inventory/valid/full.yml");
        let cut = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let damaged = format!("{}{inserted}{}", &text[..cut], &text[cut..]);
        let _ = Inventory::parse(&damaged, "full.yml").map_err(|invalid| invalid.to_string());
    }
}
