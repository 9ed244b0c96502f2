//! Files that are scenarios, and files that are not, with what is said of them.

use super::*;
use crate::lab::{Deed, Harm, Kind, Links};

const GOOD: &str = r#"
about = "A test."
length = "10s"
bucket = "250ms"
seed = 9
shards = 2

[network]
rtt = "20ms"
loss = 0.01
bandwidth = "10MB/s"

[[dc]]
name = "eu-1"
region = "eu"
racks = 2

[[dc]]
name = "eu-2"
region = "eu"
clients = 0

[[dc]]
name = "us-1"
region = "us"
nodes_per_rack = 2

[[link]]
between = ["us-1", "eu-1"]
rtt = "80ms"

[settings.log]
segment_bytes = 1048576

[settings.node]
disk_reserve_bytes = 1000

[workload]
kind = "bank"
clients = 3
rate = 20

[[fault]]
at = "1s"
for = "2s"
do = "cut"
from = { dc = "eu-1" }
name = "x"

[[fault]]
at = "2s"
do = "heal"
name = "x"

[[fault]]
at = "1s"
for = "100ms"
every = "1s"
times = 3
do = "skew-clock"
by = "-3s"
on = { region = "us", share = 0.5 }

[[fault]]
at = "4s"
do = "restart"
on = { rack = "dc=eu-1,rack=r2" }

[[fault]]
at = "5s"
do = "wipe-disk"
on = { leader_of = 3 }

[expect]
history = "ok"
lost = 0
healthy = true
replicated_within = "10s"

[[expect.site]]
of = "all"
available_at_least = 0.9
outside_faults = true
"#;

fn read(text: &str) -> Result<Scenario, BadScenario> {
    Scenario::read("test", text, Path::new(""))
}

#[test]
fn a_scenario_is_read_as_a_whole() {
    let scenario = read(GOOD).unwrap_or_else(|bad| panic!("{bad}"));
    assert_eq!(scenario.seed, 9);
    assert_eq!(scenario.bucket, Duration::from_millis(250));
    assert_eq!((scenario.shards, scenario.replicas), (2, 3));
    assert_eq!(scenario.splits, ["bank/00032"]);
    let clients: Vec<usize> = scenario.topology.dcs.iter().map(|dc| dc.clients).collect();
    assert_eq!(clients, [3, 0, 3]);
    assert_eq!(scenario.topology.nodes().len(), 5);
    let far = scenario.topology.path(0, 2);
    assert_eq!(far.rtt, Duration::from_millis(80));
    assert_eq!(far.bandwidth, Some(10_000_000));
    assert!(matches!(
        scenario.workload.kind,
        Kind::Bank { accounts: 64, audit_every } if audit_every == Duration::from_millis(500)
    ));
    assert_eq!(scenario.settings.node, "disk_reserve_bytes = 1000\n");
    assert!(
        scenario
            .settings
            .sections
            .contains("segment_bytes = 1048576")
    );
    let all = &scenario.expect.sites[0];
    assert_eq!(all.sites, [0, 2], "who has no clients sees nothing");
    assert_eq!(scenario.faults.len(), 7);
    assert!(scenario.faults.is_sorted_by_key(|fault| fault.at));
    let find = |is: fn(&Action) -> bool| {
        let fault = scenario.faults.iter().find(|fault| is(&fault.action));
        fault.expect("the fault is there").clone()
    };
    let cut =
        find(|a| matches!(a, Action::Links(Links::OneWay(Some(_), None), worse) if worse.cut));
    assert_eq!(cut.lasts, Some(Duration::from_secs(2)));
    let skew = find(|a| matches!(a, Action::Harm(_, Harm::SkewClock(-3_000_000_000))));
    assert!(skew.action.needs_shim());
    // A restart at once holds for no longer than it takes.
    let restart = find(|a| matches!(a, Action::Harm(_, Harm::Stop)));
    assert_eq!(restart.lasts, Some(Duration::ZERO));
    assert_eq!(
        find(|a| matches!(a, Action::Once(_, Deed::WipeDisk))).lasts,
        None
    );
}

#[test]
fn all_that_are_shipped_are_good_and_expect_something() {
    for shipped in SHIPPED {
        let scenario = shipped
            .scenario()
            .unwrap_or_else(|bad| panic!("{}: {bad}", shipped.name));
        assert!(scenario.about.ends_with('.'), "{}", shipped.name);
        assert!(!scenario.faults.is_empty() && !scenario.expect.sites.is_empty());
        assert!(scenario.workload.kind.records() && scenario.expect.lost);
        // What operators do takes its time, and breaks nothing that a simulator would.
        let is_ordinary = ["rolling-restart", "drain", "rearrangement"].contains(&shipped.name);
        let seconds = scenario.length.as_secs();
        let longest = if is_ordinary { 60 } else { 25 };
        assert!((15..=longest).contains(&seconds), "{}", shipped.name);
        if is_ordinary {
            continue;
        }
        let found = crate::sim::Scenario::find(shipped.name);
        assert!(
            found.is_some(),
            "{} is the simulator's name too",
            shipped.name
        );
    }
}

#[test]
fn commands_are_an_operators_and_may_go_on_to_the_end() {
    let with = |args: &str, every: &str| {
        let text = format!("[[fault]]\nat = \"1s\"\n{every}\ndo = \"command\"\n{args}\n\n[expect]");
        read(&GOOD.replacen("[expect]", &text, 1))
    };
    let split = "args = [\"shard\", \"split\", \"--at\", \"bank/00005\"]";
    let scenario = with(split, "every = \"3s\"").unwrap_or_else(|bad| panic!("{bad}"));
    let given = { scenario.faults.iter() }.find(|f| matches!(f.action, Action::Command(_)));
    let given = given.expect("it is planned");
    assert_eq!(given.every, Some(Duration::from_secs(3)));
    assert_eq!(
        given.action.to_string(),
        "synod shard split --at bank/00005"
    );
    for (args, every, said) in [
        ("", "", "one of cluster, node"),
        ("args = [\"txn\", \"x\"]", "", "one of cluster, node"),
        (split, "every = \"5ms\"", "more than 1000 times"),
        (split, "every = \"0s\"", "above 0"),
    ] {
        let text = with(args, every).expect_err(said).to_string();
        assert!(text.contains(said), "{text}");
    }
}

/// What is said of a good file in which one thing was replaced by another.
#[track_caller]
fn refused(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    let bad = read(&GOOD.replacen(old, new, 1)).expect_err("it makes no sense");
    let line = GOOD[..GOOD.find(old).expect("there")].lines().count() + 1;
    let text = bad.to_string();
    let told = bad.mistakes[0].line;
    // The line itself, or the head of its table.
    assert!(
        told.is_none_or(|told| told <= line + 1 && told + 8 > line),
        "{told:?} {line}: {text}"
    );
    text
}

#[test]
fn unknown_keys_are_named_with_the_right_ones() {
    let text = refused("bucket = \"250ms\"", "buckets = \"250ms\"");
    assert!(
        text.contains("line 4") && text.contains("did you mean `bucket`?"),
        "{text}"
    );
    let text = refused("racks = 2", "rack = 2");
    assert!(text.contains("did you mean `racks`?"), "{text}");
    let text = refused("region = \"us\", share", "regoin = \"us\", share");
    assert!(text.contains("did you mean `region`?"), "{text}");
    let text = refused("kind = \"bank\"", "kind = \"bnak\"");
    assert!(text.contains("did you mean `bank`?"), "{text}");
    let text = refused("do = \"cut\"", "do = \"cute\"");
    assert!(text.contains("did you mean `cut`?"), "{text}");
    assert!(read("length = ").is_err_and(|bad| bad.mistakes[0].line == Some(1)));
    let text = read("length = \"5s\"")
        .expect_err("more is needed")
        .to_string();
    assert!(text.contains("missing field"), "{text}");
}

#[test]
fn impossible_values_are_refused_with_what_is_possible() {
    let cases = [
        ("length = \"10s\"", "length = \"10h\"", "30ms, 20s or 2m"),
        ("length = \"10s\"", "length = 10", "in quotes"),
        ("length = \"10s\"", "length = \"10ms\"", "1s to 3600s"),
        ("bucket = \"250ms\"", "bucket = \"2s\"", "100ms to 1s"),
        ("shards = 2", "shards = 0", "1 to 200"),
        (
            "shards = 2",
            "shards = 100",
            "more than the workload has keys",
        ),
        ("shards = 2", "replicas = 6", "only 5 nodes"),
        ("loss = 0.01", "loss = 1.5", "from 0.0 to 1.0"),
        (
            "bandwidth = \"10MB/s\"",
            "bandwidth = \"10MB\"",
            "100Mbit/s",
        ),
        ("rtt = \"80ms\"", "rtt = \"80s\"", "at most 5s"),
        ("nodes_per_rack = 2", "nodes_per_rack = 200", "0 to 64"),
        ("rate = 20", "rate = 0", "requests a second and site"),
        ("rate = 20", "mix = \"A\"", "not for `bank`"),
        ("by = \"-3s\"", "by = \"3s\"", "+3s or -250ms"),
        ("by = \"-3s\"\n", "", "`by` is missing"),
        (
            "every = \"1s\"\ntimes = 3\n",
            "times = 3\n",
            "comes with `every`",
        ),
        (
            "times = 3\n",
            "times = 3\nargs = [\"shard\"]\n",
            "`args` is not for this",
        ),
        ("times = 3", "times = 30", "the load ends at 10s"),
        ("lost = 0", "lost = 2", "only 0"),
        (
            "available_at_least = 0.9",
            "grace = \"1s\"",
            "nothing is expected",
        ),
        (
            "segment_bytes = 1048576",
            "x = 1\n[settings.testing]\nrtt_millis = 1",
            "[network]",
        ),
        (
            "disk_reserve_bytes = 1000",
            "listen = \"x\"",
            "set by the lab",
        ),
    ];
    for (old, new, said) in cases {
        let text = refused(old, new);
        assert!(text.contains(said), "{new}: {text}");
    }
}

#[test]
fn what_is_not_in_the_cluster_is_refused_with_what_is() {
    let cases = [
        (
            "from = { dc = \"eu-1\" }",
            "from = { dc = \"eu-3\" }",
            "only eu-1, eu-2, us-1",
        ),
        (
            "from = { dc = \"eu-1\" }",
            "on = { node = \"n6\" }",
            "no node `n6`",
        ),
        (
            "from = { dc = \"eu-1\" }",
            "on = {}",
            "one part of the cluster",
        ),
        ("from = { dc = \"eu-1\" }\n", "", "say which links"),
        ("rack = \"dc=eu-1,rack=r2\"", "rack = \"r2\"", "tier=value"),
        (
            "rack = \"dc=eu-1,rack=r2\"",
            "rack = \"rack=r3\"",
            "no node is in",
        ),
        (
            "rack = \"dc=eu-1,rack=r2\"",
            "clients = \"eu-1\"",
            "not clients",
        ),
        ("leader_of = 3", "leader_of = 4", "1 (the meta shard) to 3"),
        (
            "do = \"wipe-disk\"",
            "do = \"wipe-disk\"\nfor = \"1s\"",
            "gone for good",
        ),
        (
            "do = \"heal\"\nname = \"x\"",
            "do = \"heal\"\nname = \"y\"",
            "no fault of links is named `y`",
        ),
        (
            "between = [\"us-1\", \"eu-1\"]",
            "between = [\"us-1\", \"eu\"]",
            "no data centre `eu`",
        ),
        ("of = \"all\"", "of = \"eu-2\"", "has no clients"),
        ("name = \"eu-2\"", "name = \"eu-1\"", "twice"),
    ];
    for (old, new, said) in cases {
        let text = refused(old, new);
        assert!(text.contains(said), "{new}: {text}");
    }
}

#[test]
fn scripts_and_mixes_are_read_before_anything_starts() {
    let with = |workload: &str| {
        let text = GOOD.replace("kind = \"bank\"", workload);
        let text = text.replace("leader_of = 3", "leader_of = 1");
        let text = text
            .replace("history = \"ok\"\nlost = 0\n", "")
            .replace("shards = 2\n", "");
        read(&text)
    };
    let script =
        with("kind = \"script\"\ntext = \"put a 1\"").unwrap_or_else(|bad| panic!("{bad}"));
    assert!(script.splits.is_empty() && !script.workload.kind.records());
    let text = with("kind = \"script\"\ntext = \"putt a 1\"")
        .expect_err("no script")
        .to_string();
    assert!(text.contains("no script: line 1"), "{text}");
    let text = with("kind = \"script\"\nscript = \"none\"")
        .expect_err("no file")
        .to_string();
    assert!(text.contains("cannot read none"), "{text}");
    let mix = with("kind = \"ycsb\"\nmix = { read = 0.5, scan = 0.5 }");
    assert_eq!(mix.unwrap_or_else(|bad| panic!("{bad}")).splits.len(), 3);
    let text = with("kind = \"ycsb\"\nmix = { read = 0.5 }")
        .expect_err("half")
        .to_string();
    assert!(text.contains("add up to 0.5"), "{text}");
    let text = with("kind = \"ycsb\"\nmix = \"G\"")
        .expect_err("no letter")
        .to_string();
    assert!(text.contains("A, B, C, D, E and F"), "{text}");
    let recorded = GOOD.replace("kind = \"bank\"", "kind = \"ycsb\"");
    let text = read(&recorded).expect_err("no history").to_string();
    assert!(text.contains("bank or list-append"), "{text}");
}

#[test]
fn a_load_may_be_made_longer_and_not_shorter_than_its_faults() {
    let scenario = read(GOOD).expect("good");
    let longer = scenario.clone().with_length(Duration::from_secs(60));
    assert_eq!(longer.expect("good").length, Duration::from_secs(60));
    let shorter = scenario.with_length(Duration::from_secs(3));
    let text = shorter.expect_err("faults come later").to_string();
    assert!(text.contains("make `length` longer"), "{text}");
}
