//! etcd's client, used as well as it can be: straight to the leader, over
//! several connections, and with as few round trips as its API allows.

use crate::error::Error;
use crate::system::Row;
use etcd_client::{
    Client, Compare, CompareOp, GetOptions, GetResponse, KvClient, Txn, TxnOp, TxnOpResponse,
};
use std::cell::Cell;
use std::rc::Rc;

/// Operations that one etcd transaction may hold, by its default settings.
pub const MAX_OPS: usize = 128;
/// How often one transaction is tried at most.
const MAX_ATTEMPTS: u32 = 10_000;

/// Connections to one member, used in turn.
#[derive(Clone)]
pub struct Session {
    connections: Rc<Vec<KvClient>>,
    next: Rc<Cell<usize>>,
}

/// What a key holds, and since which revision (0: it does not exist).
struct Held {
    value: Option<Vec<u8>>,
    revision: i64,
}

impl Session {
    /// Connects to the member with this URL.
    ///
    /// # Errors
    /// The client's.
    pub async fn connect(url: &str, connections: usize) -> Result<Session, Error> {
        let mut all = Vec::new();
        for _ in 0..connections.max(1) {
            all.push(Client::connect([url], None).await?.kv_client());
        }
        Ok(Session {
            connections: Rc::new(all),
            next: Rc::default(),
        })
    }

    fn kv(&self) -> KvClient {
        let next = self.next.get();
        self.next.set(next.wrapping_add(1));
        self.connections[next % self.connections.len()].clone()
    }

    /// Writes one key.
    ///
    /// # Errors
    /// The client's.
    pub async fn put(&self, key: &str, value: &[u8]) -> Result<u32, Error> {
        self.kv().put(key, value, None).await?;
        Ok(1)
    }

    /// A linearizable read.
    ///
    /// # Errors
    /// The client's.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let mut found = self.kv().get(key, None).await?;
        let row = found.take_kvs().into_iter().next();
        Ok(row.map(|row| row.into_key_value().1))
    }

    /// A linearizable range read.
    ///
    /// # Errors
    /// The client's.
    pub async fn scan(&self, from: &str, end: &str, rows: u32) -> Result<usize, Error> {
        let options = GetOptions::new().with_range(end).with_limit(rows.into());
        let found = self.kv().get(from, Some(options)).await?;
        Ok(found.kvs().len())
    }

    /// The same, with what was read.
    ///
    /// # Errors
    /// The client's.
    pub async fn rows(&self, from: &str, end: &str, rows: u32) -> Result<Vec<Row>, Error> {
        let options = GetOptions::new().with_range(end).with_limit(rows.into());
        let mut found = self.kv().get(from, Some(options)).await?;
        let rows = found.take_kvs().into_iter();
        Ok(rows.map(etcd_client::KeyValue::into_key_value).collect())
    }

    /// Optimistic: reads all keys in one request, then writes them in one
    /// transaction that compares what was read. One that lost brings the new
    /// values back in the same answer, and is tried again at once.
    ///
    /// # Errors
    /// The client's, or `Wrong` after very many attempts.
    pub async fn update(
        &self,
        keys: &[String],
        change: &impl Fn(&[Option<&[u8]>]) -> Vec<Vec<u8>>,
    ) -> Result<u32, Error> {
        let mut kv = self.kv();
        let reads = || -> Vec<TxnOp> {
            let get = |key: &String| TxnOp::get(key.as_str(), None);
            keys.iter().map(get).collect()
        };
        let read = kv.txn(Txn::new().and_then(reads())).await?;
        let mut held = held(read.op_responses(), keys.len())?;
        for attempt in 1..=MAX_ATTEMPTS {
            let values: Vec<Option<&[u8]>> = held.iter().map(|h| h.value.as_deref()).collect();
            let new = change(&values);
            let compares: Vec<Compare> = (keys.iter().zip(&held))
                .map(|(key, h)| Compare::mod_revision(key.as_str(), CompareOp::Equal, h.revision))
                .collect();
            let puts: Vec<TxnOp> = (keys.iter().zip(new))
                .map(|(key, value)| TxnOp::put(key.as_str(), value, None))
                .collect();
            let txn = Txn::new().when(compares).and_then(puts).or_else(reads());
            let done = kv.txn(txn).await?;
            if done.succeeded() {
                return Ok(attempt);
            }
            held = self::held(done.op_responses(), keys.len())?;
        }
        let reason = format!("a transaction lost {MAX_ATTEMPTS} times");
        Err(Error::Wrong(reason))
    }

    /// One transaction of puts without a condition.
    ///
    /// # Errors
    /// The client's.
    pub async fn put_all(&self, rows: &[(String, Vec<u8>)]) -> Result<u32, Error> {
        let put =
            |(key, value): &(String, Vec<u8>)| TxnOp::put(key.as_str(), value.as_slice(), None);
        let puts: Vec<TxnOp> = rows.iter().map(put).collect();
        self.kv().txn(Txn::new().and_then(puts)).await?;
        Ok(1)
    }

    /// One round trip: writes all keys if each of them exists.
    ///
    /// # Errors
    /// The client's, or `Wrong` if one does not exist.
    pub async fn put_if_all_exist(&self, rows: &[(String, Vec<u8>)]) -> Result<u32, Error> {
        let exists = |(key, _): &(String, Vec<u8>)| {
            Compare::create_revision(key.as_str(), CompareOp::Greater, 0)
        };
        let compares: Vec<Compare> = rows.iter().map(exists).collect();
        let put =
            |(key, value): &(String, Vec<u8>)| TxnOp::put(key.as_str(), value.as_slice(), None);
        let puts: Vec<TxnOp> = rows.iter().map(put).collect();
        let txn = Txn::new().when(compares).and_then(puts);
        if self.kv().txn(txn).await?.succeeded() {
            return Ok(1);
        }
        Err(Error::Wrong(
            "a key that was filled in is missing".to_owned(),
        ))
    }
}

fn held(responses: Vec<TxnOpResponse>, wanted: usize) -> Result<Vec<Held>, Error> {
    let one = |mut read: GetResponse| match read.take_kvs().into_iter().next() {
        Some(row) => Held {
            revision: row.mod_revision(),
            value: Some(row.into_key_value().1),
        },
        None => Held {
            value: None,
            revision: 0,
        },
    };
    let all: Vec<Held> = responses
        .into_iter()
        .filter_map(|response| match response {
            TxnOpResponse::Get(read) => Some(one(read)),
            _ => None,
        })
        .collect();
    if all.len() == wanted {
        return Ok(all);
    }
    let found = all.len();
    Err(Error::Wrong(format!(
        "asked for {wanted} keys, told {found}"
    )))
}
