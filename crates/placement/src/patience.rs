//! Who is left in peace for a while: nodes where something was done just now, and what did
//! not succeed, longer each time.

use std::collections::BTreeMap;
use std::time::Duration;
use synod_paxos::NodeId;

/// So long nothing else is done at the same node.
const PAUSE: Duration = Duration::from_secs(5);
/// What failed is left in peace so long, then twice as long each time.
const FIRST_BACK_OFF: Duration = Duration::from_secs(10);
const LAST_BACK_OFF: Duration = Duration::from_secs(600);

/// How something ended; with the reason in words, if it did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It happened.
    Done,
    /// Something stood in the way that may be gone soon.
    Failed(String),
    /// It is not allowed, and hardly will be soon.
    Refused(String),
}

#[derive(Clone, Debug)]
struct Failure {
    /// How often in a row.
    times: u32,
    /// Until then it is left in peace.
    until: Duration,
    why: String,
}

/// See the module. As large as what is not forgotten by [`Patience::only`].
#[derive(Clone, Debug)]
pub(crate) struct Patience<K> {
    pauses: BTreeMap<NodeId, Duration>,
    failed: BTreeMap<K, Failure>,
}

impl<K> Default for Patience<K> {
    fn default() -> Patience<K> {
        Patience {
            pauses: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Copy> Patience<K> {
    /// Forgets pauses that are over, and the failures of everything else.
    pub(crate) fn only(&mut self, now: Duration, still: impl Fn(&K) -> bool) {
        self.failed.retain(|what, _| still(what));
        self.pauses.retain(|_, until| *until > now);
    }

    /// Whether nothing is to be done at this node now.
    pub(crate) fn rests(&self, now: Duration, node: NodeId) -> bool {
        self.pauses.get(&node).is_some_and(|until| *until > now)
    }

    /// Why it failed, if it is not to be tried again yet.
    pub(crate) fn backs_off(&self, now: Duration, what: &K) -> Option<&str> {
        let failure = self.failed.get(what).filter(|failure| failure.until > now);
        failure.map(|failure| failure.why.as_str())
    }

    /// It ended, and these nodes had to do with it.
    pub(crate) fn ended(&mut self, now: Duration, nodes: &[NodeId], what: K, ended: Ended) {
        let pauses = nodes.iter().map(|node| (*node, now + PAUSE));
        self.pauses.extend(pauses);
        let times = self.failed.get(&what).map_or(0, |failure| failure.times);
        let (rest, why) = match ended {
            Ended::Done => {
                self.failed.remove(&what);
                return;
            }
            Ended::Failed(why) => (FIRST_BACK_OFF.saturating_mul(1 << times.min(16)), why),
            Ended::Refused(why) => (LAST_BACK_OFF, why),
        };
        let failure = Failure {
            times: times.saturating_add(1),
            until: now + rest.min(LAST_BACK_OFF),
            why,
        };
        self.failed.insert(what, failure);
    }
}
