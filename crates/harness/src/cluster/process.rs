//! One `synod` process: started, paused, killed and watched by its own id.

use super::{ClusterError, Faults};
use rustix::process::{Pid, Signal};
use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// By this a test build of the program is told to act as another one.
const CLAIM: &str = "SYNOD_TEST_CLAIM_VERSION";

/// A node of a test cluster, running or not.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its place.
    pub locality: String,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Where it listens; another address than `address` behind a relay.
    pub listens: SocketAddr,
    /// Its configuration file.
    pub config: PathBuf,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// What it printed, over all its runs.
    pub log: PathBuf,
    child: Option<Child>,
    pub(super) faults: Option<Faults>,
    pub(super) environment: Vec<(String, String)>,
    /// Bytes of the file system that the process is to have for its data; none: the machine's.
    pub(super) disk_bytes: Option<u64>,
}

impl Node {
    pub(super) fn new(name: String, locality: String, address: SocketAddr, dir: &Path) -> Node {
        Node {
            config: dir.join(format!("{name}.toml")),
            data_dir: dir.join(format!("data-{name}")),
            log: dir.join(format!("{name}.log")),
            name,
            locality,
            address,
            listens: address,
            child: None,
            faults: None,
            environment: Vec::new(),
            disk_bytes: None,
        }
    }

    /// Its disk's and clock's faults.
    ///
    /// # Panics
    /// When the cluster was started without [`super::Options::faults`].
    #[must_use]
    pub fn faults(&self) -> &Faults {
        let faults = self.faults.as_ref();
        faults.expect("the cluster's options ask for faults")
    }

    /// From its next start on it acts as a program that knows cluster versions up to this one
    /// (an older one, or the next); none: as what it is.
    pub fn claim_version(&mut self, newest: Option<u32>) {
        self.environment.retain(|(name, _)| name != CLAIM);
        let claim = newest.map(|newest| (CLAIM.to_owned(), newest.to_string()));
        self.environment.extend(claim);
    }

    /// Starts the process, unless it runs.
    ///
    /// # Errors
    /// When its log cannot be opened or the program cannot be started.
    pub(super) fn start(&mut self, program: &Path, filter: &str) -> Result<(), ClusterError> {
        if self.is_running() {
            return Ok(());
        }
        let open = || -> std::io::Result<(File, File)> {
            let log = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.log)?;
            Ok((log.try_clone()?, log))
        };
        let (out, err) = open().map_err(|source| ClusterError::Io {
            what: format!("opening the log {}", self.log.display()),
            source,
        })?;
        let child = self
            .command(program)
            .arg("start")
            .arg("--config")
            .arg(&self.config)
            .env("SYNOD_LOG", filter)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|source| ClusterError::Io {
                what: format!("starting {} for node {}", program.display(), self.name),
                source,
            })?;
        self.child = Some(child);
        Ok(())
    }

    /// The program; in a mount namespace of its own where it is to have a small disk. All of it is
    /// one process.
    fn command(&self, program: &Path) -> Command {
        let Some(bytes) = self.disk_bytes else {
            return Command::new(program);
        };
        let script =
            "mkdir -p \"$0\" && mount -t tmpfs -o size=\"$1\" synod \"$0\" && shift && exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--map-root-user", "--mount", "sh", "-c", script])
            .arg(&self.data_dir)
            .arg(bytes.to_string())
            .arg(program);
        command
    }

    /// Its data directory as the process sees it, while it runs.
    #[must_use]
    pub fn disk(&self) -> Option<PathBuf> {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid()?));
        let below = self.data_dir.strip_prefix("/").ok()?;
        Some(root.join(below))
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether the process runs (a paused one does).
    pub fn is_running(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => false,
        }
    }

    /// How it ended, if it ended by itself.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// `kill -9`, and waits for the end. Harmless when it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both only fail when the process is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops the process where it is (SIGSTOP).
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a paused process go on (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks the process to end in an orderly way (SIGTERM); see [`Node::is_running`].
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self
            .pid()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
        {
            // Fails only when the process is gone, which callers see in `is_running`.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Processor time used by the process so far, in microseconds.
    #[must_use]
    pub fn cpu_micros(&self) -> Option<u64> {
        cpu_micros(self.pid()?)
    }

    /// The last `lines` lines of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Gives up control of the process: it goes on after this value is gone.
    pub(super) fn forget(&mut self) {
        self.child = None;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether this machine lets nodes have file systems of their own ([`super::Options::disk_bytes`]).
#[must_use]
pub fn may_mount() -> bool {
    let script = "mount -t tmpfs -o size=4096 synod \"$0\"";
    let tried = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// Processor time (user and system) of a process, in microseconds; from
/// `/proc`, so only on Linux.
#[must_use]
pub fn cpu_micros(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_cpu(&stat, rustix::param::clock_ticks_per_second())
}

/// Fields 14 and 15, counted after the command's closing parenthesis because
/// a command may hold blanks.
fn parse_cpu(stat: &str, ticks_per_second: u64) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * 1_000_000 / ticks_per_second.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_odd_commands() {
        let stat = "17 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(parse_cpu(stat, 100), Some(2_000_000));
        assert_eq!(parse_cpu("17", 100), None);
    }

    #[test]
    fn own_processor_time_is_there() {
        assert!(cpu_micros(std::process::id()).is_some());
    }
}
