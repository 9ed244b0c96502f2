//! `synod shard move|transfer-leader`: one replica goes to another node, or another voter leads.

use super::rearrange::{Pace, changer, check_shard, stopped, unless_interrupted};
use super::shard::number;
use crate::connection::ConnectionArgs;
use crate::exit::{Failure, Status};
use std::time::Duration;
use synod_operate::{Changer, Roles, Seen, Stopped, Survey, Trouble};
use synod_paxos::{GroupId, NodeId};
use synod_placement::{Aim, Change, Move, MoveError, Role, Step, propose_leader, propose_move};

#[derive(Debug, clap::Args)]
struct Common {
    /// The shard's number, as `synod status` shows it
    #[arg(value_name = "SHARD", value_parser = number)]
    shard: u64,
    /// Do it although the shard's policy, or the node, has something against it (only after `synod
    /// placement auto off`, as the cluster would undo it)
    #[arg(long)]
    anyway: bool,
    #[command(flatten)]
    pace: Pace,
    /// How long a node may take to answer
    #[arg(long, value_name = "MILLIS", default_value_t = 2000)]
    timeout_millis: u64,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// `synod shard move …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod shard move 3 --to n4 --endpoint 127.0.0.1:7001 --certs certs
  synod shard move 3 --from n1 --to n4 --endpoint 127.0.0.1:7001 --certs certs

The replica is copied first; then the new one takes the old one's place, in one step, and the old copy is
deleted. The shard serves all the while. It may be interrupted and run again. What the cluster's
policies have against it is refused: `synod placement policy` changes those.")]
pub struct MoveArgs {
    /// The node whose replica goes; without it, the one that can best be done without
    #[arg(long, value_name = "NODE")]
    from: Option<String>,
    /// The node that gets it
    #[arg(long, value_name = "NODE")]
    to: String,
    #[command(flatten)]
    common: Common,
}

/// `synod shard transfer-leader …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod shard transfer-leader 3 --endpoint 127.0.0.1:7001 --certs certs
  synod shard transfer-leader 3 n2 --endpoint 127.0.0.1:7001 --certs certs

The leader answers what it has begun and hands over; transactions that hold locks in the shard are
repeated by the SDK. The cluster may hand it on again where it evens out what leaders are asked.")]
pub struct TransferArgs {
    // The shard comes first on the command line.
    #[command(flatten)]
    common: Common,
    /// Who is to lead; without it, of the other voters the one that is asked least
    #[arg(value_name = "NODE")]
    node: Option<String>,
}

impl Common {
    fn shard(&self) -> GroupId {
        GroupId(self.shard)
    }

    async fn look(&self) -> Result<Seen, Failure> {
        let connection = self.connection.resolve()?;
        let limit = Duration::from_millis(self.timeout_millis);
        let survey = Survey::take(&connection.pool()?, &connection.endpoints, limit).await?;
        let intent = survey.intent()?;
        let seen = Seen::of(survey, intent)?;
        check_shard(&seen.survey, self.shard())?;
        Ok(seen)
    }

    fn changer(&self, seen: &Seen) -> Result<Changer, Failure> {
        changer(
            &seen.survey,
            &self.connection,
            self.timeout_millis,
            &self.pace,
        )
    }

    /// Refuses what something speaks against, unless it is meant and will last.
    fn weigh(&self, seen: &Seen, objections: &[String]) -> Result<(), Failure> {
        if objections.is_empty() {
            return Ok(());
        }
        let against: String = { objections.iter() }
            .map(|objection| format!("\n  {}", seen.named(objection)))
            .collect();
        if seen.survey.is_automatic() {
            return Err(Failure::input(format!(
                "shard {}: this should not be, and the cluster, which moves replicas by itself, would \
                 undo it:{against}\nNothing was changed; set another policy (`synod placement \
                 policy`), or run `synod placement auto off` first, and then this with --anyway",
                self.shard
            )));
        }
        if self.anyway {
            return Ok(());
        }
        Err(Failure::input(format!(
            "shard {}: this should not be:{against}\nNothing was changed; --anyway does it all the \
             same",
            self.shard
        )))
    }
}

/// What the planner refuses, with the names of nodes.
fn refused(seen: &Seen, error: &MoveError) -> Failure {
    let text = seen.named(&error.to_string());
    Failure::input(format!("{text}. Nothing was changed"))
}

/// Moves one replica.
pub async fn run(args: MoveArgs) -> Result<Status, Failure> {
    unless_interrupted(async {
        let shard = args.common.shard();
        let seen = args.common.look().await?;
        let to = seen.survey.node(&args.to)?;
        let from = args.from.as_deref().map(|name| seen.survey.node(name));
        let from = from.transpose()?;
        let members = members(&seen, shard);
        let is_there = members.get(&to).is_some_and(|role| role.votes());
        if is_there && from.is_none_or(|from| !members.contains_key(&from)) {
            println!("shard {}: {} has a replica of it already", shard.0, args.to);
            return Ok(Status::Done);
        }
        let proposed = propose_move(&seen.view, shard, from, to);
        let proposed = proposed.map_err(|error| refused(&seen, &error))?;
        args.common.weigh(&seen, &proposed.objections)?;
        let changer = args.common.changer(&seen)?;
        let gone = go(&changer, &seen, shard, to, &proposed).await;
        gone.map_err(|why| stopped(shard, why))?;
        changer.gone(shard).await?;
        let now = changer.now(shard).await?;
        println!(
            "shard {}: {} has replaced {}, in configuration {}",
            shard.0,
            args.to,
            changer.name(proposed.out),
            now.epoch.0
        );
        Ok(Status::Done)
    })
    .await
}

fn members(seen: &Seen, shard: GroupId) -> Roles {
    let of = seen.view.shards.iter().find(|of| of.id == shard);
    of.map(|of| of.replicas.clone()).unwrap_or_default()
}

/// The steps of the move, each told before it is gone.
async fn go(
    changer: &Changer,
    seen: &Seen,
    shard: GroupId,
    to: NodeId,
    proposed: &Move,
) -> Result<(), Stopped> {
    let Move { out, role, .. } = *proposed;
    let mut planned = members(seen, shard);
    let is_new = !planned.contains_key(&to);
    let add = is_new.then_some(Change::AddLearner {
        node: to,
        later: role,
    });
    let replace = match role {
        Role::Learner => Change::RemoveLearner { node: out },
        role => Change::Swap {
            out,
            into: to,
            role,
        },
    };
    for change in add.into_iter().chain([replace]) {
        let step = Step {
            shard,
            change,
            aim: Aim::Policy,
        };
        println!("{}", seen.named(&step.to_string()));
        let made = changer.make(shard, &planned, &step.change).await;
        if let (Err(Stopped::Failed(Trouble::Failed(_))), Change::AddLearner { .. }) =
            (&made, &step.change)
        {
            println!(
                "shard {}: {} is a learner of it still; run the command again to go on, or the \
                 cluster gives it up",
                shard.0,
                changer.name(to)
            );
        }
        made?;
        if let Some(after) = step.change.roles_after(&planned) {
            planned = after;
        }
    }
    Ok(())
}

/// Hands one leadership over.
pub async fn transfer(args: TransferArgs) -> Result<Status, Failure> {
    unless_interrupted(async {
        let shard = args.common.shard();
        let seen = args.common.look().await?;
        let to = args.node.as_deref().map(|name| seen.survey.node(name));
        let proposed = propose_leader(&seen.view, shard, to.transpose()?);
        let (to, objections) = proposed.map_err(|error| refused(&seen, &error))?;
        let leader = seen.survey.leader(shard).map(|(leader, _)| leader);
        if leader == Some(to) {
            println!(
                "shard {}: {} leads it already",
                shard.0,
                seen.survey.name(to)
            );
            return Ok(Status::Done);
        }
        args.common.weigh(&seen, &objections)?;
        let step = Step {
            shard,
            change: Change::TransferLeader { from: leader, to },
            aim: Aim::Policy,
        };
        println!("{}", seen.named(&step.to_string()));
        let changer = args.common.changer(&seen)?;
        let members = members(&seen, shard);
        let made = changer.make(shard, &members, &step.change).await;
        made.map_err(|why| stopped(shard, why))?;
        println!("shard {}: {} leads it now", shard.0, changer.name(to));
        Ok(Status::Done)
    })
    .await
}
