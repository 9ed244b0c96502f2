//! The engine in memory: like the real one, it loses unsynced applies at a crash.

use std::collections::BTreeMap;
use synod_paxos::{GroupId, Slot, Timestamp};
use synod_shard::EngineRead;
use synod_txn::effect::EngineRows;
use synod_txn::{AttemptId, Key, Row, Span, Value, Version};

type Versions = BTreeMap<Key, BTreeMap<Timestamp, (AttemptId, Option<Value>)>>;

#[derive(Clone, Debug, Default)]
struct State {
    data: Versions,
    applied: BTreeMap<GroupId, Slot>,
    checkpoints: BTreeMap<GroupId, (Slot, bytes::Bytes)>,
}

/// One node's engine.
#[derive(Clone, Debug, Default)]
pub(super) struct SimEngine {
    live: State,
    synced: State,
}

impl SimEngine {
    pub(super) fn write(
        &mut self,
        versions: Vec<(Key, Timestamp, AttemptId, Option<Value>)>,
    ) -> Result<(), String> {
        for (key, timestamp, attempt, value) in versions {
            let slot = self.live.data.entry(key.clone()).or_default();
            if let Some((known, old)) = slot.get(&timestamp)
                && (*known != attempt || *old != value)
            {
                return Err(format!(
                    "key {key:?} has two different versions at {timestamp}: by {known} and {attempt}"
                ));
            }
            slot.insert(timestamp, (attempt, value));
        }
        Ok(())
    }

    pub(super) fn mark(&mut self, group: GroupId, slot: Slot) {
        self.live.applied.insert(group, slot);
    }

    pub(super) fn keep(&mut self, group: GroupId, slot: Slot, state: bytes::Bytes) {
        self.live.checkpoints.insert(group, (slot, state));
    }

    pub(super) fn sync(&mut self) {
        self.synced = self.live.clone();
    }

    pub(super) fn crash(&mut self) {
        self.live = self.synced.clone();
    }

    pub(super) fn applied(&self, group: GroupId) -> Slot {
        self.live.applied.get(&group).copied().unwrap_or_default()
    }

    pub(super) fn checkpoint(&self, group: GroupId) -> Option<(Slot, bytes::Bytes)> {
        self.live.checkpoints.get(&group).cloned()
    }

    pub(super) fn clear(&mut self, span: &Span) {
        self.live.data.retain(|key, _| !span.contains(key));
    }

    /// All versions in a span.
    pub(super) fn export(&self, span: &Span) -> Vec<(Key, Timestamp, AttemptId, Option<Value>)> {
        let inside = self.live.data.iter().filter(|(k, _)| span.contains(k));
        inside
            .flat_map(|(k, versions)| {
                versions
                    .iter()
                    .map(|(t, (a, v))| (k.clone(), *t, *a, v.clone()))
            })
            .collect()
    }

    fn newest(&self, key: &Key, at: Timestamp) -> Option<Version> {
        let (timestamp, (attempt, value)) = self.live.data.get(key)?.range(..=at).next_back()?;
        Some(Version {
            value: value.clone(),
            timestamp: *timestamp,
            attempt: *attempt,
        })
    }

    pub(super) fn read(&self, read: &EngineRead) -> EngineRows {
        let versions = read.keys.iter().map(|k| self.newest(k, read.at)).collect();
        let mut rows = Vec::new();
        let mut more = false;
        if let Some(scan) = &read.scan {
            let mut keys: Vec<&Key> = self
                .live
                .data
                .keys()
                .filter(|k| scan.span.contains(k))
                .collect();
            if scan.reverse {
                keys.reverse();
            }
            for key in keys {
                let Some(version) = self.newest(key, read.at) else {
                    continue;
                };
                let Some(value) = version.value else {
                    continue;
                };
                if rows.len() >= scan.limit as usize {
                    more = true;
                    break;
                }
                rows.push(Row {
                    key: key.clone(),
                    value,
                    timestamp: version.timestamp,
                });
            }
        }
        EngineRows {
            versions,
            rows,
            more,
        }
    }
}
