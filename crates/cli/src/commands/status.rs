//! `synod status`: what all nodes say about themselves and their shards, merged.

use super::cluster;
use crate::connection::ConnectionArgs;
use crate::exit::{Failure, Status};
use comfy_table::Table;
use comfy_table::presets;
use serde::Serialize;
use std::net::SocketAddr;
use std::time::Duration;
use synod_operate::Survey;
use synod_paxos::lease::Suspicion;
use synod_paxos::{NodeId, VersionRange};
use synod_rpc::status::{Health, HeardNode, ShardStatus};
use synod_rpc::{Pool, ask};
use synod_shard::Standing;
use synod_shard::wire::show_key;
use tokio::task::JoinSet;

/// `synod status …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod status --endpoint 127.0.0.1:7001 --certs certs

A shard without a leader takes no writes; SPARE is how many more of its voters may fail before that
happens (`synod placement show` tells which places may), LAG how many log entries its slowest
follower lacks. SUSPICION is how unlikely a node's silence is, to the one of the others that hears
it worst: below 1 all is well, 3 happens once in a thousand times, from 8 on it counts as gone.
IN DOUBT counts transactions whose outcome a participant is asking for. Exit status 1 if a shard has
no leader.")]
pub struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// How long a node may take to answer
    #[arg(long, value_name = "MILLIS", default_value_t = 2000)]
    timeout_millis: u64,
}

/// What is shown of a node.
#[derive(Debug, Serialize)]
struct NodeRow {
    id: u64,
    name: String,
    address: SocketAddr,
    locality: String,
    state: String,
    /// What it is meant to be; nothing if that cannot be told now.
    standing: Option<&'static str>,
    version: String,
    /// The cluster versions that its program knows; nothing if it does not say.
    knows: Option<VersionRange>,
    incarnation: u64,
    leads: usize,
    replicas: usize,
    /// By whom it is heard, of those that say so.
    heard: Vec<HeardBy>,
}

/// What one node hears of another.
#[derive(Debug, Serialize)]
struct HeardBy {
    by: String,
    /// Nothing: not since that node started.
    silent_millis: Option<u64>,
    /// How unlikely that silence is, as a power of ten; 8 counts as gone.
    suspicion: Option<f64>,
}

/// What is shown of a shard, from all its replicas.
#[derive(Debug, Serialize)]
struct ShardRow {
    id: u64,
    start: String,
    end: String,
    leader: Option<String>,
    term: String,
    lease_millis: Option<u64>,
    replicas: Vec<String>,
    /// Voters that may fail before it stops; below zero: it has stopped.
    spare: i64,
    decided: u64,
    lag: u64,
    open_intents: u64,
    in_doubt: u64,
    sessions: u64,
    locks: u64,
}

#[derive(Debug, Serialize)]
struct View {
    /// The cluster's version, as far as any node has heard.
    cluster_version: Option<u32>,
    nodes: Vec<NodeRow>,
    /// Names of nodes that do not belong to the cluster any more.
    taken_out: Vec<String>,
    shards: Vec<ShardRow>,
}

/// Asks every node, shows the merged answers; fails when a shard has no leader.
pub async fn run(args: Args) -> Result<Status, Failure> {
    let connection = args.connection.resolve()?;
    let limit = Duration::from_millis(args.timeout_millis);
    let pool = connection.pool()?;
    let survey = Survey::take(&pool, &connection.endpoints, limit).await?;
    let mut view = merge(&survey);
    view.take_versions(&pool, &survey, limit).await;
    view.take_hearing(&pool, &survey, limit).await;
    if args.json {
        let text = serde_json::to_string_pretty(&view).map_err(Failure::failed)?;
        println!("{text}");
    } else {
        print(&view);
    }
    let leaderless = view.shards.iter().filter(|s| s.leader.is_none()).count();
    if leaderless > 0 {
        return Err(Failure::failed(format!(
            "{leaderless} of {} shards have no leader now",
            view.shards.len()
        )));
    }
    Ok(Status::Done)
}

fn merge(survey: &Survey) -> View {
    let Survey { map, answers, .. } = survey;
    let nodes = map.nodes.iter().map(|node| {
        let answer = answers.get(&node.id);
        let (state, status) = match answer {
            Some(Ok(status)) => (health(&status.health), Some(status)),
            Some(Err(reason)) => (format!("no answer: {reason}"), None),
            None => ("not asked".to_owned(), None),
        };
        NodeRow {
            id: node.id.0,
            name: node.name.clone(),
            address: node.address,
            locality: node.locality.clone(),
            state,
            standing: standing(survey, node.id),
            version: status.map(|s| s.version.clone()).unwrap_or_default(),
            knows: None,
            incarnation: status.map_or(0, |s| s.incarnation.0),
            leads: status.map_or(0, |s| s.shards.iter().filter(|s| s.in_office).count()),
            // Of one that does not answer: those that count on it.
            replicas: if survey.answers(node.id) {
                survey.held(node.id)
            } else {
                let shards = map.shards.iter();
                shards
                    .filter(|s| s.configuration.is_member(node.id))
                    .count()
            },
            heard: Vec::new(),
        }
    });
    let shards = map.shards.iter().map(|shard| {
        let replicas = survey.replicas(shard.id);
        let leader = survey.leader(shard.id);
        let of_leader = leader.map(|(_, status)| status);
        let answering = survey.answering(&shard.configuration);
        let behind = |s: &ShardStatus| {
            let followers = s
                .followers
                .iter()
                .map(|f| s.last.0.saturating_sub(f.matched.0));
            followers.max().unwrap_or(0)
        };
        ShardRow {
            id: shard.id.0,
            start: show_key(&shard.span.start),
            end: show_key(&shard.span.end),
            leader: leader.map(|(node, _)| survey.name(node)),
            term: of_leader.map(|s| s.term.clone()).unwrap_or_default(),
            lease_millis: of_leader.and_then(|s| s.lease_millis),
            replicas: shard
                .configuration
                .members()
                .map(|id| survey.name(id))
                .collect(),
            spare: answering as i64 - shard.configuration.majority() as i64,
            decided: replicas.iter().map(|(_, s)| s.decided.0).max().unwrap_or(0),
            lag: of_leader.map_or(0, behind),
            open_intents: of_leader.map_or(0, |s| s.open_intents),
            in_doubt: of_leader.map_or(0, |s| s.in_doubt),
            sessions: of_leader.map_or(0, |s| s.sessions),
            locks: of_leader.map_or(0, |s| s.locks),
        }
    });
    View {
        cluster_version: None,
        nodes: nodes.collect(),
        taken_out: taken_out(survey),
        shards: shards.collect(),
    }
}

impl View {
    /// What the nodes that answered say of cluster versions.
    async fn take_versions(&mut self, pool: &Pool, survey: &Survey, limit: Duration) {
        let rows = self.nodes.iter_mut();
        let rows = rows.filter(|row| survey.answers(NodeId(row.id)));
        let mut rows: Vec<&mut NodeRow> = rows.collect();
        let addresses: Vec<SocketAddr> = rows.iter().map(|row| row.address).collect();
        let answers = cluster::ask_all(pool, addresses.into_iter(), limit).await;
        for (row, answer) in rows.iter_mut().zip(answers) {
            let Ok(answer) = answer else { continue };
            row.knows = Some(answer.supports);
            let heard = answer.cluster.map(|version| version.0);
            self.cluster_version = self.cluster_version.max(heard);
        }
    }

    /// What the nodes that answered hear of each other.
    async fn take_hearing(&mut self, pool: &Pool, survey: &Survey, limit: Duration) {
        let mut asked = JoinSet::new();
        let answering = self.nodes.iter();
        for row in answering.filter(|row| survey.answers(NodeId(row.id))) {
            let (pool, address) = (pool.clone(), row.address);
            asked.spawn(async move { ask::hears(&pool, address, limit).await });
        }
        let mut answers: Vec<_> = asked.join_all().await.into_iter().flatten().collect();
        answers.sort_by_key(|answer| answer.node);
        for answer in answers {
            let by = survey.name(answer.node);
            for HeardNode { node, heard } in answer.others {
                let row = self.nodes.iter_mut().find(|row| row.id == node.0);
                if let Some(row) = row {
                    row.heard.push(HeardBy {
                        by: by.clone(),
                        silent_millis: heard.map(|heard| heard.silent_millis),
                        suspicion: heard.map(|heard| f64::from(heard.suspicion.0) / 1e3),
                    });
                }
            }
        }
    }

    /// The cluster's version, for people, and whether all nodes know a newer one.
    fn versions(&self) -> Option<String> {
        let version = self.cluster_version?;
        let newest = |row: &NodeRow| row.knows.map_or(0, |knows| knows.newest.0);
        let newest = self.nodes.iter().map(newest).min().unwrap_or(0);
        Some(if newest > version {
            format!(
                "cluster version {version}; all nodes know {newest}: `synod cluster upgrade` begins it"
            )
        } else {
            format!("cluster version {version}")
        })
    }
}

fn taken_out(survey: &Survey) -> Vec<String> {
    let records = survey.placement.as_ref().map(|p| &p.records.nodes);
    let rows = records.into_iter().flatten();
    let out = rows.filter(|row| row.standing == Standing::Retired);
    out.map(|row| row.node.name.clone()).collect()
}

fn standing(survey: &Survey, id: NodeId) -> Option<&'static str> {
    let rows = &survey.placement.as_ref()?.records.nodes;
    let row = rows.iter().find(|row| row.node.id == id)?;
    Some(match row.standing {
        Standing::Active => "active",
        Standing::Draining => "draining",
        Standing::Retired => "retired",
    })
}

fn health(health: &Health) -> String {
    match health {
        Health::Ok => "ok".to_owned(),
        Health::Degraded(reason) => format!("degraded: {reason}"),
        Health::Uninitialized => "not initialized".to_owned(),
    }
}

fn print(view: &View) {
    let mut nodes = table(&[
        "NODE",
        "ID",
        "ADDRESS",
        "LOCALITY",
        "STATE",
        "LEADS",
        "REPLICAS",
        "SUSPICION",
    ]);
    for node in &view.nodes {
        nodes.add_row([
            node.name.clone(),
            format!("{:x}", node.id),
            node.address.to_string(),
            node.locality.clone(),
            // The reason stands below the table: it is long.
            match node.standing {
                Some("active") | None => short(&node.state).to_owned(),
                Some(standing) => format!("{}, {standing}", short(&node.state)),
            },
            node.leads.to_string(),
            node.replicas.to_string(),
            suspicion(node),
        ]);
    }
    println!("{nodes}");
    for node in view.nodes.iter().filter(|n| n.state.contains(": ")) {
        println!(" {}: {}", node.name, node.state);
    }
    if let Some(versions) = view.versions() {
        println!(" {versions}");
    }
    if !view.taken_out.is_empty() {
        println!(" taken out of the cluster: {}", view.taken_out.join(", "));
    }
    println!();
    let mut shards = table(&[
        "SHARD", "FROM", "TO", "LEADER", "LEASE", "REPLICAS", "SPARE", "DECIDED", "LAG", "INTENTS",
        "IN DOUBT",
    ]);
    for shard in &view.shards {
        shards.add_row([
            shard.id.to_string(),
            first_key(&shard.start),
            end_key(&shard.end),
            shard.leader.clone().unwrap_or_else(|| "none".to_owned()),
            shard
                .lease_millis
                .map_or_else(|| "none".to_owned(), |ms| format!("{ms} ms")),
            shard.replicas.join(" "),
            shard.spare.to_string(),
            shard.decided.to_string(),
            shard.lag.to_string(),
            shard.open_intents.to_string(),
            shard.in_doubt.to_string(),
        ]);
    }
    println!("{shards}");
}

/// The highest suspicion of those that hear a node, or that nobody does.
fn suspicion(node: &NodeRow) -> String {
    let known = node.heard.iter().filter_map(|heard| heard.suspicion);
    match known.reduce(f64::max) {
        Some(most) if most >= f64::from(Suspicion::GONE.0) / 1e3 => "gone".to_owned(),
        Some(most) => format!("{most:.1}"),
        None if node.heard.is_empty() => "unknown".to_owned(),
        None => "never heard".to_owned(),
    }
}

/// A state without its reason.
fn short(state: &str) -> &str {
    state.split(": ").next().unwrap_or_default()
}

/// A shard's first key, for people.
pub(super) fn first_key(start: &str) -> String {
    match start {
        "" => "(start)".to_owned(),
        start => start.to_owned(),
    }
}

/// The key that a shard's range ends before, for people.
pub(super) fn end_key(end: &str) -> String {
    match end {
        "" => "(end)".to_owned(),
        end => end.to_owned(),
    }
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().copied());
    table
}
