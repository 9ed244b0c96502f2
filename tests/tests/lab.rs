//! `synod lab run` on real processes: a site is cut off and comes back, what is
//! expected is held against what was seen, and what makes no sense starts nothing.

use std::process::{Command, Output};
use std::time::Duration;
use synod_client::Client;
use synod_harness::lab::{Action, Cluster, Harm, Links, Report, Select, Worse};
use synod_tests::{program, text};

/// Three data centres of one node; one is cut off with its clients, and comes back.
const CUT: &str = r#"
about = "A site is cut off and comes back."
length = "8s"
shards = 2

[network]
rtt = "6ms"
rtt_within = "1ms"

[[dc]]
name = "eu-1"

[[dc]]
name = "eu-2"

[[dc]]
name = "eu-3"

[workload]
kind = "bank"
clients = 2
rate = 10
timeout = "2s"

[[fault]]
at = "1s"
for = "3s"
do = "cut"
on = { dc = "eu-1" }

[expect]
history = "ok"
lost = 0
healthy = true
replicated_within = "60s"

[[expect.site]]
of = ["eu-2", "eu-3"]
served_at_least = 0.05
"#;

struct Ran {
    output: Output,
    directory: tempfile::TempDir,
}

fn run(scenario: &str, arguments: &[&str]) -> Ran {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("test.toml");
    std::fs::write(&file, scenario).expect("written");
    let output = Command::new(program())
        .args(["lab", "run"])
        .arg(&file)
        .args(arguments)
        .current_dir(directory.path())
        .env("TMPDIR", directory.path())
        .output()
        .expect("the program runs");
    Ran { output, directory }
}

impl Ran {
    #[track_caller]
    fn ends(&self, status: i32) {
        assert_eq!(
            self.output.status.code(),
            Some(status),
            "{}",
            text(&self.output)
        );
    }

    fn report(&self) -> Report {
        serde_json::from_slice(&self.output.stdout).expect("a report")
    }
}

#[test]
fn a_site_is_cut_off_with_its_clients_and_nothing_is_lost() {
    let ran = run(CUT, &["--json", "--seed", "3", "--html", "page.html"]);
    ran.ends(0);
    let report = ran.report();
    assert_eq!((report.scenario.as_str(), report.seed), ("test", 3));
    assert!(report.verdicts.iter().all(|verdict| verdict.held));
    let history = report.history.as_ref().expect("a bank records one");
    assert!(history.ok && history.operations > 20, "{history:?}");
    assert_eq!(report.faults[0].on, ["eu-1"]);
    let (from, until) = (report.faults[0].at_millis, report.faults[0].until_millis);
    let until = until.expect("it has ended");
    assert!(from >= 1_000 && until >= from + 3_000);
    // Its clients cannot reach the other nodes, and their own leads nothing alone.
    let site = &report.sites[0];
    assert!(site.longest_gap_millis >= 2_000, "{site:?}");
    assert!(site.longest_gap_began_millis < until, "{site:?}");
    assert!(
        report
            .sites
            .iter()
            .all(|site| site.total.ok > 0 && site.buckets.len() == 16)
    );
    let page = std::fs::read_to_string(ran.directory.path().join("page.html"));
    assert!(page.is_ok_and(|page| page.contains("<!doctype html>") || page.contains("<html")));
    // Nothing is left but what was asked for.
    let left = std::fs::read_dir(ran.directory.path())
        .expect("the directory")
        .count();
    assert_eq!(left, 2, "the scenario and the page");
}

#[test]
fn what_was_expected_in_vain_is_status_11() {
    let short = CUT
        .replace("length = \"8s\"", "length = \"3s\"")
        .replace("for = \"3s\"", "for = \"1s\"")
        .replace("served_at_least = 0.05", "p99_at_most = \"1ms\"");
    let ran = run(&short, &[]);
    ran.ends(11);
    let told = text(&ran.output);
    assert!(
        told.contains("eu-2: p99") && told.contains("did not hold"),
        "{told}"
    );
}

#[test]
fn what_makes_no_sense_is_status_2_and_starts_nothing() {
    let cases = [
        ("dc = \"eu-1\"", "dc = \"eu-4\"", "only eu-1, eu-2, eu-3"),
        ("shards = 2", "shard = 2", "line 4"),
        ("shards = 2", "[settings.log]\nsegment = 1", "segment"),
    ];
    for (old, new, said) in cases {
        // A section goes to the end, behind what belongs to no section.
        let bad = if new.starts_with('[') {
            format!("{CUT}\n{new}\n")
        } else {
            CUT.replace(old, new)
        };
        let ran = run(&bad, &[]);
        ran.ends(2);
        let told = text(&ran.output);
        assert!(
            told.contains(said) && told.contains("nothing was started"),
            "{told}"
        );
        assert!(!told.contains("starting"), "{told}");
    }
}

/// The same engine for tests in Rust.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_several_sites_can_be_had_in_a_test() {
    let mut cluster = Cluster::builder(program())
        .dc("eu-1", 1)
        .dc("eu-2", 1)
        .dc("us-1", 1)
        .rtt("eu-1", "us-1", Duration::from_millis(40))
        .shards(2)
        .start()
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let patience = Duration::from_secs(60);
    cluster.settled(patience).await.expect("it comes to rest");
    let connect = async |cluster: &Cluster, dc: &str| {
        let config = cluster.client_config(dc).expect("a data centre");
        Client::connect(config)
            .await
            .expect("the site's clients reach it")
    };
    let (near, far) = (
        connect(&cluster, "eu-1").await,
        connect(&cluster, "us-1").await,
    );
    near.put("a", "1").await.expect("the cluster serves");
    assert_eq!(
        far.get("a").await.expect("it serves").as_deref(),
        Some(&b"1"[..])
    );

    let cut = Action::Links(Links::Around(Select::dc("eu-1")), Worse::cut());
    let cut = cluster.begin(&cut).await.expect("it can be cut off");
    assert_eq!(cut.on, ["eu-1"]);
    far.with_timeout(patience)
        .put("a", "2")
        .await
        .expect("two of three are enough");
    let alone = near
        .with_timeout(Duration::from_secs(1))
        .put("a", "3")
        .await;
    alone.expect_err("the site is cut off with its clients");
    cluster.end(cut.id).await.expect("it is healed");
    let kill = Action::Harm(Select::node("n2"), Harm::Kill);
    cluster.begin(&kill).await.expect("it is killed");
    let near = near.with_timeout(patience);
    assert!(
        near.get("a")
            .await
            .expect("two of three are enough")
            .is_some()
    );
    cluster.heal().await.expect("it starts again");
    cluster.settled(patience).await.expect("it comes to rest");
    assert!(cluster.crashed().is_empty());
    let directory = cluster.dir().to_owned();
    drop(cluster);
    assert!(!directory.exists(), "nothing is left");
}
