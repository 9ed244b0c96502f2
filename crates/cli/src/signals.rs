//! SIGINT and SIGTERM, where nodes and files must not outlive the program.

use crate::exit::{Failure, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use synod_harness::cluster::{Cluster, Options};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals, which do not end the program any more.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on they are only heard here.
    pub fn listen() -> Result<Signals, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|e| Failure::cluster(format!("cannot listen for signals: {e}")))
        };
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for one of them; the exit status is the one that shells give for it.
    pub async fn next(&mut self) -> Status {
        tokio::select! {
            _ = self.interrupt.recv() => Status::Interrupted,
            _ = self.terminate.recv() => Status::Terminated,
        }
    }

    /// Starts a cluster on this machine, or gives it up when a signal comes.
    pub async fn start(&mut self, options: Options) -> Result<Cluster, Failure> {
        let given_up = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&given_up);
        let mut starting =
            tokio::task::spawn_blocking(move || Cluster::start_unless(options, &heard));
        tokio::select! {
            // A terminal tells the nodes, too, and then the start fails.
            biased;
            status = self.next() => {
                given_up.store(true, Ordering::Relaxed);
                // Whatever it came to ends with this value.
                drop(starting.await);
                Err(interrupted(status))
            }
            started = &mut starting => match started {
                Ok(started) => started.map_err(Failure::cluster),
                Err(error) => Err(Failure::cluster(format!("starting the cluster: {error}"))),
            },
        }
    }

    /// Does this, unless a signal comes first.
    pub async fn unless<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            status = self.next() => Err(interrupted(status)),
            done = work => done,
        }
    }
}

fn interrupted(status: Status) -> Failure {
    Failure::new(status, "interrupted; no node is left running")
}
