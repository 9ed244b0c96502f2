//! The layout of keys over shards, and a client without a cluster.

use super::config::{ClientConfig, Workload};
use super::keys::Keyspace;
use super::{Herd, SimClient, Want};
use std::collections::BTreeSet;
use synod_paxos::{Ballot, Configuration, GroupId, NodeId, Term, Timestamp};
use synod_shard::wire::RESERVED_PREFIX;
use synod_shard::{ShardDescriptor, ShardMap, ShardReply};
use synod_txn::{Request, Response, Span};

fn map(bounds: &[&[u8]]) -> ShardMap {
    let mut bounds: Vec<&[u8]> = bounds.to_vec();
    bounds.push(RESERVED_PREFIX);
    bounds.push(b"");
    let shards = bounds.windows(2).zip(1..);
    ShardMap {
        nodes: Vec::new(),
        shards: shards
            .map(|(ends, id)| ShardDescriptor {
                id: GroupId(id),
                span: Span {
                    start: ends[0].to_vec().into(),
                    end: ends[1].to_vec().into(),
                },
                generation: 1,
                configuration: Configuration::of_voters(vec![NodeId(1), NodeId(2), NodeId(3)]),
                preferred_leader: NodeId(1),
                born: None,
            })
            .collect(),
    }
}

fn shard_of(map: &ShardMap, key: &[u8]) -> u64 {
    let owner = map.shards.iter().find(|s| s.span.contains(key));
    owner.map_or(0, |s| s.id.0)
}

#[test]
fn every_workload_has_keys_in_every_shard_and_none_of_the_clusters() {
    for bounds in [
        &[&b""[..]][..],
        &[b"", b"k002", b"k004"],
        &[b"", b"a", b"a5", b"b", b"zzz"],
        &[b"", b"0", b"\xf0"],
    ] {
        let map = map(bounds);
        let mut config = ClientConfig::from_seed(1, 0, 4, 0);
        config.lists = 40;
        config.accounts = 10;
        config.links = 10;
        config.registers = 10;
        let workload = Workload::new(&map, config);
        let keys = &workload.keys;
        let lists: Vec<_> = (0..keys.lists()).map(|slot| keys.list(slot, 3)).collect();
        for some in [&keys.accounts, &keys.links, &keys.registers, &lists] {
            let mut shards: Vec<u64> = some.iter().map(|key| shard_of(&map, key)).collect();
            shards.sort_unstable();
            shards.dedup();
            let cluster = map.shards.last().map_or(0, |s| s.id.0);
            assert!(!shards.contains(&cluster) && !shards.contains(&0));
            assert!(
                shards.len() + 1 == map.shards.len(),
                "{bounds:?}: {shards:?}"
            );
        }
    }
}

#[test]
fn however_many_there_are_each_has_a_key_of_its_own() {
    for count in [3, 999, 1_000, 1_001, 12_345] {
        let map = map(&[b"", b"k"]);
        let mut config = ClientConfig::from_seed(1, 0, 4, 0);
        config.registers = count;
        config.accounts = count;
        let keys = Keyspace::new(&map, &config);
        for some in [&keys.registers, &keys.accounts] {
            let all: BTreeSet<_> = some.iter().collect();
            assert_eq!(all.len(), count as usize);
        }
        let spans: Vec<Span> = (0..).map_while(|shard| keys.account_span(shard)).collect();
        let within = |key| spans.iter().filter(|span| span.contains(key)).count();
        assert!(keys.accounts.iter().all(|key| within(key) == 1));
        assert!(keys.registers.iter().all(|key| within(key) == 0));
    }
}

#[test]
fn a_border_holds_the_newest_lists_of_both_sides_and_nothing_else() {
    let map = map(&[b"", b"k002", b"k004"]);
    let mut config = ClientConfig::from_seed(1, 0, 4, 0);
    config.lists = 30;
    let workload = Workload::new(&map, config);
    let keys = &workload.keys;
    let generations: Vec<u64> = (0..keys.lists() as u64).map(|slot| 5 + slot % 3).collect();
    let mut seen = Vec::new();
    for border in 0..keys.borders() {
        let Some((slots, span)) = keys.border(border, &generations) else {
            continue;
        };
        let oldest = slots.iter().map(|s| generations[*s]).min().unwrap_or(0);
        for slot in &slots {
            assert!(span.contains(&keys.list(*slot, generations[*slot])));
            assert!(span.contains(&keys.list(*slot, generations[*slot] + 1)));
            assert!(!span.contains(&keys.list(*slot, oldest - 1)));
        }
        for other in keys
            .registers
            .iter()
            .chain(&keys.accounts)
            .chain(&keys.links)
        {
            assert!(!span.contains(other));
        }
        seen.extend(slots);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..keys.lists()).collect::<Vec<_>>());
}

#[test]
fn names_of_keys_can_be_read_back() {
    let map = map(&[b"", b"k002", b"k004"]);
    let workload = Workload::new(&map, ClientConfig::from_seed(1, 0, 4, 0));
    let keys = &workload.keys;
    for slot in 0..keys.lists() {
        assert_eq!(keys.list_of(&keys.list(slot, 17)), Some((slot, 17)));
    }
    let marker = keys.marker(b'm', 12, 345);
    assert_eq!(Keyspace::marker_of(&marker), Some((12, 345)));
    assert!(
        keys.markers(b'm', Some(12))
            .iter()
            .any(|s| s.contains(&marker))
    );
    assert!(
        !keys
            .markers(b'm', Some(13))
            .iter()
            .any(|s| s.contains(&marker))
    );
    assert!(
        !keys
            .markers(b'n', Some(12))
            .iter()
            .any(|s| s.contains(&marker))
    );
}

const WALL: Timestamp = Timestamp(1_700_000_000_000_000_000);

/// A client that has just sent its first request: to load the first data.
fn client() -> (SimClient, Vec<Want>) {
    let mut config = ClientConfig::from_seed(1, 0, 4, 0);
    (config.weights.bank, config.hurried) = (10, 0);
    let map = map(&[b"", b"k002"]);
    let workload = Workload::new(&map, config);
    let mut client = SimClient::new(7, &workload, &Herd::default(), 1);
    let mut wants = Vec::new();
    assert_eq!(client.arm(), Some(0));
    client.wake(0, WALL, &mut wants);
    (client, wants)
}

fn sent(wants: &[Want]) -> Vec<(NodeId, u64, &Request)> {
    let sent = wants.iter().map(|want| match want {
        Want::Send {
            to,
            number,
            request,
            ..
        } => (*to, *number, &request.request),
        Want::Cancel { .. } => panic!("nothing is taken back here"),
    });
    sent.collect()
}

#[test]
fn a_wake_is_asked_for_once() {
    let (mut client, _) = client();
    let armed = client.arm();
    assert!(armed.is_some_and(|at| at > 0));
    assert_eq!(client.arm(), None);
    // It comes for nothing: the client is paused. It is asked for again.
    let at = armed.unwrap_or_default();
    client.pause(at + 10);
    client.wake(at, WALL, &mut Vec::new());
    assert_eq!(client.arm(), Some(at + 10));
}

#[test]
fn a_silent_leader_is_left_for_the_one_that_says_it_leads() {
    let (mut client, first) = client();
    let [(leader, _, Request::LockedRead { .. })] = sent(&first)[..] else {
        panic!("expected one locked read, not {first:?}");
    };
    let at = client.next_wake().unwrap_or_default();
    let mut wants = Vec::new();
    client.wake(at, WALL, &mut wants);
    let [(other, number, Request::Locate)] = sent(&wants)[..] else {
        panic!("expected one question, not {wants:?}");
    };
    assert_ne!(other, leader);
    let Want::Send { request, .. } = &wants[0] else {
        panic!("expected a question, not {wants:?}");
    };
    let term = Term {
        group: request.shard,
        ballot: Ballot {
            round: 2,
            ..Ballot::default()
        },
    };
    let answer = ShardReply::Response(Response::Located { term, now: WALL });
    let mut wants = Vec::new();
    client.answered(at + 1, number, answer, &mut wants);
    let [(to, _, Request::LockedRead { .. })] = sent(&wants)[..] else {
        panic!("expected the read again, not {wants:?}");
    };
    assert_eq!(to, other);
}

#[test]
fn one_that_vanishes_is_silent_and_comes_back_as_another() {
    let (mut client, first) = client();
    let (before, sessions) = (client.client_id(), client.live());
    assert_eq!(client.keep_alive(1), Some((before, sessions)));
    client.vanish(1);
    assert!(client.is_gone() && client.is_idle());
    assert_eq!(client.keep_alive(2), None);
    assert_eq!(client.next_wake(), None);
    assert_eq!(client.histories.tally.unknown, 1);
    let mut wants = Vec::new();
    client.answered(
        2,
        sent(&first)[0].1,
        ShardReply::WrongNode(None),
        &mut wants,
    );
    client.wake(3, WALL, &mut wants);
    assert!(wants.is_empty());
    client.revive(4);
    assert_ne!(client.client_id(), before);
    assert_eq!(client.arm(), Some(4));
    client.wake(4, WALL, &mut wants);
    assert_eq!(wants.len(), 1);
}

#[test]
fn a_stopped_client_without_a_cluster_gives_up_within_its_deadline() {
    let (mut client, _) = client();
    client.stop(5, true);
    let mut last = 5;
    while let Some(at) = client.next_wake() {
        last = at.max(last);
        client.wake(last, WALL, &mut Vec::new());
        assert!(last < 60_000_000_000, "it goes on for ever");
    }
    assert!(client.is_idle());
    assert_eq!(client.histories.tally.unread, 1);
    assert_eq!(client.histories.tally.commits, 0);
}

/// Otherwise hundreds of reads, of which some are lost, do not end in time.
#[test]
fn for_the_final_reads_nobody_has_more_patience_than_others() {
    let asks_again = |id| {
        let mut config = ClientConfig::from_seed(1, 0, 4, 0);
        config.readers = true;
        let map = map(&[b"", b"k002"]);
        let workload = Workload::new(&map, config);
        let mut client = SimClient::new(id, &workload, &Herd::default(), 1);
        let mut wants = Vec::new();
        client.stop(5, true);
        client.wake(5, WALL, &mut wants);
        assert_eq!(wants.len(), 1, "{wants:?}");
        client.next_wake()
    };
    // Number 7 is one that only reads, and then waits for long.
    assert_eq!(asks_again(7), asks_again(0));
}
