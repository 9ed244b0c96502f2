//! One question to a shard's leader, asked again and again until what it is for has happened. May be
//! repeated and given up at any time.

use crate::Trouble;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use synod_paxos::NodeId;
use synod_rpc::ask::{self, AskError};
use synod_rpc::{NodeRequest, NodeResponse, Pool};
use synod_shard::wire::{ShardDescriptor, ShardMap};

/// Between two questions.
const POLL: Duration = Duration::from_millis(50);
/// How long a node may take to answer, if there is so much time.
const ANSWER: Duration = Duration::from_secs(2);

/// What became of one question.
pub(crate) enum Asked {
    /// It has happened.
    Done,
    /// In a moment; why not yet.
    Later(String),
    /// Somebody else leads, perhaps this one.
    NotLeader(String, Option<NodeId>),
    /// The map may have changed.
    Look(String),
    /// Never.
    Never(Trouble),
}

/// What an answer means; the answer itself if it is to another question.
pub(crate) type Judge = fn(NodeResponse) -> Result<Asked, Box<NodeResponse>>;

/// A question on its way.
pub(crate) struct Press<'a> {
    pool: &'a Pool,
    deadline: Instant,
    /// Who seems to lead the shard.
    pub(crate) target: Option<NodeId>,
    /// What stood in the way last.
    pub(crate) why: String,
}

impl<'a> Press<'a> {
    pub(crate) fn new(pool: &'a Pool, deadline: Instant) -> Press<'a> {
        Press {
            pool,
            deadline,
            target: None,
            why: "nothing was tried".to_owned(),
        }
    }

    /// Asks the shard's leader again and again, for so long at most; false if the map is to
    /// be looked at again. `judge` is none for an answer to another question.
    ///
    /// # Errors
    /// When it is not allowed, or answered with something else.
    pub(crate) async fn press(
        &mut self,
        map: &ShardMap,
        shard: &ShardDescriptor,
        request: &NodeRequest,
        limit: Duration,
        judge: Judge,
    ) -> Result<bool, Trouble> {
        let until = self.deadline.min(Instant::now() + limit);
        while Instant::now() < until {
            let members = &shard.configuration.voters;
            let target = self.target.filter(|node| members.contains(node));
            let target = target.unwrap_or(shard.preferred_leader);
            let asked = match map.node(target) {
                Some(node) => self.ask(node.address, request.clone(), judge).await?,
                None => Asked::Later(self.why.clone()),
            };
            match asked {
                Asked::Done => return Ok(true),
                Asked::Never(trouble) => return Err(trouble),
                Asked::Later(why) => self.why = why,
                Asked::NotLeader(why, leader) => {
                    self.why = why;
                    self.target = leader;
                }
                Asked::Look(why) => {
                    self.why = why;
                    break;
                }
            }
            if self.target.is_none() {
                // The next one, round and round.
                let at = members.iter().position(|node| *node == target);
                let next = at.map_or(0, |at| (at + 1) % members.len().max(1));
                self.target = members.get(next).copied();
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(false)
    }

    /// Asks one node, once. Forgets who leads if that one does not answer.
    async fn ask(
        &mut self,
        node: SocketAddr,
        request: NodeRequest,
        judge: Judge,
    ) -> Result<Asked, Trouble> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match ask::try_ask(self.pool, node, request, ANSWER.min(left)).await {
            Ok(answer) => judge(answer).map_err(|other| {
                Trouble::Unreachable(format!(
                    "the node at {node} answered {other:?} to another question"
                ))
            }),
            Err(AskError::Refused(reason)) => Err(Trouble::Input(reason)),
            // It may have happened all the same; asking again tells.
            Err(AskError::Lost(reason)) => {
                self.target = None;
                Ok(Asked::Later(reason))
            }
        }
    }
}
