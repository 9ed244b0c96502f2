//! The program without a cluster: exit statuses, messages, certificates, files.

use std::path::Path;
use std::process::{Command, Output};

fn synod(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(args)
        .current_dir(dir)
        .env_clear()
        .output()
        .expect("the program runs")
}

/// Runs, checks the exit status, and gives back standard output and error.
#[track_caller]
fn ends(dir: &Path, args: &[&str], status: i32) -> (String, String) {
    let output = synod(dir, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{args:?}: {out}{err}");
    (out, err)
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn certificates_are_made_once_and_not_overwritten() {
    let dir = directory();
    let (_, err) = ends(dir.path(), &["cert", "node", "n1"], 2);
    assert!(err.contains("synod cert ca"), "{err}");
    let (out, _) = ends(dir.path(), &["cert", "ca", "--cluster", "bank"], 0);
    assert!(out.starts_with("cluster "), "{out}");
    ends(dir.path(), &["cert", "node", "n1", "n2"], 0);
    ends(dir.path(), &["cert", "user", "admin"], 0);
    for file in ["ca.crt", "ca.key", "node-n2.key", "user-admin.crt"] {
        assert!(dir.path().join("certs").join(file).exists(), "{file}");
    }
    let before = std::fs::read(dir.path().join("certs/node-n1.key")).expect("a key");
    let (_, err) = ends(dir.path(), &["cert", "node", "n1"], 2);
    assert!(err.contains("not overwritten"), "{err}");
    assert_eq!(
        std::fs::read(dir.path().join("certs/node-n1.key")).expect("a key"),
        before
    );
    ends(dir.path(), &["cert", "user", "../escape"], 2);
}

#[test]
fn a_sample_configuration_is_good() {
    let dir = directory();
    let (sample, _) = ends(dir.path(), &["config", "sample"], 0);
    std::fs::write(dir.path().join("n1.toml"), &sample).expect("written");
    ends(dir.path(), &["config", "check", "n1.toml"], 0);
    let wrong = sample.replace("# lease_millis", "lease_milis");
    std::fs::write(dir.path().join("n1.toml"), wrong).expect("written");
    let (_, err) = ends(dir.path(), &["config", "check", "n1.toml"], 2);
    assert!(err.contains("did you mean `lease_millis`"), "{err}");
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let dir = directory();
    let (_, err) = ends(dir.path(), &["start", "--config", "none.toml"], 2);
    assert!(err.contains("none.toml"), "{err}");
    let (sample, _) = ends(dir.path(), &["config", "sample"], 0);
    std::fs::write(dir.path().join("n1.toml"), sample).expect("written");
    let output = synod(dir.path(), &["start", "--config", "n1.toml"]);
    assert!(!output.status.success());
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(err.contains("ca.crt"), "{err}");
}

#[test]
fn options_of_start_go_before_the_file() {
    let dir = directory();
    let (_, err) = ends(dir.path(), &["start", "--name", "n1", "--data", "d"], 2);
    assert!(err.contains("missing: --listen, --certs;"), "{err}");
    let all = [
        "start", "--name", "n1", "--listen", "here", "--data", "d", "--certs", "c",
    ];
    let (_, err) = ends(dir.path(), &all, 2);
    assert!(err.contains("--listen `here`"), "{err}");
    let (sample, _) = ends(dir.path(), &["config", "sample"], 0);
    std::fs::write(dir.path().join("n1.toml"), sample).expect("written");
    // The file names n1, the option the directory of its certificate.
    let (_, err) = ends(
        dir.path(),
        &["start", "--config", "n1.toml", "--certs", "c"],
        2,
    );
    assert!(err.contains("c/") && !err.contains("certs/"), "{err}");
}

#[test]
fn missing_connections_and_certificates_are_bad_arguments() {
    let dir = directory();
    let (_, err) = ends(dir.path(), &["get", "a"], 2);
    assert!(err.contains("--endpoint"), "{err}");
    let (_, err) = ends(dir.path(), &["status", "--endpoint", "127.0.0.1:1"], 2);
    assert!(err.contains("--certs"), "{err}");
    let (_, err) = ends(
        dir.path(),
        &[
            "get",
            "x'0g'",
            "--endpoint",
            "127.0.0.1:1",
            "--certs",
            "certs",
        ],
        2,
    );
    assert!(err.contains("x'0g'"), "{err}");
    let (_, err) = ends(dir.path(), &["init", "--replicas", "9"], 2);
    assert!(err.contains("--replicas"), "{err}");
    let (_, err) = ends(dir.path(), &["bench", "failover"], 2);
    assert!(err.contains("--local"), "{err}");
    let (_, err) = ends(dir.path(), &["bench", "put"], 2);
    assert!(
        err.contains("--local") && err.contains("--endpoint"),
        "{err}"
    );
}

#[test]
fn a_cluster_that_is_not_there_is_status_4() {
    let dir = directory();
    ends(dir.path(), &["cert", "ca"], 0);
    ends(dir.path(), &["cert", "user", "admin"], 0);
    // A port that is taken, and at which nobody answers.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address").to_string();
    let flags = ["--endpoint", &address, "--certs", "certs"];
    let args = [&["get", "a", "--timeout", "300ms"][..], &flags].concat();
    let (_, err) = ends(dir.path(), &args, 4);
    assert!(err.contains(&address), "{err}");
    let args = [&["status", "--timeout-millis", "300"][..], &flags].concat();
    let (_, err) = ends(dir.path(), &args, 4);
    assert!(err.contains("are the endpoints right"), "{err}");
}

#[test]
fn a_bad_script_is_refused_before_anything_is_sent() {
    let dir = directory();
    std::fs::write(dir.path().join("bad.synod"), "begin\nputt a 1\ncommit\n").expect("written");
    // Without any endpoint: the script comes first.
    let (_, err) = ends(dir.path(), &["txn", "bad.synod"], 2);
    assert!(err.contains("bad.synod: line 2"), "{err}");
    assert!(err.contains("nothing was sent"), "{err}");
    ends(dir.path(), &["txn", "none.synod"], 2);
}

#[test]
fn a_reader_who_goes_ends_the_program_without_a_word() {
    use std::io::Read;
    use std::process::Stdio;
    let dir = directory();
    let mut child = Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(["config", "sample"])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    // Nobody ever reads.
    drop(child.stdout.take());
    let status = child.wait().expect("it ends");
    let mut err = String::new();
    let mut stderr = child.stderr.take().expect("a pipe");
    stderr.read_to_string(&mut err).expect("text");
    assert_eq!((status.code(), err.as_str()), (Some(0), ""));
}

#[test]
fn a_demo_that_is_told_to_end_leaves_nothing() {
    let dir = directory();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(["demo", "--duration", "10m", "--no-kill"])
        .env("TMPDIR", dir.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program runs");
    let begun = std::time::Instant::now();
    let within = || std::fs::read_dir(dir.path()).expect("listed").flatten();
    // A node has begun to write. (If none does, the demo is ended all the same.)
    let writes = || within().any(|cluster| cluster.path().join("data-n1").exists());
    while !writes() && begun.elapsed().as_secs() < 60 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let wrote = writes();
    let told = Command::new("kill").arg(demo.id().to_string()).status();
    assert!(told.expect("kill runs").success());
    let status = demo.wait().expect("it ends");
    assert!(wrote, "no node starts");
    assert_eq!(status.code(), Some(143));
    assert_eq!(within().count(), 0, "a directory is left");
}

#[test]
fn repair_names_what_it_cannot_do() {
    let dir = directory();
    let (_, err) = ends(dir.path(), &["repair", "engine", "--data", "none"], 2);
    assert!(err.contains("none/identity"), "{err}");
    let (out, _) = ends(dir.path(), &["repair", "--help"], 0);
    assert!(out.contains("The log cannot be repaired"), "{out}");
}

#[test]
fn help_has_examples_and_settings() {
    let dir = directory();
    for command in [
        "demo", "cert", "init", "start", "get", "put", "scan", "txn", "bench",
    ] {
        let (out, _) = ends(dir.path(), &[command, "--help"], 0);
        assert!(
            out.contains("synod ") && out.contains("Usage"),
            "{command}: {out}"
        );
    }
    let (out, _) = ends(dir.path(), &["start", "--help"], 0);
    assert!(out.contains("timing.lease_millis (default 600)"), "{out}");
}
