//! Scripts and commands, as an operator types them.

use synod_tests::{cluster, synod, text};

const MOVE: &str = "\
begin
  let a = get accounts/alice
  require ${a} >= 30      # guard
  put accounts/alice ${a - 30}
  let b = get zoo/bob default 0
  put zoo/bob ${b + 30}
commit
";

#[test]
fn money_moves_between_shards_until_the_guard_stops_it() {
    let cluster = cluster(&["g", "p"]);
    let out = synod(&cluster, &["put", "accounts/alice", "70"], "");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));

    let out = synod(&cluster, &["txn", "-"], MOVE);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let out = synod(&cluster, &["txn", "-", "--json"], MOVE);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let last = String::from_utf8_lossy(&out.stdout);
    let last = last.lines().last().expect("one line per statement");
    let commit: serde_json::Value = serde_json::from_str(last).expect("lines are JSON");
    assert_eq!(commit["op"], "commit");
    assert_eq!(commit["outcome"], "committed");
    assert_eq!(commit["shards"], 2);
    assert!(commit["timestamp"].is_u64() || commit["timestamp"].is_string());

    // 10 are left: the guard rolls back, and nothing changes.
    let out = synod(&cluster, &["txn", "-"], MOVE);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    let out = synod(&cluster, &["get", "zoo/bob"], "");
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "60");
}

#[test]
fn a_bad_script_sends_nothing_and_says_where() {
    let cluster = cluster(&["g"]);
    let out = synod(
        &cluster,
        &["txn", "-"],
        "put a 1\nbegin\n  frobnicate b\ncommit\n",
    );
    assert_eq!(out.status.code(), Some(2), "{}", text(&out));
    assert!(text(&out).contains('3'), "{}", text(&out));
    let out = synod(&cluster, &["get", "a"], "");
    assert_ne!(String::from_utf8_lossy(&out.stdout).trim(), "1");
}

#[test]
fn keys_scan_in_order_across_shards() {
    let cluster = cluster(&["b", "c"]);
    let puts: String = (0..9)
        .map(|i| format!("put {}{i} v{i}\n", ["a", "b", "c"][i % 3]))
        .collect();
    let out = synod(&cluster, &["txn", "-"], &puts);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let out = synod(&cluster, &["scan", "a", "d", "--json"], "");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let printed = String::from_utf8_lossy(&out.stdout);
    let order = ["a0", "a3", "a6", "b1", "b4", "b7", "c2", "c5", "c8"];
    let places: Vec<Option<usize>> = order.iter().map(|k| printed.find(k)).collect();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{printed}"
    );
}

#[test]
fn reserved_keys_are_refused() {
    let cluster = cluster(&[]);
    let out = synod(&cluster, &["status", "--json"], "");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let status: serde_json::Value =
        serde_json::from_slice(&out.stdout).expect("status is one JSON object");
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(3));
}
