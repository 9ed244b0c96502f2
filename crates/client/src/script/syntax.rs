//! What a script consists of.

/// A script that was read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    pub(super) statements: Vec<Statement>,
}

/// A statement and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) op: Op,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Begin {
        read_only: bool,
    },
    /// `get`, and `let … = get`.
    Get {
        variable: Option<String>,
        key: Text,
        for_update: bool,
        default: Option<Text>,
    },
    Put {
        key: Text,
        value: Text,
    },
    Delete {
        key: Text,
    },
    Scan {
        from: Text,
        /// None: `from` is a prefix.
        to: Option<Text>,
        limit: Option<Text>,
        reverse: bool,
    },
    Require {
        left: Text,
        comparison: Comparison,
        right: Text,
    },
    Savepoint {
        name: String,
    },
    Rollback {
        to: Option<String>,
    },
    Commit,
}

impl Op {
    /// Its keyword.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Op::Begin { .. } => "begin",
            Op::Get { .. } => "get",
            Op::Put { .. } => "put",
            Op::Delete { .. } => "delete",
            Op::Scan { .. } => "scan",
            Op::Require { .. } => "require",
            Op::Savepoint { .. } => "savepoint",
            Op::Rollback { .. } => "rollback",
            Op::Commit => "commit",
        }
    }

    /// All its byte strings.
    pub(super) fn texts(&self) -> Vec<&Text> {
        match self {
            Op::Get { key, default, .. } => std::iter::once(key).chain(default).collect(),
            Op::Put { key, value } => vec![key, value],
            Op::Delete { key } => vec![key],
            Op::Scan {
                from, to, limit, ..
            } => std::iter::once(from).chain(to).chain(limit).collect(),
            Op::Require { left, right, .. } => vec![left, right],
            Op::Begin { .. } | Op::Savepoint { .. } | Op::Rollback { .. } | Op::Commit => vec![],
        }
    }
}

/// A byte string with substitutions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) column: u32,
    pub(super) parts: Vec<Part>,
}

impl Text {
    /// Its bytes, if nothing is substituted.
    pub(super) fn literal(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => bytes.extend_from_slice(literal),
                Part::Expression(_) => return None,
            }
        }
        Some(bytes)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Literal(Vec<u8>),
    Expression(Expression),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    Integer(i64),
    Variable(String),
    Negate(Box<Expression>),
    Binary(Box<Expression>, Operator, Box<Expression>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(super) const ALL: [(&'static str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<", Comparison::Less),
        ("<=", Comparison::LessOrEqual),
        (">", Comparison::Greater),
        (">=", Comparison::GreaterOrEqual),
    ];

    pub(super) fn sign(self) -> &'static str {
        let found = Comparison::ALL.iter().find(|(_, c)| *c == self);
        found.map_or("", |(sign, _)| sign)
    }
}
