//! Words are what a line of ssh_config is made of: a keyword, and arguments that may stand in quotes.
//!
//! `parse` takes lines apart with them, letter for letter as OpenSSH does (`strdelim` and `argv_split` in its `misc.c`).

/// What OpenSSH takes for space around keywords.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Takes the keyword off a line; returns it as it is written with what follows. Empty lines and comments have none.
pub(super) fn keyword(line: &str) -> Option<(String, &str)> {
    // A form feed may end a line, and may stand nowhere else.
    let line = line.trim_end_matches(|letter| SPACE.contains(&letter) || letter == '\u{c}');
    let (mut keyword, mut rest) = delimited(line)?;
    if keyword.is_empty() {
        (keyword, rest) = delimited(rest)?;
    }
    if keyword.is_empty() || keyword.starts_with('#') {
        return None;
    }
    Some((keyword, rest.trim_start_matches(SPACE)))
}

/// Takes one word off a text, up to space, a quote or one `=`; nothing when a quote is not closed.
fn delimited(text: &str) -> Option<(String, &str)> {
    let Some(at) = text.find(|letter| SPACE.contains(&letter) || letter == '"' || letter == '=') else {
        return Some((text.to_owned(), ""));
    };
    let (word, rest) = text.split_at_checked(at)?;
    let (delimiter, rest) = rest.split_at_checked(1)?;
    if delimiter == "\"" {
        let (quoted, rest) = rest.split_once('"')?;
        return Some((format!("{word}{quoted}"), rest.trim_start_matches(SPACE)));
    }
    let rest = rest.trim_start_matches(SPACE);
    let rest = match rest.strip_prefix('=') {
        Some(after) if delimiter != "=" => after.trim_start_matches(SPACE),
        _ => rest,
    };
    Some((word.to_owned(), rest))
}

/// A quote that nobody closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OpenQuote;

/// Splits arguments at space, with quotes, `\"`, `\'`, `\\` and `\ `; a word that begins with `#` ends them.
pub(super) fn arguments(text: &str) -> Result<Vec<String>, OpenQuote> {
    let mut words = Vec::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(|letter| matches!(letter, ' ' | '\t')).is_some() {}
        if letters.peek().is_none_or(|letter| *letter == '#') {
            return Ok(words);
        }
        let (mut word, mut quote) = (String::new(), None);
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => {
                    let is_escaped =
                        |next: &char| matches!(next, '\'' | '"' | '\\') || (quote.is_none() && *next == ' ');
                    word.push(letters.next_if(is_escaped).unwrap_or('\\'));
                }
                ' ' | '\t' if quote.is_none() => break,
                '"' | '\'' if quote.is_none() => quote = Some(letter),
                letter if quote == Some(letter) => quote = None,
                letter => word.push(letter),
            }
        }
        if quote.is_some() {
            return Err(OpenQuote);
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_end_at_space_or_one_equals_sign() {
        for (line, expected) in [
            ("Port 22", Some(("Port", "22"))),
            ("  Port\t= 22 \r\n", Some(("Port", "22"))),
            ("PORT=22", Some(("PORT", "22"))),
            ("Port==22", Some(("Port", "=22"))),
            ("Port = = 22", Some(("Port", "= 22"))),
            ("\"Port\" 22", Some(("Port", "22"))),
            ("Port", Some(("Port", ""))),
            ("Port \u{c}", Some(("Port", ""))),
            ("# Port 22", None),
            ("   # Port 22", None),
            ("", None),
            ("   ", None),
            ("\"Port 22", None),
            ("IdentityFile \"a b\"", Some(("IdentityFile", "\"a b\""))),
        ] {
            let found = keyword(line);
            let found = found.as_ref().map(|(keyword, rest)| (keyword.as_str(), *rest));
            assert_eq!(found, expected, "{line:?}");
        }
    }

    #[test]
    fn arguments_may_stand_in_quotes() {
        for (text, expected) in [
            ("a b\tc", Ok(vec!["a", "b", "c"])),
            ("\"a b\" 'c \"d\"'", Ok(vec!["a b", "c \"d\""])),
            (r#"a\ b "c\"d" e\f \\"#, Ok(vec!["a b", "c\"d", r"e\f", r"\"])),
            ("a # b", Ok(vec!["a"])),
            ("a#b", Ok(vec!["a#b"])),
            ("\"\"", Ok(vec![""])),
            ("x\"y z\"w", Ok(vec!["xy zw"])),
            ("\"a", Err(OpenQuote)),
            ("it's", Err(OpenQuote)),
            ("", Ok(vec![])),
        ] {
            let expected = expected.map(|words| words.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(arguments(text), expected, "{text:?}");
        }
    }
}
