//! `[upstream]`: the hub of which this one is a mirror.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ballast_store::env::SharedEnv;
use ballast_sync::mirror::pull::PullSettings;
use ballast_sync::mirror::upstream::{Settings, Token, Upstream};
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::secret::read_secret;

/// Where in the data folder files are on their way.
const FOLDER: &str = "mirror";

/// The hub of which this one is a mirror; none without an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpstreamConfig {
    /// Its address.
    pub(crate) url: String,
    /// A file that holds our token there.
    pub(crate) token_file: PathBuf,
    /// A proxy for everything that goes there.
    pub(crate) proxy: String,
    /// Networks, as CIDR, to which it may send us for bytes though they are not public.
    pub(crate) private_networks: Vec<String>,
    /// How old an answer about a branch may be.
    pub(crate) revalidate: String,
    /// Large files that are fetched at once.
    pub(crate) fetches: usize,
    /// What files on their way may take in the data folder.
    pub(crate) spool_limit: ByteSize,
    /// Whether large files come out of its xorbs, where it has them.
    pub(crate) xet: bool,
    /// From which size on files are offered by Xet before they are here.
    pub(crate) offered_from: ByteSize,
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            token_file: PathBuf::new(),
            proxy: String::new(),
            private_networks: Vec::new(),
            revalidate: "1m".to_owned(),
            fetches: 8,
            spool_limit: ByteSize::tib(1),
            xet: true,
            offered_from: ByteSize::gb(50),
        }
    }
}

impl UpstreamConfig {
    /// Whether there is one.
    pub(crate) fn is_on(&self) -> bool {
        !self.url.is_empty()
    }

    /// What types alone can't say.
    pub(crate) fn check(&self) -> Result<()> {
        self.revalidate()?;
        if self.fetches == 0 {
            bail!("`upstream.fetches` is 0\nhint: at least 1; the default is 8");
        }
        if self.is_on() {
            self.open(&ballast_store::env::RealEnv::shared())?;
        }
        Ok(())
    }

    fn revalidate(&self) -> Result<Duration> {
        humantime::parse_duration(&self.revalidate).with_context(|| {
            format!("`upstream.revalidate` is `{}`\nhint: a time such as `1m`", self.revalidate)
        })
    }

    /// The upstream; nothing is sent yet.
    pub(crate) fn open(&self, env: &SharedEnv) -> Result<Upstream> {
        let mut settings = Settings::of(&self.url);
        if !self.token_file.as_os_str().is_empty() {
            let text = read_secret("upstream.token_file", &self.token_file)?;
            settings.token = Some(Token::new(&text).context("`upstream.token_file`")?);
        }
        settings.xet = self.xet;
        settings.proxy = Some(self.proxy.clone()).filter(|proxy| !proxy.is_empty());
        settings.private_networks.clone_from(&self.private_networks);
        Upstream::new(&settings, SharedEnv::clone(env))
            .with_context(|| format!("`upstream.url` is `{}`", self.url))
    }

    /// How it is pulled from.
    pub(crate) fn pulling(&self, data: &Path) -> Result<PullSettings> {
        let defaults = PullSettings::in_folder(data.join(FOLDER));
        Ok(PullSettings {
            spool_limit: self.spool_limit.as_u64(),
            revalidate: self.revalidate()?,
            fetches: self.fetches,
            offered_from: self.offered_from.as_u64(),
            ..defaults
        })
    }
}
