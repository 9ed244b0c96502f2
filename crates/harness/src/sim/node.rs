//! A simulated node: the real worker over a simulated disk and engine.

use super::config::SimConfig;
use super::disk::SimDisk;
use super::engine::SimEngine;
use super::random::Random;
use std::collections::BTreeMap;
use synod_paxos::lease::LeaseSettings;
use synod_paxos::{
    ClusterVersion, GroupId, Incarnation, Mono, NodeId, Slot, SnapshotId, Timestamp,
};
use synod_shard::wire::SnapshotPiece;
use synod_shard::{Input, Now, Output, Recovered, Setup, ShardMap, SnapshotTask, Worker};
use synod_txn::{GroupSettings, Interval};

/// Wall time at the start of every run.
const BIRTH: u64 = 1_700_000_000_000_000_000;

/// Work for the engine, done a little later, in order.
pub(super) enum EngineWork {
    Apply {
        output: Box<Output>,
    },
    Checkpoint {
        states: Vec<(GroupId, Slot, bytes::Bytes)>,
    },
}

/// A node; `worker` is none while it is down.
pub(super) struct SimNode {
    pub(super) id: NodeId,
    pub(super) worker: Option<Worker>,
    pub(super) incarnation: u64,
    pub(super) disk: SimDisk,
    pub(super) engine: SimEngine,
    pub(super) engine_queue: std::collections::VecDeque<EngineWork>,
    pub(super) paused_until: u64,
    /// Events of an earlier life are dropped by this number.
    pub(super) life: u64,
    pub(super) wake_at: u64,
    clock_offset: i64,
    rate_ppm: i64,
    outgoing: BTreeMap<(GroupId, NodeId), (SnapshotId, Vec<SnapshotPiece>)>,
    incoming: BTreeMap<GroupId, (SnapshotId, Vec<SnapshotPiece>)>,
}

impl SimNode {
    pub(super) fn new(
        id: NodeId,
        map: &ShardMap,
        config: &SimConfig,
        random: &mut Random,
    ) -> SimNode {
        let mut disk = SimDisk::default();
        for shard in &map.shards {
            if shard.configuration.members().any(|n| n == id) {
                disk.create(shard.id, shard.configuration.clone());
            }
        }
        let offset = random.range(0, 2 * config.clock_offset + 1) as i64;
        SimNode {
            id,
            worker: None,
            incarnation: 0,
            disk,
            engine: SimEngine::default(),
            engine_queue: std::collections::VecDeque::new(),
            paused_until: 0,
            life: 0,
            wake_at: u64::MAX,
            clock_offset: offset - config.clock_offset as i64,
            rate_ppm: random.range(0, 801) as i64 - 400,
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
        }
    }

    /// Both clocks at true time `t`. The monotonic one runs at this node's rate.
    pub(super) fn now(&self, t: u64) -> Now {
        let drift = (t as i64 / 1_000_000) * self.rate_ppm;
        let mono = (t as i64 + drift + 1_000_000_000) as u64;
        let wall = Timestamp((BIRTH as i64 + t as i64 + drift + self.clock_offset) as u64);
        Now {
            mono: Mono(mono),
            clock: Interval {
                earliest: wall,
                latest: wall,
            },
        }
    }

    /// True time at which this node's monotonic clock shows `at`.
    pub(super) fn true_time(&self, at: Mono) -> u64 {
        let t = at.0.saturating_sub(1_000_000_000) as i64;
        (t - (t / 1_000_000) * self.rate_ppm).max(0) as u64 + 1_000
    }

    pub(super) fn start(&mut self, t: u64, map: &ShardMap, config: &SimConfig) {
        self.incarnation += 1;
        let shards = map
            .shards
            .iter()
            .filter_map(|descriptor| {
                Some(Recovered {
                    durable: self.disk.durable(descriptor.id)?,
                    checkpoint: self.engine.checkpoint(descriptor.id),
                    engine_applied: self.engine.applied(descriptor.id),
                    descriptor: descriptor.clone(),
                })
            })
            .collect();
        let setup = Setup {
            me: self.id,
            incarnation: Incarnation(self.incarnation),
            map: map.clone(),
            version: ClusterVersion(1),
            leases: self.disk.leases(),
            shards,
            paxos: synod_paxos::Settings::default(),
            lease: LeaseSettings::of_lease(config.lease),
            txn: GroupSettings {
                session_nanos: 1_500_000_000,
                idle_nanos: 1_500_000_000,
                staged_timeout_nanos: 300_000_000,
                ..GroupSettings::default()
            },
            seed: config.seed ^ self.id.0 << 32 ^ self.incarnation,
        };
        self.worker = Worker::new(setup, self.now(t)).ok();
        assert!(
            self.worker.is_some(),
            "a checkpoint of {} cannot be read",
            self.id
        );
    }

    pub(super) fn crash(&mut self, random: &mut Random) {
        self.worker = None;
        self.life += 1;
        self.wake_at = u64::MAX;
        self.disk.crash(random);
        self.engine.crash();
        self.engine_queue.clear();
        self.outgoing.clear();
        self.incoming.clear();
    }

    /// The states for a checkpoint of everything.
    pub(super) fn checkpoint(&mut self) {
        let Some(worker) = &self.worker else {
            return;
        };
        let groups: Vec<GroupId> = worker.shards().map(|s| s.descriptor().id).collect();
        let states = groups
            .into_iter()
            .filter_map(|g| {
                let (slot, state) = worker.checkpoint(g)?;
                (slot > Slot(0)).then_some((g, slot, state))
            })
            .collect();
        self.engine_queue
            .push_back(EngineWork::Checkpoint { states });
    }

    /// Does the oldest piece of engine work; what it reports goes to the worker.
    pub(super) fn engine_step(&mut self) -> Result<Vec<Input>, String> {
        let mut reports = Vec::new();
        match self.engine_queue.pop_front() {
            Some(EngineWork::Apply { output }) => {
                for (_, batch) in output.writes {
                    self.engine.write(batch.versions)?;
                }
                for (group, slot) in output.marks {
                    self.engine.mark(group, slot);
                    reports.push(Input::EngineApplied { group, slot });
                }
                for task in output.snapshots {
                    self.snapshot(task, &mut reports)?;
                }
            }
            Some(EngineWork::Checkpoint { states }) => {
                for (group, slot, state) in states {
                    self.engine.keep(group, slot, state);
                    reports.push(Input::Checkpointed { group, slot });
                }
                self.engine.sync();
            }
            None => {}
        }
        Ok(reports)
    }

    fn snapshot(&mut self, task: SnapshotTask, reports: &mut Vec<Input>) -> Result<(), String> {
        match task {
            SnapshotTask::Open {
                group,
                span,
                to,
                id,
                state,
            } => {
                let mut pieces = vec![SnapshotPiece::State(state)];
                for run in self.engine.export(&span).chunks(7) {
                    pieces.push(SnapshotPiece::Versions(run.to_vec()));
                }
                self.outgoing.insert((group, to), (id, pieces));
                self.read_chunk(group, to, id, 0, reports);
            }
            SnapshotTask::Read {
                group,
                to,
                id,
                chunk,
            } => self.read_chunk(group, to, id, chunk, reports),
            SnapshotTask::Close { group, to } => {
                self.outgoing.remove(&(group, to));
            }
            SnapshotTask::Stage {
                group,
                span,
                id,
                chunk,
                data,
                done,
            } => {
                let piece = postcard::from_bytes(&data).map_err(|e| e.to_string())?;
                let staged = self.incoming.entry(group).or_insert((id, Vec::new()));
                if chunk == 0 {
                    *staged = (id, Vec::new());
                }
                if staged.0 != id || staged.1.len() as u64 != chunk {
                    return Err(format!("chunk {chunk} of {id:?} was staged out of order"));
                }
                staged.1.push(piece);
                if done {
                    let (id, pieces) = self.incoming.remove(&group).unwrap_or((id, Vec::new()));
                    self.engine.clear(&span);
                    let mut state = bytes::Bytes::new();
                    for piece in pieces {
                        match piece {
                            SnapshotPiece::State(bytes) => state = bytes,
                            SnapshotPiece::Versions(versions) => self.engine.write(versions)?,
                        }
                    }
                    self.engine.keep(group, id.slot, state.clone());
                    self.engine.mark(group, id.slot);
                    self.engine.sync();
                    reports.push(Input::SnapshotInstalled { group, id, state });
                }
            }
        }
        Ok(())
    }

    fn read_chunk(
        &self,
        group: GroupId,
        to: NodeId,
        id: SnapshotId,
        chunk: u64,
        reports: &mut Vec<Input>,
    ) {
        let open = self.outgoing.get(&(group, to)).filter(|(o, _)| *o == id);
        let Some((_, pieces)) = open else {
            return;
        };
        let Some(data) = pieces
            .get(chunk as usize)
            .and_then(|p| postcard::to_stdvec(p).ok())
        else {
            return;
        };
        reports.push(Input::SnapshotRead {
            group,
            to,
            id,
            chunk,
            data: data.into(),
            done: chunk as usize + 1 == pieces.len(),
        });
    }
}
