//! `synod lab check`: our checkers on a history from anywhere.

use super::read_text;
use crate::exit::{Failure, Status};
use serde_json::json;
use std::path::PathBuf;
use synod_harness::check::{Anomaly, check_any};
use synod_harness::edn::{AnyHistory, MAX_TEXT, read_history};

/// `synod lab check …`
#[derive(Debug, clap::Args)]
#[command(after_help = format!(
    "Example:
  synod lab check history.edn
  synod lab sim --seed 42 --export history.edn && synod lab check history.edn --json

A history is a text of one event per line, in Jepsen's EDN form or as JSON of the same shape:
  {{:index 0, :type :invoke, :f :txn, :process 3, :time 12, :value [[:append 5 1] [:r 5 nil]]}}
  {{:index 1, :type :ok, :f :txn, :process 3, :time 34, :value [[:append 5 1] [:r 5 [1]]]}}
:fail had no effect, :info may have had one. Registers write [:w 5 1] and read [:r 5 1]. It is
checked for strict serializability, for what each client saw, and, where :ok events carry a
:timestamp, for the timestamps' order.

{}",
    super::STATUSES
))]
pub struct Args {
    /// The file; - is standard input
    history: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Reads, checks, prints.
pub fn run(args: &Args) -> Result<Status, Failure> {
    let name = args.history.display();
    let text = read_text(&args.history, MAX_TEXT)?;
    let history = read_history(&text)
        .map_err(|error| Failure::input(format!("{name} is no history: {error}")))?;
    if history.is_empty() {
        return Err(Failure::input(format!(
            "{name} has no transactions: there is nothing to check. Give a file with one event per \
             line; `synod lab check --help` shows two"
        )));
    }
    let kind = match &history {
        AnyHistory::Lists(_) => "list-append",
        AnyHistory::Registers(_) => "registers",
    };
    let findings = check_any(&history);
    if args.json {
        let object = json!({
            "kind": kind,
            "transactions": history.len(),
            "violations": findings.total,
            "violations_found": findings.violations,
        });
        println!("{object}");
    } else {
        println!("{name}: {kind}, {} transactions", history.len());
        for violation in &findings.violations {
            println!("\n{violation}");
        }
        if findings.is_clean() {
            println!("strictly serializable: nothing is wrong");
        }
    }
    if findings.is_clean() {
        return Ok(Status::Done);
    }
    let bad = |v: &synod_harness::check::Violation| v.anomaly == Anomaly::BadHistory;
    if findings.violations.iter().all(bad) {
        return Err(Failure::input(format!(
            "{name} cannot be checked: clients did what makes it ambiguous; see above"
        )));
    }
    let message = format!("{name}: {} violations; see above", findings.total);
    Err(Failure::new(Status::Safety, message))
}
