//! Which voter is to lead: preference, then the requests' origin, then balance of load.

use crate::leaders::Leaders;
use crate::planner::Planner;
use crate::view::NodeState;

/// Leaderships stay where they are while no hand-over leaves two nodes further apart than so
/// many percent of the mean: it costs the transactions that are open, and load comes and goes.
const WIDE_PERCENT: u64 = 20;
/// Once one does, all are evened out until nodes differ by no more than so many percent.
const NARROW_PERCENT: u64 = 5;
/// What a leadership weighs besides its requests, in requests a second: so leaderships of idle
/// shards are evened out by their number.
const LEADERSHIP: u64 = 200;
/// More than any shard is asked in a second: sums of these do not overflow.
const MOST_REQUESTS: u64 = 1 << 40;

impl Planner<'_> {
    /// Decides who leads every shard; returns whether anybody else does.
    pub(crate) fn choose_leaders(&mut self) -> bool {
        let shards = 0..self.now.len();
        let candidates: Vec<Vec<usize>> = shards.clone().map(|s| self.candidates(s)).collect();
        let current: Vec<Option<usize>> = self.now.iter().map(|placed| placed.leader).collect();
        let all = &self.topology.nodes;
        let requests = self.shards.iter().map(|shard| shard.requests);
        let weights = requests.map(|requests| requests.min(MOST_REQUESTS) + LEADERSHIP);
        let weights: Vec<u64> = weights.collect();
        let mut leaders = Leaders::new(&candidates, &weights, all.len(), current);
        let up = all.iter().filter(|n| n.state == NodeState::Up).count() as u64;
        let mean = weights.iter().sum::<u64>() / up.max(1);
        leaders.even_out(mean, mean / 100 * WIDE_PERCENT, mean / 100 * NARROW_PERCENT);
        let Leaders {
            leaders, handed, ..
        } = leaders;
        for shard in handed {
            let number = self.handed.len();
            self.handed.entry(shard).or_insert(number);
        }
        let mut changed = false;
        for shard in shards {
            let leader = if !candidates[shard].is_empty() {
                leaders[shard]
            } else if self.is_movable(shard) {
                self.any_leader(shard)
            } else {
                continue;
            };
            changed |= self.now[shard].leader != leader;
            self.now[shard].leader = leader;
        }
        changed
    }

    /// Where nobody should lead: who does now if it still can, else anyone who can.
    fn any_leader(&self, shard: usize) -> Option<usize> {
        let now = &self.now[shard];
        let answers = |node: &usize| self.topology.nodes[*node].state.answers();
        let mut voters = now.voters().filter(answers);
        let first = voters.clone().next();
        now.leader
            .filter(|leader| voters.any(|node| node == *leader))
            .or(first)
    }

    /// Whether the shard was led, when the plan began, by one of those that are best.
    pub(crate) fn leads_rightly(&self, shard: usize) -> bool {
        let leader = self.start[shard].leader;
        leader.is_some_and(|leader| self.candidates(shard).contains(&leader))
    }

    /// The voters that are best by preference and origin; none if the shard has
    /// no quorum or no voter that can lead.
    pub(crate) fn candidates(&self, shard: usize) -> Vec<usize> {
        if !self.is_movable(shard) {
            return Vec::new();
        }
        let class = self.class(shard);
        let up = |node: &usize| self.topology.nodes[*node].state == NodeState::Up;
        let voters: Vec<usize> = self.now[shard].voters().filter(up).collect();
        let merit = |node: usize| {
            let nearness = self.origin(shard, node);
            (class.preference_of(node), std::cmp::Reverse(nearness))
        };
        let best = voters.iter().map(|node| merit(*node)).min();
        let best = |node: &usize| Some(merit(*node)) == best;
        voters.into_iter().filter(best).collect()
    }

    /// How near the shard's requests come from: tiers shared, times requests.
    pub(crate) fn origin(&self, shard: usize, node: usize) -> u64 {
        let origins = self.shards[shard].origins.iter();
        let near = origins.map(|(place, requests)| {
            let tiers = self.topology.nearness(node, place);
            tiers.saturating_mul(*requests)
        });
        near.fold(0, u64::saturating_add)
    }
}
