//! Changes of shards' members, as they are asked of a node and as it tells of them.

use super::driver::Driver;
use synod_paxos::GroupId;
use synod_rpc::members::{MemberStatus, MembersAnswer, MembersRequest, MembersStatus};
use synod_shard::{Members, Shard};

impl Driver {
    /// What the replicas here know of their shards' members; of one, or of all.
    pub(super) fn members(&self, of: Option<GroupId>) -> Vec<MembersStatus> {
        let Some(worker) = self.machine.worker() else {
            return Vec::new();
        };
        match of {
            Some(shard) => worker.shard(shard).map(members_of).into_iter().collect(),
            None => {
                let shards = worker.shards().filter(|shard| !shard.is_gone());
                shards.map(members_of).collect()
            }
        }
    }

    /// Asks the replica here, which should lead.
    pub(super) fn change_members(&mut self, request: MembersRequest) -> MembersAnswer {
        let MembersRequest {
            shard,
            follows,
            voters,
            witnesses,
            learners,
        } = request;
        let wanted = format!("voters {voters:?} witnesses {witnesses:?} learners {learners:?}");
        let members = Members {
            follows,
            voters,
            witnesses,
            learners,
        };
        match self.machine.reconfigure(&mut self.lanes, shard, members) {
            Ok(slot) => {
                tracing::info!(shard = shard.0, %follows, %wanted, "a change of members is proposed");
                MembersAnswer::Proposed { slot }
            }
            Err(error) => {
                tracing::debug!(shard = shard.0, %follows, %wanted, %error, "no change of members");
                MembersAnswer::Refused(error)
            }
        }
    }
}

fn members_of(shard: &Shard) -> MembersStatus {
    let replica = shard.replica();
    let began = replica.in_force();
    let others = replica.progress().into_iter().map(|f| MemberStatus {
        node: f.node,
        matched: f.matched,
        holds_data: f.data,
        caught_up: f.caught_up,
        snapshot: f.snapshot,
    });
    MembersStatus {
        shard: replica.group(),
        configuration: began.configuration,
        began: began.after,
        in_office: shard.in_office() && replica.in_office(),
        changing: shard.changes_members(),
        holds_data: replica.holds_data(),
        receiving: replica.incoming_snapshot().is_some(),
        emptied: shard.is_emptied(),
        left: began.left,
        others: others.collect(),
    }
}
