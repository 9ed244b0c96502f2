//! Which shards of a running cluster are split without being asked for (decision 18).
//!
//! A shard is split that holds more bytes, or is asked more often, than the cluster's
//! settings allow ([`SplitLimits`]). Its leader's node says where ([`Cut`]); what is here says
//! whether, and when: one shard of a node at a time with a pause in between, none beyond the number of
//! shards that the cluster may have, and later and later what has failed.

mod cut;
mod limits;

pub use cut::{Cut, halve};
pub use limits::{SplitLimit, SplitLimits};

use crate::patience::{Ended, Patience};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use synod_paxos::{GroupId, NodeId};

/// Shards that are split at the same time, on different nodes.
const AT_ONCE: usize = 4;

/// What the node that leads a shard knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardLoad {
    /// The shard.
    pub shard: GroupId,
    /// Bytes of its keys and values in the engine, old versions included; none while
    /// they have not been gone through.
    pub bytes: Option<u64>,
    /// Requests each second, over the last tens of seconds.
    pub requests: u64,
    /// Where its bytes are cut in about equal parts, if it holds too many.
    pub by_size: Option<Cut>,
    /// Where its requests are, if there are too many.
    pub by_load: Option<Cut>,
}

/// Why a shard is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It holds so many bytes.
    Size(u64),
    /// It is asked so often each second.
    Load(u64),
}

/// A shard that is to be split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The shard.
    pub shard: GroupId,
    /// The node that leads it.
    pub node: NodeId,
    /// The first key of the new one.
    pub at: Vec<u8>,
    /// Why.
    pub cause: Cause,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Size(bytes) => write!(
                f,
                "it holds {} MiB, more than shard.split_size",
                bytes.div_ceil(1 << 20)
            ),
            Cause::Load(requests) => write!(
                f,
                "it is asked {requests} times a second, more than shard.split_load"
            ),
        }
    }
}

/// What is done now, and what stands in the way of the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Splits {
    /// To be split now, those furthest beyond a limit first; at most one of each node.
    pub now: Vec<Wish>,
    /// What stands in the way of others, in words.
    pub problems: Vec<String>,
    /// Of these, those that were not told before.
    pub news: Vec<String>,
}

/// Decides what is split when. It forgets nothing that still matters, and bounds itself
/// by the shards that are beyond a limit.
#[derive(Clone, Debug, Default)]
pub struct SplitPlanner {
    patience: Patience<GroupId>,
    told: BTreeSet<String>,
}

/// A shard beyond a limit.
struct Crowded {
    wish: Wish,
    /// By how much, in thousandths of the limit.
    excess: u128,
}

impl SplitPlanner {
    /// What is split now, `now` after any fixed moment, where there are so many shards and
    /// nodes say this of those that they lead.
    pub fn plan(
        &mut self,
        now: Duration,
        limits: &SplitLimits,
        shards: usize,
        found: &[(NodeId, ShardLoad)],
    ) -> Splits {
        let mut splits = Splits::default();
        let mut crowded = Vec::new();
        for (node, load) in found {
            match judge(*node, load, limits) {
                Some(Ok(found)) => crowded.push(found),
                Some(Err(problem)) => splits.problems.push(problem),
                None => {}
            }
        }
        let wanted: BTreeSet<GroupId> = crowded.iter().map(|c| c.wish.shard).collect();
        self.patience.only(now, |shard| wanted.contains(shard));
        crowded.sort_by_key(|c| (std::cmp::Reverse(c.excess), c.wish.shard));
        let most = usize::try_from(limits.shards).unwrap_or(usize::MAX);
        let mut room = most.saturating_sub(shards);
        if room == 0 && !crowded.is_empty() {
            splits.problems.push(format!(
                "{} shards should be split, but there are {shards} already, and shard.max_shards is \
                 {most}",
                crowded.len()
            ));
        }
        room = room.min(AT_ONCE);
        let mut failing = Vec::new();
        for Crowded { wish, .. } in crowded {
            if let Some(why) = self.patience.backs_off(now, &wish.shard) {
                failing.push(not_split(wish.shard, why));
                continue;
            }
            let has_one = splits.now.iter().any(|other| other.node == wish.node);
            if room > 0 && !has_one && !self.patience.rests(now, wish.node) {
                room -= 1;
                splits.now.push(wish);
            }
        }
        let old = std::mem::take(&mut self.told);
        self.told = splits.problems.iter().cloned().collect();
        splits.news = self.told.difference(&old).cloned().collect();
        // Whoever tried has told of these.
        splits.problems.append(&mut failing);
        splits
    }

    /// A wish came about, or did not.
    pub fn ended(&mut self, now: Duration, wish: &Wish, ended: Ended) {
        self.patience.ended(now, &[wish.node], wish.shard, ended);
    }
}

/// What is told of a shard as long as it is left in peace after a failure.
fn not_split(shard: GroupId, why: &str) -> String {
    format!("shard {}: it is not split, for now: {why}", shard.0)
}

/// Whether a shard is to be split, or why it cannot be although it should.
fn judge(node: NodeId, load: &ShardLoad, limits: &SplitLimits) -> Option<Result<Crowded, String>> {
    let bytes = load.bytes.unwrap_or(0);
    let of_size = limits.size > 0 && bytes > limits.size;
    let of_load = limits.load > 0 && load.requests > limits.load;
    let by_size = load.by_size.as_ref().filter(|_| of_size);
    let by_load = load.by_load.as_ref().filter(|_| of_load);
    let crowded = |at: &[u8], cause, value: u64, limit: u64| {
        let (shard, at) = (load.shard, at.to_vec());
        let excess = u128::from(value) * 1_000 / u128::from(limit);
        let wish = Wish {
            shard,
            node,
            at,
            cause,
        };
        Some(Ok(Crowded { wish, excess }))
    };
    match (by_size, by_load) {
        (Some(Cut::At(at)), _) => crowded(at, Cause::Size(bytes), bytes, limits.size),
        (_, Some(Cut::At(at))) => {
            crowded(at, Cause::Load(load.requests), load.requests, limits.load)
        }
        (Some(Cut::Nowhere), _) => Some(Err(format!(
            "shard {}: it holds more than shard.split_size, nearly all of it under one key, so it \
             cannot be split",
            load.shard.0
        ))),
        (None, Some(Cut::Nowhere)) => Some(Err(format!(
            "shard {}: it is asked more often than shard.split_load, nearly always for one key, so \
             it cannot be split",
            load.shard.0
        ))),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests;
