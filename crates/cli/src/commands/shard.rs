//! `synod shard`: shards are split, by hand or by themselves, merged and moved.

use super::records::{ANSWER, telling};
use super::status::{end_key, first_key};
use super::{cluster, loads, merge, moves};
use crate::bytes;
use crate::connection::{Connection, ConnectionArgs};
use crate::exit::{Failure, Status};
use std::time::{Duration, Instant};
use synod_operate::{Splitter, Survey};
use synod_paxos::GroupId;
use synod_rpc::{Pool, ask};
use synod_shard::wire::{ShardDescriptor, ShardMap, show_key};
use synod_shard::{META_SHARD, RESERVED_PREFIX, SplitError};
use synod_txn::{Key, MAX_KEY_BYTES, Span};
use tokio::task::JoinSet;

/// Between two questions.
const POLL: Duration = Duration::from_millis(50);
/// After so long without an end the map is looked at again.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// How long a node may take to answer where another one may do.
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

/// A shard's number on the command line.
pub(super) fn number(text: &str) -> Result<u64, String> {
    let refuse = |_| "that is not a shard's number, as `synod shard list` shows it".to_owned();
    text.parse().map_err(refuse)
}

/// `synod shard split …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod shard split --at accounts/5 --endpoint 127.0.0.1:7101 --certs certs
  synod shard split 3 --at \"x'00ff'\" --timeout 10s --endpoint 127.0.0.1:7101 --certs certs")]
pub struct SplitArgs {
    /// The shard's number, as `synod status` shows it; without it, the one that KEY lies in
    #[arg(value_name = "SHARD", value_parser = number)]
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
    /// It is that now.
    Made(Cut),
}

/// A shard that was cut in two.
pub(super) struct Cut {
    /// The half that stays as it was, if that is known.
    kept: Option<(GroupId, Span)>,
    /// The new shard.
    new: (GroupId, Span),
    /// Who leads that one.
    leader: String,
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
        Border::Made(cut) => tell(&cut, begun.elapsed()),
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
        let survey = whole_map(pool, connection, deadline).await?;
        let map = &survey.map;
        let parent = match find(map, shard, at)? {
            Found::Begins(child) if claimed == Some(child.id) => child,
            Found::Begins(shard) => return Ok(Border::Was(shard)),
            Found::Inside(parent) => parent,
        };
        if let Some((leader, _)) = survey.leader(parent.id) {
            splitter = splitter.led_by(leader);
        }
        let id = match claimed {
            Some(id) => id,
            None => {
                check_version(pool, connection, deadline).await?;
                let nonce = uuid::Uuid::new_v4().as_u128();
                *claimed.insert(splitter.claim(map, nonce).await?)
            }
        };
        if parent.id == id || splitter.press(map, &parent, id, LOOK).await? {
            let leader = led(pool, map, id, deadline);
            let leader = telling("the new shard to have a leader", leader).await?;
            return Ok(Border::Made(Cut::of(map, &parent, at, id, leader)));
        }
        if Instant::now() >= deadline {
            return Err(Failure::failed(format!(
                "shard {} was not split in time ({}); it may still be: run the command again, that \
                 is harmless",
                parent.id.0,
                splitter.why()
            )));
        }
    }
}

impl Cut {
    /// Of the shard `from` at this key; `from` may be the new one already.
    fn of(map: &ShardMap, from: &ShardDescriptor, at: &Key, id: GroupId, leader: String) -> Cut {
        let before = map.shards.iter().position(|s| s.id == from.id);
        let before = before.and_then(|at| map.shards.get(at.checked_sub(1)?));
        let kept = if from.id == id { before } else { Some(from) };
        let kept = kept.map(|shard| {
            // A node may have told of one half only.
            let span = Span {
                start: shard.span.start.clone(),
                end: at.clone(),
            };
            (shard.id, span)
        });
        let span = Span {
            start: at.clone(),
            end: from.span.end.clone(),
        };
        Cut {
            kept,
            new: (id, span),
            leader,
        }
    }
}

/// Says what was done.
fn tell(cut: &Cut, took: Duration) {
    for (id, span) in cut.kept.iter().chain([&cut.new]) {
        println!("shard {}: {}", id.0, range(span));
    }
    println!(
        "shard {} is led by {}, {} ms after the command began",
        cut.new.0.0,
        cut.leader,
        took.as_millis()
    );
}

/// No id is spent on a split that the cluster's version does not allow.
async fn check_version(
    pool: &Pool,
    connection: &Connection,
    until: Instant,
) -> Result<(), Failure> {
    let since = synod_txn::Command::SPLIT_SINCE;
    let refusal = |at| SplitError::Version { at, since };
    cluster::check_version(pool, connection, until, since, refusal).await
}

/// What all nodes say, once they know the whole map together; of a split they may know one half
/// for a moment.
pub(super) async fn whole_map(
    pool: &Pool,
    connection: &Connection,
    deadline: Instant,
) -> Result<Survey, Failure> {
    let whole = try_whole_map(pool, connection, deadline);
    telling("nodes to tell all of the shard map", whole).await
}

async fn try_whole_map(
    pool: &Pool,
    connection: &Connection,
    deadline: Instant,
) -> Result<Survey, Failure> {
    // Nodes that are down are not waited for as long as slow ones, unless nothing else helps.
    let mut limit = GLANCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let survey = Survey::take(pool, &connection.endpoints, limit.min(left)).await;
        let late = Instant::now() >= deadline;
        match survey {
            Ok(survey) if late || survey.map.is_whole() => return Ok(survey),
            Err(trouble) if late => return Err(trouble.into()),
            _ => tokio::time::sleep(POLL).await,
        }
        limit = (limit * 2).min(ANSWER);
    }
}

/// Waits until one of the nodes leads the new shard, whatever the others do; returns its name.
async fn led(
    pool: &Pool,
    map: &ShardMap,
    id: GroupId,
    deadline: Instant,
) -> Result<String, Failure> {
    loop {
        let mut asked = JoinSet::new();
        for node in map.nodes.clone() {
            let pool = pool.clone();
            asked.spawn(async move {
                let status = ask::status(&pool, node.address, GLANCE).await.ok()?;
                let leads = { status.shards.iter() }.any(|s| s.id == id && s.in_office);
                leads.then_some(node.name)
            });
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(Some(leader)) = answer {
                return Ok(leader);
            }
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
    use synod_paxos::{Configuration, NodeId};

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
    fn a_cut_is_told_from_either_half() {
        let (map, at) = (map(), Key::from_static(b"g"));
        // The node that told of it knew the whole shard, or the new one only.
        let parent = shard(2, b"", b"m");
        for from in [&parent, &map.shards[1]] {
            let cut = Cut::of(&map, from, &at, GroupId(3), "n1".to_owned());
            let (kept, span) = cut.kept.expect("the left half");
            assert_eq!((kept.0, range(&span).as_str()), (2, "(start) to g"));
            assert_eq!(cut.new.0, GroupId(3));
            assert_eq!(
                cut.new.1,
                Span {
                    start: at.clone(),
                    end: from.span.end.clone()
                }
            );
        }
    }

    #[test]
    fn ranges_are_shown_with_their_ends() {
        let shown = |shard: ShardDescriptor| range(&shard.span);
        assert_eq!(shown(shard(2, b"", b"g")), "(start) to g");
        assert_eq!(shown(shard(2, b"g", b"")), "g to (end)");
    }
}
