//! What is shown while the lab works: one line that changes on a terminal,
//! plain lines now and then elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use synod_harness::sim::{Shrunk, Sweep};

/// Between two plain lines.
const EVERY: Duration = Duration::from_secs(10);

/// Where progress goes: always standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    last: Mutex<Instant>,
}

impl Progress {
    /// Nothing is shown yet.
    pub fn new() -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        Progress {
            bar,
            last: Mutex::new(Instant::now()),
        }
    }

    /// A line that stays.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// A line that the next one takes the place of; elsewhere one now and then.
    pub fn show(&self, text: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_message(text());
            bar.tick();
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= EVERY {
            *last = Instant::now();
            eprintln!("{}", text());
        }
    }

    /// A seed of a sweep is through.
    pub fn sweep(&self, sweep: &Sweep, seeds: Option<u64>) {
        self.show(|| {
            let of = seeds.map_or_else(String::new, |seeds| format!(" of {seeds}"));
            format!(
                "{}{of} seeds  {:.2} simulated hours  {} commits  {:.0}/s per core  {} faults  {} failed",
                sweep.seeds,
                sweep.simulated as f64 / 3.6e12,
                sweep.commits,
                sweep.rate(),
                sweep.faults.values().sum::<u64>(),
                sweep.failures.len(),
            )
        });
    }

    /// The shrinker tried another run.
    pub fn shrink(&self, shrunk: &Shrunk) {
        self.show(|| {
            let config = &shrunk.recipe.config;
            format!(
                "shrinking: {} runs; {} faults, {} clients, {} shards, {:.1} s left",
                shrunk.runs,
                shrunk.recipe.plan.len(),
                config.clients,
                config.shards,
                config.active() as f64 / 1e9,
            )
        });
    }

    /// Clears the changing line.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
