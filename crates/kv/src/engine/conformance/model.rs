//! Random steps on an engine and on a model that is too simple to be wrong.

use super::*;
use std::collections::BTreeMap;

/// The dumb twin: all versions in a map.
type Model = BTreeMap<(Vec<u8>, std::cmp::Reverse<u64>), (AttemptId, Option<Value>)>;

fn model_rows(model: &Model, scan: &ScanRange, at: u64) -> Vec<Row> {
    let mut newest: BTreeMap<&[u8], Option<Row>> = BTreeMap::new();
    for ((bytes, timestamp), (_, value)) in model {
        if timestamp.0 <= at && scan.span.contains(bytes) {
            newest.entry(bytes).or_insert_with(|| {
                value.clone().map(|value| Row {
                    key: key(bytes),
                    value,
                    timestamp: Timestamp(timestamp.0),
                })
            });
        }
    }
    let mut rows: Vec<Row> = newest.into_values().flatten().collect();
    if scan.reverse {
        rows.reverse();
    }
    rows
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Apply(Vec<(Vec<u8>, u64, Option<u8>)>),
    Clear(Vec<u8>, Vec<u8>),
    Collect(u64, usize),
    Scan(Vec<u8>, Vec<u8>, u32, bool, u64),
    Reopen,
}

fn short_key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(vec![0u8, 1, b'a', 0xff]);
    prop::collection::vec(byte, 0..4)
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let version = (
        short_key(),
        1..40u64,
        prop::option::weighted(0.7, any::<u8>()),
    );
    prop_oneof![
        6 => prop::collection::vec(version, 1..20).prop_map(Step::Apply),
        1 => (short_key(), short_key()).prop_map(|(a, b)| Step::Clear(a, b)),
        1 => (1..40u64, 1..30usize).prop_map(|(at, items)| Step::Collect(at, items)),
        6 => (short_key(), short_key(), 0..6u32, any::<bool>(), 0..45u64)
            .prop_map(|(a, b, limit, reverse, at)| Step::Scan(a, b, limit, reverse, at)),
        1 => Just(Step::Reopen),
    ]
}

/// Runs the steps on an engine and its twin. Reads below the highest horizon
/// collected at are not compared.
pub(super) fn agrees_with_the_model(open: Open, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut engine = open();
    let mut model = Model::new();
    let mut horizon = 0;
    for step in steps {
        match step {
            Step::Apply(writes) => {
                let mut versions = Vec::new();
                for (bytes, at, value) in writes {
                    // Nothing commits below the horizon, and a version never changes.
                    let at = at.max(horizon + 1);
                    let slot = (bytes.clone(), std::cmp::Reverse(at));
                    let value = value.map(|v| Value::copy_from_slice(&[v]));
                    let (_, value) = model.entry(slot).or_insert((AttemptId(7), value)).clone();
                    versions.push((key(&bytes), Timestamp(at), AttemptId(7), value));
                }
                engine.apply(batch(versions)).unwrap();
            }
            Step::Clear(start, end) => {
                let span = span(&start, &end);
                engine.clear_range(&span).unwrap();
                model.retain(|(bytes, _), _| !span.contains(bytes));
            }
            Step::Collect(at, items) => {
                horizon = horizon.max(at);
                let mut cursor = None;
                loop {
                    let at = Timestamp(horizon);
                    let done = engine.collect(&all(), at, cursor.as_ref(), items).unwrap();
                    cursor = done.1;
                    if cursor.is_none() {
                        break;
                    }
                }
            }
            Step::Scan(start, end, limit, reverse, at) => {
                let at = at.max(horizon);
                let scan = range(span(&start, &end), limit, reverse);
                let wanted = model_rows(&model, &scan, at);
                let (found, more) = engine.scan(&scan, Timestamp(at)).unwrap();
                let count = wanted.len().min(limit as usize);
                prop_assert_eq!(&found[..], &wanted[..count]);
                prop_assert_eq!(more, count < wanted.len());
                for row in wanted {
                    let version = engine.get(&row.key, Timestamp(at)).unwrap().unwrap();
                    prop_assert_eq!(version.timestamp, row.timestamp);
                    prop_assert_eq!(version.value, Some(row.value));
                }
            }
            Step::Reopen => {
                engine.sync().unwrap();
                drop(engine);
                engine = open();
            }
        }
    }
    Ok(())
}
