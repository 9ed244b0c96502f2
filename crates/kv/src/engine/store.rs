//! What a backend has to be: an ordered map of bytes with atomic batches and
//! consistent views. [`Engine`] follows from it.

use super::codec::{self, Meta};
use super::read::{self, Reading};
use super::{Cursor, Engine, EngineBatch, EngineError, EngineSnapshot, Weights};
use bytes::Bytes;
use synod_paxos::{GroupId, Slot, Timestamp};
use synod_txn::request::ScanRange;
use synod_txn::{Row, Span, Version};

/// Items removed in one batch by [`Engine::clear_range`].
const CLEAR_ITEMS: usize = 10_000;

/// Key and value, or why there is none.
pub(super) type Item = Result<(Bytes, Bytes), EngineError>;

/// Items in order, from both ends.
pub(super) type Items<'a> = Box<dyn DoubleEndedIterator<Item = Item> + 'a>;

/// Something that can be read.
pub(super) trait View {
    /// The items with `start <= key < end`; none if `end <= start`.
    fn range(&self, start: &[u8], end: &[u8]) -> Result<Items<'_>, EngineError>;

    /// One item.
    fn item(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;
}

/// A backend.
pub(super) trait Store: Send + Sync + 'static {
    /// A view that keeps showing one moment.
    type Snapshot: View + Send + 'static;

    /// Puts (or, with no value, removes) all of `items`, atomically, unsynced.
    fn write(&self, items: Vec<(Bytes, Option<Bytes>)>) -> Result<(), EngineError>;

    /// Makes all writes durable.
    fn sync(&self) -> Result<(), EngineError>;

    /// As [`Engine::begin_sync`].
    fn begin_sync(&self) -> Result<(), EngineError> {
        self.sync()
    }

    /// As [`Engine::is_synced`].
    fn is_synced(&self) -> Result<bool, EngineError> {
        Ok(true)
    }

    /// Prepares for a view that is kept for long.
    fn settle(&self) -> Result<(), EngineError> {
        Ok(())
    }

    /// The state of this moment.
    fn snapshot(&self) -> Result<Self::Snapshot, EngineError>;

    /// Reads something short in a view of whole batches.
    fn read<T>(
        &self,
        reader: impl FnOnce(&dyn View) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        reader(&self.snapshot()?)
    }

    /// Reads one item or position, where half a batch does no harm.
    fn read_one<T>(
        &self,
        reader: impl FnOnce(&dyn View) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        self.read(reader)
    }
}

fn encode(batch: EngineBatch) -> Result<Vec<(Bytes, Option<Bytes>)>, EngineError> {
    let EngineBatch {
        versions,
        marks,
        checkpoints,
    } = batch;
    let mut items = Vec::with_capacity(versions.len() + marks.len() + checkpoints.len());
    for version in versions {
        let (key, value) = codec::encode_version(version)?;
        items.push((key, Some(value)));
    }
    for (group, slot) in marks {
        let (key, value) = codec::encode_meta(Meta::Applied, group, slot, &[]);
        items.push((key, Some(value)));
    }
    for (group, slot, state) in checkpoints {
        let (key, value) = codec::encode_meta(Meta::Checkpoint, group, slot, &state);
        items.push((key, Some(value)));
    }
    Ok(items)
}

impl<S: Store> Engine for S {
    fn apply(&self, batch: EngineBatch) -> Result<(), EngineError> {
        self.write(encode(batch)?)
    }

    fn sync(&self) -> Result<(), EngineError> {
        Store::sync(self)
    }

    fn begin_sync(&self) -> Result<(), EngineError> {
        Store::begin_sync(self)
    }

    fn is_synced(&self) -> Result<bool, EngineError> {
        Store::is_synced(self)
    }

    fn get(&self, key: &[u8], at: Timestamp) -> Result<Option<Version>, EngineError> {
        self.read_one(|view| read::get(view, key, at))
    }

    fn scan(&self, scan: &ScanRange, at: Timestamp) -> Result<(Vec<Row>, bool), EngineError> {
        self.read(|view| read::scan(view, scan, at))
    }

    fn snapshot(&self) -> Result<Box<dyn EngineSnapshot>, EngineError> {
        self.settle()?;
        Ok(Box::new(Reading(Store::snapshot(self)?)))
    }

    fn applied(&self, group: GroupId) -> Result<Option<Slot>, EngineError> {
        self.read_one(|view| read::meta(view, Meta::Applied, group))
            .map(|found| found.map(|(slot, _)| slot))
    }

    fn checkpoint(&self, group: GroupId) -> Result<Option<(Slot, Bytes)>, EngineError> {
        self.read_one(|view| read::meta(view, Meta::Checkpoint, group))
    }

    fn set_installing(&self, group: GroupId, slot: Option<Slot>) -> Result<(), EngineError> {
        let item = match slot {
            Some(slot) => {
                let (key, value) = codec::encode_meta(Meta::Installing, group, slot, &[]);
                (key, Some(value))
            }
            None => (codec::meta_key(Meta::Installing, group), None),
        };
        self.write(vec![item])
    }

    fn installing(&self, group: GroupId) -> Result<Option<Slot>, EngineError> {
        self.read_one(|view| read::meta(view, Meta::Installing, group))
            .map(|found| found.map(|(slot, _)| slot))
    }

    fn clear_range(&self, span: &Span) -> Result<(), EngineError> {
        let (mut start, end) = codec::bounds(span);
        loop {
            let keys = self.read(|view| {
                let items = view.range(&start, &end)?.take(CLEAR_ITEMS);
                items.map(|item| Ok(item?.0)).collect::<Result<Vec<_>, _>>()
            })?;
            let Some(last) = keys.last() else {
                return Ok(());
            };
            start = read::just_after(last);
            self.write(keys.into_iter().map(|key| (key, None)).collect())?;
        }
    }

    fn collect(
        &self,
        span: &Span,
        horizon: Timestamp,
        after: Option<&Cursor>,
        max_items: usize,
    ) -> Result<(u64, Option<Cursor>), EngineError> {
        let (garbage, cursor) =
            self.read(|view| read::garbage(view, span, horizon, after, max_items))?;
        let removed = garbage.len() as u64;
        if removed > 0 {
            self.write(garbage.into_iter().map(|key| (key, None)).collect())?;
        }
        Ok((removed, cursor))
    }

    fn weigh(
        &self,
        span: &Span,
        after: Option<&Cursor>,
        max_bytes: u64,
    ) -> Result<(Weights, Option<Cursor>), EngineError> {
        self.read(|view| read::weigh(view, span, after, max_bytes))
    }
}
