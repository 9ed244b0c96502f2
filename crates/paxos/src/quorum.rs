//! Majority arithmetic, apart from everything else so that it can be checked
//! against a deliberately dumb twin.

/// The highest value that at least `quorum` of `values` reach, or none if there
/// are fewer than `quorum` values (or `quorum` is 0).
///
/// Allocates nothing; quadratic, for the handful of electors of one group.
pub(crate) fn reached<T: Copy + Ord>(
    values: impl Iterator<Item = T> + Clone,
    quorum: usize,
) -> Option<T> {
    if quorum == 0 {
        return None;
    }
    values
        .clone()
        .filter(|v| values.clone().filter(|w| w >= v).count() >= quorum)
        .max()
}

#[cfg(test)]
mod tests {
    use super::reached;

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
}
