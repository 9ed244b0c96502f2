//! What clients ask of one shard's leader, and what it answers.

use crate::bounded::list;
use crate::settings::MAX_READ_KEYS;
use crate::types::{
    AbortReason, AttemptId, ClientId, Key, MAX_PARTICIPANTS, MAX_TRANSACTION_BYTES, Outcome,
    Participant, Priority, Row, SessionId, Span, Version, WRITE_BYTES, Write,
};
use serde::{Deserialize, Serialize};
use synod_paxos::{Term, Timestamp};

/// Keys of a read that are decoded at most: some more than it may name, who names too many is
/// told so.
const DECODED_KEYS: usize = 16 * MAX_READ_KEYS;
/// Of a Commit, writes: more are too many, however small.
const DECODED_WRITES: usize = MAX_TRANSACTION_BYTES / WRITE_BYTES;
/// Of a Commit, spans that were read.
const DECODED_SPANS: usize = 1 << 18;
/// Of a Commit, participants.
const DECODED_PARTICIPANTS: usize = 16 * MAX_PARTICIPANTS;

/// How a read inside a transaction locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LockMode {
    /// Shared with other readers.
    Shared,
    /// Exclusive: read for update.
    Exclusive,
}

/// A range read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanRange {
    /// The keys to visit.
    pub span: Span,
    /// Rows wanted at most.
    pub limit: u32,
    /// From the end downwards.
    pub reverse: bool,
}

/// A request to one shard's leader. New variants are only added at the end.
/// Repeating any of them is safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Newest versions, one shard, no transaction: each linearizable on its own
    /// moment, all at the same moment.
    Latest {
        /// Keys to read.
        #[serde(deserialize_with = "list::<_, _, DECODED_KEYS>")]
        keys: Vec<Key>,
        /// A range to read.
        scan: Option<ScanRange>,
    },
    /// Locks, then reads, inside a transaction.
    LockedRead {
        /// The transaction's attempt.
        attempt: AttemptId,
        /// Its age.
        priority: Priority,
        /// Who keeps the session alive.
        client: ClientId,
        /// The session and its term, once the shard has opened one.
        session: Option<(Term, SessionId)>,
        /// Keys to lock and read.
        #[serde(deserialize_with = "list::<_, _, DECODED_KEYS>")]
        keys: Vec<Key>,
        /// A range to lock and read. Only what was visited stays locked: up to
        /// and including the last row answered, or all of it if the scan was exhausted.
        scan: Option<ScanRange>,
        /// How to lock.
        mode: LockMode,
    },
    /// Commit of everything the transaction has in this shard.
    Commit(Box<CommitRequest>),
    /// End of a transaction without writes: are all its locks still held, and
    /// does this leader still lead? Releases them.
    Validate {
        /// The attempt.
        attempt: AttemptId,
        /// The session and its term.
        session: (Term, SessionId),
        /// Keep the locks until all shards answered; then `Release` frees them.
        keep: bool,
    },
    /// Give up the attempt here: drop its locks and queued requests.
    Release {
        /// The attempt.
        attempt: AttemptId,
        /// The session and its term, if known.
        session: Option<(Term, SessionId)>,
    },
    /// How did this attempt end? Sent to the coordinator shard by its anchor.
    Status {
        /// The attempt.
        attempt: AttemptId,
        /// The coordinator's anchor key, in this shard.
        anchor: Key,
        /// The term its Commit named for the coordinator.
        term: Term,
    },
    /// Which term is it? For writes to shards that nothing was read from.
    Locate,
}

impl Request {
    /// Whether everything that it touches lies in a range, so that the range's shard can
    /// handle it.
    #[must_use]
    pub fn is_within(&self, span: &Span) -> bool {
        match self {
            Request::Latest { keys, scan } | Request::LockedRead { keys, scan, .. } => {
                let scanned = scan.as_ref().map(|scan| &scan.span);
                keys.iter().all(|key| span.contains(key))
                    && scanned.is_none_or(|scanned| {
                        let ends = !scanned.end.is_empty() && scanned.end <= span.end;
                        scanned.start >= span.start && (span.end.is_empty() || ends)
                    })
            }
            // Votes and resolutions are routed by anchor (T10): one that lies elsewhere
            // than its participant would have another shard answer for it.
            Request::Commit(commit) => {
                let here = commit.here as usize;
                let mut participants = commit.participants.iter().enumerate();
                commit.writes.iter().all(|write| span.contains(&write.key))
                    && participants.all(|(at, p)| span.contains(&p.anchor) == (at == here))
            }
            Request::Status { anchor, .. } => span.contains(anchor),
            Request::Validate { .. } | Request::Release { .. } | Request::Locate => true,
        }
    }
}

/// What a key that is asked for counts for in [`Request::weight`], beside its bytes.
const KEY_BYTES: usize = 32;

fn span_weight(span: &Span) -> usize {
    KEY_BYTES + span.start.len() + span.end.len()
}

/// Bytes that a read counts for: of all keys it names.
pub(crate) fn read_weight(keys: &[Key], scan: Option<&ScanRange>) -> usize {
    let keys: usize = keys.iter().map(|key| KEY_BYTES + key.len()).sum();
    keys + scan.map_or(0, |scan| span_weight(&scan.span))
}

impl Request {
    /// Whose transaction it belongs to, if it says so.
    #[must_use]
    pub fn client(&self) -> Option<ClientId> {
        match self {
            Request::LockedRead { client, .. } => Some(*client),
            Request::Commit(commit) => Some(commit.client),
            _ => None,
        }
    }

    /// Bytes it counts for, on its way and where it waits: of what it would write, and of all keys
    /// that it names.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Request::Latest { keys, scan } | Request::LockedRead { keys, scan, .. } => {
                read_weight(keys, scan.as_ref())
            }
            Request::Commit(commit) => {
                let reads: usize = commit.reads.iter().map(span_weight).sum();
                commit.weight() + reads
            }
            Request::Validate { .. }
            | Request::Release { .. }
            | Request::Status { .. }
            | Request::Locate => 0,
        }
    }
}

/// The parts of a Commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRequest {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its age.
    pub priority: Priority,
    /// Who commits.
    pub client: ClientId,
    /// The session here, if anything was read here.
    pub session: Option<SessionId>,
    /// The writes in this shard (ascending keys, each once).
    #[serde(deserialize_with = "list::<_, _, DECODED_WRITES>")]
    pub writes: Vec<Write>,
    /// The spans read in this shard (used by optimistic mode; locks are
    /// authoritative in pessimistic mode).
    #[serde(deserialize_with = "list::<_, _, DECODED_SPANS>")]
    pub reads: Vec<Span>,
    /// Who takes part, ascending by anchor: for the coordinator all, for others at
    /// least itself and the coordinator; see [`CommitRequest::participants_for`].
    #[serde(deserialize_with = "list::<_, _, DECODED_PARTICIPANTS>")]
    pub participants: Vec<Participant>,
    /// Index into `participants` of this shard.
    pub here: u32,
    /// Index into `participants` of the coordinator.
    pub coordinator: u32,
    /// Give up if locks or votes take longer than this; milliseconds.
    pub timeout_millis: u32,
    /// Optimistic mode's snapshot; none in pessimistic mode.
    pub snapshot: Option<Timestamp>,
}

impl CommitRequest {
    /// Bytes it counts for: of what it would write, and of the participants it names.
    pub(crate) fn weight(&self) -> usize {
        let writes: usize = self.writes.iter().map(Write::weight).sum();
        let named: usize = self.participants.iter().map(Participant::weight).sum();
        writes + named
    }

    /// The key that names this shard, once the request's indices were checked.
    pub(crate) fn anchor(&self) -> &Key {
        &self.participants[self.here as usize].anchor
    }

    /// What the Commit to participant `here` of `all` names: the participants and,
    /// as positions among them, itself and the coordinator. Only the coordinator
    /// needs to know everybody. If each participant did, the bytes of a commit, in
    /// requests, logs and between replicas, would grow with the square of their number.
    ///
    /// # Panics
    /// If `here` or `coordinator` is no position in `all`.
    #[must_use]
    pub fn participants_for(
        all: &[Participant],
        here: usize,
        coordinator: usize,
    ) -> (Vec<Participant>, u32, u32) {
        if here == coordinator {
            return (all.to_vec(), here as u32, coordinator as u32);
        }
        let (first, second) = (here.min(coordinator), here.max(coordinator));
        let two = vec![all[first].clone(), all[second].clone()];
        (
            two,
            u32::from(here == second),
            u32::from(coordinator == second),
        )
    }
}

/// A leader's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To `Latest` and `LockedRead`.
    Read {
        /// The leader's term.
        term: Term,
        /// The session, for locked reads.
        session: Option<SessionId>,
        /// One per key, in order; none = never written or collected.
        versions: Vec<Option<Version>>,
        /// The scan's rows.
        rows: Vec<Row>,
        /// Whether the scan stopped at a bound with keys left: go on after the last row.
        more: bool,
        /// The leader's time for ids and priorities: its wall clock, unless that
        /// fell behind what the shard has already used.
        now: Timestamp,
    },
    /// To `Commit` (from the coordinator) and `Status`.
    Outcome {
        /// How it ended.
        outcome: Outcome,
        /// Consensus rounds of this shard that the answer waited for, each one overlapped
        /// sync of a majority: 0 from memory, 1 for a commit, 2 for an abort after Staged.
        syncs: u32,
    },
    /// To `Commit`, from a participant that is not the coordinator: the intent is
    /// proposed or the vote sent; the outcome comes from the coordinator.
    Voting,
    /// To `Validate`: everything still held. `confirmed` = under lease or by a round.
    Valid,
    /// To `Release`.
    Released,
    /// To `Status`: not decided yet; ask again.
    Pending,
    /// To `Status`: so old that the outcome may have been forgotten (T6).
    Expired,
    /// To `Locate`.
    Located {
        /// The leader's term.
        term: Term,
        /// The leader's time for ids and priorities, as in `Read`.
        now: Timestamp,
    },
    /// Refused, nothing was proposed for this request.
    Refused(Refusal),
}

/// Who is turned away with a large request waits a millisecond longer for so many bytes.
const RETRY_BYTES: usize = 16 << 10;

impl Refusal {
    /// `Overloaded` for a request of this weight. It has to come again as a whole: if all large ones did
    /// so after the `least` pause, the node would do little else than take in what it refuses.
    #[must_use]
    pub fn overloaded(least_millis: u32, weight: usize) -> Refusal {
        let longer = u32::try_from(weight / RETRY_BYTES).unwrap_or(u32::MAX);
        Refusal::Overloaded {
            retry_after_millis: least_millis.saturating_add(longer),
        }
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// This replica is not the leader in office. For a Commit this says nothing
    /// about an earlier copy of it: ask the status. A leader in office says so
    /// too of an unknown Commit whose attempt lies below its floors (T7): it
    /// may have been met and forgotten.
    NotLeader {
        /// Who might be.
        hint: Option<synod_paxos::NodeId>,
    },
    /// The Commit names another term than this leader's. For an older term it is
    /// final: this leader knows nothing of the attempt, and nothing can come of it.
    WrongTerm {
        /// The leader's term.
        current: Term,
        /// Whether the refusal is final for the attempt here.
        last_word: bool,
    },
    /// The transaction lost its locks here; abort and retry with the age kept.
    Aborted(AbortReason),
    /// Too much to do; nothing was proposed.
    Overloaded {
        /// Come back after; milliseconds.
        retry_after_millis: u32,
    },
    /// The key lies in no range of this shard.
    WrongShard,
    /// The request breaks a bound; says which.
    Invalid(String),
    /// A timestamp above the granted limit would be needed, or the clock is quarantined.
    Clock,
    /// The attempt's id has a time this leader lets nobody in with. Nothing was
    /// done for the attempt here and, until the term ends, nothing will be: to a
    /// Commit it is a final no (`docs/decisions/0008`). A new attempt takes an
    /// id within the bounds, at best the time told.
    AttemptTime {
        /// The leader's time for ids, within the bounds.
        now: Timestamp,
        /// The lowest time of an id, in milliseconds since 1970.
        least_millis: u64,
        /// The highest.
        most_millis: u64,
    },
    /// The request was mapped in another way than the shard's keys are stored (decision 22).
    /// Nothing was done for this copy of it.
    OtherSharding {
        /// How they are stored; none is as they are.
        hashing: Option<crate::Hashing>,
    },
}
