//! From a policy's text to a policy.

use super::error::{PolicyError, PolicyErrorKind};
use super::lexer::{At, Token, tokens};
use super::{
    Expr, MAX_ITEMS, MAX_LEARNERS, MAX_POLICY_BYTES, MAX_VOTERS, Policy, SETTINGS, Sharding,
};
use crate::nearest::nearest;
use std::str::FromStr;

/// Expressions within expressions, at most.
const MAX_DEPTH: usize = 16;

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Policy, PolicyError> {
        if text.len() > MAX_POLICY_BYTES {
            let (line, column) = (1, 1);
            let length = text.len();
            let kind = PolicyErrorKind::TooLong { length };
            return Err(PolicyError { line, column, kind });
        }
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens, next: 0 };
        parser.policy()
    }
}

impl FromStr for Expr {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Expr, PolicyError> {
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens, next: 0 };
        let expr = parser.expr(0)?;
        match parser.peek() {
            Token::End => Ok(expr),
            _ => Err(parser.expected("`&`, `|` or the end")),
        }
    }
}

struct Parser<'a> {
    /// Ends with [`Token::End`].
    tokens: Vec<(At, Token<'a>)>,
    next: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens[self.next].1
    }

    fn advance(&mut self) {
        if self.next + 1 < self.tokens.len() {
            self.next += 1;
        }
    }

    /// Takes this sign if it comes next.
    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(next) if next == sign);
        if found {
            self.advance();
        }
        found
    }

    fn error(&self, at: usize, kind: PolicyErrorKind) -> PolicyError {
        let (line, column) = self.tokens[at].0;
        PolicyError { line, column, kind }
    }

    fn expected(&self, what: &'static str) -> PolicyError {
        let found = self.peek().to_string();
        self.error(self.next, PolicyErrorKind::Expected { what, found })
    }

    fn word(&mut self, what: &'static str) -> Result<&'a str, PolicyError> {
        match self.peek() {
            Token::Word(word) => {
                self.advance();
                Ok(word)
            }
            _ => Err(self.expected(what)),
        }
    }

    fn policy(&mut self) -> Result<Policy, PolicyError> {
        let mut policy = Policy::default();
        while self.peek() != Token::End {
            let at = self.next;
            let word = self.word("a setting")?;
            let Some(setting) = SETTINGS.iter().find(|name| **name == word) else {
                let nearest = nearest(word, SETTINGS);
                let word = word.to_owned();
                return Err(self.error(at, PolicyErrorKind::UnknownSetting { word, nearest }));
            };
            if !self.take("=") {
                return Err(self.expected("`=`"));
            }
            if self.setting(&mut policy, setting)? {
                let what = word.to_owned();
                return Err(self.error(at, PolicyErrorKind::Repeated { what }));
            }
            if !self.take(",") && self.peek() != Token::End {
                return Err(self.expected("`,` and the next setting, or the end"));
            }
        }
        Ok(policy)
    }

    /// Reads one setting's value; returns whether the setting had one already.
    fn setting(&mut self, policy: &mut Policy, setting: &str) -> Result<bool, PolicyError> {
        Ok(match setting {
            "voters" => policy.voters.replace(self.number(1, MAX_VOTERS)?).is_some(),
            "witnesses" => {
                let witnesses = self.number(0, MAX_VOTERS)?;
                policy.witnesses.replace(witnesses).is_some()
            }
            "learners" => {
                let learners = self.list("{", "}", |parser| {
                    let expr = parser.expr(0)?;
                    if !parser.take(":") {
                        return Err(parser.expected("`:` and how many learners"));
                    }
                    Ok((expr, parser.number(1, MAX_LEARNERS)?))
                })?;
                policy.learners.replace(learners).is_some()
            }
            "spread" => {
                let tiers = self.list("[", "]", |parser| {
                    parser.word("a tier, such as `dc`").map(str::to_owned)
                })?;
                policy.spread.replace(tiers).is_some()
            }
            "require" => policy.require.replace(self.expr(0)?).is_some(),
            "forbid" => policy.forbid.replace(self.expr(0)?).is_some(),
            "leaders" => {
                let leaders = self.list("[", "]", |parser| parser.expr(0))?;
                policy.leaders.replace(leaders).is_some()
            }
            "sharding" => {
                let sharding = self.sharding()?;
                policy.sharding.replace(sharding).is_some()
            }
            _ => {
                let tier = self.word("a tier, such as `dc`, or `none`")?;
                policy.survive.replace(tier.to_owned()).is_some()
            }
        })
    }

    fn sharding(&mut self) -> Result<Sharding, PolicyError> {
        const WHAT: &str = "`plain`, or `hash(64)`";
        match self.peek() {
            Token::Word("plain") => {
                self.advance();
                return Ok(Sharding::Plain);
            }
            Token::Word("hash") => self.advance(),
            _ => return Err(self.expected(WHAT)),
        }
        if !self.take("(") {
            return Err(self.expected(WHAT));
        }
        // Which numbers do is known where keys are stored.
        let slots = self.number(1, usize::from(u16::MAX))?;
        if !self.take(")") {
            return Err(self.expected("`)`"));
        }
        Ok(Sharding::Hash(u16::try_from(slots).unwrap_or_default()))
    }

    fn number(&mut self, least: usize, most: usize) -> Result<usize, PolicyError> {
        let at = self.next;
        let parsed = match self.peek() {
            Token::Word(word) => word.parse().ok(),
            _ => None,
        };
        match parsed.filter(|n| (least..=most).contains(n)) {
            Some(number) => {
                self.advance();
                Ok(number)
            }
            None => {
                let found = self.peek().to_string();
                Err(self.error(at, PolicyErrorKind::Number { found, least, most }))
            }
        }
    }

    /// Items between brackets, separated by commas, none of them twice.
    fn list<T: PartialEq>(
        &mut self,
        open: &'static str,
        close: &'static str,
        item: impl Fn(&mut Self) -> Result<T, PolicyError>,
    ) -> Result<Vec<T>, PolicyError> {
        if !self.take(open) {
            let bracket = if open == "[" { "`[`" } else { "`{`" };
            return Err(self.expected(bracket));
        }
        let mut items = Vec::new();
        loop {
            if self.take(close) {
                return Ok(items);
            }
            let at = self.next;
            let next = item(self)?;
            if items.contains(&next) {
                let what = self.tokens[at].1.to_string();
                let what = what.trim_matches('`').to_owned();
                return Err(self.error(at, PolicyErrorKind::Repeated { what }));
            }
            items.push(next);
            if items.len() > MAX_ITEMS {
                return Err(self.error(at, PolicyErrorKind::TooMany { most: MAX_ITEMS }));
            }
            if self.take(",") {
                continue;
            }
            if !self.take(close) {
                let what = if close == "]" {
                    "`,` or `]`"
                } else {
                    "`,` or `}`"
                };
                return Err(self.expected(what));
            }
            return Ok(items);
        }
    }

    fn expr(&mut self, depth: usize) -> Result<Expr, PolicyError> {
        self.operands("|", Expr::Or, |parser| {
            parser.operands("&", Expr::And, |parser| parser.unary(depth))
        })
    }

    /// One operand or several, joined by `sign`.
    fn operands(
        &mut self,
        sign: &str,
        join: fn(Vec<Expr>) -> Expr,
        operand: impl Fn(&mut Self) -> Result<Expr, PolicyError>,
    ) -> Result<Expr, PolicyError> {
        let first = operand(self)?;
        let mut parts = vec![first];
        while self.take(sign) {
            parts.push(operand(self)?);
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => join(parts),
        })
    }

    fn unary(&mut self, depth: usize) -> Result<Expr, PolicyError> {
        if depth >= MAX_DEPTH {
            return Err(self.error(self.next, PolicyErrorKind::TooDeep { most: MAX_DEPTH }));
        }
        if self.take("!") {
            return Ok(Expr::Not(Box::new(self.unary(depth + 1)?)));
        }
        if self.take("(") {
            let inner = self.expr(depth + 1)?;
            if !self.take(")") {
                return Err(self.expected("`)`"));
            }
            return Ok(inner);
        }
        let name = self.word("a tier or label, such as `dc=eu-1`")?.to_owned();
        if self.take("=") {
            let value = self.word("a value")?.to_owned();
            return Ok(Expr::Is(name, value));
        }
        if self.take("!=") {
            let value = self.word("a value")?.to_owned();
            return Ok(Expr::Not(Box::new(Expr::Is(name, value))));
        }
        Ok(match name.as_str() {
            "any" => Expr::Any,
            "none" => Expr::None,
            _ => Expr::Has(name),
        })
    }
}
