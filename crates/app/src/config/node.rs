//! `[node]`: a host that keeps a hub's files near those who read them.

use anyhow::{Context as _, Result, bail};
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::bytes_a_second;

/// How bytes travel between nodes.
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

/// What a node is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NodeConfig {
    /// The address of the hub's HTTP API.
    pub(crate) hub: String,
    /// How much it keeps at most.
    pub(crate) cache: ByteSize,
    /// Where it stands.
    pub(crate) site: String,
    /// Where in there.
    pub(crate) rack: String,
    /// How much it sends its peers at most; empty: as much as it can.
    pub(crate) upload: String,
    /// How much it takes at most; empty: as much as it can.
    pub(crate) download: String,
    /// How bytes travel.
    pub(crate) carrier: CarrierChoice,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            hub: String::new(),
            cache: ByteSize::gib(100),
            site: String::new(),
            rack: String::new(),
            upload: String::new(),
            download: String::new(),
            carrier: CarrierChoice::Auto,
        }
    }
}

/// The longest name of a site or a rack.
const LONGEST_PLACE: usize = 63;

impl NodeConfig {
    /// What types alone can't say.
    pub(crate) fn check(&self) -> Result<()> {
        self.caps()?;
        for (key, place) in [("site", &self.site), ("rack", &self.rack)] {
            if place.len() > LONGEST_PLACE || place.chars().any(char::is_control) {
                bail!("`node.{key}` is no name\nhint: at most {LONGEST_PLACE} letters");
            }
        }
        if self.cache.as_u64() == 0 {
            bail!("`node.cache` is 0\nhint: how much of the disk it may have, as `100GiB`");
        }
        Ok(())
    }

    /// The most bytes a second that it sends, and that it takes.
    pub(crate) fn caps(&self) -> Result<(Option<u64>, Option<u64>)> {
        let rate = |key: &str, text: &str| match text {
            "" => Ok(None),
            text => bytes_a_second(key, text).map(Some),
        };
        Ok((rate("node.upload", &self.upload)?, rate("node.download", &self.download)?))
    }

    /// The hub's address, which a node needs.
    pub(crate) fn hub(&self) -> Result<&str> {
        let hub = self.hub.as_str();
        let none = "a node needs its hub's address\nhint: `ballast node --join http://hub:8080`";
        Some(hub).filter(|hub| !hub.is_empty()).context(none)
    }
}
