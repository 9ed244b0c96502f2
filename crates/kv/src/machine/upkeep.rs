//! What a node does besides serving: it watches its disk (L6), and keeps the
//! log short by checkpoints of the engine (§8).
//!
//! A checkpoint goes: replicated states to the engine, engine synced, replicas
//! trim their logs, then every group's whole durable state is written once more
//! at the log's end (its *base*); once those are synced, everything before them goes.
//! States, trims and bases are done a little at a time, with turns of the loop between them: all at
//! once they took a fifth of a second in which nobody was served. Records of a group that stand between the
//! first base and its own belong to what its base says; a replay of a log that begins there skips them.

use super::{Lanes, Machine, MachineSettings};
use crate::lane::{EngineWork, Garbage};
use crate::log::LogRecord;
use std::collections::VecDeque;
use synod_paxos::{Durable, GroupId, Slot};
use synod_probe::{Mutation, mutated};
use synod_shard::{Input, ShardDescriptor, Worker};

/// What a base takes besides its entries, in entries that are dropped.
const BASE_WORK: u64 = 8;

/// Bytes of bases that go to the log at once, beside one.
const BASE_BYTES: usize = 8 << 20;

/// Shards, and up to which slots.
type Slots = Vec<(GroupId, Slot)>;

#[derive(Debug, PartialEq, Eq)]
enum Checkpointing {
    Idle,
    /// States go to the engine.
    States {
        left: Vec<GroupId>,
        slots: Slots,
        garbage: Vec<Garbage>,
    },
    /// The engine syncs them.
    Engine {
        slots: Slots,
    },
    /// The engine holds these states for good: what they need of the logs goes.
    Trims {
        left: Slots,
    },
    /// The bases go to the log, under these tickets: these groups' are left.
    Bases {
        left: Vec<GroupId>,
        first: u64,
        last: u64,
        /// Bytes of those that may not be synced yet.
        unsynced: usize,
    },
}

/// The state of upkeep.
#[derive(Debug)]
pub(super) struct Upkeep {
    settings: MachineSettings,
    /// Bytes the last bases took: what no trim can free.
    base_bytes: u64,
    healthy: bool,
    /// Replicas without data take no entries.
    full: bool,
    checkpointing: Checkpointing,
    /// Everything through this of the log's lane is synced.
    synced: u64,
    /// Tickets of the log's lane, and the worker's tickets they stand for.
    submitted: u64,
    pending: VecDeque<(u64, u64)>,
}

impl Upkeep {
    pub(super) fn new(settings: MachineSettings) -> Upkeep {
        Upkeep {
            settings,
            base_bytes: 0,
            healthy: true,
            full: false,
            checkpointing: Checkpointing::Idle,
            synced: 0,
            submitted: 0,
            pending: VecDeque::new(),
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// The replica's data is another than when its state was submitted.
    pub(super) fn forget(&mut self, group: GroupId) {
        match &mut self.checkpointing {
            Checkpointing::States { slots, .. }
            | Checkpointing::Engine { slots }
            | Checkpointing::Trims { left: slots } => slots.retain(|(kept, _)| *kept != group),
            Checkpointing::Idle | Checkpointing::Bases { .. } => {}
        }
    }

    /// The engine holds the states that were submitted, synced.
    pub(super) fn checkpointed(&mut self) {
        if let Checkpointing::Engine { slots } = &mut self.checkpointing {
            let left = std::mem::take(slots);
            self.checkpointing = Checkpointing::Trims { left };
        }
    }

    /// Whether a checkpoint goes on with the next turn, whatever else there is.
    pub(super) fn goes_on(&self) -> bool {
        match &self.checkpointing {
            Checkpointing::States { .. } | Checkpointing::Trims { .. } => true,
            // The log takes so many at a time that what others wait for is not long behind them.
            Checkpointing::Bases {
                left,
                last,
                unsynced,
                ..
            } => !left.is_empty() && (*unsynced < BASE_BYTES || self.synced >= *last),
            Checkpointing::Idle | Checkpointing::Engine { .. } => false,
        }
    }
}

impl Machine {
    /// Gives records to the log. `ticket` is the worker's, if it waits.
    pub fn submit(
        &mut self,
        lanes: &mut impl Lanes,
        records: Vec<LogRecord>,
        ticket: Option<u64>,
    ) -> u64 {
        self.upkeep.submitted += 1;
        let number = self.upkeep.submitted;
        if let Some(ticket) = ticket {
            self.upkeep.pending.push_back((number, ticket));
        }
        lanes.submit_log(records, number);
        number
    }

    /// The log holds everything submitted up to `number`.
    pub fn log_synced(&mut self, lanes: &mut impl Lanes, number: u64) {
        self.upkeep.synced = self.upkeep.synced.max(number);
        let mut highest = None;
        while let Some((at, ticket)) = self.upkeep.pending.front().copied() {
            if at > number {
                break;
            }
            highest = Some(ticket);
            self.upkeep.pending.pop_front();
        }
        if let Some(ticket) = highest {
            self.input(lanes, Input::Logged { ticket });
        }
        if let Checkpointing::Bases {
            left, first, last, ..
        } = &self.upkeep.checkpointing
            && left.is_empty()
            && number >= *last
        {
            lanes.trim_log(*first);
            self.upkeep.checkpointing = Checkpointing::Idle;
        }
    }

    /// Looks at disk and log.
    pub(super) fn upkeep(&mut self, lanes: &mut impl Lanes) {
        let stalled = lanes
            .log_waits()
            .is_some_and(|waits| waits > self.upkeep.settings.stall);
        if stalled == self.upkeep.healthy {
            self.upkeep.healthy = !stalled;
            if stalled {
                tracing::warn!("the log's disk stalls; leaderships are handed over (L6)");
            }
            self.input(lanes, Input::DiskHealth { healthy: !stalled });
        }
        self.tell_of_unfilled();
        let goes_on = self.upkeep.goes_on();
        match std::mem::replace(&mut self.upkeep.checkpointing, Checkpointing::Idle) {
            Checkpointing::Idle if self.worker.is_some() && self.log_is_long(lanes) => {
                let shards = self.worker.iter().flat_map(|worker| worker.shards());
                let left = shards.map(|shard| shard.descriptor().id).collect();
                let garbage = self.garbage();
                self.keep_states(lanes, left, Slots::new(), garbage);
            }
            Checkpointing::States {
                left,
                slots,
                garbage,
            } => self.keep_states(lanes, left, slots, garbage),
            Checkpointing::Trims { left } => self.trim(lanes, left),
            Checkpointing::Bases {
                left,
                first,
                last,
                unsynced,
            } if goes_on => {
                let unsynced = if self.upkeep.synced < last {
                    unsynced
                } else {
                    0
                };
                self.write_bases(lanes, left, (first, last), unsynced);
            }
            other => self.upkeep.checkpointing = other,
        }
    }

    fn tell_of_unfilled(&mut self) {
        let worker = self.worker.as_ref();
        let full = worker.and_then(Worker::unfilled_log_is_full);
        if full.is_some() == self.upkeep.full {
            return;
        }
        self.upkeep.full = full.is_some();
        match full {
            Some(bytes) => tracing::warn!(
                bytes,
                "replicas that wait for their data, or for a newer program, hold so much log that \
                 they take no more of it until then; their shards' other replicas go on without \
                 them"
            ),
            None => tracing::info!("replicas that waited for their data take entries again"),
        }
    }

    fn log_is_long(&self, lanes: &impl Lanes) -> bool {
        // Bases that are larger than what is trimmed are not written again for each of its bytes.
        let kept = self.upkeep.base_bytes;
        lanes.log_bytes() > kept + kept.max(self.upkeep.settings.log_trim_bytes)
    }

    /// Gives some more states to the engine; after the last one it syncs.
    fn keep_states(
        &mut self,
        lanes: &mut impl Lanes,
        mut left: Vec<GroupId>,
        mut slots: Slots,
        garbage: Vec<Garbage>,
    ) {
        // A state may go to the engine only after every version it implies.
        self.settle(lanes);
        if !mutated(Mutation::StateBeforeVersions) {
            self.flush_applies(lanes);
        }
        let mut attempts = 0;
        while attempts < self.upkeep.settings.attempts_per_turn
            && let Some(group) = left.pop()
        {
            let worker = self.worker.as_ref();
            let Some((slot, state)) = worker.and_then(|worker| worker.checkpoint(group)) else {
                continue;
            };
            if slot > Slot(0) {
                attempts += state.attempts();
                slots.push((group, slot));
                lanes.submit_engine(EngineWork::State { group, slot, state });
            }
        }
        self.upkeep.checkpointing = if left.is_empty() {
            lanes.submit_engine(EngineWork::Checkpoint { garbage });
            Checkpointing::Engine { slots }
        } else {
            Checkpointing::States {
                left,
                slots,
                garbage,
            }
        };
    }

    /// What nobody can read any more (R5).
    fn garbage(&self) -> Vec<Garbage> {
        let shards = self.worker.iter().flat_map(|worker| worker.shards());
        let garbage = shards.map(|shard| Garbage {
            group: shard.descriptor().id,
            span: shard.descriptor().span.clone(),
            horizon: shard.group().horizon(),
            last: shard.group().last(),
        });
        garbage.collect()
    }

    /// Trims replicas' logs a little further; once all are, their bases follow.
    fn trim(&mut self, lanes: &mut impl Lanes, mut left: Slots) {
        let most = self.upkeep.settings.trims_per_turn;
        let mut entries = 0;
        while entries < most
            && let Some((group, through)) = left.last().copied()
        {
            let Some(before) = self.trimmed(group) else {
                left.pop();
                continue;
            };
            let slot = through.min(Slot(before.0 + most - entries));
            self.input(lanes, Input::Checkpointed { group, slot });
            let after = self.trimmed(group).unwrap_or(before);
            entries += after.0.saturating_sub(before.0);
            // Where it did not come as far as asked for, something else needs the entries.
            if after < slot || slot == through {
                left.pop();
            }
        }
        if left.is_empty() {
            self.begin_bases(lanes);
        } else {
            self.upkeep.checkpointing = Checkpointing::Trims { left };
        }
    }

    fn trimmed(&self, group: GroupId) -> Option<Slot> {
        let shard = self.worker.as_ref()?.shard(group)?;
        Some(shard.replica().trimmed())
    }

    /// From here on is the part of the log that must stay.
    fn begin_bases(&mut self, lanes: &mut impl Lanes) {
        let Some(worker) = &self.worker else {
            return;
        };
        let left = worker.shards().map(|shard| shard.descriptor().id).collect();
        let leases = worker.lease_records().into_iter();
        let leases = leases.map(LogRecord::Lease).collect();
        self.upkeep.base_bytes = 0;
        let first = self.submit(lanes, leases, None);
        self.write_bases(lanes, left, (first, first), 0);
    }

    /// Writes some more bases.
    fn write_bases(
        &mut self,
        lanes: &mut impl Lanes,
        mut left: Vec<GroupId>,
        (first, mut last): (u64, u64),
        unsynced: usize,
    ) {
        // What replicas have to say by now, the trims too, goes first, so that the bases contain it.
        self.settle(lanes);
        let most = self.upkeep.settings.trims_per_turn;
        let (mut work, mut bytes) = (0, 0);
        while work < most
            && bytes < BASE_BYTES
            && let Some(group) = left.pop()
        {
            let worker = self.worker.as_ref();
            let Some((shard, durable)) = worker.and_then(|worker| worker.base(group)) else {
                continue;
            };
            work += BASE_WORK + durable.entries.len() as u64;
            bytes += shard.replica().log_bytes();
            self.upkeep.base_bytes += shard.replica().log_bytes() as u64;
            let records = base(shard.descriptor(), durable);
            last = self.submit(lanes, records, None);
        }
        self.upkeep.checkpointing = Checkpointing::Bases {
            left,
            first,
            last,
            unsynced: unsynced + bytes,
        };
    }
}

/// What the log repeats of a replica. The shards that a cluster begins with are known as
/// long as they are as they were.
fn base(descriptor: &ShardDescriptor, durable: Durable) -> Vec<LogRecord> {
    let group = descriptor.id;
    let durable = Box::new(durable);
    let base = LogRecord::Base { group, durable };
    if descriptor.generation > 1 {
        vec![LogRecord::Shard(Box::new(descriptor.clone())), base]
    } else {
        vec![base]
    }
}
