//! Running a whole script.

use super::event::{Event, What};
use super::execute::{Carrier, ExitStatus, Halt, ended, failed, status, step};
use super::expression::Variables;
use super::syntax::{Op, Script, Statement};
use crate::core::lock;
use crate::{AttemptId, Client, Error, Transaction};
use std::sync::Mutex;
use std::time::Instant;

/// Run a script, and tell its events in order. Goes on after an abort; stops
/// at an unknown outcome, and where no cluster answers.
pub async fn run(client: &Client, script: &Script, mut tell: impl FnMut(&Event)) -> ExitStatus {
    let mut variables = Variables::new();
    let mut worst = ExitStatus::Committed;
    let mut rest = &script.statements[..];
    while let Some(first) = rest.first() {
        let length = match first.op {
            Op::Begin { .. } => length_of_transaction(rest),
            _ => 1,
        };
        let (block, after) = rest.split_at(length);
        rest = after;
        let ended = match first.op {
            Op::Begin { read_only } => {
                transaction(client, block, read_only, &mut variables, &mut tell).await
            }
            _ => single(client, first, &mut variables, &mut tell).await,
        };
        worst = worst.max(ended);
        if matches!(ended, ExitStatus::Unknown | ExitStatus::NoCluster) {
            break;
        }
    }
    worst
}

/// The statements up to the end of the transaction; the script was checked.
fn length_of_transaction(statements: &[Statement]) -> usize {
    let ends = |s: &Statement| matches!(s.op, Op::Commit | Op::Rollback { to: None });
    let end = statements.iter().position(ends);
    end.map_or(statements.len(), |end| end + 1)
}

async fn single(
    client: &Client,
    statement: &Statement,
    variables: &mut Variables,
    tell: &mut impl FnMut(&Event),
) -> ExitStatus {
    let begun = Instant::now();
    let line = statement.line;
    match step(Carrier::Client(client), variables, &statement.op).await {
        Ok(what) => {
            tell(&Event { line, what });
            ExitStatus::Committed
        }
        Err(halt) => {
            let what = ended(statement.op.name(), &halt, None, 1, begun.elapsed());
            tell(&Event { line, what });
            status(&halt)
        }
    }
}

/// What an attempt leaves behind.
#[derive(Default)]
struct Traces {
    id: Option<AttemptId>,
    attempts: u32,
    events: Vec<Event>,
    variables: Variables,
    halt: Option<Halt>,
}

/// Try until one attempt commits, then tell what it did.
async fn transaction(
    client: &Client,
    block: &[Statement],
    read_only: bool,
    variables: &mut Variables,
    tell: &mut impl FnMut(&Event),
) -> ExitStatus {
    let begun = Instant::now();
    let Some((last, body)) = block.split_last() else {
        return ExitStatus::Committed;
    };
    let rolls_back = !matches!(last.op, Op::Commit);
    let traces = Mutex::new(Traces::default());
    let before = &*variables;
    let attempt = async |txn: &mut Transaction| {
        let mut now = Traces {
            id: Some(txn.id()),
            attempts: txn.attempts(),
            variables: before.clone(),
            ..Traces::default()
        };
        let result = attempt(txn, body, &mut now).await;
        *lock(&traces) = now;
        match result {
            Ok(()) if rolls_back => Err(Error::application("rollback")),
            result => result,
        }
    };
    let result = if read_only {
        client.read_only_with_receipt(attempt).await
    } else {
        client.transact_with_receipt(attempt).await
    };
    let traces = traces.into_inner().unwrap_or_default();
    traces.events.iter().for_each(&mut *tell);
    let (what, ended) = match (result, traces.halt) {
        (Ok(((), receipt)), _) => {
            *variables = traces.variables;
            (What::Committed(receipt), ExitStatus::Committed)
        }
        (Err(Error::Application(_)), None) => (What::Rollback { to: None }, ExitStatus::Committed),
        (Err(error), halt) => {
            // A require or evaluation that stopped the attempt, or the SDK's error.
            let halt = match (error, halt) {
                (Error::Application(_), Some(halt)) => halt,
                (error, _) => Halt::Sdk(error),
            };
            let elapsed = begun.elapsed();
            let what = ended("commit", &halt, traces.id, traces.attempts.max(1), elapsed);
            (what, status(&halt))
        }
    };
    // What a transaction that did not happen has read has no value.
    if ended != ExitStatus::Committed || rolls_back {
        for statement in body {
            if let Op::Get {
                variable: Some(name),
                ..
            } = &statement.op
            {
                variables.insert(name.clone(), None);
            }
        }
    }
    tell(&Event {
        line: last.line,
        what,
    });
    ended
}

/// One attempt; its events and variables go to `traces`.
async fn attempt(
    txn: &mut Transaction,
    body: &[Statement],
    traces: &mut Traces,
) -> Result<(), Error> {
    for statement in body {
        let line = statement.line;
        let what = match &statement.op {
            Op::Begin { read_only } => What::Begin {
                read_only: *read_only,
            },
            op => match step(Carrier::Transaction(txn), &mut traces.variables, op).await {
                Ok(what) => what,
                Err(Halt::Sdk(error)) => return Err(error),
                Err(halt) => {
                    let what = failed(op.name(), &halt);
                    traces.events.push(Event { line, what });
                    traces.halt = Some(halt);
                    return Err(Error::application("the script stops here"));
                }
            },
        };
        traces.events.push(Event { line, what });
    }
    Ok(())
}
