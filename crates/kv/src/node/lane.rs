//! The engine's thread: applies behind the answers, checkpoints, and snapshots.
//!
//! Work is done in the order it was submitted, so a snapshot opened after the
//! applies up to slot n holds them all. Nothing on the commit path waits here.

use super::snapshot::{Incoming, Outgoing};
use crate::engine::{Engine, EngineBatch, EngineError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use synod_paxos::{GroupId, NodeId, Slot, SnapshotId};
use synod_shard::{Input, SnapshotTask};
use synod_txn::WriteBatch;

/// Versions that go into one engine batch, about.
const MAX_BATCH_VERSIONS: usize = 20_000;

/// Applies gather this long at most.
const GATHER: Duration = Duration::from_millis(10);
/// So many applied entries go at once.
const ENOUGH_WRITES: usize = 512;

/// Work for the engine's thread.
pub(super) enum LaneWork {
    /// Versions in slot order, then the applied marks.
    Apply {
        writes: Vec<(GroupId, WriteBatch)>,
        marks: BTreeMap<GroupId, Slot>,
    },
    /// Keep these states, and make everything so far durable.
    Checkpoint { states: Vec<(GroupId, Slot, Bytes)> },
    /// Snapshot work.
    Snapshot(SnapshotTask),
}

/// Applies that gather until they are worth waking the engine's thread: its
/// work is behind the answers, and two wake-ups per commit cost more than it.
#[derive(Default)]
pub(super) struct Applies {
    writes: Vec<(GroupId, WriteBatch)>,
    marks: BTreeMap<GroupId, Slot>,
    since: Option<Instant>,
}

impl Applies {
    pub(super) fn add(
        &mut self,
        writes: Vec<(GroupId, WriteBatch)>,
        marks: BTreeMap<GroupId, Slot>,
    ) {
        if writes.is_empty() && marks.is_empty() {
            return;
        }
        self.since.get_or_insert_with(Instant::now);
        self.writes.extend(writes);
        self.marks.extend(marks);
    }

    /// How long until they should go.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let since = self.since?;
        if self.writes.len() >= ENOUGH_WRITES {
            return Some(Duration::ZERO);
        }
        Some(GATHER.saturating_sub(since.elapsed()))
    }

    pub(super) fn is_due(&self) -> bool {
        self.due_in().is_some_and(|wait| wait.is_zero())
    }

    pub(super) fn take(&mut self) -> Option<LaneWork> {
        self.since.take()?;
        Some(LaneWork::Apply {
            writes: std::mem::take(&mut self.writes),
            marks: std::mem::take(&mut self.marks),
        })
    }
}

/// What the engine's thread reports.
pub(super) enum LaneEvent {
    /// For the worker, as it is.
    Input(Box<Input>),
    Checkpointed {
        slots: Vec<(GroupId, Slot)>,
    },
    /// Any storage error is fatal to the node (§8).
    Fatal(String),
}

/// The handle the loop keeps.
pub(super) struct Lane {
    work: Option<Sender<LaneWork>>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    pub(super) fn start(
        engine: Arc<dyn Engine>,
        staging: PathBuf,
        report: impl Fn(LaneEvent) + Send + 'static,
    ) -> std::io::Result<Lane> {
        // Not bounded as a channel: the loop must never wait for it. Its bound is
        // the shards' unapplied bytes, past which commits are refused.
        let (work, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name("synod-engine".into())
            .spawn(move || {
                let mut runner = Runner {
                    engine,
                    outgoing: Outgoing::default(),
                    incoming: Incoming::new(staging),
                    report,
                };
                runner.run(&inbox);
            })?;
        Ok(Lane {
            work: Some(work),
            thread: Some(thread),
        })
    }

    pub(super) fn submit(&self, work: LaneWork) {
        if let Some(sender) = &self.work {
            // The thread ends early only after it reported why.
            let _ = sender.send(work);
        }
    }

    /// Finishes what was submitted, then ends the thread.
    pub(super) fn stop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Runner<F> {
    engine: Arc<dyn Engine>,
    outgoing: Outgoing,
    incoming: Incoming,
    report: F,
}

impl<F: Fn(LaneEvent)> Runner<F> {
    fn run(&mut self, inbox: &Receiver<LaneWork>) {
        let mut next = None;
        while let Some(work) = next.take().or_else(|| inbox.recv().ok()) {
            let done = match work {
                LaneWork::Apply { writes, marks } => {
                    let mut batch = EngineBatch::default();
                    let mut all = BTreeMap::new();
                    add(&mut batch, writes);
                    all.extend(marks);
                    while batch.versions.len() < MAX_BATCH_VERSIONS {
                        match inbox.try_recv() {
                            Ok(LaneWork::Apply { writes, marks }) => {
                                add(&mut batch, writes);
                                all.extend(marks);
                            }
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.apply(batch, all)
                }
                LaneWork::Checkpoint { states } => self.checkpoint(states),
                LaneWork::Snapshot(task) => self.snapshot(task),
            };
            if let Err(error) = done {
                (self.report)(LaneEvent::Fatal(format!(
                    "the engine failed: {error}; the node stops rather than serve wrong data"
                )));
                return;
            }
        }
    }

    fn apply(
        &self,
        mut batch: EngineBatch,
        marks: BTreeMap<GroupId, Slot>,
    ) -> Result<(), EngineError> {
        batch.marks = marks.iter().map(|(g, s)| (*g, *s)).collect();
        self.engine.apply(batch)?;
        for (group, slot) in marks {
            (self.report)(LaneEvent::Input(Box::new(Input::EngineApplied {
                group,
                slot,
            })));
        }
        Ok(())
    }

    fn checkpoint(&self, states: Vec<(GroupId, Slot, Bytes)>) -> Result<(), EngineError> {
        let slots = states.iter().map(|(g, s, _)| (*g, *s)).collect();
        let groups: Vec<GroupId> = states.iter().map(|(group, ..)| *group).collect();
        self.engine.apply(EngineBatch {
            checkpoints: states,
            ..EngineBatch::default()
        })?;
        for group in groups {
            // A range that a broken installation left was filled from the log.
            if self.engine.installing(group)?.is_some() {
                self.engine.set_installing(group, None)?;
            }
        }
        self.engine.sync()?;
        (self.report)(LaneEvent::Checkpointed { slots });
        Ok(())
    }

    fn snapshot(&mut self, task: SnapshotTask) -> Result<(), EngineError> {
        match task {
            SnapshotTask::Open {
                group,
                span,
                to,
                id,
                state,
            } => {
                self.outgoing
                    .open(&*self.engine, group, span, to, id, state)?;
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
                Ok(())
            }
            SnapshotTask::Stage {
                group,
                span,
                id,
                chunk,
                data,
                done,
            } => {
                if let Some(state) =
                    self.incoming
                        .stage(&*self.engine, group, &span, id, chunk, &data, done)?
                {
                    tracing::info!(shard = group.0, slot = id.slot.0, "a snapshot is installed");
                    let installed = Input::SnapshotInstalled { group, id, state };
                    (self.report)(LaneEvent::Input(Box::new(installed)));
                }
                Ok(())
            }
        }
    }

    fn read_chunk(
        &mut self,
        group: GroupId,
        to: NodeId,
        id: SnapshotId,
        chunk: u64,
    ) -> Result<(), EngineError> {
        if let Some((data, done)) = self.outgoing.read(group, to, id, chunk)? {
            let read = Input::SnapshotRead {
                group,
                to,
                id,
                chunk,
                data,
                done,
            };
            (self.report)(LaneEvent::Input(Box::new(read)));
        }
        Ok(())
    }
}

fn add(batch: &mut EngineBatch, writes: Vec<(GroupId, WriteBatch)>) {
    for (_, write) in writes {
        batch.versions.extend(write.versions);
    }
}
