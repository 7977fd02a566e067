//! Appending: one put-if-absent decides, and doubt is settled by reading.
//!
//! "Already exists" is a question (Invariant 4). After anything that is not a clear success the
//! entry is read back: our operation id means that we won, perhaps on an earlier try; another's
//! means that we lost; absent means that nothing has landed yet. The id is in the body, since not
//! every backend keeps anything else.

use ballast_format::id::OperationId;
use ballast_format::log::{Change, Entry};
use bytes::Bytes;

use super::{Append, Log, Tail, read};
use crate::backoff;
use crate::error::{Error, Result};
use crate::keyspace::Key;
use crate::objects::Put;

/// How often an entry is put before the caller is told that the outcome is not known.
const TRIES: u32 = 5;

/// What is at a number, after an answer that was not clear.
enum Found {
    /// Our entry.
    Ours(Tail),
    /// Another's entry.
    Theirs,
    /// Nothing yet.
    Nothing,
}

impl Log {
    /// Puts an entry behind a tail. `Won` and `Lost` are certain; an [`Error::Unavailable`] is not:
    /// the entry may be there, or may land later, and the caller's next try, with the same
    /// operation id, finds out.
    ///
    /// The entry must follow the tail, and must carry an epoch that is not below the tail's:
    /// whoever wrote the tail has seen condemned lists that this writer has not
    /// ([`Error::Conflict`]).
    pub async fn append<C: Change>(&self, tail: &Tail, entry: &Entry<C>) -> Result<Append> {
        let (number, key) = self.next(tail)?;
        if entry.previous != tail.hash || self.course.until.is_some() {
            return Err(Error::invalid(format!("the entry for `{key}` does not follow its tail")));
        }
        if let Some(reason) = tail.refuses(entry) {
            return Err(Error::Conflict { key: key.to_string(), reason });
        }
        let bytes = entry.encode().map_err(|error| Error::invalid(error.to_string()))?;
        let bytes = Bytes::from(bytes);
        let ours = Tail::of(number, &bytes, entry);
        self.put_until_clear::<C>(&key, bytes, ours, entry.operation).await
    }

    /// Puts an entry that was copied from another region's log, as it is there. Where there is one
    /// of its number it must be the same.
    pub async fn copy(&self, number: u64, bytes: Bytes) -> Result<()> {
        let key = self.key(number);
        let mut doubt = Error::Internal { reason: "no try was made".into() };
        for attempt in 1..=TRIES {
            match self.store.put_absent(&key, bytes.clone()).await {
                Ok(Put::Stored) => return Ok(()),
                Ok(Put::Exists) => doubt = exists_and_not(&key),
                Err(error) if error.is_passing() => doubt = error,
                Err(error) => return Err(error),
            }
            // Invariant 4
            match self.read_bytes(&key).await {
                Ok(Some(found)) if found == bytes => return Ok(()),
                Ok(Some(_)) => {
                    let reason = "another entry is there".into();
                    return Err(Error::Conflict { key: key.to_string(), reason });
                }
                Ok(None) => {}
                Err(error) if error.is_passing() => doubt = error,
                Err(error) => return Err(error),
            }
            if attempt < TRIES {
                backoff::wait(self.store.env(), attempt).await;
            }
        }
        Err(doubt)
    }

    async fn put_until_clear<C: Change>(
        &self,
        key: &Key,
        bytes: Bytes,
        ours: Tail,
        operation: OperationId,
    ) -> Result<Append> {
        let mut doubt = Error::Internal { reason: "no try was made".into() };
        for attempt in 1..=TRIES {
            let put = self.store.put_absent(key, bytes.clone()).await;
            match put {
                Ok(Put::Stored) => return Ok(Append::Won(ours)),
                Ok(Put::Exists) => doubt = exists_and_not(key),
                // A full disk may also have failed in the last step, behind the name.
                Err(error) if error.is_passing() || is_full(&error) => doubt = error,
                Err(error) => return Err(error),
            }
            // Invariant 4
            match self.look::<C>(key, &bytes, ours, operation).await {
                Ok(Found::Ours(tail)) => return Ok(Append::Won(tail)),
                Ok(Found::Theirs) => return Ok(Append::Lost),
                Ok(Found::Nothing) if is_full(&doubt) => return Err(doubt),
                Ok(Found::Nothing) => {}
                Err(error) if error.is_passing() => doubt = error,
                Err(error) => return Err(error),
            }
            tracing::debug!(%key, attempt, %operation, error = %doubt, "appending again");
            if attempt < TRIES {
                backoff::wait(self.store.env(), attempt).await;
            }
        }
        let reason = format!("whether operation `{operation}` is done is not known: {doubt}");
        Err(Error::Unavailable { key: key.to_string(), reason })
    }

    async fn look<C: Change>(
        &self,
        key: &Key,
        bytes: &Bytes,
        ours: Tail,
        operation: OperationId,
    ) -> Result<Found> {
        let Some(found) = self.read_bytes(key).await? else {
            return Ok(Found::Nothing);
        };
        if found == bytes {
            return Ok(Found::Ours(ours));
        }
        // "Lost" makes the caller do it all again, so one wrong bit on the way must not say it.
        if self.read_bytes(key).await?.as_ref() != Some(&found) {
            let reason = "two reads of it differ".into();
            return Err(Error::Unavailable { key: key.to_string(), reason });
        }
        let stored = read::decode::<C>(key, ours.number, found)?;
        if stored.entry.operation == operation {
            Ok(Found::Ours(stored.tail))
        } else {
            Ok(Found::Theirs)
        }
    }
}

fn is_full(error: &Error) -> bool {
    matches!(error, Error::Full { .. })
}

fn exists_and_not(key: &Key) -> Error {
    Error::Unavailable {
        key: key.to_string(),
        reason: "the store says that it exists, and that it does not".into(),
    }
}
