//! Programs that look at and change single files.
#![expect(
    clippy::unnecessary_wraps,
    reason = "every program has the same signature, and some can be ended from outside"
)]

use super::arguments;
use crate::sim::files::{Errno, Links, Medium, Metadata, Owner, Type, WriteMode, child, normal};
use crate::sim::shell::{Process, Unwind};

pub(super) fn rm(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "rm", arguments, "rRf", "");
    let recursive = arguments.has('r') || arguments.has('R');
    let mut status = 0;
    for name in &arguments.operands {
        let path = process.path(name);
        let mut paths = vec![normal(&path)];
        if recursive {
            paths = process.files(|files| files.tree(process.who, &normal(&path)));
        }
        for path in paths.iter().rev() {
            let result = process.files(|files| {
                let metadata = files.metadata(process.who, path, Links::Keep)?;
                if metadata.is_directory() && recursive {
                    files.remove_directory(process.who, path)
                } else {
                    files.remove(process.who, path)
                }
            });
            match result {
                Ok(()) => {}
                Err(Errno::NotFound) if arguments.has('f') => {}
                Err(error) => status = process.fail(1, &format!("rm: cannot remove '{path}': {error}")),
            }
        }
    }
    Ok(status)
}

/// Reads an octal mode.
fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

pub(super) fn mkdir(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "mkdir", arguments, "p", "m");
    let mode = match arguments.value('m').map(octal) {
        Some(None) => return Ok(process.fail(2, "mkdir: only octal modes are simulated")),
        mode => mode.flatten(),
    };
    let masked = 0o777 & !process.umask;
    let mut status = 0;
    for name in &arguments.operands {
        let path = normal(&process.path(name));
        let result = process.files(|files| {
            if arguments.has('p') {
                let mut above = String::new();
                let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
                for part in parts.iter().take(parts.len().saturating_sub(1)) {
                    above = format!("{above}/{part}");
                    match files.make_directory(process.who, &above, masked) {
                        Ok(()) | Err(Errno::Exists) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            files.make_directory(process.who, &path, mode.unwrap_or(masked))
        });
        let is_directory = || {
            process
                .files(|files| files.metadata(process.who, &path, Links::Follow))
                .is_ok_and(|metadata| metadata.is_directory())
        };
        match result {
            Ok(()) => {}
            Err(Errno::Exists) if arguments.has('p') && is_directory() => {}
            Err(error) => {
                status = process.fail(1, &format!("mkdir: cannot create directory '{name}': {error}"));
            }
        }
    }
    Ok(status)
}

pub(super) fn rmdir(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "rmdir", arguments, "", "");
    let mut status = 0;
    for name in &arguments.operands {
        let path = process.path(name);
        if let Err(error) = process.files(|files| files.remove_directory(process.who, &path)) {
            status = process.fail(1, &format!("rmdir: failed to remove '{name}': {error}"));
        }
    }
    Ok(status)
}

/// Returns the mode that a word like `600` or `go-rwx` makes of a mode.
fn changed_mode(word: &str, mode: u32) -> Option<u32> {
    if let Some(mode) = octal(word) {
        return Some(mode);
    }
    let mut mode = mode;
    for clause in word.split(',') {
        let at = clause.find(['+', '-', '='])?;
        let (who, rest) = clause.split_at(at);
        let (operator, letters) = rest.split_at(1);
        let who = if who.is_empty() || who == "a" { "ugo" } else { who };
        let mut bits = 0;
        for letter in letters.chars() {
            bits |= match letter {
                'r' => 4,
                'w' => 2,
                'x' => 1,
                'X' => u32::from(mode & 0o111 != 0),
                _ => return None,
            };
        }
        for class in who.chars() {
            let shift = match class {
                'u' => 6,
                'g' => 3,
                'o' => 0,
                _ => return None,
            };
            mode = match operator {
                "+" => mode | bits << shift,
                "-" => mode & !(bits << shift),
                _ => mode & !(7 << shift) | bits << shift,
            };
        }
    }
    Some(mode)
}

pub(super) fn chmod(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    // A symbolic mode may begin with a dash; only -R is an option here.
    let recursive = arguments.iter().any(|argument| argument == "-R");
    let operands: Vec<&String> =
        arguments.iter().filter(|argument| !matches!(argument.as_str(), "-R" | "--")).collect();
    let Some((mode, names)) = operands.split_first() else {
        return Ok(process.fail(1, "chmod: missing operand"));
    };
    let mut status = 0;
    for name in names {
        for path in affected(process, name, recursive) {
            let result = process.files(|files| {
                let metadata = files.metadata(process.who, &path, Links::Follow)?;
                let mode = changed_mode(mode, metadata.mode).ok_or(Errno::Invalid)?;
                files.set_mode(process.who, &path, mode)
            });
            if let Err(error) = result {
                status = process.fail(1, &format!("chmod: changing permissions of '{name}': {error}"));
            }
        }
    }
    Ok(status)
}

fn affected(process: &Process, name: &str, recursive: bool) -> Vec<String> {
    let path = process.path(name);
    if recursive { process.files(|files| files.tree(process.who, &normal(&path))) } else { vec![path] }
}

pub(super) fn chown(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "chown", arguments, "Rh", "");
    let Some((owner, names)) = arguments.operands.split_first() else {
        return Ok(process.fail(1, "chown: missing operand"));
    };
    let number = |text: &str| match text {
        "" => Some(None),
        "root" => Some(Some(0)),
        text => text.parse::<u32>().ok().map(Some),
    };
    let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
    let (Some(uid), Some(gid)) = (number(user), number(group)) else {
        return Ok(process.fail(1, &format!("chown: invalid user: '{owner}'")));
    };
    let mut status = 0;
    for name in names {
        for path in affected(process, name, arguments.has('R')) {
            let result = process.files(|files| {
                let before = files.metadata(process.who, &path, Links::Follow)?.owner;
                let owner = Owner { uid: uid.unwrap_or(before.uid), gid: gid.unwrap_or(before.gid) };
                files.set_owner(process.who, &path, owner)
            });
            if let Err(error) = result {
                status = process.fail(1, &format!("chown: changing ownership of '{name}': {error}"));
            }
        }
    }
    Ok(status)
}

pub(super) fn touch(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "touch", arguments, "cm", "dr");
    let time = match (arguments.value('d'), arguments.value('r')) {
        (Some(text), _) => text
            .strip_prefix('@')
            .and_then(|seconds| jiff::Timestamp::from_second(seconds.parse().ok()?).ok()),
        (None, Some(reference)) => {
            let path = process.path(reference);
            process
                .files(|files| files.metadata(process.who, &path, Links::Follow))
                .ok()
                .map(|metadata| metadata.modified)
        }
        (None, None) => Some(process.node.now(&process.world.clock)),
    };
    let Some(time) = time else {
        return Ok(process.fail(1, "touch: invalid time: only -d @SECONDS and -r FILE are simulated"));
    };
    let mode = 0o666 & !process.umask;
    let mut status = 0;
    for name in &arguments.operands {
        let path = process.path(name);
        let result = process.files(|files| match files.resolve(process.who, &path, Links::Follow) {
            Err(Errno::NotFound) if arguments.has('c') => Ok(()),
            Err(Errno::NotFound) => {
                files.open(process.who, &path, WriteMode::Append, mode)?;
                files.set_modified(process.who, &path, time)
            }
            _ => files.set_modified(process.who, &path, time),
        });
        if let Err(error) = result {
            status = process.fail(1, &format!("touch: cannot touch '{name}': {error}"));
        }
    }
    Ok(status)
}

fn type_name(metadata: &Metadata) -> &'static str {
    match metadata.kind {
        Type::File if metadata.size == 0 => "regular empty file",
        Type::File => "regular file",
        Type::Directory => "directory",
        Type::Link => "symbolic link",
    }
}

fn owner_name(process: &Process, id: u32) -> String {
    match id {
        0 => "root".to_owned(),
        1000 => process.node.login.name.clone(),
        _ => "UNKNOWN".to_owned(),
    }
}

pub(super) fn stat(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "stat", arguments, "Lf", "c");
    let Some(format) = arguments.value('c') else {
        return Ok(process.fail(2, "stat: only -c FORMAT is simulated"));
    };
    if arguments.has('f') {
        return Ok(file_systems(process, format, &arguments.operands));
    }
    let links = if arguments.has('L') { Links::Follow } else { Links::Keep };
    let mut status = 0;
    for name in &arguments.operands {
        let path = process.path(name);
        let metadata = match process.files(|files| files.metadata(process.who, &path, links)) {
            Ok(metadata) => metadata,
            Err(error) => {
                status = process.fail(1, &format!("stat: cannot statx '{name}': {error}"));
                continue;
            }
        };
        let mut line = String::new();
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                line.push(character);
                continue;
            }
            let field = match characters.next() {
                Some('a') => format!("{:o}", metadata.mode),
                Some('u') => metadata.owner.uid.to_string(),
                Some('g') => metadata.owner.gid.to_string(),
                Some('U') => owner_name(process, metadata.owner.uid),
                Some('G') => owner_name(process, metadata.owner.gid),
                Some('s') => metadata.size.to_string(),
                Some('Y') => metadata.modified.as_second().to_string(),
                Some('y') => metadata.modified.strftime("%Y-%m-%d %H:%M:%S.%9f +0000").to_string(),
                Some('h') => metadata.links.to_string(),
                Some('n') => name.clone(),
                Some('F') => type_name(&metadata).to_owned(),
                Some('%') => "%".to_owned(),
                other => {
                    return Ok(process.fail(2, &format!("stat: %{} is not simulated", other.unwrap_or(' '))));
                }
            };
            line.push_str(&field);
        }
        process.put_line(&line);
    }
    Ok(status)
}

/// What a file system has in all, and what of it is free.
struct Room {
    total: u64,
    free: u64,
}

/// Returns the KiB and the inodes of a node's one file system.
fn rooms(process: &Process) -> [Room; 2] {
    let full = process.files(|files| files.medium) == Medium::Full;
    let left = |free| if full { 0 } else { free };
    [Room { total: 41_284_928, free: left(27_518_212) }, Room { total: 2_621_440, free: left(2_490_000) }]
}

/// Prints the line of a format (`stat -f`) for the file system of each path.
fn file_systems(process: &mut Process, format: &str, names: &[String]) -> i32 {
    let [kibibytes, inodes] = rooms(process);
    let line = format
        .replace("%a", &kibibytes.free.to_string())
        .replace("%b", &kibibytes.total.to_string())
        .replace("%S", "1024")
        .replace("%c", &inodes.total.to_string())
        .replace("%d", &inodes.free.to_string());
    if line.replace("%n", "").contains('%') {
        return process.fail(2, &format!("stat: -f of `{format}` is not simulated"));
    }
    let mut status = 0;
    for name in names {
        let path = process.path(name);
        match process.files(|files| files.metadata(process.who, &path, Links::Follow)) {
            Ok(_) => process.put_line(&line.replace("%n", name)),
            Err(error) => {
                let message = format!("stat: cannot read file system information for '{name}': {error}");
                status = process.fail(1, &message);
            }
        }
    }
    status
}

pub(super) fn ls(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let mut arguments = arguments!(process, "ls", arguments, "1Aadln", "");
    if arguments.operands.is_empty() {
        arguments.operands.push(".".to_owned());
    }
    let mut status = 0;
    let several = arguments.operands.len() > 1;
    for name in arguments.operands.clone() {
        let path = process.path(&name);
        let metadata = match process.files(|files| files.metadata(process.who, &path, Links::Follow)) {
            Ok(metadata) => metadata,
            Err(error) => {
                status = process.fail(2, &format!("ls: cannot access '{name}': {error}"));
                continue;
            }
        };
        let mut lines = vec![(name.clone(), path.clone())];
        if metadata.is_directory() && !arguments.has('d') {
            let names = match process.files(|files| files.list(process.who, &path)) {
                Ok(names) => names,
                Err(error) => {
                    status = process.fail(2, &format!("ls: cannot open directory '{name}': {error}"));
                    continue;
                }
            };
            let hidden = arguments.has('A') || arguments.has('a');
            let shown = names.into_iter().filter(|name| hidden || !name.starts_with('.'));
            lines = shown.map(|name| (name.clone(), child(&path, &name))).collect();
            if several {
                process.put_line(&format!("{name}:"));
            }
        }
        for (name, path) in lines {
            let line = if arguments.has('l') || arguments.has('n') {
                long_line(process, &name, &path)
            } else {
                name
            };
            process.put_line(&line);
        }
    }
    Ok(status)
}

fn long_line(process: &Process, name: &str, path: &str) -> String {
    let Ok(metadata) = process.files(|files| files.metadata(process.who, path, Links::Keep)) else {
        return format!("?????????? ? ? ? ? {name}");
    };
    let letter = match metadata.kind {
        Type::File => '-',
        Type::Directory => 'd',
        Type::Link => 'l',
    };
    let bits: String = (0..9)
        .map(|bit| {
            if metadata.mode & (0o400 >> bit) == 0 {
                '-'
            } else {
                ['r', 'w', 'x'].get(bit % 3).copied().unwrap_or('-')
            }
        })
        .collect();
    let time = metadata.modified.strftime("%b %e %H:%M").to_string();
    let Owner { uid, gid } = metadata.owner;
    format!(
        "{letter}{bits} {} {} {} {} {time} {name}",
        metadata.links,
        owner_name(process, uid),
        owner_name(process, gid),
        metadata.size
    )
}

pub(super) fn readlink(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "readlink", arguments, "f", "");
    let Some(name) = arguments.operands.first() else {
        return Ok(process.fail(1, "readlink: missing operand"));
    };
    let path = process.path(name);
    let target = process.files(|files| files.read_link(process.who, &path));
    let shown = match target {
        Ok(target) => target,
        Err(_) if arguments.has('f') => normal(&path),
        Err(_) => return Ok(1),
    };
    process.put_line(&shown);
    Ok(0)
}

pub(super) fn df(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "df", arguments, "Pki", "");
    let inodes = arguments.has('i');
    let [kibibytes, counted] = rooms(process);
    let Room { total, free } = if inodes { counted } else { kibibytes };
    let used = total - free;
    let header = if inodes { "Inodes IUsed IFree IUse%" } else { "1024-blocks Used Available Capacity" };
    process.put_line(&format!("Filesystem {header} Mounted on"));
    for name in &arguments.operands {
        let path = process.path(name);
        if let Err(error) = process.files(|files| files.metadata(process.who, &path, Links::Follow)) {
            return Ok(process.fail(1, &format!("df: {name}: {error}")));
        }
    }
    let share = (used * 100).div_ceil(total);
    for _ in 0..arguments.operands.len().max(1) {
        process.put_line(&format!("/dev/sda1 {total} {used} {free} {share}% /"));
    }
    Ok(0)
}
