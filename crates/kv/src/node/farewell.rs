//! The order of an orderly stop: hand the leaderships over, answer what still
//! waits, tell latecomers who leads now, and only then go.

use std::time::{Duration, Instant};

/// After everything is handed over, requests still arrive from clients that have
/// not heard of it: so long they are told who leads.
const GRACE: Duration = Duration::from_millis(100);
/// A node that cannot hand over (no other one is up) goes after this long.
const LONGEST: Duration = Duration::from_secs(2);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// An orderly stop under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Farewell {
    began: Instant,
    quiet_since: Option<Instant>,
}

impl Farewell {
    pub(super) fn begin(now: Instant) -> Farewell {
        Farewell {
            began: now,
            quiet_since: None,
        }
    }

    /// How long to go on before looking again; none once it is time to go.
    /// `quiet`: everything is handed over and nobody waits for an answer.
    pub(super) fn goes_on(&mut self, quiet: bool, now: Instant) -> Option<Duration> {
        if !quiet {
            self.quiet_since = None;
        } else if self.quiet_since.is_none() {
            self.quiet_since = Some(now);
        }
        let graced = self.quiet_since.is_some_and(|since| now - since >= GRACE);
        let late = now - self.began >= LONGEST;
        (!graced && !late).then_some(PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_once_it_was_quiet_for_long_enough() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut farewell = Farewell::begin(start);
        assert_eq!(farewell.goes_on(false, at(10)), Some(PAUSE));
        assert_eq!(farewell.goes_on(true, at(20)), Some(PAUSE));
        // Somebody asked again.
        assert_eq!(farewell.goes_on(false, at(110)), Some(PAUSE));
        assert_eq!(farewell.goes_on(true, at(130)), Some(PAUSE));
        assert_eq!(farewell.goes_on(true, at(229)), Some(PAUSE));
        assert_eq!(farewell.goes_on(true, at(230)), None);
    }

    #[test]
    fn it_does_not_wait_for_ever() {
        let start = Instant::now();
        let mut farewell = Farewell::begin(start);
        assert!(farewell.goes_on(false, start).is_some());
        assert!(farewell.goes_on(false, start + LONGEST).is_none());
    }
}
