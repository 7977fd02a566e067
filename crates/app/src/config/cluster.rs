//! `[cluster]`: how this process and its peers, nodes and regions, reach each other.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use ballast_format::name::NodeName;
use ballast_sync::cluster::is_address;
use serde::{Deserialize, Serialize};

use super::bytes_a_second;

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

/// How bytes travel between peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CarrierChoice {
    /// As the path to each peer wants it.
    Auto,
    /// Over QUIC only.
    Quic,
    /// Over TCP and TLS only.
    Tcp,
}

/// How a process and its peers reach each other.
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
    /// Where this process stands.
    pub(crate) site: String,
    /// How much it sends its peers at most; empty: as much as it can.
    pub(crate) upload: String,
    /// How much it takes at most; empty: as much as it can.
    pub(crate) download: String,
    /// How bytes travel.
    pub(crate) carrier: CarrierChoice,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            listen: String::new(),
            address: String::new(),
            name: "hub".to_owned(),
            discover: Discover::Nodes,
            site: String::new(),
            upload: String::new(),
            download: String::new(),
            carrier: CarrierChoice::Auto,
        }
    }
}

/// The longest name of a site or a rack.
const LONGEST_PLACE: usize = 63;

/// Refuses what is no name of a place.
pub(super) fn check_place(key: &str, place: &str) -> Result<()> {
    if place.len() > LONGEST_PLACE || place.chars().any(char::is_control) {
        bail!("`{key}` is no name\nhint: at most {LONGEST_PLACE} letters");
    }
    Ok(())
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

    /// The most bytes a second that it sends, and that it takes.
    pub(crate) fn caps(&self) -> Result<(Option<u64>, Option<u64>)> {
        let rate = |key: &str, text: &str| match text {
            "" => Ok(None),
            text => bytes_a_second(key, text).map(Some),
        };
        Ok((rate("cluster.upload", &self.upload)?, rate("cluster.download", &self.download)?))
    }

    /// What types alone can't say.
    pub(crate) fn check(&self, offline: bool) -> Result<()> {
        self.listen()?;
        self.caps()?;
        check_place("cluster.site", &self.site)?;
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
