//! How many voters of a shard one place may hold.
//!
//! The places of all tiers are nested, so sets of nodes that keep within a
//! cap for each place form a *laminar matroid*: taking nodes greedily, each
//! one that breaks no cap, always ends with a largest such set, with the
//! one of least load if nodes are taken by rising load, and any such set can
//! be extended to a largest one (Edmonds, "Matroids and the greedy algorithm",
//! 1971). So nothing here needs to search.

/// Nodes as the caps see them: the number of each one's place in each tier.
pub(crate) type Places = Vec<Vec<usize>>;

/// How many voters are to be chosen, and from which nodes.
pub(crate) struct Wanted<'a> {
    /// Nodes that may be voters of any kind.
    pub(crate) all: &'a [usize],
    /// How many of them are wanted.
    pub(crate) voters: usize,
    /// Those that may store data.
    pub(crate) data: &'a [usize],
    /// How many voters must.
    pub(crate) storing: usize,
}

/// Finds for each tier the most voters that one of its places gets. In this
/// order, and each only where it can still be met:
///
/// 1. No place of the tiers in `first`, then of those in `spread`, holds a majority.
/// 2. One voter for each place, of the first tier in `spread` where that works.
/// 3. As few voters in one place as can be, tier by tier.
pub(crate) fn find(
    places: &Places,
    wanted: &Wanted,
    first: Option<usize>,
    spread: &[usize],
) -> Vec<usize> {
    let tiers = places.first().map_or(0, Vec::len);
    let mut caps = vec![wanted.voters; tiers];
    let lower = |caps: &mut Vec<usize>, tier: usize, cap: usize| {
        let before = caps[tier];
        caps[tier] = before.min(cap);
        let enough = choose(places, caps, wanted.all, wanted.voters).len() == wanted.voters
            && choose(places, caps, wanted.data, wanted.storing).len() == wanted.storing;
        if !enough {
            caps[tier] = before;
        }
        enough
    };
    let minority = wanted.voters.saturating_sub(1) / 2;
    for tier in first.iter().chain(spread) {
        lower(&mut caps, *tier, minority);
    }
    let _widest = spread.iter().find(|tier| lower(&mut caps, **tier, 1));
    for tier in spread {
        let _least = (1..=wanted.voters).find(|cap| lower(&mut caps, *tier, *cap));
    }
    caps
}

/// Takes nodes in this order, each that breaks no cap, until there are enough.
pub(crate) fn choose(
    places: &Places,
    caps: &[usize],
    order: &[usize],
    enough: usize,
) -> Vec<usize> {
    let mut used: Vec<Vec<usize>> = vec![Vec::new(); caps.len()];
    let mut chosen = Vec::with_capacity(enough);
    for &node in order {
        if chosen.len() == enough {
            break;
        }
        let of = &places[node];
        let count = |used: &[Vec<usize>], tier: usize| used[tier].get(of[tier]).copied();
        let fits = (0..caps.len()).all(|tier| count(&used, tier).unwrap_or(0) < caps[tier]);
        if fits {
            for tier in 0..caps.len() {
                if used[tier].len() <= of[tier] {
                    used[tier].resize(of[tier] + 1, 0);
                }
                used[tier][of[tier]] += 1;
            }
            chosen.push(node);
        }
    }
    chosen
}
