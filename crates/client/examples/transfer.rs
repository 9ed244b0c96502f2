//! Moves money between two accounts, over and over, in several tasks, and
//! checks that none is lost:
//!
//! ```text
//! cargo run -p synod-client --example transfer -- \
//!     ca.crt user-app.crt user-app.key 127.0.0.1:7600 127.0.0.1:7601
//! ```

use std::process::ExitCode;
use std::str::FromStr;
use synod_client::{Client, Config, Error, Identity, Transaction};

const TASKS: usize = 4;
const TRANSFERS: i64 = 25;

/// The balance of an account; none has zero.
async fn balance(txn: &mut Transaction, account: &str) -> Result<i64, Error> {
    let Some(bytes) = txn.get_for_update(account).await? else {
        return Ok(0);
    };
    let text = String::from_utf8_lossy(&bytes);
    i64::from_str(&text).map_err(|_| Error::application(format!("{account} holds {text:?}")))
}

async fn transfer(client: &Client, from: &str, to: &str, amount: i64) -> Result<(), Error> {
    client
        .transact(async |txn| {
            let left = balance(txn, from).await? - amount;
            let more = balance(txn, to).await? + amount;
            txn.put(from, left.to_string()).await?;
            txn.put(to, more.to_string()).await
        })
        .await
}

async fn run(config: Config) -> Result<i64, Error> {
    let client = Client::connect(config).await?;
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..TRANSFERS {
                let (from, to) = if task % 2 == 0 {
                    ("alice", "zoe")
                } else {
                    ("zoe", "alice")
                };
                transfer(&client, from, to, 1).await?;
            }
            Ok::<(), Error>(())
        }));
    }
    for task in tasks {
        task.await.map_err(Error::application)??;
    }
    // Both at one moment.
    client
        .read_only(async |txn| {
            let mut sum = 0;
            for value in txn.get_many(["alice", "zoe"]).await?.into_iter().flatten() {
                sum += i64::from_str(&String::from_utf8_lossy(&value)).unwrap_or(0);
            }
            Ok(sum)
        })
        .await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [ca, cert, key, endpoints @ ..] = &arguments[..] else {
        eprintln!("usage: transfer CA CERT KEY ENDPOINT…");
        return ExitCode::from(2);
    };
    let identity = Identity::Files {
        ca: ca.into(),
        cert: cert.into(),
        key: key.into(),
    };
    match run(Config::new(endpoints.iter().cloned(), identity)).await {
        Ok(0) => {
            println!("{} transfers, nothing lost", TASKS as i64 * TRANSFERS);
            ExitCode::SUCCESS
        }
        Ok(sum) => {
            eprintln!("the balances add up to {sum}, not 0");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
