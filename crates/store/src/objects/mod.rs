//! Put-if-absent, get, get a range, list: all that the rest of the program may do to the store.
//!
//! What was put is durable when the call returns, and is never overwritten (Invariant 2). An
//! unclear answer is an [`Error::Unavailable`]: it may or may not have happened, and who cares
//! must read back. Bytes are not checked against any hash here; that is for those who know what
//! they asked for (Invariant 12).

mod cleanup;
mod epoch;
mod signed;
mod writer;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use crate::backoff;
use crate::env::{Env, SharedEnv, nonce};
use crate::error::{Error, Result};
use crate::keyspace::{CopyKind, CopyName, Key, Prefix};

use cleanup::Cleanups;

pub use signed::SignedGet;
pub use writer::{ObjectWriter, Writing};

/// The longest range that is read in one piece: a whole xorb with room to spare.
pub const MAX_RANGE_BYTES: u64 = 128 * 1024 * 1024;

/// The largest object that is put in one piece. Backends cut what is larger into parts, and a
/// conditional put of parts is not to be trusted.
pub const MAX_SINGLE_PUT_BYTES: u64 = 16 * 1024 * 1024;

/// The most copies of one hash that are looked at; more than a few can only be a fault.
const MAX_COPIES: usize = 1000;

/// How often a put of a name that is ours alone is tried.
const TRIES: u32 = 5;

/// The object store, by keys. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    writing: Writing,
    signer: Option<Arc<dyn Signer>>,
    /// Why nothing may be written, if so.
    refusal: Option<Arc<str>>,
}

struct Shared {
    inner: Arc<dyn ObjectStore>,
    env: SharedEnv,
    /// The newest epoch that was seen here; only ever grows.
    epoch: AtomicU64,
    /// Whether the store was asked once which epochs there are.
    is_epoch_listed: AtomicBool,
    cleanups: Cleanups,
}

/// What a put-if-absent did, when the answer was clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is there now, and was not before.
    Stored,
    /// Something is there already. Whose it is, is a question (Invariant 4).
    Exists,
}

/// An object that a listing found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: Key,
    /// Its size in bytes.
    pub size: u64,
    /// When the store got it, in milliseconds since 1970 by the store's own clock.
    pub modified_ms: u64,
}

/// Where a listing begins: behind a key, or in front of a set.
#[derive(Clone, Debug)]
pub struct Offset(Path);

impl From<&Key> for Offset {
    fn from(key: &Key) -> Self {
        Self(key.path())
    }
}

impl From<&Prefix> for Offset {
    fn from(prefix: &Prefix) -> Self {
        Self(prefix.path())
    }
}

impl Store {
    /// Uses a backend through whatever layers were put around it.
    pub fn new(inner: Arc<dyn ObjectStore>, env: SharedEnv) -> Self {
        let shared = Shared {
            inner,
            env,
            epoch: AtomicU64::new(0),
            is_epoch_listed: AtomicBool::new(false),
            cleanups: Cleanups::default(),
        };
        Self { shared: Arc::new(shared), writing: Writing::default(), signer: None, refusal: None }
    }

    /// The same store, with other parts for its writers.
    #[must_use]
    pub fn with_writing(mut self, writing: Writing) -> Self {
        self.writing = writing;
        self
    }

    /// The same store, where whoever has a signed address may read without us.
    #[must_use]
    pub fn with_signer(mut self, signer: Option<Arc<dyn Signer>>) -> Self {
        self.signer = signer;
        self
    }

    /// The same store, on which nothing is written or deleted any more, and why.
    #[must_use]
    pub fn read_only(mut self, reason: &str) -> Self {
        self.refusal = Some(reason.into());
        self
    }

    /// May nothing be written?
    pub fn is_read_only(&self) -> bool {
        self.refusal.is_some()
    }

    fn check_may_write(&self, key: &Key) -> Result<()> {
        match &self.refusal {
            None => Ok(()),
            Some(reason) => {
                Err(Error::Refused { key: key.to_string(), reason: reason.to_string() })
            }
        }
    }

    /// Waits until what dropped writers left is gone; how long, is for the caller to bound.
    pub async fn finish_cleanups(&self) {
        self.shared.cleanups.finish().await;
    }

    /// Where time and randomness come from.
    pub fn env(&self) -> &dyn Env {
        self.shared.env.as_ref()
    }

    /// The same, to be kept.
    pub fn shared_env(&self) -> SharedEnv {
        Arc::clone(&self.shared.env)
    }

    fn inner(&self) -> &dyn ObjectStore {
        self.shared.inner.as_ref()
    }

    /// Puts an object in one piece unless something is there. One try; after an error nobody
    /// knows what happened.
    pub async fn put_absent(&self, key: &Key, bytes: Bytes) -> Result<Put> {
        use object_store::Error as Backend;

        self.check_may_write(key)?;
        let size = bytes.len() as u64;
        if size > MAX_SINGLE_PUT_BYTES {
            let limit = MAX_SINGLE_PUT_BYTES;
            return Err(Error::TooLarge { key: key.to_string(), size, limit });
        }
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.inner().put_opts(&key.path(), PutPayload::from(bytes), options).await {
            Ok(_) => Ok(Put::Stored),
            // Backends disagree on how to say it.
            Err(
                Backend::AlreadyExists { .. }
                | Backend::Precondition { .. }
                | Backend::NotModified { .. },
            ) => Ok(Put::Exists),
            Err(error) => Err(Error::from_backend(key, &error)),
        }
    }

    /// Puts an object whose name nobody else can have chosen: a copy, a pin, a part, a tally.
    /// Tries again, a bounded number of times, after an unclear answer; if the name is taken, an
    /// earlier try of ours took it.
    pub async fn put_new(&self, key: &Key, bytes: Bytes) -> Result<()> {
        for attempt in 1..=TRIES {
            match self.put_absent(key, bytes.clone()).await {
                Ok(Put::Stored) => return Ok(()),
                Ok(Put::Exists) => return self.expect_ours(key, &bytes).await,
                Err(error) if error.is_passing() && attempt < TRIES => {
                    tracing::debug!(%key, attempt, %error, "putting again");
                    backoff::wait(self.env(), attempt).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Internal { reason: "the last try returns".into() })
    }

    async fn expect_ours(&self, key: &Key, bytes: &Bytes) -> Result<()> {
        let mut found = self.get(key, MAX_SINGLE_PUT_BYTES).await?;
        if found.as_ref().is_some_and(|found| found != bytes) {
            // One wrong bit on the way is no reason to wake a person.
            found = self.get(key, MAX_SINGLE_PUT_BYTES).await?;
        }
        match found {
            Some(found) if found == bytes => Ok(()),
            Some(_) => {
                Err(Error::corrupt(key, "a name that only we can have chosen holds other bytes"))
            }
            None => Err(Error::Unavailable {
                key: key.to_string(),
                reason: "the store says that it exists, and that it does not".into(),
            }),
        }
    }

    /// Reads a whole object of at most `limit` bytes. `None`: there is none.
    pub async fn get(&self, key: &Key, limit: u64) -> Result<Option<Bytes>> {
        let found = match self.shared.inner.get(&key.path()).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(Error::from_backend(key, &error)),
        };
        let size = found.meta.size;
        if size > limit {
            return Err(Error::TooLarge { key: key.to_string(), size, limit });
        }
        let bytes = found.bytes().await.map_err(|error| Error::from_backend(key, &error))?;
        exact(key, bytes, size).map(Some)
    }

    /// Reads exactly these bytes of an object.
    pub async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let wanted = checked_length(&range)?;
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        match self.inner().get_ranges(&key.path(), std::slice::from_ref(&range)).await {
            Ok(mut parts) if parts.len() == 1 => exact(key, parts.swap_remove(0), wanted),
            Ok(_) => Err(Error::Internal { reason: "one range has one answer".into() }),
            Err(error) => {
                let error = Error::from_backend(key, &error);
                Err(self.why_no_range(key, &range, error).await)
            }
        }
    }

    /// Backends do not say in one way that an object ends before a range does.
    async fn why_no_range(&self, key: &Key, range: &Range<u64>, error: Error) -> Error {
        if !error.is_passing() {
            return error;
        }
        match self.size(key).await {
            Ok(None) => Error::NotFound { key: key.to_string() },
            Ok(Some(size)) if size < range.end => short(key, size, range.end),
            _ => error,
        }
    }

    /// Reads the last `length` bytes of an object, or all of a shorter one, and says how long it
    /// is.
    pub async fn get_tail(&self, key: &Key, length: u64) -> Result<(Bytes, u64)> {
        checked_length(&(0..length))?;
        let options = GetOptions::new().with_range(Some(GetRange::Suffix(length)));
        let backend = |error| Error::from_backend(key, &error);
        let found = self.inner().get_opts(&key.path(), options).await.map_err(backend)?;
        let total = found.meta.size;
        let bytes = found.bytes().await.map_err(backend)?;
        Ok((exact(key, bytes, length.min(total))?, total))
    }

    /// The size of an object in bytes. `None`: there is none.
    pub async fn size(&self, key: &Key) -> Result<Option<u64>> {
        match self.shared.inner.head(&key.path()).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::from_backend(key, &error)),
        }
    }

    /// All objects of a set, in no order. A listing may be stale; what is not ours is left out.
    pub fn list(&self, prefix: &Prefix) -> BoxStream<'static, Result<Listed>> {
        let name = prefix.to_string();
        self.inner()
            .list(Some(&prefix.path()))
            .map_err(move |error| Error::from_backend(&name, &error))
            .try_filter_map(|meta| std::future::ready(Ok(listed(&meta))))
            .boxed()
    }

    /// The objects of a set that come after an offset, in no order. Stores that can skip what comes
    /// before do so; an offset that is a set comes before all that is in it.
    pub fn list_with_offset(
        &self,
        prefix: &Prefix,
        offset: impl Into<Offset>,
    ) -> BoxStream<'static, Result<Listed>> {
        let (name, Offset(offset)) = (prefix.to_string(), offset.into());
        self.inner()
            .list_with_offset(Some(&prefix.path()), &offset)
            .map_err(move |error| Error::from_backend(&name, &error))
            .try_filter_map(|meta| std::future::ready(Ok(listed(&meta))))
            .boxed()
    }

    /// All copies of one hash.
    pub async fn copies(&self, kind: CopyKind, hash: [u8; 32]) -> Result<Vec<Listed>> {
        self.list(&Prefix::CopiesOf(kind, hash)).take(MAX_COPIES).try_collect().await
    }

    /// A name for a new copy that nobody else will choose.
    pub fn new_copy(&self, kind: CopyKind, hash: [u8; 32], epoch: u64) -> CopyName {
        CopyName { kind, hash, epoch, nonce: nonce(self.env()) }
    }

    /// Opens a writer for an object whose name nobody else can have chosen. What decides by being
    /// put-if-absent is refused.
    pub fn writer(&self, key: &Key) -> Result<ObjectWriter> {
        if !key.is_sweepable() {
            return Err(Error::invalid(format!("`{key}` must be put in one piece")));
        }
        self.check_may_write(key)?;
        Ok(ObjectWriter::new(self.clone(), *key, self.writing))
    }

    /// Deletes an object; that it is not there is success. Only the sweep calls this for copies
    /// and pins (Invariant 2); others may remove parts, tallies and probes once what they said is
    /// kept elsewhere. What must never be deleted is refused.
    pub async fn sweep(&self, key: &Key) -> Result<()> {
        if !key.is_sweepable() {
            return Err(Error::invalid(format!("`{key}` must never be deleted")));
        }
        self.check_may_write(key)?;
        match self.shared.inner.delete(&key.path()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::from_backend(key, &error)),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Store({})", self.shared.inner)
    }
}

fn listed(meta: &object_store::ObjectMeta) -> Option<Listed> {
    let Some(key) = Key::parse(&meta.location) else {
        tracing::debug!(path = %meta.location, "not an object of ours");
        return None;
    };
    let modified_ms = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0);
    Some(Listed { key, size: meta.size, modified_ms })
}

fn checked_length(range: &Range<u64>) -> Result<u64> {
    let length = range.end.checked_sub(range.start);
    length.filter(|length| *length <= MAX_RANGE_BYTES).ok_or_else(|| {
        Error::invalid(format!("the range {}..{} is reversed or too long", range.start, range.end))
    })
}

/// What is asserted on the disk's and the network's border: the length is the one that was asked.
fn exact(key: &Key, bytes: Bytes, wanted: u64) -> Result<Bytes> {
    if bytes.len() as u64 == wanted {
        Ok(bytes)
    } else {
        Err(short(key, bytes.len() as u64, wanted))
    }
}

fn short(key: &Key, found: u64, wanted: u64) -> Error {
    Error::corrupt(key, format!("it has {found} bytes where {wanted} are expected"))
}

#[cfg(test)]
mod tests;
