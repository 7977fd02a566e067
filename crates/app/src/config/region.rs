//! `[region]`: which region this hub is, among others.

use anyhow::{Context as _, Result, ensure};
use ballast_format::name::RegionName;
use ballast_node::state::homing::Away;
use serde::{Deserialize, Serialize};

/// Which region this hub is, if repos are to have their homes in several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RegionConfig {
    /// Its name, as all regions call it; empty: there is only one.
    pub(crate) name: String,
}

impl RegionConfig {
    /// The same for those who read; `address` is where clients reach it.
    pub(crate) fn settings(&self, address: &str) -> Result<Option<Away>> {
        if self.name.is_empty() {
            return Ok(None);
        }
        let region = RegionName::parse(&self.name).context("`region.name`")?;
        ensure!(
            !address.is_empty(),
            "`region.name` is set, and `public_url` is not: clients that write to a repo in \
             another region are told the address of its home\nhint: set `public_url`"
        );
        Ok(Some(Away { region, address: address.to_owned() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_has_a_name_and_an_address_or_neither() {
        let of = |name: &str, address: &str| {
            RegionConfig { name: name.to_owned() }.settings(address).map_err(|e| format!("{e:#}"))
        };
        assert_eq!(of("", "").unwrap(), None);
        let region = of("eu-1", "https://eu.example").unwrap().unwrap();
        assert_eq!(
            (region.region.as_str(), region.address.as_str()),
            ("eu-1", "https://eu.example")
        );
        assert!(of("EU", "https://eu.example").unwrap_err().contains("region.name"));
        assert!(of("eu", "").unwrap_err().contains("public_url"));
    }
}
