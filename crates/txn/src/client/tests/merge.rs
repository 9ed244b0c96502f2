//! Scans against a model: pages of pages over several shards, with own writes.

use super::*;
use crate::request::ScanRange;
use crate::types::Row;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn arbitrary_key() -> impl Strategy<Value = Vec<u8>> {
    // Few bytes, so that keys meet; 0 and 255 for the edges.
    proptest::collection::vec(
        prop::sample::select(vec![0u8, 1, b'a', b'b', 254, 255]),
        1..4,
    )
}

fn arbitrary_routes() -> impl Strategy<Value = Routes> {
    proptest::collection::btree_set(arbitrary_key(), 0..4).prop_map(|cuts| {
        let mut starts = vec![Key::new()];
        starts.extend(cuts.into_iter().map(Key::from));
        let ends = starts.iter().skip(1).cloned().chain([Key::new()]);
        let routes = starts.iter().zip(ends).enumerate();
        let route = |(n, (start, end)): (usize, (&Key, Key))| Route {
            shard: GroupId(n as u64 + 2),
            span: Span {
                start: start.clone(),
                end,
            },
            term: None,
        };
        Routes::new(routes.map(route).collect())
    })
}

/// A server that answers at most `most` rows at a time.
fn serve(store: &Model, scan: &ScanRange, most: usize) -> (Vec<Row>, bool) {
    let inside = |key: &[u8]| scan.span.contains(key);
    let mut rows: Vec<Row> = store
        .iter()
        .filter(|(key, _)| inside(key))
        .map(|(key, value)| Row {
            key: Key::from(key.clone()),
            value: Value::from(value.clone()),
            timestamp: Timestamp(1),
        })
        .collect();
    if scan.reverse {
        rows.reverse();
    }
    let bound = most.min(scan.limit as usize);
    let more = rows.len() > bound;
    rows.truncate(bound);
    (rows, more)
}

struct Case {
    routes: Routes,
    store: Model,
    most: usize,
}

impl Case {
    /// All pages of a scan, driven to the end.
    fn scan(
        &self,
        txn: &mut Transaction,
        span: Span,
        limit: u32,
        reverse: bool,
    ) -> Vec<(Key, Value)> {
        let mut all = Vec::new();
        let mut rest = Some(span);
        for _ in 0..10_000 {
            let Some(span) = rest.take() else {
                return all;
            };
            txn.scan(&self.routes, span, limit, reverse, LockMode::Shared)
                .unwrap();
            let page = loop {
                if let Some(done) = txn.take_done() {
                    match done.unwrap() {
                        Done::Page(page) => break page,
                        other => panic!("{other:?}"),
                    }
                }
                for out in txn.take_outgoing() {
                    let answer = self.answer(&out);
                    txn.handle_reply(&self.routes, out.token, Reply::Answer(answer));
                }
            };
            assert!(page.rows.len() <= limit as usize);
            all.extend(page.rows);
            rest = page.rest;
        }
        panic!("the scan does not end");
    }

    fn answer(&self, out: &Outgoing) -> Response {
        let Request::LockedRead {
            scan: Some(scan), ..
        } = &out.request
        else {
            panic!("{out:?}")
        };
        let route = self.routes.of_shard(out.shard).unwrap();
        assert!(
            route.span.contains(&scan.span.start),
            "clipped to the shard"
        );
        let (rows, more) = serve(&self.store, scan, self.most);
        Response::Read {
            term: term(out.shard, 1),
            session: Some(SessionId(1)),
            versions: Vec::new(),
            rows,
            more,
            now: Timestamp(1),
        }
    }
}

proptest! {
    #[test]
    fn merged_scans_equal_the_model(
        routes in arbitrary_routes(),
        store in proptest::collection::btree_map(arbitrary_key(), Just(b"theirs".to_vec()), 0..30),
        own in proptest::collection::btree_map(arbitrary_key(), prop::option::of(Just(b"own".to_vec())), 0..20),
        start in prop::option::of(arbitrary_key()),
        end in prop::option::of(arbitrary_key()),
        limit in 1u32..12,
        most in 1usize..8,
        reverse: bool,
    ) {
        let mut model = store.clone();
        let mut f = Fixture::new(routes.clone());
        for (key, value) in own {
            match value {
                Some(value) => {
                    f.txn.put(key.clone().into(), value.clone().into()).unwrap();
                    model.insert(key, value);
                }
                None => {
                    f.txn.delete(key.clone().into()).unwrap();
                    model.remove(&key);
                }
            }
        }
        let span = Span {
            start: start.unwrap_or_default().into(),
            end: end.unwrap_or_default().into(),
        };
        let mut expected: Vec<(Key, Value)> = model
            .into_iter()
            .filter(|(key, _)| span.contains(key))
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        if reverse {
            expected.reverse();
        }
        let case = Case { routes, store, most };
        prop_assert_eq!(case.scan(&mut f.txn, span, limit, reverse), expected);
    }
}

#[test]
fn a_page_ends_at_its_limit_and_says_where_to_go_on() {
    let store: Model = ["a", "b", "i", "z"]
        .iter()
        .map(|k| (k.as_bytes().to_vec(), b"v".to_vec()))
        .collect();
    let case = Case {
        routes: routes(),
        store,
        most: 100,
    };
    let mut f = Fixture::new(routes());
    f.txn
        .scan(&f.routes, span("", ""), 3, false, LockMode::Shared)
        .unwrap();
    let mut asked = Vec::new();
    while let [out] = &f.txn.take_outgoing()[..] {
        asked.push(out.shard);
        let answer = case.answer(out);
        f.txn
            .handle_reply(&f.routes, out.token, Reply::Answer(answer));
    }
    assert_eq!(asked, [A, B], "C is not visited, hence not locked");
    let Ok(Done::Page(page)) = f.done() else {
        panic!()
    };
    assert_eq!(page.rows.len(), 3);
    assert_eq!(page.rest, Some(span("i\0", "")));
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let row = |name: &str| Row {
        key: key(name),
        value: key("v"),
        timestamp: Timestamp(1),
    };
    for (rows, more) in [
        (vec![row("z")], false),
        (vec![row("b"), row("a")], false),
        (vec![], true),
    ] {
        let mut f = Fixture::new(routes());
        f.txn
            .scan(&f.routes, span("a", "c"), 3, false, LockMode::Shared)
            .unwrap();
        let out = f.txn.take_outgoing();
        let Response::Read { term, session, .. } = read(A, 1, &[]) else {
            panic!()
        };
        f.answer(
            &out[0],
            Response::Read {
                term,
                session,
                versions: Vec::new(),
                rows,
                more,
                now: Timestamp(1),
            },
        );
        assert!(matches!(f.done(), Err(TransactionError::Protocol { .. })));
    }
}
