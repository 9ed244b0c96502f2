use super::*;
use std::collections::BTreeMap;

const LIMITS: SplitLimits = SplitLimits {
    size: 1_000,
    load: 100,
    shards: 50,
};

fn quiet(shard: u64) -> ShardLoad {
    ShardLoad {
        shard: GroupId(shard),
        bytes: Some(10),
        requests: 1,
        by_size: None,
        by_load: None,
    }
}

fn at(key: &str) -> Option<Cut> {
    Some(Cut::At(key.as_bytes().to_vec()))
}

fn large(shard: u64, bytes: u64) -> ShardLoad {
    ShardLoad {
        bytes: Some(bytes),
        by_size: at("m"),
        ..quiet(shard)
    }
}

fn busy(shard: u64, requests: u64) -> ShardLoad {
    ShardLoad {
        requests,
        by_load: at("q"),
        ..quiet(shard)
    }
}

fn failed() -> Ended {
    Ended::Failed("no id".to_owned())
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What is split now, and why.
fn planned(
    planner: &mut SplitPlanner,
    now: u64,
    limits: &SplitLimits,
    found: &[(u64, ShardLoad)],
) -> Vec<(u64, String, Cause)> {
    let found: Vec<_> = found.iter().map(|(n, l)| (NodeId(*n), l.clone())).collect();
    let splits = planner.plan(seconds(now), limits, 10, &found);
    let now = splits.now.into_iter();
    now.map(|w| (w.shard.0, String::from_utf8(w.at).unwrap(), w.cause))
        .collect()
}

#[test]
fn what_is_beyond_a_limit_is_split_where_its_leader_says() {
    let planner = SplitPlanner::default;
    let found = [(1, quiet(2)), (2, large(3, 2_000)), (3, busy(4, 150))];
    assert_eq!(
        planned(&mut planner(), 0, &LIMITS, &found),
        [
            (3, "m".to_owned(), Cause::Size(2_000)),
            (4, "q".to_owned(), Cause::Load(150))
        ]
    );
    // At the limit nothing is, and 0 is never.
    let found = [(1, large(2, 1_000)), (2, busy(3, 100))];
    assert_eq!(planned(&mut planner(), 0, &LIMITS, &found), []);
    let never = SplitLimits {
        size: 0,
        load: 0,
        ..LIMITS
    };
    let found = [(1, large(2, 1 << 40)), (2, busy(3, 1 << 40))];
    assert_eq!(planned(&mut planner(), 0, &never, &found), []);
    // Its size is not known yet.
    let unknown = ShardLoad {
        bytes: None,
        ..large(2, 0)
    };
    assert_eq!(planned(&mut planner(), 0, &LIMITS, &[(1, unknown)]), []);
    // By size first; but by load if all bytes are under one key.
    let mut both = busy(2, 150);
    (both.bytes, both.by_size) = (Some(1_100), at("m"));
    let cause = |found: ShardLoad| planned(&mut planner(), 0, &LIMITS, &[(1, found)])[0].2;
    assert_eq!(cause(both.clone()), Cause::Size(1_100));
    both.by_size = Some(Cut::Nowhere);
    assert_eq!(cause(both), Cause::Load(150));
}

#[test]
fn a_node_splits_one_shard_and_then_has_a_pause() {
    let mut planner = SplitPlanner::default();
    let mut found: Vec<_> = (2..=9).map(|s| (s, large(s, 1_000 + s))).collect();
    found.push((2, large(20, 5_000)));
    // The largest first, and only so many at once.
    let first = planned(&mut planner, 0, &LIMITS, &found);
    let ids: Vec<u64> = first.iter().map(|w| w.0).collect();
    assert_eq!(ids, [20, 9, 8, 7]);
    let wish = |shard, node| Wish {
        shard: GroupId(shard),
        node: NodeId(node),
        at: b"m".to_vec(),
        cause: Cause::Size(5_000),
    };
    planner.ended(seconds(1), &wish(20, 2), Ended::Done);
    let found = [(2, large(2, 2_000)), (3, large(3, 1_500))];
    let ids = |planner: &mut SplitPlanner, now| {
        let now = planned(planner, now, &LIMITS, &found);
        now.iter().map(|w| w.0).collect::<Vec<_>>()
    };
    assert_eq!(ids(&mut planner, 2), [3]);
    assert_eq!(ids(&mut planner, 7), [2, 3]);
}

#[test]
fn what_fails_is_tried_again_later_and_later() {
    let mut planner = SplitPlanner::default();
    let found = [(1, large(2, 2_000))];
    let wish = Wish {
        shard: GroupId(2),
        node: NodeId(1),
        at: b"m".to_vec(),
        cause: Cause::Size(2_000),
    };
    let mut now = 0;
    let mut rests = Vec::new();
    for _ in 0..9 {
        let begun = now;
        while planned(&mut planner, now, &LIMITS, &found).is_empty() {
            now += 1;
        }
        rests.push(now - begun);
        planner.ended(seconds(now), &wish, failed());
    }
    assert_eq!(rests, [0, 10, 20, 40, 80, 160, 320, 600, 600]);
    // Once done, or no more beyond the limit, it begins anew.
    now += 600;
    planner.ended(seconds(now), &wish, Ended::Done);
    planner.ended(seconds(now), &wish, failed());
    assert_eq!(planned(&mut planner, now + 9, &LIMITS, &found), []);
    assert_eq!(planned(&mut planner, now + 10, &LIMITS, &found).len(), 1);
    planner.ended(seconds(now), &wish, failed());
    assert_eq!(
        planned(&mut planner, now + 6, &LIMITS, &[(1, quiet(2))]),
        []
    );
    assert_eq!(planned(&mut planner, now + 6, &LIMITS, &found).len(), 1);
}

#[test]
fn there_are_never_more_shards_than_may_be() {
    let mut planner = SplitPlanner::default();
    let found: Vec<_> = (2..=5).map(|s| (NodeId(s), large(s, 1_000 + s))).collect();
    let splits = planner.plan(seconds(0), &LIMITS, 48, &found);
    assert_eq!(splits.now.len(), 2);
    assert!(splits.problems.is_empty());
    for shards in [50, 70] {
        let splits = planner.plan(seconds(0), &LIMITS, shards, &found);
        assert!(splits.now.is_empty());
        assert!(splits.problems[0].contains("shard.max_shards is 50"));
    }
}

#[test]
fn a_key_alone_is_told_once() {
    let mut planner = SplitPlanner::default();
    let hot = ShardLoad {
        by_load: Some(Cut::Nowhere),
        ..busy(7, 900)
    };
    let found = [(NodeId(1), hot)];
    let first = planner.plan(seconds(0), &LIMITS, 10, &found);
    assert!(first.now.is_empty());
    assert!(first.problems[0].contains("shard 7"), "{first:?}");
    assert_eq!(first.news, first.problems);
    let again = planner.plan(seconds(5), &LIMITS, 10, &found);
    assert_eq!((again.problems, again.news), (first.problems, Vec::new()));
    // When it comes back later, it is told anew.
    planner.plan(seconds(10), &LIMITS, 10, &[]);
    let back = planner.plan(seconds(15), &LIMITS, 10, &found);
    assert_eq!(back.news.len(), 1);
}

#[test]
fn a_cut_is_where_both_parts_weigh_the_same() {
    let cut = |start: &str, weights: &[(&str, u64)]| match halve(
        start.as_bytes(),
        weights.iter().copied(),
    ) {
        Cut::At(key) => String::from_utf8(key).unwrap(),
        Cut::Nowhere => "nowhere".to_owned(),
    };
    assert_eq!(cut("", &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]), "c");
    assert_eq!(cut("", &[("a", 9), ("b", 1), ("c", 8)]), "b");
    assert_eq!(cut("", &[("a", 1), ("b", 9), ("c", 2)]), "c");
    // All of it, or nearly all, is about one key.
    assert_eq!(cut("", &[("a", 5)]), "nowhere");
    assert_eq!(cut("", &[("a", 1), ("b", 98), ("c", 1)]), "nowhere");
    assert_eq!(cut("", &[]), "nowhere");
    // The shard's first key begins it already.
    assert_eq!(cut("a", &[("a", 1), ("b", 1)]), "b");
    assert_eq!(cut("b", &[("a", 4), ("b", 4)]), "nowhere");
}

#[test]
fn settings_are_bounded_and_have_defaults() {
    let limits = SplitLimits::of(&BTreeMap::new());
    assert_eq!(limits, SplitLimits::default());
    assert_eq!(limits.size, 256 << 20);
    let rows = [("shard.split_size", 0), ("shard.split_load", 3), ("x", 9)];
    let rows = rows.map(|(name, value)| (name.to_owned(), value));
    let limits = SplitLimits::of(&BTreeMap::from(rows));
    assert_eq!((limits.size, limits.load), (0, 20_000));
}
