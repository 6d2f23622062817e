//! Words: quotes, parameters, substitutions.

use std::sync::Arc;

use super::parse::Parser;
use super::{Empty, Fallback, Greed, Operation, Parameter, Piece, Side, Word};

/// What surrounds the pieces that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quoting {
    /// A word of a command: blanks and operators end it.
    None,
    /// Double quotes end it.
    Double,
    /// A here-document, up to its end.
    Here,
    /// The word in `${name-word}`: a closing brace ends it.
    Brace,
    /// The same within double quotes.
    DoubleBrace,
    /// The inside of `$((...))`.
    Arithmetic,
}

impl Quoting {
    fn ends(self, parser: &Parser) -> bool {
        match (self, parser.peek()) {
            (_, None) => true,
            (Self::None, Some(character)) => " \t\n;&|()<>".contains(character),
            (Self::Double, Some(character)) => character == '"',
            (Self::Brace | Self::DoubleBrace, Some(character)) => character == '}',
            (Self::Arithmetic, Some(_)) => parser.starts_with("))"),
            (Self::Here, Some(_)) => false,
        }
    }

    /// Whether text stands as it is: no quotes, no patterns.
    fn is_text(self) -> bool {
        matches!(self, Self::Double | Self::Here | Self::DoubleBrace | Self::Arithmetic)
    }
}

fn push(pieces: &mut Word, piece: Piece) {
    match (pieces.last_mut(), piece) {
        (Some(Piece::Literal(text)), Piece::Literal(more))
        | (Some(Piece::Quoted(text)), Piece::Quoted(more)) => {
            text.push_str(&more);
        }
        (_, piece) => pieces.push(piece),
    }
}

impl Parser {
    /// Reads pieces up to where the surroundings end.
    pub(super) fn pieces(&mut self, quoting: Quoting) -> Result<Word, String> {
        let mut pieces = Word::new();
        let mut brackets = 0_usize;
        while (brackets > 0 && self.peek().is_some()) || !quoting.ends(self) {
            let Some(character) = self.next() else { break };
            match character {
                '\\' => self.escape(quoting, &mut pieces),
                '\'' if !quoting.is_text() => {
                    let mut text = String::new();
                    loop {
                        match self.next() {
                            Some('\'') => break,
                            Some(character) => text.push(character),
                            None => return Err(self.error("unterminated quoted string")),
                        }
                    }
                    push(&mut pieces, Piece::Quoted(text));
                }
                '"' if !quoting.is_text() || quoting == Quoting::DoubleBrace => {
                    let inner = self.pieces(Quoting::Double)?;
                    if self.next().is_none() {
                        return Err(self.error("unterminated quoted string"));
                    }
                    pieces.push(Piece::Double(inner));
                }
                '`' => return Err(self.error("backquotes are not simulated, use $(...)")),
                '$' => {
                    let piece = self.dollar(quoting)?;
                    push(&mut pieces, piece);
                }
                character => {
                    if quoting == Quoting::Arithmetic {
                        match character {
                            '(' => brackets += 1,
                            ')' => brackets = brackets.saturating_sub(1),
                            _ => {}
                        }
                    }
                    let text = character.to_string();
                    push(
                        &mut pieces,
                        if quoting.is_text() { Piece::Quoted(text) } else { Piece::Literal(text) },
                    );
                }
            }
        }
        Ok(pieces)
    }

    fn escape(&mut self, quoting: Quoting, pieces: &mut Word) {
        match self.next() {
            Some('\n') => {}
            Some(character) => {
                let special = match quoting {
                    Quoting::None | Quoting::Brace => true,
                    Quoting::Here => "$`\\".contains(character),
                    Quoting::Double | Quoting::DoubleBrace | Quoting::Arithmetic => {
                        "$`\"\\}".contains(character)
                    }
                };
                let text = if special { character.to_string() } else { format!("\\{character}") };
                push(pieces, Piece::Quoted(text));
            }
            None => push(pieces, Piece::Quoted("\\".to_owned())),
        }
    }

    fn dollar(&mut self, quoting: Quoting) -> Result<Piece, String> {
        if self.starts_with("((") {
            self.at += 2;
            let expression = self.pieces(Quoting::Arithmetic)?;
            if !self.starts_with("))") {
                return Err(self.error("missing \"))\""));
            }
            self.at += 2;
            return Ok(Piece::Arithmetic(expression));
        }
        if self.peek() == Some('(') {
            self.at += 1;
            let script = self.list(&[])?;
            return match self.next() {
                Some(')') => Ok(Piece::Substitution(Arc::new(script))),
                _ => Err(self.error("expecting \")\"")),
            };
        }
        if self.peek() == Some('{') {
            self.at += 1;
            return self.braces(quoting);
        }
        match self.parameter_name() {
            Some(name) => Ok(Piece::Parameter(Parameter { name, operation: Operation::Value })),
            None if quoting.is_text() => Ok(Piece::Quoted("$".to_owned())),
            None => Ok(Piece::Literal("$".to_owned())),
        }
    }

    fn parameter_name(&mut self) -> Option<String> {
        if let Some(name) = self.name() {
            return Some(name);
        }
        let special =
            self.peek().filter(|character| character.is_ascii_digit() || "?$#@*!-".contains(*character))?;
        self.at += 1;
        Some(special.to_string())
    }

    fn braces(&mut self, quoting: Quoting) -> Result<Piece, String> {
        let length = self.peek() == Some('#') && self.ahead(1) != Some('}');
        if length {
            self.at += 1;
        }
        let mut name = self.parameter_name().ok_or_else(|| self.error("bad substitution"))?;
        while let Some(digit) =
            self.peek().filter(|next| next.is_ascii_digit() && name.bytes().all(|byte| byte.is_ascii_digit()))
        {
            name.push(digit);
            self.at += 1;
        }
        let inner = if quoting.is_text() { Quoting::DoubleBrace } else { Quoting::Brace };
        let operation = if length { Operation::Length } else { self.operation(inner)? };
        match self.next() {
            Some('}') => Ok(Piece::Parameter(Parameter { name, operation })),
            _ => Err(self.error("bad substitution")),
        }
    }

    fn operation(&mut self, inner: Quoting) -> Result<Operation, String> {
        let empty = if self.peek() == Some(':') {
            self.at += 1;
            Empty::CountsAsUnset
        } else {
            Empty::IsValue
        };
        let Some(operator) = self.peek().filter(|next| *next != '}') else { return Ok(Operation::Value) };
        self.at += 1;
        let kind = match operator {
            '-' => Fallback::Default,
            '=' => Fallback::Assign,
            '?' => Fallback::Error,
            '+' => Fallback::Alternative,
            '%' | '#' if empty == Empty::IsValue => {
                let greedy = self.peek() == Some(operator);
                self.at += usize::from(greedy);
                let greed = if greedy { Greed::Longest } else { Greed::Shortest };
                let side = if operator == '%' { Side::Suffix } else { Side::Prefix };
                return Ok(Operation::Strip { side, greed, pattern: self.pieces(Quoting::Brace)? });
            }
            _ => return Err(self.error("bad substitution")),
        };
        Ok(Operation::Fallback { kind, empty, word: self.pieces(inner)? })
    }
}
