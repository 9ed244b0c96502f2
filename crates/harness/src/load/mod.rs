//! Load: many clients that do one operation over and over, and how long each
//! took. Closed loops show what a cluster can do, open ones how long a user
//! waits at a given load.
//!
//! What the operations are is the caller's business; nothing here knows Synod.

mod closed;
mod keys;
mod open;
mod pace;
mod tally;
mod zipf;

pub use closed::{Closed, closed};
pub use keys::Keys;
pub use open::{Open, open};
pub use tally::{Measured, Tally};
pub use zipf::Zipf;
