//! The merger makes neighbouring shards one that have been cold for long (decision 23).
//!
//! It is the splitter's counterpart, and acts where that does: it asks every node for the size and
//! load of the shards that it leads, has [`MergePlanner`] decide, and merges as an operator's
//! command would, except that it waits for nobody: what stands in the way now is tried again
//! later. It looks rarely while there is nothing to merge.

use super::chores::{self, ANSWER, Chore, Desk, Handle};
use super::connections::Connections;
use super::driver::Driver;
use crate::config::NodeConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use synod_operate::{Merger as Press, Trouble, policies};
use synod_paxos::{GroupId, NodeId};
use synod_placement::{
    Descent, Ended, Merge, MergeLimits, MergePlanner, Neighbour, Scene, ShardLoad, SplitLimits,
};
use synod_rpc::load::{LoadStatus, MergesStatus};
use synod_rpc::{Pool, ask};
use synod_shard::META_SHARD;
use synod_shard::wire::{RESERVED_PREFIX, ShardDescriptor, ShardMap};
use tokio::task::JoinSet;

/// How long one merge may take; commits to both shards wait for parts of that.
const MERGE: Duration = Duration::from_secs(10);
/// While nothing is to be merged, a look comes so many times in shard.merge_after ...
const LOOKS: u32 = 10;
/// ... and at least this often.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What an acting merger goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MergeOrders {
    limits: MergeLimits,
    splits: SplitLimits,
    /// As text by prefix.
    policies: BTreeMap<Vec<u8>, String>,
    endpoints: Vec<SocketAddr>,
}

/// The handle that the node's loop has of it. It counts the shards that became part of others.
pub(super) type Merger = Handle<MergeOrders, u64>;

/// The handle, and what is to be run on a thread.
pub(super) fn new(config: &NodeConfig, connections: Connections) -> (Merger, MergerAtWork) {
    let (handle, desk) = Handle::new(config, connections);
    let at_work = MergerAtWork {
        desk,
        planner: MergePlanner::default(),
        goes_on: false,
    };
    (handle, at_work)
}

impl Driver {
    /// Tells the merger what to go by; nothing if this node does not lead the meta shard, or
    /// the cluster's version does not allow merges yet.
    pub(super) fn instruct_merger(&mut self) {
        let allowed = self.is_allowed(synod_txn::Command::MERGE_SINCE);
        let orders = self.reading.latest().filter(|_| allowed);
        let orders = orders.map(|records| MergeOrders {
            limits: MergeLimits::of(&records.settings),
            splits: SplitLimits::of(&records.settings),
            policies: records.policies.clone(),
            endpoints: self.endpoints(),
        });
        self.merger.instruct(orders);
    }

    /// What the merger does, if this node leads the meta shard.
    pub(super) fn merges_status(&self) -> Option<MergesStatus> {
        let records = self.reading.latest()?;
        let report = self.merger.report();
        Some(MergesStatus {
            limits: MergeLimits::of(&records.settings),
            doing: report.doing.values().cloned().collect(),
            problems: report.problems.clone(),
            merged: report.done,
            failed: report.failed,
        })
    }
}

/// The part on the thread.
pub(super) struct MergerAtWork {
    desk: Desk<MergeOrders, u64>,
    planner: MergePlanner,
    /// Whether the last look left something to be merged.
    goes_on: bool,
}

impl Chore for MergerAtWork {
    type Orders = MergeOrders;
    type Done = u64;

    fn desk(&mut self) -> &mut Desk<MergeOrders, u64> {
        &mut self.desk
    }

    fn forget(&mut self) {
        self.planner = MergePlanner::default();
        self.goes_on = false;
    }

    fn rest(&self, orders: &MergeOrders) -> Duration {
        if self.goes_on {
            return self.desk.pause;
        }
        let after = Duration::from_secs(orders.limits.after);
        (after / LOOKS).min(LONGEST_REST).max(self.desk.pause)
    }

    async fn look(&mut self, orders: &MergeOrders) {
        self.goes_on = false;
        if orders.limits.size == 0 {
            self.planner = MergePlanner::default();
            self.desk.report().problems.clear();
            return;
        }
        if let Err(reason) = self.merge_what_is_due(orders).await {
            tracing::debug!(%reason, "nothing can be merged now");
            self.desk.report().problems = vec![reason];
        }
    }
}

impl MergerAtWork {
    async fn merge_what_is_due(&mut self, orders: &MergeOrders) -> Result<(), String> {
        let policies = policies(&orders.policies).map_err(|trouble| trouble.to_string())?;
        let pool = self.desk.connections.pool()?;
        let told = chores::loads(&pool, &orders.endpoints, None).await;
        let map = chores::whole_map(&pool, &orders.endpoints).await?;
        let neighbours = neighbours(&map, told);
        let scene = Scene {
            limits: orders.limits,
            splits: orders.splits,
            policies: &policies,
            shards: &neighbours,
        };
        let merges = self.planner.plan(self.desk.now(), &scene);
        self.goes_on = merges.waiting > 0 || !merges.now.is_empty();
        self.desk.report().problems = merges.problems;
        let map = Arc::new(map);
        let mut under_way = JoinSet::new();
        for merge in merges.now {
            tracing::info!("merges: {merge}");
            let line = merge.to_string();
            self.desk.report().doing.insert(merge.left, line);
            let (pool, map) = (pool.clone(), map.clone());
            under_way.spawn_local(async move {
                let done = perform(&pool, &map, &merge).await;
                (merge, done)
            });
        }
        while let Some(ended) = under_way.join_next().await {
            let (merge, done) = ended.map_err(|error| error.to_string())?;
            self.ended(&merge, done);
        }
        Ok(())
    }

    fn ended(&mut self, merge: &Merge, done: Result<(), Trouble>) {
        let (left, right) = (merge.left.0, merge.right.0);
        let mut report = self.desk.report();
        report.doing.remove(&merge.left);
        let ended = match done {
            Ok(()) => {
                report.done += 1;
                tracing::info!(shard = left, right, "two cold shards are one");
                Ended::Done
            }
            Err(trouble) => {
                report.failed += 1;
                tracing::warn!(shard = left, right, %trouble, "cold shards stay two, for now");
                let why = trouble.to_string();
                report
                    .problems
                    .push(format!("shards {left} and {right}: {why}"));
                match trouble {
                    Trouble::Input(_) => Ended::Refused(why),
                    Trouble::Failed(_) | Trouble::Unreachable(_) => Ended::Failed(why),
                }
            }
        };
        drop(report);
        self.planner.ended(self.desk.now(), merge, ended);
    }
}

/// The shards as the planner takes them.
fn neighbours(map: &ShardMap, told: Vec<LoadStatus>) -> Vec<Neighbour> {
    let there: BTreeSet<NodeId> = told.iter().map(|loads| loads.node).collect();
    let mut known: BTreeMap<GroupId, (NodeId, ShardLoad)> = BTreeMap::new();
    for loads in told {
        let node = loads.node;
        known.extend({ loads.shards.into_iter() }.map(|load| (load.shard, (node, load))));
    }
    let shards = map.shards.iter().map(|shard| {
        let mut members = shard.configuration.members();
        Neighbour {
            shard: shard.id,
            start: shard.span.start.to_vec(),
            end: shard.span.end.to_vec(),
            descent: descent(shard),
            generation: shard.generation,
            configuration: shard.configuration.clone(),
            all_there: members.all(|node| there.contains(&node)),
            load: known.remove(&shard.id),
        }
    });
    shards.collect()
}

fn descent(shard: &ShardDescriptor) -> Descent {
    let span = &shard.span;
    let reaches = span.end.is_empty() || &span.end[..] > RESERVED_PREFIX;
    if shard.id == META_SHARD || reaches {
        Descent::Reserved
    } else if shard.born.is_none() {
        Descent::First
    } else {
        Descent::Split
    }
}

/// Merges two shards.
async fn perform(pool: &Pool, map: &ShardMap, merge: &Merge) -> Result<(), Trouble> {
    let deadline = Instant::now() + MERGE;
    let [leads_left, leads_right] = merge.leaders;
    let left = at_rest(pool, map, merge.left, leads_left).await?;
    at_rest(pool, map, merge.right, leads_right).await?;
    let press = Press::new(pool, merge.right, deadline).led_by(leads_left);
    let mut press = press.only_once();
    if press.press(map, left, MERGE).await? {
        return Ok(());
    }
    Err(Trouble::Failed(press.why().to_owned()))
}

/// A shard of the map that is led where it was, and that nobody is about to give other members.
async fn at_rest<'a>(
    pool: &Pool,
    map: &'a ShardMap,
    shard: GroupId,
    leader: NodeId,
) -> Result<&'a ShardDescriptor, Trouble> {
    let moved = || Trouble::Failed(format!("shard {} has another leader", shard.0));
    let (Some(descriptor), Some(node)) = (map.shard(shard), map.node(leader)) else {
        return Err(moved());
    };
    let told = ask::members(pool, node.address, Some(shard), ANSWER).await;
    let told = told.map_err(Trouble::Unreachable)?;
    let of = told.iter().find(|of| of.shard == shard && of.in_office);
    let of = of.ok_or_else(moved)?;
    if of.changing || of.configuration != descriptor.configuration {
        let why = format!("shard {} is given other members", shard.0);
        return Err(Trouble::Failed(why));
    }
    Ok(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_paxos::{Ballot, Configuration, Epoch, Slot};
    use synod_shard::wire::Origin;
    use synod_txn::{Key, Passed, Span};

    fn descriptor(id: u64, start: &'static [u8], end: &'static [u8]) -> ShardDescriptor {
        ShardDescriptor {
            id: GroupId(id),
            span: Span {
                start: Key::from_static(start),
                end: Key::from_static(end),
            },
            generation: 7,
            configuration: Configuration::of_voters([1, 2].map(NodeId).to_vec()),
            preferred_leader: NodeId(1),
            born: None,
        }
    }

    fn told(node: u64, shards: &[u64]) -> LoadStatus {
        let shards = shards.iter().map(|id| ShardLoad {
            shard: GroupId(*id),
            bytes: Some(*id),
            requests: 0,
            by_size: None,
            by_load: None,
        });
        LoadStatus {
            node: NodeId(node),
            shards: shards.collect(),
            splits: None,
        }
    }

    #[test]
    fn shards_are_taken_as_the_map_and_their_leaders_tell() {
        let mut split = descriptor(3, b"g", b"\xff\xff");
        split.born = Some(Origin {
            parent: GroupId(2),
            split: Passed {
                slot: Slot(1),
                under: Ballot::founding(Epoch(1)),
            },
        });
        let map = ShardMap {
            nodes: Vec::new(),
            shards: vec![
                descriptor(2, b"", b"g"),
                split,
                descriptor(1, b"\xff\xff", b""),
            ],
        };
        let found = neighbours(&map, vec![told(1, &[2, 1]), told(2, &[])]);
        let descents: Vec<Descent> = found.iter().map(|shard| shard.descent).collect();
        assert_eq!(
            descents,
            [Descent::First, Descent::Split, Descent::Reserved]
        );
        assert!(found.iter().all(|shard| shard.all_there));
        let leader = found[0]
            .load
            .as_ref()
            .map(|(node, load)| (node.0, load.bytes));
        assert_eq!(leader, Some((1, Some(2))));
        assert_eq!(found[1].load, None, "nobody tells");
        // A member that did not answer.
        let found = neighbours(&map, vec![told(1, &[2])]);
        assert!(found.iter().all(|shard| !shard.all_there));
        // Whatever its number, what reaches into the reserved keys stays.
        assert_eq!(descent(&descriptor(9, b"g", b"")), Descent::Reserved);
    }

    #[test]
    fn looks_are_rare_while_there_is_nothing_to_merge() {
        let config = NodeConfig::new("n1", ([127, 0, 0, 1], 0).into(), "data".into());
        let (_handle, mut at_work) = new(&config, Connections::new(&config));
        let rest = |at_work: &MergerAtWork, after| {
            let orders = MergeOrders {
                limits: MergeLimits { size: 1, after },
                splits: SplitLimits::default(),
                policies: BTreeMap::new(),
                endpoints: Vec::new(),
            };
            at_work.rest(&orders)
        };
        let look = at_work.desk.pause;
        assert_eq!(rest(&at_work, 1), look);
        assert_eq!(rest(&at_work, 200), Duration::from_secs(20));
        assert_eq!(rest(&at_work, 3_600), LONGEST_REST);
        at_work.goes_on = true;
        assert_eq!(rest(&at_work, 3_600), look);
    }
}
