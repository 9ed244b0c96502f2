//! What the end-to-end suites share: the program under test, and clusters of it.
//!
//! Each suite is a file in `tests/tests`, and each starts clusters of its own on
//! free loopback ports; dropping one kills its processes and removes its files.

pub mod damage;
pub mod leaders;
pub mod small;
pub mod survive;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use synod_client::Client;
use synod_harness::check::register;
use synod_harness::cluster::{Cluster, Options, ask, wait_for};
use synod_harness::workload::Run;
use synod_harness::workload::probe::Probe;
use synod_rpc::wire::Health;

/// How long [`eventually`] looks.
const PATIENCE: Duration = Duration::from_secs(60);

/// The `synod` program of this build; built if it is not there or not current.
///
/// # Panics
/// When it cannot be built.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| build("synod"))
}

/// The ledger example of this build.
///
/// # Panics
/// When it cannot be built.
pub fn ledger() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| build("ledger"))
}

/// Of the whole workspace, as `cargo test --workspace` builds it: the features of one
/// package alone would be others, and everything built a second time.
fn build(binary: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    // target/<profile>/deps/<test>
    let profile = exe
        .parent()
        .and_then(Path::parent)
        .expect("a test lies two levels below its profile")
        .to_path_buf();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--workspace", "--bin", binary]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    if let Some(target) = profile.parent() {
        cargo.env("CARGO_TARGET_DIR", target);
    }
    let status = cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo can be run");
    assert!(status.success(), "{binary} does not build");
    profile.join(binary)
}

/// Three data centres of one node, cut at these keys.
///
/// # Panics
/// When the cluster does not start; says why.
pub fn cluster(splits: &[&str]) -> Cluster {
    let mut options = Options::new(program());
    options.splits = splits.iter().map(|s| (*s).to_owned()).collect();
    start(options)
}

/// A cluster with these options.
///
/// # Panics
/// When it does not start; says why.
pub fn start(options: Options) -> Cluster {
    Cluster::start(options).unwrap_or_else(|error| panic!("{error}"))
}

/// As many data centres of one node; user shards 2, 3 and 4, three replicas each; with these
/// lines in every node's configuration.
///
/// # Panics
/// When it does not start; says why.
pub fn spread(nodes: usize, extra: &str) -> Cluster {
    let mut options = Options::new(program());
    options.dcs = nodes;
    options.splits = vec!["g".to_owned(), "p".to_owned()];
    options.extra_config = extra.to_owned();
    start(options)
}

/// One writer for each user shard of [`spread`], while `work` goes on; what it was told is there
/// afterwards.
///
/// # Panics
/// When it is not, or the cluster does not serve.
pub async fn under_load(cluster: &mut Cluster, work: impl AsyncFnOnce(&mut Cluster)) {
    let client = connect(cluster).await;
    let run = Run::default();
    let probes = ["a", "h", "q"].map(|shard| Probe {
        key: format!("{shard}/probe"),
    });
    let writers: Vec<_> = { probes.iter() }
        .map(|probe| {
            let (probe, client, run) = (probe.clone(), client.clone(), run.clone());
            tokio::spawn(async move { probe.write(client, run).await })
        })
        .collect();
    work(cluster).await;
    run.stop();
    let reader = connect(cluster).await;
    for (writer, probe) in writers.into_iter().zip(probes) {
        let mut written = writer.await.expect("a writer ends in order");
        assert!(written.acks.len() > 20, "{} was hardly written", probe.key);
        let read = probe.read_into(&reader, &run, &mut written.history).await;
        read.expect("the cluster serves");
        let findings = register::check(&written.history);
        assert!(findings.is_clean(), "{findings}");
    }
}

/// Ends a node with SIGTERM and waits until its process is gone.
///
/// # Panics
/// When it does not end in order.
pub fn terminate(cluster: &mut Cluster, index: usize) {
    cluster.node_mut(index).terminate();
    wait_for("the node's end", Duration::from_secs(10), || {
        cluster.node_mut(index).exit_status().is_some()
    })
    .expect("a node that is told to end ends");
    let status = cluster.node_mut(index).exit_status();
    assert_eq!(status.and_then(|s| s.code()), Some(0));
}

/// Looks until it is true.
///
/// # Panics
/// When it is not within a minute.
pub async fn eventually(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is().await {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A client of it.
///
/// # Panics
/// When it cannot connect.
pub async fn connect(cluster: &Cluster) -> Client {
    Client::connect(cluster.client_config())
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Waits until every shard has a leader in office under lease, every follower
/// holds what its leader holds, and every node is as it should be.
///
/// # Panics
/// When that takes more than a minute; says what is missing.
pub async fn settled(cluster: &Cluster) {
    let pool = cluster.pool().unwrap_or_else(|error| panic!("{error}"));
    let begun = Instant::now();
    loop {
        let mut missing = Vec::new();
        let mut led = BTreeSet::new();
        let mut shards = BTreeMap::new();
        for node in cluster.nodes() {
            match ask::status(&pool, node.address, Duration::from_secs(1)).await {
                Ok(status) => {
                    if status.health != Health::Ok {
                        missing.push(format!("{}: {:?}", node.name, status.health));
                    }
                    for shard in status.shards {
                        // Under load the last entries are always under way.
                        let mut followers = shard.followers.iter();
                        let level = followers.all(|f| f.matched.0 + 200 >= shard.decided.0);
                        if shard.in_office && shard.lease_millis.is_some() && level {
                            led.insert(shard.id);
                        }
                        let seen = shards.entry(shard.id).or_insert_with(Vec::new);
                        seen.push((&node.name, shard));
                    }
                }
                Err(error) => missing.push(format!("{}: {error}", node.name)),
            }
        }
        let unled = shards.iter().filter(|(id, _)| !led.contains(id));
        missing.extend(unled.map(|(id, seen)| format!("shard {}: {seen:?}", id.0)));
        if missing.is_empty() && !shards.is_empty() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "not settled: {missing:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `synod`, to be run against the cluster.
#[must_use]
pub fn command(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).arg("--certs").arg(cluster.certs());
    command.args(["--user", "admin"]);
    for endpoint in cluster.endpoints() {
        command.arg("--endpoint").arg(endpoint.to_string());
    }
    command
}

/// Runs `synod` against the cluster; `input` goes to its standard input.
///
/// # Panics
/// When it cannot be started.
pub fn synod(cluster: &Cluster, arguments: &[&str], input: &str) -> Output {
    use std::io::Write;
    let mut child = command(cluster, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    // A program that refuses its arguments does not read its input.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("the program ends")
}

/// What it printed.
#[must_use]
pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The most memory that any node ever had; MiB.
#[must_use]
pub fn peak_memory_mib(cluster: &Cluster) -> u64 {
    memory_mib(cluster, "VmHWM:")
}

/// A line of `/proc/<pid>/status` of the node that has most; MiB.
#[must_use]
pub fn memory_mib(cluster: &Cluster, line: &str) -> u64 {
    let of = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|l| l.starts_with(line))?;
        line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let pids = cluster.nodes().iter().filter_map(|n| n.pid());
    pids.filter_map(of).max().unwrap_or_default() / 1024
}
