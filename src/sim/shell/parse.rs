//! The grammar: from text to a [`Script`].

use std::sync::Arc;

use super::word::Quoting;
use super::{AndOr, Body, Command, Expected, Join, Piece, Pipeline, Redirection, Script, Target, Word};

/// Words that end or begin a compound command where a command could begin.
const RESERVED: [&str; 16] = [
    "if", "then", "elif", "else", "fi", "for", "in", "do", "done", "while", "until", "case", "esac", "{",
    "}", "!",
];

/// Reads a script; the error is a sentence for stderr.
pub(crate) fn parse(text: &str) -> Result<Script, String> {
    let mut parser = Parser { characters: text.chars().collect(), at: 0, depth: 0 };
    let script = parser.list(&[])?;
    match parser.peek() {
        None => Ok(script),
        Some(character) => Err(parser.unexpected(character)),
    }
}

const MAXIMUM_DEPTH: usize = 100;

pub(super) struct Parser {
    pub(super) characters: Vec<char>,
    pub(super) at: usize,
    depth: usize,
}

impl Parser {
    /// Returns a parser of a text of its own.
    pub(super) fn new(text: &str) -> Self {
        Self { characters: text.chars().collect(), at: 0, depth: 0 }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    pub(super) fn ahead(&self, distance: usize) -> Option<char> {
        self.characters.get(self.at + distance).copied()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let character = self.peek();
        self.at += usize::from(character.is_some());
        character
    }

    pub(super) fn starts_with(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(index, character)| self.ahead(index) == Some(character))
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.starts_with(text);
        if found {
            self.at += text.chars().count();
        }
        found
    }

    fn line(&self) -> usize {
        let read = self.characters.get(..self.at).unwrap_or_default();
        1 + read.iter().filter(|character| **character == '\n').count()
    }

    fn unexpected(&self, character: char) -> String {
        let shown = if character == '\n' { "newline".to_owned() } else { format!("\"{character}\"") };
        self.error(&format!("{shown} unexpected"))
    }

    pub(super) fn error(&self, message: &str) -> String {
        format!("{}: Syntax error: {message}", self.line())
    }

    fn blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t') => self.at += 1,
                Some('\\') if self.ahead(1) == Some('\n') => self.at += 2,
                Some('#') => {
                    while self.peek().is_some_and(|character| character != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn newlines(&mut self) {
        loop {
            self.blanks();
            if self.peek() != Some('\n') {
                return;
            }
            self.at += 1;
        }
    }

    /// Returns the plain word at this place, without taking it.
    fn plain_word(&self) -> String {
        self.characters
            .iter()
            .skip(self.at)
            .take_while(|character| !" \t\n;&|()<>\"'$`\\".contains(**character))
            .collect()
    }

    fn at_reserved(&self, words: &[&str]) -> bool {
        words.contains(&self.plain_word().as_str()) && !self.word_goes_on()
    }

    fn word_goes_on(&self) -> bool {
        self.ahead(self.plain_word().chars().count()).is_some_and(|next| "\"'$`\\".contains(next))
    }

    fn reserved(&mut self, word: &str) -> Result<(), String> {
        self.newlines();
        if self.at_reserved(&[word]) {
            self.at += word.chars().count();
            Ok(())
        } else {
            Err(self.error(&format!("expecting \"{word}\"")))
        }
    }

    /// Reads commands up to a closing bracket, the end, or one of the reserved words.
    pub(super) fn list(&mut self, ends: &[&str]) -> Result<Script, String> {
        self.depth += 1;
        if self.depth > MAXIMUM_DEPTH {
            return Err(self.error("too deeply nested"));
        }
        let mut script = Script::new();
        loop {
            self.newlines();
            let ended =
                matches!(self.peek(), None | Some(')')) || self.starts_with(";;") || self.at_reserved(ends);
            if ended {
                break;
            }
            script.push(self.and_or()?);
            self.blanks();
            match self.peek() {
                Some(';') if !self.starts_with(";;") => self.at += 1,
                Some('\n') => self.at += 1,
                Some('&') => return Err(self.error("`&`: background jobs are not simulated")),
                _ => break,
            }
        }
        self.depth -= 1;
        Ok(script)
    }

    fn required_list(&mut self, end: &[&str]) -> Result<Script, String> {
        let list = self.list(end)?;
        if list.is_empty() { Err(self.error("a command is missing")) } else { Ok(list) }
    }

    fn and_or(&mut self) -> Result<AndOr, String> {
        let first = self.pipeline()?;
        let mut rest = Vec::new();
        loop {
            self.blanks();
            let join = if self.take("&&") {
                Join::And
            } else if self.take("||") {
                Join::Or
            } else {
                return Ok(AndOr { first, rest });
            };
            self.newlines();
            rest.push((join, self.pipeline()?));
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline, String> {
        self.blanks();
        let negated = self.at_reserved(&["!"]);
        if negated {
            self.at += 1;
        }
        let mut commands = vec![self.command()?];
        loop {
            self.blanks();
            if self.peek() != Some('|') || self.starts_with("||") {
                return Ok(Pipeline { negated, commands });
            }
            self.at += 1;
            self.newlines();
            commands.push(self.command()?);
        }
    }

    fn command(&mut self) -> Result<Command, String> {
        self.blanks();
        let word = if self.word_goes_on() { String::new() } else { self.plain_word() };
        if self.peek() == Some('(') {
            self.at += 1;
            let body = self.required_list(&[])?;
            self.close(')')?;
            return self.compound(Body::Subshell(body));
        }
        let body = match word.as_str() {
            "{" => {
                self.reserved("{")?;
                let body = self.required_list(&["}"])?;
                self.reserved("}")?;
                Body::Group(body)
            }
            "if" => self.conditional()?,
            "while" | "until" => self.repetition(&word)?,
            "for" => self.iteration()?,
            "case" => self.selection()?,
            word if RESERVED.contains(&word) => return Err(self.error(&format!("\"{word}\" unexpected"))),
            _ => return self.simple(),
        };
        self.compound(body)
    }

    fn close(&mut self, bracket: char) -> Result<(), String> {
        self.newlines();
        if self.peek() == Some(bracket) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.error(&format!("expecting \"{bracket}\"")))
        }
    }

    fn compound(&mut self, body: Body) -> Result<Command, String> {
        let mut redirections = Vec::new();
        loop {
            self.blanks();
            match self.redirection()? {
                Some(redirection) => redirections.push(redirection),
                None => return Ok(Command { body, redirections }),
            }
        }
    }

    fn conditional(&mut self) -> Result<Body, String> {
        self.reserved("if")?;
        let mut branches = Vec::new();
        loop {
            let condition = self.required_list(&["then"])?;
            self.reserved("then")?;
            branches.push((condition, self.required_list(&["elif", "else", "fi"])?));
            self.newlines();
            if !self.at_reserved(&["elif"]) {
                break;
            }
            self.reserved("elif")?;
        }
        let otherwise = if self.at_reserved(&["else"]) {
            self.reserved("else")?;
            Some(self.required_list(&["fi"])?)
        } else {
            None
        };
        self.reserved("fi")?;
        Ok(Body::If { branches, otherwise })
    }

    fn repetition(&mut self, word: &str) -> Result<Body, String> {
        self.reserved(word)?;
        let condition = self.required_list(&["do"])?;
        let until = if word == "until" { Expected::Success } else { Expected::Failure };
        Ok(Body::Loop { until, condition, body: self.loop_body()? })
    }

    fn loop_body(&mut self) -> Result<Script, String> {
        self.reserved("do")?;
        let body = self.required_list(&["done"])?;
        self.reserved("done")?;
        Ok(body)
    }

    fn iteration(&mut self) -> Result<Body, String> {
        self.reserved("for")?;
        self.blanks();
        let name = self.name().ok_or_else(|| self.error("bad for loop variable"))?;
        self.newlines();
        let words = if self.at_reserved(&["in"]) {
            self.reserved("in")?;
            let mut words = Vec::new();
            while let Some(word) = self.word()? {
                words.push(word);
            }
            Some(words)
        } else {
            None
        };
        self.blanks();
        if self.peek() == Some(';') {
            self.at += 1;
        }
        Ok(Body::For { name, words, body: self.loop_body()? })
    }

    fn selection(&mut self) -> Result<Body, String> {
        self.reserved("case")?;
        let subject = self.word()?.ok_or_else(|| self.error("a word is missing after case"))?;
        self.reserved("in")?;
        let mut arms = Vec::new();
        loop {
            self.newlines();
            if self.at_reserved(&["esac"]) {
                break;
            }
            self.take("(");
            let mut patterns = Vec::new();
            loop {
                patterns.push(self.word()?.ok_or_else(|| self.error("a pattern is missing"))?);
                self.blanks();
                if !self.take("|") {
                    break;
                }
            }
            self.close(')')?;
            arms.push((patterns, self.list(&["esac"])?));
            self.newlines();
            if !self.take(";;") {
                break;
            }
        }
        self.reserved("esac")?;
        Ok(Body::Case { subject, arms })
    }

    /// Reads a name, where one stands.
    pub(super) fn name(&mut self) -> Option<String> {
        let begin = self.peek().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        let mut name = String::new();
        while let Some(character) =
            self.peek().filter(|next| begin && (next.is_ascii_alphanumeric() || *next == '_'))
        {
            name.push(character);
            self.at += 1;
        }
        (!name.is_empty()).then_some(name)
    }

    fn simple(&mut self) -> Result<Command, String> {
        let (mut assignments, mut words, mut redirections) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            self.blanks();
            if let Some(redirection) = self.redirection()? {
                redirections.push(redirection);
                continue;
            }
            let begin = self.at;
            if words.is_empty() {
                if let Some(name) = self.name() {
                    if self.take("=") {
                        assignments.push((name, self.word_here()?));
                        continue;
                    }
                    self.blanks();
                    if self.starts_with("()") && assignments.is_empty() {
                        self.at += 2;
                        self.newlines();
                        let body = Arc::new(self.command()?);
                        return Ok(Command { body: Body::Function { name, body }, redirections });
                    }
                }
                self.at = begin;
            }
            match self.word()? {
                Some(word) => words.push(word),
                None => break,
            }
        }
        if assignments.is_empty() && words.is_empty() && redirections.is_empty() {
            return Err(match self.peek() {
                Some(character) => self.unexpected(character),
                None => self.error("end of file unexpected"),
            });
        }
        Ok(Command { body: Body::Simple { assignments, words }, redirections })
    }

    fn redirection(&mut self) -> Result<Option<Redirection>, String> {
        let digit = self.peek().and_then(|character| character.to_digit(10));
        let numbered = digit.filter(|_| matches!(self.ahead(1), Some('<' | '>')));
        let operator = if numbered.is_some() { self.ahead(1) } else { self.peek() };
        let Some(operator) = operator.filter(|character| "<>".contains(*character)) else { return Ok(None) };
        self.at += usize::from(numbered.is_some());
        let descriptor = numbered.map_or(usize::from(operator == '>'), |digit| digit as usize);
        let target = if self.take("<<") {
            Target::Here(self.here_document()?)
        } else if self.take("<&") || self.take(">&") {
            Target::Duplicate(self.target()?)
        } else if self.take(">>") {
            Target::Append(self.target()?)
        } else if self.take(">|") {
            Target::Clobber(self.target()?)
        } else if self.take("<>") {
            return Err(self.error("`<>` is not simulated"));
        } else if self.take("<") {
            Target::Read(self.target()?)
        } else {
            self.at += 1;
            Target::Write(self.target()?)
        };
        Ok(Some(Redirection { descriptor, target }))
    }

    fn target(&mut self) -> Result<Word, String> {
        self.word()?.ok_or_else(|| self.error("a redirection without a target"))
    }

    /// Reads the delimiter, and takes the document out of the lines that follow.
    fn here_document(&mut self) -> Result<Word, String> {
        let strip = self.take("-");
        let delimiter = self.target()?;
        let quoted = delimiter.iter().any(|piece| !matches!(piece, Piece::Literal(_)));
        let delimiter: String = delimiter.iter().map(literal_text).collect();
        let rest = self.characters.get(self.at..).unwrap_or_default();
        let begin = rest
            .iter()
            .position(|character| *character == '\n')
            .map_or(self.characters.len(), |end| self.at + end + 1);
        let (mut end, mut document) = (begin, String::new());
        loop {
            let line: String =
                self.characters.iter().skip(end).take_while(|character| **character != '\n').collect();
            let finished = end >= self.characters.len();
            end = (end + line.chars().count() + 1).min(self.characters.len());
            let line = if strip { line.trim_start_matches('\t') } else { &line };
            if finished || line == delimiter {
                break;
            }
            document.push_str(line);
            document.push('\n');
        }
        self.characters.drain(begin..end);
        if quoted {
            return Ok(vec![Piece::Quoted(document)]);
        }
        Ok(vec![Piece::Double(Parser::new(&document).pieces(Quoting::Here)?)])
    }

    /// Reads a word after blanks; `None` where none begins.
    pub(super) fn word(&mut self) -> Result<Option<Word>, String> {
        self.blanks();
        let word = self.word_here()?;
        Ok((!word.is_empty()).then_some(word))
    }

    fn word_here(&mut self) -> Result<Word, String> {
        self.pieces(Quoting::None)
    }
}

fn literal_text(piece: &Piece) -> String {
    match piece {
        Piece::Literal(text) | Piece::Quoted(text) => text.clone(),
        Piece::Double(word) => word.iter().map(literal_text).collect(),
        Piece::Parameter(_) | Piece::Substitution(_) | Piece::Arithmetic(_) => String::new(),
    }
}
