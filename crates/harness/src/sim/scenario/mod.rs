//! Named scenarios: the failures of a data centre's first year (Jeff Dean's list,
//! "Designs, lessons and advice from building large distributed systems", 2009).
//!
//! Each makes, from a seed, a cluster of several sites under a steady load, the
//! failure as an explicit plan, and a little noise; and says for how long such a
//! failure may keep all clients from committing.

mod catalogue;
mod stage;

use super::client::CommitTimes;
use super::config::{MS, SimConfig};
use super::fault::Planned;
use super::report::{Report, Violation, Wrong};
use stage::Stage;
use std::fmt;
use synod_paxos::GroupId;

/// A failure with a name.
#[derive(Debug)]
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What happens, in a sentence.
    pub about: &'static str,
    /// For how many failovers nothing may be committed.
    failovers: u64,
    make: fn(&mut Stage),
}

impl Scenario {
    /// All of them.
    pub const ALL: &'static [Scenario] = catalogue::ALL;

    /// The one with this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Scenario> {
        Scenario::ALL.iter().find(|s| s.name == name)
    }

    /// The run it makes of a seed.
    #[must_use]
    pub fn build(&self, seed: u64) -> (SimConfig, Vec<Planned>) {
        let mut stage = Stage::new(seed);
        (self.make)(&mut stage);
        stage.end()
    }

    /// The longest time for which nothing may be committed, in any shard; nanoseconds.
    #[must_use]
    pub fn patience(&self, config: &SimConfig) -> u64 {
        self.failovers * failover(config)
    }

    /// Adds what the scenario expects beyond the rules: from the first commit until
    /// the faults end, commits go on, in every shard.
    pub fn judge(&self, config: &SimConfig, report: &mut Report) {
        if report
            .violations
            .iter()
            .any(|v| v.rule == "setup" || v.at.is_some())
        {
            // The run did not get to its end, so that silence proves nothing.
            return;
        }
        let most = self.patience(config);
        let silence = Silence::longest(&report.commit_times, config, most);
        let text = match silence {
            None => "nothing was ever committed".to_owned(),
            Some(silence) if silence.length > most => format!(
                "{silence}, longer than the {:.3} s that `{}` may cost",
                seconds(most),
                self.name
            ),
            Some(_) => return,
        };
        report.violations.push(Violation {
            wrong: Wrong::Liveness,
            rule: "availability".to_owned(),
            at: silence.map(|s| s.since + s.length),
            text,
        });
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// How long it takes from a leader's death to its successor's first answer, at
/// most, if messages arrive: its lease and its support run out, candidates time
/// out and may duel, clients look elsewhere, intents without a coordinator are
/// ended.
fn failover(config: &SimConfig) -> u64 {
    let clients = 300 * MS + 10 * config.far;
    config.lease + 4 * config.election + clients + config.staged_timeout
}

/// A time without commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The shard in which nothing was committed; none = in all of them.
    pub shard: Option<GroupId>,
    /// When it began; nanoseconds since the run's start.
    pub since: u64,
    /// How long it was; nanoseconds.
    pub length: u64,
}

/// In a silence that chance explains so many commits are expected, at most: the
/// chance that there is none is e^-20.
const EXPECTED: f64 = 20.0;

impl Silence {
    /// The longest one of a run's faulty part, from the first commit on; none if there
    /// was no commit. A shard counts only if the clients touch it so often that a
    /// silence of `most` is no chance.
    #[must_use]
    pub fn longest(times: &CommitTimes, config: &SimConfig, most: u64) -> Option<Silence> {
        let end = config.active();
        let all = (None, longest_stretch(&times.all, end)?);
        let begin = config.phases.first().map_or(0, |phase| phase.until);
        let before = |times: &[u64]| times.partition_point(|at| *at < begin) as f64;
        let later = times.all.partition_point(|at| *at < end) as f64 - before(&times.all);
        let rate = later / (end - begin).max(1) as f64;
        let busy = |times_of: &Vec<u64>| {
            let share = before(times_of) / before(&times.all).max(1.0);
            share * rate * most as f64 > EXPECTED
        };
        let shards = times.shards.iter().filter(|(_, times)| busy(times));
        let shards =
            shards.filter_map(|(id, times)| Some((Some(*id), longest_stretch(times, end)?)));
        let silences = shards.chain([all]).map(|(shard, (since, length))| Silence {
            shard,
            since,
            length,
        });
        silences.max_by_key(|silence| silence.length)
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (length, since) = (seconds(self.length), seconds(self.since));
        write!(
            f,
            "nothing was committed for {length:.3} s from {since:.3} s on"
        )?;
        match self.shard {
            Some(shard) => write!(f, " in {shard}"),
            None => Ok(()),
        }
    }
}

/// The longest time without a commit from the first one until `end`, as its
/// begin and its length.
fn longest_stretch(commits: &[u64], end: u64) -> Option<(u64, u64)> {
    let first = *commits.first().filter(|first| **first < end)?;
    let inside = commits.iter().copied().take_while(|at| *at < end);
    let mut before = first;
    let mut longest = (first, 0);
    for at in inside.chain([end]) {
        if at - before > longest.1 {
            longest = (before, at - before);
        }
        before = at;
    }
    Some(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_easy_to_type() {
        for (index, scenario) in Scenario::ALL.iter().enumerate() {
            let easy = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(scenario.name.chars().all(easy), "{}", scenario.name);
            let first = Scenario::ALL.iter().position(|s| s.name == scenario.name);
            assert_eq!(first, Some(index));
            assert!(scenario.about.ends_with('.'), "{}", scenario.name);
        }
    }

    #[test]
    fn every_plan_is_within_its_run() {
        for scenario in Scenario::ALL {
            for seed in 1..30 {
                let recipe = crate::sim::Recipe::of_scenario(scenario, seed);
                assert!(!recipe.plan.is_empty());
                let text = recipe.write().expect("text");
                crate::sim::Recipe::read(&text).expect(scenario.name);
                let end = recipe.config.active();
                assert!(recipe.plan.iter().all(|p| p.at < end), "{}", scenario.name);
                assert!(recipe.plan.is_sorted_by_key(|p| p.at));
            }
        }
    }

    #[test]
    fn a_shard_that_is_silent_is_found() {
        let (mut config, _) = Scenario::ALL[0].build(1);
        config.phases.truncate(1);
        config.phases[0].until = 1_000;
        config.phases.push(crate::sim::Phase {
            until: 10_000,
            think: None,
            fault_every: 0,
        });
        let all: Vec<u64> = (0..10_000).collect();
        let silent = all.iter().copied().filter(|t| !(4_000..6_000).contains(t));
        let seldom = vec![1, 9_000];
        let times = CommitTimes {
            shards: vec![
                (GroupId(2), silent.collect()),
                (GroupId(3), all.clone()),
                (GroupId(4), seldom),
            ],
            all,
        };
        let silence = Silence::longest(&times, &config, 500).expect("commits");
        assert_eq!(silence.shard, Some(GroupId(2)));
        assert_eq!((silence.since, silence.length), (3_999, 2_001));
        assert_eq!(
            Silence::longest(&CommitTimes::default(), &config, 500),
            None
        );
    }

    #[test]
    fn stretches_are_measured_to_the_end() {
        assert_eq!(longest_stretch(&[], 10), None);
        assert_eq!(longest_stretch(&[11], 10), None);
        assert_eq!(longest_stretch(&[1, 2, 5, 6, 20], 8), Some((2, 3)));
        assert_eq!(longest_stretch(&[1, 2], 10), Some((2, 8)));
    }
}
