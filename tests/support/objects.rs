//! Where the servers of the tests keep their objects: on disk, on our S3 server, on Ceph's.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use ballast_store::backend::{self, Access};
use ballast_store::env::RealEnv;
use ballast_store::keyspace::Prefix;
use ballast_store::objects::Store;
use ballast_testkit::rgw::Rgw;
use ballast_testkit::s3::{ACCESS_KEY, BUCKET, S3Server, SECRET};
use futures_util::TryStreamExt as _;

use super::server::files;

/// The gateway of this process; it ends with it.
static RGW: Mutex<Option<Arc<Rgw>>> = Mutex::new(None);

/// Each place is another prefix of the one bucket.
static PLACES: AtomicU32 = AtomicU32::new(0);

/// A place for the objects of one hub. Several servers may share one that is a bucket.
#[derive(Clone)]
pub struct Objects {
    url: String,
    endpoint: String,
    /// Ours, if it is: to make it fail.
    pub s3: Option<Arc<S3Server>>,
}

impl Objects {
    /// In the data folder.
    pub fn disk() -> Self {
        Self { url: String::new(), endpoint: String::new(), s3: None }
    }

    /// On an S3 server of its own, in this process.
    pub fn s3() -> Result<Self> {
        let server = Arc::new(S3Server::start(1)?);
        let endpoint = server.endpoint().to_owned();
        Ok(Self { url: place(), endpoint, s3: Some(server) })
    }

    /// On Ceph's gateway, which all tests of a process share.
    pub fn rgw() -> Result<Self> {
        let mut running = RGW.lock().unwrap_or_else(PoisonError::into_inner);
        let server = match &*running {
            Some(server) => Arc::clone(server),
            None => Arc::new(Rgw::start().context("starting Ceph's gateway")?),
        };
        *running = Some(Arc::clone(&server));
        Ok(Self { url: place(), endpoint: server.endpoint().to_owned(), s3: None })
    }

    /// Where `TEST_STORE` says: `disk`, `s3` or `rgw`; on disk if it says nothing.
    pub fn chosen() -> Result<Self> {
        match std::env::var("TEST_STORE").as_deref() {
            Err(_) | Ok("" | "disk") => Ok(Self::disk()),
            Ok("s3") => Self::s3(),
            Ok("rgw") => Self::rgw(),
            Ok(other) => bail!("`TEST_STORE` is `{other}`; use `disk`, `s3` or `rgw`"),
        }
    }

    pub fn is_disk(&self) -> bool {
        self.url.is_empty()
    }

    /// `s3://bucket/prefix`; empty for the data folder.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How a client reaches it.
    pub fn access(&self) -> Access {
        ballast_testkit::s3::access(&self.endpoint)
    }

    /// All objects by name, with their sizes; `data` is the folder of a server that uses them.
    pub fn list(&self, data: &Path) -> Result<BTreeMap<String, u64>> {
        if self.is_disk() {
            let folder = data.join("objects");
            let named = |path: PathBuf| {
                let name = path.strip_prefix(&folder)?.display().to_string();
                Ok((name, path.metadata()?.len()))
            };
            return files(&folder)?.into_iter().map(named).collect();
        }
        let backend = backend::open(&self.url.parse()?, &self.access(), 0)?;
        let store = Store::new(backend.objects, RealEnv::shared());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listed = store.list(&Prefix::All);
        let named = listed.map_ok(|listed| (listed.key.to_string(), listed.size));
        Ok(runtime.block_on(named.try_collect())?)
    }

    /// What a server must find in its environment. The secret is put into a file of this folder.
    pub fn variables(&self, folder: &Path) -> Result<Vec<(String, String)>> {
        if self.is_disk() {
            return Ok(Vec::new());
        }
        let secret = folder.join("secret");
        std::fs::write(&secret, SECRET)?;
        std::fs::set_permissions(&secret, Permissions::from_mode(0o600))?;
        let variables = [
            ("URL", self.url.clone()),
            ("ENDPOINT", self.endpoint.clone()),
            ("ACCESS_KEY", ACCESS_KEY.to_owned()),
            ("SECRET_FILE", secret.display().to_string()),
            ("ALLOW_HTTP", "true".to_owned()),
            // Tests of several servers wait for this.
            ("FRESHNESS", "500ms".to_owned()),
        ];
        let named = |(key, value)| (format!("BALLAST_STORAGE_{key}"), value);
        Ok(variables.map(named).to_vec())
    }
}

fn place() -> String {
    let number = PLACES.fetch_add(1, Ordering::Relaxed);
    format!("s3://{BUCKET}/{}-{number}", std::process::id())
}
