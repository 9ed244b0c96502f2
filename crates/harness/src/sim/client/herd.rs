//! What the clients of one place share while a shard has no leader: one of them
//! searches for all, as the callers of one SDK client do.

use std::cell::RefCell;
use std::rc::Rc;
use synod_paxos::NodeId;

/// The search for one shard's leader. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Search {
    /// When the last round over the replicas began.
    begun: Option<u64>,
    /// Who was last seen to lead, and when.
    found: Option<(NodeId, u64)>,
}

/// The searches of one place, by index of the shard.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Herd(Rc<RefCell<Vec<Search>>>);

impl Herd {
    /// Nothing is known of so many shards.
    pub(in crate::sim) fn new(shards: usize) -> Herd {
        Herd(Rc::new(RefCell::new(vec![Search::default(); shards])))
    }

    /// A node answered for a shard.
    pub(super) fn find(&self, shard: usize, leader: NodeId, t: u64) {
        self.0.borrow_mut()[shard].found = Some((leader, t));
    }

    /// Who was found to lead at `since` or later.
    pub(super) fn found(&self, shard: usize, since: u64) -> Option<NodeId> {
        let found = self.0.borrow()[shard].found;
        found
            .filter(|(_, at)| *at >= since)
            .map(|(leader, _)| leader)
    }

    /// Whether a caller may begin a round: nobody did in this interval.
    pub(super) fn may_search(&self, shard: usize, t: u64, interval: u64) -> bool {
        let search = &mut self.0.borrow_mut()[shard];
        let may = search.begun.is_none_or(|begun| t >= begun + interval);
        if may {
            search.begun = Some(t);
        }
        may
    }
}
