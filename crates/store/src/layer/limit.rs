//! Bounds how many requests are with the backend at once.
//!
//! Reads and writes are counted apart, so that a crowd of downloads does not keep an append
//! waiting. Who comes too many waits in line. A read counts until its last byte was taken.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::FutureExt;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    UploadPart,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many requests may be with the backend at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Reads and listings.
    pub reads: usize,
    /// Puts, parts and deletes.
    pub writes: usize,
}

/// An object store that is asked a bounded number of things at once.
#[derive(Debug)]
pub struct Limit {
    inner: Arc<dyn ObjectStore>,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Limit {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn ObjectStore>, limits: Limits) -> Self {
        Self {
            inner,
            reads: Arc::new(Semaphore::new(limits.reads)),
            writes: Arc::new(Semaphore::new(limits.writes)),
        }
    }
}

async fn turn(line: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(line).acquire_owned().await.expect("the semaphore is never closed")
}

impl fmt::Display for Limit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Limit({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Limit {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let _turn = turn(&self.writes).await;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = {
            let _turn = turn(&self.writes).await;
            self.inner.put_multipart_opts(location, options).await?
        };
        Ok(Box::new(LimitedUpload { inner: upload, writes: Arc::clone(&self.writes) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let turn = turn(&self.reads).await;
        let result = self.inner.get_opts(location, options).await?;
        let payload = match result.payload {
            GetResultPayload::Stream(stream) => {
                GetResultPayload::Stream(Held { inner: stream, _turn: turn }.boxed())
            }
            file @ GetResultPayload::File(..) => file,
        };
        Ok(GetResult { payload, ..result })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let _turn = turn(&self.reads).await;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (line, inner) = (Arc::clone(&self.writes), Arc::clone(&self.inner));
        let held =
            async move { Held { _turn: turn(&line).await, inner: inner.delete_stream(locations) } };
        held.into_stream().flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (line, inner, prefix) =
            (Arc::clone(&self.reads), Arc::clone(&self.inner), prefix.cloned());
        let held =
            async move { Held { _turn: turn(&line).await, inner: inner.list(prefix.as_ref()) } };
        held.into_stream().flatten().boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (line, inner) = (Arc::clone(&self.reads), Arc::clone(&self.inner));
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        let held = async move {
            let turn = turn(&line).await;
            Held { _turn: turn, inner: inner.list_with_offset(prefix.as_ref(), &offset) }
        };
        held.into_stream().flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let _turn = turn(&self.reads).await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let _turn = turn(&self.writes).await;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let _turn = turn(&self.writes).await;
        self.inner.rename_opts(from, to, options).await
    }
}

/// A stream that keeps its place until it is dropped.
struct Held<S> {
    _turn: OwnedSemaphorePermit,
    inner: S,
}

impl<S: Stream + Unpin> Stream for Held<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.inner.poll_next_unpin(context)
    }
}

#[derive(Debug)]
struct LimitedUpload {
    inner: Box<dyn MultipartUpload>,
    writes: Arc<Semaphore>,
}

#[async_trait]
impl MultipartUpload for LimitedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, line) = (self.inner.put_part(data), Arc::clone(&self.writes));
        async move {
            let _turn = turn(&line).await;
            part.await
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let _turn = turn(&self.writes).await;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        let _turn = turn(&self.writes).await;
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::TryStreamExt;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    fn limited() -> Limit {
        Limit::new(Arc::new(InMemory::new()), Limits { reads: 1, writes: 1 })
    }

    #[tokio::test]
    async fn a_read_keeps_its_place_until_its_stream_ends_and_a_write_does_not_wait_for_it() {
        let store = limited();
        let path = Path::from("a");
        store.put(&path, PutPayload::from_static(b"x")).await.expect("put");
        let first = store.get(&path).await.expect("get");
        assert!(store.get(&path).now_or_never().is_none(), "the second waits");
        store.put(&Path::from("b"), PutPayload::new()).await.expect("writes have their own line");
        assert_eq!(first.bytes().await.expect("read"), Bytes::from_static(b"x"));
        assert!(store.get(&path).await.is_ok(), "its turn");
    }

    #[tokio::test]
    async fn every_call_gives_its_place_back() {
        let store = limited();
        let path = Path::from("a");
        for _ in 0..3 {
            let mut upload = store.put_multipart(&path).await.expect("begins");
            upload.put_part(PutPayload::from_static(b"xy")).await.expect("part");
            upload.complete().await.expect("completes");
            let ranges = store.get_ranges(&path, std::slice::from_ref(&(0..1))).await;
            assert_eq!(ranges.expect("range"), [Bytes::from_static(b"x")]);
            let listed: Vec<ObjectMeta> = store.list(None).try_collect().await.expect("list");
            assert_eq!(listed.len(), 1);
            store.delete(&path).await.expect("delete");
            assert!(store.get(&path).await.is_err());
        }
    }
}
