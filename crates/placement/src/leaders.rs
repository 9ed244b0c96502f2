//! Who leads: leaderships, by what they weigh, spread evenly over the nodes that may lead.

use std::collections::{BTreeSet, VecDeque};

/// For each shard, given its voters (numbers below `nodes`, at least one), the
/// voter that leads it. No other choice has a lower maximum, or a higher
/// minimum for the same voters' sets: as long as handing leaderships along a
/// chain of shards could even out two nodes, that is done.
pub(crate) fn assign(voters: &[Vec<usize>], nodes: usize) -> Vec<usize> {
    let weights = vec![1; voters.len()];
    let mut leaders = Leaders::new(voters, &weights, nodes, vec![None; voters.len()]);
    leaders.follow_chains();
    let leaders = leaders.leaders.into_iter();
    leaders
        .map(|leader| leader.expect("a shard has voters"))
        .collect()
}

/// Who leads what.
pub(crate) struct Leaders<'a> {
    /// For each shard, the nodes that may lead it; none at all if it is to be left alone.
    candidates: &'a [Vec<usize>],
    /// For each shard, what leading it weighs; not 0.
    weights: &'a [u64],
    /// For each shard, who does.
    pub(crate) leaders: Vec<Option<usize>>,
    /// For each node, the shards that it leads and may give away.
    led: Vec<BTreeSet<usize>>,
    /// For each node, what those weigh.
    loads: Vec<u64>,
    /// The shards that were handed on to even out, in order.
    pub(crate) handed: Vec<usize>,
}

/// When a leadership is handed on.
#[derive(Clone, Copy)]
struct Slack {
    /// Whoever gets it leads less after that than the other did before, by more than this.
    gap: u64,
    /// The one leads more than this before, the other no more after.
    around: Option<u64>,
}

impl<'a> Leaders<'a> {
    /// Shards keep a leader that is a candidate; the others get, one after the
    /// other, the candidate that leads least.
    pub(crate) fn new(
        candidates: &'a [Vec<usize>],
        weights: &'a [u64],
        nodes: usize,
        current: Vec<Option<usize>>,
    ) -> Leaders<'a> {
        let mut leaders = Leaders {
            candidates,
            weights,
            leaders: vec![None; candidates.len()],
            led: vec![BTreeSet::new(); nodes],
            loads: vec![0; nodes],
            handed: Vec::new(),
        };
        for (shard, leader) in current.into_iter().enumerate() {
            if let Some(node) = leader.filter(|node| candidates[shard].contains(node)) {
                leaders.give(shard, node);
            }
        }
        for (shard, candidates) in candidates.iter().enumerate() {
            if leaders.leaders[shard].is_none() {
                let least = candidates.iter().copied();
                let least = least.min_by_key(|node| (leaders.loads[*node], *node));
                if let Some(node) = least {
                    leaders.give(shard, node);
                }
            }
        }
        leaders
    }

    /// Once some hand-over would leave two nodes further apart than `wide`, hands leaderships
    /// on: from nodes that lead more than the mean to such as stay below it, while two differ
    /// by more than `narrow`; then, where the candidates leave no other choice, as long as each
    /// leaves two nodes further apart than `wide`. (Why so is told in `balance`.) Chains are not
    /// followed: half of one may leave things worse, and the next plan would undo it.
    pub(crate) fn even_out(&mut self, mean: u64, wide: u64, narrow: u64) {
        let narrow = Slack {
            gap: narrow,
            around: Some(mean),
        };
        let wide = Slack {
            gap: wide,
            around: None,
        };
        let all = 0..self.leaders.len();
        if { all }.any(|shard| self.heir(shard, wide).is_some()) {
            while self.hand_over(narrow) || self.hand_over(wide) {}
        }
    }

    fn follow_chains(&mut self) {
        // Each chain narrows the spread, so this ends; nearly always at once.
        while let Some(chain) = self.chain() {
            for (shard, to) in chain {
                self.give(shard, to);
            }
        }
    }

    fn give(&mut self, shard: usize, to: usize) {
        if let Some(from) = self.leaders[shard].replace(to) {
            self.led[from].remove(&shard);
            self.loads[from] -= self.weights[shard];
        }
        self.led[to].insert(shard);
        self.loads[to] += self.weights[shard];
    }

    /// Who is to lead instead of the present leader, if the gap between them allows it.
    fn heir(&self, shard: usize, slack: Slack) -> Option<usize> {
        let from = self.leaders[shard]?;
        let before = self.loads[from];
        let others = self.candidates[shard].iter().copied();
        let least = others.min_by_key(|to| (self.loads[*to], *to))?;
        let after = self.loads[least] + self.weights[shard];
        let is_right_side = |mean| after <= mean && mean < before;
        let evens = after + slack.gap < before && slack.around.is_none_or(is_right_side);
        (least != from && evens).then_some(least)
    }

    /// One direct hand-over that narrows a gap after the other, each from the node of most load
    /// that has one to give, and each shard's at most once; returns whether there was any.
    fn hand_over(&mut self, slack: Slack) -> bool {
        let loads = self.loads.iter().copied().zip(0..);
        let mut sources: BTreeSet<(u64, usize)> = loads.collect();
        let mut left: Vec<VecDeque<usize>> = { self.led.iter() }
            .map(|shards| shards.iter().copied().collect())
            .collect();
        let mut any = false;
        while let Some((_, source)) = sources.pop_last() {
            while let Some(shard) = left[source].pop_front() {
                let Some(to) = self.heir(shard, slack) else {
                    continue;
                };
                let may_give = sources.remove(&(self.loads[to], to));
                self.give(shard, to);
                self.handed.push(shard);
                if may_give {
                    sources.insert((self.loads[to], to));
                }
                sources.insert((self.loads[source], source));
                any = true;
                break;
            }
        }
        any
    }

    /// Of shards that all weigh 1, those to hand over, and to whom, so that one node leads one
    /// less and one that leads fewer by two leads one more; none if there is no such pair.
    fn chain(&self) -> Option<Vec<(usize, usize)>> {
        let mut sources: Vec<usize> = (0..self.led.len()).collect();
        sources.sort_by_key(|node| (std::cmp::Reverse(self.loads[*node]), *node));
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
                if self.loads[node] + 2 <= self.loads[source] {
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

    /// What each of three nodes leads, once leaderships of these weights were evened out that
    /// node 0 has all.
    fn evened(weights: &[u64], wide: u64) -> Vec<u64> {
        let candidates = vec![vec![0, 1, 2]; weights.len()];
        let current = vec![Some(0); weights.len()];
        let mut leaders = Leaders::new(&candidates, weights, 3, current);
        leaders.even_out(weights.iter().sum::<u64>() / 3, wide, 0);
        leaders.loads
    }

    #[test]
    fn leaderships_are_evened_out_by_weight_if_that_is_worth_while() {
        assert_eq!(evened(&[50, 10, 10, 10, 10, 10], 0), [50, 30, 20]);
        // The heaviest of all has to be somewhere; others need not be with it.
        assert_eq!(evened(&[9, 1], 0), [9, 1, 0]);
        assert_eq!(evened(&[7], 0), [7, 0, 0]);
        assert_eq!(evened(&[4, 4, 4], 9), [12, 0, 0]);
        assert_eq!(evened(&[4, 4, 4], 7), [4, 4, 4]);
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
