//! The lab: runs, scenarios, histories, and what is told of each.

use std::path::Path;
use std::process::Command;

/// Runs, checks the exit status, and gives back standard output and error.
#[track_caller]
fn ends(dir: &Path, args: &[&str], status: i32) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_synod"))
        .arg("lab")
        .args(args)
        .current_dir(dir)
        .env_clear()
        .output()
        .expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{args:?}: {out}{err}");
    (out, err)
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn scenarios_are_listed_and_found() {
    let dir = directory();
    let (out, _) = ends(dir.path(), &["scenarios"], 0);
    assert!(out.contains("router-loss"), "{out}");
    let (out, _) = ends(dir.path(), &["scenarios", "--json"], 0);
    assert!(out.lines().count() >= 11, "{out}");
    let (_, err) = ends(dir.path(), &["sim", "--scenario", "rack-los"], 2);
    assert!(err.contains("'rack-loss'"), "{err}");
}

#[test]
fn a_scenario_that_makes_no_sense_is_refused_before_anything_starts() {
    let dir = directory();
    let (_, err) = ends(dir.path(), &["run", "router-los"], 2);
    assert!(err.contains("did you mean `router-loss`?"), "{err}");
    let (_, err) = ends(dir.path(), &["run", "none.toml"], 2);
    assert!(err.contains("none.toml"), "{err}");
    let (_, err) = ends(dir.path(), &["run", "router-loss", "--seconds", "5"], 2);
    assert!(err.contains("make `length` longer"), "{err}");
    let (file, _) = ends(dir.path(), &["scenarios", "--print", "router-loss"], 0);
    for (old, new, said) in [
        ("clients = 6", "client = 6", "did you mean `clients`?"),
        (
            "on = { dc = \"eu-1\" }",
            "on = { dc = \"eu-7\" }",
            "there is no data centre `eu-7`",
        ),
        (
            "[network]",
            "[settings.timing]\nlease_milis = 1\n[network]",
            "did you mean `lease_millis`?",
        ),
    ] {
        assert!(file.contains(old), "{old}");
        std::fs::write(dir.path().join("mine.toml"), file.replace(old, new)).expect("written");
        let (out, err) = ends(dir.path(), &["run", "mine.toml"], 2);
        assert!(
            err.contains(said) && err.contains("nothing was started"),
            "{err}"
        );
        assert!(out.is_empty() && err.contains("mine"), "{out}{err}");
    }
}

#[test]
fn a_sweep_tells_what_it_did() {
    let dir = directory();
    let args = ["sim", "--seeds", "2", "--first", "1", "--threads", "1"];
    let (out, _) = ends(dir.path(), &args, 0);
    for part in [
        "seeds           2",
        "committed",
        "rare paths",
        "never passed",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
}

#[test]
fn a_seeds_history_can_be_exported_and_checked() {
    let dir = directory();
    let args = [
        "sim", "--seed", "2", "--export", "h.edn", "--trace", "--lines", "3",
    ];
    let (out, _) = ends(dir.path(), &args, 0);
    let told = out.contains("configuration") && out.contains("(3 lines");
    assert!(told, "{out}");
    let (out, _) = ends(dir.path(), &["check", "h.edn"], 0);
    assert!(out.contains("list-append"), "{out}");
    let (out, _) = ends(dir.path(), &["check", "h.edn", "--json"], 0);
    assert!(out.contains("\"violations\":0"), "{out}");
}

#[test]
fn a_wrong_history_is_status_10() {
    let dir = directory();
    let history = "{:type :invoke, :f :txn, :process 1, :value [[:r 5 nil]]}\n\
                   {:type :ok, :f :txn, :process 1, :value [[:r 5 [7]]]}\n";
    std::fs::write(dir.path().join("h.edn"), history).expect("written");
    let (out, err) = ends(dir.path(), &["check", "h.edn"], 10);
    assert!(out.contains("garbage read"), "{out}");
    assert!(err.contains("h.edn: 1 violations"), "{err}");
}

#[test]
fn bad_input_is_status_2_and_says_what_to_do() {
    let dir = directory();
    let (_, err) = ends(dir.path(), &["check", "none.edn"], 2);
    assert!(err.contains("none.edn"), "{err}");
    std::fs::write(dir.path().join("h.edn"), "{:type :invoke\n").expect("written");
    let (_, err) = ends(dir.path(), &["check", "h.edn"], 2);
    assert!(err.contains("h.edn is no history: line"), "{err}");
    std::fs::write(dir.path().join("h.edn"), "\n").expect("written");
    let (_, err) = ends(dir.path(), &["check", "h.edn"], 2);
    assert!(err.contains("nothing to check"), "{err}");
    std::fs::write(dir.path().join("h.edn"), b"\xff\xfe").expect("written");
    let (_, err) = ends(dir.path(), &["check", "h.edn"], 2);
    assert!(err.contains("UTF-8"), "{err}");
    let (_, err) = ends(dir.path(), &["sim", "--trace"], 2);
    assert!(err.contains("--seed S"), "{err}");
    let (_, err) = ends(dir.path(), &["sim", "--replay", "h.edn"], 2);
    assert!(err.contains("UTF-8"), "{err}");
    std::fs::write(dir.path().join("run.json"), "{}").expect("written");
    let (_, err) = ends(dir.path(), &["sim", "--replay", "run.json"], 2);
    assert!(err.contains("run.json is no saved run"), "{err}");
    for bad in [
        &["sim", "--seed", "x"][..],
        &["sim", "--seeds", "0"],
        &["sim", "--seed", "1", "--minutes", "1"],
        &["sim", "--threads", "0"],
        &["simm"],
        &[],
    ] {
        ends(dir.path(), bad, 2);
    }
}

#[test]
fn help_has_examples_and_statuses() {
    let dir = directory();
    for command in ["sim", "run", "check"] {
        let (out, _) = ends(dir.path(), &[command, "--help"], 0);
        assert!(
            out.contains("Example:") && out.contains("10 safety") || out.contains("10\nsafety"),
            "{out}"
        );
    }
}
