//! Histories as JSON: events of the same shape as in EDN, one per line or all in
//! one array; or whole transactions, one per line, as `History::write_json` writes.

use super::import::Import;
use super::value::Value;
use super::{AnyHistory, HistoryError};
use crate::history::{History, ListOp, RwOp, Transaction};
use serde::de::DeserializeOwned;

type Result<T> = std::result::Result<T, HistoryError>;

/// Whether the text looks like JSON: its first map has a string for a key.
pub(super) fn is_json(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let text = text.strip_prefix('[').unwrap_or(text).trim_start();
    let inside = text.strip_prefix('{').map(str::trim_start);
    inside.is_some_and(|t| t.starts_with('"'))
}

fn syntax(first_line: usize, error: &serde_json::Error) -> HistoryError {
    let text = error.to_string();
    // The place is told apart, for the whole text instead of the line.
    let what = text
        .rfind(" at line ")
        .map_or(&text[..], |end| &text[..end]);
    HistoryError::Syntax {
        line: first_line + error.line().saturating_sub(1),
        column: error.column(),
        problem: what.to_owned(),
    }
}

pub(super) fn read(text: &str) -> Result<AnyHistory> {
    let text = text.trim_start_matches('\u{feff}');
    let mut import = Import::default();
    if text.trim_start().starts_with('[') {
        let events: Vec<serde_json::Value> =
            serde_json::from_str(text).map_err(|e| syntax(1, &e))?;
        for (index, event) in events.into_iter().enumerate() {
            // The parser tells no lines of values; one event per line is usual.
            import.event(index + 1, event.into())?;
        }
        return import.finish();
    }
    let mut lines = lines(text).peekable();
    if let Some((number, first)) = lines.peek() {
        let first: serde_json::Value =
            serde_json::from_str(first).map_err(|e| syntax(*number, &e))?;
        if first.get("ops").is_some() {
            return transactions(text);
        }
    }
    for (number, line) in lines {
        let event: serde_json::Value =
            serde_json::from_str(line).map_err(|e| syntax(number, &e))?;
        import.event(number, Value::from(event))?;
    }
    import.finish()
}

/// Lines that hold anything, by number.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let all = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    all.filter(|(_, line)| !line.trim().is_empty())
}

/// Whole transactions; on lists unless one of them can only be on registers.
fn transactions(text: &str) -> Result<AnyHistory> {
    let as_lists = transactions_of::<ListOp>(text);
    Ok(match as_lists {
        Ok(history) => AnyHistory::Lists(history),
        Err(error) => match transactions_of::<RwOp>(text) {
            Ok(history) => AnyHistory::Registers(history),
            Err(_) => return Err(error),
        },
    })
}

fn transactions_of<Op: DeserializeOwned>(text: &str) -> Result<History<Op>> {
    let read = |(number, line): (usize, &str)| -> Result<Transaction<Op>> {
        serde_json::from_str(line).map_err(|e| syntax(number, &e))
    };
    let transactions = lines(text).map(read).collect::<Result<_>>()?;
    Ok(History { transactions })
}
