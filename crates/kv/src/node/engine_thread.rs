//! The thread that does the engine's work, and counts what it writes.

use super::gauge::SharedWeights;
use crate::engine::Engine;
use crate::lane::{EngineEvent, EngineLane, EngineWork};
use crate::snapshot::Staging;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

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
    let mut lane = EngineLane::new(Staging::Files(staging));
    let mut next = None;
    while let Some(mut work) = next.take().or_else(|| inbox.recv().ok()) {
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
        let ended = events.iter().any(|e| matches!(e, EngineEvent::Fatal(_)));
        report(events);
        if ended {
            return;
        }
    }
}
