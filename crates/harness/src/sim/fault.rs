//! What can go wrong, as data: a plan of faults can be printed, replayed and cut.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How a node goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down {
    /// The process dies; what it wrote is still there.
    Process,
    /// The machine loses power; unsynced writes are lost or torn.
    Power,
}

/// As a shard's index: the one that was split off last.
pub const NEWEST: usize = 1 << 16;

/// One thing that goes wrong. Nodes, shards and clients are indices; times in
/// nanoseconds: `down` until it is started again, `lasts` until it is mended.
#[allow(missing_docs)] // The fields are named so, in the same sense everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// A node goes down and comes back.
    Crash { node: usize, how: Down, down: u64 },
    /// A node goes down in the middle of a turn, after so many of its effects.
    CrashAtEffect {
        node: usize,
        how: Down,
        effects: u32,
        down: u64,
    },
    /// Whoever leads this shard goes down.
    CrashLeader { shard: usize, how: Down, down: u64 },
    /// Many nodes go down at once.
    CrashMany {
        nodes: Vec<usize>,
        how: Down,
        down: u64,
    },
    /// A node goes down and comes back without its engine's files.
    LoseEngine { node: usize, down: u64 },
    /// A node goes down; bits of its log have flipped when it comes back.
    FlipBits { node: usize, bits: u64, down: u64 },
    /// A node goes down and comes back without any of its files, under its old id.
    Wipe { node: usize },
    /// The log's disk fails after so many more calls.
    DiskFails { node: usize, calls: u64 },
    /// Nothing new fits on the log's disk.
    DiskFull { node: usize, lasts: u64 },
    /// Syncs do not return.
    DiskStall { node: usize, lasts: u64 },
    /// The node's loop is slow by this factor.
    Slow {
        node: usize,
        factor: u64,
        lasts: u64,
    },
    /// The process stops, and goes on later.
    Pause { node: usize, lasts: u64 },
    /// Nothing gets from these nodes to those, and back if `both`.
    Cut {
        from: Vec<usize>,
        to: Vec<usize>,
        both: bool,
        lasts: u64,
    },
    /// The leader of a shard hears nobody, or is heard by nobody, or both; it
    /// keeps `with` others.
    CutLeader {
        shard: usize,
        hears: bool,
        heard: bool,
        with: usize,
        lasts: u64,
    },
    /// Each node reaches only its neighbours in a chain of all.
    Chain { lasts: u64 },
    /// Two halves that only one node joins.
    Bridge { node: usize, lasts: u64 },
    /// Links of these nodes lose frames (1/1000) and take longer.
    BadLinks {
        nodes: Vec<usize>,
        loss: u64,
        extra: u64,
        lasts: u64,
    },
    /// All connections of a node end; what was on the way is lost.
    Reset { node: usize },
    /// A node's wall clock jumps; nanoseconds.
    ClockJump { node: usize, by: i64 },
    /// All wall clocks jump together; nanoseconds.
    ClockJumpAll { by: i64 },
    /// A node's monotonic clock changes its rate, in parts per million.
    ClockRate { node: usize, ppm: i64 },
    /// A client vanishes; after `back`, if that is not 0, another process comes in its place.
    Vanish { client: usize, back: u64 },
    /// A client's process stops, and goes on later.
    PauseClient { client: usize, lasts: u64 },
    /// An operator hands a leadership over.
    Transfer { shard: usize, to: usize },
    /// A node hands all its leaderships over and goes on.
    StepDown { node: usize },
    /// A node is asked to stop in an orderly way, and comes back.
    Stop { node: usize, down: u64 },
    /// Whatever is said to the leader of a shard reaches it so much later.
    SlowLeader {
        shard: usize,
        extra: u64,
        lasts: u64,
    },
    /// An operator wants other members of a shard, which of the possible changes
    /// `pick` says: a learner more or fewer, or a learner in a voter's place.
    Members { shard: usize, pick: u64 },
    /// An operator has a shard split, at a key that `pick` says.
    Split { shard: usize, pick: u64 },
    /// An operator has a shard merged into its left neighbour.
    Merge { shard: usize },
    /// An operator has a directory of a shard hashed, which one `pick` says.
    Hash { shard: usize, pick: u64 },
    /// An operator raises the cluster version.
    Raise,
    /// A node goes down in the middle of a piece of engine work, after so many
    /// more changes of the engine.
    EngineDies {
        node: usize,
        calls: u32,
        how: Down,
        down: u64,
    },
}

macro_rules! kinds {
    ($($kind:ident),+) => {
        /// The kinds of [`Fault`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Kind { $(#[doc = stringify!($kind)] $kind,)+ }

        impl Kind {
            /// All kinds, in order.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind,)+];
        }

        impl Fault {
            /// Which kind it is.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self { $(Fault::$kind { .. } => Kind::$kind,)+ }
            }
        }
    };
}

kinds!(
    Crash,
    CrashAtEffect,
    CrashLeader,
    CrashMany,
    LoseEngine,
    FlipBits,
    Wipe,
    DiskFails,
    DiskFull,
    DiskStall,
    Slow,
    Pause,
    Cut,
    CutLeader,
    Chain,
    Bridge,
    BadLinks,
    Reset,
    ClockJump,
    ClockJumpAll,
    ClockRate,
    Vanish,
    PauseClient,
    Transfer,
    StepDown,
    Stop,
    SlowLeader,
    EngineDies,
    Members,
    Split,
    Merge,
    Hash,
    Raise
);

impl Kind {
    /// The kinds that come alone. The others are parts of gambits.
    pub(super) fn alone() -> impl Iterator<Item = Kind> {
        let gambits = [
            Kind::SlowLeader,
            Kind::EngineDies,
            Kind::Members,
            Kind::Split,
            Kind::Merge,
            Kind::Hash,
            Kind::Raise,
        ];
        let all = Kind::ALL.iter().copied();
        all.filter(move |kind| !gambits.contains(kind))
    }
}

impl Fault {
    /// How long it lasts before the simulator mends it; 0 = it is over at once,
    /// or a restart ends it.
    #[must_use]
    pub fn lasts(&self) -> u64 {
        match self {
            Fault::DiskFull { lasts, .. }
            | Fault::DiskStall { lasts, .. }
            | Fault::Slow { lasts, .. }
            | Fault::Pause { lasts, .. }
            | Fault::PauseClient { lasts, .. }
            | Fault::Cut { lasts, .. }
            | Fault::CutLeader { lasts, .. }
            | Fault::SlowLeader { lasts, .. }
            | Fault::Chain { lasts }
            | Fault::Bridge { lasts, .. }
            | Fault::BadLinks { lasts, .. } => *lasts,
            _ => 0,
        }
    }
}

/// What a fault names, for whoever checks or cuts it.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) nodes: Vec<usize>,
    pub(super) client: Option<usize>,
    /// How long it lasts, or until the restart.
    pub(super) times: Vec<u64>,
}

impl Fault {
    /// The nodes, the client and the times it names.
    pub(super) fn names(&self) -> Names {
        let named = |nodes: &[usize], times: &[u64]| Names {
            nodes: nodes.to_vec(),
            client: None,
            times: times.to_vec(),
        };
        match self {
            Fault::Crash { node, down, .. }
            | Fault::CrashAtEffect { node, down, .. }
            | Fault::LoseEngine { node, down }
            | Fault::EngineDies { node, down, .. }
            | Fault::FlipBits { node, down, .. }
            | Fault::Stop { node, down } => named(&[*node], &[*down]),
            Fault::CrashLeader { down, .. } => named(&[], &[*down]),
            Fault::CrashMany { nodes, down, .. } => named(nodes, &[*down]),
            Fault::DiskFull { node, lasts }
            | Fault::DiskStall { node, lasts }
            | Fault::Slow { node, lasts, .. }
            | Fault::Pause { node, lasts }
            | Fault::Bridge { node, lasts } => named(&[*node], &[*lasts]),
            Fault::Cut {
                from, to, lasts, ..
            } => named(&[from.as_slice(), to.as_slice()].concat(), &[*lasts]),
            Fault::CutLeader { lasts, .. } | Fault::Chain { lasts } => named(&[], &[*lasts]),
            Fault::SlowLeader { extra, lasts, .. } => named(&[], &[*extra, *lasts]),
            Fault::BadLinks {
                nodes,
                extra,
                lasts,
                ..
            } => named(nodes, &[*extra, *lasts]),
            Fault::Wipe { node }
            | Fault::Reset { node }
            | Fault::ClockJump { node, .. }
            | Fault::StepDown { node }
            | Fault::DiskFails { node, .. }
            | Fault::ClockRate { node, .. } => named(&[*node], &[]),
            Fault::ClockJumpAll { .. }
            | Fault::Members { .. }
            | Fault::Split { .. }
            | Fault::Merge { .. }
            | Fault::Hash { .. }
            | Fault::Raise => Names::default(),
            Fault::Transfer { to, .. } => named(&[*to], &[]),
            Fault::Vanish { client, back: time }
            | Fault::PauseClient {
                client,
                lasts: time,
            } => Names {
                client: Some(*client),
                ..named(&[], &[*time])
            },
        }
    }
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// When; nanoseconds since the start.
    pub at: u64,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = readable(&format!("{:?}", self.fault));
        write!(f, "{:>12.3} ms  {fault}", self.at as f64 / 1e6)
    }
}

/// Times in milliseconds: the fields that hold nanoseconds are known by their names.
fn readable(debug: &str) -> String {
    let millis = |part: &str| -> Option<String> {
        let (head, number) = part.rsplit_once(": ")?;
        let timed = ["down", "lasts", "extra", "back", "by"];
        let name = head.rsplit([' ', '{']).next()?;
        let digits = number.trim_end_matches(" }");
        let nanos: f64 = digits.parse().ok().filter(|_| timed.contains(&name))?;
        let end = &number[digits.len()..];
        Some(format!("{head}: {:.1} ms{end}", nanos / 1e6))
    };
    let parts = debug.split(", ");
    let parts = parts.map(|part| millis(part).unwrap_or_else(|| part.to_owned()));
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_shown_with_their_times() {
        let show = |fault| {
            Planned {
                at: 1_500_000,
                fault,
            }
            .to_string()
        };
        let crash = Fault::Crash {
            node: 3,
            how: Down::Power,
            down: 2_500_000,
        };
        let shown = "       1.500 ms  Crash { node: 3, how: Power, down: 2.5 ms }";
        assert_eq!(show(crash), shown);
        let jump = Fault::ClockJumpAll { by: -1_000_000 };
        assert!(show(jump).ends_with("ClockJumpAll { by: -1.0 ms }"));
        let cut = Fault::CrashMany {
            nodes: vec![1, 2],
            how: Down::Process,
            down: 0,
        };
        assert!(show(cut).ends_with("nodes: [1, 2], how: Process, down: 0.0 ms }"));
    }
}
