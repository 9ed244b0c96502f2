//! Numbers of which few are frequent: Zipf's law, as YCSB draws it.

use rand::RngExt;
use rand::rngs::StdRng;

/// Draws from `0..count`, 0 the most frequent, in constant time (Gray et al.,
/// "Quickly generating billion-record synthetic databases", SIGMOD 1994).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Zipf {
    count: u64,
    theta: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    /// Over `count` numbers (at least 1) with the exponent `theta`, which lies
    /// strictly between 0 and 1; YCSB's is 0.99. Takes time in proportion to `count`.
    #[must_use]
    pub fn new(count: u64, theta: f64) -> Zipf {
        let count = count.max(1);
        let zeta = zeta(count, theta);
        let rest = 1.0 - (2.0 / count as f64).powf(1.0 - theta);
        Zipf {
            count,
            theta,
            zeta,
            alpha: 1.0 / (1.0 - theta),
            eta: rest / (1.0 - zeta2(theta) / zeta),
        }
    }

    /// One number; how often it comes falls with its size.
    pub fn rank(&self, random: &mut StdRng) -> u64 {
        let uniform: f64 = random.random();
        let scaled = uniform * self.zeta;
        if scaled < 1.0 || self.count < 2 {
            return 0;
        }
        if scaled < zeta2(self.theta) {
            return 1;
        }
        let rank = (self.eta * uniform - self.eta + 1.0).powf(self.alpha) * self.count as f64;
        (rank as u64).min(self.count - 1)
    }

    /// One number; the frequent ones are spread over the whole range.
    pub fn scattered(&self, random: &mut StdRng) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.rank(random).to_le_bytes()) % self.count
    }
}

fn zeta(count: u64, theta: f64) -> f64 {
    (1..=count).map(|i| (i as f64).powf(-theta)).sum()
}

fn zeta2(theta: f64) -> f64 {
    zeta(2, theta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_first_ranks_come_as_often_as_the_law_says() {
        let (zipf, mut random) = (Zipf::new(1000, 0.99), StdRng::seed_from_u64(7));
        let (draws, mut seen) = (200_000, vec![0_u32; 1000]);
        for _ in 0..draws {
            seen[usize::try_from(zipf.rank(&mut random)).expect("small")] += 1;
        }
        for rank in [0, 1, 9] {
            let law = (rank as f64 + 1.0).powf(-0.99) / zeta(1000, 0.99);
            let share = f64::from(seen[rank]) / f64::from(draws);
            assert!(
                (share / law - 1.0).abs() < 0.15,
                "{rank}: {share} for {law}"
            );
        }
        assert!(seen[999] > 0);
    }

    #[test]
    fn one_number_alone_is_always_drawn() {
        let (zipf, mut random) = (Zipf::new(1, 0.99), StdRng::seed_from_u64(7));
        assert!((0..100).all(|_| zipf.rank(&mut random) == 0 && zipf.scattered(&mut random) == 0));
    }
}
