//! `sed`, as far as scripts need it: `s`, `p`, `d` and `q`, with a line, a range of lines or an expression before them.

use super::grep::{Expression, Syntax};
use super::{arguments, inputs};
use crate::sim::shell::{Process, Unwind};

#[derive(Debug)]
enum Address {
    Line(usize),
    Last,
    Expression(Expression),
}

#[derive(Debug)]
enum Action {
    Print,
    Delete,
    Quit,
    Substitute { expression: Expression, replacement: String, times: Times, prints: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    Always,
}

#[derive(Debug)]
struct Instruction {
    from: Option<Address>,
    to: Option<Address>,
    action: Action,
}

pub(super) fn sed(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let mut arguments = arguments!(process, "sed", arguments, "nEr", "e");
    let syntax = if arguments.has('E') || arguments.has('r') { Syntax::Extended } else { Syntax::Basic };
    let script = match arguments.value('e') {
        Some(script) => script.to_owned(),
        None if arguments.operands.is_empty() => {
            return Ok(process.fail(1, "Usage: sed [OPTION]... {script} [file]..."));
        }
        None => arguments.operands.remove(0),
    };
    let instructions = match parse(&script, syntax) {
        Ok(instructions) => instructions,
        Err(message) => return Ok(process.fail(2, &format!("sed: -e expression #1: {message}"))),
    };
    let (contents, status) = inputs(process, "sed", &arguments.operands);
    let bytes: Vec<u8> = contents.into_iter().flat_map(|(_, content)| content).collect();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let count = text.lines().count();
    for (index, line) in text.lines().enumerate() {
        let (mut line, mut deleted, mut quits) = (line.to_owned(), false, false);
        for instruction in &instructions {
            if deleted || quits || !instruction.applies(&line, index + 1, count) {
                continue;
            }
            match &instruction.action {
                Action::Print => process.put_line(&line),
                Action::Delete => deleted = true,
                Action::Quit => quits = true,
                Action::Substitute { expression, replacement, times, prints } => {
                    let (changed, hit) = substitute(&line, expression, replacement, *times);
                    line = changed;
                    if hit && *prints {
                        process.put_line(&line);
                    }
                }
            }
        }
        if !deleted && !arguments.has('n') {
            process.put_line(&line);
        }
        if quits {
            break;
        }
    }
    Ok(status)
}

impl Address {
    fn is(&self, line: &str, number: usize, count: usize) -> bool {
        match self {
            Self::Line(wanted) => *wanted == number,
            Self::Last => number == count,
            Self::Expression(expression) => expression.find(line).is_some(),
        }
    }
}

impl Instruction {
    fn applies(&self, line: &str, number: usize, count: usize) -> bool {
        match (&self.from, &self.to) {
            (None, _) => true,
            (Some(from), None) => from.is(line, number, count),
            (Some(Address::Line(from)), Some(Address::Line(to))) => (*from..=*to).contains(&number),
            (Some(Address::Line(from)), Some(_)) => number >= *from,
            (Some(_), Some(_)) => false,
        }
    }
}

fn substitute(line: &str, expression: &Expression, replacement: &str, times: Times) -> (String, bool) {
    let characters: Vec<char> = line.chars().collect();
    let (mut result, mut at, mut hit) = (String::new(), 0, false);
    while at <= characters.len() {
        let rest: String = characters.iter().skip(at).collect();
        let Some((begin, end)) = expression.find(&rest) else { break };
        result.extend(characters.iter().skip(at).take(begin));
        let matched: String = characters.iter().skip(at + begin).take(end - begin).collect();
        result.push_str(&replacement.replace('&', &matched));
        hit = true;
        at += end;
        if end == begin {
            result.extend(characters.get(at));
            at += 1;
        }
        if times == Times::Once {
            break;
        }
    }
    result.extend(characters.iter().skip(at));
    (result, hit)
}

fn parse(script: &str, syntax: Syntax) -> Result<Vec<Instruction>, String> {
    let mut instructions = Vec::new();
    let mut rest = script.trim_start_matches([';', '\n', ' ']);
    while !rest.is_empty() {
        let from = address(&mut rest, syntax)?;
        let to = match rest.strip_prefix(',') {
            Some(after) => {
                rest = after;
                let to = address(&mut rest, syntax)?;
                if !matches!((&from, &to), (Some(Address::Line(_)), Some(Address::Line(_) | Address::Last))) {
                    return Err("only ranges of line numbers are simulated".to_owned());
                }
                to
            }
            None => None,
        };
        rest = rest.trim_start();
        let command = rest.chars().next().ok_or("missing command")?;
        rest = rest.get(command.len_utf8()..).unwrap_or_default();
        let action = match command {
            'p' => Action::Print,
            'd' => Action::Delete,
            'q' => Action::Quit,
            's' => substitution(&mut rest, syntax)?,
            other => return Err(format!("command `{other}` is not simulated")),
        };
        instructions.push(Instruction { from, to, action });
        if !rest.is_empty() && !rest.starts_with([';', '\n', ' ']) {
            return Err(format!("`{rest}` is not simulated"));
        }
        rest = rest.trim_start_matches([';', '\n', ' ']);
    }
    Ok(instructions)
}

fn address(rest: &mut &str, syntax: Syntax) -> Result<Option<Address>, String> {
    if let Some(after) = rest.strip_prefix('$') {
        *rest = after;
        return Ok(Some(Address::Last));
    }
    if let Some(after) = rest.strip_prefix('/') {
        let (pattern, after) = until(after, '/').ok_or("unterminated address regex")?;
        *rest = after;
        return Ok(Some(Address::Expression(Expression::parse(&pattern, syntax)?)));
    }
    let end = rest.find(|next: char| !next.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    *rest = after;
    Ok(digits.parse().ok().map(Address::Line))
}

/// Returns the text up to a delimiter that has no backslash before it, and what follows.
fn until(text: &str, delimiter: char) -> Option<(String, &str)> {
    let mut found = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == delimiter {
            return Some((found, characters.as_str()));
        }
        if character == '\\' {
            let next = characters.next()?;
            if next != delimiter {
                found.push('\\');
            }
            found.push(next);
        } else {
            found.push(character);
        }
    }
    None
}

fn substitution(rest: &mut &str, syntax: Syntax) -> Result<Action, String> {
    let delimiter = rest.chars().next().ok_or("unterminated `s' command")?;
    let after = rest.get(delimiter.len_utf8()..).unwrap_or_default();
    let (pattern, after) = until(after, delimiter).ok_or("unterminated `s' command")?;
    let (replacement, after) = until(after, delimiter).ok_or("unterminated `s' command")?;
    if replacement.contains('\\') {
        return Err("backslashes in a replacement are not simulated".to_owned());
    }
    let flags = after.len() - after.trim_start_matches(['g', 'p']).len();
    let (flags, after) = after.split_at(flags);
    *rest = after;
    let times = if flags.contains('g') { Times::Always } else { Times::Once };
    let expression = Expression::parse(&pattern, syntax)?;
    Ok(Action::Substitute { expression, replacement, times, prints: flags.contains('p') })
}
