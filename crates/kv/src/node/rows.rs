//! The meta shard's rows follow the shards' members.
//!
//! Whoever leads the meta shard writes them: it hears of every change (`gossip`), and
//! what it hears is true, as changes are decided in their own shards before anybody
//! speaks of them. So no change waits for the meta shard, a shard's leader needs no
//! client of another shard, and it does not matter who asked for the change or
//! whether he lives to see it. A row is read before it is written, in the same term
//! and by nobody else, so a younger one is never replaced; one that is behind for
//! a while sends its reader to a node that knows better, as an old map does.

use super::driver::Driver;
use super::lanes::OWN_ROWS;
use super::own;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use synod_paxos::{Term, Timestamp};
use synod_shard::records::shard_key;
use synod_shard::{META_SHARD, Shard, ShardDescriptor, ShardReply};
use synod_txn::{ClientId, Outcome, Request, Response, Write};

/// Rows in one transaction, at most.
const ROWS: usize = 64;
/// A request without an answer is given up after this long, and what could not be
/// written is tried again.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a refusal.
const PAUSE: Duration = Duration::from_millis(500);

/// Where it stands.
#[derive(Debug)]
enum Step {
    /// Nothing to do, or not yet.
    Idle,
    /// The rows of these shards are read.
    Reading(Vec<ShardDescriptor>),
    /// What was newer is written.
    Writing,
}

/// What is written, and what is still to be.
#[derive(Debug)]
pub(super) struct Rows {
    /// The count of map changes that the rows, or `left`, go up to, and the term.
    upto: Option<(Term, u64)>,
    left: VecDeque<ShardDescriptor>,
    step: Step,
    /// The number of the last request.
    number: u64,
    /// Not before.
    next: Instant,
    client: ClientId,
}

impl Rows {
    pub(super) fn new(now: Instant) -> Rows {
        Rows {
            upto: None,
            left: VecDeque::new(),
            step: Step::Idle,
            number: 0,
            next: now,
            client: own::client(),
        }
    }

    /// Begins anew, after a while.
    fn again(&mut self, now: Instant) {
        self.upto = None;
        self.left.clear();
        self.step = Step::Idle;
        self.next = now + PAUSE;
    }
}

/// The shards whose rows are missing or older; rows that cannot be read count as such.
fn outdated(
    shards: Vec<ShardDescriptor>,
    rows: Vec<Option<synod_txn::Version>>,
) -> Vec<ShardDescriptor> {
    let known = |version: Option<synod_txn::Version>| -> Option<ShardDescriptor> {
        postcard::from_bytes(&version?.value?).ok()
    };
    let rows = rows.into_iter().map(known);
    let newer = |(shard, row): (ShardDescriptor, Option<ShardDescriptor>)| {
        let is_newer = row.is_none_or(|row| row.generation < shard.generation);
        is_newer.then_some(shard)
    };
    shards.into_iter().zip(rows).filter_map(newer).collect()
}

impl Driver {
    /// Goes on with what is to be written, if this node leads the meta shard.
    pub(super) fn keep_rows(&mut self, now: Instant) {
        let answers = self.lanes.own_answers(OWN_ROWS);
        let Some(worker) = self.machine.worker() else {
            return;
        };
        let meta = worker.shard(META_SHARD).filter(|s| s.in_office());
        let Some(term) = meta.and_then(Shard::term) else {
            self.rows.again(now);
            self.rows.next = now;
            return;
        };
        for (number, reply) in answers {
            if number == self.rows.number {
                self.row_answer(now, reply);
            }
        }
        if now < self.rows.next {
            return;
        }
        if !matches!(self.rows.step, Step::Idle) {
            tracing::debug!("the meta shard does not answer its own node");
            return self.rows.again(now);
        }
        let Some(worker) = self.machine.worker() else {
            return;
        };
        let upto = (term, worker.map_changes());
        if self.rows.left.is_empty() && self.rows.upto != Some(upto) {
            self.rows.left = worker.map().changed().cloned().collect();
            self.rows.upto = Some(upto);
        }
        let count = self.rows.left.len().min(ROWS);
        if count == 0 {
            return;
        }
        let shards: Vec<ShardDescriptor> = self.rows.left.drain(..count).collect();
        let keys = shards.iter().map(|s| shard_key(&s.span.start)).collect();
        self.rows.step = Step::Reading(shards);
        self.ask_for_rows(now, Request::Latest { keys, scan: None });
    }

    fn ask_for_rows(&mut self, now: Instant, request: Request) {
        self.rows.number += 1;
        self.rows.next = now + PATIENCE;
        self.ask_meta(OWN_ROWS, self.rows.number, request);
    }

    fn row_answer(&mut self, now: Instant, reply: ShardReply) {
        let step = std::mem::replace(&mut self.rows.step, Step::Idle);
        match (step, reply) {
            (
                Step::Reading(shards),
                ShardReply::Response(Response::Read {
                    term,
                    versions,
                    now: told,
                    ..
                }),
            ) => {
                self.rows.next = now;
                let newer = outdated(shards, versions);
                if !newer.is_empty() {
                    self.write_rows(now, &newer, term, told);
                }
            }
            (
                Step::Writing,
                ShardReply::Response(Response::Outcome {
                    outcome: Outcome::Committed(_),
                    ..
                }),
            ) => self.rows.next = now,
            (_, reply) => {
                tracing::debug!(?reply, "the meta shard's rows are written later");
                self.rows.again(now);
            }
        }
    }

    fn write_rows(
        &mut self,
        now: Instant,
        shards: &[ShardDescriptor],
        term: Term,
        told: Timestamp,
    ) {
        let row = |shard: &ShardDescriptor| {
            let value = postcard::to_stdvec(shard).ok()?;
            Some(Write {
                key: shard_key(&shard.span.start),
                value: Some(value.into()),
            })
        };
        // Ascending, as a map's shards are.
        let writes: Vec<Write> = shards.iter().filter_map(row).collect();
        let commit = own::commit(self.rows.client, writes, term, told);
        self.rows.step = Step::Writing;
        self.ask_for_rows(now, commit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_paxos::{Configuration, GroupId, NodeId};
    use synod_txn::{AttemptId, Key, Span, Version};

    fn shard(id: u64, generation: u64) -> ShardDescriptor {
        ShardDescriptor {
            id: GroupId(id),
            span: Span {
                start: Key::new(),
                end: Key::new(),
            },
            generation,
            configuration: Configuration::of_voters(vec![NodeId(1)]),
            preferred_leader: NodeId(1),
            born: None,
        }
    }

    fn row(shard: &ShardDescriptor) -> Option<Version> {
        let value = postcard::to_stdvec(shard).expect("a descriptor can be written");
        Some(Version {
            value: Some(value.into()),
            timestamp: Timestamp(1),
            attempt: AttemptId(1),
        })
    }

    #[test]
    fn only_older_rows_are_written() {
        let shards = vec![
            shard(1, 3),
            shard(2, 3),
            shard(3, 3),
            shard(4, 3),
            shard(5, 3),
        ];
        let damaged = Version {
            value: Some(vec![0xff].into()),
            ..row(&shard(5, 9)).expect("a row")
        };
        let rows = vec![
            row(&shard(1, 2)),
            row(&shard(2, 3)),
            row(&shard(3, 4)),
            None,
            Some(damaged),
        ];
        let ids: Vec<u64> = outdated(shards, rows).iter().map(|s| s.id.0).collect();
        assert_eq!(ids, [1, 4, 5]);
    }
}
