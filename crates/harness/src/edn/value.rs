//! Values of EDN, and of JSON.

/// A value. Tags are dropped by the reader; of numbers only integers matter here.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Nil,
    Bool(bool),
    Int(i128),
    /// Any number that is no integer.
    Real,
    Char(char),
    Text(String),
    /// Without its colon.
    Keyword(String),
    Symbol(String),
    /// A vector or a list.
    Sequence(Vec<Value>),
    Set(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// What a keyword, or in JSON a string, is called.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Value::Keyword(name) | Value::Text(name) => Some(name),
            _ => None,
        }
    }

    /// What it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Nil => "nothing",
            Value::Bool(_) => "a truth value",
            Value::Int(_) => "an integer",
            Value::Real => "a number that is no integer",
            Value::Char(_) => "a character",
            Value::Text(_) => "a string",
            Value::Keyword(_) => "a keyword",
            Value::Symbol(_) => "a symbol",
            Value::Sequence(_) => "a sequence",
            Value::Set(_) => "a set",
            Value::Map(_) => "a map",
        }
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::Nil,
            serde_json::Value::Bool(truth) => Value::Bool(truth),
            serde_json::Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Value::Int(i128::from(number)),
                (_, Some(number)) => Value::Int(i128::from(number)),
                _ => Value::Real,
            },
            serde_json::Value::String(text) => Value::Text(text),
            serde_json::Value::Array(all) => {
                Value::Sequence(all.into_iter().map(Value::from).collect())
            }
            serde_json::Value::Object(all) => Value::Map(
                all.into_iter()
                    .map(|(key, value)| (Value::Text(key), Value::from(value)))
                    .collect(),
            ),
        }
    }
}
