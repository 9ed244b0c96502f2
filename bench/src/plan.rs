//! What is measured: groups of cells. A group is measured on a cluster of its
//! own, one cell after the other.

use crate::workload::Workload;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The ledger that is replayed unless another is named: a small one.
const LEDGER: &str = "examples/ledger/data/sample.csv";

/// Measured together, on one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Write one key
    Put,
    /// Read one key: Synod under its leader's lease, etcd linearizable
    Get,
    /// Read two keys and write both: in two shards, in one; and etcd's compare-and-put
    Txn2,
    /// Read a key and write it, uniform and skewed
    Rmw,
    /// YCSB A to F, values of 1,000 bytes
    Ycsb,
    /// Everybody adds to one counter
    Hot,
    /// Values of 64 KiB and 1 MiB
    Large,
    /// 100 rows in a row
    Scan,
    /// Latency under a fixed offered load
    Open,
    /// Commits over 1 to 200 shards; Synod only
    Fanout,
    /// kill -9 of the leader under steady writes
    Failover,
    /// The bank's ledger of `examples/ledger`
    Ledger,
    /// Memory of a node with many keys
    Memory,
    /// Minutes of puts at half the peak load; only if named
    Tails,
}

/// One measurement of a closed or open loop.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// What each client does.
    pub workload: Workload,
    /// How many.
    pub clients: u32,
    /// Offered per second; none: each client asks as soon as it is answered.
    pub offered: Option<u32>,
}

/// Keys and values that some cells of a group share.
#[derive(Clone, Debug)]
pub struct Set {
    /// Different keys.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// What is measured on them.
    pub cells: Vec<Cell>,
}

/// How much of everything.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Different keys.
    pub keys: u64,
    /// Clients of the main workloads.
    pub clients: Vec<u32>,
    /// How long a cell runs before anything is counted.
    pub warmup: Duration,
    /// How long is counted.
    pub measured: Duration,
    /// Loads offered, per second.
    pub offered: Vec<u32>,
    /// Participants of commits.
    pub participants: Vec<u32>,
    /// Commits measured for each number of participants.
    pub fanout_commits: u32,
    /// Times to kill the leader.
    pub kills: u32,
    /// Different keys where memory is measured.
    pub many_keys: u64,
    /// The ledger's file.
    pub ledger: PathBuf,
    /// How long the tails are watched.
    pub tails: Duration,
}

impl Scale {
    /// The real thing.
    pub fn full() -> Scale {
        Scale {
            keys: 100_000,
            clients: vec![1, 16, 64, 256, 1024],
            warmup: Duration::from_millis(1000),
            measured: Duration::from_millis(3000),
            offered: vec![1000, 2500, 5000, 10_000, 20_000],
            participants: vec![1, 2, 5, 10, 50, 100, 200],
            fanout_commits: 400,
            kills: 5,
            many_keys: 1_000_000,
            ledger: LEDGER.into(),
            tails: Duration::from_secs(600),
        }
    }

    /// Enough to see that everything works.
    pub fn quick() -> Scale {
        Scale {
            keys: 2000,
            clients: vec![1, 256],
            warmup: Duration::from_millis(100),
            measured: Duration::from_millis(300),
            offered: vec![500],
            participants: vec![1, 2, 10],
            fanout_commits: 20,
            kills: 1,
            many_keys: 2000,
            ledger: LEDGER.into(),
            tails: Duration::from_secs(1),
        }
    }
}

impl Group {
    /// All that are measured unless some are named.
    pub const ALL: [Group; 13] = [
        Group::Put,
        Group::Get,
        Group::Txn2,
        Group::Rmw,
        Group::Ycsb,
        Group::Hot,
        Group::Large,
        Group::Scan,
        Group::Open,
        Group::Fanout,
        Group::Failover,
        Group::Ledger,
        Group::Memory,
    ];

    /// Bytes of a value.
    pub const fn value_bytes(self) -> usize {
        match self {
            Group::Ycsb => 1000,
            _ => 128,
        }
    }

    /// What is measured, of a group that runs loops, on one cluster.
    pub fn sets(self, scale: &Scale) -> Vec<Set> {
        if self != Group::Large {
            return vec![Set {
                keys: scale.keys,
                value_bytes: self.value_bytes(),
                cells: self.cells(scale),
            }];
        }
        let of = |keys, value_bytes, clients| Set {
            keys,
            value_bytes,
            cells: with(&[Workload::Put, Workload::Get], &[clients]),
        };
        vec![of(300, 64 << 10, 16), of(60, 1 << 20, 4)]
    }

    fn cells(self, scale: &Scale) -> Vec<Cell> {
        match self {
            Group::Put => with(&[Workload::Put], &scale.clients),
            Group::Get => with(&[Workload::Get], &scale.clients),
            Group::Txn2 => with(
                &[
                    Workload::TxnTwoShards,
                    Workload::TxnOneShard,
                    Workload::CompareAndPut,
                ],
                &scale.clients,
            ),
            Group::Rmw => with(&[Workload::Update, Workload::UpdateSkewed], &[16, 256]),
            Group::Ycsb => with(
                &[
                    Workload::YcsbA,
                    Workload::YcsbB,
                    Workload::YcsbC,
                    Workload::YcsbD,
                    Workload::YcsbE,
                    Workload::YcsbF,
                ],
                &[64],
            ),
            Group::Hot => with(&[Workload::Counter], &[32]),
            Group::Scan => with(&[Workload::Scan], &[1, 64]),
            Group::Open => (scale.offered.iter())
                .map(|offered| Cell {
                    workload: Workload::Put,
                    clients: 1024,
                    offered: Some(*offered),
                })
                .collect(),
            Group::Large
            | Group::Fanout
            | Group::Failover
            | Group::Ledger
            | Group::Memory
            | Group::Tails => Vec::new(),
        }
    }
}

/// Each workload with each number of clients, in closed loops.
fn with(workloads: &[Workload], clients: &[u32]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &workload in workloads {
        cells.extend(clients.iter().map(|&clients| Cell {
            workload,
            clients,
            offered: None,
        }));
    }
    cells
}
