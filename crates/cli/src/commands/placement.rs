//! `synod placement`: where replicas are, why, and what a failure or another
//! policy would do. Nothing here changes anything; what does is in `rearrange`.

use super::loads::show_hashing;
use super::records;
use super::shard::number;
use super::status::{first_key, table};
use super::{holdings, rearrange};
use crate::connection::ConnectionArgs;
use crate::exit::{Failure, Status};
use crate::output::count;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use synod_operate::{Seen, Survey};
use synod_paxos::{GroupId, NodeId};
use synod_placement::{Domain, Expr, Policy, explain, explain_all, replan, what_if};
use synod_shard::wire::show_key;
use synod_txn::Hashing;

/// `synod placement …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod placement show --endpoint 127.0.0.1:7001 --certs certs
  synod placement explain 2 --endpoint 127.0.0.1:7001 --certs certs
  synod placement what-if --lose dc=eu-1 --endpoint 127.0.0.1:7001 --certs certs
  synod placement plan --policy 'voters = 5, survive = dc' --endpoint 127.0.0.1:7001 --certs certs
  synod placement apply --policy 'voters = 5, survive = dc' --endpoint 127.0.0.1:7001 --certs certs
  synod placement policy 'voters = 5, survive = dc' --endpoint 127.0.0.1:7001 --certs certs
  synod placement policy 'leaders = [dc=eu-2]' --of accounts/ --endpoint 127.0.0.1:7001 --certs certs
  synod placement auto off --endpoint 127.0.0.1:7001 --certs certs

A kind of nodes is written as `dc=eu-1 & !rack=r2 | region=us`. A policy is a list of settings:
voters, witnesses, learners, spread, require, forbid, leaders, survive, sharding; each has a default.

The cluster keeps its policies and moves replicas by itself: where they want them, off nodes that
are drained (`synod node`), and off nodes silent for longer than placement.down_seconds.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show every place and shard, and whose loss would stop which shard
    #[command(after_help = "Example:
  synod placement show --endpoint 127.0.0.1:7001 --certs certs
  synod placement show --json --endpoint 127.0.0.1:7001 --certs certs")]
    Show {
        #[command(flatten)]
        common: Common,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Say why the replicas of one shard are where they are
    #[command(after_help = "Example:
  synod placement explain 2 --endpoint 127.0.0.1:7001 --certs certs")]
    Explain {
        /// The shard's number, as `synod status` shows it
        #[arg(value_name = "SHARD", value_parser = number)]
        shard: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Say what the loss of some nodes would do; exit status 1 if a shard would stop
    #[command(after_help = "Example:
  synod placement what-if --lose dc=eu-1 --endpoint 127.0.0.1:7001 --certs certs
  synod placement what-if --lose 'node=n1 | node=n2' --endpoint 127.0.0.1:7001 --certs certs")]
    WhatIf {
        /// The nodes that fail, by where they are, such as dc=eu-1 or 'rack=r1 | rack=r2', or by
        /// name, such as node=n1
        #[arg(long, value_name = "EXPRESSION")]
        lose: String,
        #[command(flatten)]
        common: Common,
    },
    /// Print the steps to a policy, and what stands in its way; exit status 1 if something does
    #[command(after_help = "Example:
  synod placement plan --endpoint 127.0.0.1:7001 --certs certs
  synod placement plan --policy 'voters = 5, survive = dc' --endpoint 127.0.0.1:7001 --certs certs")]
    Plan {
        #[command(flatten)]
        common: Common,
    },
    /// Go the steps that `plan` prints, one by one. May be stopped at any time, and run again
    #[command(after_help = "Example:
  synod placement apply --dry-run --endpoint 127.0.0.1:7001 --certs certs
  synod placement apply --endpoint 127.0.0.1:7001 --certs certs")]
    Apply(rearrange::ApplyArgs),
    /// Show the policies that the cluster keeps, or set one
    Policy(records::PolicyArgs),
    /// Let the cluster move replicas by itself, or only people
    Auto(records::AutoArgs),
    /// Give one shard these members, with nothing but what keeps it safe looked at
    Members(rearrange::MembersArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
    /// The policy of the whole cluster, as text
    #[arg(long, value_name = "TEXT")]
    policy: Option<String>,
    /// The policy of the keys that begin with PREFIX; repeat for more
    #[arg(long = "policy-of", num_args = 2, value_names = ["PREFIX", "TEXT"])]
    policies_of: Vec<String>,
    /// A node that is to hold nothing, whether it answers or not; repeat for more
    #[arg(long = "retire", value_name = "NODE")]
    pub(super) retire: Vec<String>,
    /// How long a node may take to answer
    #[arg(long, value_name = "MILLIS", default_value_t = 2000)]
    pub(super) timeout_millis: u64,
}

impl Common {
    /// Whether the arguments want something else than the cluster's records.
    pub(super) fn departs(&self) -> bool {
        self.policy.is_some() || !self.policies_of.is_empty() || !self.retire.is_empty()
    }

    pub(super) async fn look(&self) -> Result<Seen, Failure> {
        let connection = self.connection.resolve()?;
        let limit = Duration::from_millis(self.timeout_millis);
        let pool = connection.pool()?;
        let survey = Survey::take(&pool, &connection.endpoints, limit).await?;
        let mut intent = survey.intent()?;
        if let Some(text) = &self.policy {
            intent.policies.default = parse("--policy", text)?;
        }
        for pair in self.policies_of.chunks(2) {
            if let [prefix, text] = pair {
                let policy = parse(&format!("--policy-of {prefix}"), text)?;
                let prefix = prefix.clone().into_bytes();
                intent.policies.directories.insert(prefix, policy);
            }
        }
        for name in &self.retire {
            intent.leaving.insert(survey.node(name)?);
        }
        Ok(Seen::of(survey, intent)?)
    }
}

/// A policy; `whose` is for messages.
pub(super) fn parse(whose: &str, text: &str) -> Result<Policy, Failure> {
    text.parse()
        .map_err(|error| Failure::input(format!("{whose}: {error}")))
}

/// Looks, and prints.
pub async fn run(args: Args) -> Result<Status, Failure> {
    match args.command {
        Command::Show { common, json } => {
            let seen = common.look().await?;
            let pool = common.connection.resolve()?.pool()?;
            let hashed = synod_operate::hashed(&pool, &seen.survey.map).await;
            show(&seen, &hashed, json)
        }
        Command::Explain { shard, common } => tell_why(&common.look().await?, GroupId(shard)),
        Command::WhatIf { lose, common } => {
            let lose: Expr = lose.parse().map_err(|error| {
                Failure::input(format!(
                    "--lose: {error}; write a place such as dc=eu-1, or a node such as node=n1"
                ))
            })?;
            tell_what_if(&named_nodes(common.look().await?), &lose)
        }
        Command::Plan { common } => tell_plan(&common.look().await?),
        Command::Apply(args) => rearrange::apply(args).await,
        Command::Policy(args) => records::policy(args).await,
        Command::Auto(args) => records::auto(args).await,
        Command::Members(args) => rearrange::members(args).await,
    }
}

/// What is shown of a place.
#[derive(Debug, Serialize)]
struct PlaceRow {
    place: String,
    nodes: usize,
    silent: usize,
    voters: usize,
    leads: usize,
    /// Shards that its loss would stop.
    stops: usize,
}

/// What is shown of a shard.
#[derive(Debug, Serialize)]
struct ShardRow {
    id: u64,
    start: String,
    /// The hashed directory that it is of.
    hashed: Option<String>,
    leader: Option<String>,
    voters: Vec<String>,
    witnesses: Vec<String>,
    learners: Vec<String>,
    /// Number of the configuration; it rises with every change of members.
    epoch: u32,
    /// What the leader knows of the other members.
    others: Vec<OtherRow>,
    /// Nodes that are no members any more, and still have a copy.
    leftovers: Vec<String>,
    /// Voters that answer.
    answering: usize,
    /// Voters that must.
    majority: usize,
    /// Places whose loss alone would stop it.
    cannot_lose: Vec<String>,
}

/// What is shown of a member, as its leader sees it.
#[derive(Debug, Serialize)]
struct OtherRow {
    node: String,
    caught_up: bool,
    holds_data: bool,
    snapshot: bool,
}

#[derive(Debug, Serialize)]
struct Shown {
    places: Vec<PlaceRow>,
    nodes: Vec<holdings::NodeRow>,
    shards: Vec<ShardRow>,
    keeper: Option<KeeperRow>,
}

/// What the cluster does by itself.
#[derive(Debug, Serialize)]
struct KeeperRow {
    automatic: bool,
    down: Vec<String>,
    doing: Vec<String>,
    problems: Vec<String>,
    looks: u64,
    steps: u64,
}

fn keeper(seen: &Seen) -> Option<KeeperRow> {
    let status = seen.survey.placement.as_ref()?;
    let names = status.down.iter().map(|id| seen.survey.name(*id));
    Some(KeeperRow {
        automatic: !status.records.manual,
        down: names.collect(),
        doing: status.doing.clone(),
        problems: status.problems.clone(),
        looks: status.looks,
        steps: status.steps,
    })
}

fn show(seen: &Seen, hashed: &BTreeMap<GroupId, Hashing>, json: bool) -> Result<Status, Failure> {
    let shown = Shown {
        places: places(seen)?,
        nodes: holdings::rows(seen),
        shards: shards(seen, hashed)?,
        keeper: keeper(seen),
    };
    if json {
        let text = serde_json::to_string_pretty(&shown).map_err(Failure::failed)?;
        println!("{text}");
        return Ok(Status::Done);
    }
    let mut places = table(&[
        "PLACE",
        "NODES",
        "SILENT",
        "VOTERS",
        "LEADS",
        "ITS LOSS STOPS",
    ]);
    for place in &shown.places {
        places.add_row([
            place.place.clone(),
            place.nodes.to_string(),
            place.silent.to_string(),
            place.voters.to_string(),
            place.leads.to_string(),
            match place.stops {
                0 => "nothing".to_owned(),
                1 => "1 shard".to_owned(),
                more => format!("{more} shards"),
            },
        ]);
    }
    println!("{places}\n");
    holdings::print(&shown.nodes);
    let mut shards = table(&[
        "SHARD",
        "FROM",
        "LEADER",
        "REPLICAS",
        "ANSWER",
        "CANNOT LOSE",
    ]);
    for shard in &shown.shards {
        let marked = |mark: &str, nodes: &[String]| -> Vec<String> {
            nodes.iter().map(|node| format!("{node}{mark}")).collect()
        };
        let replicas = [
            shard.voters.clone(),
            marked(" (witness)", &shard.witnesses),
            marked(" (learner)", &shard.learners),
            marked(" (left out)", &shard.leftovers),
        ];
        shards.add_row([
            shard.id.to_string(),
            match &shard.hashed {
                Some(hashed) => format!("{} (of {hashed})", first_key(&shard.start)),
                None => first_key(&shard.start),
            },
            shard.leader.clone().unwrap_or_else(|| "none".to_owned()),
            replicas.concat().join(" "),
            format!("{}, {} must", shard.answering, shard.majority),
            match shard.cannot_lose.as_slice() {
                [] => "nothing alone".to_owned(),
                places => places.join("; "),
            },
        ]);
    }
    println!("{shards}");
    tell_keeper(seen);
    Ok(Status::Done)
}

/// What the cluster does by itself.
fn tell_keeper(seen: &Seen) {
    let Some(keeper) = &seen.survey.placement else {
        return println!("\nno node leads the meta shard: nothing moves by itself now");
    };
    if keeper.records.manual {
        return println!("\nonly people move replicas (`synod placement auto on` changes that)");
    }
    match keeper.doing.as_slice() {
        [] if keeper.looks == 0 => {
            println!("\nthe node that leads the meta shard has not looked yet")
        }
        [] => println!(
            "\nnothing is moved now; {} since this node leads the meta shard",
            match keeper.steps {
                1 => "1 step".to_owned(),
                steps => format!("{steps} steps"),
            }
        ),
        doing => doing.iter().for_each(|line| println!("\nnow: {line}")),
    }
    for id in &keeper.down {
        let name = seen.survey.name(*id);
        println!("down: {name} has been silent for long, and is replaced");
    }
    for problem in &keeper.problems {
        println!("problem: {problem}");
    }
}

/// Every place of every tier, widest first.
fn places(seen: &Seen) -> Result<Vec<PlaceRow>, Failure> {
    let nodes = &seen.view.nodes;
    let mut places = BTreeSet::new();
    for node in nodes {
        let depth = node.locality.0.len();
        places.extend((1..=depth).map(|d| (d, node.locality.through(d))));
    }
    let mut rows = Vec::new();
    for (_, place) in places {
        let within = |id: NodeId| {
            let node = nodes.iter().find(|node| node.id == id);
            node.is_some_and(|node| node.locality.within(&place))
        };
        let tiers = place.0.iter();
        let all = tiers.map(|(tier, value)| Expr::Is(tier.clone(), value.clone()));
        let lost = what_if(&seen.view, &Expr::And(all.collect())).map_err(Failure::input)?;
        let stops = lost.shards.iter().filter(|s| s.quorum_before && !s.quorum);
        let electors = seen.view.shards.iter().flat_map(|shard| &shard.replicas);
        let electors = electors.filter(|(id, role)| role.votes() && within(**id));
        let here = || nodes.iter().filter(|node| node.locality.within(&place));
        let led = seen.view.shards.iter().filter_map(|shard| shard.leader);
        rows.push(PlaceRow {
            place: place.to_string(),
            nodes: here().count(),
            silent: here().filter(|node| !node.state.answers()).count(),
            voters: electors.count(),
            leads: led.filter(|id| within(*id)).count(),
            stops: stops.count(),
        });
    }
    Ok(rows)
}

fn shards(seen: &Seen, hashed: &BTreeMap<GroupId, Hashing>) -> Result<Vec<ShardRow>, Failure> {
    let names = |ids: &[NodeId]| ids.iter().map(|id| seen.survey.name(*id)).collect();
    let explanations = explain_all(&seen.view).map_err(Failure::input)?;
    let explanations: BTreeMap<_, _> = explanations.iter().map(|e| (e.shard, e)).collect();
    let mut rows = Vec::new();
    for (shard, descriptor) in seen.view.shards.iter().zip(&seen.survey.map.shards) {
        let Some(explanation) = explanations.get(&shard.id) else {
            continue;
        };
        let configuration = &descriptor.configuration;
        // That the loss of everything stops everything goes without saying.
        let is_part = |domain: &Domain| match domain {
            Domain::Place(place) => { seen.view.nodes.iter() }.any(|n| !n.locality.within(place)),
            Domain::Node(_) => seen.view.nodes.len() > 1,
        };
        let fatal = explanation.survivals.iter();
        let fatal = fatal.filter(|s| !s.quorum && is_part(&s.domain));
        rows.push(ShardRow {
            id: shard.id.0,
            start: show_key(&descriptor.span.start),
            hashed: hashed.get(&shard.id).map(show_hashing),
            leader: shard.leader.map(|id| seen.survey.name(id)),
            voters: names(&configuration.voters),
            witnesses: names(&configuration.witnesses),
            learners: names(&configuration.learners),
            epoch: configuration.epoch.0,
            others: others(seen, shard.id),
            leftovers: names(&seen.survey.leftovers(shard.id)),
            answering: seen.survey.answering(configuration),
            majority: configuration.majority(),
            cannot_lose: fatal
                .map(|survival| seen.named(&survival.domain.to_string()))
                .collect(),
        });
    }
    Ok(rows)
}

fn others(seen: &Seen, shard: GroupId) -> Vec<OtherRow> {
    let leader = seen.survey.leading(shard);
    let others = leader.into_iter().flat_map(|leader| &leader.others);
    let others = others.map(|member| OtherRow {
        node: seen.survey.name(member.node),
        caught_up: member.caught_up,
        holds_data: member.holds_data,
        snapshot: member.snapshot,
    });
    others.collect()
}

fn tell_why(seen: &Seen, shard: GroupId) -> Result<Status, Failure> {
    match explain(&seen.view, shard).map_err(Failure::input)? {
        Some(explanation) => {
            print!("{}", seen.named(&explanation.to_string()));
            Ok(Status::Done)
        }
        None => {
            let ids = seen.view.shards.iter().map(|shard| shard.id.0.to_string());
            Err(Failure::input(format!(
                "there is no shard {}; there are {}",
                shard.0,
                ids.collect::<Vec<_>>().join(", ")
            )))
        }
    }
}

/// The same, where `node=NAME` is a kind of nodes, unless there is a tier of this name.
fn named_nodes(mut seen: Seen) -> Seen {
    for node in &mut seen.view.nodes {
        let name = seen.survey.name(node.id);
        node.labels.insert("node".to_owned(), name);
    }
    seen
}

fn tell_what_if(seen: &Seen, lose: &Expr) -> Result<Status, Failure> {
    let outcome = what_if(&seen.view, lose).map_err(Failure::input)?;
    if outcome.nodes.is_empty() {
        let nodes = seen.survey.map.nodes.iter();
        let known: Vec<String> = nodes
            .map(|node| format!("{} is in {}", node.name, node.locality))
            .collect();
        return Err(Failure::input(format!(
            "--lose: no node is of the kind {lose}, by its place or as node=NAME; {}",
            known.join("; ")
        )));
    }
    print!("{}", seen.named(&outcome.to_string()));
    let stops = outcome.shards.iter().any(|s| s.quorum_before && !s.quorum);
    Ok(if stops { Status::Aborted } else { Status::Done })
}

fn tell_plan(seen: &Seen) -> Result<Status, Failure> {
    let plan = replan(&seen.view).map_err(Failure::input)?;
    for step in &plan.steps {
        println!("{}", seen.named(&step.to_string()));
    }
    println!(
        "{}; nothing was done, `synod placement apply` goes them",
        count(plan.steps.len(), "step")
    );
    if let Some(unweighed) = plan.unweighed {
        println!(
            "note: the sizes of {unweighed} shards are not known yet; until then what nodes hold is \
             not evened out"
        );
    }
    for problem in &plan.problems {
        println!("problem: {}", seen.named(&problem.to_string()));
    }
    Ok(if plan.problems.is_empty() {
        Status::Done
    } else {
        Status::Aborted
    })
}
