//! Who leads: leaderships spread evenly over the nodes that hold replicas.

use std::collections::{BTreeSet, VecDeque};

/// For each shard, given its voters (numbers below `nodes`, at least one), the
/// voter that leads it. No other choice has a lower maximum, or a higher
/// minimum for the same voters' sets: as long as handing leaderships along a
/// chain of shards could even out two nodes, that is done.
pub(crate) fn assign(voters: &[Vec<usize>], nodes: usize) -> Vec<usize> {
    let mut load = vec![0_usize; nodes];
    let mut leaders = Vec::with_capacity(voters.len());
    for set in voters {
        let least = set.iter().copied().min_by_key(|node| (load[*node], *node));
        let leader = least.expect("a shard has voters");
        load[leader] += 1;
        leaders.push(leader);
    }
    // Each hand-over narrows the spread, so this ends; nearly always at once.
    while let Some(chain) = chain(voters, &leaders, &load) {
        for (shard, to) in chain {
            load[leaders[shard]] -= 1;
            load[to] += 1;
            leaders[shard] = to;
        }
    }
    leaders
}

/// Shards to hand over, and to whom, so that one node leads one less and one
/// that leads at least two fewer leads one more; none if there is no such pair.
fn chain(voters: &[Vec<usize>], leaders: &[usize], load: &[usize]) -> Option<Vec<(usize, usize)>> {
    let mut led = vec![Vec::new(); load.len()];
    for (shard, leader) in leaders.iter().enumerate() {
        led[*leader].push(shard);
    }
    let mut sources: Vec<usize> = (0..load.len()).collect();
    sources.sort_by_key(|node| (std::cmp::Reverse(load[*node]), *node));
    // What a heavier source reached without success, a lighter one need not try.
    let mut seen = BTreeSet::new();
    for source in sources {
        if !seen.insert(source) {
            continue;
        }
        // How each node was reached: over which shard, from whom.
        let mut reached = vec![None; load.len()];
        let mut queue = VecDeque::from([source]);
        while let Some(node) = queue.pop_front() {
            if load[node] + 2 <= load[source] {
                return Some(trace(&reached, source, node));
            }
            for &shard in &led[node] {
                for &next in &voters[shard] {
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
