//! `synod shard list|auto`: how large shards are and how much they are asked, when the
//! cluster splits and merges them by itself, and how fast it copies them.

use super::records::{acting, change_until};
use super::status::{end_key, first_key, table};
use crate::connection::ConnectionArgs;
use crate::exit::{Failure, Status};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use synod_operate::{Acting, map};
use synod_paxos::{GroupId, NodeId};
use synod_placement::{
    CopyRate, MergeLimit, MergeLimits, SettingError, ShardLoad, SplitLimit, SplitLimits,
    check_setting, default_setting,
};
use synod_rpc::load::{MergesStatus, SplitsStatus};
use synod_rpc::placement::RecordChange;
use synod_rpc::{Pool, ask};
use synod_shard::wire::{ShardMap, show_key};
use synod_txn::Hashing;

/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// `synod shard list …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod shard list --endpoint 127.0.0.1:7001 --certs certs")]
pub struct ListArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// `synod shard auto …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod shard auto --endpoint 127.0.0.1:7001 --certs certs
  synod shard auto --size 1GiB --load 50000 --endpoint 127.0.0.1:7001 --certs certs
  synod shard auto --size 0 --load 0 --endpoint 127.0.0.1:7001 --certs certs
  synod shard auto --merge-size 32MiB --merge-after 10m --endpoint 127.0.0.1:7001 --certs certs
  synod shard auto --merge-size 0 --endpoint 127.0.0.1:7001 --certs certs
  synod shard auto --copy-rate 16MiB --endpoint 127.0.0.1:7001 --certs certs

Without a setting they are shown. 0 is never, `default` takes a setting away. What is changed
holds from the next look on, within placement.look_seconds (for merges, a minute); what is under
way goes on.

Neighbours become one again that are on the same nodes, hold no more than shard.merge_size
together (and a quarter of shard.split_size), and are asked no more than a twentieth of
shard.split_load, if that has been so for shard.merge_after. The cluster's first borders, from
`synod init`, stay, and those of directories with a policy; others, drawn by
`synod shard split` too, are given up. --merge-size 0 keeps them all.")]
pub struct AutoArgs {
    /// shard.split_size: split a shard that holds more; such as 256MiB or 1GiB
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    size: Option<Given>,
    /// shard.split_load: split a shard that is asked more often each second
    #[arg(long, value_name = "REQUESTS", value_parser = parse_number)]
    load: Option<Given>,
    /// shard.max_shards: split none once the cluster has so many
    #[arg(long, value_name = "SHARDS", value_parser = parse_number)]
    max_shards: Option<Given>,
    /// shard.merge_size: merge neighbours that hold no more than this together; such as 64MiB
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    merge_size: Option<Given>,
    /// shard.merge_after: merge them once they have been cold for so long; such as 60m, or seconds
    #[arg(long, value_name = "DURATION", value_parser = parse_seconds)]
    merge_after: Option<Given>,
    /// shard.copy_rate: bytes of copies of shards that each node sends in a second, at most
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    copy_rate: Option<Given>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// A value, or none for the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Given(Option<u64>);

fn parse_number(text: &str) -> Result<Given, String> {
    if text == "default" {
        return Ok(Given(None));
    }
    let refuse = |_| format!("`{text}` is no whole number, and not `default`");
    text.parse().map(|n| Given(Some(n))).map_err(refuse)
}

/// Units of sizes, and how many bits they are larger than a byte.
const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

fn parse_bytes(text: &str) -> Result<Given, String> {
    let unit = UNITS
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let bytes = match unit {
        Some((digits, shift)) => {
            { digits.parse::<u64>().ok() }.and_then(|n| n.checked_mul(1 << shift))
        }
        None if text == "default" => return Ok(Given(None)),
        None => text.parse().ok(),
    };
    let refuse = || {
        format!(
            "`{text}` is no size, and not `default`: write a whole number of bytes, or one of KiB, \
             MiB, GiB or TiB, for instance 256MiB"
        )
    };
    bytes.map(|bytes| Given(Some(bytes))).ok_or_else(refuse)
}

/// A number of bytes in the largest unit in which it is a whole one.
fn in_units(bytes: u64) -> String {
    let whole = |(_, shift): &(&str, u32)| bytes > 0 && bytes.trailing_zeros() >= *shift;
    let unit = UNITS.into_iter().find(whole);
    unit.map_or_else(
        || bytes.to_string(),
        |(unit, shift)| format!("{}{unit}", bytes >> shift),
    )
}

/// Refuses what a setting may not be, with sizes in the units in which they are given.
fn check(name: &str, value: Option<u64>) -> Result<(), Failure> {
    let sizes = [
        SplitLimit::Size.name(),
        MergeLimit::Size.name(),
        CopyRate::NAME,
    ];
    match check_setting(name, value) {
        Ok(_) => Ok(()),
        Err(SettingError::Bounds {
            name,
            never,
            low,
            high,
            value,
        }) if sizes.contains(&name) => Err(Failure::input(format!(
            "{name} is {}from {} to {}; {} was asked for",
            if never { "0 (never), or " } else { "" },
            in_units(low),
            in_units(high),
            in_units(value)
        ))),
        Err(error) => Err(Failure::input(error)),
    }
}

/// Whole seconds, as a duration or as their number.
fn parse_seconds(text: &str) -> Result<Given, String> {
    if let Ok(given) = parse_number(text) {
        return Ok(given);
    }
    let duration = crate::duration::parse(text)?;
    if duration.subsec_nanos() > 0 {
        return Err(format!("`{text}` is no whole number of seconds"));
    }
    Ok(Given(Some(duration.as_secs())))
}

/// What is shown of a shard.
#[derive(Debug, Serialize)]
struct ShardRow {
    id: u64,
    start: String,
    end: String,
    leader: Option<String>,
    /// None: not known yet, or nobody tells.
    bytes: Option<u64>,
    requests_per_second: Option<u64>,
    /// The hashed directory that it is of.
    hashed: Option<String>,
}

/// What is shown of splits.
#[derive(Debug, Serialize)]
struct SplitsRow {
    settings: BTreeMap<&'static str, u64>,
    doing: Vec<String>,
    problems: Vec<String>,
    by_size: u64,
    by_load: u64,
    failed: u64,
}

/// What is shown of merges.
#[derive(Debug, Serialize)]
struct MergesRow {
    settings: BTreeMap<&'static str, u64>,
    doing: Vec<String>,
    problems: Vec<String>,
    merged: u64,
    failed: u64,
}

#[derive(Debug, Serialize)]
struct Shown {
    shards: Vec<ShardRow>,
    /// None while no node leads the meta shard.
    splits: Option<SplitsRow>,
    /// None also while an older program leads it.
    merges: Option<MergesRow>,
}

fn settings(limits: &SplitLimits) -> BTreeMap<&'static str, u64> {
    let all = SplitLimit::ALL.into_iter();
    all.map(|limit| (limit.name(), limits.get(limit))).collect()
}

fn merge_settings(limits: &MergeLimits) -> BTreeMap<&'static str, u64> {
    let all = MergeLimit::ALL.into_iter();
    all.map(|limit| (limit.name(), limits.get(limit))).collect()
}

/// Bytes for people: in the largest unit of which there are ten.
pub(super) fn show_bytes(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes >> shift >= 10);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(shift, unit)| format!("{} {unit}", bytes >> shift),
    )
}

/// A hashed directory, for people.
pub(super) fn show_hashing(hashing: &Hashing) -> String {
    format!("{}…, hash({})", show_key(&hashing.prefix), hashing.slots)
}

/// Asks all nodes for the shards that they lead.
async fn look(pool: &Pool, map: &ShardMap) -> Shown {
    let mut asked = tokio::task::JoinSet::new();
    for node in &map.nodes {
        let (pool, address) = (pool.clone(), node.address);
        asked.spawn(async move { ask::loads(&pool, address, None, ANSWER).await });
    }
    let mut known: BTreeMap<GroupId, (NodeId, ShardLoad)> = BTreeMap::new();
    let mut acting = None;
    for answer in asked.join_all().await.into_iter().flatten() {
        let of = answer.shards.into_iter();
        known.extend(of.map(|load| (load.shard, (answer.node, load))));
        acting = acting.or(answer.splits.map(|splits| (answer.node, splits)));
    }
    let hashed = synod_operate::hashed(pool, map).await;
    let (acting, splits) = acting.unzip();
    let merges = match acting.and_then(|acting| map.node(acting)) {
        // Last, as a program from before does not understand it.
        Some(acting) => ask::merges(pool, acting.address, ANSWER).await.ok(),
        None => None,
    };
    let name = |id: NodeId| {
        let node = map.node(id);
        node.map_or_else(|| id.to_string(), |node| node.name.clone())
    };
    let shards = map.shards.iter().map(|shard| {
        let known = known.get(&shard.id);
        ShardRow {
            id: shard.id.0,
            start: show_key(&shard.span.start),
            end: show_key(&shard.span.end),
            leader: known.map(|(node, _)| name(*node)),
            bytes: known.and_then(|(_, load)| load.bytes),
            requests_per_second: known.map(|(_, load)| load.requests),
            hashed: hashed.get(&shard.id).map(show_hashing),
        }
    });
    Shown {
        shards: shards.collect(),
        splits: splits.map(|splits: SplitsStatus| SplitsRow {
            settings: settings(&splits.limits),
            doing: splits.doing,
            problems: splits.problems,
            by_size: splits.by_size,
            by_load: splits.by_load,
            failed: splits.failed,
        }),
        merges: merges.flatten().map(|merges: MergesStatus| MergesRow {
            settings: merge_settings(&merges.limits),
            doing: merges.doing,
            problems: merges.problems,
            merged: merges.merged,
            failed: merges.failed,
        }),
    }
}

/// Shows all shards.
pub async fn list(args: ListArgs) -> Result<Status, Failure> {
    let connection = args.connection.resolve()?;
    let pool = connection.pool()?;
    let map = map(&pool, &connection.endpoints, ANSWER).await?;
    let shown = look(&pool, &map).await;
    if args.json {
        let text = serde_json::to_string_pretty(&shown).map_err(Failure::failed)?;
        println!("{text}");
        return Ok(Status::Done);
    }
    let titles = [
        "SHARD",
        "FROM",
        "TO",
        "LEADER",
        "SIZE",
        "REQUESTS/S",
        "HASHED",
    ];
    let mut shards = table(&titles);
    for shard in &shown.shards {
        let requests = shard.requests_per_second;
        shards.add_row([
            shard.id.to_string(),
            first_key(&shard.start),
            end_key(&shard.end),
            shard.leader.clone().unwrap_or_else(|| "none".to_owned()),
            shard.bytes.map_or_else(|| "?".to_owned(), show_bytes),
            requests.map_or_else(|| "?".to_owned(), |n| n.to_string()),
            shard.hashed.clone().unwrap_or_else(|| "no".to_owned()),
        ]);
    }
    println!("{shards}\n");
    let Some(splits) = &shown.splits else {
        println!("no node leads the meta shard: nothing is split or merged by itself now");
        return Ok(Status::Done);
    };
    tell_splits(splits);
    if let Some(merges) = &shown.merges {
        tell_merges(merges);
    }
    Ok(Status::Done)
}

fn tell_splits(splits: &SplitsRow) {
    tell_settings(&splits.settings);
    println!(
        "since this node leads the meta shard: {} split for their size, {} for their load; {} \
         attempts failed",
        splits.by_size, splits.by_load, splits.failed
    );
    tell_lines(&splits.doing, &splits.problems);
}

fn tell_merges(merges: &MergesRow) {
    println!();
    tell_settings(&merges.settings);
    println!(
        "since this node leads the meta shard: {} merged; {} attempts failed",
        merges.merged, merges.failed
    );
    tell_lines(&merges.doing, &merges.problems);
}

fn tell_lines(doing: &[String], problems: &[String]) {
    doing.iter().for_each(|line| println!("now: {line}"));
    { problems.iter() }.for_each(|line| println!("problem: {line}"));
}

fn tell_settings(settings: &BTreeMap<&'static str, u64>) {
    for (name, value) in settings {
        match value {
            0 => println!("{name} = 0 (never)"),
            value => println!("{name} = {value}"),
        }
    }
}

/// The settings as the node that acts knows them.
async fn limits(pool: &Pool, acting: &Acting) -> Option<SplitLimits> {
    // Beyond `never` there is no shard: only the settings are wanted.
    let none = SplitLimits {
        size: 0,
        load: 0,
        shards: 0,
    };
    let loads = ask::loads(pool, acting.address, Some(none), ANSWER).await;
    loads.ok()?.splits.map(|splits| splits.limits)
}

/// The same, what it tells all others about copies, and when it merges shards; that not if its
/// program is from before.
async fn all_settings(pool: &Pool, acting: &Acting) -> Option<BTreeMap<&'static str, u64>> {
    let mut all = settings(&limits(pool, acting).await?);
    let copies = ask::copies(pool, acting.address, None, ANSWER).await.ok()?;
    all.insert(CopyRate::NAME, copies.rate);
    let merges = ask::merges(pool, acting.address, ANSWER).await.ok();
    let merges = merges.flatten();
    all.extend(merges.into_iter().flat_map(|m| merge_settings(&m.limits)));
    Some(all)
}

/// Shows or changes the settings.
pub async fn auto(args: AutoArgs) -> Result<Status, Failure> {
    let connection = args.connection.resolve()?;
    let pool = connection.pool()?;
    let given = [
        (SplitLimit::Size.name(), args.size),
        (SplitLimit::Load.name(), args.load),
        (SplitLimit::Shards.name(), args.max_shards),
        (MergeLimit::Size.name(), args.merge_size),
        (MergeLimit::After.name(), args.merge_after),
        (CopyRate::NAME, args.copy_rate),
    ];
    let wanted = given
        .into_iter()
        .filter_map(|(name, given)| Some((name, given?.0)));
    let wanted: Vec<(&'static str, Option<u64>)> = wanted.collect();
    for (name, value) in &wanted {
        check(name, *value)?;
    }
    for (name, value) in wanted {
        let shows = async |acting: &Acting| {
            let now = all_settings(&pool, acting).await;
            let wanted = value.or_else(|| default_setting(name));
            now.is_some_and(|now| now.get(name).copied() == wanted)
        };
        let name = name.to_owned();
        let setting = RecordChange::Setting { name, value };
        change_until(&pool, &connection, setting, shows).await?;
    }
    let acting = acting(&pool, &connection).await?;
    let now = all_settings(&pool, &acting).await.ok_or_else(|| {
        Failure::cluster(
            "the node that leads the meta shard does not tell its settings; run the command again",
        )
    })?;
    tell_settings(&now);
    Ok(Status::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds() {
        for (text, seconds) in [
            ("1s", Some(1)),
            ("90", Some(90)),
            ("2m", Some(120)),
            ("60m", Some(3_600)),
            ("default", None),
        ] {
            assert_eq!(parse_seconds(text), Ok(Given(seconds)), "{text}");
        }
        for bad in ["", "x", "-1", "1500ms", "1.5"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_are_told_in_units() {
        let refused = check(SplitLimit::Size.name(), Some(1 << 60)).expect_err("too much");
        let text = refused.to_string();
        assert!(
            text.contains("iB to ") && text.contains("1048576TiB"),
            "{text}"
        );
        let refused = check(SplitLimit::Load.name(), Some(u64::MAX)).expect_err("too much");
        assert!(!refused.to_string().contains("iB"), "{refused}");
    }

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("1MiB", Some(1 << 20)),
            ("2GiB", Some(2 << 30)),
            ("512KiB", Some(512 << 10)),
            ("2TiB", Some(2 << 40)),
            ("default", None),
        ] {
            assert_eq!(parse_bytes(text), Ok(Given(bytes)), "{text}");
        }
        for bad in ["", "x", "-1", "1MB", "MiB", "99999999999GiB", "1.5GiB"] {
            let refused = parse_bytes(bad).expect_err(bad);
            assert!(refused.contains("KiB, MiB, GiB or TiB"), "{refused}");
        }
        assert_eq!(show_bytes(700), "700 B");
        assert_eq!(show_bytes(10 << 10), "10 KiB");
        assert_eq!(show_bytes(256 << 20), "256 MiB");
        assert_eq!(show_bytes(9 << 30), "9216 MiB");
    }
}
