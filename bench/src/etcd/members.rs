//! Three `etcd` processes on loopback, killed by their ids and nothing else.

use crate::error::Error;
use etcd_client::{Client, ConnectOptions, StatusResponse};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Members.
const COUNT: usize = 3;
/// How long they may take until one leads.
const READY: Duration = Duration::from_secs(30);
/// How long one may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Between two looks at a condition that is waited for.
const POLL: Duration = Duration::from_millis(20);
/// How often ports that someone else took are chosen anew.
const PORT_ATTEMPTS: usize = 3;
/// The sync of the log, and the commit of the database, each one sync.
const SYNCS: [&str; 2] = [
    "etcd_disk_wal_fsync_duration_seconds_count",
    "etcd_disk_backend_commit_duration_seconds_count",
];

/// A cluster.
pub struct Members {
    program: PathBuf,
    dir: TempDir,
    addresses: Vec<Addresses>,
    children: Vec<Option<Child>>,
}

#[derive(Clone, Copy)]
struct Addresses {
    client: SocketAddr,
    peer: SocketAddr,
}

impl Members {
    /// Starts three and waits until one leads.
    ///
    /// # Errors
    /// When they do not come up; none is left running.
    pub async fn start(program: &Path) -> Result<Members, Error> {
        let dir = tempfile::Builder::new().prefix("etcd-").tempdir();
        let mut members = Members {
            program: program.to_owned(),
            dir: dir.map_err(Error::io("making a temporary directory"))?,
            addresses: addresses()?,
            children: Vec::new(),
        };
        for attempt in 1.. {
            members.children = (0..COUNT).map(|_| None).collect();
            for index in 0..COUNT {
                members.start_one(index)?;
            }
            match members.leader().await {
                Ok(_) => break,
                Err(error) => {
                    let taken = members.log().contains("address already in use");
                    if !taken || attempt == PORT_ATTEMPTS {
                        return Err(error);
                    }
                }
            }
            // Between choosing a port and its use someone else took it.
            members.kill_all();
            members.addresses = addresses()?;
        }
        Ok(members)
    }

    /// Starts one (again).
    ///
    /// # Errors
    /// When there is no such program.
    pub fn start_one(&mut self, index: usize) -> Result<(), Error> {
        let Addresses { client, peer } = self.addresses[index];
        let cluster: Vec<String> = (self.addresses.iter().enumerate())
            .map(|(i, addresses)| format!("m{i}=http://{}", addresses.peer))
            .collect();
        let io = || Error::io(format!("starting {}", self.program.display()));
        let log = self.dir.path().join(format!("m{index}.log"));
        let log = File::options().create(true).append(true).open(log);
        let log = log.map_err(io())?;
        // All else as it comes: syncs on, elections after a second.
        let child = Command::new(&self.program)
            .args(["--name", &format!("m{index}")])
            .arg("--data-dir")
            .arg(self.dir.path().join(format!("m{index}")))
            .args(["--listen-client-urls", &format!("http://{client}")])
            .args(["--advertise-client-urls", &format!("http://{client}")])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
            .args(["--initial-cluster", &cluster.join(",")])
            .args(["--initial-cluster-state", "new"])
            .args(["--log-level", "warn"])
            // Room for the workload of large values, and for all that is written.
            .args(["--max-request-bytes", "16777216"])
            .args(["--quota-backend-bytes", "8589934592"])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(io())?)
            .stderr(log)
            .spawn()
            .map_err(io())?;
        self.children[index] = Some(child);
        Ok(())
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.children[index].take() {
            // Both only fail when the process is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn kill_all(&mut self) {
        for index in 0..self.children.len() {
            self.kill(index);
        }
    }

    /// Those that run.
    pub fn pids(&self) -> Vec<u32> {
        self.children.iter().flatten().map(Child::id).collect()
    }

    /// Where to reach one.
    pub fn url(&self, index: usize) -> String {
        format!("http://{}", self.addresses[index].client)
    }

    /// Where to reach each.
    pub fn urls(&self) -> Vec<String> {
        (0..COUNT).map(|index| self.url(index)).collect()
    }

    /// Waits until all that run agree who leads; returns which.
    ///
    /// # Errors
    /// When they do not agree in time.
    pub async fn leader(&self) -> Result<usize, Error> {
        let begun = Instant::now();
        loop {
            if let Some(leader) = self.agreed_leader().await {
                return Ok(leader);
            }
            if begun.elapsed() > READY {
                let log = self.log();
                let log = log.lines().rev().take(5).collect::<Vec<_>>().join("\n");
                let reason = format!("nobody leads after {READY:?}; its last words:\n{log}");
                return Err(Error::Members(reason));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn agreed_leader(&self) -> Option<usize> {
        let (mut ids, mut leaders) = (Vec::new(), Vec::new());
        for (index, child) in self.children.iter().enumerate() {
            if child.is_none() {
                continue;
            }
            let status = self.status(index).await?;
            ids.push((index, status.header()?.member_id()));
            leaders.push(status.leader());
        }
        let leader = *leaders.first()?;
        let agreed = leader != 0 && leaders.iter().all(|other| *other == leader);
        let (index, _) = ids.into_iter().find(|(_, id)| *id == leader)?;
        agreed.then_some(index)
    }

    /// Waits until all have applied what the first to answer had.
    ///
    /// # Errors
    /// When one has not in time.
    pub async fn caught_up(&self, limit: Duration) -> Result<(), Error> {
        let begun = Instant::now();
        let mut wanted = None;
        loop {
            let mut applied = Vec::new();
            for index in 0..COUNT {
                if let Some(status) = self.status(index).await {
                    wanted = wanted.or(Some(status.raft_index()));
                    applied.push(status.raft_applied_index());
                }
            }
            let all = applied.len() == COUNT;
            if all
                && applied
                    .iter()
                    .all(|at| wanted.is_some_and(|wanted| *at >= wanted))
            {
                return Ok(());
            }
            if begun.elapsed() > limit {
                let reason = format!("a restarted member is behind after {limit:?}");
                return Err(Error::Members(reason));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn status(&self, index: usize) -> Option<StatusResponse> {
        let options = ConnectOptions::new()
            .with_connect_timeout(ANSWER)
            .with_timeout(ANSWER);
        let client = Client::connect([self.url(index)], Some(options)).await;
        client.ok()?.status().await.ok()
    }

    /// Syncs of all members so far, of logs and databases.
    pub async fn syncs(&self) -> u64 {
        let mut syncs = 0;
        for (index, child) in self.children.iter().enumerate() {
            if child.is_none() {
                continue;
            }
            let asked = metrics(self.addresses[index].client);
            if let Ok(Ok(text)) = tokio::time::timeout(ANSWER, asked).await {
                syncs += SYNCS
                    .iter()
                    .filter_map(|name| metric(&text, name))
                    .sum::<u64>();
            }
        }
        syncs
    }

    fn log(&self) -> String {
        let read = |index| std::fs::read(self.dir.path().join(format!("m{index}.log")));
        let logs = (0..COUNT).filter_map(|index| read(index).ok());
        logs.map(|log| String::from_utf8_lossy(&log).into_owned())
            .collect()
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        // Before the directory goes, the processes must.
        self.kill_all();
    }
}

/// Free ports, all held at once so that they differ, and released before use.
fn addresses() -> Result<Vec<Addresses>, Error> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let held: Result<Vec<TcpListener>, _> = (0..2 * COUNT).map(|_| bind()).collect();
    let held = held.map_err(Error::io("choosing free TCP ports"))?;
    let addresses: Result<Vec<SocketAddr>, _> = held.iter().map(TcpListener::local_addr).collect();
    let addresses = addresses.map_err(Error::io("choosing free TCP ports"))?;
    let pair = |pair: &[SocketAddr]| Addresses {
        client: pair[0],
        peer: pair[1],
    };
    Ok(addresses.chunks_exact(2).map(pair).collect())
}

/// What a member tells of itself, as text.
async fn metrics(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn metric(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.strip_prefix(' ')
    })?;
    let value: f64 = value.trim().parse().ok()?;
    Some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        let text = "# HELP a_count x\na_count_total 7\na_count 1.2e+03\n";
        assert_eq!(metric(text, "a_count"), Some(1200));
        assert_eq!(metric(text, "b"), None);
    }
}
