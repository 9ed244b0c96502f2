//! `synod lab`: whole clusters in one thread, from one seed, that are broken in
//! every way; clusters of real processes, broken by a plan; and the checkers, for
//! histories from anywhere.

mod check;
mod failure;
mod progress;
mod run;
mod scenarios;
mod sim;
mod summary;

use crate::exit::{Failure, Status};
use synod_harness::sim::{Violation, Wrong};

/// What the lab's exit statuses mean, for `--help`.
const STATUSES: &str = "Exit status: 0 nothing is wrong, 2 bad arguments or input, 10 safety (a \
promise was broken), 11 liveness (something that must happen did not, within its bound), 12 crash \
(the code under test panicked), 13 the lab itself failed. With several, the lowest.";

/// `synod lab …`
#[derive(Debug, clap::Args)]
#[command(after_help = format!(
    "Example:
  synod lab sim --seeds 200
  synod lab sim --scenario rack-loss --minutes 5
  synod lab sim --seed 42 --trace
  synod lab run router-loss
  synod lab scenarios
  synod lab check history.edn

{STATUSES}"
))]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Run simulated clusters with faults, and check every rule and history
    Sim(Box<sim::Args>),
    /// Run a scenario on real processes in several data centres, and judge it
    Run(run::Args),
    /// List the named scenarios
    Scenarios(scenarios::Args),
    /// Check a history of list-append or register transactions from anywhere
    Check(check::Args),
}

/// Runs one of the lab's commands.
pub fn run(args: &Args) -> Result<Status, Failure> {
    match &args.what {
        What::Sim(args) => sim::run(args),
        What::Run(args) => run::run(args),
        What::Scenarios(args) => scenarios::run(args),
        What::Check(args) => check::run(args),
    }
}

/// The exit status that tells what is wrong: of several, the lowest.
fn status_of<'a>(violations: impl IntoIterator<Item = &'a Violation>) -> Status {
    match violations.into_iter().map(|v| v.wrong).min() {
        None => Status::Done,
        Some(Wrong::Safety) => Status::Safety,
        Some(Wrong::Liveness) => Status::Liveness,
        Some(Wrong::Crash) => Status::Crash,
        Some(Wrong::Harness) => Status::Harness,
    }
}

/// Reads a text file of bounded length, or standard input if its name is `-`.
fn read_text(path: &std::path::Path, most: usize) -> Result<String, Failure> {
    use std::io::Read;
    let name = path.display();
    let refuse = |e: std::io::Error| Failure::input(format!("cannot read {name}: {e}"));
    let file: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(refuse)?)
    };
    let mut bytes = Vec::new();
    // One byte more than allowed, so that what is too long is told as such.
    let most = most as u64 + 1;
    file.take(most).read_to_end(&mut bytes).map_err(refuse)?;
    String::from_utf8(bytes).map_err(|_| Failure::input(format!("{name} is not text (UTF-8)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_the_harness() {
        for wrong in [Wrong::Safety, Wrong::Liveness, Wrong::Crash, Wrong::Harness] {
            let violation = Violation {
                wrong,
                rule: String::new(),
                at: None,
                text: String::new(),
            };
            assert_eq!(status_of([&violation]) as u8, wrong.exit_code());
        }
        assert_eq!(status_of([]), Status::Done);
    }
}
