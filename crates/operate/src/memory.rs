//! What is remembered of shards' sizes and loads between two surveys: a shard's new leader knows
//! neither at first.

use crate::Survey;
use crate::survey::Weight;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use synod_paxos::GroupId;

/// What a new leader says of a shard's load counts only after so long: its figure is the mean of
/// some windows of time (decision 18).
const SETTLED: Duration = Duration::from_secs(25);

/// See the module.
#[derive(Debug, Default)]
pub struct Memory {
    shards: BTreeMap<GroupId, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    weight: Weight,
    /// When its leader changed, as far as that was seen.
    since: Option<Instant>,
}

impl Memory {
    /// Fills in what the survey does not tell, and keeps what it does.
    pub fn complete(&mut self, survey: &mut Survey, now: Instant) {
        let shards = survey.map.shards.iter().map(|shard| shard.id);
        let shards = shards.filter_map(|id| {
            let known = self.shards.get(&id).copied();
            Some((id, merged(known, survey.weights.get(&id).copied(), now)?))
        });
        self.shards = shards.collect();
        let weights = self.shards.iter().map(|(id, known)| (*id, known.weight));
        survey.weights = weights.collect();
    }
}

fn merged(known: Option<Known>, told: Option<Weight>, now: Instant) -> Option<Known> {
    let (known, mut weight) = match (known, told) {
        (Some(known), Some(told)) => (known, told),
        (known, told) => {
            let new = |weight| Known {
                weight,
                since: None,
            };
            return known.or(told.map(new));
        }
    };
    weight.bytes = weight.bytes.or(known.weight.bytes);
    let since = match weight.leader == known.weight.leader {
        true => known
            .since
            .filter(|since| now.duration_since(*since) < SETTLED),
        false => Some(now),
    };
    if since.is_some() {
        weight.requests = known.weight.requests;
    }
    Some(Known { weight, since })
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_paxos::NodeId;

    #[test]
    fn a_new_leader_is_heard_once_it_knows() {
        let told = |leader: u64, bytes: Option<u64>, requests: u64| Weight {
            leader: NodeId(leader),
            bytes,
            requests,
        };
        let mut now = Instant::now();
        let mut known = None;
        let mut hear = |now: Instant, heard: Option<Weight>| {
            known = merged(known, heard, now);
            known.map(|known| (known.weight.bytes, known.weight.requests))
        };
        assert_eq!(hear(now, None), None);
        assert_eq!(hear(now, Some(told(1, Some(7), 90))), Some((Some(7), 90)));
        assert_eq!(hear(now, Some(told(1, Some(8), 80))), Some((Some(8), 80)));
        // Nobody tells, and then another one.
        assert_eq!(hear(now, None), Some((Some(8), 80)));
        assert_eq!(hear(now, Some(told(2, None, 0))), Some((Some(8), 80)));
        now += SETTLED / 2;
        assert_eq!(hear(now, Some(told(2, Some(9), 20))), Some((Some(9), 80)));
        now += SETTLED;
        assert_eq!(hear(now, Some(told(2, Some(9), 70))), Some((Some(9), 70)));
    }
}
