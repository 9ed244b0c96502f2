//! The small cases, completely: every order of steps within their bounds keeps
//! every rule. `explore all` explores larger ones.

use synod_harness::explore::{Case, Limits, cases};

fn check(which: fn(&Case) -> bool) {
    let mut states = 0;
    for case in cases::small().into_iter().filter(which) {
        let report = case.explore(&Limits::default());
        println!("{}: {report}", case.label());
        assert!(report.found.is_none(), "{}\n{report}", case.label());
        assert!(
            report.complete,
            "{} was not explored completely",
            case.label()
        );
        states += report.states;
    }
    assert!(states > 10_000, "{states} states prove nothing");
}

#[test]
fn consensus_keeps_its_rules_in_every_order_of_steps() {
    check(|case| matches!(case, Case::Consensus(_)));
}

#[test]
fn commits_keep_their_rules_in_every_order_of_steps() {
    check(|case| matches!(case, Case::Commit(_)));
}

#[test]
fn every_named_case_is_readable() {
    let named = cases::small().into_iter().chain(cases::large());
    for case in named.chain(cases::bites().into_iter().map(|(_, case)| case)) {
        assert_eq!(Case::parse(&case.label()), Some(case));
    }
    assert_eq!(cases::small().len(), cases::SMALL_COUNT);
    assert_eq!(cases::large().len(), cases::LARGE_COUNT);
    assert_eq!(cases::bites().len(), cases::BITES_COUNT);
}

#[test]
fn equal_bounds_give_equal_searches() {
    let case = Case::parse("commit older=one-shard").expect("a case");
    let (a, b) = (
        case.explore(&Limits::default()),
        case.explore(&Limits::default()),
    );
    assert_eq!(
        (a.states, a.transitions, a.depth),
        (b.states, b.transitions, b.depth)
    );
}
