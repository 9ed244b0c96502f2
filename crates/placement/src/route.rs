//! The way of one shard from where it is to where it is to be, over states of
//! which none is weaker than the first.

use crate::planner::Planner;
use crate::step::{Change, Step};
use crate::strength::Placed;
use crate::view::Role;
use std::collections::BTreeMap;
use synod_paxos::NodeId;

struct Route<'p, 'a> {
    planner: &'p Planner<'a>,
    shard: usize,
    /// As it is after the steps so far.
    state: Placed,
    steps: Vec<Step>,
}

impl Planner<'_> {
    /// The steps of a shard, in order.
    pub(crate) fn route(&self, shard: usize) -> Vec<Step> {
        let (start, target) = (&self.start[shard], &self.now[shard]);
        if start == target {
            return Vec::new();
        }
        let mut route = Route {
            planner: self,
            shard,
            state: start.clone(),
            steps: Vec::new(),
        };
        if start.replicas.is_empty() {
            route.create();
        } else {
            if route.state.leader.is_none() {
                route.transfer();
            }
            route.add_learners();
            route.swap();
            route.resize();
            route.remove_learners();
            route.transfer();
        }
        route.steps
    }
}

impl Route<'_, '_> {
    fn id(&self, node: usize) -> NodeId {
        self.planner.topology.nodes[node].id
    }

    fn target(&self) -> &Placed {
        &self.planner.now[self.shard]
    }

    fn push(&mut self, change: Change) {
        let shard = self.planner.shards[self.shard].id;
        let aim = self.planner.aim(self.shard);
        self.steps.push(Step { shard, change, aim });
    }

    fn named(&self, replicas: &[(usize, Role)]) -> BTreeMap<NodeId, Role> {
        let named = replicas.iter().map(|(node, role)| (self.id(*node), *role));
        named.collect()
    }

    fn create(&mut self) {
        let replicas = self.named(&self.target().replicas);
        let leader = self.target().leader.map(|node| self.id(node));
        self.push(Change::Create { replicas, leader });
    }

    fn add_learners(&mut self) {
        for (node, role) in self.target().replicas.clone() {
            if self.state.role(node).is_none() {
                self.state.put(node, Role::Learner);
                let node = self.id(node);
                self.push(Change::AddLearner { node, later: role });
            }
        }
    }

    /// Electors that are to be no replica at all; dead ones first, the leader last.
    fn leaving(&self) -> Vec<(usize, Role)> {
        let gone = self.state.electors();
        let gone = gone.filter(|(node, _)| self.target().role(*node).is_none());
        let mut gone: Vec<(usize, Role)> = gone.collect();
        gone.sort_by_key(|(node, _)| {
            let answers = self.planner.topology.nodes[*node].state.answers();
            (self.state.leader == Some(*node), answers, *node)
        });
        gone
    }

    /// Learners that are to vote, the leader to be first.
    fn coming(&self) -> Vec<(usize, Role)> {
        let target = self.target();
        let coming = target.electors();
        let coming = coming.filter(|(node, _)| self.state.role(*node) == Some(Role::Learner));
        let mut coming: Vec<(usize, Role)> = coming.collect();
        coming.sort_by_key(|(node, _)| (target.leader != Some(*node), *node));
        coming
    }

    /// Replaces voters one by one, as long as a pair is found that leaves the shard as strong.
    fn swap(&mut self) {
        while let Some((out, into, role)) = self.pair() {
            self.pass_leadership(&[out]);
            let after = self.swapped(out, into, role);
            self.state = after;
            let (out, into) = (self.id(out), self.id(into));
            self.push(Change::Swap { out, into, role });
        }
    }

    fn swapped(&self, out: usize, into: usize, role: Role) -> Placed {
        let mut after = self.state.clone();
        after.remove(out);
        after.put(into, role);
        if after.leader == Some(out) {
            after.leader = Some(into);
        }
        after
    }

    fn pair(&self) -> Option<(usize, usize, Role)> {
        let coming = self.coming();
        for (out, was) in self.leaving() {
            // Of the same role first: that leaves the others' roles alone.
            let (same, other): (Vec<_>, Vec<_>) =
                coming.iter().copied().partition(|(_, role)| *role == was);
            for (into, role) in same.into_iter().chain(other) {
                let stays = self.state.leader != Some(out) || self.can_follow(into);
                let after = self.swapped(out, into, role);
                if stays && !self.planner.is_weaker(self.shard, &after) {
                    return Some((out, into, role));
                }
            }
        }
        None
    }

    /// Whether the leader to be can lead once the present one is replaced by
    /// `into`: it votes already, or is the one that comes.
    fn can_follow(&self, into: usize) -> bool {
        let next = self.target().leader;
        next.is_some_and(|next| self.state.role(next) == Some(Role::Voter) || into == next)
    }

    /// If the leader is among those that go, the leader to be leads from now on, if it can.
    fn pass_leadership(&mut self, gone: &[usize]) {
        if self
            .state
            .leader
            .is_some_and(|leader| gone.contains(&leader))
        {
            self.transfer();
        }
    }

    /// Hands the leadership to the leader to be, if it is another one and votes.
    fn transfer(&mut self) {
        let (from, to) = (self.state.leader, self.target().leader);
        let votes = |node: &usize| self.state.role(*node) == Some(Role::Voter);
        if let Some(to) = to.filter(votes)
            && from != Some(to)
        {
            self.state.leader = Some(to);
            let change = Change::TransferLeader {
                from: from.map(|node| self.id(node)),
                to: self.id(to),
            };
            self.push(change);
        }
    }

    /// More or fewer voters, and other roles; if no order will do, all at once.
    fn resize(&mut self) {
        let before = (self.state.clone(), self.steps.len());
        if !self.resized() {
            self.steps.truncate(before.1);
            self.state = before.0;
            self.at_once();
        }
    }

    /// Whether every single change left the shard as strong.
    fn resized(&mut self) -> bool {
        let coming = self.coming();
        if !coming.is_empty() {
            for (node, role) in &coming {
                self.state.put(*node, *role);
            }
            let nodes = self.named(&coming);
            self.push(Change::Promote { nodes });
            if self.planner.is_weaker(self.shard, &self.state) {
                return false;
            }
        }
        let changed = |state: &Placed, target: &Placed| {
            let electors = state.electors();
            let mut roles: Vec<(usize, Role)> = electors
                .filter_map(|(node, was)| Some((node, target.role(node).filter(|is| *is != was)?)))
                .collect();
            // Who gets data comes before those that give theirs up.
            roles.sort_by_key(|(node, role)| (*role, *node));
            roles
        };
        for (node, role) in changed(&self.state, self.target()) {
            self.pass_leadership(&[node]);
            if self.state.leader == Some(node) {
                return false;
            }
            self.state.put(node, role);
            let node = self.id(node);
            self.push(Change::ChangeRole { node, role });
            if self.planner.is_weaker(self.shard, &self.state) {
                return false;
            }
        }
        let leaving: Vec<usize> = self.leaving().iter().map(|(node, _)| *node).collect();
        if !leaving.is_empty() {
            self.pass_leadership(&leaving);
            for node in &leaving {
                self.state.remove(*node);
            }
            let nodes = leaving.iter().map(|node| self.id(*node)).collect();
            self.push(Change::Remove { nodes });
            let led = self
                .state
                .leader
                .is_none_or(|l| self.state.role(l).is_some());
            return led && !self.planner.is_weaker(self.shard, &self.state);
        }
        true
    }

    fn at_once(&mut self) {
        let stays = |leader: usize| self.target().role(leader) == Some(Role::Voter);
        if !self.state.leader.is_none_or(stays) {
            self.transfer();
        }
        let mut after = self.target().clone();
        // Learners that are to go stay for a step of their own.
        for (node, role) in &self.state.replicas {
            if *role == Role::Learner && after.role(*node).is_none() {
                after.put(*node, Role::Learner);
            }
        }
        let goes = |leader: &usize| after.role(*leader) != Some(Role::Voter);
        let leader = self.state.leader.filter(goes).and(self.target().leader);
        after.leader = leader.or(self.state.leader);
        let replicas = self.named(&after.replicas);
        let leader = leader.map(|node| self.id(node));
        self.state = after;
        self.push(Change::Reconfigure { replicas, leader });
    }

    fn remove_learners(&mut self) {
        let learners = self.state.replicas.clone();
        for (node, _) in learners.into_iter().filter(|(_, role)| !role.votes()) {
            if self.target().role(node).is_none() {
                self.state.remove(node);
                let node = self.id(node);
                self.push(Change::RemoveLearner { node });
            }
        }
    }
}
