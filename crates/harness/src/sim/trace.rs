//! What happened: always as a hash, on request also in words.

use std::collections::VecDeque;

/// The trace of one run.
pub(super) struct Trace {
    hash: u64,
    lines: VecDeque<String>,
    /// Lines kept: the last ones; 0 = none is made.
    most: usize,
}

impl Trace {
    pub(super) fn new(most: usize) -> Trace {
        Trace {
            hash: 0,
            lines: VecDeque::new(),
            most,
        }
    }

    pub(super) fn mix(&mut self, value: u64) {
        let mixed = self.hash.rotate_left(7) ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.hash = mixed.wrapping_mul(0xff51_afd7_ed55_8ccd);
    }

    /// Adds a line, made only if somebody reads it.
    pub(super) fn line(&mut self, t: u64, line: impl FnOnce() -> String) {
        if self.is_kept() {
            if self.lines.len() == self.most {
                self.lines.pop_front();
            }
            let line = format!("{:>12.3} ms  {}", t as f64 / 1e6, line());
            self.lines.push_back(line);
        }
    }

    pub(super) fn is_kept(&self) -> bool {
        self.most > 0
    }

    pub(super) fn finish(self) -> (u64, Vec<String>) {
        (self.hash, self.lines.into())
    }
}
