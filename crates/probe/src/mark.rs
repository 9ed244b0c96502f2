//! Marks on rare paths.

macro_rules! marks {
    ($($(#[doc = $what:literal])+ $name:ident,)+) => {
        /// A rare path.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum Mark { $($(#[doc = $what])+ $name,)+ }

        impl Mark {
            /// Every mark there is.
            pub const ALL: &'static [Mark] = &[$(Mark::$name,)+];

            /// What passing it means.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Mark::$name => concat!($($what,)+),)+ }
            }
        }
    };
}

marks! {
    /// A candidate met another one's higher ballot.
    Duel,
}

#[cfg(feature = "marks")]
mod counting {
    use super::Mark;
    use std::cell::RefCell;

    thread_local! {
        static HITS: RefCell<[u64; Mark::ALL.len()]> = const { RefCell::new([0; Mark::ALL.len()]) };
    }

    /// Notes that the path was taken.
    pub fn mark(mark: Mark) {
        HITS.with_borrow_mut(|hits| hits[mark as usize] += 1);
    }

    /// How often each mark was passed on this thread since the last reset.
    #[must_use]
    pub fn hits() -> Vec<(Mark, u64)> {
        HITS.with_borrow(|hits| Mark::ALL.iter().map(|m| (*m, hits[*m as usize])).collect())
    }

    /// Forgets what this thread counted.
    pub fn reset_marks() {
        HITS.with_borrow_mut(|hits| hits.fill(0));
    }
}

#[cfg(not(feature = "marks"))]
mod counting {
    use super::Mark;

    /// Notes that the path was taken.
    #[inline(always)]
    pub fn mark(_: Mark) {}

    /// How often each mark was passed: nothing is counted in this build.
    #[must_use]
    pub fn hits() -> Vec<(Mark, u64)> {
        Vec::new()
    }

    /// Forgets what this thread counted.
    pub fn reset_marks() {}
}

pub use counting::{hits, mark, reset_marks};
