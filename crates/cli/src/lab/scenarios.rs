//! `synod lab scenarios`: what there is.

use crate::exit::{Failure, Status};
use clap::builder::PossibleValuesParser;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::json;
use synod_harness::lab::{SHIPPED, Shipped};
use synod_harness::sim::Scenario;

/// Columns of the table.
const WIDTH: u16 = 100;

/// `synod lab scenarios …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod lab scenarios
  synod lab sim --scenario overheating --seeds 10
  synod lab run overheating
  synod lab scenarios --print overheating > my-scenario.toml

The failures of a data centre's first year are there twice. `lab sim` makes a cluster of several sites from a seed, in one thread,
loads it, breaks it as the scenario says, and adds a little noise; beyond the rules it demands that
commits go on in every shard, but for the time of a few failovers. `lab run` does the same, once and
shorter, to real processes; what operators do on an ordinary day is there only.")]
pub struct Args {
    /// Print one JSON object per scenario
    #[arg(long)]
    json: bool,
    /// Print the file that `synod lab run` reads of this scenario
    #[arg(long, value_name = "NAME", conflicts_with = "json", hide_possible_values = true,
        value_parser = PossibleValuesParser::new(SHIPPED.iter().map(|s| s.name)))]
    print: Option<String>,
}

/// By whom a scenario is run.
fn run_by(name: &str) -> &'static str {
    match (Scenario::find(name), Shipped::find(name)) {
        (Some(_), Some(_)) => "sim, run",
        (Some(_), None) => "sim",
        (None, _) => "run",
    }
}

/// Prints them.
pub fn run(args: &Args) -> Result<Status, Failure> {
    if let Some(shipped) = args.print.as_deref().and_then(Shipped::find) {
        print!("{}", shipped.text);
        return Ok(Status::Done);
    }
    let mut all: Vec<(&str, String)> = Scenario::ALL
        .iter()
        .map(|s| (s.name, s.about.to_owned()))
        .collect();
    for shipped in SHIPPED
        .iter()
        .filter(|shipped| Scenario::find(shipped.name).is_none())
    {
        let scenario = shipped
            .scenario()
            .map_err(|e| Failure::new(Status::Harness, e))?;
        all.push((shipped.name, scenario.about));
    }
    if args.json {
        for (name, about) in &all {
            let object = json!({
                "name": name,
                "about": about,
                "sim": Scenario::find(name).is_some(),
                "run": Shipped::find(name).is_some(),
            });
            println!("{object}");
        }
        return Ok(Status::Done);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(WIDTH);
    table.set_header(["SCENARIO", "RUN BY", "WHAT HAPPENS"]);
    for (name, about) in &all {
        table.add_row([*name, run_by(name), about.as_str()]);
    }
    println!("{}", table.trim_fmt());
    Ok(Status::Done)
}
