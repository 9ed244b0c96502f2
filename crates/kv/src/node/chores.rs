//! Chores: what the node that leads the meta shard does for the whole cluster again and again,
//! beside the keeper, whose thread they share: the splitter and the merger.
//!
//! The node's loop has a [`Handle`] of each, by which it says what to go by and reads what was
//! done. Every node has them; who is told nothing, rests.

use super::connections::Connections;
use super::driver::Driver;
use crate::config::NodeConfig;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use synod_operate::{Trouble, map};
use synod_paxos::{ClusterVersion, GroupId};
use synod_placement::SplitLimits;
use synod_rpc::load::LoadStatus;
use synod_rpc::{Pool, ask};
use synod_shard::wire::ShardMap;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a node may take to answer.
pub(super) const ANSWER: Duration = Duration::from_secs(1);
/// How long a map of many shards may take.
const MAP: Duration = Duration::from_secs(5);

/// What a chore tells of itself; `D` counts what it has done.
#[derive(Debug, Default)]
pub(super) struct Report<D> {
    /// A line for each shard in hand.
    pub(super) doing: BTreeMap<GroupId, String>,
    pub(super) problems: Vec<String>,
    pub(super) done: D,
    pub(super) failed: u64,
}

type Shared<D> = Arc<Mutex<Report<D>>>;

/// Nobody panics while holding it.
fn lock<D>(report: &Shared<D>) -> MutexGuard<'_, Report<D>> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the node's loop has of a chore that goes by `O`.
#[derive(Debug)]
pub(super) struct Handle<O, D> {
    orders: watch::Sender<Option<O>>,
    report: Shared<D>,
}

/// What the part on the thread has of it.
pub(super) struct Desk<O, D> {
    pub(super) connections: Connections,
    /// Between two looks while something happens.
    pub(super) pause: Duration,
    ordered: watch::Receiver<Option<O>>,
    report: Shared<D>,
    begun: Instant,
}

impl<O: PartialEq, D: Default> Handle<O, D> {
    /// The handle, and the other end; the chore ends when the handle is dropped.
    pub(super) fn new(config: &NodeConfig, connections: Connections) -> (Handle<O, D>, Desk<O, D>) {
        let (orders, ordered) = watch::channel(None);
        let report = Shared::default();
        let desk = Desk {
            connections,
            pause: config.keeper_look,
            ordered,
            report: report.clone(),
            begun: Instant::now(),
        };
        (Handle { orders, report }, desk)
    }

    /// Says what to go by; nothing if this node is not to act.
    pub(super) fn instruct(&self, orders: Option<O>) {
        instruct(&self.orders, orders);
    }

    /// What it tells of itself.
    pub(super) fn report(&self) -> MutexGuard<'_, Report<D>> {
        lock(&self.report)
    }
}

impl<O, D> Desk<O, D> {
    /// What is told of the chore.
    pub(super) fn report(&self) -> MutexGuard<'_, Report<D>> {
        lock(&self.report)
    }

    /// The time since a fixed moment.
    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// Says what to go by, if that is news.
pub(super) fn instruct<O: PartialEq>(sender: &watch::Sender<Option<O>>, orders: Option<O>) {
    sender.send_if_modified(|current| {
        let changed = *current != orders;
        if changed {
            *current = orders;
        }
        changed
    });
}

/// The part on the thread.
pub(super) trait Chore {
    /// What it goes by.
    type Orders: Clone + PartialEq;
    /// What it has done.
    type Done: Default;

    /// Its end of the handle.
    fn desk(&mut self) -> &mut Desk<Self::Orders, Self::Done>;

    /// Somebody else acts: what is remembered is worth nothing any more.
    fn forget(&mut self);

    /// How long after the last look the next one is due.
    fn rest(&self, orders: &Self::Orders) -> Duration;

    /// Looks at the cluster, and does what is to be done now.
    async fn look(&mut self, orders: &Self::Orders);
}

/// Looks again and again, until the node ends.
pub(super) async fn run<C: Chore>(mut chore: C) {
    let mut ordered = chore.desk().ordered.clone();
    let mut looked = Instant::now();
    loop {
        let orders = ordered.borrow_and_update().clone();
        let Some(orders) = orders else {
            chore.forget();
            *chore.desk().report() = Report::default();
            chore.desk().connections.close();
            if ordered.changed().await.is_err() {
                return;
            }
            looked = Instant::now();
            continue;
        };
        let due = looked + chore.rest(&orders);
        tokio::select! {
            biased;
            changed = ordered.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = tokio::time::sleep_until(due.into()) => {}
        }
        tokio::select! {
            biased;
            // Somebody else acts from now on: what is under way is left as it is.
            ended = ordered.wait_for(Option::is_none) => if ended.is_err() {
                return;
            },
            () = chore.look(&orders) => {}
        }
        looked = Instant::now();
        chore.desk().report().doing.clear();
    }
}

/// What all nodes that answer tell of the shards that they lead, as [`ask::loads`]. One that does
/// not is asked again next time.
pub(super) async fn loads(
    pool: &Pool,
    endpoints: &[SocketAddr],
    above: Option<SplitLimits>,
) -> Vec<LoadStatus> {
    let mut asked = JoinSet::new();
    for address in endpoints.iter().copied() {
        let pool = pool.clone();
        asked.spawn(async move { ask::loads(&pool, address, above, ANSWER).await });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

/// The map of all shards; the error is in words.
pub(super) async fn whole_map(pool: &Pool, endpoints: &[SocketAddr]) -> Result<ShardMap, String> {
    let map = map(pool, endpoints, MAP).await;
    map.map_err(|trouble: Trouble| trouble.to_string())
}

impl Driver {
    /// Where the cluster's nodes are reached.
    pub(super) fn endpoints(&self) -> Vec<SocketAddr> {
        let nodes = self.machine.worker().map(|worker| &worker.map().nodes);
        nodes.into_iter().flatten().map(|n| n.address).collect()
    }

    /// Whether the cluster's version allows what came with this one.
    pub(super) fn is_allowed(&self, since: ClusterVersion) -> bool {
        let version = self.machine.worker().map(synod_shard::Worker::version);
        version >= Some(since)
    }
}
