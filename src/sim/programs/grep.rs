//! `grep`, with a small engine for the expressions that scripts use: `^ $ . [...] * + ? | ( )`.

use super::{arguments, inputs};
use crate::sim::shell::{Process, Unwind};

pub(super) fn grep(process: &mut Process, arguments: &[String]) -> Result<i32, Unwind> {
    let mut arguments = arguments!(process, "grep", arguments, "qEvcFnilxsho", "e");
    let pattern = match arguments.value('e') {
        Some(pattern) => pattern.to_owned(),
        None if arguments.operands.is_empty() => {
            return Ok(process.fail(2, "Usage: grep [OPTION]... PATTERNS [FILE]..."));
        }
        None => arguments.operands.remove(0),
    };
    if arguments.has('o') {
        return Ok(process.fail(2, "grep: option -- 'o' is not simulated"));
    }
    let extended = if arguments.has('E') { Syntax::Extended } else { Syntax::Basic };
    let expression = if arguments.has('F') {
        Ok(Expression::literal(&pattern))
    } else {
        Expression::parse(&pattern, extended)
    };
    let expression = match expression {
        Ok(expression) => expression,
        Err(message) => return Ok(process.fail(2, &format!("grep: {message}"))),
    };
    let (contents, unreadable) = inputs(process, "grep", &arguments.operands);
    let with_names = contents.len() > 1 && !arguments.has('h');
    let mut found = false;
    for (name, content) in contents {
        let mut count = 0;
        for (index, line) in String::from_utf8_lossy(&content).lines().enumerate() {
            let text = if arguments.has('i') { line.to_lowercase() } else { line.to_owned() };
            let hit = if arguments.has('x') {
                expression.matches_whole(&text)
            } else {
                expression.find(&text).is_some()
            };
            if hit == arguments.has('v') {
                continue;
            }
            count += 1;
            if arguments.has('q') || arguments.has('c') || arguments.has('l') {
                continue;
            }
            let prefix = if with_names { format!("{name}:") } else { String::new() };
            let number = if arguments.has('n') { format!("{}:", index + 1) } else { String::new() };
            process.put_line(&format!("{prefix}{number}{line}"));
        }
        found |= count > 0;
        if arguments.has('c') {
            process.put_line(&if with_names { format!("{name}:{count}") } else { count.to_string() });
        } else if arguments.has('l') && count > 0 {
            process.put_line(&name);
        }
    }
    Ok(if unreadable != 0 && !(found && arguments.has('q')) { 2 } else { i32::from(!found) })
}

/// Which characters are special without a backslash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    Basic,
    Extended,
}

/// A regular expression: alternatives of sequences.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    alternatives: Vec<Vec<Term>>,
}

#[derive(Debug, Clone)]
struct Term {
    atom: Atom,
    least: usize,
    most: usize,
}

#[derive(Debug, Clone)]
enum Atom {
    Character(char),
    Any,
    Begin,
    End,
    Set { negated: bool, ranges: Vec<(char, char)> },
    Group(Expression),
}

impl Expression {
    fn literal(text: &str) -> Self {
        let terms =
            text.chars().map(|character| Term { atom: Atom::Character(character), least: 1, most: 1 });
        Self { alternatives: vec![terms.collect()] }
    }

    /// Reads an expression.
    pub(super) fn parse(pattern: &str, syntax: Syntax) -> Result<Self, String> {
        let characters: Vec<char> = pattern.chars().collect();
        let mut reader = Reader { characters: &characters, at: 0, syntax };
        let expression = reader.alternatives()?;
        if reader.at < characters.len() { Err(format!("Unmatched ) in `{pattern}`")) } else { Ok(expression) }
    }

    /// Returns where the first match begins and ends, in characters.
    pub(super) fn find(&self, text: &str) -> Option<(usize, usize)> {
        let text: Vec<char> = text.chars().collect();
        (0..=text.len()).find_map(|begin| self.ends(&text, begin).into_iter().max().map(|end| (begin, end)))
    }

    fn matches_whole(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        self.ends(&text, 0).contains(&text.len())
    }

    /// Returns every place where a match that begins at a place can end.
    fn ends(&self, text: &[char], begin: usize) -> Vec<usize> {
        let mut ends = Vec::new();
        for terms in &self.alternatives {
            let mut places = vec![begin];
            for term in terms {
                places = term.advance(text, &places);
            }
            ends.extend(places);
        }
        ends.sort_unstable();
        ends.dedup();
        ends
    }
}

impl Term {
    fn advance(&self, text: &[char], places: &[usize]) -> Vec<usize> {
        let mut reached: Vec<usize> = if self.least == 0 { places.to_vec() } else { Vec::new() };
        let mut current = places.to_vec();
        for round in 1..=self.most.min(text.len() + 1) {
            let mut next: Vec<usize> =
                current.iter().flat_map(|place| self.atom.ends(text, *place)).collect();
            next.sort_unstable();
            next.dedup();
            if next.is_empty() {
                break;
            }
            if round >= self.least {
                reached.extend(&next);
            }
            current = next;
        }
        reached.sort_unstable();
        reached.dedup();
        reached
    }
}

impl Atom {
    fn ends(&self, text: &[char], place: usize) -> Vec<usize> {
        let one = |hit: bool| if hit { vec![place + 1] } else { Vec::new() };
        let here = |hit: bool| if hit { vec![place] } else { Vec::new() };
        match (self, text.get(place)) {
            (Self::Begin, _) => here(place == 0),
            (Self::End, next) => here(next.is_none()),
            (Self::Group(expression), _) => expression.ends(text, place),
            (_, None) => Vec::new(),
            (Self::Character(character), Some(next)) => one(character == next),
            (Self::Any, Some(_)) => one(true),
            (Self::Set { negated, ranges }, Some(next)) => {
                one(ranges.iter().any(|(low, high)| (low..=high).contains(&next)) != *negated)
            }
        }
    }
}

struct Reader<'a> {
    characters: &'a [char],
    at: usize,
    syntax: Syntax,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    /// Takes an operator, which has a backslash in the basic syntax.
    fn operator(&mut self, wanted: char) -> bool {
        let escaped = self.peek() == Some('\\') && self.characters.get(self.at + 1) == Some(&wanted);
        let found = match self.syntax {
            Syntax::Extended => self.peek() == Some(wanted),
            Syntax::Basic => escaped,
        };
        if found {
            self.at += if self.syntax == Syntax::Basic { 2 } else { 1 };
        }
        found
    }

    fn at_close(&self) -> bool {
        let next = self.characters.get(self.at + 1);
        match self.syntax {
            Syntax::Extended => self.peek() == Some(')'),
            Syntax::Basic => self.peek() == Some('\\') && next == Some(&')'),
        }
    }

    fn alternatives(&mut self) -> Result<Expression, String> {
        let mut alternatives = vec![Vec::new()];
        while self.at < self.characters.len() && !self.at_close() {
            if self.operator('|') {
                alternatives.push(Vec::new());
                continue;
            }
            let atom = self.atom()?;
            let (least, most) = self.repetition();
            if let Some(terms) = alternatives.last_mut() {
                terms.push(Term { atom, least, most });
            }
        }
        Ok(Expression { alternatives })
    }

    fn repetition(&mut self) -> (usize, usize) {
        if self.peek() == Some('*') {
            self.at += 1;
            (0, usize::MAX)
        } else if self.operator('+') {
            (1, usize::MAX)
        } else if self.operator('?') {
            (0, 1)
        } else {
            (1, 1)
        }
    }

    fn atom(&mut self) -> Result<Atom, String> {
        if self.operator('(') {
            let inner = self.alternatives()?;
            return if self.operator(')') {
                Ok(Atom::Group(inner))
            } else {
                Err("Unmatched ( or \\(".to_owned())
            };
        }
        let character = self.peek().ok_or("empty expression")?;
        self.at += 1;
        Ok(match character {
            '.' => Atom::Any,
            '^' if self.at == 1 || self.syntax == Syntax::Extended => Atom::Begin,
            '$' if self.at == self.characters.len() || self.syntax == Syntax::Extended => Atom::End,
            '[' => self.set()?,
            '{' if self.syntax == Syntax::Extended => return Err("{m,n} is not simulated".to_owned()),
            '\\' => match self.peek() {
                Some(next) if next.is_ascii_alphanumeric() || next == '{' => {
                    return Err(format!("\\{next} is not simulated"));
                }
                Some(next) => {
                    self.at += 1;
                    Atom::Character(next)
                }
                None => return Err("Trailing backslash".to_owned()),
            },
            character => Atom::Character(character),
        })
    }

    fn set(&mut self) -> Result<Atom, String> {
        let negated = self.peek() == Some('^');
        self.at += usize::from(negated);
        let begin = self.at;
        let mut ranges = Vec::new();
        loop {
            let low = self.peek().ok_or("Unmatched [")?;
            if low == ']' && self.at > begin {
                self.at += 1;
                return Ok(Atom::Set { negated, ranges });
            }
            if low == '[' && self.characters.get(self.at + 1) == Some(&':') {
                return Err("classes are not simulated".to_owned());
            }
            let high = self
                .characters
                .get(self.at + 2)
                .filter(|high| self.characters.get(self.at + 1) == Some(&'-') && **high != ']');
            self.at += if high.is_some() { 3 } else { 1 };
            ranges.push((low, high.copied().unwrap_or(low)));
        }
    }
}
