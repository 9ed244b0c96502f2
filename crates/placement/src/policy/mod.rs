//! What is wanted of the shards of a directory.
//!
//! A policy is a list of settings, separated by commas; line breaks count as
//! spaces, and `#` begins a comment that ends with its line:
//!
//! ```text
//! voters = 5, witnesses = 1, learners = {dc=eu-west: 1},
//! spread = [region, dc, rack],
//! require = disk=ssd & !cordoned, forbid = region=us | tier=cold,
//! leaders = [dc=eu-central, region=eu], survive = dc
//! ```
//!
//! | setting | meaning | without it |
//! |---|---|---|
//! | `voters` | replicas that vote, witnesses among them; odd | 3 |
//! | `witnesses` | how many of these store only the log | 0 |
//! | `learners` | replicas that never vote: how many on which nodes | none |
//! | `spread` | tiers over which replicas are spread, widest first | all tiers |
//! | `require` | only nodes for which this holds | every node |
//! | `forbid` | no node for which this holds | no node |
//! | `leaders` | on which nodes leaders are preferred, best first | anywhere |
//! | `survive` | the tier of which no single place may take the quorum with it | no claim |
//! | `sharding` | how this directory's keys are stored: `plain`, or `hash(64)` over so many slots | as they are stored now |
//!
//! What a policy leaves out it takes from the directory around it, then from
//! the cluster's default, then from the last column. `[]`, `{}`, `any` and
//! `none` take back what is inherited: `leaders = []`, `require = any`, `survive = none`.

mod error;
mod expr;
mod lexer;
mod parse;
mod rules;

pub use error::{PolicyError, PolicyErrorKind};
pub use expr::Expr;
pub use rules::{Policies, Rules, RulesError};

use std::fmt;

/// Voters of a shard, at most, witnesses included.
pub const MAX_VOTERS: usize = 15;

/// Learners that one selector of `learners` may ask for, at most.
pub const MAX_LEARNERS: usize = 15;

/// Items in one list of a policy, at most.
pub const MAX_ITEMS: usize = 16;

/// Bytes of a policy's text, at most.
pub const MAX_POLICY_BYTES: usize = 4_096;

/// The settings by name.
pub(crate) const SETTINGS: [&str; 9] = [
    "voters",
    "witnesses",
    "learners",
    "spread",
    "require",
    "forbid",
    "leaders",
    "survive",
    "sharding",
];

/// What one directory, or the cluster's default, sets. Made by parsing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Replicas that vote, witnesses included.
    pub voters: Option<usize>,
    /// Those of the voters that store only the log.
    pub witnesses: Option<usize>,
    /// How many replicas that never vote, on nodes of which kind.
    pub learners: Option<Vec<(Expr, usize)>>,
    /// Tiers over which replicas are spread, widest first.
    pub spread: Option<Vec<String>>,
    /// Replicas lie only on nodes of this kind.
    pub require: Option<Expr>,
    /// Replicas lie on no node of this kind.
    pub forbid: Option<Expr>,
    /// Kinds of nodes that should lead, best first.
    pub leaders: Option<Vec<Expr>>,
    /// The tier of which the loss of any one place leaves a quorum; `none` claims nothing.
    pub survive: Option<String>,
    /// How keys are stored. It says nothing about replicas, and is not handed on to directories within.
    pub sharding: Option<Sharding>,
}

/// How the keys of a directory are stored (decision 22).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharding {
    /// As they are, in their order.
    Plain,
    /// Spread over so many slots by a hash.
    Hash(u16),
}

impl fmt::Display for Sharding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sharding::Plain => f.write_str("plain"),
            Sharding::Hash(slots) => write!(f, "hash({slots})"),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |items: Vec<String>| items.join(", ");
        let texts = |items: &[Expr]| list(items.iter().map(Expr::to_string).collect());
        let counted = |(expr, count): &(Expr, usize)| format!("{expr}: {count}");
        let settings = [
            self.voters.map(|n| format!("voters = {n}")),
            self.witnesses.map(|n| format!("witnesses = {n}")),
            self.learners.as_ref().map(|items| {
                let items = items.iter().map(counted).collect();
                format!("learners = {{{}}}", list(items))
            }),
            self.spread
                .as_ref()
                .map(|tiers| format!("spread = [{}]", list(tiers.clone()))),
            self.require.as_ref().map(|e| format!("require = {e}")),
            self.forbid.as_ref().map(|e| format!("forbid = {e}")),
            self.leaders
                .as_ref()
                .map(|items| format!("leaders = [{}]", texts(items))),
            self.survive
                .as_ref()
                .map(|tier| format!("survive = {tier}")),
            self.sharding
                .map(|sharding| format!("sharding = {sharding}")),
        ];
        let given: Vec<String> = settings.into_iter().flatten().collect();
        f.write_str(&given.join(", "))
    }
}
