//! From a log and an engine to a worker, and the first state of a new cluster.

use crate::engine::{Engine, EngineBatch, EngineError};
use crate::log::{Disk, Log, LogError, LogOptions, LogRecord};
use std::collections::BTreeMap;
use synod_paxos::lease::{LeaseRecord, LeaseSettings};
use synod_paxos::{Durable, GroupId, Incarnation, NodeId, Slot, Timestamp};
use synod_shard::records::{self, FIRST_VERSION, NodeRow};
use synod_shard::wire::META_SHARD;
use synod_shard::{Bootstrap, Now, Recovered, Setup, ShardMap, Worker};
use synod_txn::request::ScanRange;
use synod_txn::{AttemptId, GroupSettings, RestoreError};

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The engine cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A checkpoint in the engine cannot be read.
    #[error("a checkpoint in the engine cannot be read: {0}")]
    Checkpoint(#[from] RestoreError),
}

/// What the log held.
#[derive(Debug, Default)]
pub struct Replayed {
    groups: BTreeMap<GroupId, Durable>,
    leases: BTreeMap<NodeId, LeaseRecord>,
}

impl Replayed {
    /// Whether the log held nothing of any cluster.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.leases.is_empty()
    }
}

/// Opens the log and replays it.
///
/// # Errors
/// When the log cannot be used, or does not hold the ballots of a shard that
/// `me` is a member of: a node that lost them rejoins as a new one (§8).
pub fn replay<D: Disk>(
    disk: D,
    options: LogOptions,
    cluster: u128,
    bootstrap: Option<&Bootstrap>,
    me: NodeId,
) -> Result<(Log<D>, Replayed), LogError> {
    let mut replayed = Replayed::default();
    let path = disk.path("");
    let (log, _) = Log::open(disk, options, cluster, |_, record| match record {
        LogRecord::Group { group, record } => {
            // Plain records before a group's first base belong to what was trimmed.
            if let Some(durable) = replayed.groups.get_mut(&group) {
                durable.replay(record);
            }
        }
        LogRecord::Base { group, durable } => {
            replayed.groups.insert(group, *durable);
        }
        LogRecord::Lease(record) => {
            replayed.leases.insert(record.holder, record);
        }
    })?;
    let mine = |s: &&synod_shard::ShardDescriptor| s.configuration.members().any(|n| n == me);
    let mut members = bootstrap
        .iter()
        .flat_map(|b| b.map.shards.iter())
        .filter(mine);
    if let Some(lost) = members.find(|s| !replayed.groups.contains_key(&s.id)) {
        return Err(LogError::Lost {
            path,
            what: format!("the ballots and entries of shard {}", lost.id.0),
        });
    }
    Ok((log, replayed))
}

/// First steps of a new member: its groups' first durable state goes to the
/// log, the meta shard's first rows to the engine. Repeating it is harmless
/// until the bootstrap itself is stored.
#[must_use]
pub fn first_records(bootstrap: &Bootstrap, me: NodeId) -> Vec<LogRecord> {
    bootstrap
        .map
        .shards
        .iter()
        .filter(|s| s.configuration.members().any(|n| n == me))
        .map(|s| LogRecord::Base {
            group: s.id,
            durable: Box::new(Durable::new(s.configuration.clone())),
        })
        .collect()
}

/// What the engine holds of the meta shard's rows about shards: as old as it may be,
/// it is a beginning for a map that begins with the cluster's first one.
fn known_shards(engine: &dyn Engine, map: &mut ShardMap) -> Result<(), EngineError> {
    let mut start = records::shard_key(b"");
    loop {
        let scan = ScanRange {
            span: records::shard_span(start),
            limit: u32::MAX,
            reverse: false,
        };
        let (rows, more) = engine.scan(&scan, Timestamp(u64::MAX))?;
        let descriptors = rows.iter().map(|row| postcard::from_bytes(&row.value));
        let descriptors: Vec<_> = descriptors.filter_map(Result::ok).collect();
        map.learn_all(&descriptors);
        match rows.last() {
            Some(last) if more => start = [&last.key[..], &[0]].concat().into(),
            _ => return Ok(()),
        }
    }
}

/// The meta shard's rows as of the cluster's birth: a pure function of the
/// bootstrap, so all its replicas begin equal.
///
/// # Errors
/// When the engine cannot be written.
pub fn seed_meta(engine: &dyn Engine, bootstrap: &Bootstrap) -> Result<(), EngineError> {
    let nodes = bootstrap.map.nodes.iter().cloned().map(NodeRow::first);
    let nodes = nodes.filter_map(|row| Some((row.key(), row.value()?)));
    let shards = bootstrap.map.shards.iter().filter_map(|shard| {
        let value = postcard::to_stdvec(shard).ok()?;
        Some((records::shard_key(&shard.span.start), value.into()))
    });
    let version = |(key, value)| (key, FIRST_VERSION, AttemptId(0), Some(value));
    let versions = nodes.chain(shards).map(version).collect();
    engine.apply(EngineBatch {
        versions,
        ..EngineBatch::default()
    })?;
    engine.sync()
}

/// What a worker is put together from.
#[derive(Clone, Debug)]
pub struct Assembly<'a> {
    /// This node.
    pub me: NodeId,
    /// Its incarnation, durable, already incremented.
    pub incarnation: Incarnation,
    /// The cluster's first map, or that of the day this node joined.
    pub bootstrap: &'a Bootstrap,
    /// What this node has heard of nodes since.
    pub nodes: Vec<NodeRow>,
    /// Consensus settings.
    pub paxos: synod_paxos::Settings,
    /// Lease settings.
    pub lease: LeaseSettings,
    /// Transaction settings.
    pub txn: GroupSettings,
    /// Seeds the jitter of elections.
    pub seed: u64,
}

/// Puts the worker together.
///
/// # Errors
/// When the engine fails, or holds a checkpoint that cannot be read.
pub fn assemble(
    assembly: Assembly<'_>,
    mut replayed: Replayed,
    engine: &dyn Engine,
    now: Now,
) -> Result<Worker, RecoveryError> {
    let Assembly { me, bootstrap, .. } = assembly;
    // The first members, and those that were made members later.
    let members = bootstrap
        .map
        .shards
        .iter()
        .filter(|s| s.configuration.is_member(me) || replayed.groups.contains_key(&s.id));
    let members: Vec<_> = members.collect();
    let mut shards = Vec::new();
    let mut map = bootstrap.map.clone();
    for descriptor in members {
        let durable = replayed
            .groups
            .remove(&descriptor.id)
            .unwrap_or_else(|| Durable::new(descriptor.configuration.clone()));
        let half_installed = engine.installing(descriptor.id)?.is_some();
        let (checkpoint, engine_applied) = if half_installed {
            // Neither the old state nor the new one. The log, if it is whole, or
            // another snapshot fills the range again; the mark stands until then.
            engine.clear_range(&descriptor.span)?;
            (None, Slot(0))
        } else {
            let applied = engine.applied(descriptor.id)?.unwrap_or(Slot(0));
            (engine.checkpoint(descriptor.id)?, applied)
        };
        let was_first = descriptor.configuration.is_member(me);
        if descriptor.id == META_SHARD
            && was_first
            && checkpoint.is_none()
            && durable.trimmed == Slot(0)
        {
            // The engine's copy may be gone; the log does not hold these rows. (Who became
            // a member later has them from a snapshot.)
            seed_meta(engine, bootstrap)?;
        }
        if descriptor.id == META_SHARD {
            known_shards(engine, &mut map)?;
        }
        shards.push(Recovered {
            descriptor: descriptor.clone(),
            durable,
            checkpoint,
            engine_applied,
        });
    }
    let setup = Setup {
        me,
        incarnation: assembly.incarnation,
        map,
        nodes: assembly.nodes,
        version: bootstrap.version,
        leases: replayed.leases.into_values().collect(),
        shards,
        paxos: assembly.paxos,
        lease: assembly.lease,
        txn: assembly.txn,
        seed: assembly.seed,
    };
    Ok(Worker::new(setup, now)?)
}
