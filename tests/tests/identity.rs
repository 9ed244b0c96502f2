//! Who is who: certificates, directories, clusters and versions that do not fit
//! are refused in words, and change nothing.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};
use synod_harness::cluster::{Cluster, Options, ask, wait_for};
use synod_paxos::ClusterVersion;
use synod_rpc::cert::{self, CertFiles, Subject, Validity};
use synod_rpc::wire::Health;
use synod_rpc::{CertRole, NodeRequest};
use synod_tests::survive::{options, progress, survive};
use synod_tests::{cluster, connect, program, settled, start, text};

const PATIENCE: Duration = Duration::from_secs(30);

fn synod(arguments: &[&str]) -> Output {
    let output = Command::new(program()).args(arguments).output();
    output.expect("the program runs")
}

/// Runs a node that must refuse to start, with this exit status and these words.
#[track_caller]
fn refuses(config: &Path, status: i32, words: &[&str]) {
    let output = synod(&["start", "--config", &config.to_string_lossy()]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(status), "{text}");
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

/// A copy of a node's configuration with some text in it replaced.
fn changed(cluster: &Cluster, index: usize, changes: &[(&str, &str)]) -> PathBuf {
    let node = &cluster.nodes()[index];
    let mut text = std::fs::read_to_string(&node.config).expect("it was written");
    for (from, to) in changes {
        assert!(text.contains(from), "`{from}` in {text}");
        text = text.replace(from, to);
    }
    let path = node.config.with_extension("changed.toml");
    std::fs::write(&path, text).expect("it can be written");
    path
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn subject(role: CertRole, name: &str) -> Subject {
    Subject {
        role,
        name: name.to_owned(),
    }
}

/// `get a` as whoever these files make us.
fn get(cluster: &Cluster, ca: &Path, files: &CertFiles) -> Output {
    synod(&[
        "get",
        "a",
        "--timeout",
        "3s",
        "--ca",
        &path_text(ca),
        "--cert",
        &path_text(&files.certificate),
        "--key",
        &path_text(&files.key),
        "--endpoint",
        &cluster.nodes()[0].address.to_string(),
    ])
}

#[test]
fn wrong_certificates_are_refused_as_what_they_are() {
    let cluster = cluster(&[]);
    let certs = cluster.certs();
    let ca = CertFiles::ca(&certs).certificate;
    let past = Validity {
        not_before: SystemTime::now() - Duration::from_secs(7200),
        not_after: SystemTime::now() - Duration::from_secs(3600),
    };
    let expired = cert::issue_user(&certs, "old", &past).expect("it is made");
    let foreign = cluster.dir().join("foreign");
    cert::create_ca(&foreign, "foreign").expect("it is made");
    let stranger = cert::issue_user(&foreign, "admin", &Validity::default()).expect("it is made");
    let foreign_ca = CertFiles::ca(&foreign).certificate;
    let node = CertFiles::of(&certs, &subject(CertRole::Node, "n1"));

    for (ca, files, words) in [
        (&ca, &expired, "it has expired"),
        (&ca, &stranger, "not issued by the CA given"),
        (&foreign_ca, &stranger, "not issued by the cluster's CA"),
        (&ca, &node, "node:n1 is no user"),
    ] {
        let output = get(&cluster, ca, files);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(words), "no `{words}` in: {text}");
    }

    // A user may not be a node, and an expired node does not start.
    let user = CertFiles::of(&certs, &subject(CertRole::User, "admin"));
    let admin = changed(
        &cluster,
        0,
        &[
            (&path_text(&node.certificate), &path_text(&user.certificate)),
            (&path_text(&node.key), &path_text(&user.key)),
        ],
    );
    refuses(&admin, 2, &["user:admin", "synod cert node n1"]);
    let late = cluster.dir().join("late");
    std::fs::create_dir(&late).expect("it is made");
    for file in ["ca.crt", "ca.key"] {
        std::fs::copy(certs.join(file), late.join(file)).expect("it is copied");
    }
    cert::issue_node(&late, "n1", &past).expect("it is made");
    let expired = changed(&cluster, 0, &[(&path_text(&certs), &path_text(&late))]);
    refuses(&expired, 2, &["node:n1", "it has expired"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_taken_over_while_the_node_runs() {
    let mut cluster = cluster(&[]);
    let files = CertFiles::of(&cluster.certs(), &subject(CertRole::Node, "n1"));
    let replace = |certificate: &[u8], key: &[u8]| {
        std::fs::write(&files.certificate, certificate).expect("it can be written");
        std::fs::write(&files.key, key).expect("it can be written");
    };
    let old = (
        std::fs::read(&files.certificate).expect("it is there"),
        std::fs::read(&files.key).expect("it is there"),
    );
    let says = |cluster: &Cluster, what: &str| {
        wait_for(what, PATIENCE, || {
            cluster.nodes()[0].log_tail(20).contains(what)
        })
        .unwrap_or_else(|e| panic!("{e}: {}", cluster.nodes()[0].log_tail(20)));
    };
    replace(b"no certificate", &old.1);
    says(&cluster, "the old ones stay in use");
    connect(&cluster)
        .await
        .put("a", "1")
        .await
        .expect("it serves");

    std::fs::remove_file(&files.certificate).expect("it is there");
    std::fs::remove_file(&files.key).expect("it is there");
    cert::issue_node(&cluster.certs(), "n1", &Validity::days(1)).expect("it is made");
    says(&cluster, "new certificates are in use");
    // New connections of clients and peers.
    cluster.node_mut(1).kill();
    cluster.start_node(1).expect("the node starts");
    settled(&cluster).await;
    cluster.node_mut(2).kill();
    let client = connect(&cluster).await;
    client.put("a", "2").await.expect("n1 and n2 serve");
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_ports_and_clusters_that_are_taken_are_refused() {
    let mut cluster = cluster(&[]);
    let client = connect(&cluster).await;
    client.put("a", "1").await.expect("it serves");
    let node = &cluster.nodes()[0];
    let (listens, data) = (node.listens.to_string(), path_text(&node.data_dir));
    let other_port = {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.local_addr().expect("an address").to_string()
    };
    let twice = changed(&cluster, 0, &[(&listens, &other_port)]);
    refuses(&twice, 4, &["is in use by another synod process", &data]);
    let elsewhere = path_text(&cluster.dir().join("elsewhere"));
    let taken = changed(&cluster, 0, &[(&data, &elsewhere)]);
    refuses(&taken, 4, &["cannot listen on UDP", &listens]);

    cluster.node_mut(0).kill();
    let other = cluster.nodes()[1].data_dir.clone();
    cluster.node_mut(1).kill();
    let wrong = changed(&cluster, 0, &[(&data, &path_text(&other))]);
    refuses(&wrong, 4, &["belongs to node `n2`"]);
    cluster.start_node(1).expect("the node starts");

    let foreign = cluster.dir().join("foreign");
    cert::create_ca(&foreign, "foreign").expect("it is made");
    cert::issue_node(&foreign, "n1", &Validity::default()).expect("it is made");
    let certs = path_text(&cluster.certs());
    let strange = changed(&cluster, 0, &[(&certs, &path_text(&foreign))]);
    refuses(&strange, 4, &["belongs to cluster", "the certificates to"]);

    // A node of another cluster at this one's address: nobody speaks to it.
    let empty = path_text(&cluster.dir().join("empty"));
    let strange = changed(
        &cluster,
        0,
        &[(&certs, &path_text(&foreign)), (&data, &empty)],
    );
    let mut stranger = Command::new(program())
        .args(["start", "--config", &path_text(&strange)])
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    wait_for("a refusal", PATIENCE, || {
        let log = cluster.nodes()[1].log_tail(50);
        log.contains("not issued by the cluster's CA")
    })
    .expect("the others refuse it");
    client.put("a", "2").await.expect("the others serve");
    let _ = stranger.kill();
    let _ = stranger.wait();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_directory_is_not_taken_for_the_old_node() {
    let mut cluster = cluster(&[]);
    let client = connect(&cluster).await;
    client.put("a", "1").await.expect("it serves");
    cluster.node_mut(0).kill();
    let data = cluster.nodes()[0].data_dir.clone();
    let kept = data.with_extension("kept");
    std::fs::rename(&data, &kept).expect("it is moved");
    cluster.start_node(0).expect("the process starts");
    wait_for("a refusal", PATIENCE, || {
        cluster.nodes()[0]
            .log_tail(50)
            .contains("a wiped directory makes a new node")
    })
    .expect("it is told what it is");
    client.put("a", "2").await.expect("the others serve");
    let pool = cluster.pool().expect("good certificates");
    let address = cluster.nodes()[0].address;
    let status = ask::status(&pool, address, PATIENCE)
        .await
        .expect("it answers");
    assert_eq!(status.health, Health::Uninitialized);

    cluster.node_mut(0).kill();
    std::fs::remove_dir_all(&data).expect("it is there");
    std::fs::rename(&kept, &data).expect("it is moved back");
    cluster.start_node(0).expect("the node starts");
    settled(&cluster).await;
}

/// One that came later holds no shard of the map it began with; it has promised as much as others.
#[test]
fn a_log_that_is_gone_is_noticed_by_who_joined_later_too() {
    let mut cluster = cluster(&[]);
    let new = cluster.add_node("region=local,dc=dc-4").expect("a node");
    let address = cluster.nodes()[new].address.to_string();
    let joined = synod_tests::synod(&cluster, &["node", "join", &address], "");
    assert!(joined.status.success(), "{}", text(&joined));
    cluster.node_mut(new).kill();
    let node = &cluster.nodes()[new];
    std::fs::remove_dir_all(node.data_dir.join("log")).expect("there is a log");
    // Nothing that the first start does makes the second one different.
    for _ in 0..2 {
        let words = ["has lost everything that this node", "synod repair"];
        refuses(&node.config, 4, &words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_past_is_not_begun_anew() {
    let mut cluster = cluster(&[]);
    let client = connect(&cluster).await;
    client.put("a", "1").await.expect("it serves");
    cluster.node_mut(0).kill();
    let node = &cluster.nodes()[0];
    let certs = cluster.certs();
    let tls = synod_rpc::TlsIdentity::from_dir(&certs, CertRole::Node, "n1").expect("good files");
    let bootstrap = {
        let directory = synod_kv::identity::Directory::open(&node.data_dir, "n1", tls.cluster());
        let found = directory.expect("nobody has it").bootstrap();
        found.expect("it is whole").expect("it is there")
    };
    let file = node.data_dir.join("cluster");
    let kept = std::fs::read(&file).expect("it is there");
    std::fs::remove_file(&file).expect("it is there");
    cluster.start_node(0).expect("the process starts");
    let pool = cluster.pool().expect("good certificates");
    let address = cluster.nodes()[0].address;
    synod_tests::eventually("it says that it is no part of a cluster", async || {
        let status = ask::status(&pool, address, PATIENCE).await;
        status.is_ok_and(|status| status.health == Health::Uninitialized)
    })
    .await;
    let request = NodeRequest::Init(Box::new(bootstrap));
    let answer = ask::ask(&pool, address, request, PATIENCE).await;
    let reason = format!("{:?}", answer.expect_err("it has promised something"));
    assert!(reason.contains("wipe its directory"), "{reason}");

    cluster.node_mut(0).kill();
    std::fs::write(&file, kept).expect("it is put back");
    cluster.start_node(0).expect("the node starts");
    settled(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_engine_in_the_settings_leaves_the_data_where_it_is() {
    let mut cluster = cluster(&[]);
    let client = connect(&cluster).await;
    client.put("a", "1").await.expect("it serves");
    cluster.node_mut(0).kill();
    let wrong = changed(&cluster, 0, &[("engine = \"fjall\"", "engine = \"redb\"")]);
    refuses(&wrong, 4, &["holds the engine `synod engine fjall"]);
    let names = std::fs::read_dir(&cluster.nodes()[0].data_dir).expect("it is there");
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let aside: Vec<String> = names.filter(|name| name.contains("aside")).collect();
    assert_eq!(aside, [""; 0]);
    cluster.start_node(0).expect("the node starts");
    settled(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_version_is_refused() {
    let mut cluster = cluster(&[]);
    let pool = cluster.pool().expect("good certificates");
    cluster.node_mut(0).kill();
    let node = &cluster.nodes()[0];
    let identity = CertFiles::of(&cluster.certs(), &subject(CertRole::Node, "n1"));
    let tls = synod_rpc::TlsIdentity::from_files(
        &CertFiles::ca(&cluster.certs()).certificate,
        &identity.certificate,
        &identity.key,
    )
    .expect("good certificates");
    let mut bootstrap = {
        let directory = synod_kv::identity::Directory::open(&node.data_dir, "n1", tls.cluster())
            .expect("nobody has it");
        directory
            .bootstrap()
            .expect("it is whole")
            .expect("it is there")
    };
    // What it has heard of since counts for more than what it began with.
    let _ = std::fs::remove_file(node.data_dir.join("version"));
    let newest = ClusterVersion::NEWEST.0;
    for version in [0, newest + 1] {
        bootstrap.version = ClusterVersion(version);
        synod_kv::identity::Directory::open(&node.data_dir, "n1", tls.cluster())
            .expect("nobody has it")
            .store_bootstrap(&bootstrap)
            .expect("it is stored");
        let version = format!("cluster version {version}");
        refuses(
            &node.config,
            4,
            &[
                &version,
                &format!("this program knows 1 to {newest}: start"),
            ],
        );
        // Nor is it taken from `init`.
        let request = NodeRequest::Init(Box::new(bootstrap.clone()));
        let answer = ask::ask(&pool, cluster.nodes()[1].address, request, PATIENCE).await;
        assert!(answer.is_err(), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_stepped_cost_time_and_nothing_else() {
    const HOUR: i64 = 3_600_000_000_000;
    let mut options: Options = options();
    options.faults = true;
    let mut cluster = start(options);
    survive(&mut cluster, async |cluster, meter| {
        for (index, step) in [(0, HOUR), (1, -HOUR)] {
            progress(meter, 30).await;
            settled(cluster).await;
            cluster.nodes()[index].faults().shift_clock(step);
            distrusted(cluster, index).await;
            progress(meter, 100).await;
            cluster.nodes()[index].faults().heal();
        }
        // All together, as when a time server lies.
        settled(cluster).await;
        for node in cluster.nodes() {
            node.faults().shift_clock(HOUR);
        }
        progress(meter, 50).await;
        // And as when it tells the truth again: every clock is an hour behind what was committed.
        for node in cluster.nodes() {
            node.faults().heal();
        }
        progress(meter, 50).await;
        // Nor does anybody remember from before a start that clocks were ahead.
        for index in 0..cluster.nodes().len() {
            cluster.node_mut(index).kill();
        }
        for index in 0..cluster.nodes().len() {
            cluster.nodes()[index].faults().shift_clock(-HOUR);
            cluster.start_node(index).expect("the node starts again");
        }
        progress(meter, 50).await;
    })
    .await;
}

/// Waits until a node says that its clock is not trusted.
async fn distrusted(cluster: &Cluster, index: usize) {
    let pool = cluster.pool().expect("good certificates");
    let address = cluster.nodes()[index].address;
    let wait = async {
        loop {
            let status = ask::status(&pool, address, PATIENCE)
                .await
                .expect("it answers");
            if matches!(&status.health, Health::Degraded(why) if why.contains("clock")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("the step is noticed");
}
