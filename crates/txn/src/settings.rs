//! Numbers a shard's transaction machine runs by.

use serde::{Deserialize, Serialize};

const MILLI: u64 = 1_000_000;

/// How far a new term lifts the replicated `last` (K1): a leader may always
/// assign timestamps up to its replicated `last` plus this, so a clock that
/// was corrected backwards stops nothing. Nanoseconds.
pub const TERM_INCREMENT: u64 = 1_000_000;

/// Outcomes of one-shard transactions a shard remembers. Part of the
/// replicated state machine (P7): the same in every replica of every version.
pub const ONE_SHARD_MEMORY: usize = 1 << 17;

/// How far the id of what commits in one shard may lie after this shard's own
/// time; milliseconds. Its floor rises with forgotten ids (T7): one from the
/// far future would put every honest id below it.
pub const FUTURE_SLACK_MILLIS: u64 = 30_000;

/// The same of any other attempt: as far as clocks of shards may differ, and
/// still an id does for all of them; milliseconds.
pub const AHEAD_SLACK_MILLIS: u64 = 24 * 60 * 60 * 1_000;

/// How long a Commit may wait for locks and votes, whatever it asks for; milliseconds.
pub const MAX_TIMEOUT_MILLIS: u32 = 120_000;

/// Bytes of a Commit's list of participants, at most: it is in Staged and in an Abort.
pub const MAX_PARTICIPANTS_BYTES: usize = 1 << 20;

/// Bytes an entry may take beyond its writes: ids, terms, short lists. What a
/// list takes above it is taken off the writes.
pub const ENTRY_SLACK: usize = 32 << 10;

/// Keys one read names, at most.
pub const MAX_READ_KEYS: usize = 4096;

/// Settings of one [`crate::Group`]. None of them is needed for safety.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSettings {
    /// A session ends this long after its client was last seen; nanoseconds.
    pub session_nanos: u64,
    /// A session that asked for nothing this long, and that its client did not
    /// name as alive either, ends: a read that came late, after its transaction
    /// was given up, must not hold its lock as long as the client lives; nanoseconds.
    pub idle_nanos: u64,
    /// A participant asks its coordinator to end an intent after this; nanoseconds (T5).
    pub staged_timeout_nanos: u64,
    /// First pause before a question is repeated (T9); doubles; nanoseconds.
    pub retry_nanos: u64,
    /// Longest pause between repetitions; nanoseconds.
    pub retry_max_nanos: u64,
    /// Outcomes are remembered at least this long after their attempts began (T6), unless there are too
    /// many; milliseconds.
    pub window_millis: u64,
    /// However many there are, they are remembered at least this long; milliseconds.
    pub least_window_millis: u64,
    /// So many of transactions of several shards are enough, of those that are coordinated here and of
    /// others each: what is older is forgotten before the window is over.
    pub enough: usize,
    /// Versions are kept at least this long (R5); milliseconds.
    pub horizon_millis: u64,
    /// Bytes of writes in one entry, at most; bigger intents go in parts.
    pub entry_bytes: usize,
    /// Bytes of the keys and spans one attempt locks by reading here, at most:
    /// with the participants, they must fit into one entry (T1).
    pub read_bytes: usize,
    /// Requests that wait for locks, reads or rounds, at most.
    pub waiters: usize,
    /// Bytes of the keys that reads which wait name, at most, beside one.
    pub waiting_bytes: usize,
    /// Bytes that commits which wait for locks would write, and of the participants they name, at
    /// most, beside one.
    pub queued_bytes: usize,
    /// Sessions, at most.
    pub sessions: usize,
    /// Commits proposed and not yet decided, at most.
    pub proposed: usize,
    /// Attempts that ended in this term without an entry, remembered at most (T7).
    pub ended: usize,
    /// Attempts of which a vote came before the Commit, at most.
    pub early_votes: usize,
    /// What `Overloaded` tells a client to wait; milliseconds.
    pub overload_millis: u32,
}

impl Default for GroupSettings {
    fn default() -> GroupSettings {
        GroupSettings {
            session_nanos: 10_000 * MILLI,
            idle_nanos: 10_000 * MILLI,
            staged_timeout_nanos: 1_000 * MILLI,
            retry_nanos: 100 * MILLI,
            retry_max_nanos: 1_000 * MILLI,
            window_millis: 10 * 60 * 1_000,
            least_window_millis: 60 * 1_000,
            enough: 1 << 16,
            horizon_millis: 60 * 60 * 1_000,
            entry_bytes: 8 << 20,
            read_bytes: 6 << 20,
            waiters: 20_000,
            waiting_bytes: 64 << 20,
            queued_bytes: 64 << 20,
            sessions: 100_000,
            proposed: 50_000,
            ended: 1 << 17,
            early_votes: 10_000,
            overload_millis: 50,
        }
    }
}

impl GroupSettings {
    /// How long a coordinator waits for votes before it asks for them;
    /// nanoseconds. Longer than a vote takes between continents, much shorter
    /// than a client waits: an intent lost with its leader is found out by this.
    #[must_use]
    pub fn poll_nanos(&self) -> u64 {
        self.retry_nanos.saturating_mul(4)
    }

    /// How long outcomes are remembered, however many there are; milliseconds.
    #[must_use]
    pub fn least_window(&self) -> u64 {
        self.least_window_millis.min(self.window_millis)
    }

    /// The pause before repetition number `tries` (from 0); nanoseconds.
    #[must_use]
    pub fn backoff(&self, tries: u32) -> u64 {
        self.retry_nanos
            .saturating_mul(1 << tries.min(16))
            .min(self.retry_max_nanos)
            .max(1)
    }
}
