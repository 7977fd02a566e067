//! No call to a store lasts for ever.
//!
//! A disk may hang and a connection may be lost without a word. A call ends after a while, and then
//! nobody knows whether what it asked for happens (Invariant 4). What is larger may take longer, so
//! that a slow store is not taken for a dead one.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{self, Either};
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    UploadPart,
};

use crate::env::SharedEnv;

/// The slowest store that is not dead: 8 Mbit a second.
const SLOWEST_BYTES_PER_SECOND: u64 = 1024 * 1024;

/// How long a call may take that moves next to nothing, and how long a stream may say nothing:
/// longer than stores take on a bad day, shorter than clients wait.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Nothing was heard for too long.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} seconds", .0.as_secs())]
pub(crate) struct Late(Duration);

/// An object store whose calls end.
#[derive(Debug)]
pub struct Deadline {
    inner: Arc<dyn ObjectStore>,
    watch: Watch,
}

/// Time, and how much of it there is.
#[derive(Clone, Debug)]
struct Watch {
    env: SharedEnv,
    patience: Duration,
}

impl Watch {
    /// The answer, if it comes in the time that moving so many bytes may take.
    async fn within<T>(&self, bytes: u64, call: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.patience + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND);
        let call = std::pin::pin!(call);
        match future::select(call, self.env.sleep(limit)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), _)) => {
                Err(object_store::Error::Generic { store: "any", source: Box::new(Late(limit)) })
            }
        }
    }

    /// The stream, until it says nothing for too long.
    fn each<T: Send + 'static>(
        &self,
        stream: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let watch = self.clone();
        let next = move |stream: Option<BoxStream<'static, Result<T>>>| {
            let watch = watch.clone();
            async move {
                let mut stream = stream?;
                match watch.within(0, stream.next().map(Ok)).await {
                    Ok(item) => item.map(|item| (item, Some(stream))),
                    Err(error) => Some((Err(error), None)),
                }
            }
        };
        // Who reads an empty object asks once more after its end.
        stream::unfold(Some(stream), next).fuse().boxed()
    }
}

impl Deadline {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn ObjectStore>, env: SharedEnv, patience: Duration) -> Self {
        Self { inner, watch: Watch { env, patience } }
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Deadline({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Deadline {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let bytes = payload.content_length() as u64;
        self.watch.within(bytes, self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.watch.within(0, self.inner.put_multipart_opts(location, options)).await?;
        Ok(Box::new(TimedUpload { inner, watch: self.watch.clone(), bytes: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let result = self.watch.within(0, self.inner.get_opts(location, options)).await?;
        let payload = match result.payload {
            GetResultPayload::Stream(stream) => GetResultPayload::Stream(self.watch.each(stream)),
            file @ GetResultPayload::File(..) => file,
        };
        Ok(GetResult { payload, ..result })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let bytes = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        self.watch.within(bytes, self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.watch.each(self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.watch.each(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.watch.each(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.watch.within(0, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.watch.within(0, self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.watch.within(0, self.inner.rename_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct TimedUpload {
    inner: Box<dyn MultipartUpload>,
    watch: Watch,
    /// A disk syncs all of them at the end.
    bytes: u64,
}

#[async_trait]
impl MultipartUpload for TimedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let bytes = data.content_length() as u64;
        self.bytes += bytes;
        let (part, watch) = (self.inner.put_part(data), self.watch.clone());
        async move { watch.within(bytes, part).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.watch.within(self.bytes, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.watch.within(0, self.inner.abort()).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::TryStreamExt;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;
    use crate::env::RealEnv;
    use crate::error::Error;
    use crate::layer::limit::{Limit, Limits};
    use crate::layer::retry::Retry;

    fn over(inner: Arc<dyn ObjectStore>, patience: Duration) -> Arc<dyn ObjectStore> {
        Arc::new(Deadline::new(inner, RealEnv::shared(), patience))
    }

    #[tokio::test]
    async fn a_store_that_never_answers_is_given_up_once() {
        // Nobody ever gets a turn.
        let limits = Limits { reads: 0, writes: 0 };
        let hung = Arc::new(Limit::new(Arc::new(InMemory::new()), limits));
        let timed = over(hung, Duration::from_millis(5));
        let store = Retry::new(timed, RealEnv::shared());
        let path = Path::from("a");
        let answers = [
            store.put(&path, PutPayload::from_static(b"x")).await.err(),
            store.put_multipart(&path).await.err(),
            store.get(&path).await.err(),
            store.get_ranges(&path, &[0..1]).await.err(),
            store.list(None).try_collect::<Vec<_>>().await.err(),
            store.list_with_offset(None, &path).try_collect::<Vec<_>>().await.err(),
            store.delete(&path).await.err(),
        ];
        for answer in answers {
            let error = Error::from_backend("a", &answer.expect("it can't have answered"));
            assert!(error.is_passing(), "{error}");
            assert!(error.to_string().contains("no answer within"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_stops_in_the_middle_ends_with_an_error() {
        let watch = Watch { env: RealEnv::shared(), patience: Duration::from_millis(5) };
        let stream = stream::iter([Ok(1), Ok(2)]).chain(stream::pending()).boxed();
        let found: Vec<_> = watch.each(stream).collect().await;
        assert_eq!(found.len(), 3);
        assert!(found[..2].iter().all(Result::is_ok) && found[2].is_err());
    }

    #[tokio::test]
    async fn a_store_that_answers_is_left_alone() {
        let store = over(Arc::new(InMemory::new()), PATIENCE);
        let path = Path::from("a");
        let mut upload = store.put_multipart(&path).await.expect("begins");
        upload.put_part(PutPayload::from_static(b"xy")).await.expect("part");
        upload.complete().await.expect("completes");
        assert_eq!(store.get(&path).await.expect("get").bytes().await.expect("reads"), "xy");
        let empty = Path::from("empty");
        store.put(&empty, PutPayload::new()).await.expect("put");
        assert_eq!(store.get(&empty).await.expect("get").bytes().await.expect("reads"), "");
        let listed: Vec<_> = store.list(None).try_collect().await.expect("lists");
        assert_eq!(listed.len(), 2);
    }
}
