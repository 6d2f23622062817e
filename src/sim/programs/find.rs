//! `find`.

use super::system;
use crate::sim::files::{Links, Type, normal};
use crate::sim::shell::{Process, Unwind, matches};

#[derive(Debug, Clone)]
enum Test {
    Kind(Type),
    Name(String),
    Path(String),
    Newer(jiff::Timestamp),
    Prune,
    Print,
    Exec(Vec<String>),
    Not(Box<Test>),
}

/// `find PATH... [-maxdepth N] [-mindepth N] TESTS`, with `-o` between groups of tests.
pub(super) fn find(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let roots = arguments.iter().take_while(|word| !word.starts_with('-') && *word != "!").count();
    let (roots, expression) = arguments.split_at_checked(roots).unwrap_or_default();
    let (mut groups, mut depths) = (Vec::new(), (0, usize::MAX));
    if let Err(message) = parse(process, expression, &mut groups, &mut depths) {
        return Ok(process.fail(2, &format!("find: {message}")));
    }
    let here = [".".to_owned()];
    let mut status = 0;
    for root in if roots.is_empty() { &here } else { roots } {
        let path = process.path(root);
        if let Err(error) = process.files(|files| files.metadata(process.who, &path, Links::Keep)) {
            status = process.fail(1, &format!("find: '{root}': {error}"));
            continue;
        }
        let base = normal(&path);
        let mut pruned: Vec<String> = Vec::new();
        for found in process.files(|files| files.tree(process.who, &base)) {
            let relative = found.strip_prefix(&base).unwrap_or_default();
            let depth = relative.split('/').filter(|part| !part.is_empty()).count();
            let below = |folder: &String| found.starts_with(&format!("{folder}/"));
            if depth > depths.1 || pruned.iter().any(below) {
                continue;
            }
            let shown = format!("{}{relative}", if root == "/" { "" } else { root.trim_end_matches('/') });
            if depth >= depths.0 && visit(process, &groups, &found, &shown)? {
                pruned.push(found);
            }
        }
    }
    Ok(status)
}

fn parse(
    process: &Process,
    words: &[String],
    groups: &mut Vec<Vec<Test>>,
    depths: &mut (usize, usize),
) -> Result<(), String> {
    let mut group = Vec::new();
    let mut words = words.iter();
    let mut negated = false;
    while let Some(word) = words.next() {
        let mut value =
            || words.next().map(String::as_str).ok_or_else(|| format!("missing argument to `{word}'"));
        let number = |text: &str| text.parse().map_err(|_| format!("invalid argument `{text}' to `{word}'"));
        let test = match word.as_str() {
            "!" | "-not" => {
                negated = true;
                continue;
            }
            "-o" => {
                groups.push(std::mem::take(&mut group));
                continue;
            }
            "-a" => continue,
            "-maxdepth" => {
                depths.1 = number(value()?)?;
                continue;
            }
            "-mindepth" => {
                depths.0 = number(value()?)?;
                continue;
            }
            "-type" => match value()? {
                "f" => Test::Kind(Type::File),
                "d" => Test::Kind(Type::Directory),
                "l" => Test::Kind(Type::Link),
                other => return Err(format!("-type {other} is not simulated")),
            },
            "-name" => Test::Name(value()?.to_owned()),
            "-path" => Test::Path(value()?.to_owned()),
            "-newer" => {
                let name = value()?;
                let path = process.path(name);
                let metadata = process.files(|files| files.metadata(process.who, &path, Links::Follow));
                Test::Newer(metadata.map_err(|error| format!("'{name}': {error}"))?.modified)
            }
            "-prune" => Test::Prune,
            "-print" => Test::Print,
            "-exec" => {
                let command: Vec<String> =
                    words.by_ref().take_while(|word| *word != ";" && *word != "+").cloned().collect();
                Test::Exec(command)
            }
            other => return Err(format!("`{other}` is not simulated")),
        };
        group.push(if std::mem::take(&mut negated) { Test::Not(Box::new(test)) } else { test });
    }
    groups.push(group);
    let acts = |test: &Test| matches!(test, Test::Print | Test::Exec(_));
    if !groups.iter().flatten().any(acts) {
        for group in groups {
            group.push(Test::Print);
        }
    }
    Ok(())
}

/// Applies the tests to a path; returns whether what lies below it is left out.
fn visit(process: &mut Process, groups: &[Vec<Test>], path: &str, shown: &str) -> Result<bool, Unwind> {
    let mut pruned = false;
    for group in groups {
        let mut holds = true;
        for test in group {
            pruned |= matches!(test, Test::Prune);
            if !apply(process, test, path, shown)? {
                pruned = false;
                holds = false;
                break;
            }
        }
        if holds {
            break;
        }
    }
    Ok(pruned)
}

fn apply(process: &mut Process, test: &Test, path: &str, shown: &str) -> Result<bool, Unwind> {
    let metadata = process.files(|files| files.metadata(process.who, path, Links::Keep));
    Ok(match test {
        Test::Kind(kind) => metadata.is_ok_and(|metadata| metadata.kind == *kind),
        Test::Name(pattern) => matches(pattern, shown.rsplit('/').next().unwrap_or(shown)),
        Test::Path(pattern) => matches(pattern, shown),
        Test::Newer(than) => metadata.is_ok_and(|metadata| metadata.modified > *than),
        Test::Prune => true,
        Test::Print => {
            process.put_line(shown);
            true
        }
        Test::Exec(command) => {
            let command: Vec<String> = command.iter().map(|word| word.replace("{}", shown)).collect();
            system::run(process, &command)? == 0
        }
        Test::Not(test) => !apply(process, test, path, shown)?,
    })
}
