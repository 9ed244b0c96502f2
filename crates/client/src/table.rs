//! What the client knows about the cluster: ranges, replicas, leaders, addresses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use synod_paxos::{GroupId, NodeId, Term};
use synod_shard::{ShardDescriptor, ShardMap};
use synod_txn::client::{Outgoing, Route, Routes};
use synod_txn::{Hashing, Key, Request};

/// A shard, as far as known.
#[derive(Clone, Debug)]
pub(crate) struct Shard {
    pub(crate) generation: u64,
    /// Replicas that may lead, nearest first.
    pub(crate) replicas: Vec<NodeId>,
    /// Who led when last heard of.
    pub(crate) leader: NodeId,
}

/// A consistent picture; replaced as a whole when something is learned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) routes: Routes,
    pub(crate) shards: BTreeMap<GroupId, Shard>,
    pub(crate) nodes: BTreeMap<NodeId, SocketAddr>,
    /// The map that all of this was made of.
    map: Arc<ShardMap>,
    /// Shards by nearness of their likely leaders, for the choice of a coordinator.
    pub(crate) nearest: Vec<GroupId>,
}

/// How many tiers of locality two places share; more is nearer.
fn shared_tiers(a: &str, b: &str) -> usize {
    let tiers = |place| str::split(place, ',').map(str::trim);
    if a.is_empty() {
        return 0;
    }
    tiers(a).zip(tiers(b)).take_while(|(a, b)| a == b).count()
}

impl Table {
    /// A map's picture, keeping what is known about leaders and terms.
    pub(crate) fn of_map(map: &ShardMap, known: &Table, locality: &str) -> Table {
        let near = |id: NodeId| {
            map.node(id)
                .map_or(0, |n| shared_tiers(locality, &n.locality))
        };
        let shard = |descriptor: &ShardDescriptor| {
            let mut replicas = descriptor.configuration.voters.clone();
            replicas.sort_by_key(|&id| std::cmp::Reverse(near(id)));
            let before = known.shards.get(&descriptor.id).map(|shard| shard.leader);
            let preferred = descriptor.preferred_leader;
            let likely = [before.unwrap_or(preferred), preferred];
            let leader = likely.into_iter().find(|id| replicas.contains(id));
            Shard {
                generation: descriptor.generation,
                leader: leader.unwrap_or(*replicas.first().unwrap_or(&preferred)),
                replicas,
            }
        };
        let starts = map.shards.iter().map(|d| Some(&d.span.start));
        let next = starts.skip(1).chain([None]);
        let route = |(descriptor, next): (&ShardDescriptor, Option<&Key>)| Route {
            shard: descriptor.id,
            // Of a split only one half may be known: the later start counts.
            span: descriptor.span.before(next),
            term: known
                .routes
                .of_shard(descriptor.id)
                .and_then(|route| route.term),
        };
        let shards: BTreeMap<_, _> = map.shards.iter().map(|d| (d.id, shard(d))).collect();
        let mut nearest: Vec<GroupId> = shards.keys().copied().collect();
        if locality.is_empty() {
            nearest.clear();
        } else {
            nearest.sort_by_key(|id| std::cmp::Reverse(near(shards[id].leader)));
        }
        Table {
            routes: Routes::new(map.shards.iter().zip(next).map(route).collect())
                .hashed_as(&known.routes),
            shards,
            nodes: map.nodes.iter().map(|n| (n.id, n.address)).collect(),
            map: Arc::new(map.clone()),
            nearest,
        }
    }

    /// What a map and this picture know together; none if the map is behind in the
    /// ranges of shards, or they know one half of a split only. Its node may not have heard
    /// of what others told.
    pub(crate) fn with_map(&self, map: &ShardMap, locality: &str) -> Option<Table> {
        let mut both = map.clone();
        both.learn_all(&self.map.shards);
        let good = both.is_whole() && !self.is_newer_than(&both);
        good.then(|| Table::of_map(&both, self, locality))
    }

    /// The same with other members of a shard; none if they are no news, or its
    /// range changed with them so that some keys would be nobody's.
    pub(crate) fn with_shard(&self, descriptor: &ShardDescriptor, locality: &str) -> Option<Table> {
        let mut map = ShardMap::clone(&self.map);
        let news = map.learn(descriptor) && map.is_whole();
        news.then(|| Table::of_map(&map, self, locality))
    }

    /// Whether another table knows other ranges or members.
    pub(crate) fn differs(&self, other: &Table) -> bool {
        self.map.shards != other.map.shards
    }

    /// Whether a request is about keys of this shard only, as far as known: others are
    /// another one's by now. A node decides by the same rules.
    pub(crate) fn owns(&self, shard: GroupId, request: &Request) -> bool {
        let route = self.routes.of_shard(shard);
        route.is_some_and(|route| request.is_within(&route.span))
    }

    /// Who leads a shard, as far as known.
    pub(crate) fn leader(&self, shard: GroupId) -> Option<NodeId> {
        self.shards.get(&shard).map(|shard| shard.leader)
    }

    /// What goes to one node together, in the order given otherwise, the first one's node first.
    pub(crate) fn sort_by_leader(&self, outgoing: &mut [Outgoing]) {
        let first = outgoing.first().and_then(|o| self.leader(o.shard));
        outgoing.sort_by_cached_key(|o| {
            let leader = self.leader(o.shard);
            (leader != first, leader)
        });
    }

    /// How a shard's keys are stored, as far as known.
    pub(crate) fn hashing(&self, shard: GroupId) -> Option<&Hashing> {
        let route = self.routes.of_shard(shard)?;
        self.routes.hashing_of(&route.span.start)
    }

    /// The generation of a shard's descriptor; 0 if the shard is not known.
    pub(crate) fn generation(&self, shard: GroupId) -> u64 {
        self.shards.get(&shard).map_or(0, |s| s.generation)
    }

    /// Whether a map is behind what is known.
    fn is_newer_than(&self, map: &ShardMap) -> bool {
        let behind = |d: &ShardDescriptor| {
            let known = self.shards.get(&d.id);
            known.is_some_and(|shard| shard.generation > d.generation)
        };
        map.shards.iter().any(behind)
    }

    fn term(&self, shard: GroupId) -> Option<Term> {
        self.routes.of_shard(shard).and_then(|route| route.term)
    }

    /// Whether a term is over: one that does not know yet that it was deposed
    /// may still answer.
    pub(crate) fn is_over(&self, shard: GroupId, term: Term) -> bool {
        self.term(shard)
            .is_some_and(|known| known.ballot > term.ballot)
    }

    /// The shard's leader, if its term is newer than the one in an earlier table.
    pub(crate) fn newer_leader(&self, earlier: &Table, shard: GroupId) -> Option<NodeId> {
        let term = self.term(shard)?;
        let newer = earlier
            .term(shard)
            .is_none_or(|known| known.ballot < term.ballot);
        let leader = self.shards.get(&shard)?.leader;
        newer.then_some(leader)
    }

    /// Whether it is known that this node leads, in this term.
    pub(crate) fn knows(&self, shard: GroupId, leader: NodeId, term: Option<Term>) -> bool {
        let leads = self.shards.get(&shard).is_some_and(|s| s.leader == leader);
        leads && (term.is_none() || term == self.term(shard))
    }

    pub(crate) fn learn(&mut self, shard: GroupId, leader: NodeId, term: Option<Term>) {
        if term.is_some_and(|term| self.is_over(shard, term)) {
            return;
        }
        if let Some(shard) = self.shards.get_mut(&shard) {
            shard.leader = leader;
        }
        if let Some(term) = term {
            self.routes.learn_term(shard, term);
        }
    }
}

/// The order in which a shard's replicas are tried, round after round.
#[derive(Debug)]
pub(crate) struct Tour {
    replicas: Vec<NodeId>,
    tried: Vec<NodeId>,
    next: Option<NodeId>,
}

impl Tour {
    pub(crate) fn new(shard: &Shard) -> Tour {
        Tour {
            replicas: shard.replicas.clone(),
            tried: Vec::new(),
            next: Some(shard.leader),
        }
    }

    /// Who to ask now, and whether a whole round has failed before.
    pub(crate) fn target(&mut self) -> (NodeId, bool) {
        let untried = |id: &NodeId| !self.tried.contains(id);
        let hinted = self.next.take();
        let target = hinted
            .filter(untried)
            .or_else(|| self.replicas.iter().copied().find(untried));
        if let Some(target) = target {
            self.tried.push(target);
            return (target, false);
        }
        self.tried.clear();
        let target = hinted
            .or(self.replicas.first().copied())
            .unwrap_or_default();
        self.tried.push(target);
        (target, true)
    }

    /// The shard has other members.
    pub(crate) fn renew(&mut self, shard: &Shard) {
        *self = Tour::new(shard);
    }

    /// A node said that another one leads.
    pub(crate) fn hint(&mut self, leader: Option<NodeId>) {
        self.next = leader;
    }

    /// Ask the same node again.
    pub(crate) fn stay(&mut self, node: NodeId) {
        self.tried.retain(|&id| id != node);
        self.next = Some(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_txn::Span;

    fn shard() -> Shard {
        Shard {
            generation: 1,
            replicas: vec![NodeId(1), NodeId(2), NodeId(3)],
            leader: NodeId(2),
        }
    }

    #[test]
    fn what_goes_to_one_node_goes_together_and_the_first_ones_node_first() {
        let mut table = Table::default();
        for (id, leader) in [(1, 1), (2, 2), (3, 1), (4, 3), (5, 2)] {
            let leader = NodeId(leader);
            table
                .shards
                .insert(GroupId(id), Shard { leader, ..shard() });
        }
        let to = |id| Outgoing {
            token: id,
            shard: GroupId(id),
            after_nanos: 0,
            hashing: None,
            request: Request::Locate,
            answered: true,
        };
        let mut outgoing = [2, 1, 4, 3, 5].map(to);
        table.sort_by_leader(&mut outgoing);
        assert_eq!(outgoing.map(|o| o.token), [2, 5, 1, 3, 4]);
    }

    #[test]
    fn a_tour_begins_at_the_leader_and_visits_everybody() {
        let mut tour = Tour::new(&shard());
        let order: Vec<_> = (0..4).map(|_| tour.target()).collect();
        let expected = [(2, false), (1, false), (3, false), (1, true)];
        assert_eq!(order, expected.map(|(id, round)| (NodeId(id), round)));
    }

    #[test]
    fn a_hint_is_followed_once_a_round() {
        let mut tour = Tour::new(&shard());
        assert_eq!(tour.target().0, NodeId(2));
        tour.hint(Some(NodeId(3)));
        assert_eq!(tour.target().0, NodeId(3));
        // Two nodes that name each other must not keep the third from being asked.
        tour.hint(Some(NodeId(2)));
        assert_eq!(tour.target().0, NodeId(1));
        tour.hint(Some(NodeId(2)));
        assert_eq!(tour.target(), (NodeId(2), true));
    }

    #[test]
    fn the_younger_members_of_each_shard_are_kept() {
        let first = map(vec![descriptor(1, 1, &[1, 2]), descriptor(2, 3, &[1, 4])]);
        let table = Table::of_map(&first, &Table::default(), "");
        // Another node knows the one better, and the other worse.
        let other = map(vec![descriptor(1, 2, &[5, 6]), descriptor(2, 1, &[1, 2])]);
        let table = table.with_map(&other, "").expect("the ranges are the same");
        assert_eq!(table.shards[&GroupId(1)].replicas, [NodeId(5), NodeId(6)]);
        assert_eq!(table.shards[&GroupId(1)].leader, NodeId(5));
        assert_eq!(table.shards[&GroupId(2)].replicas, [NodeId(1), NodeId(4)]);
        // From an answer: news, and what is none.
        assert!(table.with_shard(&descriptor(1, 2, &[7]), "").is_none());
        let table = table.with_shard(&descriptor(1, 4, &[7]), "").expect("news");
        assert_eq!(table.generation(GroupId(1)), 4);
        let mut moved = descriptor(1, 5, &[7]);
        moved.span.end = Key::new();
        // It has absorbed the other one.
        for table in [
            table.with_shard(&moved, ""),
            table.with_map(&map(vec![moved.clone()]), ""),
        ] {
            let table = table.expect("news");
            assert!(table.shards.keys().eq([&GroupId(1)]));
        }
    }

    #[test]
    fn a_table_never_has_holes_and_its_ranges_never_overlap() {
        let first = map(vec![descriptor(1, 1, &[1]), descriptor(2, 1, &[1])]);
        let table = Table::of_map(&first, &Table::default(), "");
        let (mut left, mut right) = (descriptor(1, 2, &[1]), descriptor(3, 2, &[1]));
        left.span.end = Key::from_static(b"\x01m");
        right.span = Span {
            start: left.span.end.clone(),
            end: first.shards[0].span.end.clone(),
        };
        // One half says too little, the other enough.
        assert!(table.with_shard(&left, "").is_none());
        let half = map(vec![left.clone(), first.shards[1].clone()]);
        assert!(table.with_map(&half, "").is_none());
        let known = table.with_shard(&right, "").expect("it is whole");
        let ends: Vec<_> = { known.routes.all().iter() }
            .map(|route| (route.shard.0, route.span.end.clone()))
            .collect();
        let (at, end) = (left.span.end.clone(), right.span.end.clone());
        assert_eq!(ends, [(1, at), (3, end), (2, Key::new())]);
        let ask = |keys: &[&'static [u8]]| Request::Latest {
            keys: keys.iter().copied().map(Key::from_static).collect(),
            scan: None,
        };
        let both = ask(&[b"\x01a", b"\x01z"]);
        assert!(table.owns(GroupId(1), &both) && !known.owns(GroupId(1), &both));
        assert!(known.owns(GroupId(1), &ask(&[b"\x01a"])));
        assert!(known.owns(GroupId(3), &ask(&[b"\x01z"])));
        assert!(!known.owns(GroupId(4), &Request::Locate));
        let whole = known.with_shard(&left, "").expect("it is news");
        assert_eq!(whole.routes, known.routes);
        // A node that has not heard of it makes nobody forget.
        let same = whole.with_map(&first, "").expect("it is behind, no more");
        assert_eq!(same.routes, whole.routes);
    }

    /// Two shards: from the first key to 2, and from there on.
    fn descriptor(id: u64, generation: u64, voters: &[u64]) -> ShardDescriptor {
        let key = |id: u64| Key::from(vec![id as u8]);
        ShardDescriptor {
            id: GroupId(id),
            span: Span {
                start: if id == 1 { Key::new() } else { key(id) },
                end: if id == 1 { key(2) } else { Key::new() },
            },
            generation,
            configuration: synod_paxos::Configuration::of_voters(
                voters.iter().map(|id| NodeId(*id)).collect(),
            ),
            preferred_leader: NodeId(1),
            born: None,
        }
    }

    fn map(shards: Vec<ShardDescriptor>) -> ShardMap {
        ShardMap {
            nodes: Vec::new(),
            shards,
        }
    }

    #[test]
    fn a_deposed_leader_is_not_believed() {
        let id = GroupId(5);
        let term = |round| Term {
            group: id,
            ballot: synod_paxos::Ballot {
                round,
                ..synod_paxos::Ballot::default()
            },
        };
        let span = synod_txn::Span {
            start: synod_txn::Key::new(),
            end: synod_txn::Key::new(),
        };
        let route = Route {
            shard: id,
            span,
            term: None,
        };
        let mut table = Table {
            routes: Routes::new(vec![route]),
            shards: [(id, shard())].into(),
            ..Table::default()
        };
        table.learn(id, NodeId(3), Some(term(2)));
        assert!(table.knows(id, NodeId(3), Some(term(2))));
        table.learn(id, NodeId(1), Some(term(1)));
        assert_eq!(table.shards[&id].leader, NodeId(3));
        assert!(table.is_over(id, term(1)) && !table.is_over(id, term(2)));
        table.learn(id, NodeId(1), None);
        assert_eq!(table.shards[&id].leader, NodeId(1));
    }

    #[test]
    fn nearness_counts_shared_tiers_from_the_widest() {
        assert_eq!(shared_tiers("region=eu,dc=1", "region=eu, dc=1,rack=2"), 2);
        assert_eq!(shared_tiers("region=eu,dc=1", "region=us,dc=1"), 0);
        assert_eq!(shared_tiers("", ""), 0);
    }
}
