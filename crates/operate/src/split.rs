//! One split of a shard: an id for the new one, and the leader asked until it is done. Both may
//! be repeated and given up at any time.

use crate::{Trouble, acting, change};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use synod_paxos::{GroupId, NodeId};
use synod_rpc::ask::{self, AskError};
use synod_rpc::placement::RecordChange;
use synod_rpc::split::{SplitAnswer, SplitRequest};
use synod_rpc::{NodeRequest, NodeResponse, Pool};
use synod_shard::wire::{ShardDescriptor, ShardMap};
use synod_shard::{Claim, META_SHARD, SplitError};
use synod_txn::Key;

/// Between two questions.
const POLL: Duration = Duration::from_millis(50);
/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// A split on its way.
pub struct Splitter<'a> {
    pool: &'a Pool,
    endpoints: &'a [SocketAddr],
    at: Key,
    deadline: Instant,
    /// Who seems to lead the shard.
    target: Option<NodeId>,
    /// What stood in the way last.
    why: String,
}

/// What became of one question.
enum Asked {
    Done,
    /// In a moment.
    Later,
    /// The map may have changed.
    Look,
}

impl<'a> Splitter<'a> {
    /// The shard with this key is to be cut there, until the deadline.
    #[must_use]
    pub fn new(
        pool: &'a Pool,
        endpoints: &'a [SocketAddr],
        at: Key,
        deadline: Instant,
    ) -> Splitter<'a> {
        Splitter {
            pool,
            endpoints,
            at,
            deadline,
            target: None,
            why: "nothing was tried".to_owned(),
        }
    }

    /// This node seems to lead the shard.
    #[must_use]
    pub fn led_by(mut self, node: NodeId) -> Splitter<'a> {
        self.target = Some(node);
        self
    }

    /// What stood in the way last.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.why
    }

    /// An id that is the asker's alone; `nonce` is a number that he drew.
    ///
    /// # Errors
    /// When none can be had in time.
    pub async fn claim(&self, map: &ShardMap, nonce: u128) -> Result<GroupId, Trouble> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let claimed = tokio::time::timeout(left, self.try_claim(map, nonce)).await;
        claimed.unwrap_or_else(|_| {
            Err(Trouble::Failed(
                "no id for the new shard could be had in time, so nothing was changed; see `synod \
                 status`, and run the command again"
                    .to_owned(),
            ))
        })
    }

    async fn try_claim(&self, map: &ShardMap, nonce: u128) -> Result<GroupId, Trouble> {
        let highest = map.shards.iter().map(|s| s.id).max().unwrap_or(META_SHARD);
        loop {
            let last = self.last_claim().await?;
            let last = last.map_or(highest, |claim| claim.id.max(highest));
            let id = GroupId(last.0.saturating_add(1));
            let wanted = Claim { id, nonce };
            // Or it is somebody else's by now.
            let is_gone = async |acting: &crate::Acting| {
                let claim = acting.status.records.claim;
                claim.is_some_and(|claim| claim.id >= wanted.id)
            };
            let asked = RecordChange::ClaimShard(wanted);
            match change(self.pool, self.endpoints, asked, is_gone).await {
                Ok(acting) if acting.status.records.claim == Some(wanted) => return Ok(id),
                Ok(_) => {}
                Err(trouble) => match self.last_claim().await? {
                    Some(claim) if claim == wanted => return Ok(id),
                    Some(claim) if claim.id >= wanted.id => {}
                    _ => return Err(trouble),
                },
            }
        }
    }

    async fn last_claim(&self) -> Result<Option<Claim>, Trouble> {
        let acting = acting(self.pool, self.endpoints).await?;
        Ok(acting.status.records.claim)
    }

    /// Asks the shard's leader again and again, for so long at most; false if the map is to
    /// be looked at again.
    ///
    /// # Errors
    /// When the split is not allowed, or answered with something else.
    pub async fn press(
        &mut self,
        map: &ShardMap,
        parent: &ShardDescriptor,
        child: GroupId,
        limit: Duration,
    ) -> Result<bool, Trouble> {
        let until = self.deadline.min(Instant::now() + limit);
        while Instant::now() < until {
            let members = &parent.configuration.voters;
            let target = self.target.filter(|node| members.contains(node));
            let target = target.unwrap_or(parent.preferred_leader);
            let asked = match map.node(target) {
                Some(node) => self.ask(node.address, parent, child).await?,
                None => Asked::Later,
            };
            match asked {
                Asked::Done => return Ok(true),
                Asked::Look => break,
                Asked::Later => {}
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

    /// Asks one node, once. Forgets who leads if that one does not.
    async fn ask(
        &mut self,
        node: SocketAddr,
        parent: &ShardDescriptor,
        child: GroupId,
    ) -> Result<Asked, Trouble> {
        let request = SplitRequest {
            shard: parent.id,
            at: self.at.clone(),
            child,
        };
        let request = NodeRequest::SplitShard(Box::new(request));
        let error = match ask::try_ask(self.pool, node, request, ANSWER).await {
            Ok(NodeResponse::Split(SplitAnswer::Done)) => return Ok(Asked::Done),
            Ok(NodeResponse::Split(SplitAnswer::Underway)) => {
                "it waits for transactions under way".clone_into(&mut self.why);
                return Ok(Asked::Later);
            }
            Ok(NodeResponse::Split(SplitAnswer::Refused(error))) => error,
            Ok(other) => {
                return Err(Trouble::Unreachable(format!(
                    "the node at {node} answered {other:?} to SplitShard"
                )));
            }
            Err(AskError::Refused(reason)) => return Err(Trouble::Input(reason)),
            // It may be split all the same; asking again tells.
            Err(AskError::Lost(reason)) => {
                self.target = None;
                self.why = reason;
                return Ok(Asked::Later);
            }
        };
        self.why = error.to_string();
        match error {
            SplitError::NotLeader { leader } => {
                self.target = leader;
                Ok(Asked::Later)
            }
            SplitError::NotReady | SplitError::Underway { .. } | SplitError::Busy { .. } => {
                Ok(Asked::Later)
            }
            // Somebody else has split it, or this one's own question was answered late.
            SplitError::NotInside | SplitError::Taken { .. } => Ok(Asked::Look),
            SplitError::Meta | SplitError::Version { .. } => Err(Trouble::Input(error.to_string())),
        }
    }
}
