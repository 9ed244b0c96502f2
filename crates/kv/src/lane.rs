//! The engine's lane: applies behind the answers, checkpoints, and snapshots.
//!
//! Work is done in the order it was submitted, so a snapshot opened after the
//! applies up to slot n holds them all. Nothing on the commit path waits here.
//! The node runs it on a thread of its own, the simulator between events.

mod garbage;

pub use garbage::Garbage;

use crate::engine::{Engine, EngineBatch, EngineError};
use crate::snapshot::{Incoming, Outgoing, Place, Staging};
use garbage::Collector;
use std::collections::BTreeMap;
use synod_paxos::{GroupId, NodeId, Slot, SnapshotId};
use synod_probe::{Mutation, mutated};
use synod_shard::{Input, SnapshotTask};
use synod_txn::{Unencoded, WriteBatch};

/// Versions that go into one engine batch, about.
const MAX_BATCH_VERSIONS: usize = 20_000;

/// Work for the engine.
#[derive(Clone, Debug)]
pub enum EngineWork {
    /// Versions in slot order, then the applied marks.
    Apply {
        /// Per entry what it wrote.
        writes: Vec<(GroupId, WriteBatch)>,
        /// Up to which slot these are all.
        marks: BTreeMap<GroupId, Slot>,
    },
    /// Keep a shard's state.
    State {
        /// The shard.
        group: GroupId,
        /// Up to which slot it is the state.
        slot: Slot,
        /// Encoded here, where nobody waits for it.
        state: Unencoded,
    },
    /// Make everything so far durable.
    Checkpoint {
        /// What may be collected from now on.
        garbage: Vec<Garbage>,
    },
    /// Snapshot work.
    Snapshot(SnapshotTask),
}

impl EngineWork {
    /// Takes the work of `next` in too, if both are applies and it is not too
    /// much. Gives `next` back if it has to be done by itself.
    pub fn absorb(&mut self, next: EngineWork) -> Option<EngineWork> {
        match (self, next) {
            (
                EngineWork::Apply { writes, marks },
                EngineWork::Apply {
                    writes: more,
                    marks: later,
                },
            ) if writes.len() < MAX_BATCH_VERSIONS => {
                writes.extend(more);
                marks.extend(later);
                None
            }
            (_, next) => Some(next),
        }
    }
}

/// What the engine's lane reports.
#[derive(Debug)]
pub enum EngineEvent {
    /// For the worker, as it is.
    Input(Box<Input>),
    /// The states submitted before are durable.
    Checkpointed,
    /// Any storage error is fatal to the node (§8).
    Fatal(String),
}

impl EngineEvent {
    fn input(input: Input) -> EngineEvent {
        EngineEvent::Input(Box::new(input))
    }

    /// Whether somebody waits for it. That versions are in the engine only frees
    /// memory, and may be told with whatever comes next.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        match self {
            EngineEvent::Input(input) => !matches!(**input, Input::EngineApplied { .. }),
            EngineEvent::Checkpointed | EngineEvent::Fatal(_) => true,
        }
    }
}

/// The lane: what is open between one piece of work and the next.
pub struct EngineLane {
    collector: Collector,
    outgoing: Outgoing,
    incoming: Incoming,
    collected: Option<GroupId>,
    /// A checkpoint is being made durable.
    is_syncing: bool,
}

impl EngineLane {
    /// An idle lane that stages incoming snapshots there.
    #[must_use]
    pub fn new(staging: Staging) -> EngineLane {
        EngineLane {
            collector: Collector::default(),
            outgoing: Outgoing::default(),
            incoming: Incoming::new(staging),
            collected: None,
            is_syncing: false,
        }
    }

    /// Whether [`EngineLane::poll`] has something to wait for.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.is_syncing
    }

    /// Looks whether a checkpoint has become durable meanwhile. To be called every now and
    /// then while there is no other work.
    pub fn poll(&mut self, engine: &dyn Engine) -> Vec<EngineEvent> {
        if !self.is_syncing {
            return Vec::new();
        }
        match engine.is_synced() {
            Ok(false) => Vec::new(),
            Ok(true) => {
                self.is_syncing = false;
                vec![EngineEvent::Checkpointed]
            }
            Err(error) => vec![failed(&error)],
        }
    }

    /// A group whose garbage is gone since the last piece of work, if there was any: it holds
    /// less than was written to it.
    #[must_use]
    pub fn collected(&self) -> Option<GroupId> {
        self.collected
    }

    /// Does one piece of work. After [`EngineEvent::Fatal`] the node ends.
    pub fn work(&mut self, engine: &dyn Engine, work: EngineWork) -> Vec<EngineEvent> {
        self.collected = None;
        let done = match work {
            EngineWork::Apply { writes, marks } => self.apply(engine, writes, &marks),
            EngineWork::State { group, slot, state } => {
                keep_state(engine, group, slot, &state).map(|()| Vec::new())
            }
            EngineWork::Checkpoint { garbage } => {
                self.collector.note(garbage);
                self.checkpoint(engine)
            }
            EngineWork::Snapshot(task) => self.snapshot(engine, task),
        };
        match done {
            Ok(mut events) => {
                events.extend(self.poll(engine));
                events
            }
            Err(error) => vec![failed(&error)],
        }
    }

    /// What comes after it does not wait for its sync.
    fn checkpoint(&mut self, engine: &dyn Engine) -> Result<Vec<EngineEvent>, EngineError> {
        if !mutated(Mutation::TrimPastEngineSync) {
            engine.begin_sync()?;
        }
        self.is_syncing = true;
        Ok(Vec::new())
    }

    fn apply(
        &mut self,
        engine: &dyn Engine,
        writes: Vec<(GroupId, WriteBatch)>,
        marks: &BTreeMap<GroupId, Slot>,
    ) -> Result<Vec<EngineEvent>, EngineError> {
        let versions: Vec<_> = writes.into_iter().flat_map(|(_, w)| w.versions).collect();
        let count = versions.len();
        engine.apply(EngineBatch {
            versions,
            marks: marks.iter().map(|(g, s)| (*g, *s)).collect(),
            ..EngineBatch::default()
        })?;
        self.collected = self.collector.step(engine, count)?;
        let events = marks.iter().map(|(group, slot)| {
            let (group, slot) = (*group, *slot);
            EngineEvent::input(Input::EngineApplied { group, slot })
        });
        Ok(events.collect())
    }

    fn snapshot(
        &mut self,
        engine: &dyn Engine,
        task: SnapshotTask,
    ) -> Result<Vec<EngineEvent>, EngineError> {
        match task {
            SnapshotTask::Open {
                group,
                to,
                id,
                state,
                ancestors,
            } => {
                let state = (state, ancestors);
                self.outgoing.open(engine, group, to, id, state)?;
                self.read_chunk(group, to, id, 0)
            }
            SnapshotTask::Read {
                group,
                to,
                id,
                chunk,
            } => self.read_chunk(group, to, id, chunk),
            SnapshotTask::Close { group, to } => {
                self.outgoing.close(group, to);
                Ok(Vec::new())
            }
            SnapshotTask::Birth { group, slot, state } => {
                let whole = state.is_some();
                match state {
                    Some(state) => engine.apply(EngineBatch {
                        marks: vec![(group, slot)],
                        checkpoints: vec![(group, slot, state.encode())],
                        ..EngineBatch::default()
                    })?,
                    None => engine.set_installing(group, Some(Slot(0)))?,
                }
                engine.sync()?;
                if whole && engine.installing(group)?.is_some() {
                    // An earlier process was about to begin without data.
                    engine.set_installing(group, None)?;
                    engine.sync()?;
                }
                tracing::info!(
                    shard = group.0,
                    slot = slot.0,
                    "a split or merge is durable"
                );
                Ok(vec![EngineEvent::input(Input::Born { group })])
            }
            SnapshotTask::Destroy {
                group,
                span,
                absorbed,
            } => {
                self.incoming.forget(group)?;
                // The mark stays: until something else fills the range, a restart
                // finds nothing in it.
                for id in std::iter::once(group).chain(absorbed) {
                    engine.set_installing(id, Some(Slot(0)))?;
                }
                engine.clear_range(&span)?;
                engine.sync()?;
                tracing::info!(shard = group.0, "this node's copy of a shard is deleted");
                Ok(vec![EngineEvent::input(Input::Destroyed { group })])
            }
            SnapshotTask::Stage {
                group,
                span,
                clip,
                absorbed,
                id,
                chunk,
                data,
                done,
            } => {
                let place = Place {
                    group,
                    span,
                    clip,
                    absorbed,
                };
                let installed = self.incoming.stage(engine, &place, id, chunk, data, done)?;
                let Some((span, state)) = installed else {
                    return Ok(Vec::new());
                };
                tracing::info!(shard = group.0, slot = id.slot.0, "a snapshot is installed");
                let input = Input::SnapshotInstalled {
                    group,
                    id,
                    span,
                    state,
                };
                Ok(vec![EngineEvent::input(input)])
            }
        }
    }

    fn read_chunk(
        &mut self,
        group: GroupId,
        to: NodeId,
        id: SnapshotId,
        chunk: u64,
    ) -> Result<Vec<EngineEvent>, EngineError> {
        let Some((data, done)) = self.outgoing.read(group, to, id, chunk)? else {
            return Ok(Vec::new());
        };
        let input = Input::SnapshotRead {
            group,
            to,
            id,
            chunk,
            data,
            done,
        };
        Ok(vec![EngineEvent::input(input)])
    }
}

fn keep_state(
    engine: &dyn Engine,
    group: GroupId,
    slot: Slot,
    state: &Unencoded,
) -> Result<(), EngineError> {
    engine.apply(EngineBatch {
        checkpoints: vec![(group, slot, state.encode())],
        ..EngineBatch::default()
    })?;
    // A range that a broken installation left was filled from the log.
    if engine.installing(group)?.is_some() {
        engine.set_installing(group, None)?;
    }
    Ok(())
}

fn failed(error: &EngineError) -> EngineEvent {
    EngineEvent::Fatal(format!(
        "the engine failed: {error}; the node stops rather than serve wrong data"
    ))
}
