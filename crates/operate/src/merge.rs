//! One merge of two neighbouring shards: the left one's leader is asked until it is done. May
//! be repeated and given up at any time.

use crate::Trouble;
use crate::press::{Asked, Judge, Press};
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
    judge: Judge,
}

impl<'a> Merger<'a> {
    /// This shard is to become part of its left neighbour, until the deadline.
    #[must_use]
    pub fn new(pool: &'a Pool, right: GroupId, deadline: Instant) -> Merger<'a> {
        Merger {
            right,
            press: Press::new(pool, deadline),
            judge,
        }
    }

    /// Whatever stands in the way is not waited for: nobody is in a hurry, and each attempt
    /// holds up commits to both shards.
    #[must_use]
    pub fn only_once(mut self) -> Merger<'a> {
        self.judge = judge_once;
        self
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
        let press = &mut self.press;
        press.press(map, left, &request, limit, self.judge).await
    }
}

/// As [`judge`], but a refusal for now is one.
fn judge_once(answer: NodeResponse) -> Result<Asked, Box<NodeResponse>> {
    let is_refusal = matches!(&answer, NodeResponse::Merge(MergeAnswer::Refused(_)));
    Ok(match judge(answer)? {
        Asked::Later(why) if is_refusal => Asked::Never(Trouble::Failed(why)),
        asked => asked,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(error: MergeError) -> NodeResponse {
        NodeResponse::Merge(MergeAnswer::Refused(error))
    }

    #[test]
    fn who_asks_once_gives_up_where_others_wait() {
        let busy = || refused(MergeError::Busy { open: 2 });
        assert!(matches!(judge(busy()), Ok(Asked::Later(_))));
        let given_up = judge_once(busy());
        assert!(matches!(
            given_up,
            Ok(Asked::Never(Trouble::Failed(why))) if why.contains("2 transactions")
        ));
        for judge in [judge, judge_once] {
            // The attempt itself is waited for, and a new leader is asked.
            let under_way = NodeResponse::Merge(MergeAnswer::Underway);
            assert!(matches!(judge(under_way), Ok(Asked::Later(_))));
            let leader = Some(NodeId(3));
            let moved = judge(refused(MergeError::NotLeader { leader }));
            assert!(matches!(moved, Ok(Asked::NotLeader(_, found)) if found == leader));
            // For good is another thing.
            let never = judge(refused(MergeError::OtherSharding));
            assert!(matches!(never, Ok(Asked::Never(Trouble::Input(_)))));
        }
    }
}
