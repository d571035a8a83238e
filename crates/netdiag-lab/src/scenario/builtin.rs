//! The scenarios that are shipped.

use std::io;
use std::path::Path;

use super::{Scenario, ScenarioError};

/// Names and texts.
const SHIPPED: [(&str, &str); 4] = [
    ("flaky-wifi", include_str!("../../scenarios/flaky-wifi.toml")),
    ("lte-drive", include_str!("../../scenarios/lte-drive.toml")),
    ("train-tunnel", include_str!("../../scenarios/train-tunnel.toml")),
    ("clean-long-haul", include_str!("../../scenarios/clean-long-haul.toml")),
];

impl Scenario {
    /// The names of the shipped scenarios.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|(name, _)| *name)
    }

    /// A shipped scenario by its name.
    pub fn builtin(name: &str) -> Result<Self, ScenarioError> {
        let shipped = SHIPPED.iter().find(|(known, _)| *known == name);
        let (name, text) = shipped.ok_or_else(|| ScenarioError::Unknown {
            name: name.to_owned(),
            known: Self::builtin_names().collect::<Vec<_>>().join(", "),
        })?;
        // They make up their traces: beside them there are no files.
        Self::parse(text.as_bytes(), name, &mut |_| Err(io::ErrorKind::NotFound.into()))
    }

    /// The text of a shipped scenario, to begin one's own with.
    pub fn builtin_text(name: &str) -> Option<&'static str> {
        SHIPPED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    /// A shipped scenario by its name, or one from a file by its path.
    pub fn open(name_or_path: &str) -> Result<Self, ScenarioError> {
        match Self::builtin(name_or_path) {
            Err(unknown @ ScenarioError::Unknown { .. }) => {
                let path = Path::new(name_or_path);
                // A word without a dot or a slash was meant as a name.
                let is_name = path.extension().is_none() && path.components().count() == 1;
                if is_name && !path.exists() { Err(unknown) } else { Self::read(path) }
            }
            found => found,
        }
    }
}
