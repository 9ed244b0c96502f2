//! The rows of a ledger file, and what the file itself says must come out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// The columns, in order.
const COLUMNS: [&str; 7] = [
    "trans_id",
    "date",
    "account",
    "counterparty",
    "kind",
    "amount_cents",
    "balance_cents",
];

/// One movement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The bank's number of the movement, unique.
    pub trans_id: u64,
    /// Booking day.
    pub date: String,
    /// The customer's account.
    pub account: u64,
    /// The other side.
    pub counterparty: String,
    /// What kind of movement it is.
    pub kind: String,
    /// What the account gains, in cents.
    pub amount_cents: i64,
    /// The account's balance afterwards, in cents.
    pub balance_cents: i64,
}

impl Row {
    /// The key of the account's balance.
    pub fn account_key(&self) -> String {
        account_key(self.account)
    }

    /// The key of the counterparty's balance.
    pub fn party_key(&self) -> String {
        format!("{PARTIES}{}", self.counterparty)
    }

    /// The key of the movement's record.
    pub fn movement_key(&self) -> String {
        movement_key(self.trans_id)
    }

    /// What is kept as the movement's record.
    pub fn record(&self) -> String {
        format!(
            "{},{},{},{},{},{}",
            self.date,
            self.account,
            self.counterparty,
            self.kind,
            self.amount_cents,
            self.balance_cents
        )
    }
}

/// Prefix of the customers' balances.
pub const ACCOUNTS: &str = "ledger/accounts/";
/// Prefix of the counterparties' balances.
pub const PARTIES: &str = "ledger/parties/";
/// Prefix of the movements' records.
pub const MOVEMENTS: &str = "ledger/movements/";

/// Numbers are padded so that keys sort as numbers do.
pub fn account_key(account: u64) -> String {
    format!("{ACCOUNTS}{account:08}")
}

fn movement_key(trans_id: u64) -> String {
    format!("{MOVEMENTS}{trans_id:012}")
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not CSV, or not of seven columns.
    #[error("not a CSV file of 7 columns: {0}")]
    Csv(#[from] csv::Error),
    /// The columns are others.
    #[error("the first line must be `{expected}`, not `{0}`", expected = COLUMNS.join(","))]
    Header(String),
    /// A field is not what its column holds.
    #[error("line {line}: {column} must be a whole number, not `{value}`")]
    Number {
        /// The line, from 1.
        line: u64,
        /// The column.
        column: &'static str,
        /// What is there.
        value: String,
    },
    /// A number occurs twice.
    #[error("line {line}: movement {trans_id} occurs a second time")]
    Twice {
        /// The line, from 1.
        line: u64,
        /// The movement.
        trans_id: u64,
    },
    /// The printed balances contradict each other.
    #[error(
        "line {line}: account {account} had {before} and gains {amount}, which is not {balance}"
    )]
    Chain {
        /// The line, from 1.
        line: u64,
        /// The account.
        account: u64,
        /// Its balance before.
        before: i64,
        /// What it gains.
        amount: i64,
        /// The balance printed.
        balance: i64,
    },
}

fn number<T: std::str::FromStr>(
    record: &csv::StringRecord,
    column: usize,
    line: u64,
) -> Result<T, FileError> {
    let value = record.get(column).unwrap_or_default();
    value.parse().map_err(|_| FileError::Number {
        line,
        column: COLUMNS[column],
        value: value.to_owned(),
    })
}

/// Reads all rows; refuses a file that contradicts itself, before anything is sent.
pub fn read(input: impl Read) -> Result<Vec<Row>, FileError> {
    let mut reader = csv::Reader::from_reader(input);
    let header = reader.headers()?;
    if *header != COLUMNS[..] {
        let found: Vec<&str> = header.iter().collect();
        return Err(FileError::Header(found.join(",")));
    }
    let (mut rows, mut seen) = (Vec::new(), BTreeSet::new());
    let mut balances: BTreeMap<u64, i64> = BTreeMap::new();
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let text = |column: usize| record.get(column).unwrap_or_default().to_owned();
        let row = Row {
            trans_id: number(&record, 0, line)?,
            date: text(1),
            account: number(&record, 2, line)?,
            counterparty: text(3),
            kind: text(4),
            amount_cents: number(&record, 5, line)?,
            balance_cents: number(&record, 6, line)?,
        };
        if !seen.insert(row.trans_id) {
            return Err(FileError::Twice {
                line,
                trans_id: row.trans_id,
            });
        }
        // An account's first row opens it with what it had before: nothing.
        let before = balances.get(&row.account).copied().unwrap_or(0);
        if before.checked_add(row.amount_cents) != Some(row.balance_cents) {
            return Err(FileError::Chain {
                line,
                account: row.account,
                before,
                amount: row.amount_cents,
                balance: row.balance_cents,
            });
        }
        balances.insert(row.account, row.balance_cents);
        rows.push(row);
    }
    Ok(rows)
}

/// What the keys must hold after all rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Balances, by key.
    pub balances: BTreeMap<String, i64>,
    /// Movements, by key.
    pub movements: BTreeMap<String, String>,
}

/// Computes it.
pub fn expected(rows: &[Row]) -> Expected {
    let mut expected = Expected::default();
    for row in rows {
        let balances = &mut expected.balances;
        *balances.entry(row.account_key()).or_default() += row.amount_cents;
        *balances.entry(row.party_key()).or_default() -= row.amount_cents;
        expected.movements.insert(row.movement_key(), row.record());
    }
    expected
}

/// The rows of each of `workers`: all rows of an account go to one worker, in order.
pub fn partition(rows: Vec<Row>, workers: usize) -> Vec<Vec<Row>> {
    let workers = workers.max(1);
    // Accounts go round in the order in which they are first seen, so that every
    // worker has about the same number of them.
    let mut owner: BTreeMap<u64, usize> = BTreeMap::new();
    let mut parts = vec![Vec::new(); workers];
    for row in rows {
        let next = owner.len() % workers;
        let worker = *owner.entry(row.account).or_insert(next);
        parts[worker].push(row);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../data/sample.csv");

    fn sample() -> Vec<Row> {
        read(SAMPLE.as_bytes()).expect("the sample is good")
    }

    fn refused(from: &str, to: &str) -> String {
        assert!(SAMPLE.contains(from), "{from}");
        let text = SAMPLE.replacen(from, to, 1);
        read(text.as_bytes()).expect_err("refused").to_string()
    }

    #[test]
    fn the_sample_reads_and_sums_to_zero() {
        let expected = expected(&sample());
        assert_eq!(expected.balances.values().sum::<i64>(), 0);
        assert_eq!(expected.movements.len(), sample().len());
        assert_eq!(expected.balances["ledger/accounts/00000011"], 62_500);
        assert_eq!(expected.balances["ledger/parties/cash/1"], -100_000);
    }

    #[test]
    fn a_file_that_contradicts_itself_is_refused_with_its_line() {
        assert!(refused("trans_id", "id").contains("first line"));
        assert!(refused("100000,100000", "1e5,100000").contains("line 2: amount_cents"));
        assert!(refused("100000,100000", "100000,100001").contains("line 2: account 11 had 0"));
        assert!(refused("\n2,", "\n1,").contains("movement 1 occurs a second time"));
        assert!(refused("deposit,100000", "deposit,7,100000").contains("7 columns"));
    }

    #[test]
    fn an_account_stays_with_one_worker_and_in_order() {
        let rows = sample();
        for workers in [1, 2, 3, 100] {
            let parts = partition(rows.clone(), workers);
            assert_eq!(parts.len(), workers);
            assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), rows.len());
            for account in [11, 12, 13] {
                let holders: Vec<_> = parts
                    .iter()
                    .map(|p| {
                        p.iter()
                            .filter(|r| r.account == account)
                            .collect::<Vec<_>>()
                    })
                    .filter(|p| !p.is_empty())
                    .collect();
                assert_eq!(holders.len(), 1);
                let of_account = rows.iter().filter(|r| r.account == account);
                assert_eq!(holders[0], of_account.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn keys_sort_as_numbers_do() {
        assert!(account_key(9) < account_key(10));
        assert!(movement_key(99) < movement_key(100));
    }
}
