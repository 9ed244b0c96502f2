//! The thread that makes spare segments ahead of need. Filling one with zeros
//! takes tens of milliseconds and more, which no commit should wait for: the log's
//! thread makes one itself only if it finds none.

use super::disk::Disk;
use super::segments::Segments;
use super::{LogError, segments};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// After a failure (most likely the disk is full) none is asked for this long.
const PAUSE: Duration = Duration::from_secs(5);

/// The handle the log's thread keeps.
pub(super) struct SpareMaker {
    names: Option<Sender<String>>,
    made: Receiver<Result<String, LogError>>,
    thread: Option<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
    on_their_way: usize,
    not_before: Option<Instant>,
}

impl SpareMaker {
    /// Starts the thread.
    pub(super) fn start<D: Disk>(disk: D, bytes: u64) -> std::io::Result<SpareMaker> {
        let (names, asked) = channel::<String>();
        let (done, made) = channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = stopping.clone();
        let thread = std::thread::Builder::new()
            .name("synod-spares".into())
            .spawn(move || {
                let wanted = || !stop.load(Ordering::Relaxed);
                for name in asked {
                    let result = disk
                        .create_beside(&name, bytes, &wanted)
                        .map_err(segments::io(&disk, "make", &name))
                        .map(|()| name);
                    if done.send(result).is_err() {
                        return;
                    }
                }
            })?;
        Ok(SpareMaker {
            names: Some(names),
            made,
            thread: Some(thread),
            stopping,
            on_their_way: 0,
            not_before: None,
        })
    }

    /// Hands over what is made, and asks for more if too few are left. Never waits.
    pub(super) fn provide<D: Disk>(&mut self, segments: &mut Segments<D>) -> Result<(), LogError> {
        if self.on_their_way > 0 {
            match self.made.try_recv() {
                Ok(Ok(name)) => {
                    self.on_their_way -= 1;
                    segments.add_spare(name)?;
                }
                Ok(Err(error)) => {
                    self.on_their_way -= 1;
                    self.not_before = Some(Instant::now() + PAUSE);
                    // Not the log's end: if one is needed, the log's thread tries itself.
                    tracing::warn!(%error, "no spare log segment could be made");
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
            }
        }
        if !segments.wants_spare(self.on_their_way) {
            return Ok(());
        }
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        if let Some(names) = &self.names
            && names.send(segments.spare_name()).is_ok()
        {
            self.on_their_way += 1;
        }
        Ok(())
    }
}

impl Drop for SpareMaker {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.names = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
