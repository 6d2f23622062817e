//! The part of Go's templates that `docker ... --format` is used with.
//!
//! Fields, `range`, `if`, `json`, `index`, `join`, `split`, `len`, comparisons and texts; anything else is an error.

use serde_json::Value;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    Print(Vec<Token>),
    Range { over: Vec<Token>, body: Vec<Part>, otherwise: Vec<Part> },
    If { condition: Vec<Token>, body: Vec<Part>, otherwise: Vec<Part> },
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Field(Vec<String>),
    Root(Vec<String>),
    Word(String),
    Constant(Value),
    Open,
    Close,
    Pipe,
}

/// How a block ended.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Text,
    End,
    Else(String),
}

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text;
        let (parts, ending) = block(&mut rest)?;
        if ending == Ending::Text {
            Ok(Self(parts))
        } else {
            Err("template parsing error: unexpected {{end}}".to_owned())
        }
    }

    /// Fills it with a value.
    pub(crate) fn fill(&self, value: &Value) -> Result<String, String> {
        let mut output = String::new();
        render(&self.0, value, value, &mut output)?;
        Ok(output)
    }
}

fn block(rest: &mut &str) -> Result<(Vec<Part>, Ending), String> {
    let mut parts = Vec::new();
    loop {
        let Some((text, after)) = rest.split_once("{{") else {
            parts.push(Part::Text((*rest).to_owned()));
            *rest = "";
            return Ok((parts, Ending::Text));
        };
        let trims = after.starts_with("- ");
        parts.push(Part::Text(if trims { text.trim_end() } else { text }.to_owned()));
        let (action, after) = after.split_once("}}").ok_or("template parsing error: unclosed action")?;
        *rest = if action.ends_with(" -") { after.trim_start() } else { after };
        let action = action.trim_start_matches('-').trim_end_matches(" -").trim();
        let (keyword, operand) = action.split_once(' ').unwrap_or((action, ""));
        match keyword {
            "end" => return Ok((parts, Ending::End)),
            "else" => return Ok((parts, Ending::Else(operand.trim().to_owned()))),
            "range" => {
                let over = tokens(operand)?;
                let (body, otherwise) = bodies(rest)?;
                parts.push(Part::Range { over, body, otherwise });
            }
            "if" => {
                let condition = tokens(operand)?;
                let (body, otherwise) = bodies(rest)?;
                parts.push(Part::If { condition, body, otherwise });
            }
            "with" | "define" | "template" | "block" => {
                return Err(format!("template parsing error: {keyword} is not simulated"));
            }
            comment if comment.starts_with("/*") => {}
            _ => parts.push(Part::Print(tokens(action)?)),
        }
    }
}

fn bodies(rest: &mut &str) -> Result<(Vec<Part>, Vec<Part>), String> {
    let (body, ending) = block(rest)?;
    match ending {
        Ending::End => Ok((body, Vec::new())),
        Ending::Else(chained) if chained.is_empty() => match block(rest)? {
            (otherwise, Ending::End) => Ok((body, otherwise)),
            _ => Err("template parsing error: expected end".to_owned()),
        },
        Ending::Else(chained) => {
            let condition = chained.strip_prefix("if ").ok_or("template parsing error: unexpected else")?;
            let condition = tokens(condition)?;
            let (inner, otherwise) = bodies(rest)?;
            Ok((body, vec![Part::If { condition, body: inner, otherwise }]))
        }
        Ending::Text => Err("template parsing error: unexpected EOF".to_owned()),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '|' => (Token::Pipe, 1),
            '"' => {
                let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
                let value = stream
                    .next()
                    .and_then(Result::ok)
                    .ok_or("template parsing error: unterminated quoted string")?;
                (Token::Constant(value), stream.byte_offset())
            }
            '`' => {
                let inner = rest
                    .get(1..)
                    .and_then(|inner| inner.split_once('`'))
                    .ok_or("template parsing error: unterminated raw string")?
                    .0;
                (Token::Constant(Value::from(inner)), inner.len() + 2)
            }
            _ => {
                let length = rest.find([' ', '(', ')', '|']).unwrap_or(rest.len());
                (word(rest.get(..length).unwrap_or_default())?, length)
            }
        };
        tokens.push(token);
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    Ok(tokens)
}

fn word(text: &str) -> Result<Token, String> {
    let path = |text: &str| text.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    if text.starts_with('.') {
        return Ok(Token::Field(path(text)));
    }
    if let Some(rest) = text.strip_prefix('$') {
        return if rest.is_empty() || rest.starts_with('.') {
            Ok(Token::Root(path(rest)))
        } else {
            Err(format!("template parsing error: variable {text} is not simulated"))
        };
    }
    if let Ok(number) = text.parse::<i64>() {
        return Ok(Token::Constant(Value::from(number)));
    }
    Ok(match text {
        "true" => Token::Constant(Value::Bool(true)),
        "false" => Token::Constant(Value::Bool(false)),
        "nil" => Token::Constant(Value::Null),
        text => Token::Word(text.to_owned()),
    })
}

fn render(parts: &[Part], dot: &Value, root: &Value, output: &mut String) -> Result<(), String> {
    for part in parts {
        match part {
            Part::Text(text) => output.push_str(text),
            Part::Print(tokens) => output.push_str(&show(&pipeline(tokens, dot, root)?)),
            Part::If { condition, body, otherwise } => {
                let chosen = if truth(&pipeline(condition, dot, root)?) { body } else { otherwise };
                render(chosen, dot, root, output)?;
            }
            Part::Range { over, body, otherwise } => {
                let items: Vec<Value> = match pipeline(over, dot, root)? {
                    Value::Array(items) => items,
                    Value::Object(fields) => fields.into_iter().map(|(_, value)| value).collect(),
                    Value::Null => Vec::new(),
                    other => return Err(format!("template: range can't iterate over {}", show(&other))),
                };
                if items.is_empty() {
                    render(otherwise, dot, root, output)?;
                }
                for item in &items {
                    render(body, item, root, output)?;
                }
            }
        }
    }
    Ok(())
}

fn field(value: &Value, path: &[String]) -> Result<Value, String> {
    let mut value = value;
    for name in path {
        value = match value {
            Value::Object(fields) => fields.get(name).ok_or_else(|| {
                format!(
                    "template: :1:2: executing \"\" at <.{}>: map has no entry for key \"{name}\"",
                    path.join(".")
                )
            })?,
            Value::Null => return Err(format!("template: nil pointer evaluating .{name}")),
            _ => return Err(format!("template: can't evaluate field {name}")),
        };
    }
    Ok(value.clone())
}

fn pipeline(tokens: &[Token], dot: &Value, root: &Value) -> Result<Value, String> {
    let mut carried = None;
    let mut depth = 0_usize;
    let mut begin = 0;
    for (index, token) in tokens.iter().chain([&Token::Pipe]).enumerate() {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            Token::Pipe if depth == 0 => {
                let command = tokens.get(begin..index).unwrap_or_default();
                carried = Some(evaluate(command, carried.take(), dot, root)?);
                begin = index + 1;
            }
            _ => {}
        }
    }
    carried.ok_or_else(|| "template: missing value for command".to_owned())
}

fn evaluate(command: &[Token], carried: Option<Value>, dot: &Value, root: &Value) -> Result<Value, String> {
    let mut function = None;
    let mut operands = Vec::new();
    let mut index = 0;
    while let Some(token) = command.get(index) {
        index += 1;
        match token {
            Token::Field(path) => operands.push(field(dot, path)?),
            Token::Root(path) => operands.push(field(root, path)?),
            Token::Constant(value) => operands.push(value.clone()),
            Token::Word(name) if function.is_none() && operands.is_empty() => function = Some(name.as_str()),
            Token::Open => {
                let rest = command.get(index..).unwrap_or_default();
                let mut depth = 1;
                let close = rest.iter().position(|token| {
                    match token {
                        Token::Open => depth += 1,
                        Token::Close => depth -= 1,
                        _ => {}
                    }
                    depth == 0
                });
                let close = close.ok_or("template parsing error: unclosed left paren")?;
                operands.push(pipeline(rest.get(..close).unwrap_or_default(), dot, root)?);
                index += close + 1;
            }
            other => return Err(format!("template parsing error: unexpected {other:?}")),
        }
    }
    operands.extend(carried);
    match function {
        Some(name) => call(name, &operands),
        None => operands.into_iter().next().ok_or_else(|| "template: missing value for command".to_owned()),
    }
}

fn call(name: &str, operands: &[Value]) -> Result<Value, String> {
    let first = operands.first().ok_or_else(|| format!("template: wrong number of args for {name}"))?;
    let rest = operands.get(1..).unwrap_or_default();
    Ok(match name {
        "json" => Value::from(first.to_string()),
        "eq" => Value::Bool(rest.iter().any(|other| other == first)),
        "ne" => Value::Bool(rest.iter().all(|other| other != first)),
        "not" => Value::Bool(!truth(first)),
        "and" => operands.iter().find(|value| !truth(value)).or(operands.last()).cloned().unwrap_or_default(),
        "or" => operands.iter().find(|value| truth(value)).or(operands.last()).cloned().unwrap_or_default(),
        "len" => Value::from(match first {
            Value::Array(items) => items.len(),
            Value::Object(fields) => fields.len(),
            other => show(other).len(),
        }),
        "index" => rest.iter().fold(first.clone(), |value, key| match (&value, key) {
            (Value::Object(fields), Value::String(key)) => {
                fields.get(key).cloned().unwrap_or_else(|| Value::from(""))
            }
            (Value::Array(items), key) => {
                let index = key.as_u64().and_then(|index| usize::try_from(index).ok());
                index.and_then(|index| items.get(index)).cloned().unwrap_or_default()
            }
            _ => Value::Null,
        }),
        "join" => {
            let separator = rest.first().map(show).unwrap_or_default();
            let items = first.as_array().map(Vec::as_slice).unwrap_or_default();
            Value::from(items.iter().map(show).collect::<Vec<_>>().join(&separator))
        }
        "split" => {
            let separator = rest.first().map(show).unwrap_or_default();
            Value::from(show(first).split(separator.as_str()).map(Value::from).collect::<Vec<_>>())
        }
        "lower" => Value::from(show(first).to_lowercase()),
        "upper" => Value::from(show(first).to_uppercase()),
        "println" => Value::from(operands.iter().map(show).collect::<Vec<_>>().join(" ") + "\n"),
        other => {
            return Err(format!("template parsing error: template: :1: function \"{other}\" not defined"));
        }
    })
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Returns a value as Go prints it.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name}:{}", show(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}
