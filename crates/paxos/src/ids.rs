//! The small numbers everything is named by.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

number!(
    /// A `synod` process with its directory; made at first start, never reused.
    NodeId(u64), "n"
);
number!(
    /// A Paxos group; one-to-one with a shard. 0 is never used, 1 is the meta shard.
    GroupId(u64), "g"
);
number!(
    /// The number of a configuration of one group; rises with every stop-sign.
    Epoch(u32), "e"
);
number!(
    /// A position in one group's log; the first entry has slot 1, 0 means "before the log".
    Slot(u64), ""
);
number!(
    /// Counts the starts of a node; durable, incremented before anything is sent.
    Incarnation(u64), "i"
);
number!(
    /// Nanoseconds on a node's monotonic clock (`CLOCK_BOOTTIME`). Never compared between nodes.
    Mono(u64), "+"
);
number!(
    /// Wall-clock nanoseconds since 1970, also used as a transaction timestamp.
    Timestamp(u64), "@"
);
number!(
    /// The entry kinds and formats a cluster may use (P8); replicated, only rises.
    ClusterVersion(u32), "v"
);
number!(
    /// A confirming round of one leader: asks a majority "do I still lead?".
    Round(u64), "r"
);

impl ClusterVersion {
    /// The oldest one this program can serve in; every cluster had it first.
    pub const OLDEST: ClusterVersion = ClusterVersion(1);
    /// The newest one it knows: a new cluster begins with it.
    pub const NEWEST: ClusterVersion = ClusterVersion(3);
}

/// The cluster versions that a program can serve in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VersionRange {
    /// The oldest of them.
    pub oldest: ClusterVersion,
    /// The newest of them.
    pub newest: ClusterVersion,
}

impl VersionRange {
    /// Those of this program.
    pub const OWN: VersionRange = VersionRange {
        oldest: ClusterVersion::OLDEST,
        newest: ClusterVersion::NEWEST,
    };

    /// Whether it is one of them.
    #[must_use]
    pub fn includes(self, version: ClusterVersion) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.oldest.0, self.newest.0) {
            (oldest, newest) if oldest == newest => write!(f, "{oldest}"),
            (oldest, newest) => write!(f, "{oldest} to {newest}"),
        }
    }
}

impl Slot {
    /// The slot after this one.
    #[must_use]
    pub const fn next(self) -> Slot {
        Slot(self.0 + 1)
    }

    /// The slot before this one; 0 stays 0.
    #[must_use]
    pub const fn prev(self) -> Slot {
        Slot(self.0.saturating_sub(1))
    }
}

impl Mono {
    /// This instant plus `nanos`, saturating.
    #[must_use]
    pub const fn plus(self, nanos: u64) -> Mono {
        Mono(self.0.saturating_add(nanos))
    }

    /// Nanoseconds from `earlier` to this instant; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Timestamp {
    /// This timestamp plus `nanos`, saturating.
    #[must_use]
    pub const fn plus(self, nanos: u64) -> Timestamp {
        Timestamp(self.0.saturating_add(nanos))
    }
}

/// An attempt to lead. Ordered by configuration epoch, then round, then
/// priority, then node.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// The configuration it was made in.
    pub epoch: Epoch,
    /// Rises with every attempt.
    pub round: u64,
    /// Breaks ties in favour of preferred leaders.
    pub priority: u16,
    /// Who leads if it wins.
    pub node: NodeId,
}

impl Ballot {
    /// The lowest ballot of a configuration, under which nobody leads: what a
    /// replica has accepted that holds the state a configuration begins with.
    #[must_use]
    pub const fn founding(epoch: Epoch) -> Ballot {
        Ballot {
            epoch,
            round: 0,
            priority: 0,
            node: NodeId(0),
        }
    }

    /// Whether nobody leads under it.
    #[must_use]
    pub const fn is_founding(self) -> bool {
        self.round == 0
    }
}

/// Epochs of one era differ in so many low bits.
const ERA_BITS: u32 = 20;

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Epoch {
        Epoch(self.0.saturating_add(1))
    }

    /// Which era it lies in: each begins where a survivor went on without a majority
    /// (decision 16). A million changes of members in one leave room for a thousand eras.
    #[must_use]
    pub const fn era(self) -> u32 {
        self.0 >> ERA_BITS
    }

    /// The first epoch of its era.
    #[must_use]
    pub const fn era_begins(self) -> Epoch {
        Epoch(self.era() << ERA_BITS)
    }

    /// The first epoch of the era after its own.
    #[must_use]
    pub const fn next_era(self) -> Epoch {
        Epoch(self.era().saturating_add(1) << ERA_BITS)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.epoch.0 != 0 {
            write!(f, "{}:", self.epoch.0)?;
        }
        write!(f, "{}", self.round)?;
        if self.priority != 0 {
            write!(f, "^{}", self.priority)?;
        }
        write!(f, "@{}", self.node.0)
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One leader's continuous leadership of one group, named by the group and the
/// leader's first ballot. Lock tables and sessions live as long as a term, across
/// changes of the configuration too.
/// Terms of one group are ordered as their ballots are.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize,
)]
pub struct Term {
    /// The group that is led.
    pub group: GroupId,
    /// The ballot under which the leader first took office.
    pub ballot: Ballot,
}

/// Names one unbroken stretch of one node's support for another (L2). Two
/// equal epochs mean: no gap between. Never reused, across restarts too,
/// because it names both incarnations.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SupportEpoch {
    /// The supporter's incarnation.
    pub supporter: Incarnation,
    /// The incarnation of the node that is supported.
    pub holder: Incarnation,
    /// Counts the gaps within these two incarnations, from 1; 0 means "no support".
    pub counter: u64,
}

impl SupportEpoch {
    /// What a voter stamps into `Accepted` while it supports nobody.
    pub const NONE: SupportEpoch = SupportEpoch {
        supporter: Incarnation(0),
        holder: Incarnation(0),
        counter: 0,
    };
}

impl fmt::Display for SupportEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "s{}.{}.{}",
            self.supporter.0, self.holder.0, self.counter
        )
    }
}

impl fmt::Debug for SupportEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
