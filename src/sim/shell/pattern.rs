//! Shell patterns: `*`, `?` and `[...]`.

/// A character of a pattern; a quoted one stands for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub(crate) character: char,
    pub(crate) quoted: bool,
}

impl Symbol {
    fn is(self, character: char) -> bool {
        !self.quoted && self.character == character
    }
}

/// Returns whether an unquoted pattern matches a whole text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let symbols: Vec<Symbol> = pattern.chars().map(|character| Symbol { character, quoted: false }).collect();
    symbols_match(&symbols, &text.chars().collect::<Vec<_>>())
}

/// Returns whether a pattern matches a whole text.
pub(crate) fn symbols_match(pattern: &[Symbol], text: &[char]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return text.is_empty() };
    if first.is('*') {
        return (0..=text.len()).any(|skipped| symbols_match(rest, text.get(skipped..).unwrap_or_default()));
    }
    let Some((character, remaining)) = text.split_first() else { return false };
    if first.is('?') {
        return symbols_match(rest, remaining);
    }
    if first.is('[')
        && let Some((found, rest)) = bracket(rest, *character)
    {
        return found && symbols_match(rest, remaining);
    }
    first.character == *character && symbols_match(rest, remaining)
}

/// Returns whether a bracket holds a character, and what follows the bracket; `None` where it is not closed.
fn bracket(pattern: &[Symbol], character: char) -> Option<(bool, &[Symbol])> {
    let negated = pattern.first().is_some_and(|symbol| symbol.is('!') || symbol.is('^'));
    let begin = usize::from(negated);
    let close = pattern.iter().skip(begin + 1).position(|symbol| symbol.is(']'))? + begin + 1;
    let members = pattern.get(begin..close)?;
    let mut found = false;
    let mut index = 0;
    while let Some(low) = members.get(index) {
        let range = members.get(index + 1).is_some_and(|dash| dash.is('-'));
        if let Some(high) = members.get(index + 2).filter(|_| range) {
            found |= (low.character..=high.character).contains(&character);
            index += 3;
        } else {
            found |= low.character == character;
            index += 1;
        }
    }
    Some((found != negated, pattern.get(close + 1..)?))
}

/// Returns whether a word holds a pattern at all.
pub(crate) fn is_pattern(symbols: &[Symbol]) -> bool {
    symbols.iter().any(|symbol| symbol.is('*') || symbol.is('?') || symbol.is('['))
}
