//! What a node finds in its directory: the log, and the engine.

use super::{StartError, time};
use crate::config::{EngineKind, NodeConfig};
use crate::engine::{self, Engine};
use crate::identity::Directory;
use crate::log::{Log, LogOptions, RealDisk};
use crate::machine::{Assembly, Replayed, assemble, replay};
use crate::repair::move_engine_aside;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use synod_paxos::lease::LeaseSettings;
use synod_shard::{Bootstrap, Worker};
use synod_txn::GroupSettings;

/// Memory for versions read lately.
const RECENT_BYTES: usize = 64 << 20;

/// Opens the log and replays it.
pub(super) fn open_log(
    config: &NodeConfig,
    directory: &Directory,
    bootstrap: Option<&Bootstrap>,
) -> Result<(Log<RealDisk>, Replayed), StartError> {
    let options = LogOptions {
        segment_bytes: config.log_segment_bytes,
        ..LogOptions::default()
    };
    let disk = RealDisk::open(&directory.join("log"))?;
    let me = directory.identity().node;
    let (log, replayed) = replay(disk, options, directory.cluster(), bootstrap, me)?;
    if let Some(cut) = &replayed.cut {
        tracing::warn!(
            file = %cut.path.display(),
            offset = cut.offset,
            "the log ended with what was written and never acknowledged; it is cut there"
        );
    }
    Ok((log, replayed))
}

/// Opens the engine. One whose files are damaged is set aside, never deleted: its
/// shards vote without data until a peer sends a snapshot (§8). Where something else is
/// in the way, a setting, a right, a limit of the system, the node does not start, and nothing
/// is changed: it might be so on all nodes.
pub(super) fn open_engine(
    config: &NodeConfig,
    directory: &Directory,
    has_past: bool,
) -> Result<Arc<dyn Engine>, StartError> {
    let path = directory.join("engine");
    if config.engine == EngineKind::Memory {
        return Ok(Arc::new(engine::MemoryEngine::new()));
    }
    if has_past && is_empty(&path) {
        tracing::warn!(
            directory = %path.display(),
            "the engine's directory is gone or empty: what it held comes from the log, and from \
             peers where the log does not reach back"
        );
    }
    match open_at(config.engine, &path) {
        Ok(engine) => Ok(engine),
        Err(error) if error.blames_files() => {
            let aside = move_engine_aside(directory.path()).map_err(|source| StartError::Io {
                action: "set the engine's files aside",
                source,
            })?;
            tracing::error!(
                %error,
                aside = %aside.display(),
                "the engine does not open; its files are set aside and the data will be \
                 fetched from the log and from peers"
            );
            Ok(open_at(config.engine, &path)?)
        }
        Err(error) => Err(error.into()),
    }
}

fn is_empty(directory: &Path) -> bool {
    match std::fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

fn open_at(kind: EngineKind, path: &Path) -> Result<Arc<dyn Engine>, engine::EngineError> {
    Ok(match kind {
        EngineKind::Fjall => recent(engine::FjallEngine::open(path)?),
        EngineKind::Redb => recent(engine::RedbEngine::open(path)?),
        EngineKind::Memory => Arc::new(engine::MemoryEngine::new()),
    })
}

fn recent(engine: impl Engine) -> Arc<dyn Engine> {
    let seed = uuid::Uuid::new_v4().as_u128() as u64;
    Arc::new(engine::Recent::new(engine, RECENT_BYTES, seed))
}

/// Puts the worker together.
pub(super) fn worker(
    config: &NodeConfig,
    directory: &Directory,
    bootstrap: &Bootstrap,
    replayed: Replayed,
    engine: &dyn Engine,
) -> Result<Worker, StartError> {
    let identity = directory.identity();
    let assembly = Assembly {
        me: identity.node,
        incarnation: identity.incarnation,
        bootstrap,
        nodes: directory.nodes(),
        raised: directory.version(),
        supports: config.supports,
        paxos: synod_paxos::Settings::default(),
        lease: LeaseSettings::of_lease(nanos(config.lease)),
        txn: GroupSettings {
            staged_timeout_nanos: nanos(config.staged_timeout),
            session_nanos: nanos(config.session),
            idle_nanos: nanos(config.session),
            ..GroupSettings::default()
        },
        seed: identity.node.0 ^ identity.incarnation.0.rotate_left(32),
    };
    Ok(assemble(assembly, replayed, engine, time::now())?)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
