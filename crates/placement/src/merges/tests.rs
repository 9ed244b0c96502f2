use super::*;
use crate::splits::{Cut, SplitPlanner};

const AFTER: u64 = 100;
const LIMITS: MergeLimits = MergeLimits {
    size: 1_000,
    after: AFTER,
};
const SPLITS: SplitLimits = SplitLimits {
    size: 4_000,
    load: 200,
    shards: 50,
};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A cold shard between these keys, led by this node.
fn shard(id: u64, start: &str, end: &str, leader: u64) -> Neighbour {
    Neighbour {
        shard: GroupId(id),
        start: start.as_bytes().to_vec(),
        end: end.as_bytes().to_vec(),
        descent: Descent::Split,
        generation: 1,
        configuration: Configuration::of_voters([1, 2, 3].map(NodeId).to_vec()),
        all_there: true,
        load: Some((
            NodeId(leader),
            ShardLoad {
                shard: GroupId(id),
                bytes: Some(100),
                requests: 1,
                by_size: None,
                by_load: None,
            },
        )),
    }
}

/// Two of them, with a first shard on the left.
fn two() -> Vec<Neighbour> {
    let mut two = vec![shard(2, "", "g", 1), shard(3, "g", "p", 2)];
    two[0].descent = Descent::First;
    two
}

fn load(shard: &mut Neighbour) -> &mut ShardLoad {
    &mut shard.load.as_mut().expect("it is told").1
}

struct World {
    planner: MergePlanner,
    limits: MergeLimits,
    splits: SplitLimits,
    policies: Policies,
    shards: Vec<Neighbour>,
}

impl World {
    fn of(shards: Vec<Neighbour>) -> World {
        World {
            planner: MergePlanner::default(),
            limits: LIMITS,
            splits: SPLITS,
            policies: Policies::default(),
            shards,
        }
    }

    fn plan(&mut self, now: u64) -> Merges {
        let scene = Scene {
            limits: self.limits,
            splits: self.splits,
            policies: &self.policies,
            shards: &self.shards,
        };
        self.planner.plan(seconds(now), &scene)
    }

    fn now(&mut self, now: u64) -> Vec<(u64, u64)> {
        let merges = self.plan(now).now.into_iter();
        merges.map(|m| (m.left.0, m.right.0)).collect()
    }

    /// What is merged of shards that were cold for long enough.
    fn in_the_end(&mut self) -> Vec<(u64, u64)> {
        assert_eq!(self.now(0), [], "they have just been seen");
        self.now(AFTER)
    }
}

#[test]
fn cold_neighbours_become_one_after_a_while() {
    let mut world = World::of(two());
    for now in [0, 1, AFTER - 1] {
        assert_eq!(world.now(now), []);
    }
    let merges = world.plan(AFTER);
    let merge = &merges.now[0];
    assert_eq!(merge.leaders, [NodeId(1), NodeId(2)]);
    assert_eq!((merge.bytes, merge.requests), (200, 2));
    assert!(merges.problems.is_empty());
    // Shards that do not touch are no neighbours.
    let mut world = World::of(two());
    world.shards[0].end = b"f".to_vec();
    assert_eq!(world.in_the_end(), []);
}

#[test]
fn what_is_warm_or_unknown_stays() {
    type Warm = fn(&mut World);
    let cases: [(&str, Warm); 6] = [
        ("too large together", |w| {
            load(&mut w.shards[1]).bytes = Some(901);
        }),
        ("a quarter of the size that is split", |w| {
            w.splits.size = 796;
        }),
        ("asked too much together", |w| {
            load(&mut w.shards[0]).requests = 10;
        }),
        ("by the default of what is split, too", |w| {
            w.splits.load = 0;
            load(&mut w.shards[0]).requests = 1_000;
        }),
        ("of unknown size", |w| load(&mut w.shards[0]).bytes = None),
        ("nobody tells", |w| w.shards[1].load = None),
    ];
    for (what, warm) in cases {
        let mut world = World::of(two());
        warm(&mut world);
        assert_eq!(world.in_the_end(), [], "{what}");
    }
    // At the limits they are cold, and where nothing is split for its size, only
    // shard.merge_size counts.
    let mut world = World::of(two());
    load(&mut world.shards[1]).bytes = Some(900);
    load(&mut world.shards[0]).requests = 9;
    assert_eq!(world.in_the_end(), [(2, 3)]);
    let mut world = World::of(two());
    (world.splits.size, world.limits.size) = (0, 1 << 40);
    load(&mut world.shards[1]).bytes = Some(1 << 39);
    assert_eq!(world.in_the_end(), [(2, 3)]);
    let mut world = World::of(two());
    world.limits.size = 0;
    assert_eq!(world.in_the_end(), [], "never");
}

#[test]
fn an_interruption_begins_the_wait_anew() {
    type Happens = fn(&mut World);
    let cases: [(&str, Happens); 3] = [
        ("a request too many", |w| {
            load(&mut w.shards[1]).requests = 10;
        }),
        ("another range", |w| w.shards[0].generation += 1),
        ("the setting says never", |w| w.limits.size = 0),
    ];
    for (what, happens) in cases {
        let mut world = World::of(two());
        assert_eq!(world.now(0), []);
        happens(&mut world);
        assert_eq!(world.now(50), []);
        load(&mut world.shards[1]).requests = 1;
        world.limits = LIMITS;
        for now in [60, AFTER, 49 + AFTER] {
            assert_eq!(world.now(now), [], "{what}, at {now}");
        }
        assert_eq!(world.now(60 + AFTER), [(2, 3)], "{what}");
    }
    // A new acting node has a planner of its own.
    let mut world = World::of(two());
    world.now(0);
    world.planner = MergePlanner::default();
    assert_eq!(world.now(AFTER), []);
}

#[test]
fn first_shards_and_the_clusters_records_stay() {
    let mut world = World::of(two());
    world.shards[1].descent = Descent::First;
    assert_eq!(world.in_the_end(), []);
    for reserved in [0, 1] {
        let mut world = World::of(two());
        world.shards[reserved].descent = Descent::Reserved;
        assert_eq!(world.in_the_end(), []);
    }
}

#[test]
fn borders_of_policies_stay() {
    let cut_at = |border: &str, directories: &[(&str, &str)]| {
        let mut world = World::of(two());
        world.shards[0].end = border.as_bytes().to_vec();
        world.shards[1].start = border.as_bytes().to_vec();
        world.shards[0].start = b"a/k".to_vec();
        let directories = directories.iter().map(|(prefix, policy)| {
            let policy = policy.parse().expect("a policy");
            (prefix.as_bytes().to_vec(), policy)
        });
        world.policies.directories = directories.collect();
        world.in_the_end()
    };
    assert_eq!(cut_at("g", &[("zoo/", "voters = 5")]), [(2, 3)]);
    assert_eq!(cut_at("g", &[("g", "voters = 3")]), [], "one begins here");
    assert_eq!(cut_at("c0", &[("c/", "voters = 3")]), [], "one ends here");
    assert_eq!(cut_at("g", &[("a/", "voters = 5")]), [], "only the left's");
    // Both in the same one, or in two that want the same.
    assert_eq!(cut_at("a/p", &[("a/", "voters = 5")]), [(2, 3)]);
    assert_eq!(cut_at("g", &[("a/", "voters = 3")]), [(2, 3)]);
}

#[test]
fn the_first_key_behind_a_prefix() {
    assert_eq!(behind(b"a/"), Some(b"a0".to_vec()));
    assert_eq!(behind(b"a\xff\xff"), Some(b"b".to_vec()));
    assert_eq!(behind(b"\xff\xff"), None);
}

#[test]
fn other_members_and_silent_ones_are_told() {
    let mut world = World::of(two());
    world.shards[1].configuration = Configuration::of_voters([1, 2, 4].map(NodeId).to_vec());
    assert_eq!(world.in_the_end(), []);
    let told = world.plan(AFTER).problems;
    assert!(told[0].contains("the same nodes"), "{told:?}");
    assert!(told[0].contains("shards 2 and 3"), "{told:?}");
    // Once they have the same, nothing else is waited for.
    world.shards[1].configuration = world.shards[0].configuration.clone();
    world.shards[1].all_there = false;
    let told = world.plan(AFTER + 1).problems;
    assert!(told[0].contains("does not answer"), "{told:?}");
    world.shards[1].all_there = true;
    assert_eq!(world.now(AFTER + 2), [(2, 3)]);
}

#[test]
fn few_at_once_and_each_shard_and_node_in_one() {
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let shards = |leader: fn(u64) -> u64| {
        let shards = keys.windows(2).zip(2..);
        let shards = shards.map(|(keys, id)| shard(id, keys[0], keys[1], leader(id)));
        World::of(shards.collect())
    };
    // Each led by another node; of pairs with the same weight the first ones.
    let mut world = shards(|id| id);
    assert_eq!(world.in_the_end(), [(2, 3), (4, 5)]);
    load(&mut world.shards[6]).bytes = Some(0);
    assert_eq!(world.now(AFTER), [(7, 8), (2, 3)], "the smallest first");
    // All by the same one, which has a pause then.
    let mut world = shards(|_| 1);
    assert_eq!(world.in_the_end(), [(2, 3)]);
    let mut merges = world.plan(AFTER);
    assert_eq!(merges.waiting, 5);
    let merge = merges.now.remove(0);
    world.planner.ended(seconds(AFTER), &merge, Ended::Done);
    let merges = world.plan(AFTER + 4);
    assert_eq!((merges.now.len(), merges.waiting), (0, 5));
    assert_eq!(world.now(AFTER + 5), [(3, 4)], "another pair");
}

#[test]
fn what_fails_is_tried_again_later_and_later() {
    let mut world = World::of(two());
    world.now(0);
    let merge = world.plan(AFTER).now.remove(0);
    let mut now = AFTER;
    let mut rests = Vec::new();
    for _ in 0..8 {
        let begun = now;
        while world.now(now).is_empty() {
            now += 1;
        }
        rests.push(now - begun);
        let failed = Ended::Failed("transactions".to_owned());
        world.planner.ended(seconds(now), &merge, failed);
    }
    assert_eq!(rests, [0, 10, 20, 40, 80, 160, 320, 600]);
    let told = world.plan(now + 599).problems;
    assert!(told[0].contains("for now: transactions"), "{told:?}");
    // What its leader refuses is left in peace for as long as that at once.
    let mut world = World::of(two());
    world.now(0);
    let refused = Ended::Refused("stored in different ways".to_owned());
    world.planner.ended(seconds(AFTER), &merge, refused);
    assert_eq!(world.now(AFTER + 599), []);
    assert_eq!(world.now(AFTER + 600), [(2, 3)]);
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut world = World::of(two());
    world.now(0);
    let merge = world.plan(AFTER).now.remove(0);
    let failed = Ended::Failed("transactions".to_owned());
    world.planner.ended(seconds(AFTER), &merge, failed);
    world.shards.remove(1);
    world.now(AFTER + 1);
    assert!(world.planner.cold.is_empty());
    world.shards = two();
    world.now(AFTER + 2);
    assert_eq!(
        world.now(2 * AFTER + 2),
        [(2, 3)],
        "it failed in another life"
    );
    // Done is done: the map may still show both for a moment.
    world
        .planner
        .ended(seconds(2 * AFTER + 2), &merge, Ended::Done);
    assert_eq!(world.now(2 * AFTER + 10), []);
}

#[test]
fn of_many_failures_some_are_told_and_the_rest_counted() {
    let shards = (2..40_u64).map(|id| {
        let (start, end) = (format!("{id:03}"), format!("{:03}", id + 1));
        shard(id, &start, &end, id)
    });
    let mut world = World::of(shards.collect());
    world.now(0);
    for id in 2..39 {
        let merge = Merge {
            left: GroupId(id),
            right: GroupId(id + 1),
            leaders: [NodeId(id), NodeId(id + 1)],
            bytes: 200,
            requests: 2,
        };
        let failed = Ended::Failed("no leader".to_owned());
        world.planner.ended(seconds(AFTER), &merge, failed);
    }
    let told = world.plan(AFTER + 1).problems;
    assert_eq!(told.len(), TOLD + 1);
    assert!(told[TOLD].starts_with("29 more"), "{told:?}");
}

/// A range of keys from 0 to 63, each of which has a weight, cut in shards; both planners
/// work on it at once.
struct Simulated {
    starts: BTreeMap<u64, u64>,
    next: u64,
    generations: BTreeMap<u64, u64>,
    splits: u32,
    merges: u32,
}

impl Simulated {
    fn neighbours(&self, weight: impl Fn(u64) -> (u64, u64)) -> Vec<Neighbour> {
        let ends = self.starts.keys().skip(1).copied().chain([64]);
        let all = self.starts.iter().zip(ends);
        let all = all.map(|((start, id), end)| {
            let of = (*start..end)
                .map(&weight)
                .fold((0, 0), |sum, key| (sum.0 + key.0, sum.1 + key.1));
            let mut shard = shard(
                *id,
                &format!("{start:02}"),
                &format!("{end:02}"),
                1 + id % 3,
            );
            let halves = Cut::At(format!("{:02}", start.midpoint(end)).into_bytes());
            let cut = |over: bool| over.then(|| halves.clone());
            *load(&mut shard) = ShardLoad {
                shard: shard.shard,
                bytes: Some(of.0),
                requests: of.1,
                by_size: cut(of.0 > SPLITS.size && end - start > 1),
                by_load: cut(of.1 > SPLITS.load && end - start > 1),
            };
            shard.generation = self.generations[id];
            if *start == 0 {
                shard.descent = Descent::First;
            }
            shard
        });
        all.collect()
    }

    fn changed(&mut self, id: u64) {
        *self.generations.entry(id).or_default() += 1;
    }

    fn run(&mut self, now: std::ops::Range<u64>, weight: impl Fn(u64) -> (u64, u64)) {
        let (mut splitter, mut merger) = (SplitPlanner::default(), MergePlanner::default());
        let policies = Policies::default();
        for now in now.step_by(5).map(seconds) {
            let shards = self.neighbours(&weight);
            let found: Vec<_> = shards.iter().filter_map(|s| s.load.clone()).collect();
            for wish in splitter.plan(now, &SPLITS, shards.len(), &found).now {
                let at: u64 = String::from_utf8(wish.at.clone()).unwrap().parse().unwrap();
                self.starts.insert(at, self.next);
                self.changed(self.next);
                self.changed(wish.shard.0);
                self.next += 1;
                self.splits += 1;
                splitter.ended(now, &wish, Ended::Done);
            }
            let shards = self.neighbours(&weight);
            let scene = Scene {
                limits: MergeLimits {
                    size: 1 << 40,
                    ..LIMITS
                },
                splits: SPLITS,
                policies: &policies,
                shards: &shards,
            };
            for merge in merger.plan(now, &scene).now {
                self.starts.retain(|_, id| *id != merge.right.0);
                self.changed(merge.left.0);
                self.merges += 1;
                merger.ended(now, &merge, Ended::Done);
            }
        }
    }
}

#[test]
fn splits_and_merges_do_not_undo_each_other() {
    let mut world = Simulated {
        starts: BTreeMap::from([(0, 2)]),
        next: 3,
        generations: BTreeMap::from([(2, 1)]),
        splits: 0,
        merges: 0,
    };
    // A load on some keys, and bytes on others.
    let busy = |key: u64| match key {
        40..48 => (10, 100),
        key => (key * 20, 1),
    };
    world.run(0..20_000, busy);
    let (splits, merges) = (world.splits, world.merges);
    assert!(splits > 10, "{splits}");
    world.run(20_000..60_000, busy);
    assert_eq!(
        (world.splits, world.merges),
        (splits, merges),
        "it is at rest"
    );
    // Everything is deleted, and asked no more.
    world.run(60_000..100_000, |_| (0, 0));
    assert_eq!(world.starts, BTreeMap::from([(0, 2)]));
    assert_eq!(world.splits, splits, "nothing was split meanwhile");
    // Right at the limits.
    world.run(100_000..140_000, |_| (SPLITS.size / 4 / 64, 0));
    assert_eq!((world.splits, world.starts.len()), (splits, 1));
}

#[test]
fn settings_are_bounded_and_have_defaults() {
    let limits = MergeLimits::default();
    assert_eq!((limits.size, limits.after), (64 << 20, 3_600));
    let rows = [("shard.merge_size", 0), ("shard.merge_after", 0)];
    let rows = rows.map(|(name, value)| (name.to_owned(), value));
    let limits = MergeLimits::of(&BTreeMap::from(rows));
    assert_eq!((limits.size, limits.after), (0, 3_600));
    for limit in MergeLimit::ALL {
        let rows = BTreeMap::from([(limit.name().to_owned(), 1 << 20)]);
        assert_eq!(MergeLimits::of(&rows).get(limit), 1 << 20);
    }
}
