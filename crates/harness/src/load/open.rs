//! The open loop: operations begin when a user would begin them, whether the
//! cluster keeps up or not. Each latency counts from the moment the operation
//! *should* have begun, so a stall costs all that had to wait for it, not only
//! the one that met it (no "coordinated omission").

use super::pace::Pace;
use super::tally::{Measured, Tally};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long operations that are still under way at the end may take. One that
/// is not done then counts as failed.
const DRAIN: Duration = Duration::from_secs(10);

/// Operations whose moments are closer together begin together, the first of them late; its latency
/// says so. A timer and a wake-up for each would cost more than the operation does.
const TICK: Duration = Duration::from_micros(250);

/// What is offered.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Operations that begin each second, evenly spaced; at least 1.
    pub per_second: u32,
    /// Operations under way at most; those beyond wait, and their time counts.
    pub clients: u32,
    /// How long they are offered before anything is counted.
    pub warmup: Duration,
    /// How long is counted.
    pub measured: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// When those that have not begun should have.
    waiting: VecDeque<Instant>,
    /// Those that were offered while counting, and have not ended.
    open: u64,
    counted_from: Option<Instant>,
    tally: Tally,
    stopped: bool,
}

impl State {
    fn counts(&self, intended: Instant) -> bool {
        self.counted_from.is_some_and(|from| intended >= from)
    }
}

/// Offers `operation` at that rate; as [`closed`](super::closed) otherwise.
///
/// # Errors
/// When the system gives no timer.
///
/// # Panics
/// If an operation panics.
pub async fn open<E, F, S>(
    plan: Open,
    operation: F,
    sample: impl AsyncFn() -> S,
) -> io::Result<Measured<S>>
where
    E: Display + 'static,
    F: AsyncFn(&mut StdRng) -> Result<u32, E> + 'static,
{
    let state = Rc::new(RefCell::new(State::default()));
    let arrived = Rc::new(Notify::new());
    let operation = Rc::new(operation);
    let mut clients = Vec::new();
    for number in 0..plan.clients {
        let (state, arrived) = (Rc::clone(&state), Rc::clone(&arrived));
        let operation = Rc::clone(&operation);
        clients.push(tokio::task::spawn_local(async move {
            let mut random = StdRng::seed_from_u64(u64::from(number));
            while let Some(intended) = next(&state, &arrived).await {
                let done = operation(&mut random).await;
                let mut state = state.borrow_mut();
                if state.counts(intended) {
                    state.open -= 1;
                    state.tally.count(intended.elapsed(), done);
                }
            }
        }));
    }
    let pace = Pace::new()?;
    let interval = Duration::from_secs(1) / plan.per_second.max(1);
    let first = Instant::now();
    let offered = offer(&pace, &state, &arrived, interval, first, plan.warmup).await?;
    let before = sample().await;
    let begun = Instant::now();
    // The moments go on where they stopped: what came due meanwhile is late.
    state.borrow_mut().counted_from = Some(offered);
    offer(&pace, &state, &arrived, interval, offered, plan.measured).await?;
    // What had piled up is work of the measured time too.
    drain(&state).await;
    let elapsed = begun.elapsed();
    let after = sample().await;
    {
        let mut state = state.borrow_mut();
        state.stopped = true;
        let late = state.open;
        state.tally.failed += late;
        if late > 0 {
            let tell = format!("{late} were not done {} s after the end", DRAIN.as_secs());
            state.tally.first_failure.get_or_insert(tell);
        }
        // A client that is still busy finds its operation uncounted.
        state.counted_from = None;
        state.waiting.clear();
    }
    arrived.notify_waiters();
    for client in clients {
        client.await.expect("operations do not panic");
    }
    let tally = std::mem::take(&mut state.borrow_mut().tally);
    Ok(Measured {
        tally,
        elapsed,
        before,
        after,
    })
}

/// Offers one operation after the other for so long; returns the moment that follows.
async fn offer(
    pace: &Pace,
    state: &RefCell<State>,
    arrived: &Notify,
    interval: Duration,
    first: Instant,
    long: Duration,
) -> io::Result<Instant> {
    let mut next = first;
    let mut woken = first;
    while next < first + long {
        if next > woken {
            let then = next.max(woken + TICK);
            if then > Instant::now() {
                pace.until(then).await?;
            } else {
                // Behind: let the clients take what is offered already.
                tokio::task::yield_now().await;
            }
            woken = Instant::now();
        }
        {
            let mut state = state.borrow_mut();
            if state.counts(next) {
                state.open += 1;
            }
            state.waiting.push_back(next);
        }
        arrived.notify_one();
        next += interval;
    }
    Ok(next)
}

/// The next operation to begin; none at the end.
async fn next(state: &RefCell<State>, arrived: &Notify) -> Option<Instant> {
    loop {
        let notified = arrived.notified();
        {
            let mut state = state.borrow_mut();
            if state.stopped {
                return None;
            }
            if let Some(intended) = state.waiting.pop_front() {
                return Some(intended);
            }
        }
        notified.await;
    }
}

async fn drain(state: &RefCell<State>) {
    let until = Instant::now() + DRAIN;
    while state.borrow().open > 0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn plan(clients: u32) -> Open {
        Open {
            per_second: 1000,
            clients,
            warmup: Duration::from_millis(50),
            measured: Duration::from_millis(200),
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn all_that_is_offered_while_counting_is_counted() {
        let operation = async |_: &mut StdRng| Ok::<u32, String>(1);
        let set = tokio::task::LocalSet::new();
        let measured = set.run_until(open(plan(4), operation, async || ())).await;
        let tally = measured.expect("there are timers").tally;
        assert_eq!((tally.latency.len(), tally.failed), (200, 0));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn one_stall_is_felt_by_all_that_wait_behind_it() {
        let calls = Cell::new(0);
        let operation = async move |_: &mut StdRng| {
            calls.set(calls.get() + 1);
            if calls.get() == 100 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok::<u32, String>(1)
        };
        let set = tokio::task::LocalSet::new();
        // One client: the others' operations queue behind the stalled one.
        let measured = set.run_until(open(plan(1), operation, async || ())).await;
        let tally = measured.expect("there are timers").tally;
        assert_eq!(tally.latency.len(), 200);
        let slow = tally.latency.count_between(50_000_000, u64::MAX);
        assert!(slow >= 40, "{slow} waited for 50 ms or longer");
    }
}
