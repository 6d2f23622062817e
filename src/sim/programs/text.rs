//! Programs that read and write text.
#![expect(
    clippy::unnecessary_wraps,
    reason = "every program has the same signature, and some can be ended from outside"
)]

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::{arguments, inputs};
use crate::sim::shell::{Process, Unwind};

pub(super) fn echo(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let (end, words) = match arguments.split_first() {
        Some((first, rest)) if first == "-n" => ("", rest),
        _ => ("\n", arguments),
    };
    // The echo of dash knows escapes.
    let mut text = unescape(&words.join(" "));
    text.push_str(end);
    process.put(text);
    Ok(0)
}

fn unescape(text: &str) -> String {
    let mut result = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '\\' {
            result.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => result.push('\n'),
            Some('t') => result.push('\t'),
            Some('r') => result.push('\r'),
            Some('\\') | None => result.push('\\'),
            Some('0') => {
                let mut code = 0;
                while let Some(digit) = characters.peek().and_then(|next| next.to_digit(8)) {
                    code = (code * 8 + digit) & 0xff;
                    characters.next();
                }
                result.extend(char::from_u32(code));
            }
            Some(other) => result.extend(['\\', other]),
        }
    }
    result
}

pub(super) fn printf(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let Some((format, values)) = arguments.split_first() else {
        return Ok(process.fail(2, "sh: 1: printf: usage: printf format [arg ...]"));
    };
    let mut values = values.iter();
    let mut output = String::new();
    loop {
        let before = values.len();
        match fill(format, &mut values) {
            Ok(text) => output.push_str(&text),
            Err(message) => return Ok(process.fail(2, &format!("sh: 1: printf: {message}"))),
        }
        if values.len() == 0 || values.len() == before {
            break;
        }
    }
    process.put(output);
    Ok(0)
}

fn fill(format: &str, values: &mut std::slice::Iter<'_, String>) -> Result<String, String> {
    let mut output = String::new();
    let mut parts = format.split('%');
    output.push_str(&unescape(parts.next().unwrap_or_default()));
    while let Some(part) = parts.next() {
        if part.is_empty() {
            output.push('%');
            output.push_str(&unescape(parts.next().unwrap_or_default()));
            continue;
        }
        let end = part
            .find(|next: char| next.is_ascii_alphabetic())
            .ok_or_else(|| format!("%{part}: invalid directive"))?;
        let (flags, rest) = part.split_at(end);
        let (directive, rest) = rest.split_at(1);
        let value = values.next().map_or("", String::as_str);
        let text: Cow<'_, str> = match directive {
            "s" => value.into(),
            "b" => unescape(value).into(),
            "d" | "i" | "u" => number(value)?.to_string().into(),
            "o" => format!("{:o}", number(value)?).into(),
            "x" => format!("{:x}", number(value)?).into(),
            "c" => value.chars().take(1).collect::<String>().into(),
            other => return Err(format!("%{other} is not simulated")),
        };
        pad(&mut output, &text, flags)?;
        output.push_str(&unescape(rest));
    }
    Ok(output)
}

fn number(value: &str) -> Result<i64, String> {
    if value.is_empty() {
        Ok(0)
    } else {
        value.trim().parse().map_err(|_| format!("{value}: expected numeric value"))
    }
}

fn pad(output: &mut String, text: &str, flags: &str) -> Result<(), String> {
    let (width, precision) =
        flags.split_once('.').map_or((flags, None), |(width, precision)| (width, Some(precision)));
    let text: String = match precision {
        Some(precision) => text.chars().take(precision.parse().unwrap_or(0)).collect(),
        None => text.to_owned(),
    };
    let left = width.starts_with('-');
    let zero = width.starts_with('0');
    let width = width.trim_start_matches(['-', '0']);
    let width: usize =
        if width.is_empty() { 0 } else { width.parse().map_err(|_| format!("%{flags}: not simulated"))? };
    let missing = width.saturating_sub(text.chars().count());
    let fill = if zero { "0" } else { " " }.repeat(missing);
    if left {
        output.push_str(&text);
        output.push_str(&fill);
    } else {
        output.push_str(&fill);
        output.push_str(&text);
    }
    Ok(())
}

pub(super) fn cat(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "cat", arguments, "u", "");
    let (contents, status) = inputs(process, "cat", &arguments.operands);
    for (_, content) in contents {
        process.put(content);
    }
    Ok(status)
}

/// Replaces `-5` by `-n 5`.
fn with_count(arguments: &[String]) -> Vec<String> {
    let count = |argument: &String| {
        argument
            .strip_prefix('-')
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    arguments
        .iter()
        .map(|argument| if count(argument) { argument.replacen('-', "-n", 1) } else { argument.clone() })
        .collect()
}

pub(super) fn head(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "head", &with_count(arguments), "q", "nc");
    let number = |option: char| arguments.value(option).map(str::parse::<usize>);
    let (lines, bytes) = match (number('n').transpose(), number('c').transpose()) {
        (Ok(lines), Ok(bytes)) => (lines.unwrap_or(10), bytes),
        _ => return Ok(process.fail(1, "head: invalid number")),
    };
    if arguments.operands.is_empty() {
        let content = match bytes {
            Some(bytes) => process.stdin.read_exact(bytes),
            None => first_lines(&process.stdin.read_all(), lines).to_vec(),
        };
        process.put(content);
        return Ok(0);
    }
    let (contents, status) = inputs(process, "head", &arguments.operands);
    let titled = arguments.operands.len() > 1 && !arguments.has('q');
    for (index, (name, content)) in contents.iter().enumerate() {
        if titled {
            let gap = if index == 0 { "" } else { "\n" };
            process.put(format!("{gap}==> {name} <==\n"));
        }
        match bytes {
            Some(bytes) => process.put(content.get(..bytes).unwrap_or(content)),
            None => process.put(first_lines(content, lines)),
        }
    }
    Ok(status)
}

fn first_lines(content: &[u8], count: usize) -> &[u8] {
    let length = content.split_inclusive(|byte| *byte == b'\n').take(count).map(<[u8]>::len).sum();
    content.get(..length).unwrap_or(content)
}

pub(super) fn tail(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "tail", &with_count(arguments), "q", "nc");
    let option = if arguments.value('c').is_some() { 'c' } else { 'n' };
    let text = arguments.value(option).unwrap_or("10");
    let Ok(count) = text.trim_start_matches(['+', '-']).parse::<usize>() else {
        return Ok(process.fail(1, &format!("tail: invalid number '{text}'")));
    };
    let from_begin = text.starts_with('+');
    let (contents, status) = inputs(process, "tail", &arguments.operands);
    for (_, content) in contents {
        let units: Vec<&[u8]> = if option == 'c' {
            content.chunks(1).collect()
        } else {
            content.split_inclusive(|byte| *byte == b'\n').collect()
        };
        let skipped = if from_begin { count.saturating_sub(1) } else { units.len().saturating_sub(count) };
        let rest: Vec<u8> = units.iter().skip(skipped).flat_map(|unit| unit.iter().copied()).collect();
        process.put(rest);
    }
    Ok(status)
}

/// Returns whether a number, from 1, is in a list like `1,3-5,7-`.
fn listed(list: &str, number: usize) -> bool {
    list.split(',').any(|part| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let low = low.parse().unwrap_or(1);
        let high = high.parse().unwrap_or(usize::MAX);
        (low..=high).contains(&number)
    })
}

pub(super) fn cut(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "cut", arguments, "s", "cbdf");
    let delimiter = arguments.value('d').unwrap_or("\t");
    let (contents, status) = inputs(process, "cut", &arguments.operands);
    for (_, content) in contents {
        for line in String::from_utf8_lossy(&content).lines() {
            let kept = if let Some(list) = arguments.value('c').or(arguments.value('b')) {
                let characters = line.chars().enumerate();
                characters
                    .filter(|(index, _)| listed(list, index + 1))
                    .map(|(_, character)| character)
                    .collect()
            } else if let Some(list) = arguments.value('f') {
                if line.contains(delimiter) {
                    let fields = line.split(delimiter).enumerate();
                    let fields: Vec<&str> =
                        fields.filter(|(index, _)| listed(list, index + 1)).map(|(_, field)| field).collect();
                    fields.join(delimiter)
                } else if arguments.has('s') {
                    continue;
                } else {
                    line.to_owned()
                }
            } else {
                return Ok(process.fail(1, "cut: you must specify a list of bytes, characters, or fields"));
            };
            process.put_line(&kept);
        }
    }
    Ok(status)
}

fn set_of_characters(text: &str) -> Vec<char> {
    let classes = [
        ("[:space:]", " \t\n\r\x0b\x0c"),
        ("[:upper:]", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        ("[:lower:]", "abcdefghijklmnopqrstuvwxyz"),
        ("[:digit:]", "0123456789"),
    ];
    let mut text = text.to_owned();
    for (class, members) in classes {
        text = text.replace(class, members);
    }
    let characters: Vec<char> = unescape(&text).chars().collect();
    let mut set = Vec::new();
    let mut index = 0;
    while let Some(low) = characters.get(index) {
        if let (Some('-'), Some(high)) = (characters.get(index + 1), characters.get(index + 2)) {
            set.extend(*low..=*high);
            index += 3;
        } else {
            set.push(*low);
            index += 1;
        }
    }
    set
}

pub(super) fn tr(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "tr", arguments, "dsc", "");
    let first = set_of_characters(arguments.operands.first().map_or("", String::as_str));
    let second = set_of_characters(arguments.operands.get(1).map_or("", String::as_str));
    let in_first = |character: char| first.contains(&character) != arguments.has('c');
    let input = process.stdin.read_all();
    let mut output = String::new();
    for character in String::from_utf8_lossy(&input).chars() {
        let changed = if !in_first(character) {
            character
        } else if arguments.has('d') {
            continue;
        } else {
            let index = first.iter().position(|member| *member == character).unwrap_or(usize::MAX);
            second.get(index).or(second.last()).copied().unwrap_or(character)
        };
        let squeezes = if second.is_empty() { in_first(changed) } else { second.contains(&changed) };
        if !(arguments.has('s') && squeezes && output.ends_with(changed)) {
            output.push(changed);
        }
    }
    process.put(output);
    Ok(0)
}

pub(super) fn sort(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "sort", arguments, "urn", "");
    let (contents, status) = inputs(process, "sort", &arguments.operands);
    let mut lines: Vec<String> = Vec::new();
    for (_, content) in contents {
        lines.extend(String::from_utf8_lossy(&content).lines().map(str::to_owned));
    }
    lines.sort();
    if arguments.has('n') {
        let number = |line: &String| -> i64 {
            let line = line.trim_start();
            let digits: String =
                line.chars().take_while(|next| next.is_ascii_digit() || *next == '-').collect();
            digits.parse().unwrap_or(0)
        };
        lines.sort_by_key(number);
    }
    if arguments.has('u') {
        lines.dedup();
    }
    if arguments.has('r') {
        lines.reverse();
    }
    for line in lines {
        process.put_line(&line);
    }
    Ok(status)
}

pub(super) fn uniq(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "uniq", arguments, "cd", "");
    let (contents, status) = inputs(process, "uniq", &arguments.operands);
    let mut counted: Vec<(usize, String)> = Vec::new();
    for (_, content) in contents {
        for line in String::from_utf8_lossy(&content).lines() {
            match counted.last_mut() {
                Some((count, last)) if last == line => *count += 1,
                _ => counted.push((1, line.to_owned())),
            }
        }
    }
    for (count, line) in counted {
        if arguments.has('c') {
            process.put_line(&format!("{count:7} {line}"));
        } else if !arguments.has('d') || count > 1 {
            process.put_line(&line);
        }
    }
    Ok(status)
}

pub(super) fn wc(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "wc", arguments, "lcw", "");
    let (contents, status) = inputs(process, "wc", &arguments.operands);
    for (name, content) in contents {
        let count = if arguments.has('l') {
            content.split(|byte| *byte == b'\n').count() - 1
        } else if arguments.has('c') {
            content.len()
        } else if arguments.has('w') {
            String::from_utf8_lossy(&content).split_whitespace().count()
        } else {
            return Ok(process.fail(2, "wc: only -l, -c and -w are simulated"));
        };
        let line = if name == "-" { count.to_string() } else { format!("{count} {name}") };
        process.put_line(&line);
    }
    Ok(status)
}

pub(super) fn sha256sum(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let arguments = arguments!(process, "sha256sum", arguments, "b", "");
    let (contents, status) = inputs(process, "sha256sum", &arguments.operands);
    for (name, content) in contents {
        let digest =
            Sha256::digest(&content).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        process.put_line(&format!("{digest}  {name}"));
    }
    Ok(status)
}

pub(super) fn basename(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let path = arguments.first().map_or("", |path| path.trim_end_matches('/'));
    let name = path.rsplit('/').next().unwrap_or(path);
    let suffix = arguments.get(1).map_or("", String::as_str);
    let name = name.strip_suffix(suffix).filter(|stripped| !stripped.is_empty()).unwrap_or(name).to_owned();
    process.put_line(&name);
    Ok(0)
}

pub(super) fn dirname(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let path = arguments.first().map_or("", |path| path.trim_end_matches('/'));
    let folder = match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None => ".",
    };
    let folder = folder.to_owned();
    process.put_line(&folder);
    Ok(0)
}
