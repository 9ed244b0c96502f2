//! Evening out: replicas go from full nodes to emptier ones as long as that
//! makes no shard worse.

use crate::planner::Planner;
use crate::strength::Placed;
use crate::view::{NodeState, Role};

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
                while self.give(source, slack) {
                    moved = true;
                }
            }
            changed |= moved;
            if !moved {
                return changed;
            }
        }
    }

    /// Moves one replica away from `source`, to a node so much emptier that both
    /// come nearer to each other; those that lead last.
    fn give(&mut self, source: usize, slack: u64) -> bool {
        let overflows = self.fill.overflows(source);
        let fullest = self.fill.key(source).0;
        if !overflows
            && self
                .fill
                .least((fullest, 0, 0), |_, _| true, |_| true)
                .is_none()
        {
            return false;
        }
        let shards: Vec<usize> = self.on[source].iter().copied().collect();
        for leads in [false, true] {
            for &shard in &shards {
                if (self.now[shard].leader == Some(source)) != leads || !self.is_movable(shard) {
                    continue;
                }
                if let Some(next) = self.moved(shard, source, slack, overflows) {
                    self.set(shard, next);
                    return true;
                }
            }
        }
        false
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
        let fits = |node: usize| {
            let evens =
                self.fill.with_one_more(node) < fill && fill - self.fill.key(node).0 > slack;
            (evens || overflows)
                && now.role(node).is_none()
                && class.takes(topology, node, role)
                && self.has_room(shard, node, role)
                && (0..class.caps.len()).all(|tier| open(tier, topology.place(node, tier)))
                && {
                    let next = place(node);
                    preferred(&next) <= before && !self.is_weaker(shard, &next)
                }
        };
        let limit = if overflows {
            (u64::MAX, u64::MAX, usize::MAX)
        } else {
            (fill, 0, 0)
        };
        self.fill.least(limit, open, fits).map(place)
    }
}
