//! Programs about the system and its users, and the ones that start others.
#![expect(
    clippy::unnecessary_wraps,
    reason = "every program has the same signature, and some can be ended from outside"
)]

use std::time::Duration;

use super::{Program, arguments, find};
use crate::sim::Fault;
use crate::sim::clock::lock;
use crate::sim::files::{Links, Owner, Permission, Type};
use crate::sim::machine::Privilege;
use crate::sim::shell::{Process, Unwind};

pub(super) fn succeed(_: &mut Process, _: &[String]) -> Result<i32, Unwind> {
    Ok(0)
}

pub(super) fn fail(_: &mut Process, _: &[String]) -> Result<i32, Unwind> {
    Ok(1)
}

/// `sh -c SCRIPT [NAME [ARGUMENT...]]`, or a script on stdin.
pub(super) fn shell(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let mut rest = arguments;
    let mut options = Vec::new();
    let mut script = None;
    while let Some((first, after)) = rest.split_first() {
        match first.as_str() {
            "-c" | "-ec" | "-euc" => {
                if first != "-c" {
                    options.push(first.replace('c', ""));
                }
                let Some((text, after)) = after.split_first() else {
                    return Ok(process.fail(2, "sh: 0: -c requires an argument"));
                };
                script = Some(text.clone());
                rest = after;
                break;
            }
            "-s" => rest = after,
            option if option.starts_with('-') => {
                options.push(first.clone());
                rest = after;
            }
            _ => return Ok(process.fail(2, "sh: 0: scripts in files are not simulated")),
        }
    }
    let script = match script {
        Some(script) => script,
        None => String::from_utf8_lossy(&process.stdin.read_all()).into_owned(),
    };
    let mut child = process.child(process.who, rest);
    let script = if options.is_empty() { script } else { format!("set {}\n{script}", options.join(" ")) };
    child.run_script(&script)
}

/// `sudo -n COMMAND`.
pub(super) fn sudo(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let options = arguments.iter().take_while(|argument| argument.starts_with('-')).count();
    let (options, command) = arguments.split_at_checked(options).unwrap_or_default();
    for option in options {
        if !matches!(option.as_str(), "-n" | "-S" | "-E" | "-H" | "--") {
            return Ok(process.fail(2, &format!("sudo: option {option} is not simulated")));
        }
    }
    let denied = lock(&process.node.faults).contains(&Fault::PermissionDenied);
    if !process.who.is_root() && (denied || process.node.login.privilege != Privilege::Sudo) {
        return Ok(process.fail(1, "sudo: a password is required"));
    }
    let mut child = process.child(Owner::ROOT, &[]);
    env(&mut child, command)
}

/// `env [NAME=VALUE...] [COMMAND...]`.
pub(super) fn env(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let mut child = process.child(process.who, &[]);
    let mut rest = arguments;
    while let Some((first, after)) = rest.split_first() {
        let Some((name, value)) = first.split_once('=') else { break };
        child.export(name, value);
        rest = after;
    }
    child.execute(rest)
}

/// `timeout SECONDS COMMAND...`; a simulated program ends in time, or the whole node is silent.
pub(super) fn timeout(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    match arguments.split_first() {
        Some((seconds, command)) if seconds.parse::<u32>().is_ok() => {
            process.child(process.who, &[]).execute(command)
        }
        _ => Ok(process.fail(125, "timeout: the limit in seconds comes first")),
    }
}

pub(super) fn id(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "id", arguments, "ungG", "");
    let name = if process.who.is_root() { "root".to_owned() } else { process.node.login.name.clone() };
    let in_docker = process.node.login.privilege == Privilege::Docker && !process.who.is_root();
    let Owner { uid, gid } = process.who;
    let line = if arguments.has('u') {
        if arguments.has('n') { name } else { uid.to_string() }
    } else if arguments.has('g') {
        if arguments.has('n') { name } else { gid.to_string() }
    } else if arguments.has('G') {
        let names = if in_docker { format!("{name} docker") } else { name };
        let numbers = if in_docker { format!("{gid} 999") } else { gid.to_string() };
        if arguments.has('n') { names } else { numbers }
    } else {
        let groups = if in_docker { ",999(docker)" } else { "" };
        format!("uid={uid}({name}) gid={gid}({name}) groups={gid}({name}){groups}")
    };
    process.put_line(&line);
    Ok(0)
}

pub(super) fn date(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "date", arguments, "u", "dr");
    let now = match (arguments.value('d'), arguments.value('r')) {
        (None, Some(file)) => {
            let path = process.path(file);
            match process.files(|files| files.metadata(process.who, &path, Links::Follow)) {
                Ok(metadata) => metadata.modified.as_second(),
                Err(error) => return Ok(process.fail(1, &format!("date: {file}: {error}"))),
            }
        }
        (Some(text), _) => match text.strip_prefix('@').and_then(|seconds| seconds.parse().ok()) {
            Some(seconds) => seconds,
            None => return Ok(process.fail(2, &format!("date: -d {text} is not simulated"))),
        },
        (None, None) => process.seconds(),
    };
    let now = jiff::Timestamp::from_second(now).unwrap_or_default();
    let format = arguments.operands.first().map_or("+%a %b %e %H:%M:%S UTC %Y", String::as_str);
    let Some(format) = format.strip_prefix('+') else {
        return Ok(process.fail(1, &format!("date: invalid date '{format}'")));
    };
    let mut text = Vec::new();
    let written = jiff::fmt::strtime::format(format.as_bytes(), now);
    if let Ok(written) = written {
        text = written.into_bytes();
    }
    process.put_line(&String::from_utf8_lossy(&text));
    Ok(0)
}

pub(super) fn sleep(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let text = arguments.first().map_or("", String::as_str);
    let seconds = text
        .trim_end_matches('s')
        .parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match seconds {
        Some(duration) => {
            process.sleep(duration);
            Ok(0)
        }
        None => Ok(process.fail(1, &format!("sleep: invalid time interval '{text}'"))),
    }
}

pub(super) fn uname(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "uname", arguments, "asnrm", "");
    let name = process.node.name.to_string();
    let parts = [('s', "Linux"), ('n', name.as_str()), ('r', "4.15.0-1054"), ('m', "x86_64")];
    let wanted = |flag: char| {
        arguments.has('a')
            || arguments.has(flag)
            || (flag == 's' && !"nrm".chars().any(|flag| arguments.has(flag)))
    };
    let line: Vec<&str> = parts.iter().filter(|(flag, _)| wanted(*flag)).map(|(_, text)| *text).collect();
    let line = line.join(" ");
    process.put_line(&line);
    Ok(0)
}

pub(super) fn hostname(process: &mut Process, _: &[String]) -> Result<i32, Unwind> {
    let name = process.node.name.to_string();
    process.put_line(&name);
    Ok(0)
}

/// `test` and `[`.
pub(super) fn test(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let words = words.strip_suffix(&["]"]).unwrap_or(&words);
    Ok(match disjunction(process, words) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(message) => process.fail(2, &format!("sh: 1: [: {message}")),
    })
}

fn disjunction(process: &Process, words: &[&str]) -> Result<bool, String> {
    if words.len() <= 4 {
        return primary(process, words);
    }
    let joined = |operator: &str| words.iter().position(|word| *word == operator);
    if let Some(at) = joined("-o") {
        let (left, right) = (words.get(..at).unwrap_or_default(), words.get(at + 1..).unwrap_or_default());
        return Ok(disjunction(process, left)? || disjunction(process, right)?);
    }
    if let Some(at) = joined("-a") {
        let (left, right) = (words.get(..at).unwrap_or_default(), words.get(at + 1..).unwrap_or_default());
        return Ok(disjunction(process, left)? && disjunction(process, right)?);
    }
    primary(process, words)
}

fn primary(process: &Process, words: &[&str]) -> Result<bool, String> {
    match words {
        [] => Ok(false),
        [word] => Ok(!word.is_empty()),
        ["!", rest @ ..] if rest.len() != 2 || is_unary(rest.first().copied()) => {
            Ok(!primary(process, rest)?)
        }
        [operator, operand] => unary(process, operator, operand),
        [left, operator, right] => binary(process, left, operator, right),
        _ => Err("too many arguments".to_owned()),
    }
}

fn is_unary(word: Option<&str>) -> bool {
    word.is_some_and(|word| word == "!" || (word.len() == 2 && word.starts_with('-')))
}

fn unary(process: &Process, operator: &str, operand: &str) -> Result<bool, String> {
    let path = process.path(operand);
    let links = if matches!(operator, "-L" | "-h") { Links::Keep } else { Links::Follow };
    let metadata = process.files(|files| files.metadata(process.who, &path, links)).ok();
    let may = |permission| process.files(|files| files.may(process.who, &path, permission));
    let is = |kind| metadata.is_some_and(|metadata| metadata.kind == kind);
    Ok(match operator {
        "-n" => !operand.is_empty(),
        "-z" => operand.is_empty(),
        "-e" => metadata.is_some(),
        "-f" => is(Type::File),
        "-d" => is(Type::Directory),
        "-L" | "-h" => is(Type::Link),
        "-s" => metadata.is_some_and(|metadata| metadata.size > 0),
        "-r" => may(Permission::Read),
        "-w" => may(Permission::Write),
        "-x" => {
            let executable =
                metadata.is_some_and(|metadata| metadata.is_directory() || metadata.mode & 0o111 != 0);
            may(Permission::Search) && executable
        }
        "-S" | "-p" | "-b" | "-c" | "-t" => false,
        _ => return Err(format!("{operator}: unexpected operator")),
    })
}

fn binary(process: &Process, left: &str, operator: &str, right: &str) -> Result<bool, String> {
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| format!("Illegal number: {text}"));
    let metadata = |name: &str| {
        let path = process.path(name);
        process.files(|files| files.metadata(process.who, &path, Links::Follow)).ok()
    };
    Ok(match operator {
        "=" | "==" => left == right,
        "!=" => left != right,
        "-eq" => number(left)? == number(right)?,
        "-ne" => number(left)? != number(right)?,
        "-lt" => number(left)? < number(right)?,
        "-le" => number(left)? <= number(right)?,
        "-gt" => number(left)? > number(right)?,
        "-ge" => number(left)? >= number(right)?,
        "-nt" => match (metadata(left), metadata(right)) {
            (Some(left), Some(right)) => left.modified > right.modified,
            (left, _) => left.is_some(),
        },
        "-ot" => match (metadata(left), metadata(right)) {
            (Some(left), Some(right)) => left.modified < right.modified,
            (_, right) => right.is_some(),
        },
        "-ef" => {
            matches!((metadata(left), metadata(right)), (Some(left), Some(right)) if left.id == right.id)
        }
        "-a" => !left.is_empty() && !right.is_empty(),
        "-o" => !left.is_empty() || !right.is_empty(),
        _ => return Err(format!("{operator}: unexpected operator")),
    })
}

/// Runs a program by name with arguments; for `find -exec`.
pub(super) fn run(process: &mut Process, command: &[String]) -> Result<i32, Unwind> {
    let program: Option<Program> = command.first().and_then(|name| find(process, name));
    match (program, command.split_first()) {
        (Some(program), Some((_, arguments))) => program(process, arguments),
        _ => Ok(process.fail(127, "find: the command of -exec was not found")),
    }
}
