//! What must hold at the end, and whether it did.

use super::load::Checked;
use super::record::Seen;
use super::report::Verdict;
use crate::history::Nanos;
use crate::sim::Wrong;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a scenario expects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expect {
    /// The history keeps every promise. A broken one never passes, expected or not.
    pub history: bool,
    /// No acknowledged write is lost; the history's checkers tell.
    pub lost: bool,
    /// All nodes that are not lost for good are as they should be at the end.
    pub healthy: bool,
    /// So long after the load every shard has a leader, and every follower has all.
    pub replicated_within: Option<Duration>,
    /// What clients see.
    pub sites: Vec<ExpectSite>,
}

/// What clients of some sites see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExpectSite {
    /// The sites' numbers.
    pub sites: Vec<usize>,
    /// At least this share of the buckets in which there was any request had one that
    /// succeeded.
    pub available: Option<f64>,
    /// At least this share of the requests succeeded.
    pub served: Option<f64>,
    /// The longest time without success.
    pub longest_gap: Option<Duration>,
    /// 99 of 100 requests that succeeded took at most this long.
    pub p99: Option<Duration>,
    /// At most so many requests failed, or ended unknown.
    pub failed: Option<u64>,
    /// Only what happened outside of faults counts …
    pub outside_faults: bool,
    /// … and so long after each of them.
    pub grace: Duration,
}

impl ExpectSite {
    /// Whether nothing is expected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.available.is_none()
            && self.served.is_none()
            && self.longest_gap.is_none()
            && self.p99.is_none()
            && self.failed.is_none()
    }
}

/// What was seen after the load.
#[derive(Debug)]
pub(super) struct After {
    /// What the checkers say; an error if the end could not be read.
    pub(super) history: Option<Result<Checked, String>>,
    /// How long it took, once the load and all commands were over, until all was
    /// replicated; or what was missing.
    pub(super) replicated: Result<Duration, String>,
    /// What is wrong with nodes.
    pub(super) unhealthy: Vec<String>,
    /// Nodes that ended without a fault, with their last words.
    pub(super) crashed: Vec<String>,
    /// A client of the lab ended badly.
    pub(super) clients_lost: bool,
    /// Commands that were given, and what was wrong.
    pub(super) commands: Vec<(String, Option<String>)>,
}

/// A verdict, and what it means if it does not hold.
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    pub(super) wrong: Wrong,
}

fn judged(wrong: Wrong, name: &str, wanted: &str, seen: String, held: bool) -> Judged {
    Judged {
        verdict: Verdict {
            name: name.to_owned(),
            wanted: wanted.to_owned(),
            seen,
            held,
        },
        wrong,
    }
}

/// Judges what concerns the whole cluster.
pub(super) fn of_cluster(expect: &Expect, after: &After) -> Vec<Judged> {
    let mut all = Vec::new();
    match &after.history {
        None => {}
        Some(Ok(checked)) => {
            let history = &checked.result;
            let seen = if history.ok {
                format!("{} transactions, nothing wrong", history.operations)
            } else {
                history.words.lines().next().unwrap_or_default().to_owned()
            };
            all.push(judged(
                Wrong::Safety,
                "history",
                "every promise kept",
                seen,
                history.ok,
            ));
            if expect.lost {
                let seen = if checked.lost {
                    "some; see the history"
                } else {
                    "0"
                };
                let wanted = "0 acknowledged writes";
                let seen = seen.to_owned();
                all.push(judged(Wrong::Safety, "lost", wanted, seen, !checked.lost));
            }
        }
        // Nothing was seen to be wrong; but the cluster should serve again.
        Some(Err(error)) => {
            let wanted = "can be read back at the end";
            all.push(judged(
                Wrong::Liveness,
                "history",
                wanted,
                error.clone(),
                false,
            ));
        }
    }
    if !after.crashed.is_empty() {
        let seen = after.crashed.join("; ");
        let wanted = "no node ends without a fault";
        all.push(judged(Wrong::Crash, "crashes", wanted, seen, false));
    }
    if after.clients_lost {
        let seen = "a client of the lab panicked".to_owned();
        all.push(judged(
            Wrong::Harness,
            "clients",
            "end in order",
            seen,
            false,
        ));
    }
    if let Some(limit) = expect.replicated_within {
        let (seen, held) = match &after.replicated {
            Ok(took) => (format!("{:.1} s", took.as_secs_f64()), *took <= limit),
            Err(missing) => (missing.clone(), false),
        };
        let wanted = format!("within {limit:?} after load and commands");
        all.push(judged(
            Wrong::Liveness,
            "full replication",
            &wanted,
            seen,
            held,
        ));
    }
    if expect.healthy {
        let seen = if after.unhealthy.is_empty() {
            "all".to_owned()
        } else {
            after.unhealthy.join("; ")
        };
        let held = after.unhealthy.is_empty();
        all.push(judged(Wrong::Liveness, "healthy nodes", "all", seen, held));
    }
    all.extend(of_commands(&after.commands));
    all
}

/// Judges the commands, those that say the same together.
fn of_commands(commands: &[(String, Option<String>)]) -> Vec<Judged> {
    let mut alike: BTreeMap<&str, Vec<Option<&str>>> = BTreeMap::new();
    for (what, problem) in commands {
        let given = alike.entry(what).or_default();
        given.push(problem.as_deref());
    }
    let judge = |(what, given): (&str, Vec<Option<&str>>)| {
        let done = given.iter().filter(|problem| problem.is_none()).count();
        let first = given.iter().flatten().next();
        let seen = match (first, given.len()) {
            (None, 1) => "done".to_owned(),
            (None, times) => format!("done, {times} times"),
            (Some(problem), 1) => (*problem).to_owned(),
            (Some(problem), times) => format!("{done} of {times} done; {problem}"),
        };
        let held = first.is_none();
        judged(Wrong::Liveness, &format!("`{what}`"), "done", seen, held)
    };
    alike.into_iter().map(judge).collect()
}

/// Judges the plan: a fault that was done to nothing shows nothing.
pub(super) fn of_plan(in_vain: &[String]) -> Option<Judged> {
    let wanted = "each is done to something";
    let seen = in_vain.join("; ");
    (!in_vain.is_empty()).then(|| judged(Wrong::Harness, "faults", wanted, seen, false))
}

/// Joins stretches of time that touch, each so much longer; ascending.
pub(super) fn excused(faults: &[(Nanos, Nanos)], grace: Duration) -> Vec<(Nanos, Nanos)> {
    let grace = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
    let mut sorted = faults.to_vec();
    sorted.sort_unstable();
    let mut joined: Vec<(Nanos, Nanos)> = Vec::new();
    for (from, until) in sorted {
        let until = until.saturating_add(grace);
        match joined.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(until),
            _ => joined.push((from, until)),
        }
    }
    joined
}

/// Judges what the clients of one site saw. `faults` are the times of all faults.
pub(super) fn of_site(
    expect: &ExpectSite,
    name: &str,
    seen: &Seen,
    faults: &[(Nanos, Nanos)],
) -> Vec<Judged> {
    let (excused, words) = if expect.outside_faults {
        let words = format!(" outside faults and {:?} after each", expect.grace);
        (self::excused(faults, expect.grace), words)
    } else {
        (Vec::new(), String::new())
    };
    let buckets = seen.outside(&excused);
    let mut all = Vec::new();
    let mut add = |what: &str, wanted: String, seen: String, held: bool| {
        let wanted = wanted + &words;
        all.push(judged(
            Wrong::Liveness,
            &format!("{name}: {what}"),
            &wanted,
            seen,
            held,
        ));
    };
    let sum = |of: &dyn Fn(usize) -> u64| buckets.iter().map(|b| of(*b)).sum::<u64>();
    let ok = sum(&|b| seen.slots[b].ok);
    let bad = sum(&|b| seen.slots[b].failed + seen.slots[b].unknown);
    if let Some(least) = expect.available {
        let wanted = buckets.iter().filter(|b| seen.wanted[**b]).count();
        let good = buckets
            .iter()
            .filter(|b| seen.wanted[**b] && seen.slots[**b].ok > 0)
            .count();
        let (seen, held) = share(good as u64, wanted as u64, least, "buckets");
        add(
            "available",
            format!("at least {}", percent(least)),
            seen,
            held,
        );
    }
    if let Some(least) = expect.served {
        let (seen, held) = share(ok, ok + bad, least, "requests");
        add("served", format!("at least {}", percent(least)), seen, held);
    }
    if let Some(most) = expect.longest_gap {
        let (from, gap) = seen.longest_gap(&excused);
        let gap = Duration::from_nanos(gap);
        let told = format!(
            "{:.2} s from {:.2} s on",
            gap.as_secs_f64(),
            from as f64 / 1e9
        );
        add(
            "longest gap",
            format!("at most {most:?}"),
            told,
            gap <= most,
        );
    }
    if let Some(most) = expect.p99 {
        let p99 = Duration::from_micros(seen.p99(&buckets));
        let told = if ok > 0 {
            format!("{p99:?}")
        } else {
            "no success".to_owned()
        };
        add(
            "p99",
            format!("at most {most:?}"),
            told,
            ok > 0 && p99 <= most,
        );
    }
    if let Some(most) = expect.failed {
        add(
            "failed",
            format!("at most {most}"),
            bad.to_string(),
            bad <= most,
        );
    }
    all
}

fn percent(share: f64) -> String {
    format!("{} %", (share * 1e6).round() / 1e4)
}

/// A share and whether it is large enough; of nothing at all none is.
fn share(good: u64, all: u64, least: f64, what: &str) -> (String, bool) {
    if all == 0 {
        return (format!("no {what}"), false);
    }
    let share = good as f64 / all as f64;
    let seen = format!("{}, {good} of {all} {what}", percent(share));
    (seen, share >= least)
}

#[cfg(test)]
mod tests {
    use super::super::record::{Ended, Record};
    use super::*;
    use crate::history::Outcome;

    const SECOND: u64 = 1_000_000_000;

    fn seen() -> Seen {
        let record = Record::new(Duration::from_secs(10), Duration::from_millis(500));
        for tenth in 0..100 {
            let at = tenth * SECOND / 10;
            let down = (3 * SECOND..5 * SECOND).contains(&at);
            record.begins(at);
            record.ends(Ended {
                from: at,
                until: at + SECOND / 100,
                outcome: if down {
                    Outcome::Aborted
                } else {
                    Outcome::Committed(None)
                },
            });
        }
        record.finish(10 * SECOND, None)
    }

    fn expect() -> ExpectSite {
        ExpectSite {
            sites: vec![0],
            available: Some(0.9),
            served: Some(0.9),
            longest_gap: Some(Duration::from_secs(1)),
            p99: Some(Duration::from_millis(20)),
            failed: Some(5),
            outside_faults: false,
            grace: Duration::from_millis(500),
        }
    }

    fn held(expect: &ExpectSite) -> Vec<bool> {
        let faults = [(3 * SECOND, 4 * SECOND), (3 * SECOND, 5 * SECOND)];
        let all = of_site(expect, "a", &seen(), &faults);
        all.iter().map(|judged| judged.verdict.held).collect()
    }

    #[test]
    fn what_happens_in_faults_counts_unless_it_is_excused() {
        assert_eq!(held(&expect()), [false, false, false, true, false]);
        let outside = ExpectSite {
            outside_faults: true,
            ..expect()
        };
        assert_eq!(held(&outside), [true; 5]);
    }

    #[test]
    fn commands_that_say_the_same_are_judged_together() {
        let failed = Some("exit status: 1: no leader".to_owned());
        let given = [
            ("a", None),
            ("b", failed.clone()),
            ("a", None),
            ("b", None),
            ("c", failed),
        ];
        let given = given.map(|(what, problem)| (what.to_owned(), problem));
        let judged = of_commands(&given);
        let told = judged
            .iter()
            .map(|j| (&j.verdict.name[..], &j.verdict.seen[..], j.verdict.held));
        let wanted = [
            ("`a`", "done, 2 times", true),
            ("`b`", "1 of 2 done; exit status: 1: no leader", false),
            ("`c`", "exit status: 1: no leader", false),
        ];
        assert_eq!(told.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_broken_history_is_of_safety_whether_it_is_expected_or_not() {
        let after = |history| After {
            history,
            replicated: Err("shard 3 has no leader".to_owned()),
            unhealthy: vec!["n2: gone".to_owned()],
            crashed: Vec::new(),
            clients_lost: false,
            commands: vec![("node drain n1".to_owned(), None)],
        };
        let checked = |ok, lost| Checked {
            result: crate::lab::report::HistoryResult {
                kind: "bank".to_owned(),
                operations: 3,
                ok,
                words: "1 violations in 3 transactions".to_owned(),
            },
            lost,
        };
        let missed = |expect: &Expect, history| {
            let judged = of_cluster(expect, &after(history));
            let missed = judged.into_iter().filter(|j| !j.verdict.held);
            missed
                .map(|j| (j.verdict.name, j.wrong))
                .collect::<Vec<_>>()
        };
        let nothing = Expect::default();
        let history = ("history".to_owned(), Wrong::Safety);
        assert_eq!(
            missed(&nothing, Some(Ok(checked(false, true)))),
            std::slice::from_ref(&history)
        );
        assert!(missed(&nothing, Some(Ok(checked(true, false)))).is_empty());
        let unread = ("history".to_owned(), Wrong::Liveness);
        assert_eq!(missed(&nothing, Some(Err("no".to_owned()))), [unread]);
        let all = Expect {
            history: true,
            lost: true,
            healthy: true,
            replicated_within: Some(Duration::from_secs(1)),
            sites: Vec::new(),
        };
        let lost = ("lost".to_owned(), Wrong::Safety);
        let replicated = ("full replication".to_owned(), Wrong::Liveness);
        let healthy = ("healthy nodes".to_owned(), Wrong::Liveness);
        let seen = missed(&all, Some(Ok(checked(false, true))));
        assert_eq!(seen, [history, lost, replicated, healthy]);
    }

    #[test]
    fn of_nothing_no_share_is_enough() {
        assert!(!share(0, 0, 0.0, "requests").1);
        assert_eq!(
            share(1, 2, 0.5, "requests"),
            ("50 %, 1 of 2 requests".to_owned(), true)
        );
    }

    #[test]
    fn stretches_that_touch_are_one() {
        let joined = excused(&[(5, 6), (1, 3), (2, 4)], Duration::from_nanos(1));
        assert_eq!(joined, [(1, 7)]);
    }
}
