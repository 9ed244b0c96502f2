//! What one direction of one link does to its packets.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::{Duration, Instant};

/// How bad one direction of a link is. The default is a perfect one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// Every packet takes this long.
    pub latency: Duration,
    /// And up to this much more, by chance; packets then overtake each other only
    /// if `reorder` says so.
    pub jitter: Duration,
    /// Share of packets lost, 0 to 1.
    pub loss: f64,
    /// Share of packets delivered twice, 0 to 1.
    pub duplicate: f64,
    /// Share of packets that are late by up to `late`, behind younger ones, 0 to 1.
    pub reorder: f64,
    /// How late a reordered packet or a second copy may be.
    pub late: Duration,
    /// Bytes a second; none = any number. What does not fit waits, up to a quarter
    /// of a second's worth; the rest is lost.
    pub bandwidth: Option<u64>,
    /// Nothing passes.
    pub cut: bool,
}

impl Link {
    /// One that only takes time.
    #[must_use]
    pub fn of_latency(latency: Duration) -> Link {
        Link {
            latency,
            ..Link::default()
        }
    }

    /// One that loses, doubles and reorders this share of the packets each.
    #[must_use]
    pub fn unreliable(share: f64) -> Link {
        Link {
            loss: share,
            duplicate: share,
            reorder: share,
            late: Duration::from_millis(20),
            ..Link::default()
        }
    }

    /// One through which nothing passes.
    #[must_use]
    pub fn broken() -> Link {
        Link {
            cut: true,
            ..Link::default()
        }
    }
}

/// The longest queue before a link of limited bandwidth.
const QUEUE: Duration = Duration::from_millis(250);

/// One direction at work: its state, and a generator of its own, so that equal
/// seeds and packets meet equal fates whatever other links do.
#[derive(Debug)]
pub(super) struct Direction {
    pub(super) link: Link,
    random: StdRng,
    /// When the bandwidth is free again.
    free: Option<Instant>,
    /// No packet in order arrives before this.
    last: Option<Instant>,
}

impl Direction {
    pub(super) fn new(seed: u64) -> Direction {
        Direction {
            link: Link::default(),
            random: StdRng::seed_from_u64(seed),
            free: None,
            last: None,
        }
    }

    /// The link is another one for packets sent from now on: what is still on its way on the
    /// old one holds none of them up.
    pub(super) fn set(&mut self, link: Link) {
        self.link = link;
        (self.free, self.last) = (None, None);
    }

    fn by_chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.random.random_bool(share.min(1.0))
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.random.random_range(0.0..1.0))
    }

    /// When the copies of a packet of `bytes` arrive that was sent `now`: none,
    /// one or two of them.
    pub(super) fn fates(&mut self, now: Instant, bytes: usize) -> Vec<Instant> {
        let lost = self.by_chance(self.link.loss);
        if self.link.cut || lost {
            return Vec::new();
        }
        let mut sent = now;
        if let Some(rate) = self.link.bandwidth {
            let begins = self.free.map_or(now, |free| free.max(now));
            if begins - now > QUEUE {
                return Vec::new();
            }
            sent = begins + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            self.free = Some(sent);
        }
        let jitter = self.up_to(self.link.jitter);
        let due = sent + self.link.latency + jitter;
        let mut fates = if self.by_chance(self.link.reorder) {
            vec![due + self.up_to(self.link.late)]
        } else {
            let due = self.last.map_or(due, |last| last.max(due));
            self.last = Some(due);
            vec![due]
        };
        if self.by_chance(self.link.duplicate) {
            fates.push(due + self.up_to(self.link.late));
        }
        fates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(link: &Link, seed: u64, packets: u32) -> Vec<Vec<Duration>> {
        let mut direction = Direction::new(seed);
        direction.link = link.clone();
        let start = Instant::now();
        let times = (0..packets).map(|i| start + Duration::from_micros(100) * i);
        times
            .map(|at| direction.fates(at, 1000))
            .map(|fates| fates.into_iter().map(|due| due - start).collect())
            .collect()
    }

    #[test]
    fn a_perfect_link_is_perfect_and_a_cut_one_silent() {
        let fates = run(&Link::default(), 1, 3);
        let micros = |n| vec![Duration::from_micros(n)];
        assert_eq!(fates, [micros(0), micros(100), micros(200)]);
        assert!(run(&Link::broken(), 1, 100).iter().all(Vec::is_empty));
    }

    #[test]
    fn equal_seeds_meet_equal_fates() {
        let link = Link::unreliable(0.2);
        assert_eq!(run(&link, 7, 1000), run(&link, 7, 1000));
        assert_ne!(run(&link, 7, 1000), run(&link, 8, 1000));
    }

    #[test]
    fn shares_are_kept() {
        let fates = run(&Link::unreliable(0.2), 3, 10_000);
        let of = |n| fates.iter().filter(|f| f.len() == n).count();
        assert!((1_800..2_200).contains(&of(0)), "{} lost", of(0));
        assert!((1_400..1_800).contains(&of(2)), "{} doubled", of(2));
        let firsts: Vec<Duration> = fates.iter().filter_map(|f| f.first().copied()).collect();
        assert!(!firsts.is_sorted(), "none was overtaken");
    }

    #[test]
    fn jitter_alone_keeps_the_order() {
        let link = Link {
            latency: Duration::from_millis(5),
            jitter: Duration::from_millis(5),
            ..Link::default()
        };
        let arrivals: Vec<Duration> = run(&link, 5, 1000).into_iter().flatten().collect();
        assert!(arrivals.is_sorted() && arrivals[0] >= Duration::from_millis(5));
    }

    #[test]
    fn bandwidth_delays_and_then_loses() {
        let link = Link {
            bandwidth: Some(1_000_000),
            ..Link::default()
        };
        // 1,000 bytes every 100 µs are ten times what passes.
        let fates = run(&link, 1, 1000);
        let passed: Vec<Duration> = fates.iter().flatten().copied().collect();
        assert!(passed.len() > 250 && passed.len() < 450, "{}", passed.len());
        assert!(
            passed
                .windows(2)
                .all(|w| w[1] - w[0] >= Duration::from_micros(999))
        );
    }
}
