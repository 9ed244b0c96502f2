//! The end of a transaction without writes (§7): while every shard still
//! confirms its session and leadership after the last read, all locks were
//! held at one moment, and that is when the transaction happened.

use crate::client::transaction::{Awaited, Phase};
use crate::client::{Committed, Done, Reply, Transaction};
use crate::request::{Request, Response};
use synod_paxos::GroupId;

impl Transaction {
    pub(super) fn validate(&mut self) {
        // A shard without a session never answered a read: nothing to confirm.
        let held: Vec<_> = self
            .held
            .iter()
            .filter_map(|(&shard, held)| Some((shard, held.session?)))
            .collect();
        self.phase = Phase::Validate;
        if held.is_empty() {
            return self.validated(0);
        }
        let keep = held.len() > 1;
        for (shard, session) in held {
            let request = Request::Validate {
                attempt: self.begin.attempt,
                session,
                keep,
            };
            self.send(shard, 0, request, Some(Awaited::Validate { shard }));
        }
    }

    pub(super) fn handle_validate(&mut self, shard: GroupId, reply: Reply) {
        match self.answer(shard, reply) {
            Ok(Response::Valid) if self.awaited.is_empty() => {
                let held = self.held.values().filter(|held| held.session.is_some());
                let shards = held.count();
                self.validated(shards as u32);
            }
            Ok(Response::Valid) => {}
            Ok(_) => self.fail(Self::protocol(shard, "no validation")),
            Err(error) => self.fail(error),
        }
    }

    fn validated(&mut self, shards: u32) {
        // The only shard was told not to keep the locks.
        let freed = match self.held.iter().next() {
            Some((&shard, held)) if self.held.len() == 1 && held.session.is_some() => Some(shard),
            _ => None,
        };
        self.free(freed);
        self.finish(Ok(Done::Committed(Committed {
            attempt: self.begin.attempt,
            timestamp: None,
            shards,
            syncs: 0,
        })));
    }
}
