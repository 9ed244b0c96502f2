//! What holds of text and page, whatever is in the data.

use super::example::{bucket, empty, extreme, fault, ordinary, site, verdict};
use super::*;

/// Every kind of data that could trip something up.
fn all() -> Vec<(&'static str, Report)> {
    let with = |change: fn(&mut Report)| {
        let mut report = ordinary();
        change(&mut report);
        report
    };
    vec![
        ("nothing", empty()),
        ("ordinary", ordinary()),
        ("extreme", extreme()),
        ("no sites", with(|r| r.sites.clear())),
        ("no buckets", with(|r| r.sites[0].buckets.clear())),
        ("one bucket", with(|r| r.sites[0].buckets.truncate(1))),
        (
            "all fail",
            with(|r| {
                for bucket in r.sites.iter_mut().flat_map(|s| &mut s.buckets) {
                    *bucket = example::bucket(0, 3, 1, 0, 0);
                }
            }),
        ),
        (
            "nothing ends",
            with(|r| {
                for bucket in r.sites.iter_mut().flat_map(|s| &mut s.buckets) {
                    *bucket = example::bucket(0, 0, 0, 0, 0);
                }
            }),
        ),
        ("no length", with(|r| r.run_millis = 0)),
        (
            "buckets of no length",
            with(|r| r.sites[1].bucket_millis = 0),
        ),
        ("buckets beyond the end", with(|r| r.run_millis = 900)),
        (
            "a fault after the end",
            with(|r| r.faults.push(fault(90_000, None, "late", &[]))),
        ),
        (
            "a fault that ends after the end",
            with(|r| r.faults.push(fault(20_000, Some(99_000), "long", &[]))),
        ),
        (
            "a fault that ends before it begins",
            with(|r| r.faults.push(fault(20_000, Some(1), "odd", &[]))),
        ),
        (
            "a gap after the end",
            with(|r| r.sites[0].longest_gap_began_millis = 99_000),
        ),
        (
            "loss that is no number",
            with(|r| r.links[0].loss = f64::NAN),
        ),
        (
            "loss without end",
            with(|r| r.links[0].loss = f64::INFINITY),
        ),
        ("the largest numbers", with(largest)),
        (
            "long words",
            with(|r| {
                let long = "unbroken".repeat(40);
                (r.scenario, r.about, r.workload) = (long.clone(), long.clone(), long.clone());
                (r.sites[0].name, r.sites[0].region) = (long.clone(), long.clone());
                r.faults.push(fault(1_000, None, &long, &[&long]));
                r.verdicts.push(verdict(&long, &long, &long, false));
                r.notes.push(long);
            }),
        ),
        ("markup", with(markup)),
        (
            "twenty sites",
            with(|r| {
                let one = r.sites[0].clone();
                r.sites.resize(20, one);
            }),
        ),
    ]
}

fn largest(report: &mut Report) {
    let most = u64::MAX;
    (report.run_millis, report.began_unix_millis, report.seed) = (most, most, most);
    (report.shards, report.replicas) = (usize::MAX, usize::MAX);
    report.faults.push(fault(most, Some(most), "last", &[]));
    report.links[0].rtt_micros = most;
    let site = &mut report.sites[0];
    site.bucket_millis = most;
    (site.longest_gap_millis, site.longest_gap_began_millis) = (most, most);
    site.total.max_micros = most;
    for bucket in &mut site.buckets {
        (bucket.ok, bucket.failed, bucket.unknown) = (most, most, most);
        (bucket.p50_micros, bucket.p99_micros) = (most, most);
    }
}

/// What would be markup, the end of an attribute or no character of XML.
const EVIL: &str = "<script>alert('1')</script> & \"two\" \u{0}\u{1b}[31m \u{ffff} é 数";

fn markup(report: &mut Report) {
    let evil = || EVIL.to_string();
    (
        report.scenario,
        report.about,
        report.version,
        report.workload,
    ) = (evil(), evil(), evil(), evil());
    let site = &mut report.sites[0];
    (site.name, site.region, site.nodes) = (evil(), evil(), vec![evil()]);
    (report.links[0].a, report.links[0].b) = (evil(), evil());
    report.faults[0] = fault(3_000, None, EVIL, &[EVIL]);
    report.verdicts[0] = verdict(EVIL, EVIL, EVIL, false);
    if let Some(history) = &mut report.history {
        (history.kind, history.words) = (evil(), evil());
    }
    report.notes.push(evil());
}

/// Whether every tag is closed in its turn, every attribute is quoted and every `&`
/// begins something known.
pub(super) fn is_well_formed(page: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let page = page.strip_prefix("<!DOCTYPE html>").unwrap_or(page);
    let mut pieces = page.split('<');
    pieces.next();
    for piece in pieces {
        let (tag, words) = piece
            .split_once('>')
            .ok_or_else(|| format!("no end: {piece}"))?;
        if !tag.matches('"').count().is_multiple_of(2) {
            return Err(format!("quotes: {tag}"));
        }
        let name = tag
            .split([' ', '/'])
            .find(|name| !name.is_empty())
            .unwrap_or("");
        if tag.starts_with('/') {
            let last = open.pop();
            if last != Some(name) {
                return Err(format!("{last:?} is closed by {name}"));
            }
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        for after in tag.split('&').skip(1).chain(words.split('&').skip(1)) {
            let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
            if !known.iter().any(|entity| after.starts_with(entity)) {
                return Err(format!("&{after}"));
            }
        }
        let is_wrong = |c: char| (c.is_control() && c != '\n') || c == '\u{ffff}';
        if piece.contains(is_wrong) {
            return Err(format!("no character of XML: {piece:?}"));
        }
    }
    if open.is_empty() {
        Ok(())
    } else {
        Err(format!("open: {open:?}"))
    }
}

#[test]
fn the_check_of_markup_finds_what_is_wrong() {
    assert_eq!(is_well_formed("<a><b x=\"1\"/>&amp;</a>"), Ok(()));
    for wrong in [
        "<a>",
        "<a></b>",
        "<a><b></a></b>",
        "<a x=\"></a>",
        "<a>&x</a>",
        "<a>\u{1b}</a>",
    ] {
        assert!(is_well_formed(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn every_page_is_well_formed_and_holds_numbers_only() {
    for (name, report) in all() {
        let page = html(&report);
        is_well_formed(&page).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        for wrong in ["NaN", "\"inf", "\"-inf", "=\"-", ",-inf"] {
            assert!(!page.contains(wrong), "{name}: {wrong}");
        }
    }
}

#[test]
fn no_line_of_text_is_longer_than_a_hundred() {
    for (name, report) in all() {
        for line in text(&report).lines() {
            assert!(line.chars().count() <= 100, "{name}: {line}");
            assert!(!line.contains(char::is_control), "{name}: {line:?}");
        }
    }
}

#[test]
fn the_same_report_gives_the_same_bytes() {
    for (name, report) in all() {
        assert_eq!(html(&report), html(&report.clone()), "{name}");
        assert_eq!(text(&report), text(&report.clone()), "{name}");
    }
}

#[test]
fn what_looks_like_markup_is_text() {
    let mut report = ordinary();
    markup(&mut report);
    let page = html(&report);
    assert!(!page.contains("<script"));
    assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;two&quot;"));
}

#[test]
fn the_page_needs_nothing_else() {
    let page = html(&ordinary());
    let page = page.replace("http://www.w3.org/2000/svg", "");
    for foreign in [
        "http:", "https:", "src=", "@import", "url(", "<link", "<script",
    ] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn the_outcome_counts_the_history() {
    let mut report = ordinary();
    assert!(text(&report).starts_with("cut-a-site: 1 of 5 checks broken\n"));
    report.verdicts[2].held = true;
    assert!(html(&report).contains("All 5 checks hold"));
    if let Some(history) = &mut report.history {
        history.ok = false;
    }
    assert!(text(&report).starts_with("cut-a-site: 1 of 5 checks broken\n"));
    assert!(text(&report).contains("BROKEN  history"));
    assert!(html(&empty()).contains("Nothing was checked"));
}

#[test]
fn the_marks_stand_beneath_what_the_site_saw() {
    // One cell of 64 is a second.
    let mut report = empty();
    report.run_millis = 64_000;
    let one = |second: u64| bucket(if (16..32).contains(&second) { 0 } else { 10 }, 0, 0, 5, 9);
    report.sites = vec![site("here", 1_000, (0..64).map(one).collect())];
    report.faults = vec![fault(16_000, Some(32_000), "cut off", &["here"])];
    let text = text(&report);
    let row = |begin: &str| {
        let line = text
            .lines()
            .find(|line| line.contains(begin))
            .expect("the row is there");
        line.chars().skip(18).collect::<String>()
    };
    let (full, none) = ("█".repeat(16), "·".repeat(16));
    assert!(row("█").starts_with(&format!("{full}{none}{full}{full}  peak 10")));
    assert_eq!(row("▔"), format!("{:16}{}", "", "▔".repeat(16)));
    assert_eq!(row("━"), format!("{:16}1{}", "", "━".repeat(15)));
}

#[test]
fn the_command_is_quoted_where_it_must_be() {
    let mut report = empty();
    assert_eq!(words::again(&report), "synod lab run nothing --seed 0");
    report.scenario = "it's; rm".to_string();
    assert_eq!(
        words::again(&report),
        "synod lab run 'it'\\''s; rm' --seed 0"
    );
}

#[test]
fn a_report_survives_json() {
    let report = ordinary();
    let json = serde_json::to_string(&report).expect("a report can be written");
    assert_eq!(
        serde_json::from_str::<Report>(&json).expect("and read"),
        report
    );
}

/// Writes the examples, to look at them, where an environment variable says.
#[test]
fn examples_for_the_eye() {
    let Some(place) = std::env::var_os("SYNOD_REPORT_EXAMPLES") else {
        return;
    };
    let place = std::path::Path::new(&place);
    for (name, report) in all() {
        let name = name.replace(' ', "-");
        for (kind, words) in [("html", html(&report)), ("txt", text(&report))] {
            let path = place.join(format!("{name}.{kind}"));
            std::fs::write(path, words).expect("the place can be written to");
        }
    }
}
