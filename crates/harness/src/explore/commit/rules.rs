//! The rules: a dumb twin of each shard's replicated state, fed with the same
//! decided entries, and what was told to anybody.

use super::super::hash::hash_of;
use super::setup::{Older, YOUNG, attempt, shards_of, txn_of};
use super::shard::{Entry, Out, Shard};
use serde::Serialize;
use std::collections::BTreeMap;
use synod_paxos::Timestamp;
use synod_txn::{AttemptId, Command, Key, Outcome, Span, Write};

/// An intent, as the log has it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Held {
    timestamp: Timestamp,
    writes: Vec<Write>,
    reads: Vec<Span>,
}

/// What one transaction has in one shard.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Stay {
    pub(super) open: Option<Held>,
    /// ts_i of its decided intent, also after it is resolved.
    pub(super) intent: Option<Timestamp>,
    /// The first outcome or resolution that counts.
    pub(super) outcome: Option<Outcome>,
    /// A leader said no for good.
    pub(super) no: bool,
}

/// One shard's twin.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Twin {
    applied: usize,
    /// A forget floor above both attempts is decided.
    pub(super) floor: bool,
    pub(super) stays: [Stay; 2],
    /// Versions by key, in slot order.
    versions: BTreeMap<Key, Vec<(Timestamp, AttemptId, u64)>>,
}

/// What somebody heard about one transaction.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Told {
    /// Committed, to the client or in a Resolve.
    pub(super) committed: Option<Timestamp>,
    /// Aborted, or a final no, likewise.
    pub(super) aborted: bool,
}

/// See the module.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Past {
    pub(super) twins: [Twin; 2],
    pub(super) told: [Told; 2],
    #[serde(skip)]
    pub(super) hash: u128,
}

pub(super) type Check = Result<(), String>;

pub(super) fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(broken()) }
}

pub(super) fn name(txn: usize) -> &'static str {
    if txn == YOUNG { "young" } else { "old" }
}

fn same(a: Outcome, b: Outcome) -> bool {
    match (a, b) {
        (Outcome::Committed(a), Outcome::Committed(b)) => a == b,
        (Outcome::Aborted(_), Outcome::Aborted(_)) => true,
        _ => false,
    }
}

impl Past {
    pub(super) fn rehash(&mut self) {
        self.hash = hash_of(&*self);
    }

    /// The newest version of a key at or below `at`, for the engine's answers.
    pub(super) fn version(
        &self,
        shard: usize,
        key: &Key,
        at: Timestamp,
    ) -> Option<synod_txn::Version> {
        let versions = self.twins[shard].versions.get(key)?;
        let (timestamp, attempt, _) = versions.iter().rev().find(|(ts, ..)| *ts <= at)?;
        Some(synod_txn::Version {
            value: Some(Key::from(format!("v{}", txn_of(*attempt)))),
            timestamp: *timestamp,
            attempt: *attempt,
        })
    }

    /// Entries the newest leader has applied; then what the step sent.
    pub(super) fn check(&mut self, older: Older, shard: &Shard, out: &Out, deposed: bool) -> Check {
        let at = shard.index;
        while self.twins[at].applied < shard.leader.decided {
            let number = self.twins[at].applied;
            self.twins[at].applied += 1;
            if let Entry::Command(command) = &shard.log[number].entry {
                self.apply(older, at, number as u64 + 1, command)?;
            }
        }
        if !deposed {
            self.compare_writes(at, out)?;
        }
        self.compare_state(shard)?;
        for message in &out.peers {
            self.check_peer(older, at, message)?;
        }
        for (to, response) in &out.responses {
            self.check_response(older, at, *to, response)?;
        }
        self.rehash();
        Ok(())
    }

    fn apply(&mut self, older: Older, at: usize, slot: u64, command: &Command) -> Check {
        match command {
            Command::OneShard {
                attempt,
                timestamp,
                writes,
                ..
            } => {
                let txn = txn_of(*attempt);
                if self.twins[at].stays[txn].outcome.is_some() {
                    return Ok(());
                }
                self.check_locks(at, txn, writes, &[])?;
                self.end(older, at, txn, Outcome::Committed(*timestamp))?;
                self.write(at, slot, *attempt, *timestamp, writes)
            }
            Command::Intent(intent) => {
                let txn = txn_of(intent.attempt);
                let stay = &self.twins[at].stays[txn];
                if stay.outcome.is_some() || stay.open.is_some() {
                    return Ok(());
                }
                ensure(!stay.no, || {
                    format!(
                        "T4: shard {} said no about {}, and its intent is decided",
                        at + 1,
                        name(txn)
                    )
                })?;
                self.check_locks(at, txn, &intent.writes, &intent.reads)?;
                let stay = &mut self.twins[at].stays[txn];
                stay.intent = Some(intent.timestamp);
                stay.open = Some(Held {
                    timestamp: intent.timestamp,
                    writes: intent.writes.clone(),
                    reads: intent.reads.clone(),
                });
                Ok(())
            }
            Command::Outcome {
                attempt, outcome, ..
            } => {
                let stay = &self.twins[at].stays[txn_of(*attempt)];
                let staged = stay.open.is_some() || matches!(outcome, Outcome::Aborted(_));
                if stay.outcome.is_some() || !staged {
                    return Ok(());
                }
                self.close(older, at, slot, *attempt, *outcome)
            }
            Command::Resolve {
                attempt, outcome, ..
            } => {
                if self.twins[at].stays[txn_of(*attempt)].outcome.is_some() {
                    return Ok(());
                }
                self.close(older, at, slot, *attempt, *outcome)
            }
            Command::Forget { .. } => {
                self.twins[at].floor = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether an outcome is decided in the coordinator shard; or none can be any
    /// more, because a floor above the attempt is.
    pub(super) fn is_recorded(&self, older: Older, txn: usize, outcome: Option<Outcome>) -> bool {
        let (_, coordinator) = shards_of(txn, older);
        let twin = &self.twins[coordinator];
        let aborted = !matches!(outcome, Some(Outcome::Committed(_)));
        twin.stays[txn].outcome.is_some() || aborted && twin.floor
    }

    fn close(
        &mut self,
        older: Older,
        at: usize,
        slot: u64,
        attempt: AttemptId,
        outcome: Outcome,
    ) -> Check {
        let txn = txn_of(attempt);
        self.end(older, at, txn, outcome)?;
        let open = self.twins[at].stays[txn].open.take();
        let Outcome::Committed(timestamp) = outcome else {
            return Ok(());
        };
        let Some(held) = open else {
            return Err(format!(
                "T2: {} is committed in shard {} without an intent",
                name(txn),
                at + 1
            ));
        };
        ensure(held.timestamp <= timestamp, || {
            format!(
                "T5: {} is committed at {timestamp}, below its ts_i {}",
                name(txn),
                held.timestamp
            )
        })?;
        self.write(at, slot, attempt, timestamp, &held.writes)
    }

    /// T1: an intent holds its locks as long as it is open, whoever leads.
    fn check_locks(&self, at: usize, txn: usize, writes: &[Write], reads: &[Span]) -> Check {
        let Some(held) = &self.twins[at].stays[1 - txn].open else {
            return Ok(());
        };
        let writes_clash = writes.iter().any(|w| {
            held.writes.iter().any(|h| h.key == w.key)
                || held.reads.iter().any(|r| r.contains(&w.key))
        });
        let reads_clash = held
            .writes
            .iter()
            .any(|h| reads.iter().any(|r| r.contains(&h.key)));
        ensure(!writes_clash && !reads_clash, || {
            format!(
                "T1: {} is decided in shard {} over locks that {}'s open intent holds",
                name(txn),
                at + 1,
                name(1 - txn)
            )
        })
    }

    /// An outcome counts in a shard: it must be the only one, and allowed.
    fn end(&mut self, older: Older, at: usize, txn: usize, outcome: Outcome) -> Check {
        let stay = &mut self.twins[at].stays[txn];
        stay.outcome = Some(outcome);
        let other = self.twins[1 - at].stays[txn].outcome;
        ensure(other.is_none_or(|o| same(o, outcome)), || {
            format!(
                "atomicity: {} ended as {outcome} in shard {}, {other:?} in the other",
                name(txn),
                at + 1
            )
        })?;
        let told = self.told[txn];
        match outcome {
            Outcome::Committed(s) => {
                ensure(!told.aborted, || {
                    format!(
                        "T4: {} was called aborted for good, and committed",
                        name(txn)
                    )
                })?;
                ensure(told.committed.is_none_or(|t| t == s), || {
                    format!(
                        "T2: {} was told committed at {:?}, and is at {s}",
                        name(txn),
                        told.committed
                    )
                })?;
                self.check_yes(older, txn, s)
            }
            Outcome::Aborted(reason) => ensure(told.committed.is_none(), || {
                format!(
                    "T3: {} was told committed, and an abort ({reason:?}) counts",
                    name(txn)
                )
            }),
        }
    }

    /// T2: a commit needs a decided intent in every shard, and its timestamp is their maximum.
    pub(super) fn check_yes(&self, older: Older, txn: usize, s: Timestamp) -> Check {
        let (shards, _) = shards_of(txn, older);
        if shards.len() == 1 {
            let outcome = self.twins[shards[0]].stays[txn].outcome;
            return ensure(outcome == Some(Outcome::Committed(s)), || {
                format!("U3: {} is committed before its entry is decided", name(txn))
            });
        }
        let mut highest = Timestamp(0);
        for shard in shards {
            let Some(at) = self.twins[*shard].stays[txn].intent else {
                return Err(format!(
                    "T2: {} is committed without a decided intent in shard {}",
                    name(txn),
                    shard + 1
                ));
            };
            highest = highest.max(at);
        }
        ensure(highest == s, || {
            format!(
                "T2: {} is committed at {s}, not at the maximum {highest}",
                name(txn)
            )
        })
    }

    /// T7: one version per attempt and key; T8: timestamps rise in slot order.
    fn write(
        &mut self,
        at: usize,
        slot: u64,
        attempt: AttemptId,
        timestamp: Timestamp,
        writes: &[Write],
    ) -> Check {
        for write in writes {
            let versions = self.twins[at]
                .versions
                .entry(write.key.clone())
                .or_default();
            ensure(versions.iter().all(|(_, a, _)| *a != attempt), || {
                format!("T7: {} is applied twice", name(txn_of(attempt)))
            })?;
            let newest = versions.last().map(|(ts, ..)| *ts).unwrap_or_default();
            ensure(timestamp > newest, || {
                format!(
                    "T8: {} at {timestamp} follows a version at {newest}",
                    name(txn_of(attempt))
                )
            })?;
            versions.push((timestamp, attempt, slot));
        }
        Ok(())
    }

    /// P7: what the leader gives the engine is what the entries say.
    fn compare_writes(&self, at: usize, out: &Out) -> Check {
        for batch in &out.writes {
            for (key, timestamp, attempt, _) in &batch.versions {
                let version = (*timestamp, *attempt, batch.slot.0);
                let known = self.twins[at].versions.get(key);
                ensure(known.is_some_and(|v| v.contains(&version)), || {
                    format!("P7: slot {} wrote what its entry does not say", batch.slot)
                })?;
            }
        }
        Ok(())
    }

    /// P7: the state is what the entries make of it; the first outcome wins.
    fn compare_state(&self, shard: &Shard) -> Check {
        let state = shard.leader.group.state();
        for (txn, stay) in self.twins[shard.index].stays.iter().enumerate() {
            let id = attempt(txn);
            let open = state.intents.contains_key(&id);
            ensure(open == stay.open.is_some(), || {
                format!(
                    "P7: shard {} has an open intent of {}: {open}; by its entries: {}",
                    shard.index + 1,
                    name(txn),
                    !open
                )
            })?;
            let record = state.records.get(&id).and_then(|r| r.outcome);
            let resolution = state.resolutions.get(&id).map(|r| r.outcome);
            for outcome in [record, resolution].into_iter().flatten() {
                ensure(stay.outcome.is_some_and(|o| same(o, outcome)), || {
                    format!(
                        "P7: shard {} has {} {outcome}; by its entries {:?}",
                        shard.index + 1,
                        name(txn),
                        stay.outcome
                    )
                })?;
            }
        }
        Ok(())
    }
}
