//! `synod shell`: the language of `synod txn`, interactively.

use super::txn::show;
use crate::connection::ConnectionArgs;
use crate::exit::{Failure, Status};
use reedline::{DefaultPrompt, DefaultPromptSegment, FileBackedHistory, Prompt, Reedline, Signal};
use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;
use synod_client::script::Session;
use tokio::sync::{mpsc, oneshot};

/// Lines of history kept.
const HISTORY_LINES: usize = 5_000;

/// What `help` answers.
const HELP: &str = "\
begin [read-only]      let NAME = get KEY [for update] [default VALUE]    get KEY
put KEY VALUE          delete KEY                 scan PREFIX|FROM TO [limit N] [reverse]
require VALUE == != < <= > >= VALUE               savepoint NAME          rollback [to NAME]
commit                 exit, quit or Ctrl-D ends; `synod txn --help` tells more";

/// `synod shell …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod shell --endpoint 127.0.0.1:7001 --certs certs
  > put greeting hello
  > get greeting

The language is that of `synod txn` (see its --help); each line is answered at once. After a
conflict inside begin … commit the transaction is over and is yours to type again. exit, quit or
Ctrl-D ends; an open transaction is then rolled back. History is kept in ~/.synod_history.")]
pub struct Args {
    /// How long one statement may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// A line, and where to say whether a transaction is open now.
type Ask = (String, oneshot::Sender<bool>);

/// Reads lines on a thread of its own, so that held locks stay alive meanwhile.
pub async fn run(args: Args) -> Result<Status, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::input(
            "the shell needs a terminal; for scripts use `synod txn -`, for programs \
             `synod txn --json -`",
        ));
    }
    let client = args.connection.resolve()?.client(args.timeout).await?;
    let mut session = Session::new(client);
    let (send, mut lines) = mpsc::channel::<Ask>(1);
    let editor = std::thread::Builder::new()
        .name("editor".to_owned())
        .spawn(move || edit(&send))
        .map_err(|e| Failure::cluster(format!("cannot start a thread for the terminal: {e}")))?;
    while let Some((line, done)) = lines.recv().await {
        for event in session.execute(&line).await {
            show(&event, false);
        }
        // The editor may have gone meanwhile; then the channel ends, too.
        let _ = done.send(session.in_transaction());
    }
    if session.finish().is_some() {
        eprintln!("the open transaction was rolled back");
    }
    match editor.join() {
        Ok(result) => result.map(|()| Status::Done),
        Err(_) => Err(Failure::cluster("the line editor failed")),
    }
}

fn prompt(in_transaction: bool) -> impl Prompt {
    let name = if in_transaction {
        "synod (open)"
    } else {
        "synod"
    };
    DefaultPrompt::new(
        DefaultPromptSegment::Basic(name.to_owned()),
        DefaultPromptSegment::Empty,
    )
}

fn edit(send: &mpsc::Sender<Ask>) -> Result<(), Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::cluster(format!("the terminal failed: {e}"));
    let mut editor = Reedline::create();
    if let Some(home) = std::env::var_os("HOME") {
        let path = PathBuf::from(home).join(".synod_history");
        // It holds values, so it is nobody else's to read. Without a history file
        // the shell works all the same.
        let private = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path);
        drop(private);
        if let Ok(history) = FileBackedHistory::with_file(HISTORY_LINES, path) {
            editor = editor.with_history(Box::new(history));
        }
    }
    let mut in_transaction = false;
    loop {
        match editor.read_line(&prompt(in_transaction)) {
            Ok(Signal::Success(line)) if matches!(line.trim(), "exit" | "quit") => return Ok(()),
            Ok(Signal::Success(line)) if line.trim() == "help" => println!("{HELP}"),
            Ok(Signal::Success(line)) => {
                let (done, answered) = oneshot::channel();
                if send.blocking_send((line, done)).is_err() {
                    return Ok(());
                }
                in_transaction = answered.blocking_recv().unwrap_or(false);
            }
            Ok(Signal::CtrlD) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(failed(&error)),
        }
    }
}
