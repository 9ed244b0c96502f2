//! The engine in memory: for tests, the simulator, and nodes that keep nothing.

use super::EngineError;
use super::store::{Items, Store, View};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

type Map = BTreeMap<Bytes, Bytes>;

#[derive(Debug, Default)]
struct State {
    /// Shared with snapshots; copied by the first write while one is kept.
    map: Arc<Map>,
    /// What each batch since the last sync replaced, oldest first. Bounded by
    /// what is written between two syncs.
    undo: Vec<Replaced>,
    /// A sync in the background.
    syncing: Option<Syncing>,
}

/// As an engine on disk makes it: what comes after it does not wait, and is not covered.
#[derive(Clone, Copy, Debug)]
struct Syncing {
    /// So many of the oldest batches in `undo` are durable at its end.
    batches: usize,
    /// So often it is found to be under way.
    looks: u32,
}

/// See [`Syncing::looks`].
const LOOKS: u32 = 2;

/// Keys of one batch, with what stood there before.
type Replaced = Vec<(Bytes, Option<Bytes>)>;

/// An engine without files. Clones share its contents, so a test can "reopen"
/// it. A snapshot is cheap to take, but the first write afterwards copies the
/// map (not the values).
#[derive(Clone, Debug, Default)]
pub struct MemoryEngine {
    state: Arc<RwLock<State>>,
}

impl MemoryEngine {
    /// An empty engine.
    #[must_use]
    pub fn new() -> MemoryEngine {
        MemoryEngine::default()
    }

    /// Batches applied since the last sync.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.state().undo.len()
    }

    /// What a power cut does: of the batches since the last sync the first
    /// `kept` happen to be on the disk, the others are gone.
    pub fn lose_unsynced(&self, kept: usize) {
        let mut state = self.state_mut();
        state.syncing = None;
        let mut undo = std::mem::take(&mut state.undo);
        let map = Arc::make_mut(&mut state.map);
        for (key, old) in undo
            .drain(kept.min(undo.len())..)
            .rev()
            .flat_map(|b| b.into_iter().rev())
        {
            match old {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
    }

    /// Changes a stored byte, for tests of what damage does.
    #[cfg(test)]
    pub(super) fn damage(&self) {
        let mut state = self.state_mut();
        for value in Arc::make_mut(&mut state.map).values_mut() {
            let mut bytes = value.to_vec();
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
            *value = bytes.into();
        }
    }

    // A panic while the lock was held cannot leave a batch half done that
    // anybody would acknowledge: it ends the engine's thread.
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View for Arc<Map> {
    fn range(&self, start: &[u8], end: &[u8]) -> Result<Items<'_>, EngineError> {
        if end <= start {
            return Ok(Box::new(std::iter::empty()));
        }
        let items = BTreeMap::range::<[u8], _>(self, (Included(start), Excluded(end)));
        Ok(Box::new(items.map(|(k, v)| Ok((k.clone(), v.clone())))))
    }

    fn item(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(BTreeMap::get(self, key).cloned())
    }
}

impl Store for MemoryEngine {
    type Snapshot = Arc<Map>;

    fn write(&self, items: Vec<(Bytes, Option<Bytes>)>) -> Result<(), EngineError> {
        let mut state = self.state_mut();
        let State { map, undo, .. } = &mut *state;
        let map = Arc::make_mut(map);
        let mut replaced = Vec::with_capacity(items.len());
        for (key, value) in items {
            let old = match value {
                Some(value) => map.insert(key.clone(), value),
                None => map.remove(&key),
            };
            replaced.push((key, old));
        }
        undo.push(replaced);
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        let mut state = self.state_mut();
        state.undo = Vec::new();
        state.syncing = None;
        Ok(())
    }

    fn begin_sync(&self) -> Result<(), EngineError> {
        let mut state = self.state_mut();
        let batches = state.undo.len();
        state.syncing = Some(Syncing {
            batches,
            looks: LOOKS,
        });
        Ok(())
    }

    fn is_synced(&self) -> Result<bool, EngineError> {
        let mut state = self.state_mut();
        let Some(syncing) = &mut state.syncing else {
            return Ok(true);
        };
        if syncing.looks > 0 {
            syncing.looks -= 1;
            return Ok(false);
        }
        let batches = syncing.batches;
        state.syncing = None;
        state.undo.drain(..batches);
        Ok(true)
    }

    fn snapshot(&self) -> Result<Arc<Map>, EngineError> {
        Ok(self.state().map.clone())
    }

    /// Under the lock instead of in a snapshot: no write has to copy.
    fn read<T>(
        &self,
        reader: impl FnOnce(&dyn View) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        reader(&self.state().map)
    }
}
