//! Everything once, for a fraction of a second: that each workload works on
//! each system there is, and that tables and picture come out of it. Figures of
//! such a run mean nothing.

use std::path::Path;
use std::process::Command;

const ETCD: &str = "/usr/bin/etcd";
/// What `--quick` cannot show: 50 and 200 participants, and two of the tails'.
const UNMEASURED: usize = 4;

/// The program that is measured, built if it is not there or not current.
fn build(root: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--locked", "--quiet"]);
    let status = cargo.current_dir(root).status().expect("cargo can be run");
    assert!(status.success(), "synod does not build");
}

#[test]
fn every_workload_works_and_is_told() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    build(&root);
    let dir = tempfile::tempdir().expect("a directory");
    let (results, document) = (dir.path().join("r.jsonl"), dir.path().join("benchmarks.md"));
    std::fs::copy(root.join("docs/benchmarks.md"), &document).expect("copied");
    let both = Path::new(ETCD).exists();
    let mut command = Command::new(env!("CARGO_BIN_EXE_synod-bench"));
    command
        .current_dir(&root)
        .args(["--quick", "--systems"])
        .arg(if both { "synod,etcd" } else { "synod" })
        .arg("--results")
        .arg(&results)
        .arg("--docs")
        .arg(dir.path());
    let out = command.output().expect("it starts");
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{told}");
    let records = std::fs::read_to_string(&results).expect("results");
    let lines = |system: &str| {
        let system = format!("\"system\":\"{system}\"");
        records
            .lines()
            .filter(|line| line.contains(&system))
            .count()
    };
    // Only commits over many shards are Synod's alone: three lines of its.
    let expected = if both { lines("synod") - 3 } else { 0 };
    assert!(lines("synod") > 30, "{records}");
    assert_eq!(lines("etcd"), expected);
    let text = std::fs::read_to_string(&document).expect("the document");
    for title in [
        "Against the aims",
        "Saturated",
        "open loop",
        "many shards",
        "kill -9",
        "ledger",
        "Memory",
    ] {
        assert!(text.contains(title), "{title}");
    }
    if both {
        let unmeasured = text
            .lines()
            .filter(|line| line.ends_with("| not measured |"));
        assert_eq!(unmeasured.count(), UNMEASURED, "{text}");
    }
    let picture = std::fs::read_to_string(dir.path().join("benchmarks.svg")).expect("a picture");
    assert!(picture.contains("txn2"), "{picture}");
}
