//! What the rules are shown: a node after its step, and all nodes at the same
//! true instant. Nothing in here belongs to one simulator.

use synod_paxos::{GroupId, NodeId, Timestamp};
use synod_shard::{NodeMessage, Now, ShardReply, Worker};
use synod_txn::{Caller, Key};

/// The node that has just stepped.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// True time; nanoseconds.
    pub t: u64,
    /// Its index in [`Everyone::nodes`].
    pub node: usize,
    /// Its id.
    pub id: NodeId,
    /// Rises with every restart.
    pub life: u64,
    /// Its clocks now.
    pub now: Now,
    /// Its worker, after the step.
    pub worker: &'a Worker,
    /// What left in this step.
    pub step: Step<'a>,
    /// Whether it died in the middle of it, so that not all left that was to.
    pub died: bool,
    /// What its engine holds, where that is shown.
    pub engine: Option<&'a dyn Stored>,
}

/// An engine, as far as rules look into it.
pub trait Stored {
    /// The timestamp of the newest version of a key, at or below `at`.
    fn newest(&self, key: &Key, at: Timestamp) -> Option<Timestamp>;

    /// Whether it says that a group's range is neither an old state nor a new one.
    fn is_installing(&self, group: GroupId) -> bool;
}

/// What a step let out, in the order in which it left.
#[derive(Clone, Copy, Default)]
pub struct Step<'a> {
    /// Frames to other nodes, bulk included.
    pub sent: &'a [(NodeId, Vec<NodeMessage>)],
    /// Answers to clients.
    pub replies: &'a [(Caller, ShardReply)],
}

impl<'a> Step<'a> {
    /// Every message sent, with its receiver.
    pub fn messages(&self) -> impl Iterator<Item = (NodeId, &'a NodeMessage)> + use<'a> {
        let frames = self.sent.iter();
        frames.flat_map(|(to, messages)| messages.iter().map(|message| (*to, message)))
    }
}

/// One node at this instant.
#[derive(Clone, Copy)]
pub struct Peer<'a> {
    /// Its id.
    pub id: NodeId,
    /// Its worker; none while it is down.
    pub worker: Option<&'a Worker>,
    /// Its clocks.
    pub now: Now,
    /// Rises with every restart.
    pub life: u64,
}

/// All nodes at one true instant.
#[derive(Clone, Copy)]
pub struct Everyone<'a> {
    /// True time; nanoseconds.
    pub t: u64,
    /// By index.
    pub nodes: &'a [Peer<'a>],
}

impl<'a> Everyone<'a> {
    /// The node of this id.
    #[must_use]
    pub fn peer(&self, id: NodeId) -> Option<&'a Peer<'a>> {
        self.nodes.iter().find(|peer| peer.id == id)
    }

    /// The nodes that run, with their workers.
    pub fn running(&self) -> impl Iterator<Item = (usize, &'a Peer<'a>, &'a Worker)> + use<'a> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(index, peer)| Some((index, peer, peer.worker?)))
    }
}
