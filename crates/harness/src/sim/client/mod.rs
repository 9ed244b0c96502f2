//! Simulated clients: the real transaction machine, driven as the SDK drives
//! it, running several workloads and recording what it was told.
//!
//! # How a run uses them
//!
//! One [`Workload`] is made from the shard map and a [`ClientConfig`]; it lays the
//! keys out over whatever user shards the map has. Each [`SimClient`] is one
//! process that runs one transaction at a time; many of them make the load.
//!
//! * [`SimClient::wake`] when its time has come, [`SimClient::answered`] when an
//!   answer reaches it; both push what is to be sent to `wants`.
//! * After either, and after [`SimClient::stop`], [`SimClient::pause`] and
//!   [`SimClient::revive`], ask [`SimClient::arm`]: where it says a time, a wake is
//!   to be scheduled then. No more than one is outstanding, save where an earlier
//!   one became necessary; a wake that comes for nothing does no harm.
//! * [`SimClient::keep_alive`] says what the client tells all nodes every so often.
//! * [`SimClient::vanish`]: it is gone in mid-transaction. [`SimClient::revive`]: it
//!   is back, as another process with another id.
//! * [`SimClient::stop`] once the faults are over: it finishes what it runs, does
//!   its final reads, and then [`SimClient::is_idle`] stays true. The one client
//!   that is stopped as `reader` reads everything; stop it when all others are
//!   idle, to hold every acknowledged commit against what is there.
//! * At the end [`finish`] checks all histories, and [`tally`] sums what was done.
//!
//! First data is loaded by the clients' own transactions. Nothing here looks at a
//! clock or at another source of chance: equal calls give equal clients.

mod config;
mod delivery;
mod herd;
mod histories;
mod keys;
mod running;
mod table;
mod times;
mod work;

#[cfg(test)]
mod tests;

pub(super) use config::{ClientConfig, Workload};
pub(super) use herd::Herd;
pub(super) use histories::{Histories, finish};
pub use times::CommitTimes;
pub(super) use times::commit_times;

use super::random::Random;
use delivery::{Delivery, Patience};
use running::Running;
use std::sync::Arc;
use synod_paxos::{NodeId, Timestamp};
use synod_shard::{ShardDescriptor, ShardReply, ShardRequest};
use synod_txn::{AttemptId, ClientId};
use work::{Last, Memory};

/// Processes of one client, which come one after the other, are this far apart.
const PROCESSES: u32 = 10_000;

/// What a client wants of the simulator.
#[derive(Debug)]
pub(super) enum Want {
    /// Deliver a request.
    Send {
        /// To this node.
        to: NodeId,
        /// The answer comes back under this number; never used twice.
        number: u64,
        /// The request.
        request: Box<ShardRequest>,
        /// Send it this much later; nanoseconds.
        after: u64,
    },
    /// Tell a node that nobody waits for an answer any more.
    Cancel {
        /// This node.
        to: NodeId,
        /// The request.
        number: u64,
    },
}

/// The pace of clients where it is not that of their workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Each pauses this long between two transactions, at most.
    Alone(u64),
    /// Most pause together, about this long at most, and come back together.
    Crowd(u64),
}

/// What a client is at when it runs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// It goes on with the next transaction.
    Working,
    /// The final reads; until when they may be tried again.
    Last(Last, u64),
    /// It does nothing any more.
    Done,
    /// It vanished.
    Gone,
}

/// A client's patience with a silent leader, so many times as long as usual.
fn patience(config: &ClientConfig, times: u64) -> Patience {
    Patience {
        probe_after: config.probe_after * times,
        attempt_timeout: config.attempt_timeout * times,
        round_pause: config.round_pause,
        longest_pause: config.longest_pause,
        withdraws: config.withdraws,
    }
}

/// A client: one process, one transaction at a time.
pub(super) struct SimClient {
    workload: Arc<Workload>,
    id: u32,
    /// How often it came back under another id.
    lives: u32,
    /// The process its transactions are recorded under, in steps of [`PROCESSES`]:
    /// one whose outcome is unknown never runs another.
    processes: u32,
    random: Random,
    delivery: Delivery,
    running: Option<Running>,
    memory: Memory,
    mode: Mode,
    reader: bool,
    idle_until: u64,
    /// Pauses between transactions; none = as the workload has it.
    pace: Option<Pace>,
    paused_until: u64,
    /// Answers that came during a pause.
    inbox: Vec<(u64, ShardReply)>,
    /// The earliest wake that was asked for.
    armed: u64,
    /// What it did and was told.
    pub(super) histories: Histories,
}

impl SimClient {
    /// Client number `id`, at most 9,999, at the place of `herd`. Equal seeds give
    /// equal clients.
    pub(super) fn new(id: u32, workload: &Arc<Workload>, herd: &Herd, seed: u64) -> SimClient {
        let config = &workload.config;
        // Some of every site.
        let reads_only = config.readers && (id / 5) % 3 == 1;
        // A reader stays with the leader it knows.
        let patience = patience(config, if reads_only { 12 } else { 1 });
        SimClient {
            id,
            lives: 0,
            processes: 0,
            random: Random::new(seed ^ u64::from(id + 1) << 40),
            delivery: Delivery::new(workload.table.clone(), patience, herd.clone()),
            running: None,
            memory: Memory::new(id, workload.keys.lists(), reads_only),
            mode: Mode::Working,
            reader: false,
            idle_until: 0,
            pace: None,
            paused_until: 0,
            inbox: Vec::new(),
            armed: u64::MAX,
            histories: Histories::default(),
            workload: workload.clone(),
        }
    }

    /// The id its sessions are kept under.
    pub(super) fn client_id(&self) -> ClientId {
        ClientId(u64::from(self.id) + 1 + (u64::from(self.lives) << 32))
    }

    /// What it tells all nodes every so often: its id and its transactions under
    /// way. None while it says nothing.
    pub(super) fn keep_alive(&self, t: u64) -> Option<(ClientId, Vec<AttemptId>)> {
        let silent = self.mode == Mode::Gone || self.paused_until > t;
        (!silent).then(|| (self.client_id(), self.live()))
    }

    /// The attempt under way.
    pub(super) fn live(&self) -> Vec<AttemptId> {
        let running = self.running.iter();
        running.map(|r| r.machine.attempt()).collect()
    }

    /// Whether it has nothing to do any more: stopped and through with its final
    /// reads, or gone.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none() && matches!(self.mode, Mode::Done | Mode::Gone)
    }

    /// Whether it vanished, and has not come back.
    pub(super) fn is_gone(&self) -> bool {
        self.mode == Mode::Gone
    }

    /// When it next wants [`SimClient::wake`]; none if never. What lies in the past
    /// means at once.
    pub(super) fn next_wake(&self) -> Option<u64> {
        if self.mode == Mode::Gone {
            return None;
        }
        let own = match &self.running {
            Some(running) => running.restart_at,
            None if self.mode == Mode::Done => None,
            None => Some(self.idle_until),
        };
        let next = self.delivery.due().min(own.unwrap_or(u64::MAX));
        let next = if self.inbox.is_empty() {
            next
        } else {
            next.min(self.paused_until)
        };
        (next < u64::MAX).then(|| next.max(self.paused_until))
    }

    /// A time at which a wake is to be scheduled; none where one that was asked
    /// for before comes early enough.
    pub(super) fn arm(&mut self) -> Option<u64> {
        let next = self.next_wake().filter(|next| *next < self.armed)?;
        self.armed = next;
        Some(next)
    }

    /// Its time has come. `wall` is the clock of the client's machine.
    pub(super) fn wake(&mut self, t: u64, wall: Timestamp, wants: &mut Vec<Want>) {
        if t >= self.armed {
            self.armed = u64::MAX;
        }
        if self.mode == Mode::Gone || t < self.paused_until {
            return;
        }
        self.delivery.look_at_clock(t, wall);
        for (number, reply) in std::mem::take(&mut self.inbox) {
            self.delivery.answered(t, number, reply, &mut self.random);
        }
        self.delivery.tick(t, &mut self.random);
        self.pump(t);
        wants.append(&mut self.delivery.wants);
    }

    /// An answer reached it.
    pub(super) fn answered(
        &mut self,
        t: u64,
        number: u64,
        reply: ShardReply,
        wants: &mut Vec<Want>,
    ) {
        if self.mode == Mode::Gone {
            return;
        }
        if t < self.paused_until {
            self.inbox.push((number, reply));
            return;
        }
        self.delivery.answered(t, number, reply, &mut self.random);
        self.pump(t);
        wants.append(&mut self.delivery.wants);
    }

    /// It asked a node for its map.
    pub(super) fn learn_map(&mut self, shards: &[ShardDescriptor]) {
        self.delivery.table.learn_map(shards);
    }

    /// From now on it pauses like this between two transactions; none = as the
    /// workload has it.
    pub(super) fn set_pace(&mut self, t: u64, pace: Option<Pace>) {
        self.pace = pace;
        if pace.is_none() && self.idle_until > t {
            self.idle_until = t;
        }
    }

    /// The process stops, and goes on at `until`: what reaches it meanwhile waits.
    pub(super) fn pause(&mut self, until: u64) {
        self.paused_until = self.paused_until.max(until);
    }

    /// It dies: sends nothing any more, and never learns how its transaction ended.
    pub(super) fn vanish(&mut self, t: u64) {
        self.close(t);
        self.delivery.clear();
        self.inbox.clear();
        self.mode = Mode::Gone;
    }

    /// A new process takes the place of one that vanished: it knows what the map
    /// says and no more.
    pub(super) fn revive(&mut self, t: u64) {
        if self.mode != Mode::Gone {
            return;
        }
        self.lives += 1;
        self.processes += 1;
        self.delivery.table = self.workload.table.clone();
        self.memory.forget();
        self.mode = Mode::Working;
        self.paused_until = 0;
        self.idle_until = t;
        self.armed = u64::MAX;
    }

    /// The faults are over: no more new transactions, but the final reads; the
    /// `reader` reads everything. One that has vanished stays gone. Whoever was
    /// patient is so no more: frames are still lost, and the final reads are many.
    pub(super) fn stop(&mut self, t: u64, reader: bool) {
        if matches!(self.mode, Mode::Working | Mode::Done) {
            let until = t + self.workload.config.last_deadline;
            self.mode = Mode::Last(Last::Own, until);
            self.delivery.patience = patience(&self.workload.config, 1);
            self.reader = reader;
            self.pace = None;
            self.idle_until = t;
            self.paused_until = 0;
            self.armed = u64::MAX;
        }
    }
}
