//! What a client knows of the cluster, and the order in which it tries replicas.

use synod_paxos::{GroupId, NodeId, Term};
use synod_shard::{ShardDescriptor, ShardMap};
use synod_txn::client::{Route, Routes};
use synod_txn::{Hashing, Span};

/// A shard, as far as the client knows.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub(super) id: GroupId,
    pub(super) generation: u64,
    pub(super) replicas: Vec<NodeId>,
    pub(super) leader: NodeId,
}

impl Shard {
    fn new(descriptor: &ShardDescriptor) -> Shard {
        Shard {
            id: descriptor.id,
            generation: descriptor.generation,
            replicas: descriptor.configuration.voters.clone(),
            leader: descriptor.preferred_leader,
        }
    }
}

/// What a client knows of the cluster: routes, replicas, leaders.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) routes: Routes,
    /// In the order in which they were heard of.
    pub(super) shards: Vec<Shard>,
    /// What all of this was made of.
    map: ShardMap,
}

fn routes(map: &ShardMap, known: &Routes) -> Routes {
    let ends = map.shards.iter().skip(1).map(|next| Some(&next.span.start));
    let ends = ends.chain([None]);
    let routes = map.shards.iter().zip(ends).map(|(shard, next)| Route {
        shard: shard.id,
        // Of a split only one half may be known: the later start counts.
        span: shard.span.before(next),
        term: known.of_shard(shard.id).and_then(|route| route.term),
    });
    Routes::new(routes.collect()).hashed_as(known)
}

impl Table {
    pub(super) fn new(map: &ShardMap) -> Table {
        Table {
            routes: routes(map, &Routes::default()),
            shards: map.shards.iter().map(Shard::new).collect(),
            map: map.clone(),
        }
    }

    pub(super) fn term(&self, shard: GroupId) -> Option<Term> {
        self.routes.of_shard(shard).and_then(|route| route.term)
    }

    /// A node told what it knows of shards. Whoever would then not know the owner of
    /// some key waits for better news.
    pub(super) fn learn_map(&mut self, descriptors: &[ShardDescriptor]) {
        // Nearly every answer comes without any.
        if descriptors.is_empty() {
            return;
        }
        let mut map = self.map.clone();
        if !map.learn_all(descriptors) || !map.is_whole() {
            return;
        }
        self.map = map;
        self.routes = routes(&self.map, &self.routes);
        for descriptor in &self.map.shards {
            match self.shards.iter_mut().find(|s| s.id == descriptor.id) {
                Some(shard) if shard.generation < descriptor.generation => {
                    shard.generation = descriptor.generation;
                    shard.replicas.clone_from(&descriptor.configuration.voters);
                }
                Some(_) => {}
                None => self.shards.push(Shard::new(descriptor)),
            }
        }
    }

    /// The keys that a shard has, as far as known.
    pub(super) fn span(&self, shard: usize) -> Option<&Span> {
        let route = self.routes.of_shard(self.shards[shard].id);
        route.map(|route| &route.span)
    }

    /// How a shard's keys are stored, as far as known.
    pub(super) fn hashing(&self, shard: usize) -> Option<&Hashing> {
        let span = self.span(shard)?;
        self.routes.hashing_of(&span.start)
    }

    /// A node answered for a shard, in this term if it said so.
    pub(super) fn learn(&mut self, shard: usize, leader: NodeId, term: Option<Term>) {
        let shard = &mut self.shards[shard];
        if let Some(term) = term {
            let known = self.routes.of_shard(shard.id).and_then(|route| route.term);
            if known.is_some_and(|known| known.ballot > term.ballot) {
                return;
            }
            if known != Some(term) {
                self.routes.learn_term(shard.id, term);
            }
        }
        shard.leader = leader;
    }
}

/// The order in which a shard's replicas are tried, round after round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tour {
    /// Bits of the replicas tried in this round.
    tried: u64,
    next: Option<NodeId>,
    rounds: u32,
}

impl Tour {
    /// A tour that begins at `first`.
    pub(super) const fn new(first: NodeId) -> Tour {
        Tour {
            tried: 0,
            next: Some(first),
            rounds: 0,
        }
    }

    /// Rounds that failed.
    pub(super) const fn rounds(&self) -> u32 {
        self.rounds
    }

    /// A node said that this one leads.
    pub(super) const fn hint(&mut self, leader: Option<NodeId>) {
        self.next = leader;
    }

    fn bit(replicas: &[NodeId], node: NodeId) -> u64 {
        let index = replicas.iter().position(|id| *id == node);
        index.map_or(0, |index| 1 << (index % 64))
    }

    /// Who to ask now, and whether a whole round has failed before.
    pub(super) fn target(&mut self, replicas: &[NodeId]) -> (NodeId, bool) {
        let tried = self.tried;
        let untried = |id: &NodeId| tried & Tour::bit(replicas, *id) == 0;
        let hinted = self.next.take();
        let fresh = hinted
            .filter(untried)
            .or_else(|| replicas.iter().copied().find(untried));
        if let Some(target) = fresh {
            self.tried |= Tour::bit(replicas, target);
            return (target, false);
        }
        self.rounds += 1;
        let target = hinted.or(replicas.first().copied()).unwrap_or_default();
        self.tried = Tour::bit(replicas, target);
        (target, true)
    }

    /// Ask this node, though it was asked before.
    pub(super) fn stay(&mut self, replicas: &[NodeId], node: NodeId) {
        self.tried &= !Tour::bit(replicas, node);
        self.next = Some(node);
    }
}
