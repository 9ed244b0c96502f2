//! Views for who checks the exchange from outside.

use super::NodeLease;
use crate::ids::{Mono, NodeId};

impl NodeLease {
    /// Until when, by its own clock, this node's support for `holder` stands; it
    /// may be past. None if none was given since the start.
    #[must_use]
    pub fn supported_until(&self, holder: NodeId) -> Option<Mono> {
        self.supporter.given_until(holder)
    }
}
