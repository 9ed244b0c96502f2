//! A run from outside: what it is asked for, and its panics as findings.

use super::Sim;
use crate::sim::config::SimConfig;
use crate::sim::fault::Planned;
use crate::sim::report::{Report, Violation, Wrong};
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// What a run tells besides what it found. None of it changes the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// The last lines of its trace, so many.
    pub lines: usize,
    /// When something was committed, and what happened to lists.
    pub histories: bool,
}

thread_local! {
    /// What the last panic on this thread said, while a run goes on.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Panics of a run become its violations; all others go where they went before.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if RUNNING.get() {
                PANIC.set(Some(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
}

/// Catches a panic of the code under test; gives back what it said.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    RUNNING.set(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    RUNNING.set(false);
    done.map_err(|_| PANIC.take().unwrap_or_default())
}

/// Runs a configuration under a plan of faults, to its end. A panic of the code
/// under test is a violation too.
#[must_use]
pub fn run_caught(config: &SimConfig, plan: &[Planned], options: RunOptions) -> Report {
    catch_panics();
    synod_probe::reset_marks();
    let made = caught(|| Sim::new(config.clone(), plan.to_vec(), options));
    let mut sim = match made {
        Ok(Ok(sim)) => sim,
        Ok(Err(text)) => return failed(Wrong::Harness, "setup", None, text),
        Err(text) => return failed(Wrong::Crash, "panic", None, text),
    };
    if let Err(text) = caught(|| sim.go()) {
        // What the run was doing is known; its state is not to be looked at any more.
        let mut report = failed(Wrong::Crash, "panic", Some(sim.t), text);
        report.simulated = sim.t;
        report.events = sim.report.events;
        report.faults = sim.report.faults;
        (report.trace, report.lines) = sim.trace.finish();
        return report;
    }
    let t = sim.t;
    match caught(|| sim.finish()) {
        Ok(report) => report,
        Err(text) => failed(Wrong::Harness, "checkers", Some(t), text),
    }
}

fn failed(wrong: Wrong, rule: &str, at: Option<u64>, text: String) -> Report {
    Report {
        violations: vec![Violation {
            wrong,
            rule: rule.to_owned(),
            at,
            text,
        }],
        ..Report::default()
    }
}
