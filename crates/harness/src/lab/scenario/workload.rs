//! `[workload]`: what the clients do.

use super::check::Mistakes;
use super::file::{self, Mix};
use crate::lab::load::{Kind, MAX_RATE, Script, Workload, Ycsb, YcsbMix};
use std::path::Path;
use std::time::Duration;
use synod_placement::nearest;
use toml::Spanned;

/// What is not said.
const TIMEOUT: Duration = Duration::from_secs(10);
const ACCOUNTS: u32 = 64;
/// Between two audits of a bank: what is not said, and what is possible.
const AUDIT: Duration = Duration::from_millis(500);
const AUDITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
const RECORDS: u64 = 1_000;
const VALUE_BYTES: usize = 100;
const SCAN_ROWS: u64 = 20;
/// The longest and shortest time that a client waits.
const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// The kinds, and the keys that belong to each.
const KINDS: [(&str, &[&str]); 4] = [
    ("bank", &["accounts", "audit_every"]),
    ("list-append", &["accounts"]),
    ("ycsb", &["mix", "records", "value_bytes", "scan_rows"]),
    ("script", &["script", "text"]),
];

/// Checks it; none if it has mistakes.
pub(super) fn check(
    mistakes: &mut Mistakes<'_>,
    entry: &Spanned<file::Workload>,
    directory: &Path,
) -> Option<Workload> {
    let (at, given) = (entry.span().start, entry.get_ref());
    let Some((kind, keys)) = KINDS.iter().find(|(kind, _)| *kind == given.kind) else {
        let kinds: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
        let meant = nearest(&given.kind, kinds.iter().copied());
        let meant = meant.map_or_else(String::new, |right| format!("; did you mean `{right}`?"));
        let text = format!(
            "[workload] `kind` is `{}`; there are {}{meant}",
            given.kind,
            kinds.join(", ")
        );
        mistakes.at(at, text);
        return None;
    };
    let all = [
        ("accounts", given.accounts.is_some()),
        ("audit_every", given.audit_every.is_some()),
        ("mix", given.mix.is_some()),
        ("records", given.records.is_some()),
        ("value_bytes", given.value_bytes.is_some()),
        ("scan_rows", given.scan_rows.is_some()),
        ("script", given.script.is_some()),
        ("text", given.text.is_some()),
    ];
    let mut good = true;
    for (key, _) in all
        .iter()
        .filter(|(key, there)| *there && !keys.contains(key))
    {
        let text = format!(
            "[workload] `{key}` is not for `{kind}`, only {}",
            keys.join(", ")
        );
        mistakes.at(at, text);
        good = false;
    }
    let rate = given.rate;
    if rate.is_some_and(|rate| rate == 0 || rate > MAX_RATE) {
        let text = format!("[workload] `rate` is 1 to {MAX_RATE} requests a second and site");
        mistakes.at(at, text);
        good = false;
    }
    let timeout = given.timeout.map_or(TIMEOUT, |time| time.0);
    if timeout < TIMEOUTS.0 || timeout > TIMEOUTS.1 {
        let (least, most) = TIMEOUTS;
        let text =
            format!("[workload] `timeout` is {timeout:?}; {least:?} to {most:?} are possible");
        mistakes.at(at, text);
        good = false;
    }
    let made = match *kind {
        "bank" | "list-append" => keyed(given, kind),
        "ycsb" => ycsb(given).map(Kind::Ycsb),
        _ => script(given, directory).map(Kind::Script),
    };
    match made {
        Ok(kind) => good.then_some(Workload {
            kind,
            rate,
            timeout,
        }),
        Err(text) => {
            mistakes.at(at, format!("[workload] {text}"));
            None
        }
    }
}

fn keyed(given: &file::Workload, kind: &str) -> Result<Kind, String> {
    let accounts = given.accounts.unwrap_or(ACCOUNTS);
    if !(2..=10_000).contains(&accounts) {
        return Err(format!("`accounts` is {accounts}; 2 to 10000 are possible"));
    }
    let audit_every = given.audit_every.map_or(AUDIT, |time| time.0);
    if audit_every < AUDITS.0 || audit_every > AUDITS.1 {
        let (least, most) = AUDITS;
        return Err(format!(
            "`audit_every` is {audit_every:?}; {least:?} to {most:?} are possible"
        ));
    }
    Ok(match kind {
        "bank" => Kind::Bank {
            accounts,
            audit_every,
        },
        _ => Kind::ListAppend { accounts },
    })
}

fn ycsb(given: &file::Workload) -> Result<Ycsb, String> {
    let mix = match &given.mix {
        None => YcsbMix::letter("A").ok_or("`mix` A is not known")?,
        Some(Mix::Letter(letter)) => YcsbMix::letter(letter).ok_or_else(|| {
            format!("`mix` is `{letter}`; there are A, B, C, D, E and F, or shares")
        })?,
        Some(Mix::Shares(s)) => YcsbMix {
            read: s.read,
            update: s.update,
            insert: s.insert,
            scan: s.scan,
            rmw: s.rmw,
            latest: false,
        },
    };
    let shares = [mix.read, mix.update, mix.insert, mix.scan, mix.rmw];
    let sum: f64 = shares.iter().sum();
    if shares.iter().any(|share| !(0.0..=1.0).contains(share)) || (sum - 1.0).abs() > 1e-6 {
        return Err(format!("the shares of `mix` add up to {sum}, not to 1"));
    }
    let ycsb = Ycsb {
        mix,
        records: given.records.unwrap_or(RECORDS),
        value_bytes: given.value_bytes.unwrap_or(VALUE_BYTES),
        scan_rows: given.scan_rows.unwrap_or(SCAN_ROWS),
    };
    let bounds = [
        ("records", ycsb.records, 1_000_000),
        ("value_bytes", ycsb.value_bytes as u64, 1 << 20),
        ("scan_rows", ycsb.scan_rows, 10_000),
    ];
    for (key, number, most) in bounds {
        if !(1..=most).contains(&number) {
            return Err(format!("`{key}` is {number}; 1 to {most} are possible"));
        }
    }
    Ok(ycsb)
}

fn script(given: &file::Workload, directory: &Path) -> Result<Script, String> {
    let (name, text) = match (&given.script, &given.text) {
        (Some(file), None) => {
            let path = directory.join(file);
            let text = std::fs::read_to_string(&path)
                .map_err(|e| format!("`script`: cannot read {}: {e}", path.display()))?;
            (file.clone(), text)
        }
        (None, Some(text)) => ("text".to_owned(), text.clone()),
        _ => return Err("a script is a file, `script`, or a `text`; one of them".to_owned()),
    };
    let parsed = synod_client::script::parse(&text).map_err(|mistakes| {
        let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        format!("`{name}` is no script: {}", mistakes.join("; "))
    })?;
    Ok(Script {
        name,
        script: parsed.into(),
    })
}
