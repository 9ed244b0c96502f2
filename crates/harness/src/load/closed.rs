//! The closed loop: each client waits for its answer before it asks again.

use super::tally::{Measured, Tally};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How many clients, for how long.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// Clients, each with one operation at a time.
    pub clients: u32,
    /// How long they run before anything is counted.
    pub warmup: Duration,
    /// How long is counted.
    pub measured: Duration,
}

#[derive(Debug, Default)]
struct State {
    tally: Tally,
    counting: bool,
    stopped: bool,
}

fn count<E: Display>(state: &RefCell<State>, took: Duration, done: Result<u32, E>) {
    let mut state = state.borrow_mut();
    if state.counting {
        state.tally.count(took, done);
    }
}

/// Runs `operation`, which returns how many attempts it took, in that many
/// clients; `sample` is called where counting begins and where it ends. Must be
/// called inside a `LocalSet`.
///
/// # Panics
/// If an operation panics.
pub async fn closed<E, F, S>(plan: Closed, operation: F, sample: impl AsyncFn() -> S) -> Measured<S>
where
    E: Display + 'static,
    F: AsyncFn(&mut StdRng) -> Result<u32, E> + 'static,
{
    let state = Rc::new(RefCell::new(State::default()));
    let operation = Rc::new(operation);
    let mut clients = Vec::new();
    for number in 0..plan.clients {
        let (state, operation) = (Rc::clone(&state), Rc::clone(&operation));
        clients.push(tokio::task::spawn_local(async move {
            let mut random = StdRng::seed_from_u64(u64::from(number));
            while !state.borrow().stopped {
                let begun = Instant::now();
                let done = operation(&mut random).await;
                let took = begun.elapsed();
                let failed = done.is_err();
                count(&state, took, done);
                if failed {
                    // What fails at once must not keep the others from running.
                    tokio::task::yield_now().await;
                }
            }
        }));
    }
    tokio::time::sleep(plan.warmup).await;
    let before = sample().await;
    let begun = Instant::now();
    state.borrow_mut().counting = true;
    tokio::time::sleep(plan.measured).await;
    let elapsed = begun.elapsed();
    state.borrow_mut().counting = false;
    let after = sample().await;
    state.borrow_mut().stopped = true;
    for client in clients {
        client.await.expect("operations do not panic");
    }
    let tally = std::mem::take(&mut state.borrow_mut().tally);
    Measured {
        tally,
        elapsed,
        before,
        after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test(flavor = "current_thread")]
    async fn only_what_ends_while_counting_is_counted() {
        let plan = Closed {
            clients: 2,
            warmup: Duration::from_millis(30),
            measured: Duration::from_millis(60),
        };
        let calls = Rc::new(Cell::new(0_u64));
        let (counted, seen) = (Rc::clone(&calls), Rc::clone(&calls));
        let operation = async move |_: &mut StdRng| {
            counted.set(counted.get() + 1);
            tokio::time::sleep(Duration::from_millis(2)).await;
            if counted.get() % 3 == 0 {
                return Err("every third fails");
            }
            Ok(2)
        };
        let set = tokio::task::LocalSet::new();
        let measured = set
            .run_until(closed(plan, operation, async || seen.get()))
            .await;
        let tally = &measured.tally;
        let good = tally.latency.len();
        assert!(measured.before > 0 && measured.after > measured.before);
        assert!(good > 0 && tally.failed > 0 && good + tally.failed < calls.get());
        assert_eq!(tally.retries, good);
        assert_eq!(tally.first_failure.as_deref(), Some("every third fails"));
        assert!(tally.latency.min() >= 2_000_000);
    }
}
