//! The bank's ledger of `examples/ledger`, on either system: each row one
//! transaction over three keys, and every balance verified at the end.

use crate::error::Error;
use crate::plan::{Group, Scale};
use crate::record::{Figures, Record, Subject};
use crate::system::{Db, Layout, System, Target};
use ::ledger::replay;
use ::ledger::row::{self, ACCOUNTS, MOVEMENTS, PARTIES, Row};
use ::ledger::verify::differences;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::time::Instant;

/// Rows that are booked at the same time.
const CLIENTS: u32 = 32;
/// Where Synod's key space is cut.
const SPLITS: [&str; 3] = ["ledger/accounts/00002000", MOVEMENTS, PARTIES];
/// Rows read at once to verify.
const PAGE_ROWS: u32 = 5000;

/// Replays the ledger on a fresh cluster.
///
/// # Errors
/// When the file is no ledger, or what comes out is not what it says.
pub async fn run(
    system: System,
    layout: &Layout,
    scale: &Scale,
    tell: &mut impl FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let what = format!("reading {}", scale.ledger.display());
    let file = File::open(&scale.ledger).map_err(Error::io(&what))?;
    let rows = row::read(BufReader::new(file));
    let rows = rows.map_err(|e| Error::Wrong(format!("{what}: {e}")))?;
    let mut layout = layout.clone();
    layout.splits = SPLITS.iter().map(|split| (*split).to_owned()).collect();
    let target = Target::start(system, &layout).await?;
    let (count, expected) = (rows.len(), row::expected(&rows));
    let before = target.sample().await;
    let begun = Instant::now();
    let mut workers = Vec::new();
    for part in row::partition(rows, CLIENTS as usize) {
        let db = target.db.clone();
        workers.push(tokio::task::spawn_local(
            async move { book(&db, &part).await },
        ));
    }
    let mut retries = 0;
    for worker in workers {
        retries += worker.await.expect("workers do not panic")?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let after = target.sample().await;
    let mut balances = read(&target.db, ACCOUNTS).await?;
    balances.extend(read(&target.db, PARTIES).await?);
    let movements = read(&target.db, MOVEMENTS).await?;
    if let Some(wrong) = differences(&expected, &balances, &movements).first() {
        return Err(Error::Wrong(format!(
            "the ledger on {}: {wrong}",
            system.name()
        )));
    }
    let per_row = |spent: u64| spent as f64 / count.max(1) as f64;
    tell(Record {
        subject: Subject {
            group: Group::Ledger,
            workload: format!("ledger of {count} rows"),
            clients: CLIENTS,
            value_bytes: 0,
            offered: None,
            participants: None,
        },
        system,
        figures: Figures::default()
            .set("seconds", seconds)
            .set("rate", count as f64 / seconds)
            .set("retries", per_row(retries))
            .set(
                "server_cpu_us",
                per_row(after.server_cpu - before.server_cpu),
            )
            .set(
                "client_cpu_us",
                per_row(after.client_cpu - before.client_cpu),
            )
            .done(),
    })
}

/// Books the rows one after the other; attempts beyond the first.
async fn book(db: &Db, rows: &[Row]) -> Result<u64, Error> {
    let mut retries = 0;
    for row in rows {
        let wrong = RefCell::new(None);
        let change = |held: &[Option<&[u8]>]| match replay::booking(row, held) {
            Ok(Some(values)) => values.map(String::into_bytes).to_vec(),
            Ok(None) => {
                *wrong.borrow_mut() = Some("it was booked before".to_owned());
                Vec::new()
            }
            Err(contradiction) => {
                *wrong.borrow_mut() = Some(contradiction.to_string());
                Vec::new()
            }
        };
        let attempts = db.update(&replay::keys(row), &change).await?;
        retries += u64::from(attempts - 1);
        if let Some(wrong) = wrong.into_inner() {
            return Err(Error::Wrong(format!("movement {}: {wrong}", row.trans_id)));
        }
    }
    Ok(retries)
}

/// All keys and values that begin with `prefix`.
async fn read(db: &Db, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut all = BTreeMap::new();
    let (mut from, end) = (prefix.to_owned(), format!("{prefix}~"));
    loop {
        let rows = db.rows(&from, &end, PAGE_ROWS).await?;
        let full = rows.len() == PAGE_ROWS as usize;
        for (key, value) in rows {
            all.insert(String::from_utf8_lossy(&key).into_owned(), value);
        }
        match all.last_key_value() {
            // The next page begins behind the last key.
            Some((last, _)) if full => from = format!("{last}\0"),
            _ => return Ok(all),
        }
    }
}
