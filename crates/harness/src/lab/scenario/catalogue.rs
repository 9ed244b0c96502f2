//! The scenarios that come with the program: the failures of a data centre's first
//! year, as `synod lab sim` has them too, on real processes; and what operators do in an
//! ordinary one.

use super::{BadScenario, Scenario};
use std::path::Path;

/// A scenario that comes with the program.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// Its name.
    pub name: &'static str,
    /// Its file.
    pub text: &'static str,
}

macro_rules! shipped {
    ($($name:literal),+ $(,)?) => {
        &[$(Shipped {
            name: $name,
            text: include_str!(concat!("../../../scenarios/", $name, ".toml")),
        }),+]
    };
}

/// All of them.
pub const SHIPPED: &[Shipped] = shipped![
    "overheating",
    "power-unit-loss",
    "rack-move",
    "rewiring",
    "rack-loss",
    "rack-instability",
    "router-restart",
    "router-loss",
    "name-service-flaps",
    "machine-loss",
    "disk-loss",
    "rolling-restart",
    "drain",
    "rearrangement",
];

impl Shipped {
    /// The one with this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Shipped> {
        SHIPPED.iter().find(|shipped| shipped.name == name)
    }

    /// Reads it.
    ///
    /// # Errors
    /// None, as a test shows.
    pub fn scenario(&self) -> Result<Scenario, BadScenario> {
        Scenario::read(self.name, self.text, Path::new(""))
    }
}
