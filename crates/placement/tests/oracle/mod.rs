//! What must hold of every plan, found out in the dumbest way: after every step
//! everything is counted anew, and failures are tried one by one.

use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::{GroupId, NodeId};
use synod_placement::{Change, Locality, Node, NodeState, Role, Shard, Step, Tiers, View};

/// Nodes n1, n2, … in these places.
pub fn cluster(places: &[&str], shards: Vec<Shard>) -> View {
    let node = |(n, place): (usize, &&str)| {
        Node::new(NodeId(n as u64 + 1), place.parse().expect("a locality"))
    };
    View {
        nodes: places.iter().enumerate().map(node).collect(),
        shards,
        ..View::default()
    }
}

/// A shard of these voters.
pub fn shard(id: u64, voters: &[u64], leader: u64) -> Shard {
    let mut shard = Shard::new(GroupId(id), format!("{id:06}").into_bytes(), Vec::new());
    shard.end = format!("{id:06}~").into_bytes();
    shard.replicas = voters.iter().map(|n| (NodeId(*n), Role::Voter)).collect();
    shard.leader = (leader > 0).then_some(NodeId(leader));
    shard
}

/// What one shard withstands, by trial.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Withstands {
    /// The largest number of voters of which any may fail.
    voters: Option<usize>,
    /// Answering voters with data.
    data: usize,
    /// Whether a majority stores data.
    stored: bool,
    /// For each tier, places whose loss alone stops the shard.
    fatal: Vec<usize>,
}

/// Follows a plan.
pub struct Oracle {
    view: View,
    tiers: Tiers,
    start: BTreeMap<GroupId, Withstands>,
    /// Nodes that got a replica of the shard, and that lost theirs.
    came: BTreeSet<(GroupId, NodeId)>,
    went: BTreeSet<(GroupId, NodeId)>,
    /// Shards whose leadership was handed over.
    handed: BTreeSet<GroupId>,
    roles: BTreeSet<(GroupId, NodeId)>,
}

impl Oracle {
    pub fn new(view: &View) -> Oracle {
        let localities = view.nodes.iter().map(|n| (n.id, &n.locality));
        let mut oracle = Oracle {
            view: view.clone(),
            tiers: Tiers::of(localities).expect("one order"),
            start: BTreeMap::new(),
            came: BTreeSet::new(),
            went: BTreeSet::new(),
            handed: BTreeSet::new(),
            roles: BTreeSet::new(),
        };
        for shard in view.shards.iter().filter(|s| !s.replicas.is_empty()) {
            let withstands = oracle.withstands(shard);
            oracle.start.insert(shard.id, withstands);
        }
        oracle
    }

    /// Does all steps; returns the view after them.
    pub fn follow(mut self, steps: &[Step]) -> View {
        for step in steps {
            let before = self.shard(step.shard).clone();
            self.view.apply(step).expect("the step fits");
            self.look_at(step, &before);
        }
        self.view
    }

    fn shard(&self, id: GroupId) -> &Shard {
        self.view
            .shards
            .iter()
            .find(|s| s.id == id)
            .expect("a shard")
    }

    fn node(&self, id: NodeId) -> &Node {
        self.view.nodes.iter().find(|n| n.id == id).expect("a node")
    }

    fn answers(&self, id: NodeId) -> bool {
        !matches!(self.node(id).state, NodeState::Silent | NodeState::Down)
    }

    /// Whether the shard goes on without these nodes.
    fn serves_without(&self, shard: &Shard, lost: &BTreeSet<NodeId>) -> bool {
        let votes = shard
            .replicas
            .iter()
            .filter(|(_, role)| **role != Role::Learner);
        let left: Vec<_> = votes
            .clone()
            .filter(|(node, _)| self.answers(**node) && !lost.contains(node))
            .collect();
        let data = left.iter().any(|(_, role)| **role == Role::Voter);
        data && 2 * left.len() > votes.count()
    }

    fn withstands(&self, shard: &Shard) -> Withstands {
        let electors: Vec<NodeId> = shard
            .replicas
            .iter()
            .filter(|(node, role)| **role != Role::Learner && self.answers(**node))
            .map(|(node, _)| *node)
            .collect();
        let total = shard
            .replicas
            .values()
            .filter(|role| **role != Role::Learner)
            .count();
        // Every set of voters that may fail, by its bits.
        let sets = (0..1_u32 << electors.len()).map(|bits| -> BTreeSet<NodeId> {
            let chosen = electors
                .iter()
                .enumerate()
                .filter(|(n, _)| bits >> n & 1 == 1);
            chosen.map(|(_, node)| *node).collect()
        });
        let votes_only = |lost: &BTreeSet<NodeId>| 2 * (electors.len() - lost.len()) > total;
        let fails: Option<usize> = sets
            .filter(|lost| !votes_only(lost))
            .map(|lost| lost.len())
            .min();
        let data = |node: &&NodeId| shard.replicas[*node] == Role::Voter;
        let voters = shard
            .replicas
            .values()
            .filter(|r| **r == Role::Voter)
            .count();
        let mut fatal: Vec<usize> = (0..self.tiers.len())
            .map(|tier| {
                let mut places = BTreeMap::<Vec<Option<&str>>, BTreeSet<NodeId>>::new();
                for node in &electors {
                    let locality: &Locality = &self.node(*node).locality;
                    let path = self.tiers.names().take(tier + 1);
                    let path = path.map(|name| locality.get(name)).collect();
                    places.entry(path).or_default().insert(*node);
                }
                places
                    .values()
                    .filter(|lost| !self.serves_without(shard, lost))
                    .count()
            })
            .collect();
        let alone = electors.iter().map(|node| BTreeSet::from([*node]));
        fatal.push(
            alone
                .filter(|lost| !self.serves_without(shard, lost))
                .count(),
        );
        Withstands {
            voters: fails.and_then(|fails| fails.checked_sub(1)),
            data: electors.iter().filter(data).count(),
            stored: 2 * voters > total,
            fatal,
        }
    }

    fn look_at(&mut self, step: &Step, before: &Shard) {
        let id = step.shard;
        let after = self.shard(id).clone();
        let rules = self
            .view
            .policies
            .rules(self.view.policies.directory_of(&after.start));
        let rules = rules.expect("consistent rules");
        // Nothing is undone.
        for node in after
            .replicas
            .keys()
            .filter(|n| !before.replicas.contains_key(n))
        {
            assert!(self.came.insert((id, *node)), "{step}: came twice");
            assert!(!self.went.contains(&(id, *node)), "{step}: comes back");
            assert_eq!(self.node(*node).state, NodeState::Up, "{step}: not up");
        }
        for node in before
            .replicas
            .keys()
            .filter(|n| !after.replicas.contains_key(n))
        {
            assert!(self.went.insert((id, *node)), "{step}: went twice");
            assert!(!self.came.contains(&(id, *node)), "{step}: came in vain");
        }
        if let Change::ChangeRole { node, .. } = step.change {
            assert!(self.roles.insert((id, node)), "{step}: another role twice");
        }
        if after.leader != before.leader.filter(|leader| self.answers(*leader)) {
            assert!(self.handed.insert(id), "{step}: led by a third");
            let leader = after.leader.expect("a shard is never without");
            assert!(self.answers(leader), "{step}: a dead leader");
        }
        // New voters have caught up.
        let votes =
            |shard: &Shard, node: &NodeId| shard.replicas.get(node).is_some_and(|r| r.votes());
        if !before.replicas.is_empty() {
            for node in after.replicas.keys().filter(|n| votes(&after, n)) {
                assert!(
                    before.replicas.contains_key(node),
                    "{step}: {node} votes at once"
                );
            }
        }
        // Nothing gets weaker than it was at first.
        let Some(start) = self.start.get(&id) else {
            return;
        };
        let now = self.withstands(&after);
        let most = (rules.voters - 1) / 2;
        assert!(
            start.voters.is_some() && start.data > 0,
            "{step}: a shard without quorum"
        );
        assert!(
            now.voters >= start.voters.min(Some(most)),
            "{step}: {start:?} {now:?}"
        );
        let data = rules.voters - rules.witnesses;
        assert!(
            now.data >= start.data.min(data),
            "{step}: {start:?} {now:?}"
        );
        assert!(now.stored || !start.stored, "{step}: {start:?} {now:?}");
        for (now, then) in now.fatal.iter().zip(&start.fatal) {
            let then = if rules.voters == 1 {
                1.max(*then)
            } else {
                *then
            };
            assert!(*now <= then, "{step}: {start:?} {now:?}");
        }
    }
}
