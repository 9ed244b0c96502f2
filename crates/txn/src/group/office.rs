//! What only a leader in office knows. It lives for one term and is rebuilt
//! from the replicated state when the next one begins (P6).

use super::memory::{Memory, Noes};
use crate::CommitRequest;
use crate::locks::{Age, Locks};
use crate::peer::Vote;
use crate::types::{
    AbortReason, AttemptId, Caller, ClientId, Key, Outcome, Participant, Priority, SessionId,
};
use serde::Serialize;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use synod_paxos::{Mono, Term, Timestamp};

/// Who waits for a Commit's answer: one, unless copies of it came.
pub(super) type Callers = SmallVec<[Caller; 1]>;

/// One timer per subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Timer {
    /// A client was not seen for long.
    Client(ClientId),
    /// A queued Commit, or a coordinator without all votes, gives up.
    Deadline(AttemptId),
    /// A participant repeats its vote, or asks for an end.
    Participant(AttemptId),
    /// A coordinator repeats polls or Resolves.
    Coordinator(AttemptId),
    /// A waiter repeats its wound.
    Wound(AttemptId),
    /// Floors and horizons.
    Housekeeping,
    /// A Commit waits for a higher timestamp limit.
    Limit,
}

/// Armed timers, by time.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Timers {
    queue: BTreeSet<(Mono, Timer)>,
    armed: BTreeMap<Timer, Mono>,
}

impl Timers {
    /// Arms a timer; an earlier setting of the same one is replaced.
    pub(super) fn arm(&mut self, at: Mono, timer: Timer) {
        if let Some(old) = self.armed.insert(timer, at) {
            self.queue.remove(&(old, timer));
        }
        self.queue.insert((at, timer));
    }

    pub(super) fn is_armed(&self, timer: Timer) -> bool {
        self.armed.contains_key(&timer)
    }

    pub(super) fn disarm(&mut self, timer: Timer) {
        if let Some(at) = self.armed.remove(&timer) {
            self.queue.remove(&(at, timer));
        }
    }

    pub(super) fn next(&self) -> Option<Mono> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// The next timer due at `now`, disarmed.
    pub(super) fn pop(&mut self, now: Mono) -> Option<Timer> {
        let (at, timer) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.queue.pop_first();
        self.armed.remove(&timer);
        Some(timer)
    }
}

/// How far an attempt has come here before its entry is applied.
#[derive(Clone, Debug, Serialize)]
pub(super) enum Progress {
    /// It reads.
    Running,
    /// Its Commit waits for locks, or holds them and waits for a timestamp.
    Queued(Box<Queued>),
    /// A one-shard commit has its slot; these wait for it.
    OneShard(Callers),
    /// Its intent has its slot.
    Intent(Box<Proposed>),
}

/// A Commit that was not proposed yet.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Queued {
    pub(super) request: CommitRequest,
    pub(super) callers: Callers,
    /// When it came.
    pub(super) since: Mono,
    pub(super) deadline: Mono,
    /// Its request number in the lock table; none once the locks are held.
    pub(super) waiter: Option<u64>,
    /// Bytes it would write.
    pub(super) bytes: usize,
    /// The same, and those of the participants it names.
    pub(super) weight: usize,
}

/// An intent that is proposed: enough to pass a wound on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Proposed {
    pub(super) coordinator: Participant,
    pub(super) anchor: Key,
    pub(super) coordinates: bool,
}

/// An attempt between its first lock here and the apply of its entry.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Active {
    pub(super) priority: Priority,
    pub(super) client: Option<ClientId>,
    pub(super) session: Option<SessionId>,
    pub(super) progress: Progress,
    /// When it last asked for something.
    pub(super) touched: Mono,
    /// Its reads that wait or are at the engine.
    pub(super) requests: BTreeSet<u64>,
}

/// Votes that came before the Commit, bounded; the oldest go first.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct EarlyVotes {
    votes: BTreeMap<AttemptId, Vec<(Key, Vote, Term)>>,
    order: VecDeque<AttemptId>,
}

impl EarlyVotes {
    pub(super) fn insert(
        &mut self,
        attempt: AttemptId,
        from: Key,
        vote: Vote,
        term: Term,
        bound: usize,
    ) {
        const PER_ATTEMPT: usize = crate::types::MAX_PARTICIPANTS;
        let votes = self.votes.entry(attempt).or_insert_with(|| {
            self.order.push_back(attempt);
            Vec::new()
        });
        if votes.len() < PER_ATTEMPT && !votes.iter().any(|v| v.0 == from && v.1 == vote) {
            votes.push((from, vote, term));
        }
        while self.order.len() > bound {
            if let Some(old) = self.order.pop_front() {
                self.votes.remove(&old);
            }
        }
    }

    /// A participant's no for the term the Commit names, if one came.
    pub(super) fn no(
        &self,
        attempt: AttemptId,
        participants: &[Participant],
    ) -> Option<AbortReason> {
        let votes = self.votes.get(&attempt)?;
        votes.iter().find_map(|(from, vote, term)| {
            let meant = |p: &Participant| p.anchor == *from && p.term == *term;
            vote.denies().filter(|_| participants.iter().any(meant))
        })
    }

    pub(super) fn take(&mut self, attempt: AttemptId) -> Vec<(Key, Vote, Term)> {
        self.votes.remove(&attempt).unwrap_or_default()
    }
}

/// A client and the attempts it keeps alive here.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Seen {
    pub(super) at: Mono,
    pub(super) attempts: BTreeSet<AttemptId>,
}

/// A participant's unresolved intent.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Open {
    pub(super) since: Mono,
    pub(super) tries: u32,
    /// The coordinator's anchor is no longer that of the shard which the intent names.
    pub(super) moved: bool,
    /// The resolution that is proposed, and whether as recorded.
    pub(super) resolved: Option<(Outcome, bool)>,
}

/// How far a coordinator has come with one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Phase {
    /// It collects votes.
    Voting,
    /// An Abort is proposed: it never commits (T2).
    Aborting(AbortReason),
    /// All said yes: committed, told, and the outcome entry is proposed.
    Committing(Timestamp),
    /// The outcome is decided; acks are collected.
    Finished(Outcome),
}

/// A coordinator's work on one attempt.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Coordination {
    /// This leader proposed Staged itself, in this term (T3).
    pub(super) own: bool,
    /// Staged is decided.
    pub(super) staged: bool,
    pub(super) priority: Priority,
    pub(super) participants: Vec<Participant>,
    /// Its anchor here.
    pub(super) anchor: Key,
    /// Yes votes by index.
    pub(super) yes: BTreeMap<usize, Timestamp>,
    pub(super) acked: BTreeSet<usize>,
    pub(super) callers: Callers,
    pub(super) phase: Phase,
    pub(super) tries: u32,
}

impl Coordination {
    pub(super) fn index_of(&self, anchor: &Key) -> Option<usize> {
        self.participants
            .binary_search_by(|p| p.anchor.cmp(anchor))
            .ok()
    }

    /// Every participant but the coordinator itself.
    pub(super) fn others(&self) -> impl Iterator<Item = (usize, &Participant)> {
        self.participants
            .iter()
            .enumerate()
            .filter(|(_, p)| p.anchor != self.anchor)
    }
}

/// What a term begins with. Floors only rise, so a Commit that names the term
/// and lies below these was never let in (T7): of it a no is certain.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Start {
    /// When it began.
    pub(super) at: Mono,
    /// The time for ids then, by what the shard has used and not by a clock.
    pub(super) used: Timestamp,
    /// The forget floor.
    pub(super) forget_floor: u64,
    /// The floor of one-shard commits.
    pub(super) unknown_below: u64,
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Office {
    pub(super) term: Term,
    /// What it began with.
    pub(super) start: Start,
    /// The highest limit granted in this term, and when.
    pub(super) granted: (Timestamp, Mono),
    /// The highest timestamp assigned or served, proposed ones included (K3).
    pub(super) last: Timestamp,
    pub(super) locks: Locks,
    pub(super) timers: Timers,
    pub(super) active: BTreeMap<AttemptId, Active>,
    pub(super) sessions: u64,
    pub(super) clients: BTreeMap<ClientId, Seen>,
    /// Attempts this leader said no about (T4).
    pub(super) noes: Noes,
    /// Attempts without writes that were valid.
    pub(super) validated: Memory<()>,
    pub(super) early: EarlyVotes,
    pub(super) open: BTreeMap<AttemptId, Open>,
    pub(super) coordinations: BTreeMap<AttemptId, Coordination>,
    /// Resolutions known here whose `recorded` entry is proposed.
    pub(super) recording: BTreeSet<AttemptId>,
    /// Who wants an ack once the resolution is decided: own anchor, coordinator's anchor.
    pub(super) acks: BTreeMap<AttemptId, (Key, Key)>,
    /// Holders that were wounded and cannot be dropped here: the oldest that waits, tries.
    pub(super) wounds: BTreeMap<AttemptId, (Priority, u32)>,
    /// Commits that hold their locks and wait for a higher limit, in order.
    pub(super) parked: VecDeque<AttemptId>,
    /// Commits proposed and not applied.
    pub(super) proposed: usize,
    /// What all queued commits weigh.
    pub(super) queued_bytes: usize,
    /// Those of them that wait for locks, the oldest first.
    pub(super) blocked: BTreeSet<Age>,
    /// The highest forget floor proposed; milliseconds.
    pub(super) forgetting: u64,
    /// The highest horizon proposed.
    pub(super) raising: Timestamp,
}

impl Office {
    pub(super) fn new(term: Term, start: Start, last: Timestamp) -> Office {
        Office {
            term,
            start,
            granted: (Timestamp(0), start.at),
            last,
            locks: Locks::default(),
            timers: Timers::default(),
            active: BTreeMap::new(),
            sessions: 0,
            clients: BTreeMap::new(),
            noes: Noes::default(),
            validated: Memory::default(),
            early: EarlyVotes::default(),
            open: BTreeMap::new(),
            coordinations: BTreeMap::new(),
            recording: BTreeSet::new(),
            acks: BTreeMap::new(),
            wounds: BTreeMap::new(),
            parked: VecDeque::new(),
            proposed: 0,
            queued_bytes: 0,
            blocked: BTreeSet::new(),
            forgetting: 0,
            raising: Timestamp(0),
        }
    }

    /// Takes what an attempt has queued; it stays active.
    pub(super) fn unqueue(&mut self, attempt: AttemptId) -> Option<Box<Queued>> {
        let age = self.age(attempt)?;
        self.blocked.remove(&age);
        let active = self.active.get_mut(&attempt)?;
        let progress = std::mem::replace(&mut active.progress, Progress::Running);
        let Progress::Queued(queued) = progress else {
            return None;
        };
        self.queued_bytes -= queued.weight;
        Some(queued)
    }

    /// Takes an attempt out of those that are active; what it had queued counts no more.
    pub(super) fn end(&mut self, attempt: AttemptId) -> Option<Active> {
        let active = self.active.remove(&attempt)?;
        self.blocked.remove(&Age::new(active.priority, attempt));
        if let Progress::Queued(queued) = &active.progress {
            self.queued_bytes -= queued.weight;
        }
        Some(active)
    }

    /// The age of an attempt that is active here.
    pub(super) fn age(&self, attempt: AttemptId) -> Option<Age> {
        self.active
            .get(&attempt)
            .map(|a| Age::new(a.priority, attempt))
    }

    /// Lets go of the client that kept an attempt alive.
    pub(super) fn forget_client(&mut self, client: Option<ClientId>, attempt: AttemptId) {
        let Some(client) = client else { return };
        if let Some(seen) = self.clients.get_mut(&client) {
            seen.attempts.remove(&attempt);
            if seen.attempts.is_empty() {
                self.clients.remove(&client);
                self.timers.disarm(Timer::Client(client));
            }
        }
    }
}
