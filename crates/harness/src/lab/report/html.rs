//! The page: one file that needs nothing else.

use super::data::{Report, Site};
use super::faults::numbered;
use super::picture::{Shape, draw, escape, is_crowded};
use super::{columns, words};
use std::fmt::Write as _;

const STYLE: &str = include_str!("page.css");

/// One page for a browser, complete in itself: no script, no font and nothing from
/// the network; for light and dark, for screens and phones.
#[must_use]
pub fn html(report: &Report) -> String {
    let title = escape(&report.scenario);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        words::outcome(report)
    );
    head(&mut page, report);
    verdicts(&mut page, report);
    pictures(&mut page, report);
    sites(&mut page, report);
    faults(&mut page, report);
    links(&mut page, report);
    notes(&mut page, report);
    let again = escape(&words::again(report));
    let _ = write!(
        page,
        "<h2>Run it again</h2>\n<pre>{again}</pre>\n</main>\n</body>\n</html>\n"
    );
    page
}

/// The title, the outcome and the run in numbers.
fn head(page: &mut String, report: &Report) {
    let (broken, total) = words::broken_of(report);
    let (class, sign) = match (broken, total) {
        (_, 0) => ("", "–"),
        (0, _) => ("good", "✓"),
        _ => ("bad", "✗"),
    };
    let outcome = first_upper(&words::outcome(report));
    let scenario = escape(&report.scenario);
    let _ = writeln!(
        page,
        "<p class=\"kicker\">Synod fault lab</p>\n<h1>{scenario}</h1>"
    );
    if !report.about.is_empty() {
        let _ = writeln!(page, "<p>{}</p>", escape(&report.about));
    }
    let _ = writeln!(
        page,
        "<p class=\"outcome {class}\"><b>{sign}</b> {outcome}</p>"
    );
    tiles(page, report);
    let clients = words::over_sites(report, |site| site.clients as u64);
    let began = words::utc(report.began_unix_millis);
    let ran = words::moment(report.run_millis);
    let facts = [
        ("Began", format!("{began}, ran for {ran}")),
        ("Cluster", words::cluster(report)),
        ("Clients", words::count(clients)),
        ("Workload", report.workload.clone()),
        ("Seed", report.seed.to_string()),
        ("Version", report.version.clone()),
    ];
    page.push_str("<dl>\n");
    for (name, fact) in facts.iter().filter(|(_, fact)| !fact.is_empty()) {
        let _ = writeln!(page, "<dt>{name}</dt><dd>{}</dd>", escape(fact));
    }
    page.push_str("</dl>\n");
}

/// The few numbers that are looked for first.
fn tiles(page: &mut String, report: &Report) {
    let sum = |part: fn(&Site) -> u64| words::over_sites(report, part);
    let longest = report
        .sites
        .iter()
        .max_by_key(|site| site.longest_gap_millis);
    let gap = longest.map_or(0, |site| site.longest_gap_millis);
    let place = longest
        .filter(|_| gap > 0)
        .map(|site| format!(", {}", site.name));
    let seconds = report.run_millis.max(1) as f64 / 1e3;
    let ok = sum(|site| site.total.ok);
    let rate = words::short(ok as f64 / seconds);
    let tiles = [
        (words::count(ok), format!("succeeded, {rate} per second")),
        (
            words::count(sum(|site| site.total.failed)),
            "failed".to_string(),
        ),
        (
            words::count(sum(|site| site.total.unknown)),
            "unknown".to_string(),
        ),
        (
            words::lasted(gap),
            format!("longest gap{}", place.unwrap_or_default()),
        ),
    ];
    page.push_str("<div class=\"tiles\">\n");
    for (number, what) in tiles {
        let _ = writeln!(
            page,
            "<div><b>{number}</b><span>{}</span></div>",
            escape(&what)
        );
    }
    page.push_str("</div>\n");
}

/// A table; columns whose name begins with `#` hold numbers, those with `!` words
/// that stay in one line. Cells are markup already. One that is `stacked` has its
/// cells below each other on a phone, each with its column's name.
fn table(page: &mut String, is_stacked: bool, columns: &[&str], rows: &[Vec<String>]) {
    let class = |name: &str| match name.as_bytes().first() {
        Some(b'#') => " class=\"n\"",
        Some(b'!') => " class=\"s\"",
        _ => "",
    };
    let kind = if is_stacked { " class=\"stacked\"" } else { "" };
    let _ = write!(page, "<div class=\"scroll\"><table{kind}>\n<thead><tr>");
    for name in columns {
        let shown = name.trim_start_matches(['#', '!']);
        let _ = write!(page, "<th{}>{shown}</th>", class(name));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        page.push_str("<tr>");
        for (name, cell) in columns.iter().zip(row) {
            let shown = name.trim_start_matches(['#', '!']);
            let data = if is_stacked {
                format!(" data-name=\"{shown}\"")
            } else {
                String::new()
            };
            let _ = write!(page, "<td{}{data}>{cell}</td>", class(name));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n");
}

fn held(held: bool) -> String {
    let (class, words) = if held {
        ("good", "✓ holds")
    } else {
        ("bad", "✗ broken")
    };
    format!("<b class=\"{class}\">{words}</b>")
}

fn verdicts(page: &mut String, report: &Report) {
    page.push_str("<h2>Checks</h2>\n");
    // What broke is what is read first.
    let mut verdicts: Vec<_> = report.verdicts.iter().collect();
    verdicts.sort_by_key(|verdict| verdict.held);
    let mut rows: Vec<Vec<String>> = Vec::new();
    for verdict in verdicts {
        let texts = [&verdict.name, &verdict.wanted, &verdict.seen];
        let mut row = vec![held(verdict.held)];
        row.extend(texts.map(|text| escape(text)));
        rows.push(row);
    }
    if let Some(history) = &report.history {
        let wanted = format!(
            "no violation in {} operations",
            words::count(history.operations)
        );
        rows.push(vec![
            held(history.ok),
            format!("history: {}", escape(&history.kind)),
            wanted,
            escape(&history.words),
        ]);
    }
    if rows.is_empty() {
        page.push_str("<p class=\"muted\">The scenario asks for none.</p>\n");
    } else {
        table(page, true, &["!", "what", "wanted", "seen"], &rows);
    }
}

fn pictures(page: &mut String, report: &Report) {
    if report.sites.is_empty() && report.faults.is_empty() {
        return;
    }
    let band = if is_crowded(report) {
        "fault done to the site"
    } else {
        "fault; pale at the sites it was not done to"
    };
    let _ = writeln!(
        page,
        "<h2>What the clients saw</h2>\n<p class=\"key\">\
         <span><i class=\"k-ok\"></i>succeeded</span><span><i class=\"k-failed\"></i>failed</span>\
         <span><i class=\"k-unknown\"></i>unknown: it may have happened</span>\
         <span><i class=\"k-band\"></i>{band}</span></p>"
    );
    page.push_str(&draw(report, Shape::Wide));
    page.push_str(&draw(report, Shape::Narrow));
    let mut words = "Time is in seconds since the run began. Latency has the same axis at every \
                     site, successes per second each its own."
        .to_string();
    let fewest = Shape::Narrow.columns();
    if report.sites.iter().any(|site| site.buckets.len() > fewest) {
        words += " Where there are more measurements than room, several share a column: its p50 \
                  is their median, its p99 their highest.";
    }
    let _ = writeln!(page, "<p class=\"small\">{words}</p>");
}

/// A name that stays in one line, if it is not too long for that.
fn whole(name: &str) -> String {
    if name.chars().count() > 24 {
        return escape(name);
    }
    format!("<span class=\"s\">{}</span>", escape(name))
}

fn sites(page: &mut String, report: &Report) {
    if report.sites.is_empty() {
        return;
    }
    page.push_str("<h2>Sites</h2>\n");
    let row = |site: &Site| {
        let total = &site.total;
        let mut row = vec![
            whole(&site.name),
            whole(&site.region),
            words::count(site.clients as u64),
        ];
        row.extend([total.ok, total.failed, total.unknown].map(words::count));
        let latencies = [
            total.p50_micros,
            total.p99_micros,
            total.p999_micros,
            total.max_micros,
        ];
        row.extend(latencies.map(words::micros));
        row.push(words::gap(site));
        let nodes: Vec<String> = site.nodes.iter().map(|node| whole(node)).collect();
        row.push(nodes.join(", "));
        row
    };
    let rows: Vec<_> = report.sites.iter().map(row).collect();
    let columns = [
        "site",
        "region",
        "#clients",
        "#succeeded",
        "#failed",
        "#unknown",
        "#p50",
        "#p99",
        "#p99.9",
        "#max",
        "#longest gap",
        "nodes",
    ];
    table(page, false, &columns, &rows);
}

fn faults(page: &mut String, report: &Report) {
    if report.faults.is_empty() {
        return;
    }
    page.push_str("<h2>Faults</h2>\n");
    let row = |fault: &super::faults::Numbered<'_>| {
        vec![
            fault.number.to_string(),
            escape(&fault.when()),
            escape(&fault.mark.what),
            escape(&fault.mark.on.join(", ")),
        ]
    };
    let rows: Vec<_> = numbered(report, columns::end_millis(report))
        .iter()
        .map(row)
        .collect();
    table(page, true, &["!no.", "!when", "what", "on"], &rows);
}

fn links(page: &mut String, report: &Report) {
    if report.links.is_empty() {
        return;
    }
    page.push_str("<h2>Links</h2>\n");
    let row = |link: &super::data::LinkInfo| {
        vec![
            format!("{} – {}", whole(&link.a), whole(&link.b)),
            words::micros(link.rtt_micros),
            words::percent(link.loss),
        ]
    };
    let rows: Vec<_> = report.links.iter().map(row).collect();
    table(
        page,
        false,
        &["between", "#there and back", "#packets lost"],
        &rows,
    );
}

fn notes(page: &mut String, report: &Report) {
    if report.notes.is_empty() {
        return;
    }
    page.push_str("<h2>Notes</h2>\n<ul>\n");
    for note in &report.notes {
        let _ = writeln!(page, "<li>{}</li>", escape(note));
    }
    page.push_str("</ul>\n");
}

fn first_upper(words: &str) -> String {
    let mut chars = words.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}
