//! Programs that a simulated node has: those of coreutils that a script may use, `tar`, `find`, `sudo` and `docker`.
//!
//! The shell looks a name up here; what is not here does not exist on the node. An option that is not simulated is an error.

use std::collections::BTreeMap;

use super::docker;
use super::etcd;
use super::shell::{Process, Unwind};

mod archive;
mod copies;
mod files;
mod find;
mod grep;
mod sed;
mod sums;
mod system;
mod text;

/// A program: it gets its arguments and returns a status.
pub(crate) type Program = fn(&mut Process, &[String]) -> Result<i32, Unwind>;

/// Returns the program of a name.
pub(crate) fn find(process: &Process, name: &str) -> Option<Program> {
    let program: Program = match name {
        "sh" | "bash" | "dash" => system::shell,
        "[" | "test" => system::test,
        "sudo" => system::sudo,
        "env" => system::env,
        "timeout" => system::timeout,
        "id" => system::id,
        "date" => system::date,
        "sleep" => system::sleep,
        "uname" => system::uname,
        "hostname" => system::hostname,
        "sync" | "true" => system::succeed,
        "false" => system::fail,
        "echo" => text::echo,
        "printf" => text::printf,
        "cat" => text::cat,
        "head" => text::head,
        "tail" => text::tail,
        "cut" => text::cut,
        "tr" => text::tr,
        "sort" => text::sort,
        "uniq" => text::uniq,
        "wc" => text::wc,
        "sha256sum" => text::sha256sum,
        "cksum" => sums::cksum,
        "basename" => text::basename,
        "dirname" => text::dirname,
        "grep" => grep::grep,
        "sed" => sed::sed,
        "cp" => copies::cp,
        "mv" => copies::mv,
        "ln" => copies::ln,
        "cmp" => copies::cmp,
        "rm" => files::rm,
        "mkdir" => files::mkdir,
        "rmdir" => files::rmdir,
        "chmod" => files::chmod,
        "chown" => files::chown,
        "touch" => files::touch,
        "stat" => files::stat,
        "ls" => files::ls,
        "df" => files::df,
        "readlink" => files::readlink,
        "find" => find::find,
        "tar" => archive::tar,
        "docker" if process.container.is_none() => docker::docker,
        "etcdctl" if process.container.as_deref() == Some("etcd") => etcd::etcdctl,
        _ => return None,
    };
    Some(program)
}

/// The arguments of a program, sorted.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    flags: String,
    values: BTreeMap<char, String>,
    pub(crate) operands: Vec<String>,
}

impl Arguments {
    /// Sorts arguments into one-letter flags, one-letter options with a value, and operands.
    pub(crate) fn parse(arguments: &[String], flags: &str, valued: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if argument == "--" {
                parsed.operands.extend(rest.cloned());
                break;
            }
            let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
                parsed.operands.push(argument.clone());
                continue;
            };
            let mut letters = letters.chars();
            while let Some(letter) = letters.next() {
                if flags.contains(letter) {
                    parsed.flags.push(letter);
                } else if valued.contains(letter) {
                    let attached = letters.as_str().to_owned();
                    let value = if attached.is_empty() { rest.next().cloned() } else { Some(attached) };
                    let value = value.ok_or_else(|| format!("option requires an argument -- '{letter}'"))?;
                    parsed.values.insert(letter, value);
                    break;
                } else {
                    return Err(format!("option -- '{letter}' of `{argument}` is not simulated"));
                }
            }
        }
        Ok(parsed)
    }

    pub(crate) fn has(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }

    pub(crate) fn value(&self, option: char) -> Option<&str> {
        self.values.get(&option).map(String::as_str)
    }
}

/// Parses arguments, or says on stderr what is wrong and ends the program with status 2.
macro_rules! arguments {
    ($process:expr, $name:literal, $arguments:expr, $flags:literal, $valued:literal) => {
        match $crate::sim::programs::Arguments::parse($arguments, $flags, $valued) {
            Ok(arguments) => arguments,
            Err(message) => return Ok($process.fail(2, &format!("{}: {message}", $name))),
        }
    };
}
pub(crate) use arguments;

/// Returns the content of a file, or of stdin for `-`; what goes wrong is said on stderr.
pub(crate) fn input(process: &mut Process, program: &str, name: &str) -> Option<Vec<u8>> {
    if name == "-" || name == "/dev/stdin" {
        return Some(process.stdin.read_all());
    }
    if name == "/dev/null" {
        return Some(Vec::new());
    }
    let path = process.path(name);
    match process.files(|files| files.read(process.who, &path)) {
        Ok(content) => Some(content),
        Err(error) => {
            process.complain(&format!("{program}: {name}: {error}"));
            None
        }
    }
}

/// Returns the contents of files, or of stdin where none is named, and a status that is 1 where one could not be read.
pub(crate) fn inputs(
    process: &mut Process,
    program: &str,
    names: &[String],
) -> (Vec<(String, Vec<u8>)>, i32) {
    let stdin = ["-".to_owned()];
    let names = if names.is_empty() { &stdin } else { names };
    let mut contents = Vec::new();
    for name in names {
        if let Some(content) = input(process, program, name) {
            contents.push((name.clone(), content));
        }
    }
    let status = i32::from(contents.len() < names.len());
    (contents, status)
}
