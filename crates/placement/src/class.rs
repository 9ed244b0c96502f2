//! A directory's rules, applied to the nodes there are.

use crate::caps::{self, Wanted};
use crate::policy::Rules;
use crate::strength::Placed;
use crate::topology::Topology;
use crate::view::{Directory, NodeState, Role};

/// What holds for the shards of one directory.
pub(crate) struct Class {
    pub(crate) directory: Directory,
    pub(crate) rules: Rules,
    /// For each node: whether the labels allow replicas there.
    pub(crate) allowed: Vec<bool>,
    /// For each tier: the most voters, witnesses included, in one of its places.
    pub(crate) caps: Vec<usize>,
    /// For each kind of preferred leaders, the nodes that are of it.
    pub(crate) leaders: Vec<Vec<bool>>,
    /// For each kind of learners, the nodes that are of it, and how many are wanted.
    pub(crate) learners: Vec<(Vec<bool>, usize)>,
    /// The best kind of preferred leaders of which a node is up and may store data.
    pub(crate) best: usize,
}

impl Class {
    pub(crate) fn new(topology: &Topology, directory: Directory, rules: Rules) -> Class {
        let matching = |expr: &crate::policy::Expr| -> Vec<bool> {
            let nodes = topology.nodes.iter();
            nodes
                .map(|node| expr.matches(&node.locality, &node.labels))
                .collect()
        };
        let required = matching(&rules.require);
        let forbidden = matching(&rules.forbid);
        let allowed = required.iter().zip(&forbidden).map(|(r, f)| *r && !*f);
        let mut class = Class {
            allowed: allowed.collect(),
            caps: Vec::new(),
            leaders: rules.leaders.iter().map(matching).collect(),
            learners: rules
                .learners
                .iter()
                .map(|(expr, count)| (matching(expr), *count))
                .collect(),
            best: 0,
            directory,
            rules,
        };
        class.caps = class.find_caps(topology);
        let all = 0..topology.nodes.len();
        let data: Vec<usize> = all
            .filter(|n| class.takes(topology, *n, Role::Voter))
            .collect();
        class.best = class.preference(&data);
        class
    }

    fn find_caps(&self, topology: &Topology) -> Vec<usize> {
        let nodes = || 0..topology.nodes.len();
        let all: Vec<usize> = nodes()
            .filter(|n| self.takes(topology, *n, Role::Witness))
            .collect();
        let data: Vec<usize> = nodes()
            .filter(|n| self.takes(topology, *n, Role::Voter))
            .collect();
        let (voters, storing) = self.feasible(all.len(), data.len());
        let wanted = Wanted {
            all: &all,
            voters,
            data: &data,
            storing,
        };
        let survive = self.rules.survive.as_ref();
        let survive = survive.and_then(|tier| topology.tiers.position(tier));
        let survive = survive.filter(|position| *position < topology.tiers.len());
        caps::find(&topology.places, &wanted, survive, &self.spread(topology))
    }

    /// Positions of the tiers to spread over, widest first.
    fn spread(&self, topology: &Topology) -> Vec<usize> {
        let depth = topology.tiers.len();
        match &self.rules.spread {
            None => (0..depth).collect(),
            Some(names) => {
                let known = names
                    .iter()
                    .filter_map(|name| topology.tiers.position(name));
                let mut tiers: Vec<usize> = known.filter(|tier| *tier < depth).collect();
                tiers.sort_unstable();
                tiers
            }
        }
    }

    /// How many voters, and how many with data, so many nodes can be.
    pub(crate) fn feasible(&self, all: usize, data: usize) -> (usize, usize) {
        let mut voters = self.rules.voters;
        loop {
            let storing = voters - self.rules.witnesses.min(voters - (voters / 2 + 1));
            if voters <= all && storing <= data {
                return (voters, storing);
            }
            if voters < 3 {
                return (0, 0);
            }
            voters -= 2;
        }
    }

    /// Whether the node may get a replica of this role.
    pub(crate) fn takes(&self, topology: &Topology, node: usize, role: Role) -> bool {
        topology.nodes[node].state == NodeState::Up && self.keeps(topology, node, role)
    }

    /// Whether the node may keep a replica of this role.
    pub(crate) fn keeps(&self, topology: &Topology, node: usize, role: Role) -> bool {
        let of = topology.nodes[node];
        self.allowed[node] && !of.state.is_left() && !(role.stores() && of.capacity == Some(0))
    }

    /// Which kind of preferred leaders a node is of; one more than there are if of none.
    pub(crate) fn preference_of(&self, node: usize) -> usize {
        let kinds = self.leaders.iter();
        let mut kinds = kinds.map(|nodes| nodes[node]);
        kinds.position(|is| is).unwrap_or(self.leaders.len())
    }

    /// The best kind of preferred leaders among nodes.
    pub(crate) fn preference(&self, nodes: &[usize]) -> usize {
        let kinds = nodes.iter().map(|node| self.preference_of(*node));
        kinds.min().unwrap_or(self.leaders.len())
    }

    /// How far a shard is from what is wanted, worst first; zeros if it is not.
    pub(crate) fn badness(&self, topology: &Topology, placed: &Placed) -> Vec<usize> {
        let electors: Vec<(usize, Role)> = placed.electors().collect();
        let count = electors.len();
        // An even number withstands no more than the odd one below it.
        let worth = count.saturating_sub(1 - count % 2);
        let wanted = self.rules.voters;
        let bad = electors
            .iter()
            .filter(|(node, role)| !self.keeps(topology, *node, *role));
        let storing = placed.voters().count();
        let extra = count - storing;
        let mut badness = vec![
            wanted.saturating_sub(worth),
            bad.count(),
            count.saturating_sub(wanted) + usize::from(count.is_multiple_of(2)),
            extra.abs_diff(self.rules.witnesses.min(worth / 2)),
        ];
        for (tier, cap) in self.caps.iter().enumerate() {
            let place = |node: usize| topology.place(node, tier);
            let over = electors.iter().enumerate().filter(|(n, (node, _))| {
                let before = electors[..*n].iter();
                before
                    .filter(|(other, _)| place(*other) == place(*node))
                    .count()
                    >= *cap
            });
            badness.push(over.count());
        }
        let leading: Vec<usize> = placed
            .voters()
            .filter(|node| topology.nodes[*node].state == NodeState::Up)
            .collect();
        badness.push(self.preference(&leading).saturating_sub(self.best));
        badness
    }
}
