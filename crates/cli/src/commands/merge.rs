//! `synod shard merge`: two neighbouring shards become one.

use super::cluster;
use super::loads::show_hashing;
use super::shard::{LOOK, number, range, whole_map};
use crate::connection::{Connection, ConnectionArgs};
use crate::exit::{Failure, Status};
use std::time::{Duration, Instant};
use synod_operate::{Merger, Survey, Trouble};
use synod_rpc::Pool;
use synod_shard::wire::{RESERVED_PREFIX, ShardDescriptor, ShardMap};
use synod_shard::{META_SHARD, MergeError};
use synod_txn::Span;

/// `synod shard merge …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod shard merge 2 --endpoint 127.0.0.1:7101 --certs certs
  synod shard merge 2 5 --timeout 10s --endpoint 127.0.0.1:7101 --certs certs")]
pub struct MergeArgs {
    /// The shard that stays, by its number, as `synod shard list` shows it
    #[arg(value_name = "SHARD", value_parser = number)]
    left: u64,
    /// The one that becomes part of it; without it, the one that begins where SHARD ends
    #[arg(value_name = "RIGHT", value_parser = number)]
    right: Option<u64>,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// The shard and its right neighbour.
fn find(
    map: &ShardMap,
    left: u64,
    right: Option<u64>,
) -> Result<(ShardDescriptor, ShardDescriptor), Failure> {
    let Some(at) = map.shards.iter().position(|s| s.id.0 == left) else {
        let ids = map.shards.iter().map(|s| s.id.0.to_string());
        return Err(Failure::input(format!(
            "there is no shard {left}; there are {}",
            ids.collect::<Vec<_>>().join(", ")
        )));
    };
    let meta = "the meta shard, from the bytes ff ff on, holds the cluster's own records and is not \
                merged with others";
    let shard = map.shards[at].clone();
    if shard.id == META_SHARD {
        return Err(Failure::input(meta));
    }
    let next = map.shards.get(at + 1);
    let next = next.filter(|next| next.span.start == shard.span.end);
    let Some(next) = next.cloned() else {
        return Err(Failure::input(format!(
            "shard {left}, {}, has no neighbour on its right",
            range(&shard.span)
        )));
    };
    if right.is_some_and(|right| right != next.id.0) {
        return Err(Failure::input(format!(
            "shard {left} ends where shard {} begins, not shard {}: name neighbours, the left one first",
            next.id.0,
            right.unwrap_or_default()
        )));
    }
    if next.id == META_SHARD || next.span.start.starts_with(RESERVED_PREFIX) {
        return Err(Failure::input(format!(
            "on the right of shard {left} is only the meta shard: {meta}"
        )));
    }
    Ok((shard, next))
}

/// Whether a shard's keys are all another one's.
fn is_within(inner: &Span, outer: &Span) -> bool {
    let ends = outer.end.is_empty() || (!inner.end.is_empty() && inner.end <= outer.end);
    outer.contains(&inner.start) && ends
}

/// Refuses shards on different nodes, by name.
fn check_members(
    survey: &Survey,
    left: &ShardDescriptor,
    right: &ShardDescriptor,
) -> Result<(), Failure> {
    let named = |shard: &ShardDescriptor| {
        let members = shard.configuration.members();
        let names = members.map(|node| survey.name(node).to_string());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names.join(", ")
    };
    let (here, there) = (named(left), named(right));
    if here == there {
        return Ok(());
    }
    Err(Failure::input(format!(
        "shard {} is on {here}, and shard {} on {there}: only shards on the same nodes are merged; move the \
         replicas of one of them first (`synod shard move`)",
        left.id.0, right.id.0
    )))
}

/// Runs it.
pub async fn run(args: MergeArgs) -> Result<Status, Failure> {
    let begun = Instant::now();
    let deadline = begun + args.timeout;
    let connection = args.connection.resolve()?;
    let pool = connection.pool()?;
    let survey = whole_map(&pool, &connection, deadline).await?;
    let (mut left, right) = find(&survey.map, args.left, args.right)?;
    check_version(&pool, &connection, deadline).await?;
    check_members(&survey, &left, &right)?;
    let mut merger = Merger::new(&pool, right.id, deadline);
    if let Some((leader, _)) = survey.leader(left.id) {
        merger = merger.led_by(leader);
    }
    let mut map = survey.map;
    loop {
        match merger.press(&map, &left, LOOK).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(trouble) => return Err(refused(&pool, &map, &left, &right, trouble).await),
        }
        if Instant::now() >= deadline {
            return Err(Failure::failed(format!(
                "shards {} and {} were not merged in time ({}); they may still be: run the command \
                 again, that is harmless",
                left.id.0,
                right.id.0,
                merger.why()
            )));
        }
        map = whole_map(&pool, &connection, deadline).await?.map;
        let now = map.shard(left.id).cloned();
        let Some(now) = now else {
            return Err(Failure::failed(format!(
                "shard {} is part of another one by now; see `synod shard list`",
                left.id.0
            )));
        };
        if is_within(&right.span, &now.span) {
            break;
        }
        left = now;
    }
    let span = Span {
        start: left.span.start.clone(),
        end: right.span.end.clone(),
    };
    println!(
        "shard {}: {}; shard {} is part of it, {} ms after the command began",
        left.id.0,
        range(&span),
        right.id.0,
        begun.elapsed().as_millis()
    );
    Ok(Status::Done)
}

/// Why it cannot be; with how both shards' keys are stored, if that differs.
async fn refused(
    pool: &Pool,
    map: &ShardMap,
    left: &ShardDescriptor,
    right: &ShardDescriptor,
    trouble: Trouble,
) -> Failure {
    if trouble != Trouble::Input(MergeError::OtherSharding.to_string()) {
        return trouble.into();
    }
    let stored = synod_operate::hashed(pool, map).await;
    let told = [left, right].map(|shard| match stored.get(&shard.id) {
        Some(hashing) => format!("shard {}'s by {}", shard.id.0, show_hashing(hashing)),
        None => format!("shard {}'s as they are", shard.id.0),
    });
    Failure::input(format!("{trouble}. Keys are stored: {}", told.join(", ")))
}

/// Nothing is begun that the cluster's version does not allow.
async fn check_version(
    pool: &Pool,
    connection: &Connection,
    until: Instant,
) -> Result<(), Failure> {
    let since = synod_txn::Command::MERGE_SINCE;
    let refusal = |at| MergeError::Version { at, since };
    cluster::check_version(pool, connection, until, since, refusal).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_paxos::{Configuration, GroupId, NodeId};
    use synod_txn::Key;

    fn map() -> ShardMap {
        let shard = |id: u64, start: &'static [u8], end: &'static [u8]| ShardDescriptor {
            id: GroupId(id),
            span: Span {
                start: Key::from_static(start),
                end: Key::from_static(end),
            },
            generation: 1,
            configuration: Configuration::of_voters(vec![NodeId(1)]),
            preferred_leader: NodeId(1),
            born: None,
        };
        ShardMap {
            nodes: Vec::new(),
            shards: vec![
                shard(2, b"", b"g"),
                shard(3, b"g", b"\xff\xff"),
                shard(1, b"\xff\xff", b""),
            ],
        }
    }

    #[test]
    fn neighbours_are_found_and_others_refused() {
        for right in [None, Some(3)] {
            let (left, right) = find(&map(), 2, right).expect("neighbours");
            assert_eq!((left.id.0, right.id.0), (2, 3));
            assert!(!is_within(&right.span, &left.span));
        }
        for (left, right, said) in [
            (9, None, "there are 2, 3, 1"),
            (1, None, "is not merged"),
            (3, None, "only the meta shard"),
            (2, Some(1), "ends where shard 3 begins, not shard 1"),
        ] {
            let refused = find(&map(), left, right).expect_err(said).to_string();
            assert!(refused.contains(said), "{refused}");
        }
    }
}
