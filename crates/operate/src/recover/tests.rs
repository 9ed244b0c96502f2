use super::*;
use synod_paxos::Ballot;
use synod_shard::wire::{NodeDescriptor, ShardDescriptor};
use synod_txn::Key;

/// What every node that answers holds.
type All = BTreeMap<NodeId, Vec<Remains>>;

fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().map(|id| NodeId(*id)).collect()
}

fn span(start: &'static [u8], end: &'static [u8]) -> Span {
    Span {
        start: Key::from_static(start),
        end: Key::from_static(end),
    }
}

fn shard(id: u64, span: Span, voters: &[u64]) -> ShardDescriptor {
    ShardDescriptor {
        id: GroupId(id),
        span,
        generation: 1,
        configuration: Configuration::of_voters(ids(voters)),
        preferred_leader: NodeId(1),
        born: None,
    }
}

/// Shard 2 on nodes 1 to 3, shard 3 on nodes 3 to 5, the meta shard on nodes 1, 2 and 4.
fn map() -> ShardMap {
    ShardMap {
        nodes: Vec::<NodeDescriptor>::new(),
        shards: vec![
            shard(2, span(b"", b"m"), &[1, 2, 3]),
            shard(3, span(b"m", b"\xff\xff"), &[3, 4, 5]),
            shard(1, span(b"\xff\xff", b""), &[1, 2, 4]),
        ],
    }
}

fn ballot(round: u64, node: u64) -> Ballot {
    Ballot {
        epoch: Epoch(1),
        round,
        priority: 0,
        node: NodeId(node),
    }
}

/// A voter's copy, with this end of its log.
fn copy(of: &ShardDescriptor, accepted: Ballot, decided: u64, last: u64) -> Remains {
    Remains {
        shard: of.id,
        span: of.span.clone(),
        configuration: of.configuration.clone(),
        promised: accepted,
        accepted,
        decided: Slot(decided),
        last: Slot(last),
        holds_data: true,
        left_out: false,
        led_by: None,
        in_office: false,
        open: Vec::new(),
        more: 0,
    }
}

/// Every replica on these nodes, all alike.
fn remains(map: &ShardMap, nodes: &[u64]) -> All {
    let of = |node: &u64| {
        let shards = map.shards.iter();
        let here = shards.filter(|s| s.configuration.is_member(NodeId(*node)));
        let held = here.map(|s| copy(s, ballot(2, 1), 7, 9)).collect();
        (NodeId(*node), held)
    };
    nodes.iter().map(of).collect()
}

fn of(remains: &mut All, node: u64, shard: u64) -> &mut Remains {
    let all = remains.get_mut(&NodeId(node)).expect("it answers");
    let found = all.iter_mut().find(|r| r.shard == GroupId(shard));
    found.expect("it has a copy")
}

fn open(attempt: u128, coordinator: &'static [u8], here: bool) -> OpenTransaction {
    OpenTransaction {
        attempt: AttemptId(attempt),
        coordinator: Key::from_static(coordinator),
        here,
        undecided: false,
        participants: vec![Key::from_static(b"a"), Key::from_static(b"z")],
    }
}

#[test]
fn only_shards_without_a_majority_are_lost() {
    let map = map();
    assert_eq!(plan(&map, &remains(&map, &[1, 2, 3, 4, 5])), []);
    assert_eq!(plan(&map, &remains(&map, &[2, 3, 4])), []);
    let lost = plan(&map, &remains(&map, &[3, 4, 5]));
    let shards: Vec<u64> = lost.iter().map(|l| l.shard.0).collect();
    assert_eq!(shards, [1, 2], "the meta shard comes first");
    assert_eq!(lost[0].answering, ids(&[4]));
    assert_eq!(lost[0].lost, ids(&[1, 2]));
    let choice = lost[1].choice.as_ref().expect("n3 has it");
    assert_eq!((choice.node, choice.undecided()), (NodeId(3), 2));
    assert_eq!(choice.epoch, Epoch(1).next_era());
    assert_eq!(Wreck::missing(&lost), ids(&[1, 2]).into_iter().collect());
}

#[test]
fn whoever_goes_on_alone_is_not_lost_again() {
    let map = map();
    let mut remains = remains(&map, &[3, 4, 5]);
    let alone = Configuration {
        epoch: Epoch(1).next_era(),
        ..Configuration::of_voters(ids(&[3]))
    };
    of(&mut remains, 3, 2).configuration = alone;
    let shards: Vec<u64> = plan(&map, &remains).iter().map(|l| l.shard.0).collect();
    assert_eq!(shards, [1]);
}

#[test]
fn the_survivor_with_the_highest_log_is_chosen() {
    let map = ShardMap {
        shards: vec![shard(2, span(b"", b""), &[1, 2, 3, 4, 5])],
        ..ShardMap::default()
    };
    let chosen = |change: &dyn Fn(&mut All)| {
        let mut remains = remains(&map, &[4, 5]);
        change(&mut remains);
        let lost = plan(&map, &remains).remove(0);
        lost.choice.map(|choice| choice.node.0)
    };
    // A longer log of an older leader counts for less (P3).
    let older = |r: &mut All| {
        of(r, 4, 2).accepted = ballot(1, 1);
        of(r, 4, 2).last = Slot(50);
    };
    assert_eq!(chosen(&older), Ok(5));
    assert_eq!(chosen(&|r| of(r, 5, 2).last = Slot(10)), Ok(5));
    assert_eq!(chosen(&|r| of(r, 5, 2).decided = Slot(8)), Ok(5));
    // Without data, or left out, it is nobody to go on with.
    assert_eq!(
        chosen(&|r| {
            of(r, 5, 2).last = Slot(10);
            of(r, 5, 2).holds_data = false;
        }),
        Ok(4)
    );
    assert_eq!(chosen(&|r| of(r, 4, 2).left_out = true), Ok(5));
    let none = chosen(&|r| {
        of(r, 4, 2).holds_data = false;
        of(r, 5, 2).holds_data = false;
    });
    assert!(none.is_err_and(|why| why.contains("cannot be recovered")));
}

#[test]
fn what_a_survivor_has_not_seen_is_said() {
    let mut map = map();
    map.shards[0].configuration.epoch = Epoch(4);
    let mut lost = plan(&map, &remains(&self::map(), &[3, 4, 5]));
    let choice = lost.remove(1).choice.expect("n3 has it");
    assert_eq!(choice.unseen, Some(Epoch(4)));

    // A promise tells of an era that nobody was taken into.
    let mut remains = remains(&self::map(), &[3, 4, 5]);
    of(&mut remains, 3, 2).promised = Ballot::founding(Epoch(1).next_era());
    let choice = plan(&map, &remains).remove(1).choice.expect("n3 has it");
    assert_eq!(choice.epoch, Epoch(1).next_era().next_era());

    // The keys from `k` on are another shard's by now.
    map.shards[0].span.end = Key::from_static(b"k");
    let lost = plan(&map, &remains);
    let why = lost[1].choice.as_ref().expect_err("it would be two shards");
    assert!(why.contains("split at k"), "{why}");
}

#[test]
fn the_fate_of_each_transaction_is_told() {
    let map = map();
    // Nodes 1 and 4 are lost: shard 2 has its majority, shard 3 too; then 3 and 4.
    let fates = |nodes: &[u64], node: u64, shard: u64, t: OpenTransaction, also: bool| {
        let mut remains = remains(&map, nodes);
        if also {
            let coordinator = OpenTransaction {
                here: true,
                ..t.clone()
            };
            for all in remains.values_mut() {
                for r in all.iter_mut().filter(|r| r.shard != GroupId(shard)) {
                    r.open.push(coordinator.clone());
                }
            }
        }
        of(&mut remains, node, shard).open.push(t);
        let lost = plan(&map, &remains);
        let one = lost.iter().find(|l| l.shard == GroupId(shard));
        let choice = one.expect("it is lost").choice.as_ref();
        choice.expect("somebody has it").in_doubt[0].fate.clone()
    };
    // Shard 3 lost, shard 2 not.
    let fate = fates(&[1, 2, 3], 3, 3, open(7, b"a", false), false);
    assert!(fate.contains("ends as shard 2 says, which has"), "{fate}");
    let fate = fates(&[1, 2, 3], 3, 3, open(7, b"z", true), false);
    assert!(fate.contains("is decided here"), "{fate}");
    // Both lost, and only node 3 is left.
    let fate = fates(&[3], 3, 3, open(7, b"a", false), false);
    assert!(fate.contains("even if somebody was told"), "{fate}");
    let fate = fates(&[3], 3, 3, open(7, b"a", false), true);
    assert!(fate.contains("is decided by shard 2 once"), "{fate}");
    // The coordinator's shard has nobody left.
    let fate = fates(&[4], 4, 3, open(7, b"a", false), false);
    assert!(fate.contains("cannot be recovered"), "{fate}");
    let fate = fates(&[4], 4, 3, open(7, b"z", true), false);
    assert!(fate.contains("stays open"), "{fate}");
}
