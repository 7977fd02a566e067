//! `[storage]`: where the objects are, and how they are reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ballast_store::backend::{Access, Location, Secret};
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::secret::read_secret;

/// Where the objects are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StorageConfig {
    /// The place, as a URL; empty is the data folder.
    pub(crate) url: String,
    /// The service's address, where it is not the public one.
    pub(crate) endpoint: String,
    /// The bucket's region.
    pub(crate) region: String,
    /// The id of the key; for Azure, the account.
    pub(crate) access_key: String,
    /// A file with the key; for Google, with the service account's JSON.
    pub(crate) secret_file: PathBuf,
    /// May the endpoint begin with `http:`?
    pub(crate) allow_http: bool,
    /// Does the bucket's name stand in front of the host?
    pub(crate) virtual_hosted: bool,
    /// May clients be sent to the bucket for what they may read?
    pub(crate) redirect_downloads: bool,
    /// How old an answer about moving names may be, where other processes write too.
    pub(crate) freshness: String,
    /// Uploads end when so little room is left on a disk.
    pub(crate) keep_free: ByteSize,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            endpoint: String::new(),
            region: String::new(),
            access_key: String::new(),
            secret_file: PathBuf::new(),
            allow_http: false,
            virtual_hosted: false,
            redirect_downloads: false,
            freshness: "5s".to_owned(),
            keep_free: ByteSize::gib(1),
        }
    }
}

impl StorageConfig {
    /// What types alone can't say.
    pub(crate) fn check(&self) -> Result<()> {
        let is_bucket = match self.url.as_str() {
            "" => false,
            _ => self.location(Path::new(""))?.is_shared(),
        };
        self.freshness()?;
        self.access()?;
        for (key, is_set) in [
            ("endpoint", !self.endpoint.is_empty()),
            ("region", !self.region.is_empty()),
            ("access_key", !self.access_key.is_empty()),
            ("secret_file", !self.secret_file.as_os_str().is_empty()),
            ("redirect_downloads", self.redirect_downloads),
        ] {
            if is_set && !is_bucket {
                bail!("`storage.{key}` is set, and `storage.url` is no bucket");
            }
        }
        if self.endpoint.starts_with("http:") && !self.allow_http {
            bail!(
                "`storage.endpoint` is `{}`\nhint: without TLS the objects travel in the clear; \
                 if that is what you want, set `storage.allow_http = true`",
                self.endpoint
            );
        }
        Ok(())
    }

    /// The place; the data folder is one.
    pub(crate) fn location(&self, data: &Path) -> Result<Location> {
        if self.url.is_empty() {
            return Ok(Location::Folder(data.to_owned()));
        }
        self.url.parse().context("reading `storage.url`")
    }

    /// How to reach a bucket, with its secret.
    pub(crate) fn access(&self) -> Result<Access> {
        let path = &self.secret_file;
        let secret = match path.as_os_str().is_empty() {
            true if !self.access_key.is_empty() => {
                bail!("`storage.access_key` is set\nhint: `storage.secret_file` names its secret")
            }
            true => String::new(),
            false => read_secret("storage.secret_file", path)?,
        };
        Ok(Access {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            access_key: self.access_key.clone(),
            secret: Secret::new(secret.trim()),
            allow_http: self.allow_http,
            virtual_hosted: self.virtual_hosted,
        })
    }

    /// How old an answer about moving names may be.
    pub(crate) fn freshness(&self) -> Result<Duration> {
        humantime::parse_duration(&self.freshness)
            .with_context(|| format!("`storage.freshness` is `{}`", self.freshness))
    }
}
