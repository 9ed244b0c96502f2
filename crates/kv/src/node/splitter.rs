//! The splitter cuts shards in two that have become too large or are asked too much
//! (decision 18).
//!
//! Like the keeper, whose thread it shares, it acts in the node that leads the meta shard: it asks
//! every node for the shards beyond a limit that it leads, has [`SplitPlanner`] decide, and
//! splits as an operator's command would. It goes on while the keeper moves replicas,
//! which may take long, and whether or not it is to.

use super::connections::Connections;
use super::driver::Driver;
use crate::config::NodeConfig;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use synod_operate::{Splitter as Split, Trouble};
use synod_paxos::{GroupId, NodeId};
use synod_placement::{Cause, ShardLoad, SplitLimits, SplitPlanner, Splits, Wish};
use synod_rpc::load::SplitsStatus;
use synod_rpc::{Pool, ask};
use synod_shard::wire::{ShardMap, show_key};
use synod_txn::Key;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// How long a map of many shards may take.
const MAP: Duration = Duration::from_secs(5);
/// How long one split may take; commits to the shard wait for parts of that.
const SPLIT: Duration = Duration::from_secs(10);

/// What an acting splitter goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SplitOrders {
    limits: SplitLimits,
    endpoints: Vec<SocketAddr>,
}

/// What a splitter tells of itself, but for its settings.
#[derive(Debug, Default)]
struct Report {
    doing: BTreeMap<GroupId, String>,
    problems: Vec<String>,
    by_size: u64,
    by_load: u64,
    failed: u64,
}

/// Nobody panics while holding it.
fn lock(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The handle that the node's loop has of it.
#[derive(Debug)]
pub(super) struct Splitter {
    orders: watch::Sender<Option<SplitOrders>>,
    report: Arc<Mutex<Report>>,
}

impl Splitter {
    /// The handle, and what is to be run on a thread; that ends when the handle is dropped.
    pub(super) fn new(config: &NodeConfig) -> (Splitter, SplitterAtWork) {
        let (orders, ordered) = watch::channel(None);
        let report = Arc::new(Mutex::new(Report::default()));
        let at_work = SplitterAtWork {
            connections: Connections::new(config),
            pause: config.keeper_look,
            report: report.clone(),
            planner: SplitPlanner::default(),
            begun: Instant::now(),
            ordered,
        };
        (Splitter { orders, report }, at_work)
    }
}

impl Driver {
    /// Tells the splitter what to go by; nothing if this node does not lead the meta shard, or
    /// the cluster's version does not allow splits yet: no id is spent on them then.
    pub(super) fn instruct_splitter(&mut self) {
        let version = self.machine.worker().map(synod_shard::Worker::version);
        let allowed = version >= Some(synod_txn::Command::SPLIT_SINCE);
        let orders = self.reading.latest().filter(|_| allowed).map(|records| {
            let nodes = self.machine.worker().map(|worker| &worker.map().nodes);
            SplitOrders {
                limits: SplitLimits::of(&records.settings),
                endpoints: nodes.into_iter().flatten().map(|n| n.address).collect(),
            }
        });
        self.splitter.orders.send_if_modified(|current| {
            let changed = *current != orders;
            if changed {
                *current = orders;
            }
            changed
        });
    }

    /// What the splitter does, if this node leads the meta shard.
    pub(super) fn splits_status(&self) -> Option<SplitsStatus> {
        let records = self.reading.latest()?;
        let report = lock(&self.splitter.report);
        Some(SplitsStatus {
            limits: SplitLimits::of(&records.settings),
            doing: report.doing.values().cloned().collect(),
            problems: report.problems.clone(),
            by_size: report.by_size,
            by_load: report.by_load,
            failed: report.failed,
        })
    }
}

/// The part on the thread.
pub(super) struct SplitterAtWork {
    connections: Connections,
    /// Between two looks.
    pause: Duration,
    report: Arc<Mutex<Report>>,
    planner: SplitPlanner,
    /// The moment that the planner's times count from.
    begun: Instant,
    ordered: watch::Receiver<Option<SplitOrders>>,
}

impl SplitterAtWork {
    /// A share of its connections, for whom it shares a thread with.
    pub(super) fn share_connections(&self) -> Connections {
        self.connections.share()
    }

    /// Looks again and again, until the node ends.
    pub(super) async fn run(mut self) {
        let mut ordered = self.ordered.clone();
        loop {
            let orders = ordered.borrow_and_update().clone();
            let Some(orders) = orders else {
                *lock(&self.report) = Report::default();
                self.planner = SplitPlanner::default();
                self.connections.close();
                if ordered.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let looks = async {
                tokio::time::sleep(self.pause).await;
                self.look(&orders).await;
            };
            tokio::select! {
                biased;
                // Somebody else acts from now on: a split on its way is left as it is.
                ended = ordered.wait_for(Option::is_none) => if ended.is_err() {
                    return;
                },
                () = looks => {}
            }
            lock(&self.report).doing.clear();
        }
    }

    /// Looks at all shards, and splits what is to be split now.
    async fn look(&mut self, orders: &SplitOrders) {
        let limits = &orders.limits;
        if limits.size == 0 && limits.load == 0 {
            lock(&self.report).problems.clear();
            return;
        }
        if let Err(reason) = self.split_what_is_due(orders).await {
            tracing::debug!(%reason, "nothing can be split now");
            lock(&self.report).problems = vec![reason];
        }
    }

    async fn split_what_is_due(&mut self, orders: &SplitOrders) -> Result<(), String> {
        let pool = self.connections.pool()?;
        let found = crowded(&pool, orders).await;
        let map = if found.is_empty() {
            ShardMap::default()
        } else {
            let map = synod_operate::map(&pool, &orders.endpoints, MAP).await;
            map.map_err(|trouble| trouble.to_string())?
        };
        let now = self.begun.elapsed();
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
        lock(&self.report).problems = problems;
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
        lock(&self.report).doing.insert(wish.shard, line);
    }

    fn ended(&mut self, wish: &Wish, done: Result<GroupId, Trouble>) {
        self.planner.ended(self.begun.elapsed(), wish, done.is_ok());
        let mut report = lock(&self.report);
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
                    Cause::Size(_) => report.by_size += 1,
                    Cause::Load(_) => report.by_load += 1,
                }
                tracing::info!(shard = wish.shard.0, child = child.0, %cause, "a shard is split");
            }
        }
    }
}

/// The shards beyond a limit, and who leads them. A node that does not answer is asked again next
/// time.
async fn crowded(pool: &Pool, orders: &SplitOrders) -> Vec<(NodeId, ShardLoad)> {
    let mut asked = JoinSet::new();
    for address in orders.endpoints.clone() {
        let (pool, limits) = (pool.clone(), orders.limits);
        asked.spawn(async move {
            let loads = ask::loads(&pool, address, Some(limits), ANSWER).await?;
            Ok::<_, String>(loads)
        });
    }
    let answers = asked.join_all().await.into_iter().flatten();
    let found = answers.flat_map(|loads| {
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
