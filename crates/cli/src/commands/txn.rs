//! `synod txn`: scripts of transactions.

use crate::connection::ConnectionArgs;
use crate::exit::{Failure, Status};
use crate::sdk;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use synod_client::script::{self, Event, Session};

/// Bytes of a script, at most.
const MAX_SCRIPT_BYTES: u64 = 64 << 20;

/// `synod txn …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  cat > transfer.synod <<'END'
  begin
    let a = get accounts/alice for update default 0
    let b = get accounts/bob for update default 0
    require ${a} >= 30
    put accounts/alice ${a - 30}
    put accounts/bob ${b + 30}
  commit
  END
  synod txn transfer.synod --endpoint 127.0.0.1:7001 --certs certs

Statements, one a line: begin [read-only], let NAME = get KEY [for update] [default VALUE],
get KEY, put KEY VALUE, delete KEY, scan PREFIX|FROM TO [limit N] [reverse],
require VALUE == != < <= > >= VALUE, savepoint NAME, rollback [to NAME], commit; # comments.
${a + 1} is integer arithmetic with variables. Bare words, \"quoted \\x00 strings\" and x'hex' are
byte strings. Outside begin … commit each statement is a transaction of its own.

The whole script is checked before anything is sent. After a conflict a transaction is run again
as a whole. With --json and - as the file it is a session: each statement is answered as soon as
it is read. Exit status: 0 all committed, 1 one aborted or rolled back by require, 2 bad script
(nothing sent), 3 an unknown outcome, 4 no cluster.")]
pub struct Args {
    /// The script, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print one JSON object per statement
    #[arg(long)]
    json: bool,
    /// How long one transaction (in a session: one statement) may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the script, or the session.
pub async fn run(args: Args) -> Result<Status, Failure> {
    let is_input = args.file == Path::new("-");
    if is_input && args.json {
        let client = args.connection.resolve()?.client(args.timeout).await?;
        return session(Session::new(client)).await;
    }
    let text = read(&args.file, is_input)?;
    let script = script::parse(&text).map_err(|mistakes| {
        let lines: Vec<String> = mistakes
            .iter()
            .map(|mistake| format!("{}: {mistake}", args.file.display()))
            .collect();
        Failure::input(format!(
            "bad script, nothing was sent\n{}",
            lines.join("\n")
        ))
    })?;
    let client = args.connection.resolve()?.client(args.timeout).await?;
    let status = script::run(&client, &script, |event| show(event, args.json)).await;
    Ok(status.into())
}

fn read(file: &Path, is_input: bool) -> Result<String, Failure> {
    let refuse = |e: std::io::Error| Failure::input(format!("cannot read {}: {e}", file.display()));
    let source: Box<dyn std::io::Read> = if is_input {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(refuse)?)
    };
    let mut text = String::new();
    let mut bounded = std::io::Read::take(source, MAX_SCRIPT_BYTES + 1);
    std::io::Read::read_to_string(&mut bounded, &mut text).map_err(refuse)?;
    if text.len() as u64 > MAX_SCRIPT_BYTES {
        return Err(Failure::input(format!(
            "{} is larger than {} MiB; split it",
            file.display(),
            MAX_SCRIPT_BYTES >> 20
        )));
    }
    Ok(text)
}

/// Results go to standard output; for people, what went wrong to standard error.
pub fn show(event: &Event, as_json: bool) {
    let text = if as_json { event.json() } else { event.text() };
    if text.is_empty() {
        return;
    }
    if !as_json && sdk::is_trouble(event) {
        eprintln!("{text}");
        return;
    }
    // Whoever reads a session waits for its answer; a closed pipe is no reason
    // to leave a transaction half-way.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// Lines are read on a thread of their own: while one is waited for, sessions
/// at the nodes must be kept alive.
async fn session(mut session: Session) -> Result<Status, Failure> {
    let (send, mut lines) = tokio::sync::mpsc::channel::<std::io::Result<String>>(64);
    let reader = move || {
        for line in std::io::stdin().lock().lines() {
            if send.blocking_send(line).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new()
        .name("input".to_owned())
        .spawn(reader)
        .map_err(|e| Failure::cluster(format!("cannot start a thread for the input: {e}")))?;
    while let Some(line) = lines.recv().await {
        let line = line.map_err(|e| Failure::input(format!("cannot read the input: {e}")))?;
        for event in session.execute(&line).await {
            show(&event, true);
        }
    }
    if let Some(event) = session.finish() {
        show(&event, true);
    }
    Ok(session.status().into())
}
