//! `tar`: ustar archives, with mode, owner and time of every file.
#![expect(
    clippy::unnecessary_wraps,
    reason = "every program has the same signature, and some can be ended from outside"
)]

use jiff::Timestamp;

use super::copies::{apply, is_plain};
use super::input;
use crate::sim::files::{Attributes, Errno, Files, Links, Metadata, Owner, WriteMode, child, join, normal};
use crate::sim::shell::{Process, Unwind, matches};

const BLOCK: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Create,
    Extract,
    List,
}

/// What the arguments ask for.
#[derive(Debug)]
struct Request {
    mode: Mode,
    file: String,
    excluded: Vec<String>,
    strip: usize,
    keep_old: bool,
    /// Whether contents go to stdout, and not onto the disk.
    to_stdout: bool,
    /// Members, each with the folder in which it is looked for.
    members: Vec<(String, String)>,
    folder: String,
}

/// One file of an archive.
struct Member<'a> {
    name: String,
    kind: u8,
    attributes: Attributes,
    content: &'a [u8],
}

pub(super) fn tar(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let request = match parse(process, arguments) {
        Ok(request) => request,
        Err(message) => return Ok(process.fail(2, &format!("tar: {message}"))),
    };
    Ok(match request.mode {
        Mode::Create => create(process, &request),
        Mode::Extract | Mode::List => read(process, &request),
    })
}

fn parse(process: &Process, arguments: &[String]) -> Result<Request, String> {
    let mut mode = None;
    let mut request = Request {
        mode: Mode::List,
        file: "-".to_owned(),
        excluded: Vec::new(),
        strip: 0,
        keep_old: false,
        to_stdout: false,
        members: Vec::new(),
        folder: process.folder.clone(),
    };
    let mut rest = arguments.iter();
    let mut first = true;
    while let Some(word) = rest.next() {
        let bundle = first && !word.starts_with('-');
        first = false;
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').unwrap_or((long, ""));
            match name {
                "exclude" => request.excluded.push(value.to_owned()),
                "strip-components" => {
                    request.strip = value.parse().map_err(|_| "invalid number of elements".to_owned())?;
                }
                "numeric-owner" | "same-owner" | "preserve-permissions" | "acls" | "selinux" | "xattrs" => {}
                "keep-old-files" => request.keep_old = true,
                other => return Err(format!("--{other} is not simulated")),
            }
            continue;
        }
        let letters = if bundle { word.as_str() } else { word.strip_prefix('-').unwrap_or_default() };
        if letters.is_empty() || (!bundle && !word.starts_with('-')) {
            request.members.push((request.folder.clone(), word.clone()));
            continue;
        }
        let mut letters = letters.chars();
        while let Some(letter) = letters.next() {
            match letter {
                'c' => mode = Some(Mode::Create),
                'x' => mode = Some(Mode::Extract),
                't' => mode = Some(Mode::List),
                'p' | 'v' => {}
                'k' => request.keep_old = true,
                'O' => request.to_stdout = true,
                'f' | 'C' => {
                    let attached = letters.as_str().to_owned();
                    let value =
                        if attached.is_empty() || bundle { rest.next().cloned() } else { Some(attached) };
                    let value = value.ok_or_else(|| format!("option requires an argument -- '{letter}'"))?;
                    if letter == 'f' {
                        request.file = value;
                    } else {
                        request.folder = folder(process, &join(&request.folder, &process.path(&value)))
                            .map_err(|error| format!("{value}: Cannot open: {error}"))?;
                    }
                    if !bundle {
                        break;
                    }
                }
                other => return Err(format!("-{other} is not simulated")),
            }
        }
    }
    request.mode = mode.ok_or("one of -c, -x and -t is needed")?;
    Ok(request)
}

/// Returns the folder that `-C` leads to; what is none ends the program at once.
fn folder(process: &Process, path: &str) -> Result<String, Errno> {
    let path = normal(path);
    let metadata = process.files(|files| files.metadata(process.who, &path, Links::Follow))?;
    if metadata.is_directory() { Ok(path) } else { Err(Errno::NotDirectory) }
}

fn is_excluded(request: &Request, name: &str) -> bool {
    request.excluded.iter().any(|pattern| {
        let pattern = pattern.trim_end_matches('/');
        let plain = name.trim_start_matches("./");
        let tails = plain.match_indices('/').map(|(at, _)| plain.get(at + 1..).unwrap_or_default());
        let mut candidates = [name, plain].into_iter().chain(tails);
        candidates.any(|tail| matches(pattern, tail))
    })
}

fn create(process: &mut Process, request: &Request) -> i32 {
    let mut archive = Vec::new();
    let mut status = 0;
    for (folder, member) in &request.members {
        let root = normal(&join(folder, member));
        let exists = process.files(|files| files.metadata(process.who, &root, Links::Keep));
        if let Err(error) = exists {
            status = process.fail(2, &format!("tar: {member}: Cannot stat: {error}"));
            continue;
        }
        let mut pruned: Vec<String> = Vec::new();
        for path in process.files(|files| files.tree(process.who, &root)) {
            let below = path.strip_prefix(&root).unwrap_or_default();
            let name = format!("{}{below}", member.trim_end_matches('/'));
            if pruned.iter().any(|folder| path.starts_with(folder)) {
                continue;
            }
            if is_excluded(request, &name) {
                pruned.push(format!("{path}/"));
                continue;
            }
            let added = process.files(|files| add(files, process.who, &path, &name, &mut archive));
            if let Err(error) = added {
                status = process.fail(2, &format!("tar: {name}: Cannot open: {error}"));
            }
        }
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    if request.file == "-" {
        process.put(archive);
        return status;
    }
    let path = process.path(&request.file);
    let mode = 0o666 & !process.umask;
    let written = process.files(|files| {
        let id = files.open(process.who, &path, WriteMode::Truncate, mode)?;
        files.append(id, &archive)
    });
    match written {
        Ok(()) => status,
        Err(error) => process.fail(2, &format!("tar: {}: Cannot write: {error}", request.file)),
    }
}

fn add(files: &Files, who: Owner, path: &str, name: &str, archive: &mut Vec<u8>) -> Result<(), Errno> {
    let metadata = files.metadata(who, path, Links::Keep)?;
    let content = if is_plain(&metadata) { files.read(who, path)? } else { Vec::new() };
    let link = files.read_link(who, path).unwrap_or_default();
    let name = name.trim_start_matches('/');
    archive.extend(header(name, &metadata, &link).ok_or(Errno::Invalid)?);
    archive.extend_from_slice(&content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    Ok(())
}

/// Returns the header of a file (POSIX ustar); `None` where the name is too long for it.
fn header(name: &str, metadata: &Metadata, link: &str) -> Option<Vec<u8>> {
    let name = if metadata.is_directory() { format!("{name}/") } else { name.to_owned() };
    let (prefix, name) = if name.len() <= 100 {
        ("", name.as_str())
    } else {
        let split = |at: &usize| *at <= 155 && name.len() - at - 1 <= 100;
        let at = name.match_indices('/').map(|(at, _)| at).find(split)?;
        (name.get(..at)?, name.get(at + 1..)?)
    };
    let kind = match (metadata.is_directory(), is_plain(metadata)) {
        (true, _) => "5",
        (_, true) => "0",
        _ => "2",
    };
    let size = if kind == "0" { metadata.size } else { 0 };
    let mut header = Vec::with_capacity(BLOCK);
    let mut field = |text: &str, length: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(length, 0);
        header.extend(bytes);
    };
    field(name, 100);
    field(&format!("{:07o}", metadata.mode), 8);
    field(&format!("{:07o}", metadata.owner.uid), 8);
    field(&format!("{:07o}", metadata.owner.gid), 8);
    field(&format!("{size:011o}"), 12);
    field(&format!("{:011o}", metadata.modified.as_second()), 12);
    field("        ", 8);
    field(kind, 1);
    field(link, 100);
    field("ustar\x0000", 8);
    field("", 32 + 32 + 8 + 8);
    field(prefix, 155);
    field("", 12);
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header.splice(148..156, format!("{sum:06o}\0 ").into_bytes());
    Some(header)
}

fn text(block: &[u8], begin: usize, length: usize) -> String {
    let field = block.get(begin..begin + length).unwrap_or_default();
    String::from_utf8_lossy(field.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn number(block: &[u8], begin: usize, length: usize) -> u64 {
    u64::from_str_radix(text(block, begin, length).trim(), 8).unwrap_or(0)
}

/// Returns the members of an archive, and what is wrong with what follows them.
fn members(archive: &[u8]) -> (Vec<Member<'_>>, Option<String>) {
    let mut found = Vec::new();
    let wrong = read_members(archive, &mut found).err();
    (found, wrong)
}

fn read_members<'a>(archive: &'a [u8], members: &mut Vec<Member<'a>>) -> Result<(), String> {
    let mut rest = archive;
    while let Some((block, after)) = rest.split_at_checked(BLOCK) {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        if !text(block, 257, 6).starts_with("ustar") {
            return Err("This does not look like a tar archive".to_owned());
        }
        let size = number(block, 124, 12) as usize;
        let content = after.get(..size).ok_or("Unexpected EOF in archive")?;
        let owner = Owner { uid: number(block, 108, 8) as u32, gid: number(block, 116, 8) as u32 };
        let modified =
            i64::try_from(number(block, 136, 12)).ok().and_then(|at| Timestamp::from_second(at).ok());
        let attributes =
            Attributes { mode: number(block, 100, 8) as u32, owner, modified: modified.unwrap_or_default() };
        let prefix = text(block, 345, 155);
        let name =
            if prefix.is_empty() { text(block, 0, 100) } else { format!("{prefix}/{}", text(block, 0, 100)) };
        members.push(Member { name, kind: block.get(156).copied().unwrap_or(b'0'), attributes, content });
        rest = after.get(size.next_multiple_of(BLOCK)..).unwrap_or_default();
    }
    Err("Unexpected EOF in archive".to_owned())
}

fn read(process: &mut Process, request: &Request) -> i32 {
    let Some(archive) = input(process, "tar", &request.file) else { return 2 };
    let (members, wrong) = members(&archive);
    let mut status = 0;
    let mut folders = Vec::new();
    let mut found: Vec<String> = Vec::new();
    for member in members {
        let name = member.name.trim_end_matches('/').to_owned();
        let wanted = |(_, wanted): &(String, String)| {
            let wanted = wanted.trim_end_matches('/');
            name == wanted || name.starts_with(&format!("{wanted}/"))
        };
        if is_excluded(request, &name) || !(request.members.is_empty() || request.members.iter().any(wanted))
        {
            continue;
        }
        if request.mode == Mode::List {
            process.put_line(&member.name);
            continue;
        }
        found.push(name.clone());
        if request.to_stdout {
            process.put(member.content);
            continue;
        }
        let parts: Vec<&str> =
            name.split('/').filter(|part| !part.is_empty() && *part != ".").skip(request.strip).collect();
        if parts.is_empty() {
            continue;
        }
        let path = child(&request.folder, &parts.join("/"));
        if let Err(error) = extract(process, request, &member, &path) {
            status = process.fail(2, &format!("tar: {name}: Cannot open: {error}"));
        } else if member.kind == b'5' {
            folders.push((path, member.attributes));
        }
    }
    for (_, wanted) in &request.members {
        let wanted = wanted.trim_end_matches('/');
        if request.mode == Mode::Extract
            && !found.iter().any(|name| name == wanted || name.starts_with(&format!("{wanted}/")))
        {
            status = process.fail(2, &format!("tar: {wanted}: Not found in archive"));
        }
    }
    // Folders get their attributes last: writing into them has changed their times.
    for (path, attributes) in folders.into_iter().rev() {
        if let Err(error) = process.files(|files| apply(files, process.who, &path, attributes)) {
            status = process.fail(2, &format!("tar: {path}: Cannot change mode: {error}"));
        }
    }
    match wrong {
        Some(message) => process.fail(2, &format!("tar: {message}")),
        None => status,
    }
}

fn extract(process: &Process, request: &Request, member: &Member<'_>, path: &str) -> Result<(), Errno> {
    process.files(|files| {
        if let Some((folder, _)) = path.rsplit_once('/')
            && files.metadata(process.who, folder, Links::Follow).is_err()
        {
            files.make_directories(folder)?;
        }
        match member.kind {
            b'5' => match files.make_directory(process.who, path, 0o700) {
                Err(Errno::Exists) => Ok(()),
                result => result,
            },
            b'0' | 0 => {
                match files.remove(process.who, path) {
                    _ if request.keep_old => {}
                    Ok(()) | Err(Errno::NotFound) => {}
                    Err(error) => return Err(error),
                }
                let how = if request.keep_old { WriteMode::Exclusive } else { WriteMode::Truncate };
                let id = files.open(process.who, path, how, 0o600)?;
                files.append(id, member.content)?;
                apply(files, process.who, path, member.attributes)
            }
            _ => Err(Errno::Invalid),
        }
    })
}
