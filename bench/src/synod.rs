//! Synod: three nodes in three data centres on loopback, asked through its SDK.

use crate::error::Error;
use crate::system::{Layout, Row};
use std::time::Duration;
use synod_client::{Client, Range};
use synod_harness::cluster::{Cluster, Options, ask, wait_for};
use synod_rpc::Pool;

/// How long one call may take, retries included.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a node may take to tell its counters.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a node may take to end in order.
const END: Duration = Duration::from_secs(20);

/// The processes.
pub struct Nodes {
    /// The cluster, to kill and restart nodes of.
    pub cluster: Cluster,
    /// For questions to single nodes.
    pub pool: Pool,
    /// Told to end, not killed.
    in_order: bool,
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if !self.in_order {
            return;
        }
        for node in self.cluster.nodes() {
            node.terminate();
        }
        // Who takes longer is killed with the cluster.
        let _ = wait_for("the nodes' end", END, || {
            let mut nodes = 0..self.cluster.nodes().len();
            nodes.all(|index| !self.cluster.node_mut(index).is_running())
        });
    }
}

impl Nodes {
    /// Starts them.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn start(layout: &Layout) -> Result<Nodes, Error> {
        let mut options = Options::new(&layout.synod);
        options.log_filter = "warn".to_owned();
        options.splits.clone_from(&layout.splits);
        let cluster = Cluster::start(options)?;
        let pool = cluster.pool()?;
        Ok(Nodes {
            cluster,
            pool,
            in_order: layout.in_order,
        })
    }

    /// How to reach them.
    pub fn client_config(&self) -> synod_client::Config {
        let mut config = self.cluster.client_config();
        config.timeout = TIMEOUT;
        config
    }

    /// Those that run.
    pub fn pids(&self) -> Vec<u32> {
        let nodes = self.cluster.nodes().iter();
        nodes.filter_map(|node| node.pid()).collect()
    }

    /// Syncs of all logs so far.
    pub async fn syncs(&self) -> u64 {
        let mut syncs = 0;
        for node in self.cluster.endpoints() {
            if let Ok(counters) = ask::counters(&self.pool, node, ANSWER).await {
                syncs += counters.syncs;
            }
        }
        syncs
    }
}

/// See [`Db::scan`](crate::system::Db::scan).
pub async fn scan(client: &Client, from: &str, end: &str, rows: u32) -> Result<usize, Error> {
    let mut found = 0;
    let mut rest = Some(Range::new(from, end).limit(rows.into()).page_rows(rows));
    while let Some(range) = rest {
        let page = client.scan_page(range).await?;
        found += page.rows.len();
        rest = page.rest;
    }
    Ok(found)
}

/// See [`Db::rows`](crate::system::Db::rows).
pub async fn rows(client: &Client, from: &str, end: &str, rows: u32) -> Result<Vec<Row>, Error> {
    let mut found = Vec::new();
    let mut rest = Some(Range::new(from, end).limit(rows.into()).page_rows(rows));
    while let Some(range) = rest {
        let page = client.scan_page(range).await?;
        found.extend(page.rows.iter().map(|(k, v)| (k.to_vec(), v.to_vec())));
        rest = page.rest;
    }
    Ok(found)
}

/// See [`Db::update`](crate::system::Db::update).
pub async fn update(
    client: &Client,
    keys: &[String],
    change: &impl Fn(&[Option<&[u8]>]) -> Vec<Vec<u8>>,
) -> Result<u32, Error> {
    let done = client.transact_with_receipt(async |txn| {
        let read = txn.get_many_for_update(keys).await?;
        let held: Vec<Option<&[u8]>> = read.iter().map(Option::as_deref).collect();
        for (key, value) in keys.iter().zip(change(&held)) {
            txn.put(key, value).await?;
        }
        Ok(())
    });
    Ok(done.await?.1.attempts)
}

/// See [`Db::put_all`](crate::system::Db::put_all).
pub async fn put_all(client: &Client, rows: &[(String, Vec<u8>)]) -> Result<u32, Error> {
    let done = client.transact_with_receipt(async |txn| {
        for (key, value) in rows {
            txn.put(key, value).await?;
        }
        Ok(())
    });
    Ok(done.await?.1.attempts)
}
