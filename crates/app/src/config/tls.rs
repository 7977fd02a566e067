//! `[tls]`: the certificate of the hub, and its key.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use ballast_gateway::tls::Tls;
use serde::{Deserialize, Serialize};

use super::secret::read_secret;

/// The certificate of the hub; plain HTTP without one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TlsConfig {
    /// PEM: ours first, then those that lead to one that clients know.
    pub(crate) certificate: PathBuf,
    /// PEM, for nobody else to read.
    pub(crate) key: PathBuf,
}

impl TlsConfig {
    /// Whether the hub speaks TLS.
    pub(crate) fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }

    /// What types alone can't say.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_on() == self.key.as_os_str().is_empty() {
            bail!("`tls.certificate` and `tls.key` go together\nhint: set both, or none");
        }
        if self.is_on() {
            self.open()?;
        }
        Ok(())
    }

    /// What the files hold, ready for use.
    pub(crate) fn open(&self) -> Result<Tls> {
        let (certificate, key) = self.read()?;
        Tls::new(certificate.as_bytes(), key.as_bytes()).with_context(|| self.which())
    }

    /// What the files hold.
    pub(crate) fn read(&self) -> Result<(String, String)> {
        let certificate = std::fs::read_to_string(&self.certificate).with_context(|| {
            format!("reading `tls.certificate`, `{}`", self.certificate.display())
        })?;
        Ok((certificate, read_secret("tls.key", &self.key)?))
    }

    /// The files, for an error.
    pub(crate) fn which(&self) -> String {
        format!("in `{}` and `{}`", self.certificate.display(), self.key.display())
    }
}
