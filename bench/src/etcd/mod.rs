//! etcd: three members on loopback, asked through its Rust client.

mod members;
mod session;

pub use members::Members;
pub use session::{MAX_OPS, Session};
