//! The SDK against a fake cluster: three nodes, two shards, no locks, and
//! faults on demand.

mod bank;
mod calls;
mod commits;
mod fake;
mod groups;
mod routing;
mod splits;

pub(crate) use fake::Fake;
use fake::{A, B, C, Fault};
pub(crate) use groups::Groups;

use crate::{Client, Config, Error, Identity, Transaction};
use std::time::Duration;

/// A client of a fake cluster, impatient where that makes tests short.
pub(crate) async fn client(fake: &Fake) -> Client {
    let identity = Identity::Pem {
        ca: Vec::new(),
        cert: Vec::new(),
        key: Vec::new(),
    };
    let mut config = Config::new(Vec::<String>::new(), identity);
    config.timeout = Duration::from_secs(5);
    config.probe_after = Duration::from_millis(20);
    let transport = crate::transport::Transport::Fake(fake.clone());
    Client::start(config, transport, fake.addresses())
        .await
        .expect("a fake cluster answers")
}

/// Wait until something the client does without a caller has happened.
pub(crate) async fn eventually(what: impl Fn() -> bool) {
    for _ in 0..1000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("it never happened");
}
