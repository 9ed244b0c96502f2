//! `[expect]`: what must hold at the end.

use super::check::Mistakes;
use super::file::{self, Names};
use crate::lab::topology::Topology;
use crate::lab::verdict::{Expect, ExpectSite};
use std::time::Duration;
use toml::Spanned;

/// How long after a fault its consequences are excused, if nothing is said.
const GRACE: Duration = Duration::from_secs(2);

/// Checks it.
pub(super) fn check(
    mistakes: &mut Mistakes<'_>,
    given: Option<&Spanned<file::Expect>>,
    topology: &Topology,
    recorded: bool,
) -> Expect {
    let Some(entry) = given else {
        return Expect::default();
    };
    let (at, given) = (entry.span().start, entry.get_ref());
    let mut expect = Expect {
        history: given.history.is_some(),
        lost: given.lost.is_some(),
        healthy: given.healthy == Some(true),
        replicated_within: given.replicated_within.map(|time| time.0),
        sites: Vec::new(),
    };
    if let Some(word) = given.history.as_ref().filter(|word| *word != "ok") {
        mistakes.at(
            at,
            format!("[expect] `history` is `{word}`; only \"ok\" can be expected"),
        );
    }
    if let Some(lost) = given.lost.filter(|lost| *lost != 0) {
        mistakes.at(
            at,
            format!("[expect] `lost` is {lost}; only 0 can be expected"),
        );
    }
    if given.healthy == Some(false) {
        mistakes.at(at, "[expect] `healthy` is true, or not there");
    }
    if !recorded && (expect.history || expect.lost) {
        let text = "[expect] `history` and `lost` need a workload that records a history: bank or \
                    list-append";
        mistakes.at(at, text);
    }
    for entry in &given.site {
        match site(entry.get_ref(), topology) {
            Ok(site) => expect.sites.push(site),
            Err(text) => mistakes.at(entry.span().start, format!("[[expect.site]] {text}")),
        }
    }
    expect
}

fn site(given: &file::ExpectSite, topology: &Topology) -> Result<ExpectSite, String> {
    let with_clients = |site: &usize| topology.dcs[*site].clients > 0;
    let sites = match &given.of {
        Names::One(name) if name == "all" => (0..topology.dcs.len()).filter(with_clients).collect(),
        Names::One(name) => vec![find(name, topology)?],
        Names::Many(names) => {
            let found: Result<Vec<usize>, String> =
                names.iter().map(|name| find(name, topology)).collect();
            found?
        }
    };
    if let Some(site) = sites.iter().find(|site| !with_clients(site)) {
        let name = &topology.dcs[*site].name;
        return Err(format!(
            "`of`: `{name}` has no clients, so that they see nothing"
        ));
    }
    let expect = ExpectSite {
        sites,
        available: given.available_at_least.map(|share| share.0),
        served: given.served_at_least.map(|share| share.0),
        longest_gap: given.longest_gap_at_most.map(|time| time.0),
        p99: given.p99_at_most.map(|time| time.0),
        failed: given.failed_at_most,
        outside_faults: given.outside_faults == Some(true),
        grace: given.grace.map_or(GRACE, |time| time.0),
    };
    if expect.is_empty() {
        return Err(
            "nothing is expected; give available_at_least, served_at_least, longest_gap_at_most, \
             p99_at_most or failed_at_most"
                .to_owned(),
        );
    }
    if given.grace.is_some() && !expect.outside_faults {
        return Err("`grace` goes with `outside_faults = true`".to_owned());
    }
    Ok(expect)
}

fn find(name: &str, topology: &Topology) -> Result<usize, String> {
    topology.dc(name).ok_or_else(|| {
        let names: Vec<&str> = topology.dcs.iter().map(|dc| dc.name.as_str()).collect();
        format!(
            "`of`: there is no data centre `{name}`, only {}, or all",
            names.join(", ")
        )
    })
}
