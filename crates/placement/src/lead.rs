//! Which voter is to lead: preference, then the requests' origin, then balance.

use crate::leaders::Leaders;
use crate::planner::Planner;
use crate::view::NodeState;

/// Nodes may differ by so many percent of the mean in how many shards they
/// lead: a hand-over costs the transactions that are open.
const SLACK_PERCENT: usize = 2;

impl Planner<'_> {
    /// Decides who leads every shard; returns whether anybody else does.
    pub(crate) fn choose_leaders(&mut self) -> bool {
        let shards = 0..self.now.len();
        let candidates: Vec<Vec<usize>> = shards.clone().map(|s| self.candidates(s)).collect();
        let current: Vec<Option<usize>> = self.now.iter().map(|placed| placed.leader).collect();
        let nodes = self.topology.nodes.len();
        let mut leaders = Leaders::new(&candidates, nodes, current);
        let up = self
            .topology
            .nodes
            .iter()
            .filter(|n| n.state == NodeState::Up);
        let mean = self.now.len() / up.count().max(1);
        leaders.even_out((mean * SLACK_PERCENT / 100).max(2));
        let leaders = leaders.leaders;
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
