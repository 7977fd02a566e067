//! The requests of the protocol that our object store's client sends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use ballast_store::env::{Env as _, RealEnv};
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CommonPrefix,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, DeletedObject, ETag, GetObjectInput, GetObjectOutput, HeadObjectInput,
    HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, Object, PutObjectInput,
    PutObjectOutput, StreamingBlob, Timestamp, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use tokio::task::JoinSet;

use super::bucket::{Bucket, Listing, Stored};
use super::faults::{Faults, Verdict};

/// Small, so that listings of tests have several pages.
const PAGE: usize = 50;

/// What S3 asks of every part but the last.
const SMALLEST_PART: usize = 5 * 1024 * 1024;

/// One bucket, whatever its name, spoken to as S3.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) bucket: Arc<Bucket>,
    pub(super) faults: Arc<Faults>,
    pub(super) clock: Arc<Clock>,
    pub(super) landing: Arc<Landing>,
}

/// The server's clock, which may be ahead of the machine's.
#[derive(Debug, Default)]
pub(super) struct Clock {
    env: RealEnv,
    ahead_ms: AtomicU64,
}

impl Clock {
    pub(super) fn set_ahead(&self, ahead: Duration) {
        let ahead_ms = u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX);
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        self.env.now_ms() + self.ahead_ms.load(Ordering::Relaxed)
    }
}

/// Writes that were answered and have not happened yet.
#[derive(Debug, Default)]
pub(super) struct Landing(Mutex<JoinSet<()>>);

impl Landing {
    fn add(&self, later: impl Future<Output = ()> + Send + 'static) {
        let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while writes.try_join_next().is_some() {}
        writes.spawn(later);
    }

    /// How many are still to happen.
    pub(super) fn count(&self) -> usize {
        let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while writes.try_join_next().is_some() {}
        writes.len()
    }
}

impl Service {
    /// Lets a request begin: waits and refuses as the faults say.
    async fn enter(&self, bucket: &str) -> S3Result<Verdict> {
        let verdict = self.faults.decide();
        self.clock.env.sleep(verdict.latency).await;
        if bucket != self.name {
            return Err(s3_error!(NoSuchBucket));
        }
        if verdict.is_refused { Err(s3_error!(SlowDown)) } else { Ok(verdict) }
    }

    /// Does something to the bucket later, and says that it failed.
    fn land<T>(
        &self,
        late_by: Duration,
        write: impl FnOnce(&Bucket, u64) + Send + 'static,
    ) -> S3Result<T> {
        let (bucket, clock) = (Arc::clone(&self.bucket), Arc::clone(&self.clock));
        self.landing.add(async move {
            clock.env.sleep(late_by).await;
            write(&bucket, clock.now_ms());
        });
        Err(s3_error!(InternalError))
    }

    fn find(&self, key: &str) -> S3Result<Stored> {
        self.bucket.get(key).ok_or_else(|| s3_error!(NoSuchKey))
    }

    fn complete(&self, input: &CompleteMultipartUploadInput) -> S3Result<String> {
        let upload = self.bucket.end_upload(&input.upload_id);
        let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
        let named = input.multipart_upload.as_ref().and_then(|named| named.parts.as_ref());
        let named = named.ok_or_else(|| s3_error!(InvalidPart))?;
        let mut whole = BytesMut::new();
        for (position, part) in named.iter().enumerate() {
            let number = part.part_number.unwrap_or_default();
            let bytes = upload.parts.get(&number).ok_or_else(|| s3_error!(InvalidPart))?;
            if bytes.len() < SMALLEST_PART && position + 1 < named.len() {
                return Err(s3_error!(EntityTooSmall));
            }
            whole.extend_from_slice(bytes);
        }
        // As a real one does it: a condition on this request is ignored.
        let put = self.bucket.put(&input.key, whole.freeze(), self.clock.now_ms(), false);
        put.ok_or_else(|| s3_error!(InternalError))
    }
}

/// The answer, unless it is to be lost.
fn answer<T>(verdict: Verdict, output: T) -> S3Result<S3Response<T>> {
    if verdict.is_answer_lost { Err(s3_error!(InternalError)) } else { Ok(S3Response::new(output)) }
}

async fn collect(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let body = body.ok_or_else(|| s3_error!(IncompleteBody))?;
    let whole = body.try_fold(BytesMut::new(), |mut whole, piece| {
        whole.extend_from_slice(&piece);
        std::future::ready(Ok(whole))
    });
    Ok(whole.await.map_err(|_| s3_error!(IncompleteBody))?.freeze())
}

fn length(bytes: usize) -> Option<i64> {
    i64::try_from(bytes).ok()
}

fn modified(stored: &Stored) -> Option<Timestamp> {
    Some(Timestamp::from(UNIX_EPOCH + Duration::from_millis(stored.modified_ms)))
}

fn etag(tag: &str) -> Option<ETag> {
    Some(ETag::Strong(tag.to_owned()))
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let verdict = self.enter(&input.bucket).await?;
        let bytes = collect(input.body).await?;
        let is_conditional = input.if_none_match.is_some_and(|condition| condition.is_any());
        let absent_only = is_conditional && !verdict.ignores_conditions;
        if let Some(late_by) = verdict.late_by {
            return self.land(late_by, move |bucket, now_ms| {
                bucket.put(&input.key, bytes, now_ms, absent_only);
            });
        }
        let put = self.bucket.put(&input.key, bytes, self.clock.now_ms(), absent_only);
        let tag = put.ok_or_else(|| s3_error!(PreconditionFailed))?;
        answer(verdict, PutObjectOutput { e_tag: etag(&tag), ..PutObjectOutput::default() })
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let verdict = self.enter(&input.bucket).await?;
        let stored = self.find(&input.key)?;
        let total = stored.bytes.len();
        let (mut bytes, mut content_range) = (stored.bytes.clone(), None);
        if let Some(range) = input.range {
            let range = range.check(total as u64)?;
            content_range = Some(format!("bytes {}-{}/{total}", range.start, range.end - 1));
            let at = |offset| usize::try_from(offset).map_err(|_| s3_error!(InvalidRange));
            bytes = bytes.slice(at(range.start)?..at(range.end)?);
        }
        let output = GetObjectOutput {
            content_length: length(bytes.len()),
            body: Some(StreamingBlob::from(s3s::Body::from(bytes))),
            content_range,
            last_modified: modified(&stored),
            e_tag: etag(&stored.etag),
            ..GetObjectOutput::default()
        };
        answer(verdict, output)
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let verdict = self.enter(&input.bucket).await?;
        let stored = self.find(&input.key)?;
        let output = HeadObjectOutput {
            content_length: length(stored.bytes.len()),
            last_modified: modified(&stored),
            e_tag: etag(&stored.etag),
            ..HeadObjectOutput::default()
        };
        answer(verdict, output)
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let verdict = self.enter(&request.input.bucket).await?;
        if let Some(late_by) = verdict.late_by {
            return self.land(late_by, move |bucket, _| bucket.delete(&request.input.key));
        }
        self.bucket.delete(&request.input.key);
        answer(verdict, DeleteObjectOutput::default())
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let verdict = self.enter(&request.input.bucket).await?;
        let deleted = request.input.delete.objects.into_iter().map(|named| {
            self.bucket.delete(&named.key);
            DeletedObject { key: Some(named.key), ..DeletedObject::default() }
        });
        let deleted = Some(deleted.collect());
        answer(verdict, DeleteObjectsOutput { deleted, ..DeleteObjectsOutput::default() })
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let verdict = self.enter(&input.bucket).await?;
        let asked = input.max_keys.and_then(|keys| usize::try_from(keys).ok()).unwrap_or(PAGE);
        let after = input.continuation_token.or(input.start_after).unwrap_or_default();
        let page = self.bucket.list(&Listing {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input.delimiter.as_deref(),
            after: &after,
            limit: asked.clamp(1, PAGE),
        });
        let contents = page.objects.iter().map(|(key, stored)| Object {
            key: Some(key.clone()),
            size: length(stored.bytes.len()),
            last_modified: modified(stored),
            e_tag: etag(&stored.etag),
            ..Object::default()
        });
        let folders = page.folders.iter();
        let folders = folders.map(|folder| CommonPrefix { prefix: Some(folder.clone()) });
        let output = ListObjectsV2Output {
            contents: Some(contents.collect()),
            common_prefixes: Some(folders.collect()),
            key_count: i32::try_from(page.objects.len() + page.folders.len()).ok(),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next,
            name: Some(input.bucket),
            prefix: input.prefix,
            ..ListObjectsV2Output::default()
        };
        answer(verdict, output)
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let verdict = self.enter(&input.bucket).await?;
        let output = CreateMultipartUploadOutput {
            upload_id: Some(self.bucket.begin_upload()),
            bucket: Some(input.bucket),
            key: Some(input.key),
            ..CreateMultipartUploadOutput::default()
        };
        answer(verdict, output)
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let verdict = self.enter(&input.bucket).await?;
        let bytes = collect(input.body).await?;
        let tag = self.bucket.put_part(&input.upload_id, input.part_number, bytes);
        let tag = tag.ok_or_else(|| s3_error!(NoSuchUpload))?;
        answer(verdict, UploadPartOutput { e_tag: etag(&tag), ..UploadPartOutput::default() })
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let verdict = self.enter(&request.input.bucket).await?;
        let tag = self.complete(&request.input)?;
        let output = CompleteMultipartUploadOutput {
            bucket: Some(request.input.bucket),
            key: Some(request.input.key),
            e_tag: etag(&tag),
            ..CompleteMultipartUploadOutput::default()
        };
        answer(verdict, output)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let verdict = self.enter(&request.input.bucket).await?;
        let ended = self.bucket.end_upload(&request.input.upload_id);
        ended.ok_or_else(|| s3_error!(NoSuchUpload))?;
        answer(verdict, AbortMultipartUploadOutput::default())
    }
}
