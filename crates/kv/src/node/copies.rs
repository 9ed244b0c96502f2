//! Copies of shards as the node's loop has to do with them: when further ones are read, which
//! are taken in, what is told of them, and how fast all nodes may send (decision 20).

use super::chores::instruct;
use super::connections::Connections;
use super::driver::Driver;
use crate::config::NodeConfig;
use crate::lane::EngineEvent;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use synod_placement::CopyRate;
use synod_rpc::ask;
use synod_rpc::copies::CopiesStatus;
use synod_shard::Input;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A sync, or a turn of the loop, that takes longer says that copies should wait.
const SLOW: Duration = Duration::from_millis(25);
/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// What the loop noticed last of the log's thread.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    syncs: u64,
}

impl Driver {
    /// Notes whether this node has other things to do than to copy, and reads what may be read.
    pub(super) fn pace_copies(&mut self, begun: Instant, now: Instant) {
        let log = self.lanes.log.counters();
        let slow_sync = log.syncs != self.pulse.syncs && log.last_sync > SLOW;
        self.pulse.syncs = log.syncs;
        let waiting = self.lanes.log.waiting_since();
        let syncs_slowly = waiting.is_some_and(|since| now.saturating_duration_since(since) > SLOW);
        if slow_sync || syncs_slowly || now.saturating_duration_since(begun) > SLOW {
            self.lanes.pacer.press(now);
        }
        self.lanes.read_for_copies(now);
        while let Some((from, message)) = self.intake.next(now) {
            self.input(Input::Peer { from, message });
        }
    }

    /// How long the loop may wait for that.
    pub(super) fn copies_due_in(&self, now: Instant) -> Option<Duration> {
        let due = [self.lanes.pacer.due_in(now), self.intake.due_in(now)];
        due.into_iter().flatten().min()
    }

    /// Counts what the engine's thread has read for copies.
    pub(super) fn count_copies(&mut self, events: &[EngineEvent]) {
        for event in events {
            if let EngineEvent::Input(input) = event
                && let Input::SnapshotRead { data, .. } = &**input
            {
                self.lanes.pacer.read(data.len());
            }
        }
    }

    /// Takes over what the last look at the disk has found.
    pub(super) fn look_for_room(&mut self, now: Instant) {
        let Some(spare) = self.space.spare() else {
            return;
        };
        let worker = self.machine.worker();
        let receiving = |group| {
            let shard = worker.and_then(|worker| worker.shard(group));
            shard.is_some_and(|shard| shard.replica().incoming_snapshot().is_some())
        };
        self.intake.look(now, spare, receiving);
    }

    /// Answers about copies, and hears from the node that leads the meta shard how fast they may
    /// be; see [`NodeRequest::Copies`](synod_rpc::NodeRequest::Copies).
    pub(super) fn copies(&mut self, rate: Option<u64>, is_member: bool) -> CopiesStatus {
        let records = self.reading.latest();
        let own = records.map(|records| CopyRate::of(&records.settings).0);
        if let Some(rate) = own.or(rate.filter(|_| is_member)) {
            self.lanes.pacer.set_rate(rate);
        }
        let now = Instant::now();
        CopiesStatus {
            node: self.directory.identity().node,
            rate: self.lanes.pacer.rate(),
            yields: self.lanes.pacer.yields(now),
            sent: self.lanes.pacer.sent(),
            taken: self.intake.taken(),
            room: self.intake.room(),
            refused: self.intake.refused(now),
        }
    }

    /// Says what all nodes are to be told; nothing if this node does not lead the meta shard.
    pub(super) fn instruct_rates(&mut self) {
        let orders = self.reading.latest().map(|records| RateOrders {
            rate: CopyRate::of(&records.settings).0,
            endpoints: self.endpoints(),
        });
        instruct(&self.rates.0, orders);
    }
}

/// How fast all nodes may send copies, and where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RateOrders {
    rate: u64,
    endpoints: Vec<SocketAddr>,
}

/// The handle that the node's loop has.
#[derive(Debug)]
pub(super) struct Rates(watch::Sender<Option<RateOrders>>);

/// The part on the keeper's thread: while this node leads the meta shard, it tells all nodes.
pub(super) struct RatesAtWork {
    connections: Connections,
    pause: Duration,
    ordered: watch::Receiver<Option<RateOrders>>,
}

impl Rates {
    /// The handle, and what is to be run on a thread; that ends when the handle is dropped.
    pub(super) fn new(config: &NodeConfig) -> (Rates, RatesAtWork) {
        let (orders, ordered) = watch::channel(None);
        let at_work = RatesAtWork {
            connections: Connections::new(config),
            pause: config.keeper_look,
            ordered,
        };
        (Rates(orders), at_work)
    }
}

impl RatesAtWork {
    /// Tells them again and again: one that was restarted has forgotten.
    pub(super) async fn run(mut self) {
        loop {
            let orders = self.ordered.borrow_and_update().clone();
            match &orders {
                Some(orders) => self.tell(orders).await,
                None => self.connections.close(),
            }
            tokio::select! {
                changed = self.ordered.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(self.pause), if orders.is_some() => {}
            }
        }
    }

    async fn tell(&mut self, orders: &RateOrders) {
        let Ok(pool) = self.connections.pool() else {
            return;
        };
        let mut asked = JoinSet::new();
        for address in orders.endpoints.clone() {
            let (pool, rate) = (pool.clone(), orders.rate);
            asked.spawn(async move { ask::copies(&pool, address, Some(rate), ANSWER).await });
        }
        // One that does not answer is told next time.
        asked.join_all().await;
    }
}
