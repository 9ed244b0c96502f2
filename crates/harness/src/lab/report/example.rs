//! Reports to test with: an ordinary one, one with much of everything, and ones in
//! which something is missing.

use super::data::{Bucket, FaultMark, HistoryResult, LinkInfo, Report, Site, Totals, Verdict};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub(super) fn bucket(ok: u64, failed: u64, unknown: u64, p50: u64, p99: u64) -> Bucket {
    let (p50, p99) = if ok == 0 { (0, 0) } else { (p50, p99) };
    Bucket {
        ok,
        failed,
        unknown,
        p50_micros: p50,
        p99_micros: p99,
        max_micros: p99 * 3 / 2,
    }
}

fn totals(buckets: &[Bucket]) -> Totals {
    let highest = |part: fn(&Bucket) -> u64| buckets.iter().map(part).max().unwrap_or(0);
    Totals {
        ok: buckets.iter().map(|b| b.ok).sum(),
        failed: buckets.iter().map(|b| b.failed).sum(),
        unknown: buckets.iter().map(|b| b.unknown).sum(),
        p50_micros: buckets
            .iter()
            .map(|b| b.p50_micros)
            .find(|p| *p > 0)
            .unwrap_or(0),
        p99_micros: highest(|b| b.p99_micros) / 2,
        p999_micros: highest(|b| b.p99_micros),
        max_micros: highest(|b| b.max_micros),
    }
}

/// A site with these buckets; the longest gap is that of its buckets.
pub(super) fn site(name: &str, bucket_millis: u64, buckets: Vec<Bucket>) -> Site {
    let (mut longest, mut began, mut run) = (0, 0, 0);
    for (index, bucket) in buckets.iter().enumerate() {
        run = if bucket.ok == 0 { run + 1 } else { 0 };
        if run > longest {
            (longest, began) = (run, index as u64 + 1 - run);
        }
    }
    Site {
        name: name.to_string(),
        region: "europe".to_string(),
        nodes: (1..=3).map(|number| format!("{name}-{number}")).collect(),
        clients: 8,
        bucket_millis,
        total: totals(&buckets),
        buckets,
        longest_gap_millis: longest * bucket_millis + 37,
        longest_gap_began_millis: began * bucket_millis,
    }
}

pub(super) fn fault(at: u64, until: Option<u64>, what: &str, on: &[&str]) -> FaultMark {
    FaultMark {
        at_millis: at,
        until_millis: until,
        what: what.to_string(),
        on: on.iter().map(|name| (*name).to_string()).collect(),
    }
}

pub(super) fn verdict(name: &str, wanted: &str, seen: &str, held: bool) -> Verdict {
    let [name, wanted, seen] = [name, wanted, seen].map(String::from);
    Verdict {
        name,
        wanted,
        seen,
        held,
    }
}

/// Nothing but a name.
pub(super) fn empty() -> Report {
    Report {
        scenario: "nothing".to_string(),
        about: String::new(),
        seed: 0,
        began_unix_millis: 0,
        run_millis: 0,
        version: String::new(),
        shards: 0,
        replicas: 0,
        workload: String::new(),
        sites: Vec::new(),
        links: Vec::new(),
        faults: Vec::new(),
        verdicts: Vec::new(),
        history: None,
        notes: Vec::new(),
    }
}

/// Three sites, of which one is cut off for five seconds; later a node is killed.
pub(super) fn ordinary() -> Report {
    let mut random = StdRng::seed_from_u64(7);
    let mut buckets = |base: u64, p50: u64, is_cut_off: bool| -> Vec<Bucket> {
        let one = |index: u64| {
            let at = index * 250;
            let noise = random.random_range(90..110u64);
            let tail = p50 * random.random_range(160..260u64) / 100;
            let cut = (8_000..13_000).contains(&at);
            match at {
                _ if cut && is_cut_off => bucket(
                    0,
                    2 * u64::from(at >= 9_000),
                    u64::from(at == 8_000) * 8,
                    0,
                    0,
                ),
                8_000..9_250 => bucket(base / 20, 0, 3, p50 * 4, 1_300_000),
                16_000..17_000 => {
                    bucket(base / 3, 1, u64::from(at == 16_000) * 2, p50 * 2, 640_000)
                }
                _ if cut => bucket(base * noise * 9 / 1000, 0, 0, p50 * 13 / 10, tail * 2),
                _ => bucket(base * noise / 100, 0, 0, p50 * noise / 100, tail),
            }
        };
        (0..100).map(one).collect()
    };
    let mut sites = vec![
        site("frankfurt", 250, buckets(310, 6_200, false)),
        site("ireland", 250, buckets(240, 9_400, false)),
        site("virginia", 250, buckets(88, 41_000, true)),
    ];
    sites[2].region = "us".to_string();
    for (site, gap) in sites.iter_mut().zip([1_040, 1_110]) {
        (site.longest_gap_millis, site.longest_gap_began_millis) = (gap, 8_020);
    }
    let link = |a: &str, b: &str, rtt_micros, loss| LinkInfo {
        a: a.to_string(),
        b: b.to_string(),
        rtt_micros,
        loss,
    };
    Report {
        scenario: "cut-a-site".to_string(),
        about: "One of three data centres is cut off for five seconds, then a node of another \
                is killed. The two that are left keep on."
            .to_string(),
        seed: 42,
        began_unix_millis: 1_782_000_000_000,
        run_millis: 25_000,
        version: "0.1.0".to_string(),
        shards: 12,
        replicas: 3,
        workload: "transfers between 1,000 accounts, and list-append over 64 keys".to_string(),
        sites,
        links: vec![
            link("frankfurt", "ireland", 24_000, 0.0),
            link("frankfurt", "virginia", 90_000, 0.001),
            link("ireland", "virginia", 71_500, 0.0),
        ],
        faults: vec![
            fault(
                8_000,
                Some(13_000),
                "cut off from all others",
                &["virginia"],
            ),
            fault(
                16_000,
                Some(19_500),
                "killed, and started again",
                &["frankfurt-2"],
            ),
        ],
        verdicts: vec![
            verdict(
                "longest gap at frankfurt",
                "at most 3 s",
                "1.04 s at 8.02 s",
                true,
            ),
            verdict(
                "longest gap at ireland",
                "at most 3 s",
                "1.11 s at 8.02 s",
                true,
            ),
            verdict(
                "p99 at ireland after 20 s",
                "at most 20 ms",
                "24.1 ms",
                false,
            ),
            verdict(
                "nothing committed is lost",
                "0 lost",
                "0 lost of 48,912",
                true,
            ),
        ],
        history: Some(HistoryResult {
            kind: "strict serializability".to_string(),
            operations: 48_912,
            ok: true,
            words: "every list and balance fits one order of all transactions".to_string(),
        }),
        notes: vec!["The relay was busy for at most 31 % of one core.".to_string()],
    }
}

/// Twelve sites, 2,000 buckets, 40 faults.
pub(super) fn extreme() -> Report {
    let mut random = StdRng::seed_from_u64(11);
    let mut report = ordinary();
    report.scenario = "a-very-bad-week-in-which-everything-happens".to_string();
    report.run_millis = 500_000;
    report.sites.clear();
    for number in 0..12u64 {
        let mut down = 0u64;
        let one = |index: u64| {
            if random.random_ratio(1, 150) {
                down = random.random_range(1..30);
            }
            down = down.saturating_sub(1);
            let wave = 100.0 + 60.0 * (index as f64 / 300.0 + number as f64).sin();
            let base = wave as u64 * random.random_range(80..120u64) / 100 * (number + 1);
            let p50 = 900 * (number + 1) * random.random_range(80..130u64) / 100;
            match down {
                0 => bucket(
                    base,
                    u64::from(random.random_ratio(1, 90)),
                    0,
                    p50,
                    p50 * random.random_range(2..9u64),
                ),
                1..4 => bucket(base / 9, 4, 2, p50 * 3, p50 * 200),
                _ => bucket(
                    0,
                    random.random_range(0..9u64),
                    random.random_range(0..3u64),
                    0,
                    0,
                ),
            }
        };
        let buckets = (0..2_000).map(one).collect();
        report
            .sites
            .push(site(&format!("site-{number:02}"), 250, buckets));
    }
    report.faults = (0..40u64)
        .map(|number| {
            let at = random.random_range(0..510_000u64);
            let until = match number % 5 {
                0 => None,
                1 => Some(at),
                _ => Some(at + random.random_range(500..60_000u64)),
            };
            let until = if number % 15 == 0 {
                None
            } else {
                until.or(Some(at + 9_000))
            };
            let names = [
                format!("site-{:02}", number % 12),
                format!("site-{:02}-2", (number + 5) % 12),
            ];
            let on: Vec<&str> = names
                .iter()
                .map(String::as_str)
                .take(1 + number as usize % 2)
                .collect();
            let what = [
                "cut off",
                "kill -9",
                "the disk's syncs stall for a while",
                "one way only",
            ];
            fault(at, until, what[number as usize % 4], &on)
        })
        .collect();
    report
}
