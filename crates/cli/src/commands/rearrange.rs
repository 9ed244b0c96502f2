//! `synod placement apply|members`: what changes where replicas are, by hand.

use super::placement::Common;
use super::shard::number;
use crate::connection::ConnectionArgs;
use crate::exit::{Failure, Status};
use crate::output::count;
use std::sync::Arc;
use std::time::{Duration, Instant};
use synod_operate::{Changer, Roles, Seen, Stopped, Survey, Tell, plan, roles, walk};
use synod_paxos::{GroupId, NodeId};
use synod_placement::{Role, replan};

/// Before planning again, so that all have heard of what thwarted the last plan.
const BETWEEN_PLANS: Duration = Duration::from_secs(1);
/// Leaders are given so long to find out how large their shards are.
const SIZES: Duration = Duration::from_secs(8);
/// Plans that others may thwart, at most.
const PLANS: usize = 20;
/// Several shards at a time, and nothing is left over.
const PACE: synod_operate::Pace = synod_operate::Pace {
    parallel: 4,
    into: 2,
    sweep: true,
};

/// How patiently one step is waited for.
#[derive(Debug, clap::Args)]
pub(super) struct Pace {
    /// How long one step may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    step_seconds: u64,
}

/// `synod placement apply …`, and how any plan is gone.
#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    pace: Pace,
    /// Print the steps, and go none
    #[arg(long)]
    pub(super) dry_run: bool,
}

impl ApplyArgs {
    /// How long one step may take.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.pace.step_seconds)
    }

    pub(super) fn changer(&self, survey: &Survey) -> Result<Changer, Failure> {
        let Common {
            connection,
            timeout_millis,
            ..
        } = &self.common;
        changer(survey, connection, *timeout_millis, &self.pace)
    }
}

/// `synod placement members …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod placement members 3 --voters n1,n2,n4 --endpoint 127.0.0.1:7001 --certs certs
  synod placement members 3 --voters n1,n2 --witnesses n3 --learners n4 --endpoint 127.0.0.1:7001 --certs certs

Only after `synod placement auto off`, as the cluster would undo it.")]
pub struct MembersArgs {
    /// The shard's number, as `synod status` shows it
    #[arg(value_name = "SHARD", value_parser = number)]
    shard: u64,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    pace: Pace,
    /// Names of the nodes that vote and hold the data
    #[arg(long, value_name = "NODES", value_delimiter = ',', required = true)]
    voters: Vec<String>,
    /// Names of the nodes that vote, and count for no data
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    witnesses: Vec<String>,
    /// Names of the nodes that hold the data, and do not vote
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    learners: Vec<String>,
    /// How long a node may take to answer
    #[arg(long, value_name = "MILLIS", default_value_t = 2000)]
    timeout_millis: u64,
}

/// Runs until done or interrupted; either way the cluster is left as it may stay.
pub(super) async fn unless_interrupted(
    work: impl Future<Output = Result<Status, Failure>>,
) -> Result<Status, Failure> {
    tokio::select! {
        done = work => done,
        signal = tokio::signal::ctrl_c() => match signal {
            Ok(()) => Err(Failure::failed(
                "interrupted. Every shard serves with the members it has now; a step that was \
                 asked for may still be completed. Run the command again to go on",
            )),
            Err(error) => Err(Failure::failed(format!("cannot listen for Ctrl-C: {error}"))),
        },
    }
}

/// Who changes members, as these arguments say.
pub(super) fn changer(
    survey: &Survey,
    connection: &ConnectionArgs,
    millis: u64,
    pace: &Pace,
) -> Result<Changer, Failure> {
    let pool = connection.resolve()?.pool()?;
    let limit = Duration::from_millis(millis);
    let patience = Duration::from_secs(pace.step_seconds);
    let nodes = survey.map.nodes.clone();
    Ok(Changer::new(pool, nodes, limit, patience, tell()))
}

/// Lines on standard output.
fn tell() -> Tell {
    Arc::new(|line| println!("{line}"))
}

/// Goes the steps of a plan; plans again where others changed something meanwhile.
pub(super) async fn go(args: &ApplyArgs, only: Option<NodeId>) -> Result<Seen, Failure> {
    let dry = args.dry_run;
    let mut gone = 0;
    let begun = Instant::now();
    for _ in 0..PLANS {
        let seen = args.common.look().await?;
        if let Some(reason) = &seen.unsaid {
            return Err(Failure::input(reason.clone()));
        }
        let (steps, plan) = plan(&seen, only)?;
        if let Some(unweighed) = plan.unweighed.filter(|_| steps.is_empty() && !dry) {
            if begun.elapsed() < SIZES {
                tokio::time::sleep(BETWEEN_PLANS).await;
                continue;
            }
            println!(
                "note: the sizes of {unweighed} shards are not known yet; what nodes hold is not \
                 evened out"
            );
        }
        if steps.is_empty() || dry {
            for step in &steps {
                println!("{}", seen.named(&step.to_string()));
            }
            if dry {
                println!("{}; nothing was done", count(steps.len(), "step"));
            } else {
                println!("{} done", count(gone, "step"));
            }
            for problem in &plan.problems {
                println!("problem: {}", seen.named(&problem.to_string()));
            }
            return Ok(seen);
        }
        let changer = Arc::new(args.changer(&seen.survey)?);
        let walked = walk(&changer, &seen, &steps, PACE, &tell()).await;
        gone += walked.gone;
        if let Some(trouble) = walked.trouble {
            return Err(trouble.into());
        }
        if walked.overtaken {
            tokio::time::sleep(BETWEEN_PLANS).await;
        }
    }
    Err(Failure::failed(format!(
        "{} done, and then the cluster was changed by others {PLANS} times; run the \
         command again once they have finished",
        count(gone, "step")
    )))
}

/// Every shard that some node still has a copy of without being a member.
pub(super) async fn sweep(seen: &Seen, changer: &Changer) -> Result<(), Failure> {
    for shard in &seen.survey.map.shards {
        if !seen.survey.leftovers(shard.id).is_empty() {
            changer.gone(shard.id).await?;
        }
    }
    Ok(())
}

/// Goes the steps of the plan.
pub async fn apply(args: ApplyArgs) -> Result<Status, Failure> {
    unless_interrupted(async {
        let before = args.common.look().await?;
        if before.survey.is_automatic() && args.common.departs() && !args.dry_run {
            return Err(Failure::input(
                "the cluster moves replicas by itself, and would undo this: set the policy with \
                 `synod placement policy`, drain nodes with `synod node drain`, or run `synod \
                 placement auto off` first",
            ));
        }
        let seen = go(&args, None).await?;
        let plan = replan(&seen.view).map_err(Failure::input)?;
        if !args.dry_run {
            sweep(&seen, &args.changer(&seen.survey)?).await?;
        }
        Ok(if plan.problems.is_empty() {
            Status::Done
        } else {
            Status::Aborted
        })
    })
    .await
}

/// Gives one shard the members named.
pub async fn members(args: MembersArgs) -> Result<Status, Failure> {
    unless_interrupted(async {
        let connection = args.connection.resolve()?;
        let limit = Duration::from_millis(args.timeout_millis);
        let pool = connection.pool()?;
        let survey = Survey::take(&pool, &connection.endpoints, limit).await?;
        let shard = GroupId(args.shard);
        check_shard(&survey, shard)?;
        if survey.is_automatic() {
            return Err(Failure::input(
                "the cluster moves replicas by itself, and would undo this: run `synod placement \
                 auto off` first, or set a policy",
            ));
        }
        let target = named(&args, &survey)?;
        let changer = changer(&survey, &args.connection, args.timeout_millis, &args.pace)?;
        let arranged = arrange(&changer, shard, &target).await;
        arranged.map_err(|why| stopped(shard, why))?;
        changer.gone(shard).await?;
        let now = changer.now(shard).await?;
        println!(
            "shard {}: has these members, in configuration {}",
            shard.0, now.epoch.0
        );
        Ok(Status::Done)
    })
    .await
}

/// Refuses what is no shard.
pub(super) fn check_shard(survey: &Survey, shard: GroupId) -> Result<(), Failure> {
    if survey.map.shard(shard).is_some() {
        return Ok(());
    }
    let ids = survey.map.shards.iter().map(|s| s.id.0.to_string());
    Err(Failure::input(format!(
        "there is no shard {}; there are {}",
        shard.0,
        ids.collect::<Vec<_>>().join(", ")
    )))
}

/// Why a change of a shard was not made.
pub(super) fn stopped(shard: GroupId, stopped: Stopped) -> Failure {
    match stopped {
        Stopped::Failed(trouble) => trouble.into(),
        Stopped::Overtaken(reason) => Failure::failed(format!(
            "shard {}: {reason}; look at it with `synod placement show`, then run the command again",
            shard.0
        )),
    }
}

/// The members that the arguments name.
fn named(args: &MembersArgs, survey: &Survey) -> Result<Roles, Failure> {
    let mut target = Roles::new();
    for (names, role) in [
        (&args.voters, Role::Voter),
        (&args.witnesses, Role::Witness),
        (&args.learners, Role::Learner),
    ] {
        for name in names {
            if target.insert(survey.node(name)?, role).is_some() {
                return Err(Failure::input(format!(
                    "node `{name}` is named twice; name every node once"
                )));
            }
        }
    }
    Ok(target)
}

/// New electors come as learners first; then everything changes in one step.
async fn arrange(changer: &Changer, shard: GroupId, target: &Roles) -> Result<(), Stopped> {
    let now = changer.now(shard).await?;
    let before = roles(&now);
    let new = target
        .iter()
        .filter(|(node, role)| role.votes() && !before.contains_key(*node));
    let new: Vec<NodeId> = new.map(|(node, _)| *node).collect();
    let mut follows = now.epoch;
    if !new.is_empty() {
        println!("shard {}: add {} as learners", shard.0, changer.names(&new));
        let mut with = before.clone();
        with.extend(new.iter().map(|node| (*node, Role::Learner)));
        changer.change(shard, follows, &with, None).await?;
        follows = follows.next();
    }
    if before != *target {
        println!("shard {}: change to the members named", shard.0);
        changer.change(shard, follows, target, None).await?;
    }
    Ok(())
}
