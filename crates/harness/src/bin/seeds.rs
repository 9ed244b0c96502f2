//! What each seed of the simulator costs: where a sweep's wall time goes.
//!
//! ```sh
//! cargo run --release -p synod-harness --no-default-features --bin seeds -- 1 240
//! ```
//!
//! A theme after the numbers (`Splits`) leaves out the seeds without it.

use synod_harness::sim::{Recipe, RunOptions};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What this thread has had of a processor.
fn cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split(' ').next();
    first.and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| {
        let told = arguments.get(at).and_then(|a| a.parse::<u64>().ok());
        told.unwrap_or(default)
    };
    let (first, seeds) = (number(0, 1), number(1, 240));
    let wanted = arguments.get(2);
    println!(
        "seed wall_ms commits unknown aborted events sim_ms active_ms sites nodes replicas shards clients think lease_ms faults trace"
    );
    for seed in first..first + seeds {
        let recipe = Recipe::new(None, seed);
        let mut themes = recipe.config.themes.iter().map(|t| format!("{t:?}"));
        if wanted.is_some_and(|wanted| themes.all(|theme| theme != *wanted)) {
            continue;
        }
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
