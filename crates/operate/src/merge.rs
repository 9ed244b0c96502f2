//! One merge of two neighbouring shards: the left one's leader is asked until it is done. May
//! be repeated and given up at any time.

use crate::Trouble;
use crate::press::{Asked, Press};
use std::time::{Duration, Instant};
use synod_paxos::{GroupId, NodeId};
use synod_rpc::merge::{MergeAnswer, MergeRequest};
use synod_rpc::{NodeRequest, NodeResponse, Pool};
use synod_shard::MergeError;
use synod_shard::wire::{ShardDescriptor, ShardMap};

/// A merge on its way.
pub struct Merger<'a> {
    right: GroupId,
    press: Press<'a>,
}

impl<'a> Merger<'a> {
    /// This shard is to become part of its left neighbour, until the deadline.
    #[must_use]
    pub fn new(pool: &'a Pool, right: GroupId, deadline: Instant) -> Merger<'a> {
        Merger {
            right,
            press: Press::new(pool, deadline),
        }
    }

    /// This node seems to lead the left shard.
    #[must_use]
    pub fn led_by(mut self, node: NodeId) -> Merger<'a> {
        self.press.target = Some(node);
        self
    }

    /// What stood in the way last.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.press.why
    }

    /// Asks the left shard's leader again and again, for so long at most; false if the map is to
    /// be looked at again.
    ///
    /// # Errors
    /// When the merge is not allowed, or answered with something else.
    pub async fn press(
        &mut self,
        map: &ShardMap,
        left: &ShardDescriptor,
        limit: Duration,
    ) -> Result<bool, Trouble> {
        let request = NodeRequest::MergeShards(MergeRequest {
            left: left.id,
            right: self.right,
        });
        self.press.press(map, left, &request, limit, judge).await
    }
}

fn judge(answer: NodeResponse) -> Result<Asked, Box<NodeResponse>> {
    let error = match answer {
        NodeResponse::Merge(MergeAnswer::Done) => return Ok(Asked::Done),
        NodeResponse::Merge(MergeAnswer::Underway) => {
            let why = "it waits for transactions under way in both shards";
            return Ok(Asked::Later(why.to_owned()));
        }
        NodeResponse::Merge(MergeAnswer::Refused(error)) => error,
        other => return Err(Box::new(other)),
    };
    let why = error.to_string();
    Ok(match error {
        MergeError::NotLeader { leader } => Asked::NotLeader(why, leader),
        MergeError::NotReady { .. }
        | MergeError::Underway { .. }
        | MergeError::NotFollowed { .. }
        | MergeError::Busy { .. }
        | MergeError::Silent => Asked::Later(why),
        MergeError::NotNeighbours => Asked::Look(why),
        MergeError::Meta
        | MergeError::OtherMembers
        | MergeError::OtherSharding
        | MergeError::Version { .. } => Asked::Never(Trouble::Input(why)),
    })
}
