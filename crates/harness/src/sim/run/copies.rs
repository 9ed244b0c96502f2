//! Requests that the network brings twice.
//!
//! A request is a QUIC stream of its own, which is delivered once. The simulated
//! network is worse than that: it brings copies of requests that were let in, long
//! after, as this is what T7 is about. But once a node has turned a request away it
//! brings no copy: the client may have told its caller that nothing was proposed,
//! which is only as true as that nothing comes after it.

use std::collections::BTreeMap;

/// How far a request got that is brought twice.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    arrived: bool,
    turned_away: bool,
}

/// Requests that are under way twice, by client and number.
#[derive(Debug, Default)]
pub(super) struct Copies(BTreeMap<(usize, u64), Progress>);

impl Copies {
    /// A request is sent, and brought twice.
    pub(super) fn sent(&mut self, client: usize, number: u64) {
        self.0.insert((client, number), Progress::default());
    }

    /// A node says that nothing was proposed for a request.
    pub(super) fn turned_away(&mut self, client: usize, number: u64) {
        if let Some(progress) = self.0.get_mut(&(client, number)) {
            progress.turned_away = true;
        }
    }

    /// A request comes. Returns whether it does so indeed; else it is a copy of one
    /// that was turned away.
    pub(super) fn arrives(&mut self, client: usize, number: u64) -> bool {
        let Some(progress) = self.0.get_mut(&(client, number)) else {
            return true;
        };
        let comes = !progress.turned_away;
        if std::mem::replace(&mut progress.arrived, true) {
            self.0.remove(&(client, number));
        }
        comes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_comes_unless_the_first_was_turned_away() {
        let mut copies = Copies::default();
        for number in [1, 2] {
            copies.sent(0, number);
            assert!(copies.arrives(0, number));
        }
        copies.turned_away(0, 1);
        copies.turned_away(0, 3);
        assert!(!copies.arrives(0, 1) && copies.arrives(0, 2));
        assert!(copies.arrives(0, 3), "nobody sent it twice");
        assert!(copies.0.is_empty());
    }
}
