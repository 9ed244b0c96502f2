//! `synod get`, `put`, `delete` and `scan`: single operations, each a
//! transaction of its own.

use crate::bytes;
use crate::connection::ConnectionArgs;
use crate::exit::{Failure, Status};
use crate::sdk;
use serde_json::json;
use std::io::{IsTerminal, Read, Write};
use std::time::Duration;
use synod_client::{Client, Range};

/// How to call, and how to show the result.
#[derive(Debug, clap::Args)]
pub struct Common {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Print JSON, one object per line; bytes that are not UTF-8 as {"hex":…}
    #[arg(long)]
    json: bool,
    /// How long the call may take, retries included
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::duration::parse)]
    timeout: Duration,
}

impl Common {
    async fn client(&self) -> Result<Client, Failure> {
        self.connection.resolve()?.client(self.timeout).await
    }
}

/// `synod get …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod get accounts/alice --endpoint 127.0.0.1:7001 --certs certs
  synod get \"x'00ff'\" other/key --json

With several keys, all are read at one moment. Exit status 1 if a key does not exist.")]
pub struct GetArgs {
    /// Keys: text, or x'hex'
    #[arg(required = true, value_name = "KEY", value_parser = bytes::parse)]
    keys: Vec<bytes::Given>,
    #[command(flatten)]
    common: Common,
}

/// Prints values; with several keys, one `key value` per line.
pub async fn get(args: GetArgs) -> Result<Status, Failure> {
    let client = args.common.client().await?;
    let keys: Vec<&[u8]> = args.keys.iter().map(|k| &k.0[..]).collect();
    let values = match keys[..] {
        [key] => vec![client.get(key).await.map_err(sdk::failure)?],
        _ => {
            let read = client.read_only(async |txn| txn.get_many(&keys).await);
            read.await.map_err(sdk::failure)?
        }
    };
    let mut missing = Vec::new();
    for (key, value) in keys.iter().zip(&values) {
        if args.common.json {
            println!(
                "{}",
                json!({
                    "op": "get",
                    "key": bytes::json(key),
                    "value": value.as_deref().map(bytes::json),
                    "found": value.is_some(),
                })
            );
        } else if let Some(value) = value {
            match keys.len() {
                1 => show_value(value)?,
                _ => println!("{} {}", bytes::show(key), bytes::show(value)),
            }
        }
        if value.is_none() {
            missing.push(bytes::show(key));
        }
    }
    match missing.is_empty() {
        true => Ok(Status::Done),
        false if args.common.json => Ok(Status::Aborted),
        false => Err(Failure::failed(format!(
            "no such key: {}",
            missing.join(", ")
        ))),
    }
}

/// People get a readable value and a line end; programs the bytes as they are.
fn show_value(value: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let written = if out.is_terminal() {
        writeln!(out, "{}", bytes::show(value))
    } else {
        out.write_all(value)
    };
    written.map_err(|e| Failure::failed(format!("cannot write the value: {e}")))
}

/// `synod put …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod put accounts/alice 100 --endpoint 127.0.0.1:7001 --certs certs
  synod put photos/1 - < photo.jpg")]
pub struct PutArgs {
    /// The key: text, or x'hex'
    #[arg(id = "put_key", value_name = "KEY", value_parser = bytes::parse)]
    key: bytes::Given,
    /// The value: text, x'hex', or - for standard input
    #[arg(value_name = "VALUE", value_parser = bytes::parse)]
    value: bytes::Given,
    #[command(flatten)]
    common: Common,
}

/// Writes one key.
pub async fn put(args: PutArgs) -> Result<Status, Failure> {
    let mut value = args.value.0;
    if value == b"-" {
        value.clear();
        std::io::stdin()
            .take(synod_txn::MAX_VALUE_BYTES as u64 + 1)
            .read_to_end(&mut value)
            .map_err(|e| Failure::input(format!("cannot read the value: {e}")))?;
        if value.len() > synod_txn::MAX_VALUE_BYTES {
            return Err(Failure::input(format!(
                "a value has at most {most} bytes, and standard input has more than {most}",
                most = synod_txn::MAX_VALUE_BYTES
            )));
        }
    }
    let client = args.common.client().await?;
    let receipt = client.put(&args.key.0, &value).await;
    let receipt = receipt.map_err(sdk::failure)?;
    sdk::show_receipt("put", &args.key.0, &receipt, args.common.json);
    Ok(Status::Done)
}

/// `synod delete …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod delete holds/42 --endpoint 127.0.0.1:7001 --certs certs

Several keys are deleted together or not at all. A key that does not exist is no error.")]
pub struct DeleteArgs {
    /// Keys: text, or x'hex'
    #[arg(required = true, value_name = "KEY", value_parser = bytes::parse)]
    keys: Vec<bytes::Given>,
    #[command(flatten)]
    common: Common,
}

/// Deletes all keys in one transaction.
pub async fn delete(args: DeleteArgs) -> Result<Status, Failure> {
    let client = args.common.client().await?;
    let done = client
        .transact_with_receipt(async |txn| {
            for key in &args.keys {
                txn.delete(&key.0).await?;
            }
            Ok(())
        })
        .await;
    let ((), receipt) = done.map_err(sdk::failure)?;
    for key in &args.keys {
        sdk::show_receipt("delete", &key.0, &receipt, args.common.json);
    }
    Ok(Status::Done)
}

/// `synod scan …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod scan accounts/ --limit 10 --endpoint 127.0.0.1:7001 --certs certs
  synod scan a n --reverse --json

One argument is a prefix; two are the first key and the first key after the range. Rows of one
shard come from one moment, those of different shards from different ones.")]
pub struct ScanArgs {
    /// A prefix, or the first key
    #[arg(value_name = "PREFIX|FROM", value_parser = bytes::parse)]
    from: bytes::Given,
    /// The first key after the range
    #[arg(value_name = "TO", value_parser = bytes::parse)]
    to: Option<bytes::Given>,
    /// Rows, at most
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// From the end downwards
    #[arg(long)]
    reverse: bool,
    #[command(flatten)]
    common: Common,
}

/// Prints `key value` lines, page by page.
pub async fn scan(args: ScanArgs) -> Result<Status, Failure> {
    let client = args.common.client().await?;
    let mut range = match &args.to {
        Some(to) => Range::new(&args.from.0, &to.0),
        None => Range::prefix(&args.from.0),
    };
    if let Some(limit) = args.limit {
        range = range.limit(limit);
    }
    if args.reverse {
        range = range.reverse();
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut rest = Some(range);
    while let Some(range) = rest {
        let page = client.scan_page(range).await.map_err(sdk::failure)?;
        for (key, value) in &page.rows {
            let line = if args.common.json {
                json!({"key": bytes::json(key), "value": bytes::json(value)}).to_string()
            } else {
                format!("{} {}", bytes::show(key), bytes::show(value))
            };
            if writeln!(out, "{line}").is_err() {
                // Nobody reads any more.
                return Ok(Status::Done);
            }
        }
        rest = page.rest;
    }
    Ok(Status::Done)
}
