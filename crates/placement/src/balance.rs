//! Evening out: replicas go from full nodes to emptier ones as long as that
//! makes no shard worse.

use crate::fill::Key;
use crate::planner::Planner;
use crate::strength::Placed;
use crate::view::{NodeState, Role};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Nodes are left alone while they differ by no more than so many percent of
/// the mean: moving replicas is work, too.
const SLACK_PERCENT: u64 = 2;

impl Planner<'_> {
    /// Moves replicas until no move helps; returns whether any was made.
    pub(crate) fn balance(&mut self) -> bool {
        let up: Vec<usize> = (0..self.topology.nodes.len())
            .filter(|node| self.topology.nodes[*node].state == NodeState::Up)
            .collect();
        let slack = self.fill.mean(up.iter().copied()) * SLACK_PERCENT / 100;
        let mut changed = false;
        loop {
            let mut moved = false;
            let mut sources = up.clone();
            sources.sort_by_key(|node| std::cmp::Reverse(self.fill.key(*node)));
            for source in sources {
                moved |= self.give(source, slack);
            }
            changed |= moved;
            if !moved {
                return changed;
            }
        }
    }

    /// Moves replicas away from `source`, to nodes so much emptier that both come
    /// nearer to each other; those that lead last. Returns whether any was moved.
    fn give(&mut self, source: usize, slack: u64) -> bool {
        let shards: Vec<usize> = self.on[source].iter().copied().collect();
        let mut moved = false;
        for leads in [false, true] {
            for &shard in &shards {
                let overflows = self.fill.overflows(source);
                let limit = self.emptier_than(source, slack);
                if !overflows && self.fill.least(limit, |_, _| true, |_| true).is_none() {
                    return moved;
                }
                let now = &self.now[shard];
                let there = now.role(source).is_some();
                if !there || (now.leader == Some(source)) != leads || !self.is_movable(shard) {
                    continue;
                }
                if let Some(next) = self.moved(shard, source, slack, overflows) {
                    self.set(shard, next);
                    moved = true;
                }
            }
        }
        moved
    }

    /// The fill below which a node is so much emptier than `source` that it is
    /// worth moving a replica there.
    fn emptier_than(&self, source: usize, slack: u64) -> Key {
        (self.fill.key(source).0.saturating_sub(slack), 0, 0)
    }

    /// The shard with its replica on `source` moved to the least full node that may have it.
    fn moved(&self, shard: usize, source: usize, slack: u64, overflows: bool) -> Option<Placed> {
        let class = self.class(shard);
        let now = &self.now[shard];
        let role = now.role(source).filter(|role| *role != Role::Learner)?;
        // Only what has bytes makes room.
        let overflows = overflows && role.stores() && self.shards[shard].bytes > 0;
        let rest: Vec<usize> = now
            .electors()
            .map(|(n, _)| n)
            .filter(|n| *n != source)
            .collect();
        let topology = &self.topology;
        let open = |tier: usize, place: usize| {
            let there = rest.iter().filter(|n| topology.place(**n, tier) == place);
            topology.place(source, tier) == place
                || class.caps.get(tier).is_none_or(|cap| there.count() < *cap)
        };
        let fill = self.fill.key(source).0;
        let place = |node: usize| {
            let mut next = now.clone();
            next.remove(source);
            next.put(node, role);
            if next.leader == Some(source) {
                next.leader = None;
            }
            next
        };
        let preferred = |placed: &Placed| {
            let voters: Vec<usize> = placed
                .voters()
                .filter(|node| topology.nodes[*node].state == NodeState::Up)
                .collect();
            class.preference(&voters)
        };
        let before = preferred(now);
        // How strong the shard would be depends only on which tiers a node shares
        // with the other voters, and most nodes are alike in that.
        let known = RefCell::new(BTreeMap::<Vec<bool>, bool>::new());
        let is_weaker = |node: usize| {
            let shared = (0..class.caps.len()).flat_map(|tier| {
                let place = topology.place(node, tier);
                rest.iter().map(move |n| topology.place(*n, tier) == place)
            });
            let mut known = known.borrow_mut();
            let weaker = known.entry(shared.collect());
            *weaker.or_insert_with(|| self.is_weaker(shard, &place(node)))
        };
        let fits = |node: usize| {
            let evens = self.fill.with_one_more(node) < fill;
            (evens || overflows)
                && now.role(node).is_none()
                && class.takes(topology, node, role)
                && self.has_room(shard, node, role)
                && (0..class.caps.len()).all(|tier| open(tier, topology.place(node, tier)))
                && !is_weaker(node)
                && (class.leaders.is_empty() || preferred(&place(node)) <= before)
        };
        let limit = match overflows {
            true => (u64::MAX, u64::MAX, usize::MAX),
            false => self.emptier_than(source, slack),
        };
        self.fill.least(limit, open, fits).map(place)
    }
}
