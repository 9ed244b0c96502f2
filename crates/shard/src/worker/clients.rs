//! Clients' requests: to the replica they are for, or an answer that says where else to ask.

use super::Worker;
use crate::shard::{Now, Shard};
use crate::wire::{ShardReply, ShardRequest};
use synod_paxos::GroupId;
use synod_txn::Caller;
use synod_txn::request::{Refusal, Response};

impl Worker {
    pub(super) fn handle_client(&mut self, now: Now, caller: Caller, request: ShardRequest) {
        let id = request.shard;
        let is_behind = |shard: &Shard| {
            // Whoever serves knows better than whoever told it so.
            shard.replica.left_behind_by().is_some() && !shard.in_office()
        };
        let has_turned = |shard: &Shard| shard.is_gone() || is_behind(shard);
        let turned = self.shards.get(&id).is_some_and(has_turned);
        if let Some(reply) = turned.then(|| self.reply_elsewhere(now, id)).flatten() {
            self.outbox.reply_wrong_node(caller, reply);
        } else if let Some(shard) = self.shards.get_mut(&id).filter(|s| s.is_member()) {
            shard.handle_request(now, &self.leases, caller, request, &mut self.outbox);
            // At once, so that the next request's admission sees what this one proposed.
            shard.pump(now, &self.leases, &mut self.outbox);
            self.dirty.insert(id);
        } else {
            let known = self.map.shard(id).cloned().map(Box::new);
            self.outbox
                .reply_wrong_node(caller, ShardReply::WrongNode(known));
        }
    }

    /// What a client is told where the replica here is of no use to it any more.
    fn reply_elsewhere(&mut self, now: Now, id: GroupId) -> Option<ShardReply> {
        let gone = self.shards.get(&id).is_some_and(Shard::is_gone);
        let absorbed = gone.then(|| self.reply_of_absorbed(id)).flatten();
        absorbed.or_else(|| self.reply_left_behind(now, id))
    }

    /// What a client is told where a replica was left behind: the members of long ago, whom its log
    /// names, may all be gone, and the client may know no others.
    fn reply_left_behind(&mut self, now: Now, id: GroupId) -> Option<ShardReply> {
        let replica = &self.shards.get(&id)?.replica;
        let told = replica.left_behind_by()?.epoch;
        if let Some(mapped) = self.map.shard(id)
            && mapped.configuration.epoch >= told
        {
            return Some(ShardReply::WrongNode(Some(Box::new(mapped.clone()))));
        }
        // Whoever told this replica told it of members only: it makes no descriptor of that, as it
        // does not know what range goes with them.
        let hint = self.any_member(id, now.mono);
        let refusal = Refusal::NotLeader { hint };
        Some(ShardReply::Response(Response::Refused(refusal)))
    }
}
