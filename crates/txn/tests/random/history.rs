//! What must hold of the whole history, once everything has settled.

use super::*;

impl Sim {
    pub(crate) fn check(&self) {
        let versions = self.writers();
        for shard in &self.shards {
            assert_eq!(shard.leader.digest(), shard.follower.digest());
            // With a short window, late copies of questions about what is forgotten
            // get answers that their senders ignore, and count.
            if shard.settings.window_millis > 3_000 {
                assert_eq!(shard.leader.counters().contradictions, 0);
            }
            assert_eq!(shard.leader.overlay_bytes(), 0);
        }
        let mut committed: Vec<(&Done, u64)> = Vec::new();
        for done in &self.history {
            let wrote: Vec<Option<Timestamp>> = done
                .txn
                .writes
                .keys()
                .map(|key| {
                    versions[key]
                        .iter()
                        .find(|v| v.1 == done.txn.attempt)
                        .map(|v| v.0)
                })
                .collect();
            let all = wrote.iter().all(|w| w.is_some() && *w == wrote[0]);
            let none = wrote.iter().all(Option::is_none);
            let name = done.txn.attempt;
            match done.end {
                End::Committed(Some(at)) => {
                    assert!(all, "{name} told committed, applied {wrote:?}: {done:?}");
                    assert_eq!(wrote[0], Some(at), "{name} told another timestamp");
                    committed.push((done, done.ended));
                }
                End::Committed(None) => committed.push((done, done.ended)),
                End::Aborted => assert!(none, "{name} told aborted, applied {wrote:?}: {done:?}"),
                End::Unknown => {
                    assert!(all || none, "{name} is half applied: {wrote:?}");
                    if all && !wrote.is_empty() {
                        committed.push((done, u64::MAX));
                    }
                }
            }
        }
        self.check_order(&committed, &versions);
    }

    pub(crate) fn writers(&self) -> BTreeMap<Key, Vec<(Timestamp, AttemptId, bool)>> {
        let mut all = BTreeMap::new();
        for shard in 0..3 {
            for number in 0..KEYS {
                let key = key(shard, number);
                let versions = self.shards[shard].engine.versions.get(&key);
                let list = versions
                    .into_iter()
                    .flatten()
                    .map(|(at, (attempt, value))| (*at, *attempt, value.is_some()))
                    .collect();
                all.insert(key, list);
            }
        }
        all
    }

    /// Kahn's algorithm over ww, wr, rw and real-time edges.
    pub(crate) fn check_order(
        &self,
        committed: &[(&Done, u64)],
        versions: &BTreeMap<Key, Vec<(Timestamp, AttemptId, bool)>>,
    ) {
        let index: BTreeMap<AttemptId, usize> = committed
            .iter()
            .enumerate()
            .map(|(i, (done, _))| (done.txn.attempt, i))
            .collect();
        let count = committed.len();
        let mut edges = vec![BTreeSet::new(); count];
        for list in versions.values() {
            for pair in list.windows(2) {
                edges[index[&pair[0].1]].insert(index[&pair[1].1]);
            }
            for (_, attempt, _) in list {
                assert!(index.contains_key(attempt), "{attempt} wrote, uncommitted");
            }
        }
        for (reader, (done, _)) in committed.iter().enumerate() {
            for (key, seen) in &done.txn.reads {
                let list = &versions[key];
                let next = match seen {
                    None if list.iter().any(|v| !v.2) => continue,
                    None => list.first(),
                    Some(writer) => {
                        let at = list.iter().position(|v| v.1 == *writer);
                        let at = at.unwrap_or_else(|| {
                            panic!("{} read {writer}, which never committed", done.txn.attempt)
                        });
                        if index[writer] != reader {
                            edges[index[writer]].insert(reader);
                        }
                        list.get(at + 1)
                    }
                };
                if let Some((_, writer, _)) = next
                    && index[writer] != reader
                {
                    edges[reader].insert(index[writer]);
                }
            }
        }
        for (before, (_, ended)) in committed.iter().enumerate() {
            for (after, (done, _)) in committed.iter().enumerate() {
                if *ended < done.txn.started {
                    edges[before].insert(after);
                }
            }
        }
        let mut degree = vec![0; count];
        for targets in &edges {
            for target in targets {
                degree[*target] += 1;
            }
        }
        let mut free: Vec<usize> = (0..count).filter(|i| degree[*i] == 0).collect();
        let mut ordered = 0;
        while let Some(node) = free.pop() {
            ordered += 1;
            for target in &edges[node] {
                degree[*target] -= 1;
                if degree[*target] == 0 {
                    free.push(*target);
                }
            }
        }
        if ordered < count {
            for node in shortest_cycle(&edges, &degree) {
                eprintln!("{node}: {:?}", committed[node].0);
            }
            panic!("not strictly serializable");
        }
    }
}

/// The shortest cycle among the nodes that could not be ordered.
fn shortest_cycle(edges: &[BTreeSet<usize>], degree: &[usize]) -> Vec<usize> {
    let mut best: Vec<usize> = Vec::new();
    for start in (0..edges.len()).filter(|n| degree[*n] > 0) {
        let mut before: BTreeMap<usize, usize> = BTreeMap::new();
        let mut queue = std::collections::VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for target in &edges[node] {
                if !before.contains_key(target) {
                    before.insert(*target, node);
                    queue.push_back(*target);
                }
            }
        }
        let mut path = Vec::new();
        let mut node = before.get(&start).copied();
        while let Some(at) = node {
            path.push(at);
            node = before.get(&at).copied().filter(|_| at != start);
        }
        if !path.is_empty() && (best.is_empty() || path.len() < best.len()) {
            path.reverse();
            best = path;
        }
    }
    best
}
