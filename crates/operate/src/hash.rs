//! A directory is hashed, or no more (decision 22): the leader of its one shard is asked until
//! that is done. It may be repeated and given up at any time.

use crate::{Trouble, map};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use synod_paxos::{GroupId, NodeId};
use synod_rpc::ask::{self, AskError};
use synod_rpc::hash::{HashAnswer, HashRequest};
use synod_rpc::{NodeRequest, NodeResponse, Pool};
use synod_shard::wire::ShardMap;
use synod_shard::{HashError, ShardDescriptor};
use synod_txn::{Hashing, Span};

/// Between two questions.
const POLL: Duration = Duration::from_millis(50);
/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// So often the shard may turn out to have another range than the map says: its node may know of a
/// split that others do not.
const LOOKS: u32 = 20;

/// How the keys of the shards are stored, as their leaders tell; those that are stored as
/// they are, are left out, and so are those of leaders that do not answer.
pub async fn hashed(pool: &Pool, map: &ShardMap) -> BTreeMap<GroupId, Hashing> {
    let mut asked = tokio::task::JoinSet::new();
    for node in &map.nodes {
        let (pool, address) = (pool.clone(), node.address);
        asked.spawn(async move { ask::ask(&pool, address, NodeRequest::Hashed, ANSWER).await });
    }
    let mut hashed = BTreeMap::new();
    for answer in asked.join_all().await {
        if let Ok(NodeResponse::Hashed(shards)) = answer {
            hashed.extend(shards.into_iter().map(|told| (told.shard, told.hashing)));
        }
    }
    hashed
}

/// Has the keys of a directory, which is one shard and empty, stored in this way from now on;
/// none is as they are.
///
/// # Errors
/// When it is not allowed, or does not come about until the deadline.
pub async fn hash(
    pool: &Pool,
    endpoints: &[SocketAddr],
    directory: &Span,
    hashing: Option<&Hashing>,
    deadline: Instant,
) -> Result<(), Trouble> {
    let mut target = None;
    let mut why = "nothing was tried".to_owned();
    let mut looks = 0;
    while Instant::now() < deadline {
        let map = map(pool, endpoints, ANSWER).await?;
        let shard = map.shard_of(&directory.start);
        match shard.filter(|shard| shard.span == *directory) {
            Some(shard) => match press(pool, &map, shard, hashing, &mut target).await? {
                Pressed::Done => return Ok(()),
                Pressed::Later(reason) => why = reason,
                Pressed::Elsewhere(error) => {
                    looks += 1;
                    why = error;
                }
            },
            None => {
                looks += 1;
                why = "its keys are not one shard of their own".to_owned();
            }
        }
        if looks > LOOKS {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    Err(Trouble::Failed(format!(
        "how the directory's keys are stored was not changed: {why}. Run the command again: that is \
         harmless"
    )))
}

enum Pressed {
    Done,
    Later(String),
    /// The shard has another range.
    Elsewhere(String),
}

/// Asks who seems to lead, once.
async fn press(
    pool: &Pool,
    map: &ShardMap,
    shard: &ShardDescriptor,
    hashing: Option<&Hashing>,
    target: &mut Option<NodeId>,
) -> Result<Pressed, Trouble> {
    let members = &shard.configuration.voters;
    let asked = target.filter(|node| members.contains(node));
    let asked = asked.unwrap_or(shard.preferred_leader);
    // The next one, round and round, unless this one knows better.
    let at = members.iter().position(|node| *node == asked);
    let next = at.map_or(0, |at| (at + 1) % members.len().max(1));
    *target = members.get(next).copied();
    let Some(node) = map.node(asked) else {
        return Ok(Pressed::Later(format!("node {asked} is not known")));
    };
    let request = HashRequest {
        shard: shard.id,
        hashing: hashing.cloned(),
    };
    let request = NodeRequest::HashShard(Box::new(request));
    let error = match ask::try_ask(pool, node.address, request, ANSWER).await {
        Ok(NodeResponse::Hash(HashAnswer::Done)) => return Ok(Pressed::Done),
        Ok(NodeResponse::Hash(HashAnswer::Underway)) => {
            *target = Some(asked);
            let why = "it waits for transactions under way".to_owned();
            return Ok(Pressed::Later(why));
        }
        Ok(NodeResponse::Hash(HashAnswer::Refused(error))) => error,
        Ok(other) => {
            return Err(Trouble::Unreachable(format!(
                "the node at {} answered {other:?} to HashShard",
                node.address
            )));
        }
        Err(AskError::Refused(reason)) => return Err(Trouble::Input(reason)),
        Err(AskError::Lost(reason)) => return Ok(Pressed::Later(reason)),
    };
    let why = error.to_string();
    match error {
        HashError::NotLeader { leader } => {
            *target = leader.or(*target);
            Ok(Pressed::Later(why))
        }
        HashError::NotReady | HashError::Busy { .. } => {
            *target = Some(asked);
            Ok(Pressed::Later(why))
        }
        HashError::OtherRange { .. } => Ok(Pressed::Elsewhere(why)),
        HashError::Meta | HashError::NotEmpty { .. } | HashError::Version { .. } => {
            Err(Trouble::Input(why))
        }
    }
}
