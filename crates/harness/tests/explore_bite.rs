//! Breaches of rules are found, and told with a shortest path.
#![cfg(feature = "mutations")]

use synod_harness::explore::{Limits, cases};
use synod_probe::{Mutation, mutate};

#[test]
fn every_breach_in_scope_is_found() {
    for (name, case) in cases::bites() {
        let mutation = Mutation::ALL.iter().copied().find(|m| m.name() == name);
        mutate(Some(mutation.expect("a mutation by that name")));
        let report = case.explore(&Limits::default());
        mutate(None);
        let found = report.found.expect(name);
        println!(
            "{name}: {} states, {} steps: {}",
            report.states,
            found.path.len(),
            found.rule
        );
        assert!(!found.path.is_empty() && !found.state.is_empty());
    }
}
