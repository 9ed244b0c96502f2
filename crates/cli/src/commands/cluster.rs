//! `synod cluster`: the cluster's version is raised (decision 17).

use super::records::{ANSWER, acting_by, find};
use crate::connection::{Connection, ConnectionArgs};
use crate::exit::{Failure, Status};
use crate::output::count;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use synod_operate::{FAILOVER, Survey};
use synod_paxos::{ClusterVersion, GroupId, NodeId};
use synod_rpc::ask::{self, AskError};
use synod_rpc::placement::RecordChange;
use synod_rpc::versions::VersionsStatus;
use synod_rpc::{NodeRequest, NodeResponse, Pool};
use synod_shard::{NodeRow, Standing};
use tokio::task::JoinSet;

/// Between two looks.
const POLL: Duration = Duration::from_millis(100);
/// A raise that does not show after so long is asked for again.
const AGAIN: Duration = Duration::from_secs(3);

/// `synod cluster …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod cluster upgrade --dry-run --endpoint 127.0.0.1:7101 --certs certs
  synod cluster upgrade --endpoint 127.0.0.1:7101 --certs certs

A cluster goes on in its version while its nodes are given a newer program one after the other;
what the newer program brings begins with this command. It is refused while any node of the
cluster, running or not, does not know the version, and names those nodes. A version is never
lowered: afterwards no node can go back to the older program. It returns once every shard has the
version; running it again is harmless.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Begin to use what a newer program brings, once all nodes run it
    #[command(after_help = "Example:
  synod cluster upgrade --dry-run --endpoint 127.0.0.1:7101 --certs certs
  synod cluster upgrade --endpoint 127.0.0.1:7101 --certs certs")]
    Upgrade(UpgradeArgs),
}

/// `synod cluster upgrade …`
#[derive(Debug, clap::Args)]
pub struct UpgradeArgs {
    /// The version; without it, the newest that any node knows
    #[arg(long, value_name = "V")]
    to: Option<u32>,
    /// Only say what stands in the way, or what would be done
    #[arg(long)]
    dry_run: bool,
    /// How long it may take until every shard has it
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs one of them.
pub async fn run(args: Args) -> Result<Status, Failure> {
    match args.command {
        Command::Upgrade(args) => upgrade(args).await,
    }
}

/// The cluster's version, if who leads the meta shard knows of versions at all.
pub(super) async fn version(
    pool: &Pool,
    connection: &Connection,
    until: Instant,
) -> Result<Option<ClusterVersion>, Failure> {
    let acting = acting_by(pool, connection, until).await?;
    let status = ask::versions(pool, acting.address, ANSWER).await.ok();
    Ok(status.and_then(|status| status.cluster))
}

/// Refuses what the cluster's version does not allow yet; `refusal` is made of that version.
pub(super) async fn check_version<E: std::fmt::Display>(
    pool: &Pool,
    connection: &Connection,
    until: Instant,
    since: ClusterVersion,
    refusal: impl FnOnce(ClusterVersion) -> E,
) -> Result<(), Failure> {
    match version(pool, connection, until).await? {
        Some(at) if at < since => Err(Failure::input(refusal(at))),
        _ => Ok(()),
    }
}

/// What each of these nodes says of versions, in their order.
pub(super) async fn ask_all(
    pool: &Pool,
    nodes: impl Iterator<Item = SocketAddr>,
    limit: Duration,
) -> Vec<Result<VersionsStatus, String>> {
    let mut asked = JoinSet::new();
    for (at, node) in nodes.enumerate() {
        let pool = pool.clone();
        asked.spawn(async move { (at, ask::versions(&pool, node, limit).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// A node of the cluster, and what it says of versions, or why that is not known.
struct Member {
    name: String,
    answer: Result<VersionsStatus, String>,
}

/// All nodes that belong to the cluster, whether they run or not.
async fn members(pool: &Pool, rows: &[NodeRow]) -> Vec<Member> {
    let rows = rows.iter().filter(|row| row.standing != Standing::Retired);
    let rows: Vec<&NodeRow> = rows.collect();
    let addresses = rows.iter().map(|row| row.node.address);
    let answers = ask_all(pool, addresses, ANSWER).await;
    let mut members = Vec::new();
    for (row, answer) in rows.into_iter().zip(answers) {
        let answer = match answer {
            Ok(status) if status.node == row.node.id => Ok(status),
            Ok(_) => Err(format!("another node answers at {}", row.node.address)),
            Err(reason) => Err(silence(pool, row, reason).await),
        };
        let name = row.node.name.clone();
        members.push(Member { name, answer });
    }
    members
}

/// Why a node does not say which versions it knows: perhaps its program is too old to.
async fn silence(pool: &Pool, row: &NodeRow, reason: String) -> String {
    match ask::ask(pool, row.node.address, NodeRequest::Info, ANSWER).await {
        Ok(NodeResponse::Info { version, .. }) => format!(
            "it runs (its program is {version}), but does not say which cluster versions it knows: \
             {reason}"
        ),
        _ => reason,
    }
}

/// From what version to what version the cluster may go. The same twice if there is
/// nothing to raise.
fn target(
    members: &[Member],
    wanted: Option<u32>,
) -> Result<(ClusterVersion, ClusterVersion), Failure> {
    let known = || members.iter().filter_map(|m| m.answer.as_ref().ok());
    let current = known().filter_map(|status| status.cluster).max();
    let current = current.unwrap_or(ClusterVersion::OLDEST);
    let newest = known().map(|status| status.supports.newest).max();
    let wanted = match wanted {
        Some(wanted) => ClusterVersion(wanted),
        None => newest.unwrap_or(current).max(current),
    };
    if wanted < current {
        return Err(Failure::input(format!(
            "the cluster is at version {}, and a cluster's version is never lowered",
            current.0
        )));
    }
    let lacks = |member: &Member| match &member.answer {
        Ok(status) if status.supports.includes(wanted) => None,
        Ok(status) => Some(format!("{} knows {}", member.name, status.supports)),
        Err(reason) => Some(format!("{}: {reason}", member.name)),
    };
    let lacking: Vec<String> = members.iter().filter_map(lacks).collect();
    if lacking.is_empty() {
        return Ok((current, wanted));
    }
    Err(Failure::failed(format!(
        "not every node is known to know cluster version {}:\n  {}\nNothing was changed. Give those \
         nodes the newer program and start them, or take out of the cluster those that are gone \
         (`synod node decommission`), and run the command again",
        wanted.0,
        lacking.join("\n  ")
    )))
}

async fn upgrade(args: UpgradeArgs) -> Result<Status, Failure> {
    let begun = Instant::now();
    let deadline = begun + args.timeout;
    let connection = args.connection.resolve()?;
    let pool = connection.pool()?;
    let known = acting_by(&pool, &connection, deadline.min(begun + FAILOVER)).await?;
    let rows = known.status.records.nodes;
    let members = members(&pool, &rows).await;
    let (current, wanted) = target(&members, args.to)?;
    if args.dry_run {
        if current == wanted {
            println!("the cluster is at version {} already", current.0);
        } else {
            println!(
                "the cluster is at version {}, and all {} know {}: it can be raised",
                current.0,
                count(members.len(), "node"),
                wanted.0
            );
        }
        return Ok(Status::Done);
    }
    raise(&pool, &connection, wanted, deadline).await?;
    let shards = wait(&pool, &connection, wanted, deadline).await?;
    println!(
        "the cluster is at version {}, in all {} (the meta shard included)",
        wanted.0,
        count(shards, "shard")
    );
    Ok(Status::Done)
}

/// Has the version written down, and waits until it is.
async fn raise(
    pool: &Pool,
    connection: &Connection,
    wanted: ClusterVersion,
    deadline: Instant,
) -> Result<(), Failure> {
    let mut asked: Option<Instant> = None;
    loop {
        if let Ok(acting) = find(pool, connection).await {
            let known = ask::versions(pool, acting.address, ANSWER).await;
            if known.is_ok_and(|status| status.cluster >= Some(wanted)) {
                return Ok(());
            }
            if asked.is_none_or(|at| at.elapsed() > AGAIN) {
                let change = RecordChange::Version(wanted);
                let request = NodeRequest::ChangeRecords(Box::new(change));
                match ask::try_ask(pool, acting.address, request, ANSWER).await {
                    Err(AskError::Refused(reason)) if !reason.contains("Ask again") => {
                        return Err(Failure::failed(reason));
                    }
                    // It may have been taken on all the same; the next look tells.
                    Ok(_) | Err(_) => asked = Some(Instant::now()),
                }
            }
        }
        if Instant::now() >= deadline {
            return Err(Failure::failed(format!(
                "version {} does not show in the cluster's records yet; it may still be written. Run \
                 the command again: that is harmless",
                wanted.0
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until every shard's leader has the version; returns how many there are.
async fn wait(
    pool: &Pool,
    connection: &Connection,
    wanted: ClusterVersion,
    deadline: Instant,
) -> Result<usize, Failure> {
    loop {
        let survey = Survey::take(pool, &connection.endpoints, ANSWER).await?;
        let addresses = survey.map.nodes.iter().map(|node| node.address);
        let answers = ask_all(pool, addresses, ANSWER).await;
        let replicas = answers.iter().flatten().flat_map(|status| &status.shards);
        let raised = replicas.filter(|s| s.in_office && s.version >= wanted);
        let raised: BTreeSet<GroupId> = raised.map(|s| s.shard).collect();
        let shards = &survey.map.shards;
        let left: Vec<String> = shards
            .iter()
            .filter(|shard| !raised.contains(&shard.id))
            .map(|shard| shard.id.0.to_string())
            .collect();
        if left.is_empty() {
            return Ok(shards.len());
        }
        if Instant::now() >= deadline {
            return Err(Failure::failed(format!(
                "the cluster's version is {} now, but these shards have not come to it: {}. Each does \
                 so by itself once it has a leader; see `synod status`, and run the command again",
                wanted.0,
                left.join(", ")
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Why a node cannot join a cluster at this version, if it cannot.
pub(super) async fn check_newcomer(
    pool: &Pool,
    (name, id, address): (&str, NodeId, SocketAddr),
    cluster: ClusterVersion,
) -> Result<(), Failure> {
    let knows = match ask::versions(pool, address, ANSWER).await {
        Ok(status) if status.supports.includes(cluster) || status.node != id => return Ok(()),
        Ok(status) => format!("knows {}", status.supports),
        Err(_) if cluster == ClusterVersion::OLDEST => return Ok(()),
        Err(reason) => format!("does not say which ones it knows ({reason})"),
    };
    Err(Failure::input(format!(
        "the cluster is at version {}, and node {name} {knows}: start it with a program that knows \
         that version. Nothing was changed",
        cluster.0
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_paxos::VersionRange;

    fn member(name: &str, knows: Option<(u32, u32)>, cluster: u32) -> Member {
        let status = |(oldest, newest)| VersionsStatus {
            node: NodeId(1),
            supports: VersionRange {
                oldest: ClusterVersion(oldest),
                newest: ClusterVersion(newest),
            },
            cluster: Some(ClusterVersion(cluster)),
            shards: Vec::new(),
        };
        Member {
            name: name.to_owned(),
            answer: knows.map(status).ok_or_else(|| "no answer".to_owned()),
        }
    }

    fn found(members: &[Member], wanted: Option<u32>) -> Result<(u32, u32), String> {
        let found = target(members, wanted).map_err(|failure| failure.to_string())?;
        Ok((found.0.0, found.1.0))
    }

    #[test]
    fn a_version_that_all_know_may_begin() {
        let all = [member("a", Some((1, 3)), 1), member("b", Some((2, 4)), 2)];
        assert_eq!(found(&all, Some(3)), Ok((2, 3)));
        assert_eq!(found(&all, Some(2)), Ok((2, 2)));
        let lower = found(&all, Some(1)).expect_err("it is lower");
        assert!(lower.contains("never lowered"), "{lower}");
    }

    #[test]
    fn who_does_not_know_it_is_named() {
        let old = [
            member("a", Some((1, 3)), 2),
            member("b", Some((1, 2)), 2),
            member("c", None, 2),
        ];
        for wanted in [None, Some(3), Some(9)] {
            let refused = found(&old, wanted).expect_err("b and c are in the way");
            assert!(refused.contains("b knows 1 to 2"), "{refused}");
            assert!(refused.contains("c: no answer"), "{refused}");
        }
        // Also where there is nothing to raise: one that was overtaken has to go.
        let overtaken = [member("a", Some((1, 1)), 2), member("b", Some((1, 2)), 2)];
        let refused = found(&overtaken, None).expect_err("a does not know 2");
        assert!(refused.contains("a knows 1\n"), "{refused}");
    }
}
