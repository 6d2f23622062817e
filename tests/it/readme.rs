//! What README.md promises: its commands are ones, its inventory is one, and what it links to is there.

#![expect(clippy::disallowed_methods, reason = "README.md is read, and the built program is started")]
#![expect(clippy::unwrap_used, reason = "a file that cannot be read fails its test")]

use std::fs;
use std::path::Path;
use std::process::Command;

use certroll::inventory::Inventory;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// Returns the command lines of `certroll`: those in blocks after `$`, and those in backticks.
fn command_lines(readme: &str) -> Vec<&str> {
    let in_blocks = readme.lines().filter_map(|line| line.trim().strip_prefix("$ "));
    let in_backticks = readme.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    in_blocks.chain(in_backticks).filter_map(|text| text.strip_prefix("certroll ")).collect()
}

#[test]
fn its_commands_are_understood() {
    let readme = readme();
    let lines = command_lines(&readme);
    assert!(lines.len() >= 7, "{lines:?}");
    for line in lines {
        // With `--help` every word before it is read, and nothing is done.
        let output = Command::new(env!("CARGO_BIN_EXE_certroll"))
            .args(line.split_whitespace())
            .arg("--help")
            .env_clear()
            .output()
            .unwrap();
        assert!(output.status.success(), "certroll {line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn its_inventory_is_valid() {
    let readme = readme();
    let block = readme.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let lines: Vec<&str> = block.lines().map(|line| line.strip_prefix("   ").unwrap_or(line)).collect();
    let parsed = Inventory::parse(&lines.join("\n"), "README.md").unwrap();
    assert_eq!(parsed.inventory.nodes.len(), 2);
    assert!(
        parsed.findings.iter().all(|finding| !finding.message.contains("not a key")),
        "{:?}",
        parsed.findings
    );
}

#[test]
fn what_it_links_to_is_there() {
    let readme = readme();
    let targets: Vec<&str> = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(targets.len() >= 3, "{targets:?}");
    for target in targets {
        assert!(root().join(target).exists(), "{target}");
    }
}
