//! `[node]`: a host that keeps a hub's files near those who read them.

use anyhow::{Context as _, Result, bail};
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::cluster::check_place;

/// What a node is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NodeConfig {
    /// The address of the hub's HTTP API.
    pub(crate) hub: String,
    /// How much it keeps at most.
    pub(crate) cache: ByteSize,
    /// Where in its site (`cluster.site`) it stands.
    pub(crate) rack: String,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self { hub: String::new(), cache: ByteSize::gib(100), rack: String::new() }
    }
}

impl NodeConfig {
    /// What types alone can't say.
    pub(crate) fn check(&self) -> Result<()> {
        check_place("node.rack", &self.rack)?;
        if self.cache.as_u64() == 0 {
            bail!("`node.cache` is 0\nhint: how much of the disk it may have, as `100GiB`");
        }
        Ok(())
    }

    /// The hub's address, which a node needs.
    pub(crate) fn hub(&self) -> Result<&str> {
        let hub = self.hub.as_str();
        let none = "a node needs its hub's address\nhint: `ballast node --join http://hub:8080`";
        Some(hub).filter(|hub| !hub.is_empty()).context(none)
    }
}
