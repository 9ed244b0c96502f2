//! Majority arithmetic, apart from everything else so that it can be checked
//! against a deliberately dumb twin.

/// So many values are ordered in place, which all groups of a usual size get by with.
const FEW: usize = 9;

/// The highest value that at least `quorum` of `values` reach, or none if there
/// are fewer than `quorum` values (or `quorum` is 0).
///
/// Allocates nothing, and asks for each value once unless there are very many.
pub(crate) fn reached<T: Copy + Ord>(
    values: impl Iterator<Item = T> + Clone,
    quorum: usize,
) -> Option<T> {
    let wanted = quorum.checked_sub(1)?;
    // Highest first; the places behind those taken are empty.
    let mut few = [None; FEW];
    for (len, value) in values.clone().enumerate() {
        if len == FEW {
            return reached_of_many(values, quorum);
        }
        let mut place = len;
        while place > 0 && few[place - 1] < Some(value) {
            few[place] = few[place - 1];
            place -= 1;
        }
        few[place] = Some(value);
    }
    few.get(wanted).copied().flatten()
}

/// The same for any number of values; quadratic.
fn reached_of_many<T: Copy + Ord>(
    values: impl Iterator<Item = T> + Clone,
    quorum: usize,
) -> Option<T> {
    values
        .clone()
        .filter(|v| values.clone().filter(|w| w >= v).count() >= quorum)
        .max()
}

#[cfg(test)]
mod tests {
    use super::{FEW, reached};

    /// The dumb twin: sort, count.
    fn twin(values: &[u64], quorum: usize) -> Option<u64> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        sorted.reverse();
        sorted.get(quorum.checked_sub(1)?).copied()
    }

    #[test]
    fn agrees_with_its_twin_on_everything_small() {
        let mut cases = 0;
        for len in 0..=5_u32 {
            for code in 0..4_u64.pow(len) {
                let values: Vec<u64> = (0..len).map(|i| code / 4_u64.pow(i) % 4).collect();
                for quorum in 0..=values.len() + 1 {
                    assert_eq!(
                        reached(values.iter().copied(), quorum),
                        twin(&values, quorum),
                        "{values:?} {quorum}"
                    );
                    cases += 1;
                }
            }
        }
        assert!(cases > 5_000);
    }

    #[test]
    fn agrees_with_its_twin_on_more_than_a_few() {
        for len in FEW - 1..FEW + 4 {
            let values: Vec<u64> = (0..len as u64).map(|i| i * 7 % 5).collect();
            for quorum in 0..=len + 1 {
                let reached = reached(values.iter().copied(), quorum);
                assert_eq!(reached, twin(&values, quorum), "{values:?} {quorum}");
            }
        }
    }
}
