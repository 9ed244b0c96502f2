//! `synod recover`: shards that have lost the majority of their voters for good go on with
//! one survivor, because a person says so.

use super::records::ANSWER;
use super::status::{end_key, first_key, table};
use crate::connection::{Connection, ConnectionArgs};
use crate::exit::{Failure, Status};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use synod_operate::{Choice, LostShard, Survey, Wreck};
use synod_paxos::{GroupId, NodeId, RecoverError};
use synod_rpc::ask::{self, AskError};
use synod_rpc::recover::RecoverAnswer;
use synod_rpc::{NodeRequest, NodeResponse, Pool};
use synod_shard::META_SHARD;
use synod_shard::wire::show_key;

/// Between two questions.
const POLL: Duration = Duration::from_millis(100);

/// What a plan cannot know, said with every one.
const UNKNOWABLE: &str = "\
What cannot be known from here: commits that were acknowledged and are not in the chosen copy are
lost, and nobody can say how many there are. And should a majority that is taken for lost live
somewhere, cut off from all nodes that answer, it goes on serving its clients until it meets one of
these again; then what it did since is thrown away. So be sure that the lost nodes are off.";

/// `synod recover …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod recover plan --endpoint 127.0.0.1:7103 --certs certs
  synod recover apply --lost n1,n2 --yes --endpoint 127.0.0.1:7103 --certs certs

For shards whose majority will not come back. A restart, a cut network or a slow disk is no reason:
bring nodes back if there is any way to. One surviving copy of each shard goes on alone with all
that it holds; what only the others held is lost. Other copies, of survivors and of nodes that
return, are deleted and made anew from it. Takes the certificate of `admin`.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say which shards are lost, who would go on with what, and what would be lost; change nothing
    Plan(PlanArgs),
    /// Do that: make survivors go on alone
    Apply(ApplyArgs),
}

/// `synod recover plan …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod recover plan --endpoint 127.0.0.1:7101 --certs certs
  synod recover plan --json --endpoint 127.0.0.1:7101 --certs certs")]
pub struct PlanArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// `synod recover apply …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod recover apply --lost n2,n3 --yes --endpoint 127.0.0.1:7101 --certs certs")]
pub struct ApplyArgs {
    /// Names of the nodes that are lost for good, with commas: all that the plan rests on
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    lost: Vec<String>,
    /// The plan was read, and the lost nodes are off
    #[arg(long)]
    yes: bool,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = crate::duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs one of them.
pub async fn run(args: Args) -> Result<Status, Failure> {
    match args.command {
        Command::Plan(args) => {
            let connection = args.connection.resolve()?;
            let wreck = Wreck::take(&connection.pool()?, &connection.endpoints, ANSWER).await?;
            show(&wreck, &wreck.plan(), args.json)?;
            Ok(Status::Done)
        }
        Command::Apply(args) => apply(args).await,
    }
}

/// What is shown of a shard.
#[derive(Debug, Serialize)]
struct ShardView {
    id: u64,
    start: String,
    end: String,
    voters: Vec<String>,
    answering: Vec<String>,
    lost: Vec<String>,
    /// Copies with data, the best one first.
    copies: Vec<CopyView>,
    chosen: Option<String>,
    /// Why nobody is.
    refused: Option<String>,
    decided: Option<u64>,
    /// Entries that count as decided and are not known to be.
    undecided: Option<u64>,
    /// A configuration that the chosen one has not seen begin.
    unseen_epoch: Option<u32>,
    /// Whom the chosen one supports as leader now.
    led_by: Option<String>,
    in_doubt: Vec<TransactionView>,
    in_doubt_unnamed: u64,
}

#[derive(Debug, Serialize)]
struct CopyView {
    node: String,
    epoch: u32,
    accepted: String,
    last: u64,
}

#[derive(Debug, Serialize)]
struct TransactionView {
    txn: String,
    coordinator: String,
    undecided: bool,
    fate: String,
}

#[derive(Debug, Serialize)]
struct View {
    shards: Vec<ShardView>,
    /// What `apply` wants to be named.
    lost: Vec<String>,
    unknowable: &'static str,
}

fn view(wreck: &Wreck, plan: &[LostShard]) -> View {
    let survey = &wreck.survey;
    let names = |ids: &[NodeId]| {
        let mut names: Vec<String> = ids.iter().map(|id| survey.name(*id)).collect();
        names.sort();
        names
    };
    let shards = plan.iter().map(|lost| {
        let choice = lost.choice.as_ref().ok();
        let doubt = choice.map(|c| c.in_doubt.as_slice()).unwrap_or_default();
        let electors: Vec<NodeId> = lost.configuration.electors().collect();
        ShardView {
            id: lost.shard.0,
            start: show_key(&lost.span.start),
            end: show_key(&lost.span.end),
            voters: names(&electors),
            answering: names(&lost.answering),
            lost: names(&lost.lost),
            copies: { lost.holders.iter() }
                .map(|(node, holds)| CopyView {
                    node: survey.name(*node),
                    epoch: holds.epoch.0,
                    accepted: holds.accepted.to_string(),
                    last: holds.last.0,
                })
                .collect(),
            chosen: choice.map(|c| survey.name(c.node)),
            refused: lost.choice.as_ref().err().cloned(),
            decided: choice.map(|c| c.decided.0),
            undecided: choice.map(Choice::undecided),
            unseen_epoch: choice.and_then(|c| Some(c.unseen?.0)),
            led_by: choice.and_then(|c| Some(survey.name(c.led_by?))),
            in_doubt: { doubt.iter() }
                .map(|t| TransactionView {
                    txn: t.attempt.to_string(),
                    coordinator: show_key(&t.coordinator),
                    undecided: t.undecided,
                    fate: t.fate.clone(),
                })
                .collect(),
            in_doubt_unnamed: choice.map_or(0, |c| c.more),
        }
    });
    View {
        shards: shards.collect(),
        lost: missing(wreck, plan),
        unknowable: UNKNOWABLE,
    }
}

/// The names of the nodes that the plan takes for lost.
fn missing(wreck: &Wreck, plan: &[LostShard]) -> Vec<String> {
    let ids = Wreck::missing(plan).into_iter();
    let mut names: Vec<String> = ids.map(|id| wreck.survey.name(id)).collect();
    names.sort();
    names
}

fn show(wreck: &Wreck, plan: &[LostShard], json: bool) -> Result<(), Failure> {
    let view = view(wreck, plan);
    if json {
        let text = serde_json::to_string_pretty(&view).map_err(Failure::failed)?;
        println!("{text}");
        return Ok(());
    }
    if view.shards.is_empty() {
        println!("every shard has a majority of its voters: there is nothing to recover");
        return Ok(());
    }
    let mut shards = table(&[
        "SHARD",
        "FROM",
        "TO",
        "VOTERS",
        "LOST",
        "CHOSEN",
        "DECIDED",
        "UNDECIDED",
        "IN DOUBT",
    ]);
    for shard in &view.shards {
        let number = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        shards.add_row([
            shard.id.to_string(),
            first_key(&shard.start),
            end_key(&shard.end),
            shard.voters.join(" "),
            shard.lost.join(" "),
            shard.chosen.clone().unwrap_or_else(|| "nobody".to_owned()),
            number(shard.decided),
            number(shard.undecided),
            (shard.in_doubt.len() as u64 + shard.in_doubt_unnamed).to_string(),
        ]);
    }
    println!("{shards}");
    view.shards.iter().for_each(tell_shard);
    println!();
    println!("{UNKNOWABLE}");
    Ok(())
}

/// The lines below the table.
fn tell_shard(shard: &ShardView) {
    println!();
    if let Some(why) = &shard.refused {
        println!("shard {}: {why}", shard.id);
    }
    if let Some(chosen) = &shard.chosen {
        let copies = shard.copies.iter();
        let copies = copies.map(|c| format!("{} {}/{}", c.node, c.accepted, c.last));
        println!(
            "shard {}: {chosen} has the highest log of those that answer and hold data ({}). It \
             goes on with everything through entry {}; {} of these are not known to be decided, and \
             count as decided from then on",
            shard.id,
            copies.collect::<Vec<_>>().join(", "),
            shard.decided.unwrap_or(0) + shard.undecided.unwrap_or(0),
            shard.undecided.unwrap_or(0),
        );
    }
    if let Some(epoch) = shard.unseen_epoch {
        println!(
            "  it has not seen configuration e{epoch} begin: whatever was committed since is lost"
        );
    }
    if let Some(leader) = &shard.led_by {
        println!(
            "  it has just heard of {leader}, which leads the shard: either that was a moment before \
             {leader} was lost, or nothing is lost. `apply` waits until it has not"
        );
    }
    for t in &shard.in_doubt {
        let known = if t.undecided { ", undecided" } else { "" };
        println!(
            "  in doubt: {} (coordinator's key {}{known}) {}",
            t.txn, t.coordinator, t.fate
        );
    }
    if shard.in_doubt_unnamed > 0 {
        println!(
            "  and {} more, too many to be named",
            shard.in_doubt_unnamed
        );
    }
}

async fn apply(args: ApplyArgs) -> Result<Status, Failure> {
    let connection = args.connection.resolve()?;
    let recovery = Recovery {
        pool: connection.pool()?,
        connection: &connection,
        deadline: Instant::now() + args.timeout,
    };
    let wreck = recovery.look().await?;
    let plan = wreck.plan();
    show(&wreck, &plan, false)?;
    if plan.is_empty() {
        return Ok(Status::Done);
    }
    confirm(&wreck, &plan, &args)?;
    println!();
    let mut hopeless = Vec::new();
    let mut begun = Vec::new();
    for lost in &plan {
        match &lost.choice {
            Ok(choice) => {
                recovery.begin(&wreck.survey, lost.shard, choice).await?;
                begun.push(lost.shard);
                if lost.shard == META_SHARD {
                    // What moves replicas, and tells who holds what, needs it.
                    recovery.led(lost.shard).await?;
                }
            }
            Err(_) => hopeless.push(lost.shard.0.to_string()),
        }
    }
    for shard in begun.into_iter().filter(|s| *s != META_SHARD) {
        recovery.led(shard).await?;
    }
    // What was split off by an entry that has counted as decided only since.
    let after = recovery.look().await?.plan();
    let news = after.iter().filter(|l| l.choice.is_ok());
    let news: Vec<String> = news.map(|l| l.shard.0.to_string()).collect();
    if !news.is_empty() {
        return Err(Failure::failed(format!(
            "shards {} have no majority either, as shows only now; run `synod recover plan` again",
            news.join(", ")
        )));
    }
    println!();
    println!("next:");
    println!("  synod status                     every shard should have a leader");
    println!("  synod placement show             where copies are made anew, unless that is off");
    for name in &args.lost {
        println!("  synod node decommission {name}     if it does not come back");
    }
    if hopeless.is_empty() {
        return Ok(Status::Done);
    }
    Err(Failure::failed(format!(
        "shards {} were not recovered: see the plan above",
        hopeless.join(", ")
    )))
}

/// Whether the operator knows what the plan rests on.
fn confirm(wreck: &Wreck, plan: &[LostShard], args: &ApplyArgs) -> Result<(), Failure> {
    let survey = &wreck.survey;
    let named = args.lost.iter().map(|name| survey.node(name));
    let named: BTreeSet<NodeId> = named.collect::<Result<_, _>>()?;
    if let Some(there) = named.iter().find(|id| survey.answers(**id)) {
        return Err(Failure::input(format!(
            "{} answers, so it is not lost. Nothing was changed",
            survey.name(*there)
        )));
    }
    if !args.yes || !Wreck::missing(plan).is_subset(&named) {
        let names = missing(wreck, plan).join(",");
        return Err(Failure::input(format!(
            "nothing was changed. This takes {names} for lost for good: if that is so, and they \
             are off, run it with --lost {names} --yes"
        )));
    }
    Ok(())
}

/// Recoveries on their way.
struct Recovery<'a> {
    pool: Pool,
    connection: &'a Connection,
    deadline: Instant,
}

impl Recovery<'_> {
    async fn look(&self) -> Result<Wreck, Failure> {
        Ok(Wreck::take(&self.pool, &self.connection.endpoints, ANSWER).await?)
    }

    /// Gives the order, once or until it is taken.
    async fn begin(&self, survey: &Survey, shard: GroupId, choice: &Choice) -> Result<(), Failure> {
        let name = survey.name(choice.node);
        let node = survey.map.node(choice.node).ok_or_else(|| {
            Failure::failed(format!(
                "{name} is no node of the cluster any more; plan again"
            ))
        })?;
        loop {
            let request = NodeRequest::Recover(Box::new(choice.request(shard)));
            let why = match ask::try_ask(&self.pool, node.address, request, ANSWER).await {
                Ok(NodeResponse::Recover(RecoverAnswer::Begun { slot })) => {
                    println!(
                        "shard {}: {name} goes on alone after entry {}",
                        shard.0, slot.0
                    );
                    return Ok(());
                }
                Ok(NodeResponse::Recover(RecoverAnswer::Refused(RecoverError::UnderWay))) => {
                    println!("shard {}: {name} is about to go on alone", shard.0);
                    return Ok(());
                }
                Ok(NodeResponse::Recover(RecoverAnswer::Refused(error))) => match error {
                    // It holds on to those it heard of last for the length of a lease.
                    RecoverError::Led { .. } | RecoverError::MajorityLives { .. } => {
                        error.to_string()
                    }
                    error => {
                        return Err(Failure::failed(format!(
                            "{name} refuses to go on with shard {}: {error}",
                            shard.0
                        )));
                    }
                },
                Ok(other) => {
                    return Err(Failure::cluster(format!(
                        "{name} answered {other:?} to Recover"
                    )));
                }
                Err(AskError::Refused(reason)) => return Err(Failure::input(reason)),
                // It may have been done: what it holds is another thing then, and asking
                // again is refused.
                Err(AskError::Lost(reason)) => {
                    return Err(Failure::cluster(format!(
                        "{name} gave no answer for shard {}: {reason}. Run the command again: it \
                         goes on from what is there",
                        shard.0
                    )));
                }
            };
            if Instant::now() >= self.deadline {
                return Err(Failure::failed(format!(
                    "{name} does not go on with shard {}: {why}",
                    shard.0
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the shard has a leader in office.
    async fn led(&self, shard: GroupId) -> Result<(), Failure> {
        loop {
            let survey = Survey::take(&self.pool, &self.connection.endpoints, ANSWER).await?;
            if let Some((leader, _)) = survey.leader(shard) {
                println!("shard {}: led by {}", shard.0, survey.name(leader));
                return Ok(());
            }
            if Instant::now() >= self.deadline {
                return Err(Failure::failed(format!(
                    "shard {} has no leader yet; look at `synod status`, and run the command again",
                    shard.0
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
