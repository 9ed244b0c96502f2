//! Named bounds: what a test explores, what takes minutes, and which of them
//! catches which breach of a rule.

use super::commit::{self, Commit, Older};
use super::consensus::{self, Consensus};
use super::{Limits, Report, explore};
use std::fmt::Write;

/// One model with its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// The consensus core.
    Consensus(consensus::Budget),
    /// The commit protocol.
    Commit(Commit),
}

const CONSENSUS: [&str; 11] = [
    "campaigns",
    "proposals",
    "crashes",
    "timers",
    "repeats",
    "times",
    "renews",
    "candidates",
    "slow-disks",
    "parts",
    "stale",
];

const COMMIT: [&str; 10] = [
    "older",
    "changes",
    "repeats",
    "timers",
    "deadlines",
    "questions",
    "asks",
    "forgets",
    "ahead",
    "heal-every",
];

impl Case {
    /// The model of this name with nothing allowed to happen yet.
    #[must_use]
    pub fn empty(which: &str) -> Option<Case> {
        match which {
            "consensus" => Some(Case::Consensus(consensus::Budget {
                candidates: 3,
                ..consensus::Budget::default()
            })),
            "commit" => Some(Case::Commit(Commit {
                budget: commit::Budget::default(),
                older: Older::None,
                ahead: 0,
                heal_every: 7,
            })),
            _ => None,
        }
    }

    /// A case from words, `commit older=one-shard changes=1`; none if they are wrong.
    #[must_use]
    pub fn parse(words: &str) -> Option<Case> {
        let mut words = words.split_whitespace();
        let mut case = Case::empty(words.next()?)?;
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, "1"));
            case.set(name, value).ok()?;
        }
        Some(case)
    }

    /// What can be set.
    #[must_use]
    pub fn names(&self) -> &'static [&'static str] {
        match self {
            Case::Consensus(_) => &CONSENSUS,
            Case::Commit(_) => &COMMIT,
        }
    }

    /// Whether `name` is on or off.
    #[must_use]
    pub fn is_switch(&self, name: &str) -> bool {
        matches!(name, "slow-disks" | "parts" | "stale")
    }

    /// Sets one bound.
    ///
    /// # Errors
    /// An unknown name, or a value that does not fit it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        if let (Case::Commit(case), "older") = (&mut *self, name) {
            case.older = Older::parse(value).ok_or_else(|| {
                format!("--older {value}: none, one-shard, over-read or two-shards")
            })?;
            return Ok(());
        }
        let number: u8 = value
            .parse()
            .map_err(|_| format!("--{name} takes a number up to 255, not {value}"))?;
        match self {
            Case::Consensus(budget) => set_consensus(budget, name, number),
            Case::Commit(case) => set_commit(case, name, number),
        }
    }

    fn get(&self, name: &str) -> u8 {
        match self {
            Case::Consensus(b) => match name {
                "campaigns" => b.campaigns,
                "proposals" => b.proposals,
                "crashes" => b.crashes,
                "timers" => b.timers,
                "repeats" => b.repeats,
                "times" => b.times,
                "renews" => b.renews,
                "slow-disks" => u8::from(b.slow_disks),
                "parts" => u8::from(b.parts),
                "candidates" => b.candidates,
                _ => u8::from(b.stale),
            },
            Case::Commit(c) => match name {
                "changes" => c.budget.changes,
                "repeats" => c.budget.repeats,
                "timers" => c.budget.timers,
                "deadlines" => c.budget.deadlines,
                "questions" => c.budget.questions,
                "asks" => c.budget.asks,
                "forgets" => c.budget.forgets,
                "heal-every" => c.heal_every,
                "ahead" => c.ahead as u8 + 1,
                _ => 0,
            },
        }
    }

    /// The bounds in words, as [`Case::parse`] reads them.
    #[must_use]
    pub fn label(&self) -> String {
        let mut text = match self {
            Case::Consensus(_) => "consensus".to_owned(),
            Case::Commit(case) => format!("commit older={}", case.older.name()),
        };
        for name in self.names() {
            let (value, usual) = (self.get(name), self.usual(name));
            if value != usual {
                // Writing into a string cannot fail.
                let _written = write!(text, " {name}={value}");
            }
        }
        text
    }

    fn usual(&self, name: &str) -> u8 {
        match name {
            "candidates" => 3,
            "heal-every" => 7,
            "ahead" => 1,
            _ => 0,
        }
    }

    /// Explores it.
    #[must_use]
    pub fn explore(&self, limits: &Limits) -> Report {
        match self {
            Case::Consensus(budget) => explore(&Consensus::new(*budget), limits),
            Case::Commit(case) => explore(case, limits),
        }
    }
}

fn set_consensus(budget: &mut consensus::Budget, name: &str, number: u8) -> Result<(), String> {
    match name {
        "campaigns" => budget.campaigns = number,
        "proposals" => budget.proposals = number,
        "crashes" => budget.crashes = number,
        "timers" => budget.timers = number,
        "repeats" => budget.repeats = number,
        "times" => budget.times = number,
        "renews" => budget.renews = number,
        "slow-disks" => budget.slow_disks = number > 0,
        "parts" => budget.parts = number > 0,
        "candidates" => budget.candidates = number,
        "stale" => budget.stale = number > 0,
        _ => return Err(format!("consensus has no bound called {name}")),
    }
    Ok(())
}

fn set_commit(case: &mut Commit, name: &str, number: u8) -> Result<(), String> {
    match name {
        "changes" => case.budget.changes = number,
        "repeats" => case.budget.repeats = number,
        "timers" => case.budget.timers = number,
        "deadlines" => case.budget.deadlines = number,
        "questions" => case.budget.questions = number,
        "asks" => case.budget.asks = number,
        "forgets" => case.budget.forgets = number,
        "ahead" if (1..=2).contains(&number) => case.ahead = usize::from(number) - 1,
        "ahead" => return Err("--ahead is 1 or 2".to_owned()),
        "heal-every" => case.heal_every = number,
        _ => return Err(format!("commit has no bound called {name}")),
    }
    Ok(())
}

fn parsed(list: &[&str]) -> Vec<Case> {
    list.iter().filter_map(|words| Case::parse(words)).collect()
}

/// What the tests of every submission explore: seconds each.
#[must_use]
pub fn small() -> Vec<Case> {
    parsed(SMALL)
}

/// What takes minutes each.
#[must_use]
pub fn large() -> Vec<Case> {
    parsed(LARGE)
}

/// Breaches by name, and bounds that catch each.
#[must_use]
pub fn bites() -> Vec<(&'static str, Case)> {
    let known = |(name, words): &(&'static str, &str)| Some((*name, Case::parse(words)?));
    BITES.iter().filter_map(known).collect()
}

/// How many there are of each, for the test that all can be read.
pub const SMALL_COUNT: usize = SMALL.len();
/// See [`SMALL_COUNT`].
pub const LARGE_COUNT: usize = LARGE.len();
/// See [`SMALL_COUNT`].
pub const BITES_COUNT: usize = BITES.len();

const SMALL: &[&str] = &[
    "consensus campaigns=1 proposals=1 candidates=1 slow-disks",
    "consensus campaigns=2 candidates=2",
    "consensus campaigns=1 crashes=1 candidates=1 slow-disks",
    "commit older=none changes=1",
    "commit older=none changes=1 forgets=1",
    "commit older=one-shard changes=1",
    "commit older=over-read repeats=1",
    "commit older=two-shards",
];

const LARGE: &[&str] = &[
    "consensus campaigns=2 proposals=1",
    "consensus campaigns=2 crashes=1 slow-disks",
    "consensus campaigns=2 repeats=1",
    "consensus campaigns=2 parts",
    "consensus campaigns=1 candidates=1 times=2 renews=2",
    "consensus campaigns=2 candidates=2 times=1 renews=1",
    "commit older=one-shard changes=1 timers=1",
    "commit older=over-read changes=1 repeats=1",
    "commit older=two-shards changes=1",
    "commit older=none changes=1 timers=1 forgets=1",
    "commit older=none changes=1 timers=1 deadlines=1 questions=1",
    "commit older=none changes=2 repeats=1",
];

const BITES: &[(&str, &str)] = &[
    ("ForgetPromise", "consensus campaigns=2"),
    ("ForgetOwnPromise", "consensus campaigns=1"),
    ("AcceptBelowPromise", "consensus campaigns=2"),
    ("HalfSync", "consensus campaigns=2 candidates=2 parts"),
    (
        "CountUnsyncedSelf",
        "consensus campaigns=1 crashes=1 slow-disks",
    ),
    ("SkipAdoption", "consensus campaigns=2"),
    ("RepeatedSyncTruncates", "consensus campaigns=1 proposals=1"),
    ("BelieveForeignDecided", "consensus campaigns=2"),
    ("ServeBeforeOffice", "consensus campaigns=1 proposals=1"),
    (
        "LeaseFromPromise",
        "consensus campaigns=2 candidates=2 times=1 renews=1",
    ),
    ("DropWriteLocks", "commit older=one-shard changes=1"),
    ("DropReadLocks", "commit older=over-read changes=1"),
    ("CommitWithoutVote", "commit changes=1"),
    ("AnswerBeforeStaged", "commit changes=1"),
    ("VoteBeforeDecided", "commit changes=1"),
    ("AbortAfterAnswer", "commit older=one-shard changes=1"),
    ("WoundInherited", "commit older=one-shard changes=1"),
    ("AbortInherited", "commit changes=1"),
    ("AcceptOtherTerm", "commit older=one-shard changes=1"),
    ("NoWhileProposed", "commit changes=1"),
    ("AskAborts", "commit changes=1 timers=1 asks=1"),
    ("ForgetUnrecorded", "commit changes=1 forgets=1"),
    (
        "ForgetUnacked",
        "commit older=none changes=1 timers=1 forgets=1 heal-every=0",
    ),
    ("AckBeforeDecided", "commit changes=1"),
    ("IgnoreForgetFloor", "commit timers=1 asks=1 forgets=1"),
    ("NoCommitDedup", "commit older=one-shard repeats=1"),
    ("FreeLocksBeforeLast", "commit older=one-shard changes=1"),
    ("TimestampNotAboveLast", "commit older=one-shard changes=1"),
];
