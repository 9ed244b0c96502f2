//! `synod shard`: shards are split, by hand or by themselves, merged and moved.

use super::records::ANSWER;
use super::status::{end_key, first_key};
use super::{cluster, loads, merge, moves};
use crate::bytes;
use crate::connection::{Connection, ConnectionArgs};
use crate::exit::{Failure, Status};
use std::time::{Duration, Instant};
use synod_operate::{Splitter, Survey};
use synod_paxos::{GroupId, NodeId};
use synod_rpc::Pool;
use synod_shard::wire::{ShardDescriptor, ShardMap, show_key};
use synod_shard::{META_SHARD, RESERVED_PREFIX, SplitError};
use synod_txn::{Key, MAX_KEY_BYTES, Span};

/// Between two questions.
const POLL: Duration = Duration::from_millis(50);
/// After so long without an end the map is looked at again.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// How long a node may take to say whether it leads the new shard.
const GLANCE: Duration = Duration::from_millis(500);

/// `synod shard …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod shard split --at accounts/5 --endpoint 127.0.0.1:7101 --certs certs
  synod shard split 3 --at \"x'00ff'\" --endpoint 127.0.0.1:7101 --certs certs
  synod shard merge 2 --endpoint 127.0.0.1:7101 --certs certs
  synod shard move 3 --to n4 --endpoint 127.0.0.1:7101 --certs certs
  synod shard transfer-leader 3 n2 --endpoint 127.0.0.1:7101 --certs certs
  synod shard list --endpoint 127.0.0.1:7101 --certs certs
  synod shard auto --size 1GiB --endpoint 127.0.0.1:7101 --certs certs

The cluster splits shards by itself that hold too much or are asked too often, and makes
neighbours one that have been cold for long; `auto` says from when on. That goes for shards from
`split`, too. When `split` cuts one: the keys from KEY on become a new shard, on the same nodes; nothing is copied, and both halves
serve on. Commits to the shard wait for a moment. It returns once the new shard has a leader; running
it again is harmless. `merge` makes a shard and its right neighbour one again, if both are on the same
nodes.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Cut a shard in two
    Split(SplitArgs),
    /// Make two neighbouring shards one
    Merge(merge::MergeArgs),
    /// Put a shard's replica on another node
    Move(moves::MoveArgs),
    /// Let another voter lead a shard
    TransferLeader(moves::TransferArgs),
    /// Show every shard's size and load, and what the cluster splits and merges by
    /// itself
    List(loads::ListArgs),
    /// Show or set when the cluster splits and merges shards by itself, and how fast it copies them
    Auto(loads::AutoArgs),
}

/// `synod shard split …`
#[derive(Debug, clap::Args)]
pub struct SplitArgs {
    /// The shard's number, as `synod status` shows it; without it, the one that KEY lies in
    #[arg(value_name = "SHARD")]
    shard: Option<u64>,
    /// The first key of the new shard: text, or x'hex'
    #[arg(long, value_name = "KEY", value_parser = bytes::parse)]
    at: bytes::Given,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs one of them.
pub async fn run(args: Args) -> Result<Status, Failure> {
    match args.command {
        Command::Split(args) => split(args).await,
        Command::Merge(args) => merge::run(args).await,
        Command::Move(args) => moves::run(args).await,
        Command::TransferLeader(args) => moves::transfer(args).await,
        Command::List(args) => loads::list(args).await,
        Command::Auto(args) => loads::auto(args).await,
    }
}

/// What is at the key.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// A shard that can be cut there.
    Inside(ShardDescriptor),
    /// The beginning of one.
    Begins(ShardDescriptor),
}

/// Looks for the shard that is to be cut.
fn find(map: &ShardMap, wanted: Option<GroupId>, at: &Key) -> Result<Found, Failure> {
    if at.is_empty() || at.len() > MAX_KEY_BYTES {
        return Err(Failure::input(format!(
            "--at: a key has 1 to {MAX_KEY_BYTES} bytes, this one has {}",
            at.len()
        )));
    }
    if let Some(id) = wanted.filter(|id| map.shard(*id).is_none()) {
        let ids = map.shards.iter().map(|s| s.id.0.to_string());
        return Err(Failure::input(format!(
            "there is no shard {}; there are {}",
            id.0,
            ids.collect::<Vec<_>>().join(", ")
        )));
    }
    if wanted == Some(META_SHARD) || at.starts_with(RESERVED_PREFIX) {
        return Err(Failure::input(
            "the meta shard, from the bytes ff ff on, holds the cluster's own records and stays whole",
        ));
    }
    let owner = map.shard_of(at).ok_or_else(|| {
        Failure::cluster(
            "no node that answers knows whose the key is; see `synod status`, and run the command \
             again",
        )
    })?;
    if owner.span.start == *at {
        return Ok(Found::Begins(owner.clone()));
    }
    match wanted {
        Some(id) if id != owner.id => Err(Failure::input(format!(
            "{} lies in shard {}, not in shard {}: leave SHARD out, or name another key",
            show_key(at),
            owner.id.0,
            id.0
        ))),
        _ => Ok(Found::Inside(owner.clone())),
    }
}

/// A range, for people.
pub(super) fn range(span: &Span) -> String {
    let (start, end) = (show_key(&span.start), show_key(&span.end));
    format!("{} to {}", first_key(&start), end_key(&end))
}

/// What became of a key as the first one of a shard.
pub(super) enum Border {
    /// It was that already.
    Was(ShardDescriptor),
    /// It is that now; who leads the new shard.
    Made(Box<Survey>, GroupId, NodeId),
}

async fn split(args: SplitArgs) -> Result<Status, Failure> {
    let begun = Instant::now();
    let connection = args.connection.resolve()?;
    let pool = connection.pool()?;
    let at = Key::from(args.at.0);
    let shard = args.shard.map(GroupId);
    match split_at(&pool, &connection, shard, &at, begun + args.timeout).await? {
        Border::Was(shard) => println!(
            "shard {} begins there already: {}",
            shard.id.0,
            range(&shard.span)
        ),
        Border::Made(survey, id, leader) => tell(&survey, &at, id, leader, begun.elapsed()),
    }
    Ok(Status::Done)
}

/// Cuts the shard with this key there, unless one begins there, and waits until both have leaders.
pub(super) async fn split_at(
    pool: &Pool,
    connection: &Connection,
    shard: Option<GroupId>,
    at: &Key,
    deadline: Instant,
) -> Result<Border, Failure> {
    let mut splitter = Splitter::new(pool, &connection.endpoints, at.clone(), deadline);
    let mut claimed = None;
    loop {
        let map = whole_map(pool, connection, deadline).await?;
        let parent = match find(&map, shard, at)? {
            Found::Begins(child) if claimed == Some(child.id) => child,
            Found::Begins(shard) => return Ok(Border::Was(shard)),
            Found::Inside(parent) => parent,
        };
        let id = match claimed {
            Some(id) => id,
            None => {
                check_version(pool, connection).await?;
                let nonce = uuid::Uuid::new_v4().as_u128();
                *claimed.insert(splitter.claim(&map, nonce).await?)
            }
        };
        let done = parent.id == id || splitter.press(&map, &parent, id, LOOK).await?;
        if done {
            let (survey, leader) = led(pool, connection, id, deadline).await?;
            return Ok(Border::Made(Box::new(survey), id, leader));
        }
        if Instant::now() >= deadline {
            return Err(Failure::failed(format!(
                "shard {} was not split in time: {}. It may still be; run the command again: that \
                 is harmless",
                parent.id.0,
                splitter.why()
            )));
        }
    }
}

/// Says what was done.
fn tell(survey: &Survey, at: &Key, id: GroupId, leader: NodeId, took: Duration) {
    let shards = &survey.map.shards;
    let child = shards.iter().position(|s| s.id == id);
    let before = child.and_then(|child| shards.get(child.checked_sub(1)?));
    if let (Some(parent), Some(child)) = (before, child.map(|child| &shards[child])) {
        // A node may have told of one half only.
        let kept = Span {
            start: parent.span.start.clone(),
            end: at.clone(),
        };
        println!("shard {}: {}", parent.id.0, range(&kept));
        println!("shard {}: {}", id.0, range(&child.span));
    }
    println!(
        "shard {} is led by {}, {} ms after the command began",
        id.0,
        survey.name(leader),
        took.as_millis()
    );
}

/// No id is spent on a split that the cluster's version does not allow.
async fn check_version(pool: &Pool, connection: &Connection) -> Result<(), Failure> {
    let since = synod_txn::Command::SPLIT_SINCE;
    let refusal = |at| SplitError::Version { at, since };
    cluster::check_version(pool, connection, since, refusal).await
}

/// The map as all nodes know it together; of a split they may know one half for a moment.
pub(super) async fn whole_map(
    pool: &Pool,
    connection: &Connection,
    deadline: Instant,
) -> Result<ShardMap, Failure> {
    loop {
        let survey = Survey::take(pool, &connection.endpoints, ANSWER).await;
        let late = Instant::now() >= deadline;
        match survey {
            Ok(survey) if late || survey.map.is_whole() => return Ok(survey.map),
            Err(trouble) if late => return Err(trouble.into()),
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

/// Waits until the new shard has a leader in office.
async fn led(
    pool: &Pool,
    connection: &Connection,
    id: GroupId,
    deadline: Instant,
) -> Result<(Survey, NodeId), Failure> {
    loop {
        let survey = Survey::take(pool, &connection.endpoints, GLANCE).await;
        if let Ok(survey) = survey
            && survey.map.shard(id).is_some()
            && let Some((leader, _)) = survey.leader(id)
        {
            return Ok((survey, leader));
        }
        if Instant::now() >= deadline {
            return Err(Failure::failed(format!(
                "the shard is split, but the new one, {}, has no leader yet; look at `synod \
                 status`",
                id.0
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_paxos::Configuration;

    fn shard(id: u64, start: &'static [u8], end: &'static [u8]) -> ShardDescriptor {
        ShardDescriptor {
            id: GroupId(id),
            span: Span {
                start: Key::from_static(start),
                end: Key::from_static(end),
            },
            generation: 1,
            configuration: Configuration::of_voters(vec![NodeId(1)]),
            preferred_leader: NodeId(1),
            born: None,
        }
    }

    fn map() -> ShardMap {
        ShardMap {
            nodes: Vec::new(),
            shards: vec![
                shard(2, b"", b"g"),
                shard(3, b"g", b"\xff\xff"),
                shard(1, b"\xff\xff", b""),
            ],
        }
    }

    fn found(wanted: Option<u64>, at: &[u8]) -> Result<(bool, u64), String> {
        let found = find(&map(), wanted.map(GroupId), &Key::copy_from_slice(at));
        match found.map_err(|failure| failure.to_string())? {
            Found::Inside(shard) => Ok((true, shard.id.0)),
            Found::Begins(shard) => Ok((false, shard.id.0)),
        }
    }

    #[test]
    fn the_shard_is_found_by_the_key() {
        assert_eq!(found(None, b"c"), Ok((true, 2)));
        assert_eq!(found(Some(3), b"gg"), Ok((true, 3)));
        // What is there already, whichever of both sides is named.
        for wanted in [None, Some(2), Some(3)] {
            assert_eq!(found(wanted, b"g"), Ok((false, 3)));
        }
    }

    #[test]
    fn what_cannot_be_cut_is_refused_with_reasons() {
        for (wanted, at, said) in [
            (None, &b""[..], "1 to 8192 bytes"),
            (None, &[7; MAX_KEY_BYTES + 1], "this one has 8193"),
            (Some(9), b"c", "there are 2, 3, 1"),
            (Some(1), b"c", "stays whole"),
            (None, b"\xff\xff/nodes", "stays whole"),
            (Some(3), b"c", "lies in shard 2, not in shard 3"),
        ] {
            let refused = found(wanted, at).expect_err(said);
            assert!(refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn ranges_are_shown_with_their_ends() {
        let shown = |shard: ShardDescriptor| range(&shard.span);
        assert_eq!(shown(shard(2, b"", b"g")), "(start) to g");
        assert_eq!(shown(shard(2, b"g", b"")), "g to (end)");
    }
}
