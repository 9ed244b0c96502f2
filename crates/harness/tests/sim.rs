//! A bounded sweep of seeds over the simulated cluster. `SYNOD_SIM_SEEDS` sets
//! how many, `SYNOD_SIM_FIRST` where they begin.

use synod_harness::sim::{SimConfig, run};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

#[test]
fn a_sweep_finds_no_violation() {
    let first = setting("SYNOD_SIM_FIRST", 1);
    let count = setting("SYNOD_SIM_SEEDS", 40);
    let (mut commits, mut unknown, mut faults) = (0, 0, 0);
    let mut failed = Vec::new();
    for seed in first..first + count {
        let config = SimConfig::from_seed(seed);
        let started = std::time::Instant::now();
        let report = run(&config);
        if std::env::var_os("SYNOD_SIM_VERBOSE").is_some() {
            println!("seed {seed}: {:?} {report:?}", started.elapsed());
        }
        commits += report.commits;
        unknown += report.unknown;
        faults += report.faults;
        if !report.violations.is_empty() {
            println!("seed {seed}: {config:?}");
            for violation in &report.violations {
                println!("  {violation}");
            }
            failed.push(seed);
        }
    }
    println!("{count} seeds: {commits} commits, {unknown} unknown, {faults} faults");
    assert!(
        failed.is_empty(),
        "violations in seeds {failed:?}; replay one with \
         SYNOD_SIM_FIRST=<seed> SYNOD_SIM_SEEDS=1 cargo test -p synod-harness --test sim"
    );
    assert!(
        commits > 0,
        "nothing was committed: the sweep proves nothing"
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let config = SimConfig::from_seed(7);
    let (a, b) = (run(&config), run(&config));
    assert_eq!(a.trace, b.trace);
    assert_eq!(a.commits, b.commits);
}
