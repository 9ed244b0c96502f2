//! Named breaches of rules.

macro_rules! mutations {
    ($($name:ident, $rule:literal, $what:literal;)+) => {
        /// A breach of one rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutation { $(#[doc = $what] $name,)+ }

        impl Mutation {
            /// Every breach there is.
            pub const ALL: &'static [Mutation] = &[$(Mutation::$name,)+];

            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Mutation::$name => stringify!($name),)+ }
            }

            /// The rule it breaks (`docs/rules.md`).
            #[must_use]
            pub const fn rule(self) -> &'static str {
                match self { $(Mutation::$name => $rule,)+ }
            }

            /// What it does wrong.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Mutation::$name => $what,)+ }
            }
        }
    };
}

mutations! {
    ServeAfterLease, "L1", "A leader serves reads although its lease has run out.";
}

#[cfg(feature = "mutations")]
mod active {
    use super::Mutation;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Whether this thread runs with that breach.
    #[must_use]
    pub fn mutated(mutation: Mutation) -> bool {
        ACTIVE.get() == Some(mutation)
    }

    /// From now on this thread runs with that breach, or with none.
    pub fn mutate(mutation: Option<Mutation>) {
        ACTIVE.set(mutation);
    }
}

#[cfg(not(feature = "mutations"))]
mod active {
    use super::Mutation;

    /// Whether this thread runs with that breach: never, in this build.
    #[inline(always)]
    #[must_use]
    pub const fn mutated(_: Mutation) -> bool {
        false
    }

    /// Without the feature `mutations` there are no breaches: changes nothing.
    pub fn mutate(_: Option<Mutation>) {}
}

pub use active::{mutate, mutated};
