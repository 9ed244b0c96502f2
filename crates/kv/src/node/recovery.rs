//! From a directory to a worker's parts: what `synod init` left, the log, and
//! the engine with its checkpoints.

use super::{StartError, time};
use crate::config::{EngineKind, NodeConfig};
use crate::engine::{self, Engine, EngineBatch};
use crate::identity::Directory;
use crate::log::{Log, LogError, LogOptions, LogRecord, RealDisk};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use synod_paxos::lease::{LeaseRecord, LeaseSettings};
use synod_paxos::{Durable, GroupId, NodeId, Slot, Timestamp};
use synod_shard::wire::{META_SHARD, RESERVED_PREFIX};
use synod_shard::{Bootstrap, Recovered, Setup, Worker};
use synod_txn::AttemptId;
use synod_txn::GroupSettings;

/// What the log held.
#[derive(Default)]
pub(super) struct Replayed {
    pub(super) groups: BTreeMap<GroupId, Durable>,
    pub(super) leases: BTreeMap<NodeId, LeaseRecord>,
}

/// Opens the log and replays it.
pub(super) fn open_log(
    config: &NodeConfig,
    directory: &Directory,
    bootstrap: Option<&Bootstrap>,
) -> Result<(Log<RealDisk>, Replayed), StartError> {
    let mut replayed = Replayed::default();
    if let Some(bootstrap) = bootstrap {
        // A log that begins with plain records of a group begins at its creation.
        for shard in &bootstrap.map.shards {
            replayed
                .groups
                .insert(shard.id, Durable::new(shard.configuration.clone()));
        }
    }
    let mut known = std::collections::BTreeSet::new();
    let options = LogOptions {
        segment_bytes: config.log_segment_bytes,
        ..LogOptions::default()
    };
    let disk = RealDisk::open(&directory.join("log"))?;
    let (log, _) = Log::open(
        disk,
        options,
        directory.cluster(),
        |_, record| match record {
            LogRecord::Group { group, record } => {
                if let Some(durable) = replayed.groups.get_mut(&group) {
                    durable.replay(record);
                }
            }
            LogRecord::Base { group, durable } => {
                known.insert(group);
                replayed.groups.insert(group, *durable);
            }
            LogRecord::Lease(record) => {
                replayed.leases.insert(record.holder, record);
            }
        },
    )?;
    let me = directory.identity().node;
    if let Some(lost) = bootstrap.and_then(|b| {
        b.map
            .shards
            .iter()
            .find(|s| s.configuration.members().any(|n| n == me) && !known.contains(&s.id))
    }) {
        return Err(StartError::Log(LogError::Lost {
            path: directory.join("log"),
            what: format!("the ballots and entries of shard {}", lost.id.0),
        }));
    }
    Ok((log, replayed))
}

/// Opens the engine. One that does not open is set aside, never deleted: its
/// shards vote without data until a peer sends a snapshot (§8).
pub(super) fn open_engine(
    config: &NodeConfig,
    directory: &Directory,
) -> Result<Arc<dyn Engine>, StartError> {
    let path = directory.join("engine");
    if config.engine == EngineKind::Memory {
        return Ok(Arc::new(engine::MemoryEngine::new()));
    }
    match open_at(config.engine, &path) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            let aside = directory.join(&format!("engine-aside-{}", time::now().clock.latest.0));
            tracing::error!(
                %error,
                aside = %aside.display(),
                "the engine does not open; its files are set aside and the data will be \
                 fetched from the log and from peers"
            );
            std::fs::rename(&path, &aside).map_err(|source| StartError::Io {
                action: "set the engine's files aside",
                source,
            })?;
            Ok(open_at(config.engine, &path)?)
        }
    }
}

fn open_at(kind: EngineKind, path: &Path) -> Result<Arc<dyn Engine>, engine::EngineError> {
    Ok(match kind {
        EngineKind::Fjall => Arc::new(engine::FjallEngine::open(path)?),
        EngineKind::Redb => Arc::new(engine::RedbEngine::open(path)?),
        EngineKind::Memory => Arc::new(engine::MemoryEngine::new()),
    })
}

/// First steps of a new member: its groups' first durable state goes to the
/// log, the meta shard's first rows to the engine. Repeating it is harmless
/// until the bootstrap itself is stored.
pub(super) fn first_records(bootstrap: &Bootstrap, me: NodeId) -> Vec<LogRecord> {
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

/// The meta shard's rows as of the cluster's birth: a pure function of the
/// bootstrap, so all its replicas begin equal.
pub(super) fn seed_meta(
    engine: &dyn Engine,
    bootstrap: &Bootstrap,
) -> Result<(), engine::EngineError> {
    let key = |kind: &str, rest: &[u8]| {
        let mut key = RESERVED_PREFIX.to_vec();
        key.extend_from_slice(kind.as_bytes());
        key.extend_from_slice(rest);
        bytes::Bytes::from(key)
    };
    let mut rows = Vec::new();
    for node in &bootstrap.map.nodes {
        rows.push((
            key("/nodes/", &node.id.0.to_be_bytes()),
            postcard::to_stdvec(node),
        ));
    }
    for shard in &bootstrap.map.shards {
        rows.push((
            key("/shards/", &shard.span.start),
            postcard::to_stdvec(shard),
        ));
    }
    let versions = rows
        .into_iter()
        .filter_map(|(key, value)| {
            Some((key, Timestamp(1), AttemptId(0), Some(value.ok()?.into())))
        })
        .collect();
    engine.apply(EngineBatch {
        versions,
        ..EngineBatch::default()
    })?;
    engine.sync()
}

/// Puts the worker together.
pub(super) fn worker(
    config: &NodeConfig,
    directory: &Directory,
    bootstrap: &Bootstrap,
    mut replayed: Replayed,
    engine: &dyn Engine,
) -> Result<Worker, StartError> {
    let identity = directory.identity();
    let me = identity.node;
    let members = bootstrap
        .map
        .shards
        .iter()
        .filter(|s| s.configuration.members().any(|n| n == me));
    let mut shards = Vec::new();
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
        if descriptor.id == META_SHARD && checkpoint.is_none() && durable.trimmed == Slot(0) {
            // The engine's copy may be gone; the log does not hold these rows.
            seed_meta(engine, bootstrap)?;
        }
        shards.push(Recovered {
            descriptor: descriptor.clone(),
            durable,
            checkpoint,
            engine_applied,
        });
    }
    let lease_nanos = u64::try_from(config.lease.as_nanos()).unwrap_or(u64::MAX);
    let setup = Setup {
        me,
        incarnation: identity.incarnation,
        map: bootstrap.map.clone(),
        version: bootstrap.version,
        leases: replayed.leases.into_values().collect(),
        shards,
        paxos: synod_paxos::Settings::default(),
        lease: LeaseSettings::of_lease(lease_nanos),
        txn: GroupSettings {
            staged_timeout_nanos: nanos(config.staged_timeout),
            session_nanos: nanos(config.session),
            idle_nanos: nanos(config.session),
            ..GroupSettings::default()
        },
        seed: me.0 ^ identity.incarnation.0.rotate_left(32),
    };
    Ok(Worker::new(setup, time::now())?)
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
