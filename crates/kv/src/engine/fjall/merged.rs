//! A view of buffer and tables as one.

use super::super::EngineError;
use super::super::store::{Item, Items, View};
use super::buffer::Held;
use super::failed;
use super::run::{At, Cursors, Run};
use ::fjall::{Keyspace, Readable, Snapshot};
use bytes::Bytes;
use std::cmp::Ordering;
use std::iter::Fuse;
use std::sync::Arc;

/// The state of one moment, or, without a snapshot, of each moment from when it was made on.
///
/// What is held was looked at before the tables are, and whatever leaves the buffer is in a table
/// first: nothing can be missed.
#[derive(Clone)]
pub struct FjallView {
    pub(super) held: Arc<Held>,
    pub(super) keyspace: Keyspace,
    pub(super) snapshot: Option<Snapshot>,
}

impl View for FjallView {
    fn range(&self, start: &[u8], end: &[u8]) -> Result<Items<'_>, EngineError> {
        if end <= start {
            return Ok(Box::new(std::iter::empty()));
        }
        let items = match &self.snapshot {
            Some(snapshot) => snapshot.range(&self.keyspace, start..end),
            None => self.keyspace.range(start..end),
        };
        let items = items.map(|guard| -> Item {
            let (key, value) = guard.into_inner().map_err(failed("read"))?;
            Ok((key.into(), value.into()))
        });
        let runs = Cursors::between(self.held.runs(), start, end);
        if runs.is_empty() {
            return Ok(Box::new(items));
        }
        Ok(Box::new(Merged {
            runs,
            run_front: None,
            run_back: None,
            items: items.fuse(),
            item_front: None,
            item_back: None,
        }))
    }

    fn item(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        if let Some(known) = self.held.runs().find_map(|run| run.get(key)) {
            return Ok(known);
        }
        let found = match &self.snapshot {
            Some(snapshot) => snapshot.get(&self.keyspace, key),
            None => self.keyspace.get(key),
        };
        Ok(found.map_err(failed("read"))?.map(Bytes::from))
    }
}

/// Runs in front of items: of a key that both have, the runs' change counts. What was looked at
/// from one end and not taken is there for the other one.
struct Merged<I> {
    runs: Cursors<Arc<Run>>,
    run_front: Option<At>,
    run_back: Option<At>,
    items: Fuse<I>,
    item_front: Option<Item>,
    item_back: Option<Item>,
}

/// What comes next.
enum Next {
    Run(At),
    Item(Item),
}

impl<I> Merged<I> {
    /// Takes the one that comes first if keys go `direction`, and both if they are of one key.
    fn choose(
        runs: &Cursors<Arc<Run>>,
        run: &mut Option<At>,
        item: &mut Option<Item>,
        direction: impl Fn(Ordering) -> Ordering,
    ) -> Option<Next> {
        let order = match (&run, &item) {
            (None, _) | (_, Some(Err(_))) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(at), Some(Ok((key, _)))) => direction(runs.key(*at).cmp(key)),
        };
        match order {
            Ordering::Greater => item.take().map(Next::Item),
            Ordering::Less => run.take().map(Next::Run),
            Ordering::Equal => {
                *item = None;
                run.take().map(Next::Run)
            }
        }
    }

    /// The item, unless it is one that was removed.
    fn present(&self, next: Next) -> Option<Item> {
        match next {
            Next::Item(item) => Some(item),
            Next::Run((run, entry)) => {
                let (key, value) = self.runs.run(run).change(entry);
                value.map(|value| Ok((key, value)))
            }
        }
    }
}

impl<I: DoubleEndedIterator<Item = Item>> Iterator for Merged<I> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if self.run_front.is_none() {
                self.run_front = self.runs.next().or_else(|| self.run_back.take());
            }
            if self.item_front.is_none() {
                self.item_front = self.items.next().or_else(|| self.item_back.take());
            }
            let (run, item) = (&mut self.run_front, &mut self.item_front);
            let next = Self::choose(&self.runs, run, item, |order| order)?;
            if let Some(item) = self.present(next) {
                return Some(item);
            }
        }
    }
}

impl<I: DoubleEndedIterator<Item = Item>> DoubleEndedIterator for Merged<I> {
    fn next_back(&mut self) -> Option<Item> {
        loop {
            if self.run_back.is_none() {
                self.run_back = self.runs.next_back().or_else(|| self.run_front.take());
            }
            if self.item_back.is_none() {
                self.item_back = self.items.next_back().or_else(|| self.item_front.take());
            }
            let (run, item) = (&mut self.run_back, &mut self.item_back);
            let next = Self::choose(&self.runs, run, item, Ordering::reverse)?;
            if let Some(item) = self.present(next) {
                return Some(item);
            }
        }
    }
}
