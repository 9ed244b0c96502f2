//! Damage done to the files of a node that is off, and what it says when it is started then.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use synod_harness::cluster::{Cluster, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a node has ended by itself, and gives its last words.
///
/// # Panics
/// When it goes on, or does not say that it failed.
pub fn last_words(cluster: &mut Cluster, index: usize) -> String {
    wait_for("the node's end", PATIENCE, || {
        cluster.node_mut(index).exit_status().is_some()
    })
    .expect("it ends by itself");
    let status = cluster.node_mut(index).exit_status();
    assert_eq!(status.and_then(|s| s.code()), Some(4), "it failed");
    cluster.nodes()[index].log_tail(3)
}

/// Kills a node, flips bits in the very first batch of its log, and starts it. Returns the damaged
/// segment and the node's last words.
///
/// # Panics
/// When it goes on all the same.
pub fn damage_log(cluster: &mut Cluster, index: usize) -> (PathBuf, String) {
    cluster.node_mut(index).kill();
    // Right behind the segment's header lies that batch.
    let segment = newest(&cluster.nodes()[index].data_dir.join("log"), "segment-");
    flip(&segment, 600, 64);
    cluster.start_node(index).expect("the process starts");
    let words = last_words(cluster, index);
    (segment, words)
}

/// The newest file whose name begins so, below a directory.
///
/// # Panics
/// When there is none.
pub fn newest(directory: &Path, prefix: &str) -> PathBuf {
    let mut names: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("the directory is there")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
            name.is_some_and(|n| n.starts_with(prefix))
        })
        .collect();
    names.sort();
    names.pop().expect("there is such a file")
}

/// Flips a bit of every byte in a stretch of a file.
///
/// # Panics
/// When it is shorter, or cannot be written.
pub fn flip(path: &Path, at: u64, bytes: usize) {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path);
    let file = file.expect("the file is there");
    let mut buffer = vec![0; bytes];
    file.read_exact_at(&mut buffer, at)
        .expect("it is long enough");
    buffer.iter_mut().for_each(|byte| *byte ^= 0x10);
    file.write_all_at(&buffer, at).expect("it can be written");
}
