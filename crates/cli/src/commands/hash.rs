//! `sharding = …` in a policy: a directory is made a shard of its own, its keys are stored
//! in another way, and it is cut at borders of slots (decision 22).

use super::cluster;
use super::records::ANSWER;
use super::shard::split_at;
use crate::connection::Connection;
use crate::exit::Failure;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use synod_client::Range;
use synod_operate::{hash, hashed, map};
use synod_placement::Sharding;
use synod_rpc::Pool;
use synod_shard::HashError;
use synod_shard::wire::{ShardMap, show_key};
use synod_txn::{Hashing, Key, Span};

/// How long all of it may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Shards that a hashed directory begins with, unless it has fewer slots.
const SHARDS: u16 = 8;

/// Has the keys that begin with `prefix` stored as `wanted` says. Running it again goes on.
pub async fn apply(
    pool: &Pool,
    connection: &Connection,
    prefix: &[u8],
    wanted: Sharding,
    policies: &BTreeMap<Vec<u8>, String>,
) -> Result<(), Failure> {
    let prefix = Key::copy_from_slice(prefix);
    if prefix.is_empty() {
        return Err(Failure::input(
            "`sharding` is of the keys that begin with a prefix: name it with --of. Nothing was \
             changed",
        ));
    }
    let hashing = match wanted {
        Sharding::Plain => None,
        Sharding::Hash(slots) => {
            let hashing = Hashing::new(prefix.clone(), slots.into());
            Some(hashing.map_err(Failure::input)?)
        }
    };
    let directory = Span::of_prefix(&prefix);
    let known = map(pool, &connection.endpoints, ANSWER).await?;
    let stored = hashed(pool, &known).await;
    let now = stored.values().find(|h| h.prefix == prefix);
    let deadline = Instant::now() + TIMEOUT;
    if now != hashing.as_ref() {
        let hashed = stored.values().map(|h| &h.prefix[..]);
        let policies = policies.keys().map(|other| &other[..]);
        let within = policies.filter(|other| hashing.is_some() && other.starts_with(&prefix));
        check_others(&prefix, hashed.chain(within))?;
        check_version(pool, connection, deadline).await?;
        check_keys(connection, &prefix).await?;
        check_shards(&known, &prefix)?;
        for border in [&directory.start, &directory.end] {
            split_at(pool, connection, None, border, deadline).await?;
        }
        let endpoints = &connection.endpoints;
        hash(pool, endpoints, &directory, hashing.as_ref(), deadline).await?;
    }
    match &hashing {
        Some(hashing) => {
            for cut in hashing.cuts(SHARDS) {
                split_at(pool, connection, None, &cut, deadline).await?;
            }
            println!(
                "the keys that begin with {} are spread over {} slots",
                show_key(&prefix),
                hashing.slots
            );
        }
        None => println!(
            "the keys that begin with {} are stored as they are",
            show_key(&prefix)
        ),
    }
    Ok(())
}

/// What would be refused anyway is refused before anything is split.
fn check_others<'a>(
    prefix: &Key,
    mut others: impl Iterator<Item = &'a [u8]>,
) -> Result<(), Failure> {
    let nested = |other: &&[u8]| {
        *other != prefix && (other.starts_with(prefix) || prefix.starts_with(other))
    };
    match others.find(nested) {
        None => Ok(()),
        Some(other) => Err(Failure::input(format!(
            "a hashed directory has no other directories within, and there is {}. Nothing was changed",
            show_key(&Key::copy_from_slice(other))
        ))),
    }
}

async fn check_version(
    pool: &Pool,
    connection: &Connection,
    until: Instant,
) -> Result<(), Failure> {
    let since = synod_txn::Command::HASH_SINCE;
    let refusal = |at| HashError::Version { at, since };
    cluster::check_version(pool, connection, until, since, refusal).await
}

async fn check_keys(connection: &Connection, prefix: &Key) -> Result<(), Failure> {
    let client = connection.client(ANSWER).await?;
    let page = client.scan_page(Range::prefix(prefix).limit(1)).await;
    let page = page.map_err(crate::sdk::failure)?;
    match page.rows.first() {
        None => Ok(()),
        Some((key, _)) => Err(Failure::input(format!(
            "only a directory without keys changes how they are stored, and there is {}. Nothing \
             was changed",
            show_key(key)
        ))),
    }
}

fn check_shards(map: &ShardMap, prefix: &Key) -> Result<(), Failure> {
    let inside = |start: &Key| start.starts_with(prefix) && start != prefix;
    let shards = map.shards.iter().filter(|shard| inside(&shard.span.start));
    match shards.count() {
        0 => Ok(()),
        more => Err(Failure::input(format!(
            "a directory changes how its keys are stored only while it is one shard, and this one is \
             {}: they would first have to be merged. Nothing was changed",
            more + 1
        ))),
    }
}
