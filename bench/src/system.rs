//! The two systems, started and asked in the same way.

use crate::error::Error;
use crate::etcd;
use crate::synod;
use crate::usage::{self, Sample};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Whom to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// Three `synod` processes
    Synod,
    /// Three `etcd` processes
    Etcd,
}

impl System {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            System::Synod => "synod",
            System::Etcd => "etcd",
        }
    }
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The `synod` program.
    pub synod: PathBuf,
    /// The `etcd` program.
    pub etcd: PathBuf,
    /// Where Synod's key space is cut; etcd has no such thing.
    pub splits: Vec<String>,
    /// Connections to etcd's leader.
    pub etcd_connections: usize,
    /// Whether Synod's nodes are told to end when they are done with, not killed.
    pub in_order: bool,
}

/// The processes of a cluster.
// There is one of them at a time.
#[allow(clippy::large_enum_variant)]
pub enum Servers {
    /// Synod's.
    Synod(synod::Nodes),
    /// etcd's.
    Etcd(etcd::Members),
}

/// A running cluster of three, with a client. Dropped, it is gone.
pub struct Target {
    /// Its processes.
    pub servers: Servers,
    /// Its client.
    pub db: Db,
}

/// A key and what it holds.
pub type Row = (Vec<u8>, Vec<u8>);

/// A client; its operations return how many attempts they took.
#[derive(Clone)]
pub enum Db {
    /// Synod's SDK.
    Synod(synod_client::Client),
    /// etcd's client.
    Etcd(etcd::Session),
}

impl Target {
    /// Starts three processes on loopback, syncs on, and connects.
    ///
    /// # Errors
    /// When a cluster does not come up; nothing is left running.
    pub async fn start(system: System, layout: &Layout) -> Result<Target, Error> {
        Ok(match system {
            System::Synod => {
                let nodes = synod::Nodes::start(layout)?;
                let client = synod_client::Client::connect(nodes.client_config()).await?;
                Target {
                    servers: Servers::Synod(nodes),
                    db: Db::Synod(client),
                }
            }
            System::Etcd => {
                let members = etcd::Members::start(&layout.etcd).await?;
                let leader = members.leader().await?;
                let url = members.url(leader);
                let session = etcd::Session::connect(&url, layout.etcd_connections).await?;
                Target {
                    servers: Servers::Etcd(members),
                    db: Db::Etcd(session),
                }
            }
        })
    }

    /// The processes that run.
    pub fn pids(&self) -> Vec<u32> {
        match &self.servers {
            Servers::Synod(nodes) => nodes.pids(),
            Servers::Etcd(members) => members.pids(),
        }
    }

    /// What was used up so far.
    pub async fn sample(&self) -> Sample {
        Sample {
            client_cpu: usage::cpu_micros(&[std::process::id()]),
            server_cpu: usage::cpu_micros(&self.pids()),
            syncs: match &self.servers {
                Servers::Synod(nodes) => nodes.syncs().await,
                Servers::Etcd(members) => members.syncs().await,
            },
            packets: usage::loopback_packets(),
        }
    }
}

impl Db {
    /// Writes one key.
    ///
    /// # Errors
    /// The client's.
    pub async fn put(&self, key: &str, value: &[u8]) -> Result<u32, Error> {
        match self {
            Db::Synod(client) => Ok(client.put(key, value).await?.attempts),
            Db::Etcd(session) => session.put(key, value).await,
        }
    }

    /// Reads the newest value of one key; the read is linearizable.
    ///
    /// # Errors
    /// The client's.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Db::Synod(client) => Ok(client.get(key).await?.map(|value| value.to_vec())),
            Db::Etcd(session) => session.get(key).await,
        }
    }

    /// Reads that many rows from `from` on, below `end`; returns how many there were.
    ///
    /// # Errors
    /// The client's.
    pub async fn scan(&self, from: &str, end: &str, rows: u32) -> Result<usize, Error> {
        match self {
            Db::Synod(client) => synod::scan(client, from, end, rows).await,
            Db::Etcd(session) => session.scan(from, end, rows).await,
        }
    }

    /// Reads that many rows from `from` on, below `end`.
    ///
    /// # Errors
    /// The client's.
    pub async fn rows(&self, from: &str, end: &str, rows: u32) -> Result<Vec<Row>, Error> {
        match self {
            Db::Synod(client) => synod::rows(client, from, end, rows).await,
            Db::Etcd(session) => session.rows(from, end, rows).await,
        }
    }

    /// Reads all these keys and writes them all, as one transaction: `change` is
    /// told what they hold and says what they shall hold.
    ///
    /// # Errors
    /// The client's.
    pub async fn update(
        &self,
        keys: &[String],
        change: &impl Fn(&[Option<&[u8]>]) -> Vec<Vec<u8>>,
    ) -> Result<u32, Error> {
        match self {
            Db::Synod(client) => synod::update(client, keys, change).await,
            Db::Etcd(session) => session.update(keys, change).await,
        }
    }

    /// Writes all these keys, as one transaction, without reading any.
    ///
    /// # Errors
    /// The client's.
    pub async fn put_all(&self, rows: &[(String, Vec<u8>)]) -> Result<u32, Error> {
        match self {
            Db::Synod(client) => synod::put_all(client, rows).await,
            Db::Etcd(session) => session.put_all(rows).await,
        }
    }
}
