//! Views for who checks the exchange from outside.

use super::Supporter;
use crate::ids::{Mono, NodeId};

impl Supporter {
    pub(in crate::lease) fn given_until(&self, holder: NodeId) -> Option<Mono> {
        self.given.get(&holder).map(|given| given.until)
    }
}
