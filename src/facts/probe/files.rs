//! What the probe tells of files, of folders and of the room that is left there, as facts.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{Frame, text_of};
use crate::facts::{Content, File, Folder, Labels, SavedRun};
use crate::pki::{Certificate, CertificateError, Location, PublicPrefix};

/// Reads the lines of `stat` and what the probe shows of the files.
pub(super) fn files(frames: &[Frame<'_>], directory: &str) -> Vec<File> {
    let of = |kind: &'static str| frames.iter().filter(move |frame| frame.kind == kind);
    let contents: HashMap<&str, &str> =
        of("content").map(|frame| (frame.argument.trim(), frame.text)).collect();
    let lines = of("files").flat_map(|frame| frame.text.lines());
    lines.filter_map(|line| file(line, directory, &contents)).collect()
}

/// Reads the line of a file: `<mode> <uid> <gid> <size> <mtime> <date> <time> <zone> <path>`.
fn file(line: &str, directory: &str, contents: &HashMap<&str, &str>) -> Option<File> {
    let mut words = line.splitn(9, ' ');
    let mode = u32::from_str_radix(words.next()?, 8).ok()?;
    let user_id = words.next()?.parse().ok()?;
    let group_id = words.next()?.parse().ok()?;
    let size = words.next()?.parse().ok()?;
    let second = words.next()?.parse().ok()?;
    let _date = words.next()?;
    let modified_at = Timestamp::new(second, nanoseconds(words.next()?)).ok()?;
    let _zone = words.next()?;
    let path = words.next()?.to_owned();
    let file_name = path.rsplit('/').next()?.to_owned();
    let text = contents.get(path.trim()).copied().unwrap_or_default();
    let content = match content(&file_name, text) {
        // The probe prints blocks of certificates alone: what is in the file is none, such as DER.
        Content::Certificate(Err(CertificateError::Empty)) if size > 0 => {
            Content::Certificate(Err(CertificateError::NotPem))
        }
        content => content,
    };
    let certificates = match content {
        Content::Certificate(_) => Certificate::count_in_pem(text.as_bytes()),
        Content::Key(_) | Content::Other => 0,
    };
    Some(File {
        location: location(&path, directory),
        path,
        file_name,
        mode,
        user_id,
        group_id,
        size,
        modified_at,
        certificates,
        content,
    })
}

/// Returns in which of the folders that the probe looks at a file lies.
fn location(path: &str, directory: &str) -> Location {
    let beneath = path.strip_prefix(directory).unwrap_or_default();
    if beneath.starts_with("/ssl/") {
        Location::Ssl
    } else if beneath.starts_with("/.tmp/ssl/") {
        Location::NestedTmp
    } else if beneath.starts_with("/.tmp/") {
        Location::Tmp
    } else {
        Location::KubeletPki
    }
}

/// Returns the fraction of a time such as `19:15:25.188094417`; none where the node's stat does not tell it.
///
/// A file and a container that are written and started within one second are told apart by it.
fn nanoseconds(time: &str) -> i32 {
    let fraction = time.split_once('.').map_or("", |(_, fraction)| fraction);
    format!("{fraction:0<9}").get(..9).and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

/// Reads what a file holds, by its name.
fn content(file_name: &str, text: &str) -> Content {
    let (stem, ending) = file_name.rsplit_once('.').unwrap_or((file_name, ""));

    match ending {
        _ if stem.ends_with("-key") || ending == "key" => Content::Key(PublicPrefix::from_probe(text)),
        "pem" | "crt" => Content::Certificate(Certificate::from_pem(text.as_bytes())),
        _ => Content::Other,
    }
}

/// Reads the frames of folders: `<yes|no> <path>`.
pub(super) fn folders(frames: &[Frame<'_>]) -> Vec<Folder> {
    let folder = |frame: &Frame<'_>| {
        let (may, path) = frame.argument.split_once(' ')?;
        let (free_kibibytes, free_inodes) = space(frames, path);
        Some(Folder { path: path.to_owned(), is_writable: may == "yes", free_kibibytes, free_inodes })
    };
    frames.iter().filter(|frame| frame.kind == "folder").filter_map(folder).collect()
}

/// Returns the KiB and the inodes that are left at a path, as far as its file system tells, from the lines
/// `<free blocks> <size of a block> <inodes in all> <free inodes> <path>`.
pub(super) fn space(frames: &[Frame<'_>], path: &str) -> (Option<u64>, Option<u64>) {
    let lines = frames.iter().filter(|frame| frame.kind == "space").flat_map(|frame| frame.text.lines());
    let words = lines.map(|line| line.splitn(5, ' ').collect::<Vec<_>>());
    let found = words.filter_map(|words| <[&str; 5]>::try_from(words).ok()).find(|words| words[4] == path);
    let Some(numbers) = found.map(|words| words.map(|word| word.parse::<u64>().ok())) else {
        return (None, None);
    };
    let [blocks, size, inodes, free_inodes, _] = numbers;
    let bytes = blocks.zip(size).map(|(blocks, size)| blocks.saturating_mul(size));
    // btrfs makes inodes as they are needed, and counts none.
    (bytes.map(|bytes| bytes / 1024), free_inodes.filter(|_| inodes.is_some_and(|inodes| inodes > 0)))
}

/// Reads the lines of backups: `<bytes> <path>`.
pub(super) fn backups(frames: &[Frame<'_>]) -> Vec<SavedRun> {
    let backup = |line: &str| {
        let (bytes, path) = line.split_once(' ')?;
        let run = path.strip_suffix("/backup.tar")?.rsplit('/').next()?.to_owned();
        Some(SavedRun { run, kibibytes: bytes.parse::<u64>().ok()?.div_ceil(1024) })
    };
    text_of(frames, "backups").unwrap_or_default().lines().filter_map(backup).collect()
}

/// Reads the labels of the directory, of `ssl` and of a file in it, a line each: `<user>:<role>:<type>:<level> <path>`.
pub(super) fn labels(text: &str) -> Option<Labels> {
    let mut labels = text.lines().map(|line| {
        let label = line.split(' ').next().unwrap_or_default();
        label.splitn(3, ':').nth(2).map(str::to_owned)
    });
    Some(Labels { directory: labels.next()??, ssl: labels.next()??, file: labels.next()?? })
}
