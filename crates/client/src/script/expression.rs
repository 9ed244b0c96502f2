//! What stands in `${…}`: parsing and evaluating.

use super::ScriptError;
use super::lexer::Cursor;
use super::syntax::{Expression, Operator, Part, Text};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Nesting of one expression, at most.
const MAX_DEPTH: u32 = 64;
/// Bytes of one value that a script puts together, at most; nodes take less.
const MAX_TEXT_BYTES: usize = 16 << 20;

/// Variables; none = read, but not found.
pub(super) type Variables = BTreeMap<String, Option<Bytes>>;

/// Parse from `${` through `}`.
pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Expression, ScriptError> {
    let start = cursor.column();
    cursor.take();
    cursor.take();
    let expression = sum(cursor, 0)?;
    cursor.skip_spaces();
    let at = cursor.column();
    match cursor.take() {
        Some('}') => Ok(expression),
        None => Err(cursor.error(start, "this ${ is not closed by } on its line")),
        Some(c) => Err(cursor.error(at, format!("expected an operator or }}, found {c:?}"))),
    }
}

fn sum(cursor: &mut Cursor<'_>, depth: u32) -> Result<Expression, ScriptError> {
    let mut left = product(cursor, depth)?;
    loop {
        cursor.skip_spaces();
        let operator = match cursor.peek() {
            Some('+') => Operator::Add,
            Some('-') => Operator::Subtract,
            _ => return Ok(left),
        };
        cursor.take();
        let right = product(cursor, depth)?;
        left = binary(cursor, left, operator, right)?;
    }
}

fn product(cursor: &mut Cursor<'_>, depth: u32) -> Result<Expression, ScriptError> {
    let mut left = unary(cursor, depth)?;
    loop {
        cursor.skip_spaces();
        let operator = match cursor.peek() {
            Some('*') => Operator::Multiply,
            Some('/') => Operator::Divide,
            Some('%') => Operator::Remainder,
            _ => return Ok(left),
        };
        cursor.take();
        let right = unary(cursor, depth)?;
        left = binary(cursor, left, operator, right)?;
    }
}

/// Trees are walked recursively: their height is bounded here.
fn binary(
    cursor: &Cursor<'_>,
    left: Expression,
    operator: Operator,
    right: Expression,
) -> Result<Expression, ScriptError> {
    if height(&left).max(height(&right)) >= MAX_DEPTH {
        return Err(too_deep(cursor));
    }
    Ok(Expression::Binary(
        Box::new(left),
        operator,
        Box::new(right),
    ))
}

fn height(expression: &Expression) -> u32 {
    match expression {
        Expression::Integer(_) | Expression::Variable(_) => 1,
        Expression::Negate(inner) => 1 + height(inner),
        Expression::Binary(left, _, right) => 1 + height(left).max(height(right)),
    }
}

fn too_deep(cursor: &Cursor<'_>) -> ScriptError {
    let message = format!("an expression nests at most {MAX_DEPTH} deep: use a variable");
    cursor.error(cursor.column(), message)
}

fn unary(cursor: &mut Cursor<'_>, depth: u32) -> Result<Expression, ScriptError> {
    if depth >= MAX_DEPTH {
        return Err(too_deep(cursor));
    }
    cursor.skip_spaces();
    let at = cursor.column();
    match cursor.peek() {
        Some('-') => {
            cursor.take();
            // Here, because the smallest integer has no positive twin.
            if cursor.peek().is_some_and(|c| c.is_ascii_digit()) {
                return integer(cursor, at, "-");
            }
            Ok(Expression::Negate(Box::new(unary(cursor, depth + 1)?)))
        }
        Some('(') => {
            cursor.take();
            let inner = sum(cursor, depth + 1)?;
            cursor.skip_spaces();
            if cursor.take_if(')') {
                return Ok(inner);
            }
            Err(cursor.error(at, "this parenthesis is not closed"))
        }
        Some(c) if c.is_ascii_digit() => integer(cursor, at, ""),
        Some(c) if c.is_ascii_alphabetic() || c == '_' => {
            let mut name = String::new();
            while let Some(c) = cursor.peek().filter(|&c| is_name(c)) {
                name.push(c);
                cursor.take();
            }
            Ok(Expression::Variable(name))
        }
        _ => Err(cursor.error(at, "expected a variable, an integer or ( in ${…}")),
    }
}

/// Whether a character may be part of a variable's name.
pub(super) const fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn integer(cursor: &mut Cursor<'_>, at: u32, sign: &str) -> Result<Expression, ScriptError> {
    let mut digits = sign.to_owned();
    while let Some(c) = cursor.peek().filter(|&c| is_name(c)) {
        digits.push(c);
        cursor.take();
    }
    let value = digits.parse().map_err(|_| {
        let message = format!("{digits} is not an integer of 64 bits");
        cursor.error(at, message)
    })?;
    Ok(Expression::Integer(value))
}

/// The bytes of a text, or what is wrong.
pub(super) fn evaluate(text: &Text, variables: &Variables) -> Result<Bytes, String> {
    if let [Part::Expression(Expression::Variable(name))] = &text.parts[..] {
        return variable(name, variables).cloned();
    }
    let mut bytes = Vec::new();
    for part in &text.parts {
        match part {
            Part::Literal(literal) => bytes.extend_from_slice(literal),
            Part::Expression(Expression::Variable(name)) => {
                bytes.extend_from_slice(variable(name, variables)?);
            }
            Part::Expression(expression) => {
                bytes.extend_from_slice(number(expression, variables)?.to_string().as_bytes());
            }
        }
        if bytes.len() > MAX_TEXT_BYTES {
            return Err(format!("a byte string has at most {MAX_TEXT_BYTES} bytes"));
        }
    }
    Ok(bytes.into())
}

fn variable<'v>(name: &str, variables: &'v Variables) -> Result<&'v Bytes, String> {
    let value = variables.get(name).and_then(Option::as_ref);
    value.ok_or_else(|| {
        format!("{name} has no value: its key was not found; give the get a default")
    })
}

/// Bytes as an integer, if they are one.
pub(super) fn as_integer(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn number(expression: &Expression, variables: &Variables) -> Result<i64, String> {
    match expression {
        Expression::Integer(value) => Ok(*value),
        Expression::Variable(name) => {
            let value = variable(name, variables)?;
            as_integer(value).ok_or_else(|| {
                let shown = super::show_bytes(value);
                format!("{name} is not an integer: its value is {shown}")
            })
        }
        Expression::Negate(inner) => {
            let value = number(inner, variables)?;
            value
                .checked_neg()
                .ok_or_else(|| format!("-({value}) does not fit in 64 bits"))
        }
        Expression::Binary(left, operator, right) => {
            let (left, right) = (number(left, variables)?, number(right, variables)?);
            let (sign, result) = match operator {
                Operator::Add => ('+', left.checked_add(right)),
                Operator::Subtract => ('-', left.checked_sub(right)),
                Operator::Multiply => ('*', left.checked_mul(right)),
                Operator::Divide => ('/', left.checked_div(right)),
                Operator::Remainder => ('%', left.checked_rem(right)),
            };
            result.ok_or_else(|| match right {
                0 => format!("{left} {sign} 0: division by zero"),
                _ => format!("{left} {sign} {right} does not fit in 64 bits"),
            })
        }
    }
}
