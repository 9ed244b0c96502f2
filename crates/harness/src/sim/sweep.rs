//! Many seeds, on several threads, and what they found together.

use super::fault::Kind;
use super::replay::Recipe;
use super::report::{Report, Violation, Wrong};
use super::run::RunOptions;
use super::scenario::Scenario;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use synod_probe::{Mark, Mutation};

/// What to sweep.
#[derive(Clone, Debug)]
pub struct SweepOptions {
    /// The first seed.
    pub first: u64,
    /// How many, at most.
    pub seeds: u64,
    /// Seeds run side by side.
    pub threads: usize,
    /// No seed is begun after this long.
    pub time: Option<Duration>,
    /// Every so many seeds are run twice, and must do the same; 0 = none.
    pub twice_every: u64,
    /// Failing seeds after which the sweep ends.
    pub failures: usize,
    /// The scenario to run with each seed; none = what the seed makes of it.
    pub scenario: Option<&'static Scenario>,
    /// The breach of a rule to run with.
    pub mutation: Option<Mutation>,
}

impl Default for SweepOptions {
    fn default() -> SweepOptions {
        SweepOptions {
            first: 1,
            seeds: 100,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            time: None,
            twice_every: 20,
            failures: 5,
            scenario: None,
            mutation: None,
        }
    }
}

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What it found.
    pub violations: Vec<Violation>,
}

/// What a sweep did and found.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// Seeds run.
    pub seeds: u64,
    /// Transactions committed.
    pub commits: u64,
    /// Transactions with unknown outcome.
    pub unknown: u64,
    /// Transactions aborted for good.
    pub aborted: u64,
    /// Faults by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// Simulated time; nanoseconds.
    pub simulated: u64,
    /// Events processed.
    pub events: u64,
    /// Nodes that damage kept out.
    pub lost_nodes: u64,
    /// Time spent running seeds, over all threads.
    pub busy: Duration,
    /// How often each mark was passed.
    pub marks: BTreeMap<Mark, u64>,
    /// Seeds that failed, ascending.
    pub failures: Vec<Failure>,
}

impl Sweep {
    /// Commits per second and core.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.commits as f64 / self.busy.as_secs_f64().max(1e-9)
    }

    /// Marks that no seed passed.
    #[must_use]
    pub fn never_hit(&self) -> Vec<Mark> {
        let hit = |mark: &&Mark| self.marks.get(mark).is_none_or(|count| *count == 0);
        Mark::ALL.iter().filter(hit).copied().collect()
    }

    fn add(&mut self, seed: u64, report: Report, busy: Duration) {
        self.seeds += 1;
        self.commits += report.commits;
        self.unknown += report.unknown;
        self.aborted += report.aborted;
        self.simulated += report.simulated;
        self.events += report.events;
        self.lost_nodes += report.lost_nodes;
        self.busy += busy;
        for (kind, count) in report.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (mark, count) in synod_probe::hits() {
            *self.marks.entry(mark).or_default() += count;
        }
        if !report.violations.is_empty() {
            let violations = report.violations;
            self.failures.push(Failure { seed, violations });
            self.failures.sort_by_key(|f| f.seed);
        }
    }
}

fn run_seed(seed: u64, options: &SweepOptions) -> Report {
    let recipe = Recipe::new(options.scenario, seed);
    let mut report = recipe.run(RunOptions::default());
    if options.twice_every > 0 && seed.is_multiple_of(options.twice_every) {
        let again = recipe.run(RunOptions::default());
        if again.trace != report.trace || again.commits != report.commits {
            report.violations.push(Violation {
                wrong: Wrong::Harness,
                rule: "determinism".to_owned(),
                at: None,
                text: format!(
                    "two runs of the seed differ: traces {:016x} and {:016x}",
                    report.trace, again.trace
                ),
            });
        }
    }
    report
}

/// Runs many seeds. `progress` is called after each one.
pub fn sweep(options: &SweepOptions, progress: &(dyn Fn(&Sweep) + Sync)) -> Sweep {
    let began = Instant::now();
    let next = AtomicU64::new(options.first);
    let enough = AtomicBool::new(false);
    let found = Mutex::new(Sweep::default());
    let work = || {
        synod_probe::mutate(options.mutation);
        loop {
            let late = options.time.is_some_and(|time| began.elapsed() > time);
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if late || enough.load(Ordering::Relaxed) || seed >= options.first + options.seeds {
                break;
            }
            let started = Instant::now();
            let report = run_seed(seed, options);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.add(seed, report, started.elapsed());
            if found.failures.len() >= options.failures {
                enough.store(true, Ordering::Relaxed);
            }
            progress(&found);
        }
        synod_probe::mutate(None);
    };
    std::thread::scope(|scope| {
        for _ in 1..options.threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}
