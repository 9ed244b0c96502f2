//! Where one shard is to be: as near to its policy as the nodes allow, with as
//! few replicas moved as that takes.
//!
//! Voters are chosen under the caps of [`crate::caps`]: first those that are
//! there already and may stay, then the least full nodes. Any set under the
//! caps can be extended to a largest one, so keeping what is there never
//! stands in the way, and no more replicas move than must.

use crate::planner::Planner;
use crate::strength::Placed;
use crate::topology::Topology;
use crate::view::{NodeState, Role};

/// No node is fuller.
const ANY: crate::fill::Key = (u64::MAX, usize::MAX);

/// Voters chosen so far.
struct Choice<'p, 'a> {
    planner: &'p Planner<'a>,
    shard: usize,
    chosen: Vec<(usize, Role)>,
}

impl Planner<'_> {
    /// Moves a shard nearer to what its policy wants; returns whether it did.
    pub(crate) fn improve(&mut self, shard: usize) -> bool {
        if !self.is_movable(shard) {
            return false;
        }
        let class = self.class(shard);
        let now = &self.now[shard];
        let badness = class.badness(&self.topology, now);
        let mut next = now.clone();
        if badness.iter().any(|part| *part > 0) {
            let better = self.electors(shard).filter(|better| {
                class.badness(&self.topology, better) < badness && !self.is_weaker(shard, better)
            });
            next = better.unwrap_or(next);
        }
        self.learners(shard, &mut next);
        let changed = next != self.now[shard];
        if changed {
            self.set(shard, next);
        }
        changed
    }

    /// The voters and witnesses that the policy wants, learners left as they are;
    /// none if nothing that makes sense can be had.
    pub(crate) fn electors(&self, shard: usize) -> Option<Placed> {
        let rules = &self.class(shard).rules;
        let storing = rules.voters - rules.witnesses;
        let mut choice = Choice {
            planner: self,
            shard,
            chosen: Vec::with_capacity(rules.voters),
        };
        choice.prefer();
        choice.keep_voters(storing);
        let voters = choice.chosen.clone();
        choice.keep_witnesses(rules.voters);
        choice.add_voters(storing);
        if choice.storing() < storing {
            // The witnesses may stand where voters with data are needed.
            let kept = std::mem::replace(&mut choice.chosen, voters);
            choice.add_voters(storing);
            let extended = choice.storing();
            if extended <= kept.iter().filter(|(_, role)| role.stores()).count() {
                choice.chosen = kept;
            }
            choice.keep_witnesses(rules.voters);
        }
        choice.add_witnesses(rules.voters);
        choice.hold(rules.voters, storing);
        choice.finish()
    }

    /// Brings the learners in line with the policy.
    fn learners(&self, shard: usize, next: &mut Placed) {
        let class = self.class(shard);
        let before: Vec<usize> = next
            .replicas
            .iter()
            .filter(|(_, role)| *role == Role::Learner)
            .map(|(node, _)| *node)
            .collect();
        next.replicas.retain(|(_, role)| role.votes());
        for (kind, wanted) in &class.learners {
            let mut missing = *wanted;
            let stay = before.iter().copied().filter(|node| kind[*node]);
            for node in stay {
                let keeps =
                    class.keeps(&self.topology, node, Role::Learner) && !self.refuses(shard, node);
                if missing > 0 && keeps && next.role(node).is_none() {
                    next.put(node, Role::Learner);
                    missing -= 1;
                }
            }
            for _ in 0..missing {
                let fits = |node: usize| {
                    kind[node]
                        && class.takes(&self.topology, node, Role::Learner)
                        && next.role(node).is_none()
                        && self.has_room(shard, node, Role::Learner)
                };
                let Some(node) = self.fill.least(ANY, |_, _| true, fits) else {
                    break;
                };
                next.put(node, Role::Learner);
            }
        }
    }
}

impl Choice<'_, '_> {
    fn topology(&self) -> &Topology<'_> {
        &self.planner.topology
    }

    fn storing(&self) -> usize {
        let with = self.chosen.iter().filter(|(_, role)| role.stores());
        with.count()
    }

    fn is_chosen(&self, node: usize) -> bool {
        self.chosen.iter().any(|(chosen, _)| *chosen == node)
    }

    /// Whether one more voter may be in this place.
    fn is_open(&self, tier: usize, place: usize) -> bool {
        let caps = &self.planner.class(self.shard).caps;
        let there = self.chosen.iter();
        let there = there.filter(|(node, _)| self.topology().place(*node, tier) == place);
        caps.get(tier).is_none_or(|cap| there.count() < *cap)
    }

    fn is_under_caps(&self, node: usize) -> bool {
        let tiers = 0..self.planner.class(self.shard).caps.len();
        !self.is_chosen(node)
            && tiers
                .into_iter()
                .all(|tier| self.is_open(tier, self.topology().place(node, tier)))
    }

    /// Whether the node may get this role without having a replica now.
    fn is_new(&self, node: usize, role: Role) -> bool {
        let now = &self.planner.now[self.shard];
        now.role(node).is_none_or(|role| !role.votes())
            && self
                .planner
                .class(self.shard)
                .takes(self.topology(), node, role)
            && self.planner.has_room(self.shard, node, role)
            && self.is_under_caps(node)
    }

    /// Those of a role that may stay in `role`, the ones to keep first in front.
    fn keepers(&self, of: Role, role: Role) -> Vec<usize> {
        let Choice { planner, shard, .. } = self;
        let now = &planner.now[*shard];
        let class = planner.class(*shard);
        let there = now.replicas.iter().filter(|(_, is)| *is == of);
        let may = there.filter(|(node, _)| class.keeps(self.topology(), *node, role));
        let mut keepers: Vec<usize> = may.map(|(node, _)| *node).collect();
        keepers.sort_by_key(|node| {
            let state = self.topology().nodes[*node].state;
            (state, now.leader != Some(*node), planner.fill.key(*node))
        });
        keepers
    }

    /// One voter where leaders are preferred most: one that is there, else a new one.
    fn prefer(&mut self) {
        let class = self.planner.class(self.shard);
        let Some(kind) = class.leaders.get(class.best) else {
            return;
        };
        let up = |node: &usize| self.topology().nodes[*node].state == NodeState::Up;
        let there = self.keepers(Role::Voter, Role::Voter);
        let there = there.into_iter().filter(up).find(|node| kind[*node]);
        let new = |node: usize| kind[node] && self.is_new(node, Role::Voter);
        let node = there.or_else(|| self.planner.fill.least(ANY, |_, _| true, new));
        self.chosen.extend(node.map(|node| (node, Role::Voter)));
    }

    /// Takes these nodes, each that fits, while `enough` does not hold.
    fn take(&mut self, nodes: Vec<usize>, role: Role, enough: impl Fn(&Self) -> bool) {
        for node in nodes {
            if enough(self) {
                return;
            }
            if self.is_under_caps(node) {
                self.chosen.push((node, role));
            }
        }
    }

    fn keep_voters(&mut self, storing: usize) {
        let keepers = self.keepers(Role::Voter, Role::Voter);
        self.take(keepers, Role::Voter, |choice| choice.storing() >= storing);
    }

    fn keep_witnesses(&mut self, voters: usize) {
        let most = self.planner.class(self.shard).rules.witnesses;
        let enough = |choice: &Self| {
            let witnesses = choice.chosen.len() - choice.storing();
            witnesses >= most || choice.chosen.len() >= voters
        };
        let keepers = self.keepers(Role::Witness, Role::Witness);
        self.take(keepers, Role::Witness, enough);
        // Voters that are too many with data go on without it.
        let mut surplus = self.keepers(Role::Voter, Role::Witness);
        let wanted = self.planner.class(self.shard).rules.voters - most;
        if self.storing() >= wanted {
            surplus.reverse();
            self.take(surplus, Role::Witness, enough);
        }
    }

    fn add_voters(&mut self, storing: usize) {
        // Witnesses that are too many get the data; learners have it already.
        let witnesses = self.keepers(Role::Witness, Role::Voter);
        let (planner, shard) = (self.planner, self.shard);
        let room = |node: &usize| planner.has_room(shard, *node, Role::Voter);
        let witnesses = witnesses.into_iter().filter(room).collect();
        let enough = |choice: &Self| choice.storing() >= storing;
        self.take(witnesses, Role::Voter, enough);
        let learners = self.keepers(Role::Learner, Role::Voter);
        let up = |node: &usize| self.topology().nodes[*node].state == NodeState::Up;
        let learners = learners.into_iter().filter(up).filter(room).collect();
        self.take(learners, Role::Voter, enough);
        self.add(Role::Voter, enough);
    }

    fn add_witnesses(&mut self, voters: usize) {
        let most = self.planner.class(self.shard).rules.witnesses;
        let enough = |choice: &Self| {
            let witnesses = choice.chosen.len() - choice.storing();
            witnesses >= most || choice.chosen.len() >= voters
        };
        // Nodes that can be nothing else come first.
        while !enough(self) {
            let only = |node: usize| {
                self.topology().nodes[node].capacity == Some(0) && self.is_new(node, Role::Witness)
            };
            let open = |tier, place| self.is_open(tier, place);
            let Some(node) = self.planner.fill.least(ANY, open, only) else {
                break;
            };
            self.chosen.push((node, Role::Witness));
        }
        self.add(Role::Witness, enough);
    }

    /// Adds the least full nodes while `enough` does not hold.
    fn add(&mut self, role: Role, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            let open = |tier, place| self.is_open(tier, place);
            let fits = |node| self.is_new(node, role);
            let Some(node) = self.planner.fill.least(ANY, open, fits) else {
                return;
            };
            self.chosen.push((node, role));
        }
    }

    /// Where nodes are missing, what is there stays, though it should not.
    fn hold(&mut self, voters: usize, storing: usize) {
        let now = &self.planner.now[self.shard];
        let mut held: Vec<(usize, Role)> = now.electors().collect();
        held.retain(|(node, _)| !self.is_chosen(*node));
        let class = self.planner.class(self.shard);
        held.sort_by_key(|(node, role)| {
            let keeps = class.keeps(self.topology(), *node, *role);
            (!keeps, self.topology().nodes[*node].state, *node)
        });
        for (node, role) in held {
            let data = self.storing();
            let full = match role {
                Role::Voter => data >= storing,
                _ => self.chosen.len() - data >= voters - storing,
            };
            if self.chosen.len() < voters && !full {
                self.chosen.push((node, role));
            }
        }
    }

    fn finish(mut self) -> Option<Placed> {
        let now = &self.planner.now[self.shard];
        if self.chosen.len().is_multiple_of(2) {
            // The last one added is the least wanted.
            let new = |(node, _): &(usize, Role)| now.role(*node).is_none();
            let drop = self.chosen.iter().rposition(new);
            let drop = drop.or(self.chosen.len().checked_sub(1))?;
            self.chosen.remove(drop);
        }
        if self.storing() < self.chosen.len() / 2 + 1 {
            return None;
        }
        let mut placed = now.clone();
        placed.replicas.retain(|(_, role)| !role.votes());
        for (node, role) in self.chosen {
            placed.put(node, role);
        }
        Some(placed)
    }
}
