//! The ledger example on a real cluster, also while a leader is killed.

use std::process::{Command, Output};
use synod_harness::cluster::Cluster;
use synod_tests::{cluster, ledger, text};

const ROWS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../examples/ledger/data/sample.csv"
);

fn replay(cluster: &Cluster) -> Output {
    let mut command = Command::new(ledger());
    command.args(["--file", ROWS, "--clients", "8", "--user", "admin"]);
    command.arg("--certs").arg(cluster.certs());
    for endpoint in cluster.endpoints() {
        command.arg("--endpoint").arg(endpoint.to_string());
    }
    command.output().expect("the example starts")
}

#[test]
fn the_sample_replays_and_verifies_and_repeating_changes_nothing() {
    let mut cluster = cluster(&[
        "ledger/accounts/00000015",
        "ledger/movements/",
        "ledger/parties/",
    ]);
    let out = replay(&cluster);
    assert!(out.status.success(), "{}", text(&out));
    cluster.node_mut(1).kill();
    let again = replay(&cluster);
    assert!(again.status.success(), "{}", text(&again));
}
