//! From a run that fails to a smaller one that fails in the same way.
//!
//! Faults are cut by delta debugging (Zeller and Hildebrandt, "Simplifying and
//! isolating failure-inducing input", 2002), then sizes and chances one by one,
//! again and again until nothing more can go. A smaller run draws other numbers,
//! so what it has in common with the first is the broken rule, no more.

use super::config::{SECOND, SimConfig};
use super::fault::Planned;
use super::replay::Recipe;
use super::report::{Violation, Wrong};
use super::run::RunOptions;

/// A shrunk run.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What remains.
    pub recipe: Recipe,
    /// What it finds.
    pub violation: Violation,
    /// Runs that were tried.
    pub runs: u64,
    /// Of those, how many failed in the same way.
    pub kept: u64,
}

/// Whether two violations are of one kind and one rule.
fn same(a: &Violation, b: &Violation) -> bool {
    a.wrong == b.wrong && (a.rule == b.rule || a.wrong == Wrong::Crash)
}

/// Cuts a run that fails with `violation`. At most `most` runs are tried; `progress`
/// is called after each with what is left. Equal arguments give equal results.
pub fn shrink(
    recipe: &Recipe,
    violation: &Violation,
    most: u64,
    progress: &mut dyn FnMut(&Shrunk),
) -> Shrunk {
    shrink_by(recipe, violation, most, progress, &mut |recipe| {
        recipe.run(RunOptions::default()).violations
    })
}

/// As [`shrink`], with a run of the caller's.
fn shrink_by(
    recipe: &Recipe,
    violation: &Violation,
    most: u64,
    progress: &mut dyn FnMut(&Shrunk),
    run: &mut dyn FnMut(&Recipe) -> Vec<Violation>,
) -> Shrunk {
    let mut shrinker = Shrinker {
        most,
        progress,
        run,
        best: Shrunk {
            recipe: recipe.clone(),
            violation: violation.clone(),
            runs: 0,
            kept: 0,
        },
    };
    shrinker.go();
    shrinker.best
}

struct Shrinker<'a> {
    most: u64,
    progress: &'a mut dyn FnMut(&Shrunk),
    run: &'a mut dyn FnMut(&Recipe) -> Vec<Violation>,
    best: Shrunk,
}

impl Shrinker<'_> {
    fn go(&mut self) {
        // Each round that keeps nothing is the last; sizes only fall, so that rounds end.
        loop {
            let before = self.best.kept;
            self.forget_later();
            self.faults();
            self.lengths();
            self.sizes();
            self.chances();
            if self.best.kept == before || self.is_over() {
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.best.runs >= self.most
    }

    /// Tries a smaller run; keeps it if it fails in the same way.
    fn try_(&mut self, recipe: Recipe) -> bool {
        if self.is_over() {
            return false;
        }
        self.best.runs += 1;
        let violations = (self.run)(&recipe);
        let wanted = &self.best.violation;
        let found = violations.into_iter().find(|v| same(v, wanted));
        let fails = found.is_some();
        if let Some(violation) = found {
            self.best.recipe = recipe;
            self.best.violation = violation;
            self.best.kept += 1;
        }
        (self.progress)(&self.best);
        fails
    }

    fn try_plan(&mut self, plan: Vec<Planned>) -> bool {
        let recipe = Recipe {
            plan,
            ..self.best.recipe.clone()
        };
        self.try_(recipe)
    }

    fn try_config(&mut self, change: impl FnOnce(&mut SimConfig)) -> bool {
        let mut recipe = self.best.recipe.clone();
        change(&mut recipe.config);
        let (clients, end) = (recipe.config.clients, recipe.config.active());
        recipe.plan.retain(|planned| {
            let client = planned.fault.names().client;
            planned.at < end && client.is_none_or(|c| c < clients)
        });
        self.try_(recipe)
    }

    /// Faults that came after the violation had no part in it.
    fn forget_later(&mut self) {
        if let (Wrong::Safety | Wrong::Crash, Some(at)) =
            (self.best.violation.wrong, self.best.violation.at)
        {
            let mut plan = self.best.recipe.plan.clone();
            plan.retain(|planned| planned.at <= at);
            if plan.len() < self.best.recipe.plan.len() {
                self.try_plan(plan);
            }
        }
    }

    fn faults(&mut self) {
        let plan = self.best.recipe.plan.clone();
        minimize(plan, &mut |plan| self.try_plan(plan.to_vec()));
    }

    /// The faults end earlier.
    fn lengths(&mut self) {
        let end = self.best.recipe.config.active();
        for eighths in [1, 2, 4, 6, 7] {
            let until = end / 8 * eighths;
            if until >= SECOND && self.try_config(|config| cut(config, until)) {
                break;
            }
        }
        for phase in (0..self.best.recipe.config.phases.len()).rev() {
            let phases = self.best.recipe.config.phases.len();
            if phases > 1 && phase + 1 < phases {
                self.try_config(|config| {
                    config.phases.remove(phase);
                });
            }
        }
    }

    fn sizes(&mut self) {
        type Size = fn(&mut SimConfig) -> &mut usize;
        let sizes: [Size; 2] = [|c| &mut c.clients, |c| &mut c.shards];
        for size in sizes {
            loop {
                let now = *size(&mut self.best.recipe.config.clone());
                let mut smaller = [1, now / 4, now / 2, now - 1].into_iter();
                let mut less = |s: usize| s > 0 && s < now && self.try_config(|c| *size(c) = s);
                if !smaller.any(&mut less) {
                    break;
                }
            }
        }
    }

    fn chances(&mut self) {
        type Chance = fn(&mut SimConfig) -> &mut u64;
        let chances: [Chance; 5] = [
            |c| &mut c.loss,
            |c| &mut c.quiet_loss,
            |c| &mut c.duplication,
            |c| &mut c.clock_offset,
            |c| &mut c.clock_rate,
        ];
        for chance in chances {
            if *chance(&mut self.best.recipe.config.clone()) > 0 {
                self.try_config(|config| *chance(config) = 0);
            }
        }
        if self.best.recipe.config.reordering {
            self.try_config(|config| config.reordering = false);
        }
    }
}

/// Ends all phases at `until`.
fn cut(config: &mut SimConfig, until: u64) {
    let begun = |index: usize| index == 0 || config.phases[index - 1].until < until;
    let keep = (0..config.phases.len()).filter(|i| begun(*i)).count();
    config.phases.truncate(keep);
    if let Some(last) = config.phases.last_mut() {
        last.until = last.until.min(until);
    }
}

/// The least part of `items` that still fails, as far as single cuts and cuts
/// of chunks lead there (*ddmin*). `fails` says of a part whether it does; the
/// empty one is tried first.
pub fn minimize<T: Clone>(mut items: Vec<T>, fails: &mut dyn FnMut(&[T]) -> bool) -> Vec<T> {
    if items.is_empty() || fails(&[]) {
        return Vec::new();
    }
    let mut chunks = 2;
    while items.len() > 1 {
        let size = items.len().div_ceil(chunks);
        let cut = (0..items.len()).step_by(size).find_map(|from| {
            let to = (from + size).min(items.len());
            let rest = [&items[..from], &items[to..]].concat();
            (!rest.is_empty() && fails(&rest)).then_some(rest)
        });
        if let Some(rest) = cut {
            items = rest;
            chunks = chunks.saturating_sub(1).max(2);
        } else if size == 1 {
            break;
        } else {
            chunks = (chunks * 2).min(items.len());
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Fault, Scenario};

    #[test]
    fn the_least_failing_part_is_found() {
        for wanted in [vec![3], vec![1, 77], vec![0, 50, 51, 99], Vec::new()] {
            let mut runs = 0;
            let all: Vec<u32> = (0..100).collect();
            let least = minimize(all, &mut |part| {
                runs += 1;
                wanted.iter().all(|w| part.contains(w))
            });
            assert_eq!(least, wanted);
            assert!(runs < 200, "{runs}");
        }
        assert_eq!(
            minimize(Vec::<u32>::new(), &mut |_| true),
            Vec::<u32>::new()
        );
    }

    fn wrong(rule: &str) -> Violation {
        Violation {
            wrong: Wrong::Safety,
            rule: rule.to_owned(),
            at: None,
            text: String::new(),
        }
    }

    /// Fails while one certain fault is there and there are three clients.
    fn run(needed: &Planned, recipe: &Recipe) -> Vec<Violation> {
        let found = recipe.plan.contains(needed) && recipe.config.clients >= 3;
        let other = recipe.config.clients < 3;
        [found.then(|| wrong("P7")), other.then(|| wrong("L1"))]
            .into_iter()
            .flatten()
            .collect()
    }

    #[test]
    fn only_what_is_needed_remains() {
        let recipe = (1..)
            .map(Recipe::of_seed)
            .find(|r| r.plan.len() > 10 && r.config.clients > 10)
            .expect("a seed with faults");
        let needed = recipe.plan[5].clone();
        let mut steps = 0;
        let mut progress = |_: &Shrunk| steps += 1;
        let mut run = |recipe: &Recipe| run(&needed, recipe);
        let shrunk = shrink_by(&recipe, &wrong("P7"), 500, &mut progress, &mut run);
        assert_eq!(shrunk.recipe.plan, vec![needed.clone()]);
        assert_eq!(shrunk.recipe.config.clients, 3);
        assert_eq!(shrunk.recipe.config.shards, 1);
        assert_eq!(shrunk.recipe.config.loss, 0);
        assert_eq!(shrunk.recipe.config.phases.len(), 1);
        assert_eq!(shrunk.violation.rule, "P7");
        assert_eq!(steps, shrunk.runs);
    }

    /// A real run: with the disks of all nodes stalled nothing is ever committed.
    #[test]
    fn a_real_run_is_shrunk() {
        let scenario = Scenario::find("machine-loss").expect("a scenario");
        let mut recipe = Recipe::of_scenario(scenario, 3);
        recipe.config.clients = 3;
        let until = 12 * SECOND;
        recipe.config.phases.truncate(2);
        recipe.config.phases[1].until = until;
        recipe.plan.retain(|planned| planned.at < until);
        let stall = |node| Planned {
            at: 3 * SECOND,
            fault: Fault::DiskStall {
                node,
                lasts: 8 * SECOND,
            },
        };
        recipe.plan.extend((0..recipe.config.nodes()).map(stall));
        let report = recipe.run(RunOptions::default());
        let violation = report.violations.first().expect("a violation");
        assert_eq!(violation.rule, "availability");
        let shrunk = shrink(&recipe, violation, 12, &mut |_| {});
        assert!(shrunk.kept > 0 && shrunk.runs <= 12, "{shrunk:?}");
        assert!(shrunk.recipe.plan.len() < recipe.plan.len());
        let again = shrunk.recipe.run(RunOptions::default());
        assert!(again.violations.contains(&shrunk.violation));
    }

    #[test]
    fn the_number_of_runs_is_bounded() {
        let recipe = Recipe::of_seed(7);
        let mut run = |_: &Recipe| Vec::new();
        let shrunk = shrink_by(&recipe, &wrong("P7"), 5, &mut |_| {}, &mut run);
        assert!(shrunk.runs <= 5);
        assert_eq!(shrunk.kept, 0);
        assert_eq!(shrunk.recipe.plan, recipe.plan);
    }
}
