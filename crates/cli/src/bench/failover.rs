//! `synod bench failover`: steady writes to every shard, and the node that
//! leads most killed with kill -9, round after round.

use super::{Args, Target};
use crate::exit::Failure;
use serde_json::json;
use std::time::Duration;
use synod_harness::check::{self, Findings};
use synod_harness::cluster::{Cluster, ask};
use synod_harness::history::Nanos;
use synod_harness::workload::Run;
use synod_harness::workload::probe::{Probe, Written};
use tokio::task::JoinHandle;

/// Steady writes before each kill and after each recovery.
const STEADY: Duration = Duration::from_secs(2);
/// A cluster that takes longer than this to recover has failed.
const RECOVERY: Duration = Duration::from_secs(30);
/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// One kill and what followed.
struct Round {
    node: String,
    led: usize,
    killed: Nanos,
    ended: Nanos,
}

/// Runs all rounds and reports.
pub async fn run(args: &Args, cluster: &mut Cluster, target: &Target) -> Result<(), Failure> {
    let keys = args.keys();
    let shards = u64::from(args.shards);
    let probes: Vec<Probe> = (0..shards)
        .map(|shard| Probe {
            key: format!("{}probe", keys.first_of(shard, shards)),
        })
        .collect();
    let run = Run::default();
    let mut writers: Vec<JoinHandle<Written>> = Vec::new();
    for probe in &probes {
        let (probe, client, run) = (probe.clone(), target.client.clone(), run.clone());
        writers.push(tokio::task::spawn_local(async move {
            probe.write(client, run).await
        }));
    }
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        let round = one_round(cluster, target, &run, &probes).await?;
        if !args.json {
            eprintln!(
                "round {number}: killed {}, which led {} shards",
                round.node, round.led
            );
        }
        rounds.push(round);
    }
    run.stop();
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await.map_err(Failure::failed)?);
    }
    let gaps = rounds.iter().map(|round| longest(&written, round));
    let gaps: Vec<Duration> = gaps.collect();
    let findings = verify(target, &run, &probes, written).await?;
    report(args, &rounds, &gaps, &findings);
    if findings.is_clean() {
        Ok(())
    } else {
        Err(Failure::failed(format!(
            "acknowledged writes are missing: {findings}"
        )))
    }
}

/// The longest time in this round for which some shard acknowledged nothing.
fn longest(written: &[Written], round: &Round) -> Duration {
    let gap = |written: &Written| {
        let until = written.acks.partition_point(|at| *at <= round.ended);
        let acks = &written.acks[..until];
        synod_harness::workload::Gap::longest(acks, round.killed, round.ended).length
    };
    written.iter().map(gap).max().unwrap_or_default()
}

async fn one_round(
    cluster: &mut Cluster,
    target: &Target,
    run: &Run,
    probes: &[Probe],
) -> Result<Round, Failure> {
    tokio::time::sleep(STEADY).await;
    let busiest = ask::busiest_leader(&target.pool, &cluster.endpoints(), ANSWER).await;
    let (_, node, led) = busiest.ok_or_else(|| Failure::cluster("no node answers"))?;
    let index = cluster.index_of(&node).ok_or_else(|| {
        Failure::cluster(format!("a node calls itself {node}; nobody started it"))
    })?;
    cluster.node_mut(index).kill();
    let killed = run.now();
    // Every shard takes writes again.
    let client = target.client.with_timeout(RECOVERY);
    for probe in probes {
        let written = client.put(format!("{}/again", probe.key), "x").await;
        written.map_err(|e| Failure::failed(format!("{} does not recover: {e}", probe.key)))?;
    }
    tokio::time::sleep(STEADY).await;
    let ended = run.now();
    cluster.start_node(index).map_err(Failure::cluster)?;
    if !ask::caught_up(&target.pool, &cluster.endpoints(), RECOVERY).await {
        return Err(Failure::failed(format!(
            "the restarted node has not caught up within {} s",
            RECOVERY.as_secs()
        )));
    }
    Ok(Round {
        node,
        led,
        killed,
        ended,
    })
}

/// Every register must hold what was acknowledged last, or something later.
async fn verify(
    target: &Target,
    run: &Run,
    probes: &[Probe],
    written: Vec<Written>,
) -> Result<Findings, Failure> {
    let mut findings = Findings::default();
    for (probe, written) in probes.iter().zip(written) {
        let mut history = written.history;
        let read = probe.read_into(&target.client, run, &mut history).await;
        read.map_err(crate::sdk::failure)?;
        findings.merge(check::register::check(&history));
    }
    Ok(findings)
}

fn report(args: &Args, rounds: &[Round], gaps: &[Duration], findings: &Findings) {
    let mut sorted = gaps.to_vec();
    sorted.sort();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let millis = |d: &Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    if args.json {
        println!(
            "{}",
            json!({
                "workload": "failover",
                "rounds": rounds.len(),
                "gaps_ms": gaps.iter().map(millis).collect::<Vec<_>>(),
                "median_ms": millis(&median),
                "max_ms": sorted.last().map(millis),
                "violations": findings.total,
                "checked": findings.checked,
            })
        );
        return;
    }
    for (round, gap) in rounds.iter().zip(gaps) {
        println!(
            "failover of {} ({} shards): {} ms",
            round.node,
            round.led,
            millis(gap)
        );
    }
    println!(
        "longest write gap per round: median {} ms, from {} to {} ms; {} operations checked, {} violations",
        millis(&median),
        sorted.first().map_or(0, millis),
        sorted.last().map_or(0, millis),
        findings.checked,
        findings.total
    );
}
