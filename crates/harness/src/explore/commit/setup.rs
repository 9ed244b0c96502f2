//! The two transactions, their keys, and what their clients have sent.

use super::shard::Letter;
use synod_paxos::{Ballot, GroupId, NodeId, Term, Timestamp};
use synod_txn::peer::PeerBody;
use synod_txn::request::LockMode;
use synod_txn::{
    AttemptId, Caller, ClientId, CommitRequest, GroupSettings, Key, Participant, PeerMessage,
    Priority, Request, SessionId, Write,
};

/// Where the wall clocks stand; nanoseconds. They do not move: a clock may say anything.
pub(super) const WALL: u64 = 1_000_000_000_000;
/// How far one shard's clock is ahead, so that its timestamp is the maximum.
pub(super) const AHEAD: u64 = 1_000;

/// The transactions: the younger one over both shards, and the older one.
pub(super) const YOUNG: usize = 0;
/// See [`YOUNG`].
pub(super) const OLD: usize = 1;

/// The younger one's client.
pub(super) const READER: ClientId = ClientId(1);

/// What the older transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Older {
    /// There is none.
    None,
    /// It writes, in the second shard alone, what the younger one writes there.
    OneShard,
    /// It writes, in the second shard alone, what the younger one has only read there.
    OverRead,
    /// It writes what the younger one writes, in both shards; the second coordinates.
    TwoShards,
}

impl Older {
    const ALL: [(&'static str, Older); 4] = [
        ("none", Older::None),
        ("one-shard", Older::OneShard),
        ("over-read", Older::OverRead),
        ("two-shards", Older::TwoShards),
    ];

    /// From its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Older> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, older)| *older)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, known)| *known == self);
        found.map_or("", |(name, _)| name)
    }
}

pub(super) fn attempt(txn: usize) -> AttemptId {
    AttemptId((u128::from(WALL / 1_000_000) << 80) | (txn as u128 + 1))
}

/// Which transaction an attempt belongs to.
pub(super) fn txn_of(attempt: AttemptId) -> usize {
    usize::try_from((attempt.0 & 0xff).saturating_sub(1)).map_or(YOUNG, |t| t.min(OLD))
}

fn priority(txn: usize) -> Priority {
    Priority {
        start: Timestamp(if txn == OLD { 5 } else { 10 }),
        first: attempt(txn),
    }
}

pub(super) fn key(shard: usize, number: u8) -> Key {
    Key::from(vec![b'a' + shard as u8, b'0' + number])
}

/// Which shard owns a key.
pub(super) fn shard_of(key: &[u8]) -> usize {
    usize::from(key.first().is_some_and(|b| *b != b'a'))
}

pub(super) fn term(shard: usize, round: u64) -> Term {
    Term {
        group: GroupId(shard as u64 + 1),
        ballot: Ballot {
            round,
            node: NodeId(round % 3 + 1),
            ..Ballot::default()
        },
    }
}

/// Everything that is repeated is due after one short step of time; deadlines
/// after a long one; housekeeping never.
pub(super) fn settings() -> GroupSettings {
    GroupSettings {
        staged_timeout_nanos: 0,
        retry_nanos: 1,
        retry_max_nanos: 1,
        window_millis: u64::MAX,
        horizon_millis: u64::MAX,
        session_nanos: u64::MAX / 4,
        ..GroupSettings::default()
    }
}

fn write(txn: usize, key: Key) -> Write {
    Write {
        key,
        value: Some(Key::from(format!("v{txn}"))),
    }
}

/// The younger transaction's read in the second shard, before anything else.
pub(super) fn locked_read() -> Request {
    Request::LockedRead {
        attempt: attempt(YOUNG),
        priority: priority(YOUNG),
        client: READER,
        session: None,
        keys: vec![key(1, 2)],
        scan: None,
        mode: LockMode::Shared,
    }
}

/// Who asks for an attempt's commit in a shard.
pub(super) fn caller(txn: usize, number: u64) -> Caller {
    Caller {
        connection: txn as u64,
        request: number,
    }
}

fn participants(shards: &[usize], rounds: [u64; 2]) -> Vec<Participant> {
    let of = |shard: &usize| Participant {
        anchor: key(*shard, 1),
        shard: GroupId(*shard as u64 + 1),
        term: term(*shard, rounds[*shard]),
    };
    shards.iter().map(of).collect()
}

/// A transaction's Commits: what it writes in each of its shards.
struct Plan {
    txn: usize,
    coordinator: u32,
    writes: Vec<(usize, Key)>,
    session: Option<SessionId>,
}

impl Plan {
    /// One Commit per shard, for the terms of these rounds.
    fn commits(&self, rounds: [u64; 2]) -> Vec<Letter> {
        let shards: Vec<usize> = self.writes.iter().map(|(shard, _)| *shard).collect();
        let letter = |(here, (shard, key)): (usize, &(usize, Key))| {
            let request = CommitRequest {
                attempt: attempt(self.txn),
                priority: priority(self.txn),
                client: ClientId(self.txn as u64 + 1),
                session: self.session.filter(|_| *shard == 1),
                writes: vec![write(self.txn, key.clone())],
                reads: Vec::new(),
                participants: participants(&shards, rounds),
                here: here as u32,
                coordinator: self.coordinator,
                timeout_millis: 5_000,
                snapshot: None,
            };
            let request = Request::Commit(Box::new(request));
            Letter::request(*shard, caller(self.txn, *shard as u64), request)
        };
        self.writes.iter().enumerate().map(letter).collect()
    }
}

/// The younger one's Commits. `session`: its session in the second shard, if it
/// has read there.
pub(super) fn young(session: Option<SessionId>) -> Vec<Letter> {
    let plan = Plan {
        txn: YOUNG,
        coordinator: 0,
        writes: vec![(0, key(0, 1)), (1, key(1, 1))],
        session,
    };
    plan.commits([1, 1])
}

/// The older one's Commits, for the terms of these rounds.
pub(super) fn old(older: Older, rounds: [u64; 2]) -> Vec<Letter> {
    let (coordinator, writes) = match older {
        Older::None => return Vec::new(),
        Older::OneShard => (0, vec![(1, key(1, 1))]),
        Older::OverRead => (0, vec![(1, key(1, 2))]),
        Older::TwoShards => (1, vec![(0, key(0, 1)), (1, key(1, 1))]),
    };
    let plan = Plan {
        txn: OLD,
        coordinator,
        writes,
        session: None,
    };
    plan.commits(rounds)
}

/// The younger one's client asks its coordinator how it ended.
pub(super) fn status(number: u64) -> Letter {
    let request = Request::Status {
        attempt: attempt(YOUNG),
        anchor: key(0, 1),
        term: term(0, 1),
    };
    Letter::request(0, caller(YOUNG, 10 + number), request)
}

/// The second shard asks the first how the younger one ended.
pub(super) fn ask() -> Letter {
    Letter::peer(PeerMessage {
        attempt: attempt(YOUNG),
        anchor: key(0, 1),
        from: key(1, 1),
        body: PeerBody::Ask,
    })
}

/// Which shards take part in a transaction, and which coordinates.
pub(super) fn shards_of(txn: usize, older: Older) -> (&'static [usize], usize) {
    match (txn, older) {
        (YOUNG, _) => (&[0, 1], 0),
        (_, Older::TwoShards) => (&[0, 1], 1),
        _ => (&[1], 1),
    }
}
