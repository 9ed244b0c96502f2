//! A scripted server for the machine: tests look at what it sends, and answer by hand.

mod commit;
mod merge;
mod read;
mod retry;

use crate::client::{Begin, Done, Outgoing, Reply, Route, Routes, Transaction, TransactionError};
use crate::request::{CommitRequest, LockMode, Refusal, Request, Response};
use crate::types::{AttemptId, ClientId, Key, Priority, SessionId, Span, Value, Version};
use synod_paxos::{Ballot, GroupId, Term, Timestamp};

pub(super) const A: GroupId = GroupId(2);
pub(super) const B: GroupId = GroupId(3);
pub(super) const C: GroupId = GroupId(4);

pub(super) fn key(text: &str) -> Key {
    Key::copy_from_slice(text.as_bytes())
}

pub(super) fn span(start: &str, end: &str) -> Span {
    Span {
        start: key(start),
        end: key(end),
    }
}

pub(super) fn term(group: GroupId, round: u64) -> Term {
    Term {
        group,
        ballot: Ballot {
            round,
            ..Ballot::default()
        },
    }
}

/// A owns keys below `h`, B those below `q`, C the rest; no terms known.
pub(super) fn routes() -> Routes {
    let route = |shard, start, end| Route {
        shard,
        span: span(start, end),
        term: None,
    };
    Routes::new(vec![
        route(C, "q", ""),
        route(A, "", "h"),
        route(B, "h", "q"),
    ])
}

/// The same, with the terms known.
pub(super) fn located() -> Routes {
    let mut routes = routes();
    for shard in [A, B, C] {
        routes.learn_term(shard, term(shard, 1));
    }
    routes
}

pub(super) struct Fixture {
    pub(super) routes: Routes,
    pub(super) txn: Transaction,
}

impl Fixture {
    pub(super) fn new(routes: Routes) -> Fixture {
        Fixture::begin(routes, false)
    }

    pub(super) fn begin(routes: Routes, read_only: bool) -> Fixture {
        let attempt = AttemptId(7);
        let txn = Transaction::new(Begin {
            attempt,
            priority: Priority {
                start: Timestamp(1),
                first: attempt,
            },
            client: ClientId(9),
            read_only,
        });
        Fixture { routes, txn }
    }

    pub(super) fn put(&mut self, name: &str, value: &str) {
        self.txn.put(key(name), key(value)).unwrap();
    }

    pub(super) fn get(&mut self, names: &[&str]) -> Vec<Outgoing> {
        let keys = names.iter().map(|name| key(name)).collect();
        self.txn.get(&self.routes, keys, LockMode::Shared).unwrap();
        self.txn.take_outgoing()
    }

    pub(super) fn commit(&mut self) -> Vec<Outgoing> {
        self.txn.commit(&self.routes, &[], 1000).unwrap();
        self.txn.take_outgoing()
    }

    pub(super) fn reply(&mut self, to: &Outgoing, reply: Reply) -> Vec<Outgoing> {
        self.txn.handle_reply(&self.routes, to.token, reply);
        self.txn.take_outgoing()
    }

    pub(super) fn answer(&mut self, to: &Outgoing, response: Response) -> Vec<Outgoing> {
        self.reply(to, Reply::Answer(response))
    }

    pub(super) fn refuse(&mut self, to: &Outgoing, refusal: Refusal) -> Vec<Outgoing> {
        self.answer(to, Response::Refused(refusal))
    }

    /// Read one key for good, in the shard's term 1.
    pub(super) fn read(&mut self, name: &str, value: Option<&str>) {
        let out = self.get(&[name]);
        let answer = read(out[0].shard, 1, &[value]);
        self.answer(&out[0], answer);
        assert!(matches!(self.done(), Ok(Done::Values(_))));
    }

    pub(super) fn done(&mut self) -> Result<Done, TransactionError> {
        self.txn.take_done().expect("a result")
    }
}

pub(super) fn read(shard: GroupId, round: u64, values: &[Option<&str>]) -> Response {
    let version = |value: &Option<&str>| {
        value.map(|text| Version {
            value: Some(Value::copy_from_slice(text.as_bytes())),
            timestamp: Timestamp(5),
            attempt: AttemptId(1),
        })
    };
    Response::Read {
        term: term(shard, round),
        session: Some(SessionId(shard.0)),
        versions: values.iter().map(version).collect(),
        rows: Vec::new(),
        more: false,
        now: Timestamp(6),
    }
}

pub(super) fn as_commit(out: &Outgoing) -> &CommitRequest {
    match &out.request {
        Request::Commit(commit) => commit,
        other => panic!("not a commit: {other:?}"),
    }
}

/// The shards that are asked to release, and nothing else.
pub(super) fn released(out: &[Outgoing]) -> Vec<GroupId> {
    out.iter()
        .map(|o| {
            assert!(matches!(o.request, Request::Release { .. }) && !o.answered);
            o.shard
        })
        .collect()
}
