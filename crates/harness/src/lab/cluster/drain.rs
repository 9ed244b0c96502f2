//! `synod node drain`, as a program of its own.

use crate::cluster::Cluster as Processes;
use crate::lab::LabError;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Lines of what it said that are told if it fails.
const LINES: usize = 3;

/// How far a drain is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lab) enum DrainState {
    /// The program runs; what it said last.
    Runs(String),
    /// The cluster does without the node.
    Done,
    /// The program failed; its last words.
    Failed(String),
}

impl DrainState {
    /// What is wrong with it.
    pub(in crate::lab) fn problem(self) -> Option<String> {
        match self {
            DrainState::Done => None,
            DrainState::Runs(words) => Some(format!("not done yet: {words}")),
            DrainState::Failed(words) => Some(words),
        }
    }
}

/// A node that is being drained.
#[derive(Debug)]
pub(super) struct Drain {
    /// The node's name.
    pub(super) node: String,
    child: Child,
    log: PathBuf,
    ended: Option<DrainState>,
}

impl Drain {
    /// Starts the program.
    pub(super) fn start(
        processes: &Processes,
        program: &std::path::Path,
        node: usize,
    ) -> Result<Drain, LabError> {
        let node = processes.nodes()[node].name.clone();
        let log = processes.dir().join(format!("drain-{node}.log"));
        let io = |source| LabError::Io {
            what: format!("starting `synod node drain {node}`"),
            source,
        };
        let out = File::create(&log).map_err(io)?;
        let mut command = Command::new(program);
        command.args(["node", "drain", &node]);
        command.arg("--certs").arg(processes.certs());
        for endpoint in processes.endpoints() {
            command.arg("--endpoint").arg(endpoint.to_string());
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().map_err(io)?)
            .stderr(out)
            .spawn()
            .map_err(io)?;
        Ok(Drain {
            node,
            child,
            log,
            ended: None,
        })
    }

    /// How far it is.
    pub(super) fn poll(&mut self) -> DrainState {
        if self.ended.is_none() {
            // An error here is as if it had not ended yet; it is asked again.
            let status = self.child.try_wait().ok().flatten();
            self.ended = status.map(|status| {
                if status.success() {
                    DrainState::Done
                } else {
                    DrainState::Failed(format!("{status}: {}", self.words()))
                }
            });
        }
        self.ended
            .clone()
            .unwrap_or_else(|| DrainState::Runs(self.words()))
    }

    /// What it said last.
    fn words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("; ")
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        // Both only fail when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
