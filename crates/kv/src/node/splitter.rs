//! The splitter cuts shards in two that have become too large or are asked too much
//! (decision 18).
//!
//! Like the keeper, whose thread it shares, it acts in the node that leads the meta shard: it asks
//! every node for the shards beyond a limit that it leads, has [`SplitPlanner`] decide, and
//! splits as an operator's command would. It goes on while the keeper moves replicas,
//! which may take long, and whether or not it is to.

use super::chores::{self, Chore, Desk, Handle};
use super::connections::Connections;
use super::driver::Driver;
use crate::config::NodeConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use synod_operate::{Splitter as Split, Trouble};
use synod_paxos::{GroupId, NodeId};
use synod_placement::{Cause, Ended, ShardLoad, SplitLimits, SplitPlanner, Splits, Wish};
use synod_rpc::Pool;
use synod_rpc::load::SplitsStatus;
use synod_shard::wire::{ShardMap, show_key};
use synod_txn::Key;
use tokio::task::JoinSet;

/// How long one split may take; commits to the shard wait for parts of that.
const SPLIT: Duration = Duration::from_secs(10);

/// What an acting splitter goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SplitOrders {
    limits: SplitLimits,
    endpoints: Vec<SocketAddr>,
}

/// How many shards it has split, and why.
#[derive(Debug, Default)]
pub(super) struct SplitCounts {
    by_size: u64,
    by_load: u64,
}

/// The handle that the node's loop has of it.
pub(super) type Splitter = Handle<SplitOrders, SplitCounts>;

/// The handle, and what is to be run on a thread.
pub(super) fn new(config: &NodeConfig, connections: Connections) -> (Splitter, SplitterAtWork) {
    let (handle, desk) = Handle::new(config, connections);
    let planner = SplitPlanner::default();
    (handle, SplitterAtWork { desk, planner })
}

impl Driver {
    /// Tells the splitter what to go by; nothing if this node does not lead the meta shard, or
    /// the cluster's version does not allow splits yet: no id is spent on them then.
    pub(super) fn instruct_splitter(&mut self) {
        let allowed = self.is_allowed(synod_txn::Command::SPLIT_SINCE);
        let orders = self.reading.latest().filter(|_| allowed);
        let orders = orders.map(|records| SplitOrders {
            limits: SplitLimits::of(&records.settings),
            endpoints: self.endpoints(),
        });
        self.splitter.instruct(orders);
    }

    /// What the splitter does, if this node leads the meta shard.
    pub(super) fn splits_status(&self) -> Option<SplitsStatus> {
        let records = self.reading.latest()?;
        let report = self.splitter.report();
        Some(SplitsStatus {
            limits: SplitLimits::of(&records.settings),
            doing: report.doing.values().cloned().collect(),
            problems: report.problems.clone(),
            by_size: report.done.by_size,
            by_load: report.done.by_load,
            failed: report.failed,
        })
    }
}

/// The part on the thread.
pub(super) struct SplitterAtWork {
    desk: Desk<SplitOrders, SplitCounts>,
    planner: SplitPlanner,
}

impl Chore for SplitterAtWork {
    type Orders = SplitOrders;
    type Done = SplitCounts;

    fn desk(&mut self) -> &mut Desk<SplitOrders, SplitCounts> {
        &mut self.desk
    }

    fn forget(&mut self) {
        self.planner = SplitPlanner::default();
    }

    fn rest(&self, _orders: &SplitOrders) -> Duration {
        self.desk.pause
    }

    async fn look(&mut self, orders: &SplitOrders) {
        let limits = &orders.limits;
        if limits.size == 0 && limits.load == 0 {
            self.desk.report().problems.clear();
            return;
        }
        if let Err(reason) = self.split_what_is_due(orders).await {
            tracing::debug!(%reason, "nothing can be split now");
            self.desk.report().problems = vec![reason];
        }
    }
}

impl SplitterAtWork {
    async fn split_what_is_due(&mut self, orders: &SplitOrders) -> Result<(), String> {
        let pool = self.desk.connections.pool()?;
        let found = crowded(&pool, orders).await;
        let map = if found.is_empty() {
            ShardMap::default()
        } else {
            chores::whole_map(&pool, &orders.endpoints).await?
        };
        let now = self.desk.now();
        let splits = self
            .planner
            .plan(now, &orders.limits, map.shards.len(), &found);
        let Splits {
            now: wishes,
            problems,
            news,
        } = splits;
        for problem in news {
            tracing::warn!("splits: {problem}");
        }
        self.desk.report().problems = problems;
        let map = Arc::new(map);
        let endpoints: Arc<[SocketAddr]> = orders.endpoints.clone().into();
        let mut under_way = JoinSet::new();
        for wish in wishes {
            self.tell(&wish);
            let (pool, endpoints, map) = (pool.clone(), endpoints.clone(), map.clone());
            under_way.spawn_local(async move {
                let done = split(&pool, &endpoints, &map, &wish).await;
                (wish, done)
            });
        }
        while let Some(ended) = under_way.join_next().await {
            let (wish, done) = ended.map_err(|error| error.to_string())?;
            self.ended(&wish, done);
        }
        Ok(())
    }

    fn tell(&self, wish: &Wish) {
        let at = show_key(&Key::copy_from_slice(&wish.at));
        let line = format!("shard {}: split at {at}, as {}", wish.shard.0, wish.cause);
        tracing::info!("splits: {line}");
        self.desk.report().doing.insert(wish.shard, line);
    }

    fn ended(&mut self, wish: &Wish, done: Result<GroupId, Trouble>) {
        let ended = match &done {
            Ok(_) => Ended::Done,
            Err(trouble) => Ended::Failed(trouble.to_string()),
        };
        self.planner.ended(self.desk.now(), wish, ended);
        let mut report = self.desk.report();
        report.doing.remove(&wish.shard);
        match (done, wish.cause) {
            (Err(trouble), _) => {
                report.failed += 1;
                tracing::warn!(shard = wish.shard.0, %trouble, "a shard is not split, for now");
                let line = format!(
                    "shard {}: it is not split, for now: {trouble}",
                    wish.shard.0
                );
                report.problems.push(line);
            }
            (Ok(child), cause) => {
                match cause {
                    Cause::Size(_) => report.done.by_size += 1,
                    Cause::Load(_) => report.done.by_load += 1,
                }
                tracing::info!(shard = wish.shard.0, child = child.0, %cause, "a shard is split");
            }
        }
    }
}

/// The shards beyond a limit, and who leads them.
async fn crowded(pool: &Pool, orders: &SplitOrders) -> Vec<(NodeId, ShardLoad)> {
    let told = chores::loads(pool, &orders.endpoints, Some(orders.limits)).await;
    let found = told.into_iter().flat_map(|loads| {
        let node = loads.node;
        loads.shards.into_iter().map(move |load| (node, load))
    });
    found.collect()
}

/// Splits one shard. It returns the new one.
async fn split(
    pool: &Pool,
    endpoints: &[SocketAddr],
    map: &ShardMap,
    wish: &Wish,
) -> Result<GroupId, Trouble> {
    let deadline = Instant::now() + SPLIT;
    let at = Key::copy_from_slice(&wish.at);
    let parent = map.shard(wish.shard).filter(|s| s.span.contains(&at));
    let parent = parent
        .ok_or_else(|| Trouble::Failed("the map does not show the key in it yet".to_owned()))?;
    let mut split = Split::new(pool, endpoints, at, deadline).led_by(wish.node);
    let child = split.claim(map, uuid::Uuid::new_v4().as_u128()).await?;
    if split.press(map, parent, child, SPLIT).await? {
        return Ok(child);
    }
    Err(Trouble::Failed(split.why().to_owned()))
}
