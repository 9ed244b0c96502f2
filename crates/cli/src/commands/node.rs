//! `synod node`: nodes join, are emptied, are taken out and in again.

use super::cluster;
use super::rearrange::{ApplyArgs, go, sweep, unless_interrupted};
use super::records::{ANSWER, acting, change};
use crate::connection::{Connection, ConnectionArgs};
use crate::exit::{Failure, Status};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};
use synod_operate::{FAILOVER, Seen, Survey, plan};
use synod_paxos::{ClusterVersion, NodeId};
use synod_rpc::placement::{JoinRequest, RecordChange};
use synod_rpc::{NodeRequest, NodeResponse, Pool, ask};
use synod_shard::{Bootstrap, NodeDescriptor, NodeRow, Records, Roster, Standing};

/// Between two looks at what goes on.
const POLL: Duration = Duration::from_millis(300);
/// How long a new node may take to start.
const STARTING: Duration = Duration::from_secs(10);
/// For so long there must be nothing that can be done for a node that is still needed.
const BLOCKED: Duration = Duration::from_secs(5);

/// `synod node …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod node join 127.0.0.1:7104 --endpoint 127.0.0.1:7101 --certs certs
  synod node drain n3 --endpoint 127.0.0.1:7101 --certs certs
  synod node decommission n3 --endpoint 127.0.0.1:7101 --certs certs
  synod node rejoin n3 --endpoint 127.0.0.1:7101 --certs certs

A new node is started like any other (`synod start`, with a certificate of this cluster's CA), and
then joins; the cluster moves replicas to it by itself. Each command may be interrupted and run
again: it goes on from what is there.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Take a node that runs and belongs to no cluster yet into this one
    #[command(after_help = "Example:
  synod node join 127.0.0.1:7104 --endpoint 127.0.0.1:7101 --certs certs")]
    Join(JoinArgs),
    /// Move everything off a node and keep it empty
    #[command(after_help = "Example:
  synod node drain n3 --dry-run --endpoint 127.0.0.1:7101 --certs certs
  synod node drain n3 --endpoint 127.0.0.1:7101 --certs certs")]
    Drain(EmptyArgs),
    /// The same, and take it out of the cluster for good
    #[command(after_help = "Example:
  synod node decommission n3 --dry-run --endpoint 127.0.0.1:7101 --certs certs
  synod node decommission n3 --endpoint 127.0.0.1:7101 --certs certs")]
    Decommission(EmptyArgs),
    /// Use a node again that was drained or decommissioned
    #[command(after_help = "Example:
  synod node rejoin n3 --endpoint 127.0.0.1:7101 --certs certs")]
    Rejoin(RejoinArgs),
}

/// `synod node join …`
#[derive(Debug, clap::Args)]
pub struct JoinArgs {
    /// Where the new node is reached, host:port
    #[arg(value_name = "HOST:PORT")]
    address: String,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// `synod node drain|decommission …`
#[derive(Debug, clap::Args)]
pub struct EmptyArgs {
    /// The node's name, as `synod status` shows it
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    plan: ApplyArgs,
}

/// `synod node rejoin …`
#[derive(Debug, clap::Args)]
pub struct RejoinArgs {
    /// The node's name
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs one of them.
pub async fn run(args: Args) -> Result<Status, Failure> {
    match args.command {
        Command::Join(args) => join(args).await,
        Command::Drain(args) => unless_interrupted(empty(args, false)).await,
        Command::Decommission(args) => unless_interrupted(empty(args, true)).await,
        Command::Rejoin(args) => rejoin(args).await,
    }
}

async fn join(args: JoinArgs) -> Result<Status, Failure> {
    let connection = args.connection.resolve()?;
    let pool = connection.pool()?;
    let address = args.address.to_socket_addrs().ok();
    let address = address.and_then(|mut all| all.next()).ok_or_else(|| {
        Failure::input(format!(
            "`{}` is no address: write HOST:PORT, for instance 127.0.0.1:7104",
            args.address
        ))
    })?;
    let (node, initialized) = meet(&pool, address).await?;
    let known = acting(&pool, &connection).await?.status.records;
    let belongs = known.nodes.iter().any(|row| row.node.id == node.id);
    if initialized && !belongs {
        return Err(Failure::input(format!(
            "the node at {address} ({}) belongs to a cluster already, and this one does not know \
             it: give it an empty directory",
            node.name
        )));
    }
    let id = node.id;
    let same = |row: &&NodeRow| row.node == node && row.standing != Standing::Retired;
    if initialized && known.nodes.iter().any(|row| same(&row)) {
        println!("{} belongs to the cluster already", node.name);
        return Ok(Status::Done);
    }
    let version = cluster::version(&pool, &connection, Instant::now() + FAILOVER).await?;
    let version = version.unwrap_or(ClusterVersion::OLDEST);
    cluster::check_newcomer(&pool, (&node.name, id, address), version).await?;
    let knows = |records: &Records| {
        let rows = records.nodes.iter();
        { rows }.any(|row| row.node == node && row.standing != Standing::Retired)
    };
    let acting = change(&pool, &connection, RecordChange::Node(node.clone()), knows).await?;
    let request = request(&pool, &connection, version, acting.status.records.nodes).await?;
    let request = NodeRequest::Join(Box::new(request));
    match ask::ask(&pool, address, request, ANSWER * 5).await {
        Ok(_) => {}
        Err(reason) => {
            return Err(Failure::failed(format!(
                "the cluster knows {} now, but the node did not take it in: {reason}. Run the \
                 command again: that is harmless",
                node.name
            )));
        }
    }
    serves(&pool, &connection, id, &node.name).await?;
    println!(
        "{} has joined. It is filled up by and by: see `synod placement show`",
        node.name
    );
    if acting.status.records.manual {
        println!("(only people move replicas in this cluster: `synod placement apply`)");
    }
    Ok(Status::Done)
}

/// Who is there, and whether it belongs to a cluster. It may have been started just now.
async fn meet(pool: &Pool, address: SocketAddr) -> Result<(NodeDescriptor, bool), Failure> {
    let begun = Instant::now();
    let answer = loop {
        match ask::ask(pool, address, NodeRequest::Info, ANSWER).await {
            // Anything else than silence is an answer.
            Err(reason) if is_silence(&reason) && begun.elapsed() < STARTING => {
                tokio::time::sleep(POLL).await;
            }
            answer => break answer,
        }
    };
    match answer {
        Ok(NodeResponse::Info {
            id,
            name,
            address,
            locality,
            initialized,
            ..
        }) => Ok((
            NodeDescriptor {
                id,
                name,
                address,
                locality,
            },
            initialized,
        )),
        Ok(other) => Err(Failure::cluster(format!(
            "the node at {address} answered {other:?} to Info"
        ))),
        Err(reason) if is_silence(&reason) => Err(Failure::cluster(format!(
            "the new node does not answer: {reason}"
        ))),
        Err(reason) => Err(Failure::cluster(format!(
            "the node at {address} cannot join: {reason}"
        ))),
    }
}

/// Whether nobody answered at all.
fn is_silence(reason: &str) -> bool {
    reason.contains("did not answer") || reason.contains("no answer")
}

/// The cluster as it is now, for a node that comes.
async fn request(
    pool: &Pool,
    connection: &Connection,
    version: ClusterVersion,
    rows: Vec<NodeRow>,
) -> Result<JoinRequest, Failure> {
    let mut map = synod_operate::map(pool, &connection.endpoints, ANSWER).await?;
    map.nodes = Roster::new(rows.iter().cloned()).nodes().cloned().collect();
    Ok(JoinRequest {
        bootstrap: Bootstrap {
            cluster: connection.identity.cluster(),
            version,
            map,
        },
        nodes: rows,
    })
}

/// Waits until the endpoint's map names the node, so that the next command finds it.
async fn serves(
    pool: &Pool,
    connection: &Connection,
    id: NodeId,
    name: &str,
) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let map = synod_operate::map(pool, &connection.endpoints, ANSWER).await?;
        if map.node(id).is_some() {
            return Ok(());
        }
        if begun.elapsed() > ANSWER * 10 {
            return Err(Failure::failed(format!(
                "{name} has joined, but not every node has heard of it; see `synod status`"
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn stand(
    pool: &Pool,
    connection: &Connection,
    node: NodeId,
    standing: Standing,
) -> Result<(), Failure> {
    let shows = |records: &Records| {
        let row = records.nodes.iter().find(|row| row.node.id == node);
        row.is_some_and(|row| row.standing == standing)
    };
    let wanted = RecordChange::Standing { node, standing };
    change(pool, connection, wanted, shows).await.map(|_| ())
}

/// The row of a node by its name: one that belongs to the cluster before one that does not.
fn row_of<'a>(records: &'a Records, name: &str) -> Result<&'a NodeRow, Failure> {
    let mut rows: Vec<&NodeRow> = records.nodes.iter().collect();
    rows.sort_by_key(|row| {
        let youngest = std::cmp::Reverse(row.version);
        (row.standing == Standing::Retired, youngest)
    });
    let found = rows.iter().find(|row| row.node.name == name);
    found.copied().ok_or_else(|| {
        let mut names: Vec<&str> = rows.iter().map(|row| row.node.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        Failure::input(format!(
            "there is no node `{name}`; there are {}",
            names.join(", ")
        ))
    })
}

async fn rejoin(args: RejoinArgs) -> Result<Status, Failure> {
    let connection = args.connection.resolve()?;
    let pool = connection.pool()?;
    let records = acting(&pool, &connection).await?.status.records;
    let row = row_of(&records, &args.node)?;
    if row.standing == Standing::Active {
        println!("{} was neither drained nor taken out", args.node);
        return Ok(Status::Done);
    }
    stand(&pool, &connection, row.node.id, Standing::Active).await?;
    println!("{} takes replicas again", args.node);
    Ok(Status::Done)
}

/// Moves everything off a node, and takes it out if that is wanted.
async fn empty(args: EmptyArgs, for_good: bool) -> Result<Status, Failure> {
    let EmptyArgs { node: name, plan } = args;
    let connection = plan.common.connection.resolve()?;
    let pool = connection.pool()?;
    let records = acting(&pool, &connection).await?.status.records;
    let row = row_of(&records, &name)?;
    let id = row.node.id;
    if row.standing == Standing::Retired {
        println!("{name} does not belong to the cluster any more");
        return Ok(Status::Done);
    }
    if plan.dry_run {
        let mut plan = plan;
        plan.common.retire.push(name);
        go(&plan, Some(id)).await?;
        return Ok(Status::Done);
    }
    stand(&pool, &connection, id, Standing::Draining).await?;
    if records.manual {
        let seen = go(&plan, Some(id)).await?;
        let stays = counting_on(&seen, id);
        if !stays.is_empty() {
            return Err(still_needed(&name, &stays, &[]));
        }
        sweep(&seen, &plan.changer(&seen.survey)?).await?;
    } else {
        let emptied = emptied(&pool, &connection, &plan, id, &name).await;
        emptied.map_err(|mut failure| {
            if for_good {
                failure.message +=
                    ". Once it is empty, run this command again: only then is it taken out";
            }
            failure
        })?;
    }
    let survey = Survey::take(&pool, &connection.endpoints, ANSWER).await?;
    if for_good {
        stand(&pool, &connection, id, Standing::Retired).await?;
    }
    let stays = if for_good {
        "and does not belong to the cluster any more"
    } else {
        "and gets nothing until `synod node rejoin`"
    };
    if survey.answers(id) {
        println!("{name} holds nothing any more, {stays}: it may be stopped for good");
    } else if for_good {
        println!(
            "{name} does not answer, no shard counts on it any more, {stays}: it may stay away for \
             good. Its copies stay until its directory is wiped"
        );
    } else {
        println!(
            "{name} does not answer, no shard counts on it any more, {stays}: it may stay away for \
             good. If it is started again it finds that out, and deletes its copies"
        );
    }
    Ok(Status::Done)
}

/// Shards that a node is a member of.
fn counting_on(seen: &Seen, node: NodeId) -> Vec<u64> {
    let shards = seen.view.shards.iter();
    let of = shards.filter(|s| s.replicas.contains_key(&node));
    of.map(|s| s.id.0).collect()
}

fn still_needed(name: &str, shards: &[u64], problems: &[String]) -> Failure {
    let shards: Vec<String> = shards.iter().map(ToString::to_string).collect();
    let problems: String = problems.iter().map(|p| format!("\n  {p}")).collect();
    Failure::failed(format!(
        "{name} is still needed for the shards {}: there is no other node that may hold \
         them{problems}\nLet nodes join (`synod node join`), or ask for fewer voters (`synod \
         placement policy 'voters = …'`). What was moved stays moved, the rest follows as soon as \
         it can; `synod node rejoin {name}` takes the order back",
        shards.join(", ")
    ))
}

/// Waits until the cluster has moved everything off a node, telling how far it is.
async fn emptied(
    pool: &Pool,
    connection: &Connection,
    plan_args: &ApplyArgs,
    node: NodeId,
    name: &str,
) -> Result<(), Failure> {
    let patience = plan_args.patience();
    let mut told: Vec<String> = Vec::new();
    let mut last = (usize::MAX, Instant::now());
    let mut blocked: Option<Instant> = None;
    loop {
        let survey = Survey::take(pool, &connection.endpoints, ANSWER).await?;
        let (answers, held) = (survey.answers(node), survey.held(node));
        let doing = survey.placement.as_ref().map(|s| s.doing.clone());
        let problems = survey.placement.as_ref().map(|s| s.problems.clone());
        let unsettled = !survey.unsettled().is_empty();
        let intent = survey.intent()?;
        let seen = Seen::of(survey, intent)?;
        let stays = counting_on(&seen, node);
        if stays.is_empty() && (!answers || held == 0) && !unsettled {
            return Ok(());
        }
        for line in doing.unwrap_or_default() {
            if !told.contains(&line) {
                println!("{line}");
                told.push(line);
            }
        }
        if stays.len() + held != last.0 {
            match stays.len() {
                1 => println!("{name}: 1 shard counts on it"),
                more => println!("{name}: {more} shards count on it"),
            }
            last = (stays.len() + held, Instant::now());
        }
        let (steps, _) = plan(&seen, Some(node))?;
        let problems = problems.unwrap_or_default();
        // Without the keeper's word it may be a matter of a moment.
        let is_blocked = steps.is_empty() && !stays.is_empty() && !problems.is_empty();
        if !is_blocked {
            blocked = None;
        } else if blocked.get_or_insert_with(Instant::now).elapsed() > BLOCKED {
            return Err(still_needed(name, &stays, &problems));
        }
        if last.1.elapsed() > patience {
            return Err(Failure::failed(format!(
                "{name}: nothing has moved for {} s, {} shards count on it{}. The order stands; run \
                 the command again to go on waiting, or look at `synod placement show`",
                patience.as_secs(),
                stays.len(),
                problems
                    .iter()
                    .map(|p| format!("; {p}"))
                    .collect::<String>()
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}
