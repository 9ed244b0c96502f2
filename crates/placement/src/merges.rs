//! Which neighbouring shards of a running cluster become one without being asked for
//! (decision 23).
//!
//! Two shards are merged that are cold: they hold little together and are hardly asked, and
//! that without interruption for as long as the cluster's settings say ([`MergeLimits`]). Little is
//! a small part of what a shard is split for, so what was merged is not split at once. Borders that
//! policies need stay, and so do those that the cluster was given when it began.

mod limits;

pub use limits::{MergeLimit, MergeLimits};

use crate::patience::{Ended, Patience};
use crate::policy::Policies;
use crate::splits::{ShardLoad, SplitLimits};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;
use synod_paxos::{Configuration, GroupId, NodeId};

/// Merges at the same time, at different nodes.
const AT_ONCE: usize = 2;
/// Failures that are told one by one; of further ones only the number.
const TOLD: usize = 8;

/// How a shard came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descent {
    /// It holds the cluster's own records: it is merged with no other.
    Reserved,
    /// It was there when the cluster began: people wanted it to begin where it does.
    First,
    /// It was split off another one.
    Split,
}

/// A shard, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The shard.
    pub shard: GroupId,
    /// Its first key.
    pub start: Vec<u8>,
    /// The first key behind it; empty for the end of all keys.
    pub end: Vec<u8>,
    /// How it came about.
    pub descent: Descent,
    /// Rises whenever its range or its members change.
    pub generation: u64,
    /// Its members.
    pub configuration: Configuration,
    /// Whether all nodes with a replica of it answered just now. Until all members
    /// have followed a merge, the shard is neither split nor merged.
    pub all_there: bool,
    /// The node that leads it, and what that tells of it; none if nobody tells.
    pub load: Option<(NodeId, ShardLoad)>,
}

/// What the planner goes by at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// When shards are merged.
    pub limits: MergeLimits,
    /// When shards are split.
    pub splits: SplitLimits,
    /// The cluster's policies.
    pub policies: &'a Policies,
    /// The shards, ascending by first key.
    pub shards: &'a [Neighbour],
}

/// Two shards that are to become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// The one that stays.
    pub left: GroupId,
    /// The one that begins where that ends.
    pub right: GroupId,
    /// The nodes that lead them.
    pub leaders: [NodeId; 2],
    /// Bytes that both hold.
    pub bytes: u64,
    /// Requests each second to both.
    pub requests: u64,
}

impl fmt::Display for Merge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "shard {}: takes in shard {}, as both have been cold for shard.merge_after: together \
             they hold {} KiB and are asked {} times a second",
            self.left.0,
            self.right.0,
            self.bytes.div_ceil(1 << 10),
            self.requests
        )
    }
}

/// What is done now, and what stands in the way of the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merges {
    /// To be merged now, smallest first; each shard once, and each node in one of them.
    pub now: Vec<Merge>,
    /// How many others only wait for their turn.
    pub waiting: usize,
    /// What stands in the way of others, in words.
    pub problems: Vec<String>,
}

type Pair = (GroupId, GroupId);

/// Since when two shards are cold.
#[derive(Clone, Copy, Debug)]
struct Cold {
    since: Duration,
    /// Of the two.
    generations: (u64, u64),
}

/// Decides what is merged when. What it remembers is bounded by the number of shards.
#[derive(Clone, Debug, Default)]
pub struct MergePlanner {
    cold: BTreeMap<Pair, Cold>,
    patience: Patience<Pair>,
}

impl MergePlanner {
    /// What is merged now, `now` after any fixed moment. To be asked again and again: shards
    /// count as cold from the first time on that they are found so.
    pub fn plan(&mut self, now: Duration, scene: &Scene<'_>) -> Merges {
        if scene.limits.size == 0 {
            *self = MergePlanner::default();
            return Merges::default();
        }
        let pairs = scene.shards.windows(2).filter_map(|two| match two {
            [left, right] if left.end == right.start => Some((left, right)),
            _ => None,
        });
        let there: BTreeSet<Pair> = { pairs.clone() }.map(|(l, r)| (l.shard, r.shard)).collect();
        self.patience.only(now, |pair| there.contains(pair));
        let kept = kept_borders(scene.policies);
        let may = pairs.filter(|(left, right)| {
            left.descent != Descent::Reserved
                && right.descent == Descent::Split
                && !kept.contains(&right.start)
                && same_policy(scene.policies, left, right)
        });
        let before = std::mem::take(&mut self.cold);
        let mut due = Vec::new();
        for (left, right) in may {
            let Some(merge) = cold(scene, left, right) else {
                continue;
            };
            let pair = (left.shard, right.shard);
            let generations = (left.generation, right.generation);
            let known = before.get(&pair).copied();
            let cold = known.filter(|cold| cold.generations == generations);
            let cold = cold.unwrap_or(Cold {
                since: now,
                generations,
            });
            self.cold.insert(pair, cold);
            if now.saturating_sub(cold.since) >= scene.limits.patience() {
                due.push((merge, left, right));
            }
        }
        due.sort_by_key(|(merge, ..)| (merge.bytes, merge.left));
        self.choose(now, due)
    }

    /// Of those that have been cold for long enough, what is merged now.
    fn choose(&self, now: Duration, due: Vec<(Merge, &Neighbour, &Neighbour)>) -> Merges {
        let mut merges = Merges::default();
        let (mut failing, mut apart, mut silent) = (Vec::new(), Vec::new(), Vec::new());
        for (merge, left, right) in due {
            let pair = (merge.left, merge.right);
            if !same_members(&left.configuration, &right.configuration) {
                apart.push(pair);
            } else if !left.all_there || !right.all_there {
                silent.push(pair);
            } else if let Some(why) = self.patience.backs_off(now, &pair) {
                failing.push(format!(
                    "shards {} and {}: they are not merged, for now: {why}",
                    pair.0.0, pair.1.0
                ));
            } else {
                let rests = |node: &NodeId| self.patience.rests(now, *node);
                let taken = merges.now.iter().any(|other| meet(other, &merge));
                let full = merges.now.len() >= AT_ONCE;
                if !full && !taken && !merge.leaders.iter().any(rests) {
                    merges.now.push(merge);
                } else {
                    merges.waiting += 1;
                }
            }
        }
        let more = failing.len().saturating_sub(TOLD);
        failing.truncate(TOLD);
        if more > 0 {
            failing.push(format!(
                "{more} more pairs of shards are not merged, for now"
            ));
        }
        merges.problems = failing;
        let counted = [
            (apart, "are not on the same nodes in the same roles"),
            (silent, "have a member that does not answer"),
        ];
        for (pairs, what) in counted {
            if let Some((left, right)) = pairs.first() {
                merges.problems.push(format!(
                    "cold neighbours that {what} are not merged: {} pairs, such as shards {} and {}",
                    pairs.len(),
                    left.0,
                    right.0
                ));
            }
        }
        merges
    }

    /// A merge came about, or did not.
    pub fn ended(&mut self, now: Duration, merge: &Merge, ended: Ended) {
        let pair = (merge.left, merge.right);
        if ended == Ended::Done {
            self.cold.remove(&pair);
        }
        self.patience.ended(now, &merge.leaders, pair, ended);
    }
}

/// Two shards as one, if they are cold now.
fn cold(scene: &Scene<'_>, left: &Neighbour, right: &Neighbour) -> Option<Merge> {
    let ((leads_left, of_left), (leads_right, of_right)) =
        (left.load.as_ref()?, right.load.as_ref()?);
    let bytes = of_left.bytes?.saturating_add(of_right.bytes?);
    let requests = of_left.requests.saturating_add(of_right.requests);
    let (most_bytes, most_requests) = scene.limits.most(&scene.splits);
    (bytes <= most_bytes && requests <= most_requests).then_some(Merge {
        left: left.shard,
        right: right.shard,
        leaders: [*leads_left, *leads_right],
        bytes,
        requests,
    })
}

/// Whether two merges have a node in common, and so perhaps a shard: that is led by one.
fn meet(one: &Merge, other: &Merge) -> bool {
    one.leaders.iter().any(|node| other.leaders.contains(node))
}

fn same_members(a: &Configuration, b: &Configuration) -> bool {
    (&a.voters, &a.witnesses, &a.learners) == (&b.voters, &b.witnesses, &b.learners)
}

/// A shard follows the policy of its first key.
fn same_policy(policies: &Policies, left: &Neighbour, right: &Neighbour) -> bool {
    let directory = |shard: &Neighbour| policies.directory_of(&shard.start).map(<[u8]>::to_vec);
    let (of_left, of_right) = (directory(left), directory(right));
    of_left == of_right || policies.rules(of_left.as_deref()) == policies.rules(of_right.as_deref())
}

/// Where directories with a policy begin and end.
fn kept_borders(policies: &Policies) -> BTreeSet<Vec<u8>> {
    let directories = policies.directories.keys();
    { directories }
        .flat_map(|prefix| [Some(prefix.clone()), behind(prefix)])
        .flatten()
        .collect()
}

/// The first key behind all that begin with this; none at the end of all keys.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut behind = prefix.get(..=last)?.to_vec();
    *behind.last_mut()? += 1;
    Some(behind)
}

#[cfg(test)]
mod tests;
