//! From values to heights, and the values that axes name.

/// How values become heights.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Value,
    Logarithm,
}

/// From values to positions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    by: By,
    /// The values at the ends.
    pub(super) low: f64,
    pub(super) high: f64,
    /// The positions of the ends.
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Scale {
    /// In proportion.
    pub(super) fn linear(low: f64, high: f64, from: f64, to: f64) -> Scale {
        let by = By::Value;
        let high = if high > low { high } else { low + 1.0 };
        Scale {
            by,
            low,
            high,
            from,
            to,
        }
    }

    /// By logarithms; both ends above zero.
    pub(super) fn log(low: f64, high: f64, from: f64, to: f64) -> Scale {
        let by = By::Logarithm;
        let low = if low > 0.0 { low } else { 1.0 };
        let high = if high > low { high } else { low * 10.0 };
        Scale {
            by,
            low,
            high,
            from,
            to,
        }
    }

    /// Where a value stands; one outside stands at the end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = if value.is_finite() { value } else { self.low };
        let value = value.clamp(self.low, self.high);
        let share = match self.by {
            By::Value => (value - self.low) / (self.high - self.low),
            By::Logarithm => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        self.from + share * (self.to - self.from)
    }
}

/// 1, 2, 5, 10, 20, 50 and so on, as far as 64 bits count.
fn round_values() -> impl Iterator<Item = f64> {
    let decades = (0..=19).map(|power| 10f64.powi(power));
    decades.flat_map(|decade| [decade, 2.0 * decade, 5.0 * decade])
}

/// Zero and the round values up to `high`, at most `most` of them.
pub(super) fn linear_ticks(high: f64, most: usize) -> Vec<f64> {
    let most = most.max(1) as f64;
    if !(high.is_finite() && high > 0.0) {
        return vec![0.0];
    }
    // Less than one per second occurs when little succeeds.
    let small = (1..=6).rev().map(|power| 10f64.powi(-power));
    let small = small.flat_map(|decade| [decade, 2.0 * decade, 5.0 * decade]);
    let fits = |step: &f64| (high / step).floor() <= most;
    let step = small.chain(round_values()).find(fits).unwrap_or(high);
    let count = (high / step).floor() as usize;
    (0..=count).map(|index| index as f64 * step).collect()
}

/// The ends of an axis by logarithms that holds all between `low` and `high`: round
/// values, at least a factor of five apart.
pub(super) fn log_ends(low: f64, high: f64) -> (f64, f64) {
    let low = round_values()
        .take_while(|v| *v <= low)
        .last()
        .unwrap_or(1.0);
    let high = high.max(low * 5.0);
    let high = round_values().find(|v| *v >= high).unwrap_or(high);
    (low, high)
}

/// The round values between the ends, as many as there is room for: all, or powers
/// of ten, or every so manieth of those.
pub(super) fn log_ticks(low: f64, high: f64, most: usize) -> Vec<f64> {
    let inside: Vec<f64> = round_values().filter(|v| *v >= low && *v <= high).collect();
    if inside.len() <= most {
        return inside;
    }
    let is_decade = |v: &f64| (v.log10() - v.log10().round()).abs() < 1e-9;
    let decades: Vec<f64> = inside.into_iter().filter(is_decade).collect();
    let every = decades.len().div_ceil(most.max(1)).max(1);
    decades.into_iter().step_by(every).collect()
}

/// Moments of the time axis in milliseconds, round, at most `most` after zero.
pub(super) fn time_ticks(end_millis: f64, most: usize) -> Vec<f64> {
    const MINUTES: [f64; 6] = [15e3, 30e3, 60e3, 120e3, 300e3, 600e3];
    let most = most.max(1) as f64;
    let whole = round_values().filter(|v| *v < 15e3);
    let longer = round_values().map(|v| v * 60.0 * 1e3);
    let steps = whole.chain(MINUTES).chain(longer.filter(|v| *v > 600e3));
    let step = { steps }.find(|step| step * most >= end_millis);
    let step = step.unwrap_or(end_millis.max(1.0));
    let count = (end_millis / step).floor().max(0.0) as usize;
    (0..=count).map(|index| index as f64 * step).collect()
}
