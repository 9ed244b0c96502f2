//! Expressions over what is known of a node.

use crate::locality::Locality;
use std::collections::BTreeMap;
use std::fmt;

/// A kind of nodes: `dc=eu-1 & (disk=ssd | fast) & !cordoned`.
///
/// A name is a tier of the locality or a label; where both have it, the tier
/// counts. `!` binds closest, then `&`, then `|`. `any` and `none` are all
/// nodes and no node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expr {
    /// `any`: every node.
    Any,
    /// `none`: no node.
    None,
    /// `name`: the tier or label is given, with whichever value.
    Has(String),
    /// `name=value`.
    Is(String, String),
    /// `!…`; `name!=value` is short for `!name=value`.
    Not(Box<Expr>),
    /// `… & …`: two or more.
    And(Vec<Expr>),
    /// `… | …`: two or more.
    Or(Vec<Expr>),
}

impl Expr {
    /// Whether a node of this place and with these labels is of this kind.
    #[must_use]
    pub fn matches(&self, locality: &Locality, labels: &BTreeMap<String, String>) -> bool {
        let value = |name: &String| {
            let label = labels.get(name).map(String::as_str);
            locality.get(name).or(label)
        };
        match self {
            Expr::Any => true,
            Expr::None => false,
            Expr::Has(name) => value(name).is_some(),
            Expr::Is(name, wanted) => value(name) == Some(wanted),
            Expr::Not(inner) => !inner.matches(locality, labels),
            Expr::And(all) => all.iter().all(|e| e.matches(locality, labels)),
            Expr::Or(some) => some.iter().any(|e| e.matches(locality, labels)),
        }
    }

    /// The tiers and labels it names.
    pub(crate) fn names(&self) -> Vec<&str> {
        match self {
            Expr::Any | Expr::None => Vec::new(),
            Expr::Has(name) | Expr::Is(name, _) => vec![name],
            Expr::Not(inner) => inner.names(),
            Expr::And(parts) | Expr::Or(parts) => parts.iter().flat_map(Expr::names).collect(),
        }
    }

    /// Writes it as an operand: in parentheses where it would be read otherwise.
    fn operand(&self, f: &mut fmt::Formatter<'_>, of_and: bool) -> fmt::Result {
        match self {
            Expr::Or(_) => write!(f, "({self})"),
            Expr::And(_) if of_and => write!(f, "({self})"),
            _ => write!(f, "{self}"),
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Expr], by: &str, of_and: bool| {
            for (n, part) in parts.iter().enumerate() {
                if n > 0 {
                    f.write_str(by)?;
                }
                part.operand(f, of_and)?;
            }
            Ok(())
        };
        match self {
            Expr::Any => f.write_str("any"),
            Expr::None => f.write_str("none"),
            Expr::Has(name) => f.write_str(name),
            Expr::Is(name, value) => write!(f, "{name}={value}"),
            Expr::Not(inner) => match &**inner {
                Expr::Is(name, value) => write!(f, "{name}!={value}"),
                inner => {
                    f.write_str("!")?;
                    inner.operand(f, true)
                }
            },
            Expr::And(parts) => joined(f, parts, " & ", true),
            Expr::Or(parts) => joined(f, parts, " | ", false),
        }
    }
}
