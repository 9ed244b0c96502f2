//! The thread that does the engine's work, and counts what it writes.

use super::gauge::SharedWeights;
use crate::engine::Engine;
use crate::lane::{EngineEvent, EngineLane, EngineWork};
use crate::snapshot::Staging;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it is looked whether a checkpoint has become durable.
const SYNC_LOOK: Duration = Duration::from_millis(10);

/// How much lower its priority is: nobody waits for most of what it does, and states that it encodes for a
/// checkpoint took a core from the shards for 20 ms at a time.
const PRIORITY: i32 = 5;

/// Reports a panic: without its engine a node must not go on.
struct Guard<'a, R: Fn(Vec<EngineEvent>)>(&'a R);

impl<R: Fn(Vec<EngineEvent>)> Drop for Guard<'_, R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "the engine's thread panicked; the log says where";
            (self.0)(vec![EngineEvent::Fatal(reason.to_owned())]);
        }
    }
}

/// The handle the loop keeps.
pub(super) struct EngineThread {
    work: Option<Sender<EngineWork>>,
    thread: Option<JoinHandle<()>>,
}

impl EngineThread {
    pub(super) fn start(
        engine: Arc<dyn Engine>,
        staging: PathBuf,
        weights: SharedWeights,
        report: impl Fn(Vec<EngineEvent>) + Send + 'static,
    ) -> std::io::Result<EngineThread> {
        // Not bounded as a channel: the loop must never wait for it. Its bound is
        // the shards' unapplied bytes, past which commits are refused.
        let (work, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name("synod-engine".into())
            .spawn(move || run(&*engine, staging, &weights, &inbox, &report))?;
        Ok(EngineThread {
            work: Some(work),
            thread: Some(thread),
        })
    }

    pub(super) fn submit(&self, work: EngineWork) {
        if let Some(sender) = &self.work {
            // The thread ends early only after it reported why.
            let _ = sender.send(work);
        }
    }

    /// Finishes what was submitted, then ends the thread.
    pub(super) fn stop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(
    engine: &dyn Engine,
    staging: PathBuf,
    weights: &SharedWeights,
    inbox: &Receiver<EngineWork>,
    report: &impl Fn(Vec<EngineEvent>),
) {
    let _guard = Guard(report);
    crate::engine::lower_priority(PRIORITY);
    let mut lane = EngineLane::new(Staging::Files(staging));
    let mut next: Option<EngineWork> = None;
    loop {
        let received = match next.take() {
            Some(work) => Ok(work),
            None if lane.is_syncing() => inbox.recv_timeout(SYNC_LOOK),
            None => inbox.recv().map_err(RecvTimeoutError::from),
        };
        let events = match received {
            Ok(mut work) => {
                while let Ok(more) = inbox.try_recv() {
                    next = work.absorb(more);
                    if next.is_some() {
                        break;
                    }
                }
                if let EngineWork::Apply { writes, .. } = &work {
                    weights.wrote(writes);
                }
                let events = lane.work(engine, work);
                if let Some(group) = lane.collected() {
                    weights.collected(group);
                }
                events
            }
            Err(RecvTimeoutError::Timeout) => lane.poll(engine),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let ended = events.iter().any(|e| matches!(e, EngineEvent::Fatal(_)));
        if !events.is_empty() {
            report(events);
        }
        if ended {
            return;
        }
    }
}
