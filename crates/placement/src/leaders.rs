//! Who leads: leaderships spread evenly over the nodes that may lead.

use std::collections::{BTreeSet, VecDeque};

/// For each shard, given its voters (numbers below `nodes`, at least one), the
/// voter that leads it. No other choice has a lower maximum, or a higher
/// minimum for the same voters' sets: as long as handing leaderships along a
/// chain of shards could even out two nodes, that is done.
pub(crate) fn assign(voters: &[Vec<usize>], nodes: usize) -> Vec<usize> {
    let mut leaders = Leaders::new(voters, nodes, vec![None; voters.len()]);
    leaders.follow_chains(2);
    let leaders = leaders.leaders.into_iter();
    leaders
        .map(|leader| leader.expect("a shard has voters"))
        .collect()
}

/// Who leads what.
pub(crate) struct Leaders<'a> {
    /// For each shard, the nodes that may lead it; none at all if it is to be left alone.
    candidates: &'a [Vec<usize>],
    /// For each shard, who does.
    pub(crate) leaders: Vec<Option<usize>>,
    /// For each node, the shards that it leads and may give away.
    led: Vec<BTreeSet<usize>>,
}

impl<'a> Leaders<'a> {
    /// Shards keep a leader that is a candidate; the others get, one after the
    /// other, the candidate that leads least.
    pub(crate) fn new(
        candidates: &'a [Vec<usize>],
        nodes: usize,
        current: Vec<Option<usize>>,
    ) -> Leaders<'a> {
        let mut led = vec![BTreeSet::new(); nodes];
        let mut leaders = current;
        for (shard, leader) in leaders.iter_mut().enumerate() {
            *leader = leader.filter(|node| candidates[shard].contains(node));
            if let Some(node) = leader {
                led[*node].insert(shard);
            }
        }
        for (shard, leader) in leaders.iter_mut().enumerate() {
            if leader.is_none() {
                let least = candidates[shard].iter().copied();
                *leader = least.min_by_key(|node| (led[*node].len(), *node));
                if let Some(node) = leader {
                    led[*node].insert(shard);
                }
            }
        }
        Leaders {
            candidates,
            leaders,
            led,
        }
    }

    /// Hands leaderships on while two nodes differ by `gap` (at least two) or more.
    pub(crate) fn even_out(&mut self, gap: usize) {
        while self.hand_over(gap) {}
        self.follow_chains(gap);
    }

    fn follow_chains(&mut self, gap: usize) {
        // Each chain narrows the spread, so this ends; nearly always at once.
        while let Some(chain) = self.chain(gap) {
            for (shard, to) in chain {
                self.give(shard, to);
            }
        }
    }

    fn load(&self, node: usize) -> usize {
        self.led[node].len()
    }

    fn give(&mut self, shard: usize, to: usize) {
        if let Some(from) = self.leaders[shard].replace(to) {
            self.led[from].remove(&shard);
        }
        self.led[to].insert(shard);
    }

    /// Every direct hand-over that narrows a gap, from each node while there is
    /// one; returns whether there was any.
    fn hand_over(&mut self, gap: usize) -> bool {
        let mut any = false;
        for node in 0..self.led.len() {
            let shards: Vec<usize> = self.led[node].iter().copied().collect();
            for shard in shards {
                let others = self.candidates[shard].iter().copied();
                let least = others.min_by_key(|to| (self.load(*to), *to));
                if let Some(to) = least.filter(|to| self.load(*to) + gap <= self.load(node)) {
                    self.give(shard, to);
                    any = true;
                }
            }
        }
        any
    }

    /// Shards to hand over, and to whom, so that one node leads one less and one
    /// that leads fewer by the gap leads one more; none if there is no such pair.
    fn chain(&self, gap: usize) -> Option<Vec<(usize, usize)>> {
        let mut sources: Vec<usize> = (0..self.led.len()).collect();
        sources.sort_by_key(|node| (std::cmp::Reverse(self.load(*node)), *node));
        // What a heavier source reached without success, a lighter one need not try.
        let mut seen = BTreeSet::new();
        for source in sources {
            if !seen.insert(source) {
                continue;
            }
            // How each node was reached: over which shard, from whom.
            let mut reached = vec![None; self.led.len()];
            let mut queue = VecDeque::from([source]);
            while let Some(node) = queue.pop_front() {
                if self.load(node) + gap <= self.load(source) {
                    return Some(trace(&reached, source, node));
                }
                for &shard in &self.led[node] {
                    for &next in &self.candidates[shard] {
                        if seen.insert(next) {
                            reached[next] = Some((shard, node));
                            queue.push_back(next);
                        }
                    }
                }
            }
        }
        None
    }
}

/// The way from `source` to `node`.
fn trace(
    reached: &[Option<(usize, usize)>],
    source: usize,
    mut node: usize,
) -> Vec<(usize, usize)> {
    let mut chain = Vec::new();
    while node != source {
        let Some((shard, from)) = reached[node] else {
            break;
        };
        chain.push((shard, node));
        node = from;
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(voters: &[Vec<usize>], nodes: usize) -> Vec<usize> {
        let mut load = vec![0; nodes];
        for (shard, leader) in assign(voters, nodes).into_iter().enumerate() {
            assert!(voters[shard].contains(&leader));
            load[leader] += 1;
        }
        load
    }

    #[test]
    fn each_shard_is_led_by_a_voter_and_all_lead_the_same() {
        assert_eq!(loads(&vec![vec![0, 1, 2]; 7], 3), [3, 2, 2]);
        assert_eq!(loads(&[], 2), [0, 0]);
    }

    #[test]
    fn what_the_first_choice_spoiled_is_handed_on() {
        // First come, first served would leave node 0 with two and node 2 with none.
        assert_eq!(loads(&[vec![0, 1], vec![1, 2], vec![0]], 3), [1, 1, 1]);
    }

    #[test]
    fn a_chain_of_shards_is_followed_to_its_end() {
        let sets = [vec![0, 1], vec![1, 2], vec![2, 3], vec![0], vec![3, 4]];
        assert_eq!(loads(&sets, 5), [1, 1, 1, 1, 1]);
    }
}
