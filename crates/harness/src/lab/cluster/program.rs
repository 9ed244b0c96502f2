//! What operators ask of the cluster while the load runs: the `synod` program, run beside it.

use crate::cluster::Cluster as Processes;
use crate::lab::LabError;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Lines of what it said that are told if it fails.
const LINES: usize = 3;

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lab) enum CommandState {
    /// The program runs; what it said last.
    Runs(String),
    /// The program did what was asked for.
    Done,
    /// The program failed; its last words.
    Failed(String),
}

impl CommandState {
    /// What is wrong with it.
    pub(in crate::lab) fn problem(self) -> Option<String> {
        match self {
            CommandState::Done => None,
            CommandState::Runs(words) => Some(format!("not done yet: {words}")),
            CommandState::Failed(words) => Some(words),
        }
    }
}

/// A command that was given.
#[derive(Debug)]
pub(super) struct RunningCommand {
    /// What was asked for, in words.
    pub(super) what: String,
    child: Child,
    log: PathBuf,
    ended: Option<CommandState>,
}

impl RunningCommand {
    /// Starts the program.
    pub(super) fn start(
        processes: &Processes,
        program: &std::path::Path,
        arguments: &[String],
        number: usize,
    ) -> Result<RunningCommand, LabError> {
        let what = arguments.join(" ");
        let log = processes.dir().join(format!("command-{number}.log"));
        let io = |source| LabError::Io {
            what: format!("starting `synod {what}`"),
            source,
        };
        let out = File::create(&log).map_err(io)?;
        let mut command = Command::new(program);
        command.args(arguments);
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
        Ok(RunningCommand {
            what,
            child,
            log,
            ended: None,
        })
    }

    /// How far it is.
    pub(super) fn poll(&mut self) -> CommandState {
        if self.ended.is_none() {
            // An error here is as if it had not ended yet; it is asked again.
            let status = self.child.try_wait().ok().flatten();
            self.ended = status.map(|status| {
                if status.success() {
                    CommandState::Done
                } else {
                    CommandState::Failed(format!("{status}: {}", self.words()))
                }
            });
        }
        self.ended
            .clone()
            .unwrap_or_else(|| CommandState::Runs(self.words()))
    }

    /// What it said last.
    fn words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("; ")
    }
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        // Both only fail when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
