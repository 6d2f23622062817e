//! Programs that copy, move, link and compare files.

use super::{arguments, input};
use crate::sim::files::{Attributes, Errno, Files, Links, Metadata, Owner, Type, WriteMode, child, normal};
use crate::sim::shell::{Process, Unwind};

/// Returns where a source goes: into the target if that is a folder, else onto it.
fn destination(process: &Process, source: &str, target: &str) -> String {
    let path = process.path(target);
    let is_folder = process
        .files(|files| files.metadata(process.who, &path, Links::Follow))
        .is_ok_and(|metadata| metadata.is_directory());
    let name = source.trim_end_matches('/').rsplit('/').next().unwrap_or(source);
    if is_folder { child(&path, name) } else { path }
}

fn target_is_folder(process: &Process, target: &str) -> bool {
    let path = process.path(target);
    process
        .files(|files| files.metadata(process.who, &path, Links::Follow))
        .is_ok_and(|metadata| metadata.is_directory())
}

pub(super) fn cp(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "cp", arguments, "prRafnT", "");
    let Some((target, sources)) = arguments.operands.split_last() else {
        return Ok(process.fail(1, "cp: missing file operand"));
    };
    if sources.len() > 1 && !target_is_folder(process, target) {
        return Ok(process.fail(1, &format!("cp: target '{target}': Not a directory")));
    }
    let recursive = arguments.has('r') || arguments.has('R') || arguments.has('a');
    let keep = if arguments.has('p') || arguments.has('a') { Keep::Attributes } else { Keep::Nothing };
    let mut status = 0;
    for source in sources {
        let from = normal(&process.path(source));
        let to = if arguments.has('T') {
            process.path(target)
        } else {
            normal(&destination(process, source, target))
        };
        let metadata = match process.files(|files| files.metadata(process.who, &from, Links::Follow)) {
            Ok(metadata) => metadata,
            Err(error) => {
                status = process.fail(1, &format!("cp: cannot stat '{source}': {error}"));
                continue;
            }
        };
        if metadata.is_directory() && !recursive {
            status = process.fail(1, &format!("cp: -r not specified; omitting directory '{source}'"));
            continue;
        }
        if from == to || to.starts_with(&format!("{from}/")) {
            status = process
                .fail(1, &format!("cp: '{source}' and '{target}' are the same file, or one holds the other"));
            continue;
        }
        let paths = if metadata.is_directory() {
            process.files(|files| files.tree(process.who, &from))
        } else {
            vec![from.clone()]
        };
        for path in paths {
            let copy = format!("{to}{}", path.strip_prefix(&from).unwrap_or_default());
            if arguments.has('n')
                && process.files(|files| files.metadata(process.who, &copy, Links::Keep)).is_ok()
            {
                continue;
            }
            let umask = process.umask;
            let result = process.files(|files| copy_one(files, process.who, (&path, &copy), umask, keep));
            if let Err(error) = result {
                status = process.fail(1, &format!("cp: cannot copy '{path}' to '{copy}': {error}"));
            }
        }
    }
    Ok(status)
}

/// What a copy keeps of its original beside its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Attributes,
    Nothing,
}

fn copy_one(
    files: &mut Files,
    who: Owner,
    (from, to): (&str, &str),
    umask: u32,
    keep: Keep,
) -> Result<(), Errno> {
    let metadata = files.metadata(who, from, Links::Follow)?;
    let mode = metadata.mode & !umask;
    if metadata.is_directory() {
        match files.make_directory(who, to, mode | 0o700) {
            Err(Errno::Exists) if files.metadata(who, to, Links::Follow)?.is_directory() => {}
            result => result?,
        }
    } else {
        let content = files.read(who, from)?;
        let id = files.open(who, to, WriteMode::Truncate, mode)?;
        files.append(id, &content)?;
    }
    if keep == Keep::Attributes { carry_over(files, who, to, &metadata) } else { Ok(()) }
}

fn carry_over(files: &mut Files, who: Owner, to: &str, from: &Metadata) -> Result<(), Errno> {
    let attributes = Attributes { mode: from.mode, owner: from.owner, modified: from.modified };
    apply(files, who, to, attributes)
}

/// Gives a path its attributes; only root can give a file away, and nobody else is told so (as with `cp -p`).
pub(super) fn apply(files: &mut Files, who: Owner, path: &str, attributes: Attributes) -> Result<(), Errno> {
    match files.set_owner(who, path, attributes.owner) {
        Ok(()) | Err(Errno::NotPermitted) => {}
        Err(error) => return Err(error),
    }
    files.set_mode(who, path, attributes.mode)?;
    files.set_modified(who, path, attributes.modified)
}

pub(super) fn mv(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "mv", arguments, "fnT", "");
    let Some((target, sources)) = arguments.operands.split_last() else {
        return Ok(process.fail(1, "mv: missing file operand"));
    };
    if sources.len() > 1 && !target_is_folder(process, target) {
        return Ok(process.fail(1, &format!("mv: target '{target}': Not a directory")));
    }
    let mut status = 0;
    for source in sources {
        let from = process.path(source);
        let to = if arguments.has('T') { process.path(target) } else { destination(process, source, target) };
        let there = process.files(|files| files.resolve(process.who, &to, Links::Keep));
        if arguments.has('n') && there.is_ok() {
            continue;
        }
        if there.is_ok() && there == process.files(|files| files.resolve(process.who, &from, Links::Keep)) {
            status = process.fail(1, &format!("mv: '{source}' and '{target}' are the same file"));
            continue;
        }
        if let Err(error) = process.files(|files| files.rename(process.who, &from, &to)) {
            status = process.fail(1, &format!("mv: cannot move '{source}' to '{target}': {error}"));
        }
    }
    Ok(status)
}

pub(super) fn ln(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "ln", arguments, "sfnT", "");
    let [source, target] = arguments.operands.as_slice() else {
        return Ok(process.fail(2, "ln: only `ln TARGET NAME` is simulated"));
    };
    let name = if arguments.has('T') { process.path(target) } else { destination(process, source, target) };
    let from = process.path(source);
    let result = process.files(|files| {
        if arguments.has('f') {
            match files.remove(process.who, &name) {
                Ok(()) | Err(Errno::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        if arguments.has('s') {
            files.symbolic_link(process.who, source, &name)
        } else {
            files.hard_link(process.who, &from, &name)
        }
    });
    Ok(match result {
        Ok(()) => 0,
        Err(error) => process.fail(1, &format!("ln: failed to create link '{target}': {error}")),
    })
}

pub(super) fn cmp(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "cmp", arguments, "s", "");
    let [left, right] = arguments.operands.as_slice() else {
        return Ok(process.fail(2, "cmp: two files are needed"));
    };
    let (Some(first), Some(second)) = (input(process, "cmp", left), input(process, "cmp", right)) else {
        return Ok(2);
    };
    if first == second {
        return Ok(0);
    }
    if !arguments.has('s') {
        let at = first.iter().zip(&second).position(|(left, right)| left != right);
        match at {
            Some(at) => {
                let line = 1 + first.iter().take(at).filter(|byte| **byte == b'\n').count();
                process.put_line(&format!("{left} {right} differ: char {}, line {line}", at + 1));
            }
            None => process
                .complain(&format!("cmp: EOF on {}", if first.len() < second.len() { left } else { right })),
        }
    }
    Ok(1)
}

/// Returns whether a path is something that can be copied byte by byte.
pub(super) fn is_plain(metadata: &Metadata) -> bool {
    metadata.kind == Type::File
}
