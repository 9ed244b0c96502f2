//! How much room is left on the disk. Below a reserve the node lets only deletes
//! in (§8), so that whoever ran it full can also free it again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// The room on the disk of one directory.
#[derive(Debug)]
pub(super) struct Space {
    directory: PathBuf,
    reserve: u64,
    next: Instant,
    /// Bytes free, while they are too few.
    short: Option<u64>,
    /// Bytes free when it was looked last.
    free: Option<u64>,
    /// Whether that has not been asked for yet.
    is_news: bool,
}

impl Space {
    pub(super) fn new(directory: PathBuf, reserve: u64, now: Instant) -> Space {
        Space {
            directory,
            reserve,
            next: now,
            short: None,
            free: None,
            is_news: false,
        }
    }

    /// After a look, bytes that may be written before the disk counts as full, with some left
    /// so that it does not at once afterwards.
    pub(super) fn spare(&mut self) -> Option<u64> {
        let free = self.free.filter(|_| std::mem::take(&mut self.is_news))?;
        Some(free.saturating_sub(self.enough()))
    }

    /// With so much free a disk that was full is no longer.
    fn enough(&self) -> u64 {
        self.reserve.saturating_add(self.reserve / 4)
    }

    /// Looks if it is time to; tells whether the disk is full if that has changed.
    pub(super) fn look(&mut self, now: Instant) -> Option<bool> {
        if self.reserve == 0 || now < self.next {
            return None;
        }
        self.next = now + INTERVAL;
        match rustix::fs::statvfs(&self.directory) {
            Ok(stat) => self.judge(stat.f_bavail.saturating_mul(stat.f_frsize)),
            Err(error) => {
                tracing::debug!(%error, "the room on the disk cannot be asked for");
                None
            }
        }
    }

    /// It is full below the reserve, and no more once a quarter more is free.
    fn judge(&mut self, free: u64) -> Option<bool> {
        let was = self.short.is_some();
        let enough = if was { self.enough() } else { self.reserve };
        (self.free, self.is_news) = (Some(free), true);
        let full = free < enough;
        self.short = full.then_some(free);
        if full == was {
            return None;
        }
        if full {
            tracing::warn!(
                directory = %self.directory.display(),
                free,
                reserve = self.reserve,
                "the disk is nearly full: only deletes are let in until there is room again"
            );
        } else {
            tracing::info!(free, "the disk has room again");
        }
        Some(full)
    }

    /// What is wrong, in words; none if there is room.
    pub(super) fn trouble(&self) -> Option<String> {
        let free = self.short?;
        Some(format!(
            "the disk is nearly full ({} MiB free, {} MiB are kept in reserve): only deletes are let in",
            free >> 20,
            self.reserve >> 20
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_below_the_reserve_until_clearly_above() {
        let mut space = Space::new(PathBuf::from("/"), 1000, Instant::now());
        assert_eq!(space.judge(1000), None);
        assert_eq!(space.judge(999), Some(true));
        assert!(space.trouble().is_some());
        assert_eq!((space.judge(1100), space.spare()), (None, Some(0)));
        assert_eq!(space.judge(1250), Some(false));
        assert_eq!((space.judge(1300), space.spare()), (None, Some(50)));
        assert_eq!(space.spare(), None, "it is told once");
        assert_eq!(space.trouble(), None);
        assert_eq!(space.judge(1100), None);
    }

    #[test]
    fn no_reserve_is_no_limit_and_looks_are_seldom() {
        let now = Instant::now();
        assert_eq!(Space::new("/".into(), 0, now).look(now), None);
        let mut space = Space::new("/".into(), u64::MAX, now);
        assert_eq!(space.look(now), Some(true));
        space.reserve = 1;
        assert_eq!(space.look(now + INTERVAL / 2), None);
        assert_eq!(space.look(now + INTERVAL), Some(false));
    }
}
