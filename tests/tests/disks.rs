//! Disks that fail, stall, fill up and rot under real processes: the others
//! serve, the message says what happened to which file, and what to do helps.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use synod_client::{Client, Error};
use synod_harness::cluster::{Cluster, DiskError, Options, Part, ask, may_mount};
use synod_harness::workload::Meter;
use synod_rpc::wire::{Health, NodeStatus};
use synod_tests::damage::{damage_log, flip, last_words, newest};
use synod_tests::survive::{cluster, options, progress, survive};
use synod_tests::{connect, program, settled, start};

const PATIENCE: Duration = Duration::from_secs(30);
/// The log becomes long soon: then the engine syncs, and the log is cut off.
const SHORT_LOG: &str = "[log]\nsegment_bytes = 1048576\ntrim_bytes = 4194304\n";

fn with_faults() -> Options {
    let mut options = options();
    options.faults = true;
    options
}

/// The node that leads most shards.
async fn busiest(cluster: &Cluster) -> usize {
    let pool = cluster.pool().expect("good certificates");
    let busiest = ask::busiest_leader(&pool, &cluster.endpoints(), Duration::from_secs(2)).await;
    let (_, name, _) = busiest.expect("somebody leads");
    cluster.index_of(&name).expect("a node of this cluster")
}

async fn status(cluster: &Cluster, index: usize) -> NodeStatus {
    let pool = cluster.pool().expect("good certificates");
    let address = cluster.nodes()[index].address;
    ask::status(&pool, address, Duration::from_secs(5))
        .await
        .expect("a node that runs says how it is")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_ends_the_node_with_its_reason() {
    let mut cluster = start(with_faults());
    survive(&mut cluster, async |cluster, meter| {
        progress(meter, 50).await;
        let index = busiest(cluster).await;
        cluster.nodes()[index]
            .faults()
            .fail_syncs(Some(DiskError::Broken));
        let words = last_words(cluster, index);
        assert!(
            words.contains("cannot sync") && words.contains("segment-"),
            "{words}"
        );
        assert!(words.contains("Input/output error"), "{words}");
        progress(meter, 100).await;
        mended(cluster, index, meter).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_stalls_costs_the_leaderships_and_nothing_else() {
    let mut cluster = start(with_faults());
    survive(&mut cluster, async |cluster, meter| {
        progress(meter, 50).await;
        settled(cluster).await;
        let index = busiest(cluster).await;
        let stall = Duration::from_secs(60);
        cluster.nodes()[index].faults().slow_syncs(stall);
        let stalls = |status: &NodeStatus| matches!(&status.health, Health::Degraded(why) if why.contains("disk"));
        let wait = async {
            loop {
                let status = status(cluster, index).await;
                if stalls(&status) && ask::shards_led(&status) == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let noticed = tokio::time::timeout(PATIENCE, wait).await;
        noticed.expect("it says so, and keeps no leadership");
        progress(meter, 100).await;
        cluster.nodes()[index].faults().heal();
        settled(cluster).await;
        progress(meter, 50).await;
        assert!(cluster.node_mut(index).is_running(), "it never ended");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_room_ends_the_node_until_there_is_room() {
    let mut cluster = start(with_faults());
    survive(&mut cluster, async |cluster, meter| {
        progress(meter, 50).await;
        let index = busiest(cluster).await;
        cluster.nodes()[index]
            .faults()
            .fail_writes(Some(DiskError::Full));
        let words = last_words(cluster, index);
        assert!(words.contains("No space left on device"), "{words}");
        progress(meter, 100).await;
        mended(cluster, index, meter).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_whose_disk_fails_ends_the_node_and_comes_back_whole() {
    let mut options = with_faults();
    options.extra_config = SHORT_LOG.to_owned();
    let mut cluster = start(options);
    survive(&mut cluster, async |cluster, meter| {
        progress(meter, 50).await;
        let index = busiest(cluster).await;
        cluster.nodes()[index].faults().concern(Part::Engine);
        cluster.nodes()[index]
            .faults()
            .fail_syncs(Some(DiskError::Broken));
        // The engine syncs when the log has become long.
        let client = connect(cluster).await;
        fill(&client, 160).await;
        let words = last_words(cluster, index);
        assert!(words.contains("engine"), "{words}");
        assert!(words.contains("Input/output error"), "{words}");
        progress(meter, 100).await;
        mended(cluster, index, meter).await;
        serves_with_only_one_other(cluster, index, async || progress(meter, 50).await).await;
    })
    .await;
}

/// A file system of its own under each node, with hardly more room than the reserve.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_runs_full_takes_deletes_until_there_is_room() {
    const DISK: u64 = 160 << 20;
    const BALLAST: usize = 64 << 20;
    if !may_mount() {
        eprintln!("skipped: nobody but root may mount anything here, not even for itself");
        return;
    }
    let mut options = options();
    options.disk_bytes = Some(DISK);
    options.extra_config = SHORT_LOG.to_owned();
    options.extra_node_lines = format!("disk_reserve_bytes = {}\n", 48 << 20);
    let mut cluster = start(options);
    let ballast = |cluster: &Cluster, index: usize| {
        let disk = cluster.nodes()[index].disk();
        disk.expect("it runs").join("ballast")
    };
    for index in 0..3 {
        std::fs::write(ballast(&cluster, index), vec![1; BALLAST]).expect("there is room");
    }
    survive(&mut cluster, async |cluster, meter| {
        progress(meter, 50).await;
        let client = connect(cluster).await;
        let mut kept = Vec::new();
        let reason = loop {
            let number = kept.len();
            assert!(number < 2_000, "twice of what there is room for");
            let key = format!("bank/{:05}/full/{number}", number % 24);
            match client.put(key.clone(), vec![b'x'; 64 << 10]).await {
                Ok(_) => kept.push(key),
                Err(error @ Error::Aborted { .. }) => break error.to_string(),
                Err(error) => panic!("{error}"),
            }
        };
        assert!(reason.contains("nearly full"), "{reason}");
        assert!(kept.len() > 100, "{} were let in", kept.len());
        for key in kept.drain(..kept.len() / 2) {
            client
                .delete(key.clone())
                .await
                .expect("deletes are let in");
            assert_eq!(client.get(key).await.expect("reads go on"), None);
        }
        for index in 0..3 {
            assert!(cluster.node_mut(index).is_running(), "nobody ended");
            std::fs::remove_file(ballast(cluster, index)).expect("it is there");
        }
        synod_tests::eventually("writes are let in again", async || {
            client.put("bank/00000/full", "1").await.is_ok()
                && client.put("bank/00023/full", "1").await.is_ok()
        })
        .await;
        for key in kept {
            let value = client.get(key).await.expect("it serves");
            assert_eq!(value.map(|value| value.len()), Some(64 << 10));
        }
        progress(meter, 50).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nearly_full_disk_lets_only_deletes_in_until_there_is_room() {
    let mut options = Options::new(program());
    options.splits = vec!["m".to_owned()];
    options.faults = true;
    let cluster = start(options);
    let client = connect(&cluster).await;
    for key in ["a", "z"] {
        client.put(key, "1").await.expect("there is room");
    }
    for node in cluster.nodes() {
        node.faults().pretend_free(Some(1 << 20));
    }
    let refused = async |key: &'static str| match client.put(key, "2").await {
        Err(error @ Error::Aborted { .. }) => {
            assert!(error.to_string().contains("nearly full"), "{error}");
            true
        }
        Err(error) => panic!("{error}"),
        Ok(_) => false,
    };
    // Nodes look at their disks every second.
    for key in ["b", "y"] {
        let wait = async {
            while !refused(key).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the reserve is kept");
    }
    // Each node looks for itself, and this one may lead nothing.
    let wait = async {
        loop {
            match status(&cluster, 0).await.health {
                Health::Degraded(why) if why.contains("nearly full") => return,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("the node says what is wrong");
    // Over two shards: neither keeps a lock or an intent.
    let both = client.transact(async |txn| {
        txn.put("c", "3").await?;
        txn.put("x", "3").await
    });
    assert!(both.await.is_err());
    client.delete("a").await.expect("deletes are let in");
    assert_eq!(client.get("a").await.expect("reads go on"), None);
    assert_eq!(client.get("c").await.expect("reads go on"), None);

    for node in cluster.nodes() {
        node.faults().heal();
    }
    let wait = async {
        while refused("c").await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        while refused("x").await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("writes are let in again");
}

/// So many values of 64 KiB, in all shards.
async fn fill(client: &Client, count: u32) {
    for number in 0..count {
        let put = client.put(bulk(number), vec![b'x'; 64 << 10]).await;
        put.expect("the cluster serves");
    }
}

fn bulk(number: u32) -> String {
    format!("bank/{:05}/bulk/{number}", number % 24)
}

/// The disk is well again, the node is started, and everything goes on.
async fn mended(cluster: &mut Cluster, index: usize, meter: &Meter) {
    cluster.nodes()[index].faults().heal();
    cluster.start_node(index).expect("the node starts again");
    settled(cluster).await;
    progress(meter, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_flipped_bits_is_refused_by_file_and_offset() {
    let mut cluster = cluster("");
    survive(&mut cluster, async |cluster, meter| {
        progress(meter, 100).await;
        let (segment, words) = damage_log(cluster, 0);
        assert!(words.contains("is damaged at byte 512"), "{words}");
        assert!(words.contains(&*segment.to_string_lossy()), "{words}");
        assert!(words.contains("synod repair"), "{words}");
        progress(meter, 100).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_cut_and_the_node_goes_on() {
    let mut cluster = cluster("");
    survive(&mut cluster, async |cluster, meter| {
        progress(meter, 100).await;
        cluster.node_mut(0).kill();
        let segment = newest(&cluster.nodes()[0].data_dir.join("log"), "segment-");
        tear(&segment);
        cluster.start_node(0).expect("the node starts");
        settled(cluster).await;
        let said = cluster.nodes()[0].log_tail(50);
        assert!(
            said.contains("the log ended with what was written"),
            "{said}"
        );
        assert!(said.contains(&*segment.to_string_lossy()), "{said}");
        // It must carry the load with one of the others.
        cluster.node_mut(1).kill();
        progress(meter, 100).await;
        cluster.start_node(1).expect("the node starts");
    })
    .await;
}

/// Leaves half of a batch behind the end of a log, as a power cut does: the
/// mark of a batch that was never acknowledged, and nothing of use behind it.
/// The end is found batch by batch (`docs/log-format.md`): the last one may end with zeros, and
/// what was acknowledged stays as it is.
fn tear(segment: &Path) {
    const HEADER: usize = 48;
    let bytes = std::fs::read(segment).expect("the segment is there");
    // The first batch begins with the mark of all.
    let mark: [u8; 4] = bytes[512..516].try_into().expect("four bytes");
    let mut end = 512;
    while bytes[end..end + 4] == mark {
        let length = bytes[end + 8..end + 12].try_into().expect("four bytes");
        let length = HEADER + u32::from_le_bytes(length) as usize;
        end += length.next_multiple_of(8);
    }
    let file = std::fs::OpenOptions::new().write(true).open(segment);
    let file = file.expect("the segment is there");
    file.write_all_at(&mark, end as u64)
        .expect("it can be written");
    file.write_all_at(&[0xa5; 900], end as u64 + 4)
        .expect("it can be written");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_gone_or_empty_is_filled_again() {
    let mut cluster = cluster(SHORT_LOG);
    survive(&mut cluster, async |cluster, meter| {
        let client = connect(cluster).await;
        // More than the log keeps: the rest has to come from peers.
        fill(&client, 160).await;
        for (index, empty) in [(0, false), (1, true)] {
            progress(meter, 50).await;
            cluster.node_mut(index).kill();
            let engine = cluster.nodes()[index].data_dir.join("engine");
            std::fs::remove_dir_all(&engine).expect("there is an engine");
            if empty {
                std::fs::create_dir(&engine).expect("it is made");
            }
            cluster.start_node(index).expect("the node starts");
            settled(cluster).await;
            let said = cluster.nodes()[index].log_tail(50);
            assert!(said.contains("directory is gone or empty"), "{said}");
            serves_with_only_one_other(cluster, index, async || progress(meter, 50).await).await;
        }
    })
    .await;
}

/// With one of the others dead, this node has to lead or follow every shard.
async fn serves_with_only_one_other(cluster: &mut Cluster, index: usize, work: impl AsyncFnOnce()) {
    let other = (index + 1) % cluster.nodes().len();
    cluster.node_mut(other).kill();
    work().await;
    cluster.start_node(other).expect("the node starts");
    settled(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_engine_is_set_aside_by_the_repair_named() {
    let mut cluster = cluster(SHORT_LOG);
    survive(&mut cluster, async |cluster, meter| {
        let client = connect(cluster).await;
        fill(&client, 160).await;
        progress(meter, 50).await;
        cluster.node_mut(0).kill();
        let data = cluster.nodes()[0].data_dir.clone();
        for file in files_below(&data.join("engine")) {
            let bytes = file.metadata().map_or(0, |m| m.len());
            if bytes > 4096 {
                flip(&file, bytes / 2, 256);
            }
        }
        // It notices at its start, and sets the files aside itself; or when it reads; or never, if
        // what was flipped was not synced or is not asked for. Whatever it says is right.
        cluster.start_node(0).expect("the process starts");
        progress(meter, 100).await;
        cluster.node_mut(1).kill();
        for number in 0..160 {
            let wrong = match tokio::time::timeout(PATIENCE / 10, client.get(bulk(number))).await {
                Ok(Ok(Some(value))) => value[..] != [b'x'; 64 << 10],
                Ok(Ok(None)) => true,
                // Nothing is said where what would have to be said is damaged.
                Ok(Err(_)) | Err(_) => break,
            };
            assert!(!wrong, "{number} is what was written");
        }
        cluster.start_node(1).expect("the node starts");
        cluster.node_mut(0).kill();
        let repair = Command::new(program())
            .args(["repair", "engine", "--data"])
            .arg(&data)
            .output()
            .expect("the program runs");
        assert_eq!(repair.status.code(), Some(0), "{repair:?}");
        cluster.start_node(0).expect("the node starts");
        settled(cluster).await;
        serves_with_only_one_other(cluster, 0, async || progress(meter, 50).await).await;
    })
    .await;
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the directory is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}
