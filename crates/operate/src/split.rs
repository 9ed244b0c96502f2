//! One split of a shard: an id for the new one, and the leader asked until it is done. Both may
//! be repeated and given up at any time.

use crate::press::{Asked, Press};
use crate::{FAILOVER, Trouble, acting, change};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use synod_paxos::{GroupId, NodeId};
use synod_rpc::placement::RecordChange;
use synod_rpc::split::{SplitAnswer, SplitRequest};
use synod_rpc::{NodeRequest, NodeResponse, Pool};
use synod_shard::wire::{ShardDescriptor, ShardMap};
use synod_shard::{Claim, META_SHARD, SplitError};
use synod_txn::Key;

/// How long somebody whose id was taken first waits at most, the first time, before he
/// claims another: the other one should have seen by then that he has it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The pause doubles so often at most.
const DOUBLED: u32 = 4;

/// A split on its way.
pub struct Splitter<'a> {
    pool: &'a Pool,
    endpoints: &'a [SocketAddr],
    at: Key,
    deadline: Instant,
    press: Press<'a>,
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
            press: Press::new(pool, deadline),
        }
    }

    /// This node seems to lead the shard.
    #[must_use]
    pub fn led_by(mut self, node: NodeId) -> Splitter<'a> {
        self.press.target = Some(node);
        self
    }

    /// What stood in the way last.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.press.why
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
        let mut attempt = 0;
        loop {
            if attempt > 0 {
                tokio::time::sleep(pause(nonce, attempt)).await;
            }
            attempt += 1;
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
        let until = self.deadline.min(Instant::now() + FAILOVER);
        let acting = acting(self.pool, self.endpoints, until).await?;
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
        let request = NodeRequest::SplitShard(Box::new(SplitRequest {
            shard: parent.id,
            at: self.at.clone(),
            child,
        }));
        let press = &mut self.press;
        press.press(map, parent, &request, limit, judge).await
    }
}

/// How long to wait before the claim `attempt`, from 1 on. The records name the last claim
/// only, so whoever is overtaken before he has looked does not know that he had an id, and
/// those who ask at once could overtake one another for ever: each waits for a time of his own,
/// which grows, as in the binary exponential backoff of Ethernet.
fn pause(nonce: u128, attempt: u32) -> Duration {
    let longest = FIRST_PAUSE * (1 << (attempt - 1).min(DOUBLED));
    let bits = nonce.rotate_right(attempt.wrapping_mul(11)) as u8;
    longest * u32::from(bits) / u32::from(u8::MAX)
}

fn judge(answer: NodeResponse) -> Result<Asked, Box<NodeResponse>> {
    let error = match answer {
        NodeResponse::Split(SplitAnswer::Done) => return Ok(Asked::Done),
        NodeResponse::Split(SplitAnswer::Underway) => {
            return Ok(Asked::Later(
                "it waits for transactions under way".to_owned(),
            ));
        }
        NodeResponse::Split(SplitAnswer::Refused(error)) => error,
        other => return Err(Box::new(other)),
    };
    let why = error.to_string();
    Ok(match error {
        SplitError::NotLeader { leader } => Asked::NotLeader(why, leader),
        SplitError::NotReady | SplitError::Underway { .. } | SplitError::Busy { .. } => {
            Asked::Later(why)
        }
        // Somebody else has split it, or this one's own question was answered late.
        SplitError::NotInside | SplitError::Taken { .. } => Asked::Look(why),
        SplitError::Meta | SplitError::Version { .. } => Asked::Never(Trouble::Input(why)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_differ() {
        // As good as random, by splitmix64.
        let half = |n: u64| {
            let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            u128::from(z ^ (z >> 31))
        };
        let nonces: Vec<u128> = (1..=64).map(|n| half(n) << 64 | half(n + 64)).collect();
        for attempt in 1..40 {
            let longest = FIRST_PAUSE * (1 << (attempt - 1).min(DOUBLED));
            let mut pauses: Vec<Duration> = nonces.iter().map(|n| pause(*n, attempt)).collect();
            assert!(pauses.iter().all(|pause| *pause <= longest));
            pauses.sort();
            pauses.dedup();
            assert!(pauses.len() > 40, "attempt {attempt}: {}", pauses.len());
        }
    }
}
