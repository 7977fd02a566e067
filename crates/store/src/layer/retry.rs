//! Asks again when an answer did not come.
//!
//! Only reads are asked again. A put-if-absent whose answer was lost may have happened, and asking
//! again would be told "exists"; that is for those who can tell their own write from another's
//! (Invariant 4). Parts of a write are the backend's own affair.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use crate::backoff;
use crate::env::SharedEnv;
use crate::error::{Error, find};
use crate::layer::deadline::Late;

/// How often a read is tried.
const TRIES: u32 = 4;

/// An object store whose reads are tried again.
#[derive(Debug)]
pub struct Retry {
    inner: Arc<dyn ObjectStore>,
    env: SharedEnv,
}

impl Retry {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn ObjectStore>, env: SharedEnv) -> Self {
        Self { inner, env }
    }

    async fn again<T, F>(&self, path: &Path, ask: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut attempt = 1;
        loop {
            match ask().await {
                Err(error) if attempt < TRIES && may_pass(&error) => {
                    tracing::debug!(%path, attempt, %error, "reading again");
                    backoff::wait(self.env.as_ref(), attempt).await;
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }
}

fn may_pass(error: &object_store::Error) -> bool {
    use object_store::Error as Backend;

    match error {
        Backend::Generic { .. } | Backend::JoinError { .. } => {
            // Who waited so long in vain has no patience left for three more times.
            Error::from_backend("", error).is_passing() && find::<Late>(error).is_none()
        }
        _ => false,
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Retry({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Retry {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.again(location, || self.inner.get_opts(location, options.clone())).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.again(location, || self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let root = Path::default();
        self.again(prefix.unwrap_or(&root), || self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;
    use crate::env::quick::QuickEnv;

    /// Fails a number of calls of each kind, then works.
    #[derive(Debug)]
    struct Shaky {
        inner: InMemory,
        failures: AtomicU32,
        calls: AtomicU32,
    }

    impl Shaky {
        fn fail(&self) -> Result<()> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let left = self
                .failures
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            match left {
                Ok(_) => Err(object_store::Error::Generic { store: "shaky", source: "no".into() }),
                Err(_) => Ok(()),
            }
        }
    }

    impl fmt::Display for Shaky {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("Shaky")
        }
    }

    #[async_trait]
    impl ObjectStore for Shaky {
        async fn put_opts(
            &self,
            location: &Path,
            payload: PutPayload,
            options: PutOptions,
        ) -> Result<PutResult> {
            self.fail()?;
            self.inner.put_opts(location, payload, options).await
        }

        async fn put_multipart_opts(
            &self,
            location: &Path,
            options: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(location, options).await
        }

        async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
            self.fail()?;
            self.inner.get_opts(location, options).await
        }

        fn delete_stream(
            &self,
            locations: BoxStream<'static, Result<Path>>,
        ) -> BoxStream<'static, Result<Path>> {
            self.inner.delete_stream(locations)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.inner.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.inner.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.inner.copy_opts(from, to, options).await
        }
    }

    async fn shaky(failures: u32) -> (Retry, Arc<Shaky>, Path) {
        let path = Path::from("a");
        let inner = InMemory::new();
        inner.put(&path, PutPayload::from_static(b"x")).await.expect("memory takes it");
        let shaky =
            Arc::new(Shaky { inner, failures: AtomicU32::new(failures), calls: AtomicU32::new(0) });
        let retry = Retry::new(Arc::clone(&shaky) as Arc<dyn ObjectStore>, QuickEnv::shared());
        (retry, shaky, path)
    }

    #[tokio::test]
    async fn a_read_is_asked_again_a_bounded_number_of_times() {
        let (retry, shaky, path) = shaky(TRIES - 1).await;
        assert!(retry.get(&path).await.is_ok());
        assert_eq!(shaky.calls.load(Ordering::SeqCst), TRIES);
        shaky.failures.store(100, Ordering::SeqCst);
        assert!(retry.get(&path).await.is_err());
        assert_eq!(shaky.calls.load(Ordering::SeqCst), 2 * TRIES);
    }

    #[tokio::test]
    async fn a_clear_no_is_not_asked_again() {
        let (retry, shaky, _) = shaky(0).await;
        assert!(retry.get(&Path::from("absent")).await.is_err());
        assert_eq!(shaky.calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_put_is_never_asked_again() {
        let (retry, shaky, _) = shaky(1).await;
        assert!(retry.put(&Path::from("b"), PutPayload::new()).await.is_err());
        assert_eq!(shaky.calls.load(Ordering::SeqCst), 1);
    }
}
