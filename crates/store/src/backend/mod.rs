//! Where a hub's objects are: a folder, a bucket, or this process' memory.
//!
//! A place is written as a URL. What comes out is a plain object store; the layers around it are
//! the program's choice. Nothing here believes that a store keeps its promises: that is asked at
//! each start (`probe`).

mod bucket;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::signer::Signer;

use crate::error::{Error, Result};
use crate::local::{FolderLock, LocalStore};
use crate::objects::Writing;

/// A kind of remote store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Amazon S3, and whatever speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

/// A place for objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder of this machine, which one process uses at a time.
    Folder(PathBuf),
    /// The memory of this process: all is gone when it ends.
    Memory,
    /// A bucket, which many processes may share.
    Bucket {
        /// Who keeps it.
        service: Service,
        /// Its name.
        name: String,
        /// What all keys in it begin with; may be empty.
        prefix: String,
    },
}

impl Location {
    /// Do other processes write here too?
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Bucket { .. })
    }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        let wrong = |reason: &str| Error::invalid(format!("`{url}` is no place: {reason}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let service = match scheme {
            "file" if Path::new(rest).is_absolute() => return Ok(Self::Folder(rest.into())),
            "file" => return Err(wrong("write three slashes and an absolute path")),
            "memory" if rest.is_empty() => return Ok(Self::Memory),
            "memory" => return Err(wrong("nothing follows `memory://`")),
            "s3" => Service::S3,
            "gs" => Service::Google,
            "az" => Service::Azure,
            _ => return Err(wrong("use `file`, `s3`, `gs`, `az` or `memory`")),
        };
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ['.', '-', '_'].contains(&c);
        if name.is_empty() || !name.chars().all(is_plain) {
            return Err(wrong("a bucket's name has letters, digits, `.`, `-` and `_`"));
        }
        let prefix = prefix.trim_end_matches('/');
        let is_word = |word: &str| !word.is_empty() && word.chars().all(is_plain);
        let is_path = prefix.split('/').all(|word| is_word(word) && word != "." && word != "..");
        if !prefix.is_empty() && !is_path {
            return Err(wrong("a prefix is words of letters, digits, `.`, `-` and `_`"));
        }
        Ok(Self::Bucket { service, name: name.to_owned(), prefix: prefix.to_owned() })
    }
}

/// What must not be seen.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Holds a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(***)")
    }
}

/// How to reach a bucket. What is empty is taken from the environment, as each service's own tools
/// do it.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The service's address, where it is not the public one.
    pub endpoint: String,
    /// The bucket's region.
    pub region: String,
    /// The id of the key; for Azure, the account.
    pub access_key: String,
    /// The key; for Google, the service account's JSON.
    pub secret: Secret,
    /// May the address begin with `http:`?
    pub allow_http: bool,
    /// Does the bucket's name stand in front of the host, not behind it?
    pub virtual_hosted: bool,
}

/// An object store, and what must be known about it.
#[derive(Debug)]
pub struct Backend {
    /// The store itself, without layers.
    pub objects: Arc<dyn ObjectStore>,
    /// Who signs addresses for clients, if the store takes such.
    pub signer: Option<Arc<dyn Signer>>,
    /// How writers cut what they write.
    pub writing: Writing,
    /// The lock of a folder.
    pub lock: Option<FolderLock>,
}

/// Opens a place. Blocks; call it before anything is served. `keep_free` is for folders:
/// [`LocalStore::open_keeping`].
pub fn open(location: &Location, access: &Access, keep_free: u64) -> Result<Backend> {
    match location {
        Location::Folder(folder) => {
            let (objects, lock) = LocalStore::open_keeping(folder, keep_free)?;
            Ok(Backend { objects, signer: None, writing: Writing::LOCAL, lock: Some(lock) })
        }
        Location::Memory => {
            let objects = Arc::new(InMemory::new());
            Ok(Backend { objects, signer: None, writing: Writing::LOCAL, lock: None })
        }
        Location::Bucket { service, name, prefix } => {
            let (objects, signer) = bucket::open(*service, name, prefix, access)?;
            let writing = Writing::REMOTE;
            Ok(Backend { objects, signer: Some(signer), writing, lock: None })
        }
    }
}

/// Opens a place to read it, whoever else uses it: nothing is locked, and nothing written. Blocks.
pub fn open_to_read(location: &Location, access: &Access) -> Result<Backend> {
    match location {
        Location::Folder(folder) => {
            let (objects, writing) = (LocalStore::open_to_read(folder)?, Writing::LOCAL);
            Ok(Backend { objects, signer: None, writing, lock: None })
        }
        Location::Memory | Location::Bucket { .. } => open(location, access, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(service: Service, name: &str, prefix: &str) -> Location {
        Location::Bucket { service, name: name.into(), prefix: prefix.into() }
    }

    #[test]
    fn each_place_has_a_url() -> Result<()> {
        for (url, wanted) in [
            ("file:///srv/hub", Location::Folder("/srv/hub".into())),
            ("memory://", Location::Memory),
            ("s3://models", bucket(Service::S3, "models", "")),
            ("s3://models/", bucket(Service::S3, "models", "")),
            ("s3://models/hubs/one/", bucket(Service::S3, "models", "hubs/one")),
            ("gs://models/one", bucket(Service::Google, "models", "one")),
            ("az://models", bucket(Service::Azure, "models", "")),
        ] {
            assert_eq!(url.parse::<Location>()?, wanted, "{url}");
        }
        Ok(())
    }

    #[test]
    fn what_is_no_place_is_refused_by_name() {
        for url in [
            "",
            "/srv/hub",
            "file://srv/hub",
            "s3://",
            "s3:///prefix",
            "s3://key:secret@models",
            "s3://models?x=1",
            "s3://models/a//b",
            "s3://models/../b",
            "s3://models/a b",
            "http://models",
            "memory://x",
        ] {
            let error = url.parse::<Location>().expect_err(url);
            assert!(error.to_string().contains(&format!("`{url}`")), "{error}");
        }
    }

    #[test]
    fn a_bucket_is_opened_without_asking_it_and_its_secret_is_not_shown() -> Result<()> {
        let access = Access {
            endpoint: "http://127.0.0.1:1".into(),
            access_key: "id".into(),
            secret: Secret::new("hidden"),
            allow_http: true,
            ..Access::default()
        };
        let backend = open(&"s3://models/one".parse()?, &access, 0)?;
        assert!(backend.signer.is_some());
        assert!(!format!("{access:?} {backend:?}").contains("hidden"));
        Ok(())
    }
}
