//! `kill -9` of the leader under steady writes: for how long does somebody
//! wait for a write?

use crate::error::Error;
use crate::etcd;
use crate::measure::KEY_BYTES;
use crate::plan::{Group, Scale};
use crate::record::{Figures, Record, Subject};
use crate::synod;
use crate::system::{Db, Layout, Servers, System, Target};
use crate::workload::SHARDS;
use std::time::{Duration, Instant};
use synod_harness::cluster::ask;
use synod_harness::history::Nanos;
use synod_harness::load::Keys;
use synod_harness::workload::{Gap, Run};
use tokio::task::JoinHandle;

/// Steady writes before each kill, and after all writers have come back.
const STEADY: Duration = Duration::from_secs(1);
/// Between two writes of one writer.
const PAUSE: Duration = Duration::from_millis(2);
/// After so long etcd's writer asks the next member. (Synod's SDK looks for
/// the new leader by itself.)
const ETCD_TIMEOUT: Duration = Duration::from_millis(100);
/// A cluster that takes longer than this to recover has failed.
const RECOVERY: Duration = Duration::from_secs(30);
/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Writes 1, 2, 3 … to one key.
enum Writer {
    Synod(synod_client::Client),
    /// A session with each member, and which is asked now.
    Etcd(Vec<etcd::Session>, usize),
}

/// What a writer did.
struct Written {
    key: String,
    /// When writes were acknowledged, ascending.
    acks: Vec<Nanos>,
    /// The last one that was.
    last: u64,
}

impl Writer {
    async fn new(target: &Target) -> Result<Writer, Error> {
        Ok(match (&target.servers, &target.db) {
            (Servers::Etcd(members), _) => {
                let mut sessions = Vec::new();
                for url in members.urls() {
                    sessions.push(etcd::Session::connect(&url, 1).await?);
                }
                Writer::Etcd(sessions, 0)
            }
            (Servers::Synod(_), Db::Synod(client)) => Writer::Synod(client.clone()),
            (Servers::Synod(_), Db::Etcd(_)) => unreachable!("a target has one system"),
        })
    }

    /// Tries once; whether it was acknowledged.
    async fn put(&mut self, key: &str, number: u64) -> bool {
        let value = number.to_string();
        match self {
            Writer::Synod(client) => client.put(key, value).await.is_ok(),
            Writer::Etcd(sessions, at) => {
                let put = sessions[*at].put(key, value.as_bytes());
                let done = tokio::time::timeout(ETCD_TIMEOUT, put).await;
                let done = matches!(done, Ok(Ok(_)));
                if !done {
                    *at = (*at + 1) % sessions.len();
                }
                done
            }
        }
    }

    async fn write(mut self, key: String, run: Run) -> Written {
        let (mut acks, mut last, mut number) = (Vec::new(), 0, 0);
        while !run.is_stopped() {
            number += 1;
            if self.put(&key, number).await {
                last = number;
                acks.push(run.now());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Written { key, acks, last }
    }
}

/// Kills the leader that many times; one record for each.
///
/// # Errors
/// When a cluster does not recover, or an acknowledged write is gone.
pub async fn run(
    system: System,
    layout: &Layout,
    scale: &Scale,
    tell: &mut impl FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let keys = Keys {
        count: scale.keys,
        key_bytes: KEY_BYTES,
    };
    let mut layout = layout.clone();
    layout.splits = keys.splits(SHARDS);
    let mut target = Target::start(system, &layout).await?;
    let run = Run::default();
    let mut writers: Vec<JoinHandle<Written>> = Vec::new();
    for shard in 0..SHARDS {
        let key = format!("{}probe", keys.first_of(shard, SHARDS));
        let writer = Writer::new(&target).await?;
        writers.push(tokio::task::spawn_local(writer.write(key, run.clone())));
    }
    let mut kills = Vec::new();
    for _ in 0..scale.kills {
        tokio::time::sleep(STEADY).await;
        let index = leader(&target).await?;
        let killed = run.now();
        kill(&mut target, index);
        recovered(&target, &keys).await?;
        tokio::time::sleep(STEADY).await;
        kills.push((killed, run.now()));
        restart(&mut target, index).await?;
    }
    run.stop();
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await.expect("writers do not panic"));
    }
    verify(&target, &written).await?;
    for (killed, ended) in kills {
        let gaps = written.iter().map(|w| {
            let until = w.acks.partition_point(|at| *at <= ended);
            Gap::longest(&w.acks[..until], killed, ended).length
        });
        let gap = gaps.max().unwrap_or_default();
        tell(Record {
            subject: Subject {
                group: Group::Failover,
                workload: "failover".to_owned(),
                clients: u32::try_from(SHARDS).unwrap_or(u32::MAX),
                value_bytes: 8,
                offered: None,
                participants: None,
            },
            system,
            figures: Figures::default()
                .set("gap_ms", gap.as_secs_f64() * 1e3)
                .done(),
        })?;
    }
    Ok(())
}

/// The node that leads (most).
async fn leader(target: &Target) -> Result<usize, Error> {
    match &target.servers {
        Servers::Etcd(members) => members.leader().await,
        Servers::Synod(nodes) => {
            let endpoints = nodes.cluster.endpoints();
            let busiest = ask::busiest_leader(&nodes.pool, &endpoints, ANSWER).await;
            let index = busiest.and_then(|(_, name, _)| nodes.cluster.index_of(&name));
            index.ok_or_else(|| Error::Wrong("no node of synod answers".to_owned()))
        }
    }
}

fn kill(target: &mut Target, index: usize) {
    match &mut target.servers {
        Servers::Etcd(members) => members.kill(index),
        Servers::Synod(nodes) => nodes.cluster.node_mut(index).kill(),
    }
}

/// Waits until every part of the keys takes writes again.
async fn recovered(target: &Target, keys: &Keys) -> Result<(), Error> {
    let begun = Instant::now();
    for shard in 0..SHARDS {
        let key = format!("{}again", keys.first_of(shard, SHARDS));
        let mut writer = Writer::new(target).await?;
        while !writer.put(&key, 1).await {
            if begun.elapsed() > RECOVERY {
                let reason = format!("no writes {RECOVERY:?} after a leader was killed");
                return Err(Error::Wrong(reason));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Starts it again, and waits until it has caught up.
async fn restart(target: &mut Target, index: usize) -> Result<(), Error> {
    match &mut target.servers {
        Servers::Etcd(members) => {
            members.start_one(index)?;
            members.caught_up(RECOVERY).await
        }
        Servers::Synod(synod::Nodes { cluster, pool, .. }) => {
            cluster.start_node(index)?;
            let endpoints = cluster.endpoints();
            if ask::caught_up(pool, &endpoints, RECOVERY).await {
                return Ok(());
            }
            let reason = format!("a restarted node of synod is behind after {RECOVERY:?}");
            Err(Error::Wrong(reason))
        }
    }
}

/// No acknowledged write may be gone.
async fn verify(target: &Target, written: &[Written]) -> Result<(), Error> {
    for Written { key, last, .. } in written {
        let held = target.db.get(key).await?.unwrap_or_default();
        let held = String::from_utf8_lossy(&held).into_owned();
        // A later one may have been written without anybody being told.
        if held.parse::<u64>().is_ok_and(|held| held >= *last) {
            continue;
        }
        let reason = format!("{key} holds `{held}`, though {last} was acknowledged");
        return Err(Error::Wrong(reason));
    }
    Ok(())
}
