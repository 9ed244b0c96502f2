//! What each seed of the simulator costs: where a sweep's wall time goes.
//!
//! ```sh
//! cargo run --release -p synod-harness --no-default-features --bin seeds -- 1 240
//! ```

use synod_harness::sim::{Recipe, RunOptions};

/// What this thread has had of a processor.
fn cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split(' ').next();
    first.and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|a| a.parse::<u64>());
    let mut number = |default| numbers.next().and_then(Result::ok).unwrap_or(default);
    let (first, seeds) = (number(1), number(240));
    println!(
        "seed wall_ms commits unknown aborted events sim_ms active_ms sites nodes replicas shards clients think lease_ms faults trace"
    );
    for seed in first..first + seeds {
        let recipe = Recipe::new(None, seed);
        let started = cpu_nanos();
        let report = recipe.run(RunOptions::default());
        let wall = (cpu_nanos() - started) as f64 / 1e6;
        let c = &recipe.config;
        println!(
            "{seed} {wall:.1} {} {} {} {} {:.0} {:.0} {} {} {} {} {} {} {} {} {:016x}",
            report.commits,
            report.unknown,
            report.aborted,
            report.events,
            report.simulated as f64 / 1e6,
            c.active() as f64 / 1e6,
            c.sites,
            c.nodes(),
            c.replicas,
            c.shards,
            c.clients,
            c.phases.len(),
            c.lease / 1_000_000,
            report.fault_count(),
            report.trace,
        );
        for violation in &report.violations {
            eprintln!("seed {seed}: {violation}");
        }
    }
}
