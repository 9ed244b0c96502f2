//! The thread that owns the log. Whatever was submitted while it wrote and
//! synced forms its next write and sync, so no timer ever waits to fill a batch.

use super::disk::{Disk, RealDisk};
use super::spares::SpareMaker;
use super::ticketed::TicketedLog;
use super::writer::Log;
use super::{LogError, LogRecord};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Submissions that may wait; over it, [`LogThread::submit`] waits too.
const MAX_WAITING: usize = 16 << 10;
/// Submissions merged into one sync, at most.
const MAX_GROUP: usize = 4 << 10;
/// Nothing is added to a sync that has so many bytes.
const GROUP_BYTES: usize = 8 << 20;
/// A disk that works takes so many bytes in a second, beside all others' who share it.
const PACE: u64 = 8 << 20;

/// What the log's thread reports, from that thread.
#[derive(Debug)]
pub enum LogEvent {
    /// Everything submitted up to and including this ticket is durable.
    Synced {
        /// The highest ticket.
        ticket: u64,
    },
    /// The disk failed. Nothing more will be synced; the thread has ended.
    Fatal(LogError),
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounters {
    /// Syncs.
    pub syncs: u64,
    /// Bytes appended, headers and padding included.
    pub bytes: u64,
    /// Submissions with records in them.
    pub batches: u64,
    /// How long the last write and sync took.
    pub last_sync: Duration,
}

enum Message {
    Append {
        records: Vec<LogRecord>,
        ticket: u64,
    },
    TrimBefore(u64),
    Barrier(SyncSender<()>),
}

/// What both sides see.
struct Shared {
    start: Instant,
    syncs: AtomicU64,
    batches: AtomicU64,
    appended: AtomicU64,
    last_sync_nanos: AtomicU64,
    /// Bytes held, as of the last sync.
    held: AtomicU64,
    /// Trims asked for and not yet done.
    trims: AtomicU64,
    /// When the work in hand began and what its bytes take, in nanoseconds since `start` plus 1; 0 = idle.
    busy: AtomicU64,
}

impl Shared {
    fn nanos(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX - 1)
    }
}

/// The handle of the log's thread. Dropping it finishes what was submitted.
pub struct LogThread {
    sender: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl fmt::Debug for LogThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogThread")
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

impl LogThread {
    /// Starts the thread. `report` is called on it, after every sync.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start<D: Disk + Clone>(
        log: Log<D>,
        report: impl Fn(LogEvent) + Send + 'static,
    ) -> std::io::Result<LogThread> {
        let (sender, inbox) = sync_channel(MAX_WAITING);
        let shared = Arc::new(Shared {
            start: Instant::now(),
            syncs: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            appended: AtomicU64::new(0),
            last_sync_nanos: AtomicU64::new(0),
            held: AtomicU64::new(log.bytes()),
            trims: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        });
        let (disk, bytes) = (log.segments.disk.clone(), log.segments.segment_bytes());
        let mut runner = Runner {
            log: TicketedLog::new(log),
            spares: SpareMaker::start(disk, bytes)?,
            shared: shared.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("synod-log".into())
            .spawn(move || {
                let run = AssertUnwindSafe(|| runner.run(&inbox, &report));
                let ran = catch_unwind(run).unwrap_or(Err(LogError::Panicked));
                if let Err(error) = ran {
                    report(LogEvent::Fatal(error));
                }
            })?;
        Ok(LogThread {
            sender: Some(sender),
            thread: Some(thread),
            shared,
        })
    }

    /// Has `records` written and synced, in the order of submission; then
    /// [`LogEvent::Synced`] names `ticket` or a later one. Tickets rise. No
    /// records make a barrier, which costs no sync of its own.
    ///
    /// Waits only while thousands of submissions wait for a disk that stalls.
    /// After [`LogEvent::Fatal`] it does nothing.
    pub fn submit(&self, records: Vec<LogRecord>, ticket: u64) {
        self.send(Message::Append { records, ticket });
    }

    /// Forgets what was submitted before `ticket`, as far as whole segments go.
    /// The caller has been told that `ticket` is synced, and it (or something
    /// later) holds all that is still needed.
    pub fn trim_before(&self, ticket: u64) {
        self.shared.trims.fetch_add(1, Ordering::Relaxed);
        self.send(Message::TrimBefore(ticket));
    }

    /// Waits until everything submitted so far is durable.
    ///
    /// # Errors
    /// [`LogError::Stopped`] if the thread has ended; its last event says why.
    pub fn wait_synced(&self) -> Result<(), LogError> {
        let (done, synced) = sync_channel(1);
        self.send(Message::Barrier(done));
        synced.recv().map_err(|_| LogError::Stopped)
    }

    fn send(&self, message: Message) {
        if let Some(sender) = &self.sender {
            // The thread ends early only after it reported why.
            let _ = sender.send(message);
        }
    }

    /// Bytes the log holds. While a trim is on its way this is 0, so that
    /// nobody starts the next one because of bytes about to go.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        if self.shared.trims.load(Ordering::Acquire) > 0 {
            return 0;
        }
        self.shared.held.load(Ordering::Relaxed)
    }

    /// Since when the write and sync in hand have been running beyond the time that as many bytes
    /// take; in the future if they have not. None if the thread is idle. A stalled disk shows here (L6).
    #[must_use]
    pub fn waiting_since(&self) -> Option<Instant> {
        let nanos = self.shared.busy.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.shared.start + Duration::from_nanos(nanos))
    }

    /// Totals since the start.
    #[must_use]
    pub fn counters(&self) -> LogCounters {
        let shared = &self.shared;
        LogCounters {
            syncs: shared.syncs.load(Ordering::Relaxed),
            bytes: shared.appended.load(Ordering::Relaxed),
            batches: shared.batches.load(Ordering::Relaxed),
            last_sync: Duration::from_nanos(shared.last_sync_nanos.load(Ordering::Relaxed)),
        }
    }

    /// Finishes what was submitted, then ends the thread.
    pub fn stop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Runner<D: Disk = RealDisk> {
    log: TicketedLog<D>,
    spares: SpareMaker,
    shared: Arc<Shared>,
}

/// What one group asked for.
#[derive(Default)]
struct Group {
    ticket: Option<u64>,
    barriers: Vec<SyncSender<()>>,
    trims: u64,
    /// When its work began; nanoseconds.
    begin: u64,
    /// See [`LogRecord::weight`].
    bytes: usize,
}

impl<D: Disk> Runner<D> {
    fn run(
        &mut self,
        inbox: &Receiver<Message>,
        report: &impl Fn(LogEvent),
    ) -> Result<(), LogError> {
        self.spares.provide(self.log.segments())?;
        while let Ok(first) = inbox.recv() {
            let mut group = Group {
                begin: self.shared.nanos(),
                ..Group::default()
            };
            self.is_busy(&group);
            self.take(first, &mut group)?;
            for _ in 1..MAX_GROUP {
                if group.bytes >= GROUP_BYTES {
                    break;
                }
                match inbox.try_recv() {
                    Ok(message) => self.take(message, &mut group)?,
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            self.sync(group.begin)?;
            self.shared.busy.store(0, Ordering::Relaxed);
            self.shared.trims.fetch_sub(group.trims, Ordering::Release);
            if let Some(ticket) = group.ticket {
                report(LogEvent::Synced { ticket });
            }
            for barrier in group.barriers {
                let _ = barrier.send(());
            }
            self.spares.provide(self.log.segments())?;
        }
        Ok(())
    }

    fn take(&mut self, message: Message, group: &mut Group) -> Result<(), LogError> {
        match message {
            Message::Append { records, ticket } => {
                if !records.is_empty() {
                    group.bytes += records.iter().map(LogRecord::weight).sum::<usize>();
                    self.is_busy(group);
                    self.log.append(&records, ticket)?;
                    self.shared.batches.fetch_add(1, Ordering::Relaxed);
                }
                group.ticket = Some(ticket);
            }
            Message::TrimBefore(ticket) => {
                self.log.trim_before(ticket);
                group.trims += 1;
            }
            Message::Barrier(done) => group.barriers.push(done),
        }
        Ok(())
    }

    fn is_busy(&self, group: &Group) {
        let nanos = (group.bytes as u64).saturating_mul(1_000_000_000) / PACE;
        let busy = group.begin.saturating_add(nanos);
        self.shared.busy.store(busy + 1, Ordering::Relaxed);
    }

    fn sync(&mut self, begin: u64) -> Result<(), LogError> {
        if self.log.sync()? {
            self.shared.syncs.fetch_add(1, Ordering::Relaxed);
            let took = self.shared.nanos().saturating_sub(begin);
            self.shared.last_sync_nanos.store(took, Ordering::Relaxed);
        }
        self.shared
            .appended
            .store(self.log.log().appended(), Ordering::Relaxed);
        self.shared
            .held
            .store(self.log.log().bytes(), Ordering::Relaxed);
        Ok(())
    }
}
