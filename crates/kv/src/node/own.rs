//! Requests that a node makes of the meta shard's replica on itself.

use super::driver::Driver;
use synod_paxos::{Term, Timestamp};
use synod_shard::{Input, META_SHARD, ShardRequest};
use synod_txn::request::CommitRequest;
use synod_txn::{Caller, ClientId, Key, Participant, Priority, Request, Write, client::attempt_id};

/// What a transaction may take; milliseconds.
const TIMEOUT_MILLIS: u32 = 2_000;

/// A transaction that only writes these, ascending by key; `told` is the shard's time.
pub(super) fn commit(client: ClientId, writes: Vec<Write>, term: Term, told: Timestamp) -> Request {
    let anchor = writes.first().map_or_else(Key::new, |w| w.key.clone());
    let attempt = attempt_id(told, uuid::Uuid::new_v4().as_u128());
    Request::Commit(Box::new(CommitRequest {
        attempt,
        priority: Priority {
            start: told,
            first: attempt,
        },
        client,
        session: None,
        writes,
        reads: Vec::new(),
        participants: vec![Participant {
            anchor,
            shard: META_SHARD,
            term,
        }],
        here: 0,
        coordinator: 0,
        timeout_millis: TIMEOUT_MILLIS,
        snapshot: None,
    }))
}

/// A client that no other is.
pub(super) fn client() -> ClientId {
    ClientId(uuid::Uuid::new_v4().as_u128() as u64)
}

impl Driver {
    /// Asks under this number of one of the node's own connections.
    pub(super) fn ask_meta(&mut self, connection: u64, number: u64, request: Request) {
        let caller = Caller {
            connection,
            request: number,
        };
        let request = ShardRequest {
            shard: META_SHARD,
            generation: 0,
            request,
            hashing: None,
        };
        self.input(Input::Client { caller, request });
    }
}
