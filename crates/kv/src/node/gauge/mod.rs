//! How large the shards are that this node leads, and how much they are asked: what the
//! cluster's splitter and merger go by (decisions 18 and 23).
//!
//! Bytes are counted as they are written (`weights`), on the engine's thread. What that does
//! not tell (what was there before, what was collected since, where the middle is) is found by
//! going through a shard's range once it may have become too large, or garbage was collected: on a thread of its own, of low
//! priority, in pieces, and not faster than [`BYTES_PER_SECOND`]. Requests are sampled on the node's
//! loop (`load`).

mod load;
mod marks;
mod weights;

use self::load::Load;
use self::marks::Marks;
use self::weights::Weights;
use super::driver::Driver;
use crate::engine::{Engine, EngineError, VERSION_OVERHEAD};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use synod_paxos::GroupId;
use synod_placement::{ShardLoad, SplitLimits};
use synod_rpc::load::LoadStatus;
use synod_shard::{META_SHARD, Shard, ShardRequest};
use synod_txn::{Span, WriteBatch};

/// A range is gone through no faster than this.
const BYTES_PER_SECOND: u64 = 32 << 20;
/// Bytes of it that are read at a time.
const PIECE: u64 = 256 << 10;
/// How much the priority of the thread is lowered (`nice`).
#[cfg(target_os = "linux")]
const NICE: i32 = 5;
/// Between two looks at which shards are led here.
const LOOK: Duration = Duration::from_secs(2);
/// Shards beyond a limit that are told of in one answer.
const TOLD: usize = 16;

/// The weights, as the node's threads share them.
#[derive(Clone, Default)]
pub(super) struct SharedWeights(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    weights: Weights,
    ended: bool,
}

impl SharedWeights {
    /// Nobody panics while holding it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what is about to be written.
    pub(super) fn wrote(&self, writes: &[(GroupId, WriteBatch)]) {
        let mut state = self.lock();
        for (group, batch) in writes {
            let bytes = batch.versions.iter().map(|(key, _, _, value)| {
                let value = value.as_ref().map_or(0, |value| value.len());
                (key.len() + value) as u64 + VERSION_OVERHEAD
            });
            state.weights.wrote(*group, bytes.sum());
        }
    }

    /// Notes that garbage was collected.
    pub(super) fn collected(&self, group: GroupId) {
        self.lock().weights.collected(group);
    }

    /// The next shard to go through; none at the end.
    fn next(&self) -> Option<(GroupId, Span)> {
        let mut state = self.lock();
        loop {
            if state.ended {
                return None;
            }
            if let Some(next) = state.weights.next() {
                return Some(next);
            }
            let waited = self.0.1.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits as long as so many bytes take. False if nobody wants to know any more.
    fn pace(&self, group: GroupId, span: &Span, bytes: u64) -> bool {
        let until = Instant::now() + Duration::from_micros(bytes * 1_000_000 / BYTES_PER_SECOND);
        let mut state = self.lock();
        loop {
            if state.ended || !state.weights.waits_for(group, span) {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.0.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.0.1.notify_all();
    }
}

/// What the node's loop has of it.
pub(super) struct Gauge {
    weights: SharedWeights,
    thread: Option<JoinHandle<()>>,
    load: Load,
    next: Instant,
}

impl Gauge {
    /// Starts the thread; it ends when this value is dropped. `fatal` is told of a storage error.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        engine: Arc<dyn Engine>,
        weights: SharedWeights,
        now: Instant,
        fatal: impl FnOnce(EngineError) + Send + 'static,
    ) -> std::io::Result<Gauge> {
        let shared = weights.clone();
        let thread = std::thread::Builder::new()
            .name("synod-gauge".to_owned())
            .spawn(move || {
                // On Linux a thread has a priority of its own.
                #[cfg(target_os = "linux")]
                if let Err(error) = rustix::process::nice(NICE) {
                    tracing::warn!(%error, "the gauge keeps the usual priority");
                }
                if let Err(error) = run(&*engine, &shared) {
                    fatal(error);
                }
            })?;
        Ok(Gauge {
            weights,
            thread: Some(thread),
            load: Load::new(now),
            next: now,
        })
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.weights.change(|state| state.ended = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(engine: &dyn Engine, weights: &SharedWeights) -> Result<(), EngineError> {
    while let Some((group, span)) = weights.next() {
        if let Some(marks) = go_through(engine, &span, |read| weights.pace(group, &span, read))? {
            let cut = marks.halve(&span.start);
            let bytes = marks.total();
            tracing::debug!(shard = group.0, bytes, "a shard's range was gone through");
            weights.change(|state| state.weights.measured(group, &span, bytes, cut));
        }
    }
    Ok(())
}

/// Weighs a range piece by piece; none if `goes_on`, which is told how much each was, says so.
fn go_through(
    engine: &dyn Engine,
    span: &Span,
    mut goes_on: impl FnMut(u64) -> bool,
) -> Result<Option<Marks>, EngineError> {
    let mut marks = Marks::default();
    let mut after = None;
    loop {
        let before = marks.total();
        let (weights, next) = engine.weigh(span, after.as_ref(), PIECE)?;
        for (key, bytes) in weights {
            marks.add(key, bytes);
        }
        if !goes_on(marks.total() - before) {
            return Ok(None);
        }
        if next.is_none() {
            return Ok(Some(marks));
        }
        after = next;
    }
}

impl Driver {
    /// Keeps up with which shards are led here.
    pub(super) fn gauge(&mut self, now: Instant) {
        self.gauge.load.look(now);
        if now < self.gauge.next {
            return;
        }
        self.gauge.next = now + LOOK;
        let shards = self.machine.worker().into_iter().flat_map(|w| w.shards());
        let led = shards.filter(|shard| shard.in_office());
        let led = led.map(|shard| (shard.descriptor().id, &shard.descriptor().span));
        self.gauge.weights.change(|state| state.weights.leads(led));
    }

    /// Counts a request, one of so many in full.
    pub(super) fn sample(&mut self, request: &ShardRequest) {
        if !self.gauge.load.is_due() {
            return;
        }
        let shard = self.machine.worker().and_then(|w| w.shard(request.shard));
        // Of what is led here only, and within it: ids and keys come from outside.
        if let Some(shard) = shard.filter(|shard| shard.in_office())
            && request.request.is_within(&shard.descriptor().span)
        {
            let descriptor = shard.descriptor();
            let generation = descriptor.generation;
            let load = &mut self.gauge.load;
            load.take(descriptor.id, generation, &request.request);
        }
    }

    /// Sizes and loads of the shards that are led here; see
    /// [`NodeRequest::Loads`](synod_rpc::wire::NodeRequest::Loads).
    /// What the splitter asks for is also what is watched from then on.
    pub(super) fn loads(&mut self, above: Option<SplitLimits>, is_splitter: bool) -> LoadStatus {
        let mut state = self.gauge.weights.lock();
        if let Some(limits) = above.filter(|_| is_splitter) {
            state.weights.set_limit(limits.size);
        }
        let load = &self.gauge.load;
        let of_shard = |shard: &Shard| {
            let descriptor = shard.descriptor();
            let (id, span) = (descriptor.id, &descriptor.span);
            let limits = above.filter(|_| id != META_SHARD);
            let by_load =
                |limits: SplitLimits| load.cut(id, descriptor.generation, &span.start, limits.load);
            ShardLoad {
                shard: id,
                bytes: state.weights.bytes(id, span),
                requests: load.rate(id),
                by_size: limits.and_then(|limits| state.weights.cut(id, span, limits.size)),
                by_load: limits.and_then(by_load),
            }
        };
        let shards = self.machine.worker().into_iter().flat_map(|w| w.shards());
        let led = shards.filter(|shard| shard.in_office()).map(of_shard);
        let shards = if above.is_some() {
            let beyond = led.filter(|load| load.by_size.is_some() || load.by_load.is_some());
            beyond.take(TOLD).collect()
        } else {
            led.collect()
        };
        drop(state);
        LoadStatus {
            node: self.directory.identity().node,
            shards,
            splits: self.splits_status(),
        }
    }
}

#[cfg(test)]
mod tests;
