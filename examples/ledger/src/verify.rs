//! Reads everything back and compares it with what the file says.

use crate::replay::balance;
use crate::row::{ACCOUNTS, Expected, MOVEMENTS, PARTIES};
use std::collections::BTreeMap;
use synod_client::{Client, Error, Range};

/// Rows fetched at once.
const PAGE_ROWS: u32 = 10_000;

/// All keys and values that begin with `prefix`.
async fn read(client: &Client, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut all = BTreeMap::new();
    let mut rest = Some(Range::prefix(prefix).page_rows(PAGE_ROWS));
    while let Some(range) = rest {
        let page = client.scan_page(range).await?;
        for (key, value) in page.rows {
            all.insert(String::from_utf8_lossy(&key).into_owned(), value.to_vec());
        }
        rest = page.rest;
    }
    Ok(all)
}

/// What differs, in words; empty if nothing does.
///
/// # Errors
/// When the cluster cannot be read.
pub async fn verify(client: &Client, expected: &Expected) -> Result<Vec<String>, Error> {
    let mut balances = read(client, ACCOUNTS).await?;
    balances.extend(read(client, PARTIES).await?);
    let movements = read(client, MOVEMENTS).await?;
    Ok(differences(expected, &balances, &movements))
}

/// What differs from the expected in what was read back, in words.
#[must_use]
pub fn differences(
    expected: &Expected,
    balances: &BTreeMap<String, Vec<u8>>,
    movements: &BTreeMap<String, Vec<u8>>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut sum: i128 = 0;
    for (key, value) in balances {
        let found = balance(value);
        sum += i128::from(found.unwrap_or(0));
        match expected.balances.get(key) {
            None => wrong.push(format!("{key} is in no row of the file")),
            Some(wanted) if found != Some(*wanted) => {
                let value = String::from_utf8_lossy(value);
                wrong.push(format!("{key} holds {value}, not {wanted}"));
            }
            Some(_) => {}
        }
    }
    if sum != 0 {
        wrong.push(format!("all balances sum to {sum}, not to zero"));
    }
    for key in expected.balances.keys() {
        if !balances.contains_key(key) {
            wrong.push(format!("{key} is missing"));
        }
    }
    for (key, record) in &expected.movements {
        match movements.get(key) {
            None => wrong.push(format!("{key} is missing")),
            Some(found) if found != record.as_bytes() => {
                let found = String::from_utf8_lossy(found);
                wrong.push(format!("{key} is `{found}`, not `{record}`"));
            }
            Some(_) => {}
        }
    }
    for key in movements.keys() {
        if !expected.movements.contains_key(key) {
            wrong.push(format!("{key} is in no row of the file"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row;

    type Stored = BTreeMap<String, Vec<u8>>;

    fn sample() -> (Expected, Stored, Stored) {
        let rows = row::read(&include_bytes!("../data/sample.csv")[..]).expect("good");
        let expected = row::expected(&rows);
        let balances = expected.balances.iter();
        let balances = balances.map(|(k, v)| (k.clone(), v.to_string().into_bytes()));
        let movements = expected.movements.iter();
        let movements = movements.map(|(k, v)| (k.clone(), v.clone().into_bytes()));
        let stored = (balances.collect(), movements.collect());
        (expected, stored.0, stored.1)
    }

    #[test]
    fn a_complete_ledger_is_right() {
        let (expected, balances, movements) = sample();
        assert!(differences(&expected, &balances, &movements).is_empty());
    }

    #[test]
    fn lost_and_altered_things_are_found() {
        let (expected, balances, movements) = sample();
        let mut altered = balances.clone();
        altered.insert("ledger/parties/cash/1".to_owned(), b"0".to_vec());
        let wrong = differences(&expected, &altered, &movements);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong.iter().any(|w| w.contains("not to zero")));
        let mut lost = movements.clone();
        lost.remove("ledger/movements/000000000003");
        let wrong = differences(&expected, &balances, &lost);
        assert_eq!(wrong, ["ledger/movements/000000000003 is missing"]);
        let mut foreign = movements;
        foreign.insert("ledger/movements/000000000099".to_owned(), Vec::new());
        assert_eq!(differences(&expected, &balances, &foreign).len(), 1);
    }
}
