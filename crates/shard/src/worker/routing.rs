//! Which node a message between transactions of different shards goes to.

use super::Worker;
use crate::shard::Now;
use crate::wire::NodeMessage;
use synod_paxos::{GroupId, Mono, NodeId, Replica};
use synod_probe::{Mark, mark};
use synod_txn::peer::{PeerBody, Vote};
use synod_txn::{Key, Outcome, PeerMessage};

/// How often a transaction message may be passed on before it is dropped; its
/// owner repeats it (T9).
pub(super) const MAX_HOPS: u8 = 3;
/// 2^64 over the golden ratio: its multiples spread evenly over any number of
/// members, also if only every second or third is looked at.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

impl Worker {
    pub(super) fn deliver_peers(&mut self, now: Now) {
        for _ in 0..self.outbox.peers.len() {
            let Some((shard, message)) = self.outbox.peers.pop_front() else {
                return;
            };
            self.note_moved(now, shard, &message);
            self.route_peer(now, shard, 0, message);
        }
    }

    /// A participant here votes to a shard that owns the coordinator's anchor no more, as this node's
    /// map says: it need not wait before it asks for an end.
    fn note_moved(&mut self, now: Now, named: GroupId, message: &PeerMessage) {
        let PeerBody::Vote {
            vote: Vote::Yes(_), ..
        } = message.body
        else {
            return;
        };
        let (anchor, from) = (&message.anchor, &message.from);
        let owner = self.map.shard_of(anchor);
        if owner.is_none_or(|owner| owner.id == named) {
            return;
        }
        // A map that lags does not know the shard that is named, or not yet.
        let former = self.map.shard(named);
        if former.is_none_or(|former| former.span.contains(anchor)) {
            return;
        }
        let Some(voter) = self.owner(from, GroupId(0)) else {
            return;
        };
        if let Some(shard) = self.shards.get_mut(&voter) {
            shard.coordinator_moved(now, &self.leases, message.attempt, anchor);
            self.dirty.insert(voter);
        }
    }

    /// To the leader of the shard that owns the message's anchor: here, or on
    /// the node that seems to have it.
    pub(super) fn route_peer(&mut self, now: Now, hint: GroupId, hops: u8, message: PeerMessage) {
        let Some(owner) = self.owner(&message.anchor, hint) else {
            return;
        };
        if let Some(shard) = self.shards.get_mut(&owner)
            && shard.takes_peers()
        {
            shard.handle_peer(now, &self.leases, message);
            self.dirty.insert(owner);
            return;
        }
        if hops >= MAX_HOPS {
            mark(Mark::HopsExhausted);
            return;
        }
        if let Some(to) = self.whom_to_ask(owner, now.mono) {
            if hops > 0 {
                mark(Mark::MessagePassedOn);
            }
            // Nobody's locks or answers wait for these (T6); an abort's first
            // Resolve is a recorded one, and locks do wait for that.
            let unhurried = matches!(
                message.body,
                PeerBody::Ack
                    | PeerBody::Resolve {
                        outcome: Outcome::Committed(_),
                        recorded: true,
                    }
            );
            let message = NodeMessage::Transaction {
                shard: owner,
                hops: hops + 1,
                message,
            };
            if unhurried {
                self.outbox.send_unhurried(now.mono, to, message);
            } else {
                self.outbox.send(to, message);
            }
        }
    }

    /// Any member of a shard knows its leader, but this one or that may be gone for long:
    /// repetitions go to different ones (T9), of those that seem to be there if there are any.
    /// By a golden ratio, since those of one message may come in step with what else is asked.
    pub(super) fn any_member(&mut self, shard: GroupId, now: Mono) -> Option<NodeId> {
        self.asked = self.asked.wrapping_add(GOLDEN_RATIO);
        let mapped = self.map.shard(shard).map(|s| &s.configuration);
        // The map follows the logs of the replicas here. One that was left behind was told of
        // members that its log does not know.
        let replica = self.shards.get(&shard).map(|s| &s.replica);
        let told = replica.and_then(Replica::left_behind_by);
        let youngest = mapped.into_iter().chain(told).max_by_key(|c| c.epoch)?;
        let others = youngest.voters.iter().copied().filter(|m| *m != self.me);
        let mut others: Vec<NodeId> = others.collect();
        if others.iter().any(|m| self.hearing.is_there(*m, now)) {
            others.retain(|m| self.hearing.is_there(*m, now));
        }
        let count = others.len().max(1) as u64;
        let at = ((self.asked >> 32) % count) as usize;
        others.get(at).copied()
    }

    pub(super) fn owner(&self, anchor: &Key, hint: GroupId) -> Option<GroupId> {
        let known = self.shards.get(&hint);
        // Of one that was absorbed an empty one is left.
        let known = known.filter(|shard| shard.is_member() && !shard.is_gone());
        if known.is_some_and(|shard| shard.descriptor.span.contains(anchor)) {
            return Some(hint);
        }
        // Who was told of one half of a split only asks there for the other.
        self.map.nearest(anchor).map(|s| s.id)
    }
}
