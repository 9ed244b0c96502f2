//! What a client knows of the cluster, and the order in which it tries replicas.

use synod_paxos::{GroupId, NodeId, Term};
use synod_shard::{ShardDescriptor, ShardMap};
use synod_txn::client::{Route, Routes};

/// A shard, as far as the client knows.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub(super) id: GroupId,
    pub(super) generation: u64,
    pub(super) replicas: Vec<NodeId>,
    pub(super) leader: NodeId,
}

/// What a client knows of the cluster: routes, replicas, leaders.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) routes: Routes,
    pub(super) shards: Vec<Shard>,
}

impl Table {
    pub(super) fn new(map: &ShardMap) -> Table {
        let routes = map.shards.iter().map(|s| Route {
            shard: s.id,
            span: s.span.clone(),
            term: None,
        });
        let shards = map.shards.iter().map(|s| Shard {
            id: s.id,
            generation: s.generation,
            replicas: s.configuration.voters.clone(),
            leader: s.preferred_leader,
        });
        Table {
            routes: Routes::new(routes.collect()),
            shards: shards.collect(),
        }
    }

    pub(super) fn term(&self, shard: GroupId) -> Option<Term> {
        self.routes.of_shard(shard).and_then(|route| route.term)
    }

    /// A node without the shard told who has it.
    pub(super) fn learn_members(&mut self, shard: usize, descriptor: &ShardDescriptor) {
        let shard = &mut self.shards[shard];
        if shard.id == descriptor.id && shard.generation < descriptor.generation {
            shard.generation = descriptor.generation;
            shard.replicas.clone_from(&descriptor.configuration.voters);
        }
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
