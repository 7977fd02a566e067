//! `[cluster]`: where nodes and regions reach this hub.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use ballast_format::name::NodeName;
use ballast_sync::cluster::is_address;
use serde::{Deserialize, Serialize};

/// Whether a process looks for others on the local network, and lets itself be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Discover {
    /// It does not.
    Never,
    /// It does if it is a node.
    Nodes,
    /// It does, also as a hub.
    Always,
}

/// Where nodes and regions reach this hub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClusterConfig {
    /// The address to listen on, TCP and UDP; empty: nobody joins.
    pub(crate) listen: String,
    /// The address that nodes use, where it is not the one listened on.
    pub(crate) address: String,
    /// What this process is called among its peers.
    pub(crate) name: String,
    /// Whether processes find each other on the local network.
    pub(crate) discover: Discover,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            listen: String::new(),
            address: String::new(),
            name: "hub".to_owned(),
            discover: Discover::Nodes,
        }
    }
}

impl ClusterConfig {
    /// The address to listen on, if anybody may join.
    pub(crate) fn listen(&self) -> Result<Option<SocketAddr>> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        let address = self.listen.parse().with_context(|| {
            format!("`cluster.listen` is `{}`\nhint: `0.0.0.0:8081`", self.listen)
        })?;
        Ok(Some(address))
    }

    /// What types alone can't say.
    pub(crate) fn check(&self, offline: bool) -> Result<()> {
        self.listen()?;
        if !self.address.is_empty() && !is_address(&self.address) {
            bail!(
                "`cluster.address` is `{}`\nhint: a host and a port: `hub.example.com:8081`",
                self.address
            );
        }
        NodeName::parse(&self.name)
            .with_context(|| format!("`cluster.name` is `{}`", self.name))?;
        if offline && self.discover == Discover::Always {
            bail!(
                "`offline` is set, and `cluster.discover` is `always`, which sends to the network\n\
                 hint: set `cluster.discover` to `never`"
            );
        }
        Ok(())
    }
}
