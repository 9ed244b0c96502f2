//! A run as a value: what it is made of, so that it can be done again, kept in a
//! file, cut down and sent to somebody else.

use super::config::{SECOND, SimConfig};
use super::fault::{Fault, Planned};
use super::plan::plan;
use super::report::Report;
use super::run::{RunOptions, run_caught};
use super::scenario::Scenario;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use thiserror::Error;

/// A recipe's text longer than this many bytes is refused.
pub const MAX_RECIPE: usize = 16 << 20;
const MOST_FAULTS: usize = 100_000;
const MOST_NODES: usize = 64;
const MOST_SHARDS: usize = 200;
/// As many as have numbers of their own.
const MOST_CLIENTS: usize = 1_000;
/// The longest time in a recipe, nanoseconds: a simulated week.
const LONGEST: u64 = 7 * 24 * 3_600 * SECOND;

/// Everything a run is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The scenario whose expectations must be met too.
    pub scenario: Option<String>,
    /// Sizes, timings and chances.
    pub config: SimConfig,
    /// What goes wrong, and when.
    pub plan: Vec<Planned>,
}

/// Why a text is no recipe.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecipeError {
    /// It is too long.
    #[error("it has {bytes} bytes, more than the limit of {MAX_RECIPE}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It cannot be read: not JSON, or of another build's form.
    #[error("{problem}; only runs saved by this version of the program can be replayed")]
    Form {
        /// What is wrong, and where.
        problem: String,
    },
    /// No scenario has this name.
    #[error("no scenario is called `{name}`; `synod lab scenarios` lists them")]
    Scenario {
        /// The name.
        name: String,
    },
    /// A number is out of its range.
    #[error("{what} is {value}, not within {least} to {most}")]
    Range {
        /// What it is the number of.
        what: &'static str,
        /// The number.
        value: u64,
        /// The least that is possible.
        least: u64,
        /// The most that is possible.
        most: u64,
    },
}

impl Recipe {
    /// The run that is derived from a seed alone.
    #[must_use]
    pub fn of_seed(seed: u64) -> Recipe {
        let config = SimConfig::from_seed(seed);
        Recipe {
            scenario: None,
            plan: plan(&config),
            config,
        }
    }

    /// A scenario's run for a seed.
    #[must_use]
    pub fn of_scenario(scenario: &Scenario, seed: u64) -> Recipe {
        let (config, plan) = scenario.build(seed);
        Recipe {
            scenario: Some(scenario.name.to_owned()),
            config,
            plan,
        }
    }

    /// Of a seed, within a scenario if there is one.
    #[must_use]
    pub fn new(scenario: Option<&Scenario>, seed: u64) -> Recipe {
        match scenario {
            Some(scenario) => Recipe::of_scenario(scenario, seed),
            None => Recipe::of_seed(seed),
        }
    }

    /// Runs it, and holds it against its scenario's expectations as well.
    #[must_use]
    pub fn run(&self, options: RunOptions) -> Report {
        let scenario = self.scenario.as_deref().and_then(Scenario::find);
        let histories = options.histories || scenario.is_some();
        let mut report = run_caught(
            &self.config,
            &self.plan,
            RunOptions {
                histories,
                ..options
            },
        );
        if let Some(scenario) = scenario {
            scenario.judge(&self.config, &mut report);
        }
        report
    }

    /// The arguments of `synod lab sim` that run it again, if it is as its seed made it.
    #[must_use]
    pub fn arguments(&self) -> String {
        let seed = self.config.seed;
        match &self.scenario {
            Some(name) => format!("--scenario {name} --seed {seed}"),
            None => format!("--seed {seed}"),
        }
    }

    /// As JSON, to be kept in a file.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn write(&self) -> Result<String, RecipeError> {
        serde_json::to_string_pretty(self).map_err(|e| RecipeError::Form {
            problem: e.to_string(),
        })
    }

    /// Reads what [`Recipe::write`] wrote, or what somebody made of it.
    ///
    /// # Errors
    /// Why it is no run.
    pub fn read(text: &str) -> Result<Recipe, RecipeError> {
        if text.len() > MAX_RECIPE {
            return Err(RecipeError::TooLong { bytes: text.len() });
        }
        let recipe: Recipe = serde_json::from_str(text).map_err(|e| RecipeError::Form {
            problem: e.to_string(),
        })?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Whether it can be run: every number is one that the simulator can work with.
    fn check(&self) -> Result<(), RecipeError> {
        if let Some(name) = &self.scenario
            && Scenario::find(name).is_none()
        {
            return Err(RecipeError::Scenario { name: name.clone() });
        }
        let c = &self.config;
        range("sites", c.sites, 1, MOST_NODES)?;
        range("racks", c.racks, 1, MOST_NODES)?;
        range("nodes_per_rack", c.nodes_per_rack, 1, MOST_NODES)?;
        let per_site = c.racks * c.nodes_per_rack;
        range("the number of nodes", c.sites * per_site, 1, MOST_NODES)?;
        range("replicas", c.replicas, 1, c.nodes().min(9))?;
        range("shards", c.shards, 1, MOST_SHARDS)?;
        range("clients", c.clients, 1, MOST_CLIENTS)?;
        range("the number of phases", c.phases.len(), 1, 1_000)?;
        let mut before = 0;
        for phase in &c.phases {
            within("a phase's end", phase.until, before + 1, LONGEST)?;
            before = phase.until;
            within("a phase's think", phase.think.unwrap_or(0), 0, LONGEST)?;
        }
        let times = [
            ("quiet", c.quiet),
            ("near", c.near),
            ("far", c.far),
            ("sync", c.sync),
            ("turn", c.turn),
            ("engine", c.engine),
            ("clock_offset", c.clock_offset),
            ("lease", c.lease),
            ("election", c.election),
            ("staged_timeout", c.staged_timeout),
            ("session", c.session),
            ("window", c.window),
            ("late", c.late),
            ("stall", c.stall),
            ("retry", c.retry),
        ];
        for (what, time) in times {
            within(what, time, 0, 3_600 * SECOND)?;
        }
        // Timers that repeat: with less than this a run would never get anywhere.
        within("lease", c.lease, 10_000_000, 3_600 * SECOND)?;
        within("session", c.session, 10_000_000, 3_600 * SECOND)?;
        within("stall", c.stall, 10_000_000, 3_600 * SECOND)?;
        within("retry", c.retry, 1_000_000, 3_600 * SECOND)?;
        within("clock_rate", c.clock_rate, 0, 500_000)?;
        within("segment_bytes", c.segment_bytes, 4 << 10, 1 << 30)?;
        within("trim_bytes", c.trim_bytes, 4 << 10, 1 << 30)?;
        range("entry_bytes", c.entry_bytes, 1 << 10, 8 << 20)?;
        range("window_bytes", c.window_bytes, 100, 1 << 30)?;
        range("ended", c.ended, 1, 1 << 20)?;
        range("the number of faults", self.plan.len(), 0, MOST_FAULTS)?;
        self.plan
            .iter()
            .try_for_each(|planned| self.check_fault(planned))
    }

    fn check_fault(&self, planned: &Planned) -> Result<(), RecipeError> {
        within("a fault's time", planned.at, 0, LONGEST)?;
        let named = planned.fault.names();
        for node in named.nodes {
            range("a fault's node", node, 0, self.config.nodes() - 1)?;
        }
        if let Some(client) = named.client {
            range("a fault's client", client, 0, self.config.clients - 1)?;
        }
        for time in named.times {
            within("a fault's length", time, 0, LONGEST)?;
        }
        match &planned.fault {
            Fault::ClockJump { by, .. } | Fault::ClockJumpAll { by } => within(
                "a clock's jump",
                by.unsigned_abs(),
                0,
                365 * 24 * 3_600 * SECOND,
            ),
            Fault::ClockRate { ppm, .. } => {
                within("a clock's rate", ppm.unsigned_abs(), 0, 500_000)
            }
            Fault::Slow { factor, .. } => within("a factor", *factor, 1, 1_000_000),
            Fault::BadLinks { loss, .. } => within("a fault's loss", *loss, 0, 1_000),
            Fault::FlipBits { bits, .. } => within("a fault's bits", *bits, 0, 1_000_000),
            _ => Ok(()),
        }
    }

    /// The configuration and the plan, for people.
    #[must_use]
    pub fn words(&self) -> String {
        let c = &self.config;
        let ms = |nanos: u64| nanos as f64 / 1e6;
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "  {name:<10}{value}");
        };
        line(
            "cluster",
            format!(
                "{} sites x {} racks x {} nodes, {} replicas, {} shards, {} clients",
                c.sites, c.racks, c.nodes_per_rack, c.replicas, c.shards, c.clients
            ),
        );
        line(
            "network",
            format!(
                "one way {:.1} ms near, {:.1} ms far; lost {} in 1000 (afterwards {}), twice {}{}",
                ms(c.near),
                ms(c.far),
                c.loss,
                c.quiet_loss,
                c.duplication,
                if c.reordering { ", reordered" } else { "" }
            ),
        );
        line(
            "nodes",
            format!(
                "turn {:.2} ms, sync {:.0} ms, engine {:.0} ms; segments of {}, trimmed at {} bytes",
                ms(c.turn),
                ms(c.sync),
                ms(c.engine),
                c.segment_bytes,
                c.trim_bytes
            ),
        );
        line(
            "timers",
            format!(
                "lease {:.0} ms, election {:.0} ms, staged {:.0} ms, session {:.0} ms, window {:.0} ms",
                ms(c.lease),
                ms(c.election),
                ms(c.staged_timeout),
                ms(c.session),
                ms(c.window)
            ),
        );
        line(
            "clocks",
            format!(
                "off by {:.0} ms, rates by {} ppm at most",
                ms(c.clock_offset),
                c.clock_rate
            ),
        );
        let phases = c.phases.iter().map(|p| {
            let think = p.think.map_or_else(String::new, |t| {
                format!(" (clients pause {:.1} s)", ms(t) / 1e3)
            });
            format!("to {:.1} s{think}", ms(p.until) / 1e3)
        });
        line("phases", phases.collect::<Vec<_>>().join(", "));
        if !c.themes.is_empty() {
            line("themes", format!("{:?}", c.themes));
        }
        if !c.beyond.is_empty() {
            line("beyond", format!("{:?}", c.beyond));
        }
        out
    }
}

fn within(what: &'static str, value: u64, least: u64, most: u64) -> Result<(), RecipeError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(RecipeError::Range {
        what,
        value,
        least,
        most,
    })
}

fn range(what: &'static str, value: usize, least: usize, most: usize) -> Result<(), RecipeError> {
    within(what, value as u64, least as u64, most as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for seed in 1..50 {
            let recipe = Recipe::of_seed(seed);
            let text = recipe.write().expect("text");
            let read = Recipe::read(&text).expect("a recipe");
            assert_eq!(read.plan, recipe.plan);
            assert_eq!(read.write(), Ok(text));
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let mut recipe = Recipe::of_seed(1);
        recipe.config.sites = 0;
        let text = recipe.write().expect("text");
        assert!(matches!(
            Recipe::read(&text),
            Err(RecipeError::Range { what: "sites", .. })
        ));
        let mut recipe = Recipe::of_seed(1);
        recipe.plan.push(Planned {
            at: 5,
            fault: Fault::Reset { node: 99 },
        });
        let text = recipe.write().expect("text");
        assert!(matches!(
            Recipe::read(&text),
            Err(RecipeError::Range { .. })
        ));
        assert!(matches!(Recipe::read("{"), Err(RecipeError::Form { .. })));
    }

    #[test]
    fn huge_sizes_do_not_overflow() {
        let mut recipe = Recipe::of_seed(1);
        recipe.config.sites = 64;
        recipe.config.racks = usize::MAX;
        let text = recipe.write().expect("text");
        assert!(Recipe::read(&text).is_err());
    }
}
