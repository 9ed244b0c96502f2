//! What the clients of one place share while a shard has no leader: one of them
//! searches for all, as the callers of one SDK client do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use synod_paxos::{GroupId, NodeId};

/// The search for one shard's leader. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Search {
    /// When the last round over the replicas began.
    begun: Option<u64>,
    /// Who was last seen to lead, and when.
    found: Option<(NodeId, u64)>,
}

/// The searches of one place, by shard.
#[derive(Clone, Debug, Default)]
pub(in crate::sim) struct Herd(Rc<RefCell<BTreeMap<GroupId, Search>>>);

impl Herd {
    /// A node answered for a shard.
    pub(super) fn find(&self, shard: GroupId, leader: NodeId, t: u64) {
        self.0.borrow_mut().entry(shard).or_default().found = Some((leader, t));
    }

    /// Who was found to lead at `since` or later.
    pub(super) fn found(&self, shard: GroupId, since: u64) -> Option<NodeId> {
        let found = self.0.borrow().get(&shard).and_then(|search| search.found);
        found
            .filter(|(_, at)| *at >= since)
            .map(|(leader, _)| leader)
    }

    /// Whether a caller may begin a round: nobody did in this interval.
    pub(super) fn may_search(&self, shard: GroupId, t: u64, interval: u64) -> bool {
        let mut searches = self.0.borrow_mut();
        let search = searches.entry(shard).or_default();
        let may = search.begun.is_none_or(|begun| t >= begun + interval);
        if may {
            search.begun = Some(t);
        }
        may
    }
}
