//! What is shown while the demo runs: one line that changes on a terminal,
//! plain lines elsewhere, nothing with `--json`.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;
use synod_harness::workload::Snapshot;

/// Where progress goes: always standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
}

impl Progress {
    /// Quiet when the output is for programs.
    pub fn new(quiet: bool) -> Progress {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Progress { bar, quiet }
    }

    /// Something happened.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if !self.quiet => eprintln!("{text}"),
            None => {}
        }
    }

    /// How far it is.
    pub fn report(&self, at: Duration, counts: &Snapshot, rate: f64, p99_micros: u64) {
        let text = format!(
            "{:5.1} s  {:>7} transfers  {:>6.0}/s  {:>5} retried  p99 {:.1} ms",
            at.as_secs_f64(),
            counts.committed,
            rate,
            counts.retries,
            p99_micros as f64 / 1000.0
        );
        match &self.bar {
            Some(bar) => {
                bar.set_message(text);
                bar.tick();
            }
            None => self.say(&text),
        }
    }

    /// Clears the changing line.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
