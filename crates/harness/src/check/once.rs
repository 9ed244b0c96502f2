//! Exactly once: a transaction leaves its unique marker once if its client was
//! told *committed*, never if it was told *aborted*, and at most once otherwise.

use super::{Anomaly, Findings};
use crate::history::Outcome;
use std::collections::{BTreeMap, BTreeSet};

/// Compares the outcomes of transactions, by marker, with the markers found at the
/// end. `noun` names them in findings: *transfer*, say.
#[must_use]
pub fn check(noun: &str, outcomes: &BTreeMap<u64, Outcome>, found: &[u64]) -> Findings {
    let mut findings = Findings {
        checked: outcomes.len(),
        ..Findings::default()
    };
    let mut markers = BTreeSet::new();
    for marker in found {
        if !markers.insert(*marker) {
            findings.add(Anomaly::Duplicate, || {
                format!("the marker of {noun} {marker} is there twice")
            });
        }
        if !outcomes.contains_key(marker) {
            findings.add(Anomaly::Garbage, || {
                format!("there is a marker {marker} of a {noun} that nobody asked for")
            });
        }
    }
    for (id, outcome) in outcomes {
        match outcome {
            Outcome::Committed(_) if !markers.contains(id) => findings.add(Anomaly::Lost, || {
                format!("{noun} {id} was acknowledged, but its marker is not there")
            }),
            Outcome::Aborted if markers.contains(id) => findings.add(Anomaly::Undead, || {
                format!("{noun} {id} was reported as aborted, but its marker is there")
            }),
            _ => {}
        }
    }
    findings
}
