//! What a commit costs, in numbers that are the same on every machine: syncs,
//! frames and messages between nodes, bytes, allocations, turns until the answer.
//!
//! Each has a budget. A change that makes one dearer than that fails here; one
//! that makes it much cheaper fails too, and lowers the budget, so that the gain is
//! kept. `cargo test -p synod-kv --test cost -- --nocapture` prints the table.

mod allocator;
mod clients;
mod nodes;

use clients::{Clients, Workload};
use nodes::{Nodes, Spent};

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

/// How far a count may be from its budget.
const TOLERANCE: f64 = 0.05;

/// Of all nodes together, per commit.
struct Budget {
    name: &'static str,
    workload: Workload,
    shards: u64,
    clients: u64,
    /// Commits that are counted.
    commits: u64,
    syncs: f64,
    frames: f64,
    messages: f64,
    bytes: f64,
    log_bytes: f64,
    allocations: f64,
    allocated: f64,
    /// Turns of the lock step from the request to the answer: hops and syncs.
    turns: f64,
}

fn measure(budget: &Budget) -> (Spent, f64, f64) {
    let mut nodes = Nodes::start(budget.shards);
    let mut clients = Clients::new(&nodes, budget.clients, budget.workload);
    // Vectors have their size, routes their terms, memories their entries.
    clients.run(&mut nodes, budget.commits / 2);
    let (before, turns) = (nodes.spent(), clients.turns);
    let commits = clients.committed;
    clients.run(&mut nodes, budget.commits);
    let commits = (clients.committed - commits) as f64;
    let turns = (clients.turns - turns) as f64;
    (nodes.spent() - before, commits, turns / commits)
}

#[test]
fn a_commit_costs_what_it_may() {
    let budgets = [
        Budget {
            name: "put, 1 client",
            workload: Workload::Put,
            shards: 3,
            clients: 1,
            commits: 4_000,
            syncs: 3.02,
            frames: 4.26,
            messages: 4.27,
            bytes: 476.6,
            log_bytes: 793.2,
            allocations: 150.9,
            allocated: 26_896.0,
            turns: 4.0,
        },
        Budget {
            name: "put, 64 clients",
            workload: Workload::Put,
            shards: 3,
            clients: 64,
            commits: 4_000,
            syncs: 0.09375,
            frames: 0.1875,
            messages: 0.19,
            bytes: 405.3,
            log_bytes: 609.8,
            allocations: 39.6,
            allocated: 8093.0,
            turns: 4.0,
        },
        Budget {
            name: "two shards, 1 client",
            workload: Workload::Across(2),
            shards: 2,
            clients: 1,
            commits: 4_000,
            syncs: 5.02,
            frames: 10.3,
            messages: 12.41,
            bytes: 2036.9,
            log_bytes: 2569.5,
            allocations: 400.5,
            allocated: 69_106.0,
            turns: 5.0,
        },
        Budget {
            name: "two shards, 64 clients",
            workload: Workload::Across(2),
            shards: 2,
            clients: 64,
            commits: 4_000,
            syncs: 0.0785,
            frames: 0.1565,
            messages: 4.13,
            bytes: 1883.5,
            log_bytes: 2243.3,
            allocations: 165.6,
            allocated: 31_689.0,
            turns: 5.0,
        },
        Budget {
            name: "50 shards, 1 client",
            workload: Workload::Across(50),
            shards: 50,
            clients: 1,
            commits: 100,
            syncs: 6.0,
            frames: 16.36,
            messages: 341.0,
            bytes: 57_309.0,
            log_bytes: 64_536.0,
            allocations: 5_652.0,
            allocated: 1_305_335.0,
            turns: 5.0,
        },
    ];
    let mut wrong = Vec::new();
    for budget in budgets {
        let (spent, commits, turns) = measure(&budget);
        let rows = [
            ("syncs", spent.syncs as f64 / commits, budget.syncs),
            ("frames", spent.frames as f64 / commits, budget.frames),
            ("messages", spent.messages as f64 / commits, budget.messages),
            ("bytes", spent.bytes as f64 / commits, budget.bytes),
            (
                "log bytes",
                spent.log_bytes as f64 / commits,
                budget.log_bytes,
            ),
            (
                "allocations",
                spent.allocations as f64 / commits,
                budget.allocations,
            ),
            (
                "allocated",
                spent.allocated as f64 / commits,
                budget.allocated,
            ),
            ("turns", turns, budget.turns),
        ];
        for (what, seen, wanted) in rows {
            println!(
                "{:<28}{what:<12}{seen:>10.2}  budget {wanted:>9.2}",
                budget.name
            );
            // Assertions and unoptimised code allocate as they like: `.ci/run` counts
            // allocations in a release build.
            let judged = !(cfg!(debug_assertions) && what.starts_with("allocat"));
            if judged && (seen - wanted).abs() > TOLERANCE * wanted {
                wrong.push(format!(
                    "{}: {what} {seen:.2}, budget {wanted:.2}",
                    budget.name
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "per commit, over all nodes:\n{}",
        wrong.join("\n")
    );
}
