//! Certificates: what `cert` writes, and whom TLS turns away.

mod common;

use common::*;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};
use synod_rpc::cert::{self, CertFiles, Subject, Validity};
use synod_rpc::error::{CertError, IdentityError};
use synod_rpc::{CallError, CertRole, Endpoint, Pool, PoolOptions, RpcError, TlsIdentity};

#[test]
fn files_are_as_promised_and_never_overwritten() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("deep/certs");
    assert!(matches!(
        cert::issue_node(dir.path(), "a", &Validity::default()),
        Err(CertError::NoCa { .. })
    ));
    let cluster = cert::create_ca(&place, "prod-1").expect("a CA");
    let node = cert::issue_node(&place, "n.1_x-y", &Validity::days(10)).expect("a node");
    let user = cert::issue_user(&place, "ann", &Validity::days(10)).expect("a user");
    assert_eq!(node.certificate, place.join("node-n.1_x-y.crt"));
    assert_eq!(user.key, place.join("user-ann.key"));
    for key in [&node.key, &user.key, &CertFiles::ca(&place).key] {
        let mode = key.metadata().expect("it exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", key.display());
    }
    let before = std::fs::read(&user.key).expect("readable");
    for refused in [
        cert::create_ca(&place, "again").map(|_| ()),
        cert::issue_node(&place, "n.1_x-y", &Validity::default()).map(|_| ()),
        cert::issue_user(&place, "ann", &Validity::default()).map(|_| ()),
    ] {
        assert!(
            matches!(refused, Err(CertError::Exists { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(std::fs::read(&user.key).expect("readable"), before);
    for name in ["", "../x", "a b", ".hidden", "ä", &"x".repeat(49)] {
        let refused = cert::issue_user(&place, name, &Validity::default());
        assert!(matches!(refused, Err(CertError::Name { .. })), "{name:?}");
    }
    let identity = TlsIdentity::from_dir(&place, CertRole::Node, "n.1_x-y").expect("good");
    assert_eq!(identity.cluster(), cluster.as_u128());
    assert_eq!(
        identity.subject(),
        &Subject {
            role: CertRole::Node,
            name: "n.1_x-y".to_owned()
        }
    );
}

#[test]
fn a_useless_identity_is_refused_when_it_is_loaded() {
    let ours = certificates();
    let theirs = certificates();
    let load = |ca: &tempfile::TempDir, crt: &str, key: &str| {
        TlsIdentity::from_files(
            &ca.path().join("ca.crt"),
            &ours.path().join(crt),
            &ours.path().join(key),
        )
    };
    assert!(load(&ours, "node-a.crt", "node-a.key").is_ok());
    let mixed = load(&ours, "node-a.crt", "node-b.key");
    assert!(
        matches!(mixed, Err(IdentityError::KeyMismatch { .. })),
        "{mixed:?}"
    );
    let foreign = load(&theirs, "node-a.crt", "node-a.key").expect_err("another CA");
    assert!(
        foreign.to_string().contains("not issued by the CA given"),
        "{foreign}"
    );
    let missing = load(&ours, "node-z.crt", "node-a.key").expect_err("no file");
    assert!(missing.to_string().contains("node-z.crt"), "{missing}");
    let swapped = load(&ours, "node-a.key", "node-a.crt");
    assert!(
        matches!(swapped, Err(IdentityError::Pem { .. })),
        "{swapped:?}"
    );
    let no_ca = TlsIdentity::from_files(
        &ours.path().join("node-a.crt"),
        &ours.path().join("node-a.crt"),
        &ours.path().join("node-a.key"),
    );
    assert!(
        matches!(no_ca, Err(IdentityError::Subject { .. })),
        "{no_ca:?}"
    );
    let past = Validity {
        not_before: SystemTime::now() - Duration::from_secs(7200),
        not_after: SystemTime::now() - Duration::from_secs(3600),
    };
    cert::issue_user(ours.path(), "old", &past).expect("issued");
    let expired = load(&ours, "user-old.crt", "user-old.key").expect_err("expired");
    assert!(expired.to_string().contains("has expired"), "{expired}");
}

#[tokio::test]
async fn a_user_is_no_server() {
    let dir = certificates();
    let refused = Endpoint::bind(LOOPBACK, &user_identity(dir.path()), options(1, 1));
    match refused {
        Err(RpcError::Tls(reason)) => assert!(reason.contains("not a node's"), "{reason}"),
        _ => panic!("a user's certificate was taken for a node's"),
    }
}

#[tokio::test]
async fn clusters_do_not_talk_to_each_other() {
    let ours = certificates();
    let theirs = certificates();
    let (_node, address) = bind(ours.path(), "a", options(1, 1));
    let stranger =
        Pool::new(&user_identity(theirs.path()), PoolOptions::default()).expect("a pool");
    match stranger.call(address, ask("x"), soon()).await {
        Err(CallError::Refused { reason, .. }) => {
            assert!(
                reason.contains("not issued by the cluster's CA"),
                "{reason}"
            );
        }
        other => panic!("unexpected {other:?}"),
    }
}

/// A certificate that expires between loading and use: the other side says so.
#[tokio::test]
async fn an_expired_certificate_is_refused_with_advice() {
    let dir = certificates();
    let (node, address) = bind(dir.path(), "a", options(1, 1));
    let brief = Validity {
        not_before: SystemTime::now() - Duration::from_secs(3600),
        not_after: SystemTime::now() + Duration::from_secs(2),
    };
    let files = cert::issue_user(dir.path(), "brief", &brief).expect("issued");
    let identity = TlsIdentity::from_files(
        &CertFiles::ca(dir.path()).certificate,
        &files.certificate,
        &files.key,
    )
    .expect("still good");
    until("it has expired", || {
        SystemTime::now() > brief.not_after + Duration::from_secs(1)
    })
    .await;
    let pool = Pool::new(&identity, PoolOptions::default()).expect("a pool");
    match pool.call(address, ask("x"), soon()).await {
        Err(CallError::Refused { reason, .. }) => {
            assert!(reason.contains("has expired"), "{reason}");
        }
        other => panic!("unexpected {other:?}"),
    }
    until("the node has counted it", || node.counters().refused == 1).await;

    // A fresh certificate is taken without a new pool; the node takes one too.
    pool.reload(&user_identity(dir.path())).expect("good");
    node.reload(&node_identity(dir.path(), "b")).expect("good");
    tokio::select! {
        () = echo(&node) => unreachable!("the echo never ends"),
        _ = insist(&pool, address) => {}
    }
    let theirs = certificates();
    assert!(pool.reload(&user_identity(theirs.path())).is_err());
    assert!(node.reload(&node_identity(theirs.path(), "a")).is_err());
}

#[tokio::test]
async fn a_node_shows_the_certificate_that_it_was_given_last() {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let dir = certificates();
    let (node, address) = bind(dir.path(), "a", options(1, 1));
    let shown = async || {
        let connection = raw(dir.path(), "user-ann", address).await;
        let identity = connection.peer_identity().expect("it shows one");
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>();
        chain.expect("certificates").first().cloned()
    };
    let file = dir.path().join("node-a.crt");
    let on_disk = || CertificateDer::from_pem_file(&file).ok();
    let old = on_disk();
    assert_eq!(shown().await, old);
    for file in ["node-a.crt", "node-a.key"] {
        std::fs::remove_file(dir.path().join(file)).expect("it is there");
    }
    cert::issue_node(dir.path(), "a", &Validity::days(1)).expect("issued");
    assert_eq!(shown().await, old, "files alone change nothing");
    let new = TlsIdentity::from_dir(dir.path(), CertRole::Node, "a").expect("good");
    node.reload(&new).expect("it is taken");
    assert_ne!(on_disk(), old);
    assert_eq!(shown().await, on_disk());
}
