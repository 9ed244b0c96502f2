//! Hashed directories, as they are asked for of a node.

use super::driver::Driver;
use synod_rpc::hash::{HashAnswer, HashRequest, HashedShard};
use synod_rpc::wire::NodeResponse;
use synod_shard::Splitting;

impl Driver {
    /// Asks the replica here, which should lead.
    pub(super) fn hash_shard(&mut self, request: HashRequest) -> NodeResponse {
        let HashRequest { shard, hashing } = request;
        let hashed = self.machine.hash(&mut self.lanes, shard, hashing.as_ref());
        NodeResponse::Hash(match hashed {
            Ok(Splitting::Underway) => HashAnswer::Underway,
            Ok(Splitting::Done) => {
                let slots = hashing.map_or(0, |hashing| hashing.slots);
                tracing::info!(shard = shard.0, slots, "a shard's keys are stored so");
                HashAnswer::Done
            }
            Err(error) => {
                tracing::debug!(shard = shard.0, %error, "a shard's keys are stored as before");
                HashAnswer::Refused(error)
            }
        })
    }

    /// Those led here.
    pub(super) fn hashed(&self) -> Vec<HashedShard> {
        let shards = self.machine.worker().into_iter().flat_map(|w| w.shards());
        let led = shards.filter(|shard| shard.in_office());
        let hashed = led.filter_map(|shard| {
            Some(HashedShard {
                shard: shard.descriptor().id,
                hashing: shard.hashing()?.clone(),
            })
        });
        hashed.collect()
    }
}
