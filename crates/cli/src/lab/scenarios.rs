//! `synod lab scenarios`: what there is.

use crate::exit::{Failure, Status};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::json;
use synod_harness::sim::Scenario;

/// Columns of the table.
const WIDTH: u16 = 100;

/// `synod lab scenarios …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod lab scenarios
  synod lab sim --scenario overheating --seeds 10

Each scenario makes a cluster of several sites from a seed, loads it, breaks it as it says, and
adds a little noise. Beyond the rules it demands that commits go on in every shard, but for the
time of a few failovers.")]
pub struct Args {
    /// Print one JSON object per scenario
    #[arg(long)]
    json: bool,
}

/// Prints them.
pub fn run(args: &Args) -> Result<Status, Failure> {
    if args.json {
        for scenario in Scenario::ALL {
            println!(
                "{}",
                json!({"name": scenario.name, "about": scenario.about})
            );
        }
        return Ok(Status::Done);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(WIDTH);
    table.set_header(["SCENARIO", "WHAT HAPPENS"]);
    for scenario in Scenario::ALL {
        table.add_row([scenario.name, scenario.about]);
    }
    println!("{}", table.trim_fmt());
    Ok(Status::Done)
}
