//! Every named scenario, with a few seeds: the rules, the histories, and that
//! commits go on as each promises. `SYNOD_SCENARIO_SEEDS` sets how many seeds,
//! `SYNOD_SCENARIO` names only one scenario.

use std::time::Instant;
use synod_harness::sim::{Recipe, RunOptions, Scenario, Silence};

fn seeds() -> u64 {
    let given = std::env::var("SYNOD_SCENARIO_SEEDS").ok();
    let default = if cfg!(debug_assertions) { 1 } else { 2 };
    given.and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn holds(name: &str) {
    let only = std::env::var("SYNOD_SCENARIO").ok();
    if only.is_some_and(|only| only != name) {
        return;
    }
    let scenario = Scenario::find(name).expect(name);
    for seed in 1..=seeds() {
        let began = Instant::now();
        let recipe = Recipe::of_scenario(scenario, seed);
        let options = RunOptions {
            lines: 0,
            histories: true,
        };
        let report = recipe.run(options);
        let patience = scenario.patience(&recipe.config);
        let silence = Silence::longest(&report.commit_times, &recipe.config, patience);
        println!(
            "{name} {seed}: {:.1} s for {:.0} simulated, {} commits, {} aborted, {} unknown, \
             {} events, {} of {:.2} s, {:?}",
            began.elapsed().as_secs_f64(),
            report.simulated as f64 / 1e9,
            report.commits,
            report.aborted,
            report.unknown,
            report.events,
            silence.map_or_else(String::new, |silence| silence.to_string()),
            patience as f64 / 1e9,
            report.faults,
        );
        for violation in &report.violations {
            println!("  {violation}");
        }
        assert!(report.violations.is_empty(), "{name}, seed {seed}");
        assert!(
            report.commits > 100,
            "{name}, seed {seed}: too little happened"
        );
    }
}

macro_rules! scenarios {
    ($($(#[$attribute:meta])* $test:ident $name:literal,)+) => {
        $(#[test] $(#[$attribute])* fn $test() { holds($name); })+

        #[test]
        fn each_scenario_has_a_test() {
            let tested = [$($name),+];
            assert!(Scenario::ALL.iter().all(|s| tested.contains(&s.name)));
        }
    };
}

scenarios! {
    #[cfg_attr(debug_assertions, ignore = "minutes in debug builds")]
    overheating "overheating",
    power_unit_loss "power-unit-loss",
    #[cfg_attr(debug_assertions, ignore = "minutes in debug builds")]
    rack_move "rack-move",
    rewiring "rewiring",
    rack_loss "rack-loss",
    rack_instability "rack-instability",
    router_restart "router-restart",
    router_loss "router-loss",
    name_service_flaps "name-service-flaps",
    machine_loss "machine-loss",
    disk_loss "disk-loss",
}
