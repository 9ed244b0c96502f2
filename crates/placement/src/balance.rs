//! Evening out: replicas go from full nodes to emptier ones as long as that
//! makes no shard worse.
//!
//! It begins only once a move leaves two nodes clearly apart still (hysteresis: sizes change
//! while nobody needs to care), and then goes on until they are nearly even. Each move leaves
//! the nodes it is between both less full than the fuller one was, so it comes to an end.
//!
//! Where policies leave the choice, replicas go only from nodes above the mean to nodes that stay
//! below it. The mean is not changed by moves, so a node that got something never comes to give,
//! and no move is undone by a later one, in whatever order and however few of them are made
//! before the next plan. Only then moves within a part of the cluster follow (all nodes of a data
//! centre may be above the mean, or a few large shards be all there is), as long as each leaves two
//! nodes clearly apart still.

use crate::fill::Key;
use crate::planner::Planner;
use crate::strength::Placed;
use crate::view::{NodeState, Role};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Nodes are left alone while no replica can be moved after which its new node is still
/// emptier than the old one was by so many percent of the mean: moving replicas is work, too.
const WIDE_PERCENT: u64 = 10;
/// Once one can, all are evened out until they differ by no more than so many percent.
const NARROW_PERCENT: u64 = 2;
/// With more than this part of all sizes unknown nothing is evened out.
const UNKNOWN_PERCENT: usize = 10;

/// How much emptier than the old one a replica's new node has to be.
#[derive(Clone, Copy)]
struct Slack {
    /// Without the replica.
    before: u64,
    /// With it.
    after: u64,
    /// The old one is fuller than this, and the new one does not become so.
    around: Option<u64>,
}

impl Planner<'_> {
    /// Moves replicas until no move helps; returns whether any was made.
    pub(crate) fn balance(&mut self) -> bool {
        if self.waits_for_sizes().is_some() {
            return false;
        }
        let up: Vec<usize> = (0..self.topology.nodes.len())
            .filter(|node| self.topology.nodes[*node].state == NodeState::Up)
            .collect();
        let mean = self.fill.mean(up.iter().copied());
        let wide = Slack {
            before: mean / 100 * WIDE_PERCENT,
            after: mean / 100 * WIDE_PERCENT,
            around: None,
        };
        if !up.iter().any(|node| self.can_give(*node, wide)) {
            return false;
        }
        let narrow = Slack {
            before: mean / 100 * NARROW_PERCENT,
            after: 0,
            around: Some(mean),
        };
        let mut changed = false;
        while self.pass(&up, narrow) || self.pass(&up, wide) {
            changed = true;
        }
        changed
    }

    /// How many sizes are unknown, if these are so many that evening out would be guessing.
    pub(crate) fn waits_for_sizes(&self) -> Option<usize> {
        let unknown = self.shards.iter().filter(|shard| shard.bytes.is_none());
        let unknown = unknown.count();
        (unknown * 100 > self.shards.len() * UNKNOWN_PERCENT).then_some(unknown)
    }

    /// Moves one replica after the other, each from the fullest node that has one to give, and
    /// each at most once. Returns whether any was moved.
    ///
    /// So whoever does only the first of these moves and plans again comes to the same others.
    fn pass(&mut self, up: &[usize], slack: Slack) -> bool {
        let mut sources: BTreeSet<Key> = up.iter().map(|node| self.fill.key(*node)).collect();
        // For each node, what it has not tried to give yet.
        let mut left: Vec<Option<VecDeque<usize>>> = vec![None; self.topology.nodes.len()];
        let mut moved = false;
        while let Some((_, source)) = sources.pop_last() {
            let mut shards = match left[source].take() {
                Some(shards) => shards,
                None => self.to_give(source),
            };
            let Some((shard, to, next)) = self.first_to_move(source, slack, &mut shards) else {
                continue;
            };
            left[source] = Some(shards);
            let may_give = sources.remove(&self.fill.key(to));
            self.set(shard, next);
            let number = self.evened.len();
            self.evened.entry(shard).or_insert(number);
            if may_give {
                sources.insert(self.fill.key(to));
            }
            sources.insert(self.fill.key(source));
            moved = true;
        }
        moved
    }

    /// The shards with a replica on a node, those that it leads last.
    fn to_give(&self, node: usize) -> VecDeque<usize> {
        let leads = |shard: &&usize| self.now[**shard].leader == Some(node);
        let (led, others): (Vec<_>, Vec<_>) = self.on[node].iter().partition(leads);
        others.into_iter().chain(led).copied().collect()
    }

    /// Whether a replica can be moved away from `source`.
    fn can_give(&self, source: usize, slack: Slack) -> bool {
        let mut shards = self.to_give(source);
        self.first_to_move(source, slack, &mut shards).is_some()
    }

    /// The first of these shards whose replica on `source` can be moved to a node so much
    /// emptier that both come nearer to each other; it and those before it are taken off. With
    /// the node it goes to, and what the shard is like then.
    fn first_to_move(
        &self,
        source: usize,
        slack: Slack,
        shards: &mut VecDeque<usize>,
    ) -> Option<(usize, usize, Placed)> {
        let overflows = self.fill.overflows(source);
        let any = self.fill.least_more(Role::Witness, 0);
        let limit = self.emptier_than(source, slack, any);
        if !overflows && self.fill.least(limit, |_, _| true, |_| true).is_none() {
            return None;
        }
        while let Some(shard) = shards.pop_front() {
            if !self.is_movable(shard) || self.now[shard].role(source).is_none() {
                continue;
            }
            if let Some((to, next)) = self.moved(shard, source, slack, overflows) {
                return Some((shard, to, next));
            }
        }
        None
    }

    /// The fill below which a node may be so much emptier than `source` that a replica, which
    /// makes it fuller by `more` at least, is worth moving there.
    fn emptier_than(&self, source: usize, slack: Slack, more: u64) -> Key {
        let fill = self.fill.key(source).0;
        let after = fill.saturating_sub(slack.after);
        let after = after.min(slack.around.unwrap_or(u64::MAX));
        let before = after.saturating_sub(more).saturating_add(1);
        (before.min(fill.saturating_sub(slack.before)), 0)
    }

    /// The shard with its replica on `source` moved to the least full node that may have it,
    /// and that node.
    fn moved(
        &self,
        shard: usize,
        source: usize,
        slack: Slack,
        overflows: bool,
    ) -> Option<(usize, Placed)> {
        let class = self.class(shard);
        let now = &self.now[shard];
        let role = now.role(source).filter(|role| *role != Role::Learner)?;
        // Only what has bytes makes room.
        let bytes = self.bytes[shard];
        let overflows = overflows && role.stores() && bytes > 0;
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
            let after = self.fill.with_one_more(node, role, bytes);
            let evens = after.saturating_add(slack.after) < fill
                && slack.around.is_none_or(|mean| after <= mean && mean < fill);
            (evens || overflows)
                && now.role(node).is_none()
                && class.takes(topology, node, role)
                && self.has_room(shard, node, role)
                && (0..class.caps.len()).all(|tier| open(tier, topology.place(node, tier)))
                && !is_weaker(node)
                && (class.leaders.is_empty() || preferred(&place(node)) <= before)
        };
        let limit = match overflows {
            true => (u64::MAX, usize::MAX),
            false => self.emptier_than(source, slack, self.fill.least_more(role, bytes)),
        };
        let to = self.fill.least(limit, open, fits)?;
        Some((to, place(to)))
    }
}
