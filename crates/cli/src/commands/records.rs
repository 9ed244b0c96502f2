//! Changes of the cluster's records: `synod placement policy|auto`, and what
//! `synod node` and `synod init` have in common with them.

use super::hash;
use super::placement::parse;
use crate::bytes;
use crate::connection::{Connection, ConnectionArgs};
use crate::exit::{Failure, Status};
use std::time::{Duration, Instant};
use synod_operate::{Acting, FAILOVER, Seen, Survey};
use synod_placement::{Policy, Problem, check};
use synod_rpc::Pool;
use synod_rpc::placement::RecordChange;
use synod_shard::Records;
use synod_shard::wire::show_key;

/// How long a node may take to answer.
pub(super) const ANSWER: Duration = Duration::from_secs(2);
/// After so long without a word it is said what is waited for.
const SILENCE: Duration = Duration::from_secs(2);

/// `synod placement policy …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod placement policy --endpoint 127.0.0.1:7001 --certs certs
  synod placement policy 'voters = 5, survive = dc' --endpoint 127.0.0.1:7001 --certs certs
  synod placement policy 'leaders = [dc=eu-2]' --of accounts/ --endpoint 127.0.0.1:7001 --certs certs
  synod placement policy 'sharding = hash(64)' --of events/ --endpoint 127.0.0.1:7001 --certs certs
  synod placement policy --remove --of accounts/ --endpoint 127.0.0.1:7001 --certs certs

Without TEXT the policies are shown. One that cannot be kept by the nodes that are there (claims to
survive what it would not, wants more voters than there are nodes, names an unknown tier) is refused,
unless --anyway says that they will come.

`sharding = hash(64)` spreads the keys that begin with PREFIX over 64 slots by a hash, for keys that
grow at one end; there is nothing to change in programs that use them. It is set, and taken away by
`sharding = plain`, only while there is no such key, and taken away only while they are one shard. A
policy that says nothing of it, or is removed, leaves it as it is.")]
pub struct PolicyArgs {
    /// The policy, such as 'voters = 5, survive = dc'
    #[arg(value_name = "TEXT", conflicts_with = "remove")]
    text: Option<String>,
    /// Of the keys that begin with PREFIX: text or x'hex'; without it, of the whole cluster
    #[arg(long, value_name = "PREFIX", value_parser = bytes::parse)]
    of: Option<bytes::Given>,
    /// Take the policy away: what is around it holds
    #[arg(long)]
    remove: bool,
    /// Store it although the nodes that are there cannot keep it
    #[arg(long)]
    anyway: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// `synod placement auto …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod placement auto off --endpoint 127.0.0.1:7001 --certs certs

While it is off, nothing is replaced when nodes are lost, and `synod placement apply|members` are all
that moves replicas.")]
pub struct AutoArgs {
    /// on: the cluster moves replicas by itself; off: only people do
    #[arg(value_name = "on|off", value_parser = ["on", "off"])]
    which: String,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Says on standard error what is waited for, once that takes long.
pub(super) async fn telling<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = tokio::time::sleep(SILENCE) => eprintln!("synod: waiting for {what}"),
    }
    work.await
}

/// Finds the node whose keeper acts, with patience for a failover.
pub(super) async fn acting(pool: &Pool, connection: &Connection) -> Result<Acting, Failure> {
    acting_by(pool, connection, Instant::now() + FAILOVER).await
}

/// The same, with patience until then.
pub(super) async fn acting_by(
    pool: &Pool,
    connection: &Connection,
    until: Instant,
) -> Result<Acting, Failure> {
    let acting = synod_operate::acting(pool, &connection.endpoints, until);
    Ok(telling("a node that leads the meta shard", acting).await?)
}

/// Looks for it once; among all nodes that the endpoints know.
pub(super) async fn find(pool: &Pool, connection: &Connection) -> Result<Acting, Failure> {
    Ok(synod_operate::find(pool, &connection.endpoints).await?)
}

/// Has a change made, and waits until the records show it.
pub(super) async fn change(
    pool: &Pool,
    connection: &Connection,
    change: RecordChange,
    shows: impl Fn(&Records) -> bool,
) -> Result<Acting, Failure> {
    let shows = async |acting: &Acting| shows(&acting.status.records);
    change_until(pool, connection, change, shows).await
}

/// The same, where more than the records tell whether it is made.
pub(super) async fn change_until(
    pool: &Pool,
    connection: &Connection,
    change: RecordChange,
    shows: impl AsyncFn(&Acting) -> bool,
) -> Result<Acting, Failure> {
    let changed = synod_operate::change(pool, &connection.endpoints, change, shows);
    Ok(telling("the cluster's records to show the change", changed).await?)
}

/// Shows, sets or removes a policy.
pub async fn policy(args: PolicyArgs) -> Result<Status, Failure> {
    let connection = args.connection.resolve()?;
    let pool = connection.pool()?;
    let prefix = args.of.map(|given| given.0).unwrap_or_default();
    let known = acting(&pool, &connection).await?.status.records;
    if args.text.is_none() && !args.remove {
        show(&known);
        return Ok(Status::Done);
    }
    if args.remove && !known.policies.contains_key(&prefix) {
        return Err(Failure::input(
            "there is no such policy; nothing was changed",
        ));
    }
    if let Some(text) = &args.text {
        let policy = parse("the policy", text)?;
        if policy == Policy::default() {
            return Err(Failure::input(
                "the policy says nothing; --remove takes one away. Nothing was changed",
            ));
        }
        if policy.voters == Some(1) && !args.anyway {
            return Err(Failure::input(
                "with one voter the loss of any node stops its shards, and of its disk loses them: \
                 store it with --anyway if that is meant. Nothing was changed",
            ));
        }
        let sharding = policy.sharding;
        let survey = Survey::take(&pool, &connection.endpoints, ANSWER).await?;
        // One that cannot be read is about to be replaced.
        let mut intent = survey.intent().unwrap_or_default();
        let before = problems(&Seen::of(survey.clone(), intent.clone())?)?;
        if prefix.is_empty() {
            intent.policies.default = policy;
        } else {
            intent.policies.directories.insert(prefix.clone(), policy);
        }
        let after = problems(&Seen::of(survey, intent)?)?;
        let new = after.into_iter().filter(|(text, _)| {
            let mut known = before.iter().map(|(text, _)| text);
            known.all(|before| before != text)
        });
        let new: Vec<(String, bool)> = new.collect();
        let problems: Vec<String> = new.iter().map(|(text, _)| text.clone()).collect();
        if new.iter().any(|(_, hard)| *hard) && !args.anyway {
            return Err(Failure::input(format!(
                "the nodes that are there cannot keep it:\n  {}\nNothing was changed; add nodes \
                 (`synod node join`), or store it with --anyway",
                problems.join("\n  ")
            )));
        }
        problems.iter().for_each(|p| println!("problem: {p}"));
        if let Some(sharding) = sharding {
            // Before the text: what the shards say is what is true.
            hash::apply(&pool, &connection, &prefix, sharding, &known.policies).await?;
        }
    }
    let wanted = args.text.clone();
    let of = prefix.clone();
    let acting = change(
        &pool,
        &connection,
        RecordChange::Policy {
            prefix,
            text: args.text,
        },
        |records| records.policies.get(&of) == wanted.as_ref(),
    )
    .await?;
    show(&acting.status.records);
    if acting.status.records.manual {
        println!("only people move replicas now: `synod placement apply` goes there");
    }
    Ok(Status::Done)
}

/// What the nodes that are there cannot keep of the policies, and whether that stands in the
/// way of storing it: a preferred kind of leader may come.
fn problems(seen: &Seen) -> Result<Vec<(String, bool)>, Failure> {
    let problems = check(&seen.view.nodes, &seen.view.policies).map_err(Failure::input)?;
    let told = problems.iter().map(|problem| {
        let hard = !matches!(problem, Problem::NoPreferredLeader { .. });
        (seen.named(&problem.to_string()), hard)
    });
    Ok(told.collect())
}

fn show(records: &Records) {
    let mut default = true;
    for (prefix, text) in &records.policies {
        match prefix.as_slice() {
            [] => println!("the cluster: {text}"),
            prefix => println!("{}…: {text}", show_key(&prefix.to_vec().into())),
        }
        default &= !prefix.is_empty();
    }
    if default {
        println!(
            "the cluster: nothing said; shards keep as many voters as they have, if all have the \
             same odd number of them, and else say how many: 'voters = …'"
        );
    }
}

/// Says who moves replicas.
pub async fn auto(args: AutoArgs) -> Result<Status, Failure> {
    let connection = args.connection.resolve()?;
    let pool = connection.pool()?;
    acting(&pool, &connection).await?;
    let manual = args.which == "off";
    let change = change(
        &pool,
        &connection,
        RecordChange::Placement { manual },
        |records| records.manual == manual,
    );
    change.await?;
    println!(
        "{}",
        if manual {
            "only people move replicas from now on"
        } else {
            "the cluster moves replicas by itself from now on"
        }
    );
    Ok(Status::Done)
}
