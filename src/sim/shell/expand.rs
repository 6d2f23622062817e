//! Expansion: from words to arguments.

use super::pattern::{Symbol, is_pattern, symbols_match};
use super::process::{Process, Switch, Unwind};
use super::{Empty, Fallback, Greed, Operation, Parameter, Piece, Side, Sink, Word, arithmetic};
use crate::sim::files::child;

/// A field that is being put together.
#[derive(Debug, Default)]
struct Fields {
    done: Vec<Vec<Symbol>>,
    current: Vec<Symbol>,
    /// Whether the current field exists even if it is empty (`""`).
    present: bool,
    splitting: Splitting,
}

/// Whether the value of an unquoted expansion is split into fields: not in an assignment, a `case` or a redirection.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Splitting {
    #[default]
    On,
    Off,
}

impl Fields {
    fn text(&mut self, text: &str, quoted: bool) {
        self.current.extend(text.chars().map(|character| Symbol { character, quoted }));
        self.present |= quoted || !text.is_empty();
    }

    fn end_field(&mut self) {
        if self.present {
            self.done.push(std::mem::take(&mut self.current));
        }
        self.present = false;
    }

    /// Adds the value of an unquoted expansion, split at the separators.
    fn split(&mut self, text: &str, separators: &str) {
        for character in text.chars() {
            if !separators.contains(character) {
                self.current.push(Symbol { character, quoted: false });
                self.present = true;
            } else if character.is_whitespace() {
                self.end_field();
            } else {
                self.present = true;
                self.end_field();
            }
        }
    }
}

impl Process {
    /// Expands words into arguments: with splitting and with patterns for file names.
    pub(super) fn arguments(&mut self, words: &[Word]) -> Result<Vec<String>, Unwind> {
        let mut arguments = Vec::new();
        for word in words {
            let mut fields = Fields::default();
            self.add_pieces(word, &mut fields, false)?;
            fields.end_field();
            for field in fields.done {
                let globs = self.options.noglob == Switch::Off && is_pattern(&field);
                let found = if globs { self.file_names(&field) } else { Vec::new() };
                if found.is_empty() {
                    arguments.push(plain(&field));
                } else {
                    arguments.extend(found);
                }
            }
        }
        Ok(arguments)
    }

    /// Expands a word into one text, without splitting.
    pub(super) fn text(&mut self, word: &Word) -> Result<String, Unwind> {
        self.symbols(word).map(|symbols| plain(&symbols))
    }

    /// Expands a word into a pattern.
    pub(super) fn symbols(&mut self, word: &Word) -> Result<Vec<Symbol>, Unwind> {
        let mut fields = Fields { splitting: Splitting::Off, ..Fields::default() };
        self.add_pieces(word, &mut fields, false)?;
        fields.end_field();
        let space = Symbol { character: ' ', quoted: true };
        Ok(fields.done.join(&space))
    }

    fn add_pieces(&mut self, word: &Word, fields: &mut Fields, quoted: bool) -> Result<(), Unwind> {
        for piece in word {
            match piece {
                Piece::Literal(text) => fields.text(text, quoted),
                Piece::Quoted(text) => fields.text(text, true),
                Piece::Double(inner) => {
                    let only_arguments =
                        matches!(inner.as_slice(), [Piece::Parameter(parameter)] if parameter.name == "@");
                    fields.present |= !(only_arguments && self.positional.is_empty());
                    self.add_pieces(inner, fields, true)?;
                }
                Piece::Parameter(parameter) => self.add_parameter(parameter, fields, quoted)?,
                Piece::Substitution(script) => {
                    let mut child = self.clone();
                    let buffer = Sink::buffer();
                    child.set_sink(1, buffer.clone());
                    child.trap = None;
                    let result = child.run(script);
                    self.status = child.finish(result)?;
                    let output = buffer.take();
                    let text = String::from_utf8_lossy(&output);
                    self.add_value(text.trim_end_matches('\n'), fields, quoted);
                }
                Piece::Arithmetic(expression) => {
                    let expression = self.text(expression)?;
                    let lookup = |name: &str| {
                        self.variable(name)
                            .and_then(|value| arithmetic::number(value.trim()).ok())
                            .unwrap_or(0)
                    };
                    match arithmetic::evaluate(&expression, &lookup) {
                        Ok(value) => self.add_value(&value.to_string(), fields, quoted),
                        Err(message) => return Err(self.expansion_error(&message)),
                    }
                }
            }
        }
        Ok(())
    }

    fn expansion_error(&mut self, message: &str) -> Unwind {
        let message = format!("{}: 1: {message}", self.name);
        Unwind::Exit(self.fail(2, &message))
    }

    fn add_value(&mut self, value: &str, fields: &mut Fields, quoted: bool) {
        if quoted || fields.splitting == Splitting::Off {
            fields.text(value, quoted);
        } else {
            let separators = self.variable("IFS").unwrap_or(" \t\n").to_owned();
            fields.split(value, &separators);
        }
    }

    /// Returns the value of a parameter; `None` where it is not set.
    fn value(&self, name: &str) -> Option<String> {
        if let Ok(index) = name.parse::<usize>() {
            return match index.checked_sub(1) {
                None => Some(self.name.clone()),
                Some(index) => self.positional.get(index).cloned(),
            };
        }
        match name {
            "?" => Some(self.status.to_string()),
            "$" => Some(self.number.to_string()),
            "#" => Some(self.positional.len().to_string()),
            "@" | "*" => (!self.positional.is_empty()).then(|| self.positional.join(" ")),
            "!" => None,
            "-" => Some(if self.options.errexit == Switch::On { "e".to_owned() } else { String::new() }),
            name => self.variable(name).map(str::to_owned),
        }
    }

    fn add_parameter(
        &mut self,
        parameter: &Parameter,
        fields: &mut Fields,
        quoted: bool,
    ) -> Result<(), Unwind> {
        let name = parameter.name.as_str();
        if name == "@" && quoted && matches!(parameter.operation, Operation::Value) {
            for (index, argument) in self.positional.clone().iter().enumerate() {
                if index > 0 {
                    fields.end_field();
                }
                fields.text(argument, true);
            }
            return Ok(());
        }
        let value = self.value(name);
        let checked = |process: &mut Self| match &value {
            Some(value) => Ok(value.clone()),
            None if process.options.nounset == Switch::On && name != "@" && name != "*" => {
                Err(process.expansion_error(&format!("{name}: parameter not set")))
            }
            None => Ok(String::new()),
        };
        match &parameter.operation {
            Operation::Value => {
                let value = checked(self)?;
                self.add_value(&value, fields, quoted);
            }
            Operation::Length => {
                let length = checked(self)?.chars().count();
                self.add_value(&length.to_string(), fields, quoted);
            }
            Operation::Strip { side, greed, pattern } => {
                let value: Vec<char> = checked(self)?.chars().collect();
                let pattern = self.symbols(pattern)?;
                let stripped = strip(&value, &pattern, *side, *greed);
                self.add_value(&stripped, fields, quoted);
            }
            Operation::Fallback { kind, empty, word } => {
                let there = value.filter(|value| *empty == Empty::IsValue || !value.is_empty());
                match (kind, there) {
                    (Fallback::Alternative, Some(_)) | (Fallback::Default, None) => {
                        self.add_pieces(word, fields, quoted)?;
                    }
                    (Fallback::Alternative, None) => {}
                    (_, Some(value)) => self.add_value(&value, fields, quoted),
                    (Fallback::Assign, None) => {
                        let value = self.text(word)?;
                        self.assign(name, &value);
                        self.add_value(&value, fields, quoted);
                    }
                    (Fallback::Error, None) => {
                        let message = self.text(word)?;
                        let message = if message.is_empty() { "parameter not set or null" } else { &message };
                        return Err(self.expansion_error(&format!("{name}: {message}")));
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the paths that a pattern matches, sorted.
    fn file_names(&self, pattern: &[Symbol]) -> Vec<String> {
        let slash = |symbol: &Symbol| symbol.character == '/';
        let absolute = pattern.first().is_some_and(slash);
        let mut found = vec![if absolute { "/".to_owned() } else { String::new() }];
        for part in pattern.split(slash).filter(|part| !part.is_empty()) {
            let mut next = Vec::new();
            for folder in &found {
                let join = |name: &str| if folder.is_empty() { name.to_owned() } else { child(folder, name) };
                if !is_pattern(part) {
                    let candidate = join(&plain(part));
                    let path = self.path(&candidate);
                    if self
                        .files(|files| files.metadata(self.who, &path, crate::sim::files::Links::Keep))
                        .is_ok()
                    {
                        next.push(candidate);
                    }
                    continue;
                }
                let path = self.path(if folder.is_empty() { "." } else { folder });
                let hidden = part.first().is_some_and(|first| first.character == '.');
                for name in self.files(|files| files.list(self.who, &path)).unwrap_or_default() {
                    let characters: Vec<char> = name.chars().collect();
                    if (hidden || !name.starts_with('.')) && symbols_match(part, &characters) {
                        next.push(join(&name));
                    }
                }
            }
            found = next;
        }
        found
    }
}

fn plain(symbols: &[Symbol]) -> String {
    symbols.iter().map(|symbol| symbol.character).collect()
}

fn strip(value: &[char], pattern: &[Symbol], side: Side, greed: Greed) -> String {
    let mut lengths: Vec<usize> = (0..=value.len()).collect();
    if greed == Greed::Longest {
        lengths.reverse();
    }
    let cut = |length: &usize| match side {
        Side::Prefix => value.split_at_checked(*length),
        Side::Suffix => value.split_at_checked(value.len() - length).map(|(rest, part)| (part, rest)),
    };
    let stripped = lengths.iter().filter_map(cut).find(|(part, _)| symbols_match(pattern, part));
    stripped.map_or(value, |(_, rest)| rest).iter().collect()
}
