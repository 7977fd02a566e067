//! Counts what is asked of the backend, and tells it to whoever listens for `debug` events.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::FutureExt;
use futures_util::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use crate::env::SharedEnv;

/// What was asked of the backend since the start.
#[derive(Debug, Default)]
pub struct Counters {
    puts: AtomicU64,
    parts: AtomicU64,
    reads: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    failures: AtomicU64,
    bytes_written: AtomicU64,
    bytes_read: AtomicU64,
    busy_us: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Objects put in one piece, or completed from parts.
    pub puts: u64,
    /// Parts written.
    pub parts: u64,
    /// Objects or ranges read.
    pub reads: u64,
    /// Listings begun.
    pub lists: u64,
    /// Objects deleted.
    pub deletes: u64,
    /// Calls that failed; "not found" and "exists" are answers, not failures.
    pub failures: u64,
    /// Bytes sent to be written.
    pub bytes_written: u64,
    /// Bytes that reads asked for and that are there.
    pub bytes_read: u64,
    /// The time that calls took, added up, in microseconds.
    pub busy_us: u64,
}

impl Counters {
    /// The counters now.
    pub fn counts(&self) -> Counts {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            puts: now(&self.puts),
            parts: now(&self.parts),
            reads: now(&self.reads),
            lists: now(&self.lists),
            deletes: now(&self.deletes),
            failures: now(&self.failures),
            bytes_written: now(&self.bytes_written),
            bytes_read: now(&self.bytes_read),
            busy_us: now(&self.busy_us),
        }
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// What a call needs to be counted.
#[derive(Clone, Debug)]
struct Meter {
    counters: Arc<Counters>,
    env: SharedEnv,
}

impl Meter {
    async fn measure<T>(
        &self,
        what: &'static str,
        path: &Path,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let before = self.env.monotonic();
        let answer = call.await;
        let took = self.env.monotonic().saturating_sub(before);
        self.note(what, path, took, answer.as_ref().err());
        answer
    }

    fn listing(
        &self,
        prefix: Option<&Path>,
        found: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        add(&self.counters.lists, 1);
        let (meter, path) = (self.clone(), prefix.cloned().unwrap_or_default());
        found
            .inspect(move |listed| {
                if let Err(error) = listed {
                    meter.note("list", &path, Duration::ZERO, Some(error));
                }
            })
            .boxed()
    }

    fn note(
        &self,
        what: &'static str,
        path: &Path,
        took: Duration,
        error: Option<&object_store::Error>,
    ) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        add(&self.counters.busy_us, micros);
        match error {
            None => tracing::debug!(what, %path, micros, "store"),
            Some(error) if is_answer(error) => {
                tracing::debug!(what, %path, micros, %error, "store");
            }
            Some(error) => {
                add(&self.counters.failures, 1);
                tracing::debug!(what, %path, micros, %error, "store failed");
            }
        }
    }
}

fn is_answer(error: &object_store::Error) -> bool {
    use object_store::Error as Backend;

    matches!(
        error,
        Backend::NotFound { .. }
            | Backend::AlreadyExists { .. }
            | Backend::Precondition { .. }
            | Backend::NotModified { .. }
    )
}

/// An object store whose calls are counted.
#[derive(Debug)]
pub struct Trace {
    inner: Arc<dyn ObjectStore>,
    meter: Meter,
}

impl Trace {
    /// Wraps a store; the counters are for whoever reports them.
    pub fn new(inner: Arc<dyn ObjectStore>, env: SharedEnv) -> (Self, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        let meter = Meter { counters: Arc::clone(&counters), env };
        (Self { inner, meter }, counters)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Trace({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Trace {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        add(&self.meter.counters.puts, 1);
        add(&self.meter.counters.bytes_written, payload.content_length() as u64);
        let call = self.inner.put_opts(location, payload, options);
        self.meter.measure("put", location, call).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let call = self.inner.put_multipart_opts(location, options);
        let inner = self.meter.measure("begin parts", location, call).await?;
        let (meter, path) = (self.meter.clone(), location.clone());
        Ok(Box::new(TracedUpload { inner, meter, path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        add(&self.meter.counters.reads, 1);
        let without_body = options.head;
        let call = self.inner.get_opts(location, options);
        let found = self.meter.measure("get", location, call).await?;
        if !without_body {
            add(&self.meter.counters.bytes_read, found.range.end - found.range.start);
        }
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        add(&self.meter.counters.reads, ranges.len() as u64);
        let call = self.inner.get_ranges(location, ranges);
        let found = self.meter.measure("get ranges", location, call).await?;
        let bytes: usize = found.iter().map(Bytes::len).sum();
        add(&self.meter.counters.bytes_read, bytes as u64);
        Ok(found)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let meter = self.meter.clone();
        self.inner
            .delete_stream(locations)
            .inspect(move |deleted| match deleted {
                Ok(path) => {
                    add(&meter.counters.deletes, 1);
                    meter.note("delete", path, Duration::ZERO, None);
                }
                Err(error) => meter.note("delete", &Path::default(), Duration::ZERO, Some(error)),
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.meter.listing(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.meter.listing(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        add(&self.meter.counters.lists, 1);
        let root = Path::default();
        let call = self.inner.list_with_delimiter(prefix);
        self.meter.measure("list", prefix.unwrap_or(&root), call).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.meter.measure("copy", to, self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.meter.measure("rename", to, self.inner.rename_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct TracedUpload {
    inner: Box<dyn MultipartUpload>,
    meter: Meter,
    path: Path,
}

#[async_trait]
impl MultipartUpload for TracedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        add(&self.meter.counters.parts, 1);
        add(&self.meter.counters.bytes_written, data.content_length() as u64);
        let (meter, path) = (self.meter.clone(), self.path.clone());
        let part = self.inner.put_part(data);
        async move { meter.measure("part", &path, part).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        add(&self.meter.counters.puts, 1);
        self.meter.measure("complete", &self.path, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.meter.measure("abort", &self.path, self.inner.abort()).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::TryStreamExt;
    use object_store::memory::InMemory;
    use object_store::{ObjectStoreExt, PutMode};

    use super::*;
    use crate::env::RealEnv;

    #[tokio::test]
    async fn every_kind_of_call_is_counted() {
        let (store, counters) = Trace::new(Arc::new(InMemory::new()), RealEnv::shared());
        let path = Path::from("a");
        store.put(&path, PutPayload::from_static(b"abc")).await.expect("put");
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let taken = store.put_opts(&path, PutPayload::from_static(b"x"), create).await;
        assert!(taken.is_err());
        let mut upload = store.put_multipart(&Path::from("b")).await.expect("begin");
        upload.put_part(PutPayload::from_static(b"12")).await.expect("part");
        upload.complete().await.expect("complete");
        store.get(&path).await.expect("get");
        store.head(&path).await.expect("head");
        let ranges = [0..1, 1..3];
        store.get_ranges(&path, &ranges).await.expect("ranges");
        assert!(store.get(&Path::from("absent")).await.is_err());
        let _: Vec<ObjectMeta> = store.list(None).try_collect().await.expect("list");
        store.delete(&path).await.expect("delete");

        let counts = Counts { busy_us: 0, ..counters.counts() };
        let wanted = Counts {
            puts: 3,
            parts: 1,
            reads: 5,
            lists: 1,
            deletes: 1,
            failures: 0,
            bytes_written: 6,
            bytes_read: 6,
            busy_us: 0,
        };
        assert_eq!(counts, wanted);
    }
}
