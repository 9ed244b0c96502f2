//! From a log and an engine to a worker, and the first state of a new cluster.

use crate::engine::{Engine, EngineBatch, EngineError};
use crate::log::{Cut, Disk, Log, LogError, LogOptions, LogRecord};
use std::collections::BTreeMap;
use synod_paxos::lease::{LeaseRecord, LeaseSettings};
use synod_paxos::{
    ClusterVersion, Configuration, Durable, GroupId, Incarnation, NodeId, Slot, Timestamp,
    VersionRange,
};
use synod_shard::records::{self, FIRST_VERSION, NodeRow};
use synod_shard::wire::META_SHARD;
use synod_shard::{
    Bootstrap, Now, Recovered, Setup, ShardDescriptor, ShardMap, Versions, Worker,
    first_descriptor, first_durable,
};
use synod_txn::request::ScanRange;
use synod_txn::state::State;
use synod_txn::{AttemptId, GroupSettings, Key, Lineage, RestoreError};

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
    shards: BTreeMap<GroupId, ShardDescriptor>,
    leases: BTreeMap<NodeId, LeaseRecord>,
    /// What was cut off the log's end, if anything.
    pub cut: Option<Cut>,
}

impl Replayed {
    /// Whether the log held nothing of any cluster.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.leases.is_empty()
    }

    /// Whether this node has promised or accepted anything: more than the first records of a
    /// cluster whose beginning was interrupted.
    #[must_use]
    pub fn has_promised(&self) -> bool {
        let blank = |d: &Durable| *d == Durable::new(d.configuration.clone());
        !self.leases.is_empty() || !self.groups.values().all(blank)
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
    // A log is begun before its node is part of a cluster. One that joined later need not hold
    // any shard of the map it began with, so only this tells that its promises are gone.
    if bootstrap.is_some() && !Log::is_begun(&disk)? {
        return Err(LogError::Lost {
            path,
            what: "everything that this node, a part of its cluster, has promised to others"
                .to_owned(),
        });
    }
    let (log, recovery) = Log::open(disk, options, cluster, |_, record| match record {
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
        LogRecord::Shard(descriptor) => {
            replayed.shards.insert(descriptor.id, *descriptor);
        }
    })?;
    replayed.cut = recovery.cut;
    let mut members = bootstrap
        .iter()
        .flat_map(|b| b.map.shards.iter())
        .filter(|shard| begins_with(shard, me));
    if let Some(lost) = members.find(|s| !replayed.groups.contains_key(&s.id)) {
        return Err(LogError::Lost {
            path,
            what: format!("the ballots and entries of shard {}", lost.id.0),
        });
    }
    Ok((log, replayed))
}

/// Whether `shard`, as a node's first map names it, begins with that node: empty but for what
/// `init` makes of the meta shard. The map of a node that joined later tells of shards as they
/// were on that day.
fn begins_with(shard: &ShardDescriptor, me: NodeId) -> bool {
    shard.generation <= 1 && shard.configuration.is_member(me)
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
        .filter(|s| begins_with(s, me))
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
    // A cluster's oldest version has no row: nodes that know nothing of it write none.
    let begun = Some(bootstrap.version).filter(|v| *v > ClusterVersion::OLDEST);
    let begun = begun.and_then(|v| Some((records::version_key(), records::version_value(v)?)));
    let version = |(key, value)| (key, FIRST_VERSION, AttemptId(0), Some(value));
    let versions = nodes.chain(shards).chain(begun).map(version).collect();
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
    /// The highest cluster version heard of since, if any.
    pub raised: ClusterVersion,
    /// The cluster versions that this program can serve in.
    pub supports: VersionRange,
    /// Consensus settings.
    pub paxos: synod_paxos::Settings,
    /// Lease settings.
    pub lease: LeaseSettings,
    /// Transaction settings.
    pub txn: GroupSettings,
    /// Seeds the jitter of elections.
    pub seed: u64,
}

/// A replica as log and engine have it.
fn recovered(
    descriptor: ShardDescriptor,
    durable: Durable,
    engine: &dyn Engine,
    was_first: bool,
) -> Result<Recovered, RecoveryError> {
    let id = descriptor.id;
    // The meta shard's first rows are in no log, and who has them here is told by `was_first`. What
    // other shards hold, a log that goes back to its first entry says completely.
    let begins_empty = was_first || id != META_SHARD;
    // Half installed is neither the old state nor the new one. The log, if it is whole, or
    // another snapshot fills the range again; the mark stands until then.
    let whole = engine.installing(id)?.is_none();
    let checkpoint = if whole { engine.checkpoint(id)? } else { None };
    let checkpoint = match checkpoint {
        Some((slot, encoded)) => Some((slot, State::decode(id, &encoded)?)),
        None => None,
    };
    let applied = engine.applied(id)?.filter(|_| whole);
    Ok(Recovered {
        descriptor,
        durable,
        checkpoint,
        engine_applied: applied.unwrap_or(Slot(0)),
        begins_empty,
        is_new: false,
    })
}

/// The replicas whose ballots and entries the log holds, and those of the cluster's first
/// shards that this node is a member of.
fn members(
    me: NodeId,
    bootstrap: &Bootstrap,
    replayed: &mut Replayed,
    engine: &dyn Engine,
) -> Result<Vec<Recovered>, RecoveryError> {
    let mut descriptors = std::mem::take(&mut replayed.shards);
    let mut shards = Vec::new();
    for first in &bootstrap.map.shards {
        let later = descriptors.remove(&first.id);
        let durable = replayed.groups.remove(&first.id);
        let begins = begins_with(first, me);
        if durable.is_none() && !begins {
            continue;
        }
        let durable = durable.unwrap_or_else(|| Durable::new(first.configuration.clone()));
        let mut descriptor = later.unwrap_or_else(|| first.clone());
        // The log's may be ahead of the state, which says what splits have left: until it
        // gets past them again, all of this is the shard's, and goes into its snapshots.
        descriptor.span.clone_from(&first.span);
        descriptor.generation = u64::from(descriptor.configuration.epoch.0);
        shards.push(recovered(descriptor, durable, engine, begins)?);
    }
    for (id, descriptor) in descriptors {
        if let Some(durable) = replayed.groups.remove(&id) {
            shards.push(recovered(descriptor, durable, engine, false)?);
        }
    }
    Ok(shards)
}

/// Whether one of these has absorbed a shard that begins there, or descends from one that has.
fn is_absorbed(lineages: &[Lineage], id: GroupId, start: &Key) -> bool {
    let mut lineages = lineages.iter();
    lineages.any(|l| l.ancestors.contains(&id) && l.owns(start))
}

/// What splits and merges have made of those that have a state.
fn lineages(shards: &[Recovered]) -> Vec<Lineage> {
    let states = shards.iter().filter_map(|shard| shard.checkpoint.as_ref());
    states.map(|(_, state)| state.lineage.clone()).collect()
}

/// Shards that were split off here, and whose birth a crash cut short before the log knew
/// of it: the engine has what they begin with, or a snapshot brings it.
fn born(me: NodeId, shards: &mut Vec<Recovered>, engine: &dyn Engine) -> Result<(), RecoveryError> {
    let known = lineages(shards);
    let mut next = 0;
    while let Some(shard) = shards.get(next) {
        next += 1;
        let Some((_, state)) = &shard.checkpoint else {
            continue;
        };
        for child in state.lineage.children.clone() {
            let here = shards.iter().any(|s| s.descriptor.id == child.id);
            let gone = is_absorbed(&known, child.id, &child.span.start);
            if !here && !gone && child.configuration.is_member(me) {
                let (descriptor, durable) = (first_descriptor(&child), first_durable(&child));
                let mut born = recovered(descriptor, durable, engine, false)?;
                if born.checkpoint.is_none() {
                    // Its data has still to come: it is taken in with that.
                    born.durable = Durable::new(Configuration::outside());
                }
                shards.push(Recovered {
                    is_new: true,
                    ..born
                });
            }
        }
    }
    Ok(())
}

/// What was half installed goes, as far as it is not another replica's data: one that begins later,
/// or that has absorbed it.
fn clear_halves(shards: &[Recovered], engine: &dyn Engine) -> Result<(), RecoveryError> {
    let mut halves = Vec::new();
    for shard in shards {
        if engine.installing(shard.descriptor.id)?.is_some() {
            halves.push(&shard.descriptor);
        }
    }
    if halves.is_empty() {
        return Ok(());
    }
    let known = lineages(shards);
    for half in halves {
        let start = &half.span.start;
        if is_absorbed(&known, half.id, start) {
            continue;
        }
        let starts = shards.iter().map(|other| &other.descriptor.span.start);
        let next = starts.filter(|other| *other > start).min();
        engine.clear_range(&half.span.before(next))?;
    }
    Ok(())
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
    let mut map = bootstrap.map.clone();
    // What a process that was killed wrote last is there, and may still be lost with the power. A log
    // that is behind the engine begins anew where that is, and so has to rely on it.
    engine.sync()?;
    let mut shards = members(me, bootstrap, &mut replayed, engine)?;
    born(me, &mut shards, engine)?;
    clear_halves(&shards, engine)?;
    if let Some(meta) = shards.iter().find(|s| s.descriptor.id == META_SHARD) {
        let first = bootstrap.map.shard(META_SHARD);
        let was_first = first.is_some_and(|s| begins_with(s, me));
        if was_first && meta.checkpoint.is_none() && meta.durable.trimmed == Slot(0) {
            // The engine's copy may be gone; the log does not hold these rows. (Who became
            // a member later has them from a snapshot.)
            seed_meta(engine, bootstrap)?;
        }
        known_shards(engine, &mut map)?;
    }
    let setup = Setup {
        me,
        incarnation: assembly.incarnation,
        map,
        nodes: assembly.nodes,
        versions: Versions {
            first: bootstrap.version,
            raised: assembly.raised.max(bootstrap.version),
            supports: assembly.supports,
        },
        leases: replayed.leases.into_values().collect(),
        shards,
        paxos: assembly.paxos,
        lease: assembly.lease,
        txn: assembly.txn,
        seed: assembly.seed,
    };
    Ok(Worker::new(setup, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::MemoryEngine;
    use synod_paxos::Mono;
    use synod_shard::NodeDescriptor;
    use synod_txn::{Interval, Span};

    fn worker_of(me: u64, voters: [u64; 3], generation: u64) -> Worker {
        let mut configuration = Configuration::of_voters(voters.map(NodeId).to_vec());
        configuration.epoch = synod_paxos::Epoch(u32::try_from(generation).expect("small"));
        let meta = ShardDescriptor {
            id: META_SHARD,
            span: Span {
                start: Key::new(),
                end: Key::new(),
            },
            generation,
            configuration,
            preferred_leader: NodeId(1),
            born: None,
        };
        let bootstrap = Bootstrap {
            cluster: 1,
            version: ClusterVersion::NEWEST,
            map: ShardMap {
                nodes: Vec::<NodeDescriptor>::new(),
                shards: vec![meta.clone()],
            },
        };
        // As the log has it between the first word of a leader and the state that follows.
        let mut replayed = Replayed::default();
        let durable = Durable::new(Configuration::outside());
        replayed.groups.insert(META_SHARD, durable);
        replayed.shards.insert(META_SHARD, meta);
        let assembly = Assembly {
            me: NodeId(me),
            incarnation: Incarnation(2),
            bootstrap: &bootstrap,
            nodes: Vec::new(),
            raised: ClusterVersion::default(),
            supports: VersionRange::OWN,
            paxos: synod_paxos::Settings::default(),
            lease: LeaseSettings::default(),
            txn: GroupSettings::default(),
            seed: 1,
        };
        let wall = Timestamp(1_000_000_000);
        let now = Now {
            mono: Mono(0),
            clock: Interval {
                earliest: wall,
                latest: wall,
            },
        };
        assemble(assembly, replayed, &MemoryEngine::new(), now).expect("a worker")
    }

    /// The meta shard's first rows are in no log: whoever was not there at the beginning has them
    /// from others, however far back the log goes.
    #[test]
    fn only_who_was_there_at_the_beginning_begins_with_nothing() {
        let holds = |worker: Worker| {
            let meta = worker.shard(META_SHARD).expect("it is here");
            meta.replica().holds_data()
        };
        assert!(holds(worker_of(1, [1, 2, 3], 1)));
        assert!(!holds(worker_of(4, [1, 2, 3], 5)), "one that came later");
        assert!(!holds(worker_of(4, [1, 2, 4], 5)), "and is a member by now");
    }
}
