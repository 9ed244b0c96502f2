//! Splits and merges of shards, as they are asked of a node.

use super::admin::refused;
use super::driver::Driver;
use synod_rpc::merge::{MergeAnswer, MergeRequest};
use synod_rpc::split::{SplitAnswer, SplitRequest};
use synod_rpc::wire::NodeResponse;
use synod_shard::wire::show_key;
use synod_shard::{META_SHARD, Merging, RESERVED_PREFIX, SplitError, Splitting};
use synod_txn::{Key, MAX_KEY_BYTES};

/// Why no shard of users may begin at a key.
fn check_key(at: &Key) -> Result<(), String> {
    if at.is_empty() || at.len() > MAX_KEY_BYTES {
        return Err(format!(
            "a shard begins at a key of 1 to {MAX_KEY_BYTES} bytes, this one has {}",
            at.len()
        ));
    }
    if at.starts_with(RESERVED_PREFIX) {
        return Err("keys that begin with the bytes ff ff are the cluster's own".to_owned());
    }
    Ok(())
}

impl Driver {
    /// Asks the replica of the left shard here, which should lead.
    pub(super) fn merge_shards(&mut self, request: MergeRequest) -> NodeResponse {
        let MergeRequest { left, right } = request;
        let merged = self.machine.merge(&mut self.lanes, left, right);
        let (into, right) = (left.0, right.0);
        NodeResponse::Merge(match merged {
            Ok(Merging::Underway) => MergeAnswer::Underway,
            Ok(Merging::Done) => {
                tracing::info!(shard = into, right, "two shards are one");
                MergeAnswer::Done
            }
            Err(error) => {
                tracing::debug!(shard = into, right, %error, "shards are not merged");
                MergeAnswer::Refused(error)
            }
        })
    }

    /// Asks the replica here, which should lead.
    pub(super) fn split_shard(&mut self, request: SplitRequest) -> NodeResponse {
        let SplitRequest { shard, at, child } = request;
        if shard == META_SHARD {
            return NodeResponse::Split(SplitAnswer::Refused(SplitError::Meta));
        }
        if let Err(reason) = check_key(&at) {
            return refused(format!("{reason}. Nothing was changed"));
        }
        let split = self.machine.split(&mut self.lanes, shard, &at, child);
        let (from, child) = (shard.0, child.0);
        NodeResponse::Split(match split {
            Ok(Splitting::Underway) => SplitAnswer::Underway,
            Ok(Splitting::Done) => {
                tracing::info!(shard = from, child, at = %show_key(&at), "a shard is split");
                SplitAnswer::Done
            }
            Err(error) => {
                tracing::debug!(shard = from, child, %error, "a shard is not split");
                SplitAnswer::Refused(error)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_begin_at_keys_of_users() {
        assert_eq!(check_key(&Key::from_static(b"a")), Ok(()));
        assert_eq!(check_key(&vec![0; MAX_KEY_BYTES].into()), Ok(()));
        for bad in [&b""[..], &[0; MAX_KEY_BYTES + 1], b"\xff\xff", b"\xff\xffz"] {
            assert!(check_key(&Key::copy_from_slice(bad)).is_err());
        }
    }
}
