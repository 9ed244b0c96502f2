//! Writes the seed corpus: encoded values of every shape, and texts and files
//! that a user would write. Run it again when a type on the wire grows:
//! `cargo run --example seeds`. What is there already stays.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;
use synod_fuzz::codec::{encoded, seeds, values};

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, inputs) in all() {
        let directory = root.join(target);
        std::fs::create_dir_all(&directory)?;
        for (number, input) in inputs.into_iter().enumerate() {
            let path = directory.join(format!("seed-{number:02}"));
            if !path.exists() {
                std::fs::write(path, input)?;
            }
        }
    }
    Ok(())
}

type Inputs = Vec<Vec<u8>>;

fn all() -> Vec<(&'static str, Inputs)> {
    let choices = |count: u64, length: usize| -> Inputs {
        (0..count)
            .map(|seed| values::choices(seed, length))
            .collect()
    };
    vec![
        ("frames", frames()),
        ("client_frame", seeds::<synod_rpc::ClientFrame>(24)),
        ("server_frame", seeds::<synod_rpc::ServerFrame>(24)),
        ("node_frame", seeds::<synod_shard::NodeMessage>(32)),
        ("hello", hellos()),
        ("values", choices(24, 200)),
        ("command", seeds::<synod_txn::Command>(24)),
        ("checkpoint", checkpoints()),
        (
            "snapshot_piece",
            seeds::<synod_shard::wire::SnapshotPiece>(8),
        ),
        ("record", seeds::<synod_kv::log::LogRecord>(24)),
        ("log_crashes", choices(8, 150)),
        ("log_damage", choices(8, 120)),
        ("log_segment", choices(4, 700)),
        ("certificate", certificates()),
        (
            "locality",
            texts(&[
                "",
                "region=eu,dc=eu-1,rack=r1,host=h7",
                "dc=a,dc=b",
                "rack=r",
                "zone=a",
            ]),
        ),
        ("script", texts(SCRIPTS)),
        (
            "configuration",
            texts(&[
                include_str!("../../synod.sample.toml"),
                "[node]\nname = \"n1\"\nlisten = \"127.0.0.1:7001\"\ndata_dir = \"d\"\n\
                 ca = \"ca.crt\"\ncert = \"/x/n.crt\"\nkey = \"n.key\"\nlocality = \"dc=a\"\n\
                 engine = \"redb\"\n[log]\nsegment_bytes = 1048576\n[timing]\nlease_millis = 600\n",
                "[client]\nendpoints = [\"127.0.0.1:7001\"]\nca = \"ca.crt\"\n",
                "[nod]\n",
            ]),
        ),
        (
            "argument",
            texts(&[
                "30ms", "1.5s", "2m", "500us", "x'00ff'", "x'0'", "plain", "x'",
            ]),
        ),
        ("clients", choices(12, 1_200)),
        ("peers", choices(12, 1_200)),
    ]
}

fn texts(texts: &[&str]) -> Inputs {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

const SCRIPTS: &[&str] = &[
    "begin\n  let a = get accounts/alice for update default 0\n  require ${a} >= 30\n  \
     put accounts/alice ${a - 30}\n  delete holds/42\n  scan accounts/ limit 10\n  \
     savepoint s1\n  rollback to s1\ncommit\n",
    "begin read-only # a comment\nscan a b limit 3 reverse\nrollback\n",
    "put \"quoted \\x00 \\\" \\\\ \\n \\t \\$\" x'00ff' · get k\n",
    "let n = get k default 7\nput k ${-(n + 1) * 2 / 3 % 5}\nput \"a ${n} b\" c${n}d\n",
    "begin optimistic\nbegin read-only stale 5s\ncommit",
    "put k \"open\nrequire 1 == 1\n",
];

fn frames() -> Inputs {
    let mut inputs = Inputs::new();
    for message in seeds::<synod_shard::NodeMessage>(6) {
        let mut frame = (message.len() as u32).to_le_bytes().to_vec();
        frame.extend_from_slice(&message);
        frame.extend_from_slice(&[0, 0, 0, 0, 9, 0]);
        inputs.push(frame);
    }
    inputs.push(vec![0xff; 6]);
    inputs
}

fn hellos() -> Inputs {
    let mut inputs = Inputs::new();
    for choice in 0..8 {
        let hello = values::value::<synod_rpc::hello::StreamHello>(&values::choices(choice, 60));
        inputs.extend(hello.map(|hello| {
            let mut out = bytes::BytesMut::new();
            hello.encode(&mut out);
            out.to_vec()
        }));
    }
    inputs
}

fn checkpoints() -> Inputs {
    let mut inputs = Inputs::new();
    for choice in 0..16 {
        let state = values::value::<synod_txn::state::State>(&values::choices(choice, 500));
        inputs.extend(state.map(|state| {
            let mut checkpoint = vec![1];
            checkpoint.extend(encoded(&state));
            checkpoint
        }));
    }
    inputs
}

/// Certificates that `synod cert` makes. Their keys are forgotten at once.
fn certificates() -> Inputs {
    let directory = std::env::temp_dir().join(format!("synod-seeds-{}", std::process::id()));
    let validity = synod_rpc::cert::Validity::default();
    let made = synod_rpc::cert::create_ca(&directory, "seeds")
        .and_then(|_| synod_rpc::cert::issue_node(&directory, "n1", &validity))
        .and_then(|_| synod_rpc::cert::issue_user(&directory, "admin.x_1", &validity));
    let mut inputs = Inputs::new();
    if made.is_ok() {
        for name in ["ca.crt", "node-n1.crt", "user-admin.x_1.crt"] {
            let pem = std::fs::read(directory.join(name)).unwrap_or_default();
            inputs.extend(CertificateDer::from_pem_slice(&pem).map(|der| der.to_vec()));
        }
    }
    let _ = std::fs::remove_dir_all(directory);
    inputs
}
