//! `$(( ))`: whole numbers, brackets, the usual operators, and names of variables.

/// Evaluates an expression; `lookup` gives the value of a variable.
pub(super) fn evaluate(expression: &str, lookup: &dyn Fn(&str) -> i64) -> Result<i64, String> {
    let mut evaluation = Evaluation { rest: expression, lookup };
    let value = evaluation.binary(0)?;
    evaluation.blanks();
    if evaluation.rest.is_empty() {
        Ok(value)
    } else {
        Err(format!("arithmetic expression: expecting EOF: \"{expression}\""))
    }
}

struct Evaluation<'a> {
    rest: &'a str,
    lookup: &'a dyn Fn(&str) -> i64,
}

/// Operators by how tightly they bind, the loosest first; longer ones stand before their beginnings.
const LEVELS: [&[&str]; 10] = [
    &["||"],
    &["&&"],
    &["|"],
    &["^"],
    &["&"],
    &["==", "!="],
    &["<=", ">=", "<", ">"],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
];

impl Evaluation<'_> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn binary(&mut self, level: usize) -> Result<i64, String> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        loop {
            self.blanks();
            let doubled = |operator: &str| {
                operator.len() == 1 && "|&<>".contains(operator) && self.rest.starts_with(&operator.repeat(2))
            };
            let found =
                operators.iter().find(|operator| self.rest.starts_with(**operator) && !doubled(operator));
            let Some(operator) = found else { return Ok(left) };
            self.rest = self.rest.get(operator.len()..).unwrap_or_default();
            let right = self.binary(level + 1)?;
            left = apply(operator, left, right)?;
        }
    }

    fn unary(&mut self) -> Result<i64, String> {
        self.blanks();
        let mut characters = self.rest.chars();
        let first = characters.next().ok_or("arithmetic expression: expecting primary")?;
        let after = characters.as_str();
        match first {
            '-' | '+' | '!' => {
                self.rest = after;
                let value = self.unary()?;
                Ok(match first {
                    '-' => value.wrapping_neg(),
                    '!' => i64::from(value == 0),
                    _ => value,
                })
            }
            '(' => {
                self.rest = after;
                let value = self.binary(0)?;
                self.blanks();
                self.rest = self.rest.strip_prefix(')').ok_or("arithmetic expression: expecting ')'")?;
                Ok(value)
            }
            first if first.is_ascii_alphanumeric() || first == '_' => {
                let end = self.rest.find(|next: char| !(next.is_ascii_alphanumeric() || next == '_'));
                let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
                self.rest = rest;
                if first.is_ascii_digit() { number(word) } else { Ok((self.lookup)(word)) }
            }
            other => Err(format!("arithmetic expression: `{other}` is not simulated")),
        }
    }
}

/// Reads a number as C does: `0x` for hexadecimal, a leading zero for octal.
pub(super) fn number(word: &str) -> Result<i64, String> {
    let parsed = match word.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None if word.len() > 1 && word.starts_with('0') => i64::from_str_radix(word, 8),
        None => word.parse(),
    };
    parsed.map_err(|_| format!("Illegal number: {word}"))
}

fn apply(operator: &str, left: i64, right: i64) -> Result<i64, String> {
    Ok(match operator {
        "+" => left.wrapping_add(right),
        "-" => left.wrapping_sub(right),
        "*" => left.wrapping_mul(right),
        "/" => left.checked_div(right).ok_or("arithmetic expression: division by zero")?,
        "%" => left.checked_rem(right).ok_or("arithmetic expression: division by zero")?,
        "|" => left | right,
        "^" => left ^ right,
        "&" => left & right,
        "||" => i64::from(left != 0 || right != 0),
        "<<" => left.wrapping_shl(u32::try_from(right).unwrap_or(0)),
        ">>" => left.wrapping_shr(u32::try_from(right).unwrap_or(0)),
        "&&" => i64::from(left != 0 && right != 0),
        "==" => i64::from(left == right),
        "!=" => i64::from(left != right),
        "<=" => i64::from(left <= right),
        ">=" => i64::from(left >= right),
        "<" => i64::from(left < right),
        _ => i64::from(left > right),
    })
}
