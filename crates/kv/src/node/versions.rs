//! What a node tells of cluster versions (decision 17).

use super::driver::Driver;
use synod_rpc::wire::{ShardVersion, VersionsStatus};
use synod_shard::{Shard, Worker};

fn shard_version(shard: &Shard) -> ShardVersion {
    ShardVersion {
        shard: shard.descriptor().id,
        version: shard.version(),
        in_office: shard.in_office(),
        halted: shard.halted().map(ToString::to_string),
    }
}

impl Driver {
    /// What its program knows, and where its shards are.
    pub(super) fn versions(&self) -> VersionsStatus {
        let worker = self.machine.worker();
        let shards = worker.into_iter().flat_map(Worker::shards);
        VersionsStatus {
            node: self.directory.identity().node,
            supports: self.config.supports,
            cluster: worker.map(Worker::version),
            shards: shards.map(shard_version).collect(),
        }
    }

    /// What is wrong if the cluster's version is one that this program does not know.
    pub(super) fn overtaken(&self) -> Option<String> {
        let worker = self.machine.worker().filter(|w| w.is_overtaken())?;
        Some(format!(
            "the cluster is at version {}, and this program knows {}: it votes, leads nothing, and \
             will not start again; start a program that knows that version",
            worker.version().0,
            worker.supports()
        ))
    }

    /// What is wrong if a shard's log goes on where this program cannot follow.
    pub(super) fn halted(&self) -> Option<String> {
        let mut shards = self.machine.worker()?.shards();
        shards.find_map(|shard| {
            let why = shard.halted()?;
            let id = shard.descriptor().id.0;
            Some(format!(
                "it leads nothing in shard {id}, which stands still: {why}"
            ))
        })
    }
}
