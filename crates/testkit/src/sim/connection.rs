//! A process's way to the store: what is sent takes time, and may be lost on the way there or back.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::FutureExt as _;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};

use super::process::Process;
use super::{Late, World, between};

/// How old that must be of which a stale listing has heard, in milliseconds.
const STALE_MS: u64 = 30_000;
/// The latest that something arrives.
const LATEST: Duration = Duration::from_hours(24 * 30);
/// How long a caller waits for an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    Refused,
    ReplyLost,
    Late(Duration),
    Stale,
}

/// What kind of call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Change,
    Part,
    Read,
    List,
}

/// A process's connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    world: Arc<World>,
    process: Arc<Process>,
}

impl Connection {
    pub(super) fn new(world: &Arc<World>, process: &Arc<Process>) -> Self {
        Self { world: Arc::clone(world), process: Arc::clone(process) }
    }

    /// The way there. What becomes of the call is decided when it arrives.
    async fn begin(&self, call: Call, what: &str, path: &Path) -> Fate {
        self.process.travel().await;
        self.world.land(self.world.time().now());
        let fate = self.process.decide(|dice, habits| {
            if dice.happens(habits.refused) {
                Fate::Refused
            } else if call == Call::Change && dice.happens(habits.reply_lost) {
                Fate::ReplyLost
            } else if call == Call::Change && dice.happens(habits.late) {
                Fate::Late(between(dice, Duration::from_millis(100), LATEST))
            } else if call == Call::List && dice.happens(habits.stale) {
                Fate::Stale
            } else {
                Fate::Answered
            }
        });
        let number = self.process.number();
        match fate {
            Fate::Answered => self.world.note(&format!("p{number} {what} {path}")),
            fate => self.world.note(&format!("p{number} {what} {path}: {fate:?}")),
        }
        fate
    }

    /// The way back.
    async fn end<T>(&self, fate: Fate, answer: Result<T>) -> Result<T> {
        if matches!(fate, Fate::Late(_)) {
            self.world.time().sleep(PATIENCE).await;
        }
        self.process.travel().await;
        match fate {
            Fate::Answered | Fate::Stale => answer,
            Fate::Refused | Fate::ReplyLost | Fate::Late(_) => Err(no_answer()),
        }
    }

    async fn put_whole(
        &self,
        path: &Path,
        payload: PutPayload,
        mode: PutMode,
    ) -> Result<PutResult> {
        let late = |payload| Late::Put { path: path.clone(), payload, mode: mode.clone() };
        let fate = tokio::select! {
            biased;
            fate = self.begin(Call::Change, "put", path) => fate,
            () = self.process.died() => return self.leave(late(payload)).await,
        };
        let done = match fate {
            Fate::Refused => Err(no_answer()),
            Fate::Late(after) => {
                self.world.send_late(after, late(payload));
                Err(no_answer())
            }
            _ => self.world.put(path, payload, mode),
        };
        self.end(fate, done).await
    }

    /// The sender died: what was on its way may still arrive, and nobody hears of it.
    async fn leave<T>(&self, late: Late) -> T {
        let after = self.process.decide(|dice, _| {
            let on_its_way = dice.happens(500);
            on_its_way.then(|| between(dice, Duration::from_millis(1), LATEST))
        });
        if let Some(after) = after {
            self.world.send_late(after, late);
        }
        std::future::pending().await
    }

    async fn delete_one(&self, path: Path) -> Result<Path> {
        let late = || Late::Delete { path: path.clone() };
        let fate = tokio::select! {
            biased;
            fate = self.begin(Call::Change, "delete", &path) => fate,
            () = self.process.died() => return self.leave(late()).await,
        };
        let done = match fate {
            Fate::Refused => Err(no_answer()),
            Fate::Late(after) => {
                self.world.send_late(after, late());
                Err(no_answer())
            }
            _ => self.world.delete(&path),
        };
        self.end(fate, done).await.map(|()| path)
    }

    async fn list_all(&self, prefix: Path) -> Result<Vec<Result<ObjectMeta>>> {
        let fate = self.begin(Call::List, "list", &prefix).await;
        let heard_ms = match fate {
            Fate::Stale => self.world.now_ms().saturating_sub(STALE_MS),
            _ => u64::MAX,
        };
        let listed = self.world.objects.list(Some(&prefix)).map_ok(|meta| self.world.dated(meta));
        let listed: Vec<_> = listed.collect().now_or_never().expect("memory answers at once");
        let is_heard = |meta: &Result<ObjectMeta>| {
            let meta = meta.as_ref();
            meta.is_ok_and(|meta| meta.last_modified.timestamp_millis().cast_unsigned() < heard_ms)
        };
        let listed = listed.into_iter().filter(is_heard).collect();
        self.end(fate, Ok(listed)).await
    }
}

fn no_answer() -> Error {
    Error::Generic { store: "simulated", source: "the connection was reset".into() }
}

impl fmt::Display for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Connection(process {})", self.process.number())
    }
}

#[async_trait]
impl ObjectStore for Connection {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.put_whole(location, payload, options.mode).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fate = self.begin(Call::Part, "begin", location).await;
        self.end(fate, Ok(())).await?;
        let (connection, path) = (self.clone(), location.clone());
        Ok(Box::new(Upload { connection, path, parts: Vec::new() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let what = if options.head { "head" } else { "get" };
        let fate = self.begin(Call::Read, what, location).await;
        self.end(fate, self.world.get(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fate = self.begin(Call::Read, "get", location).await;
        let got = self.world.objects.get_ranges(location, ranges).now_or_never();
        self.end(fate, got.expect("memory answers at once")).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let connection = self.clone();
        let delete = move |path| {
            let connection = connection.clone();
            async move { connection.delete_one(path).await }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (connection, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let listed = async move { connection.list_all(prefix).await.map(stream::iter) };
        stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let root = Path::default();
        let fate = self.begin(Call::List, "list", prefix.unwrap_or(&root)).await;
        let listed = self.world.objects.list_with_delimiter(prefix).now_or_never();
        self.end(fate, listed.expect("memory answers at once")).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copy".into(), implementer: "simulated".into() })
    }
}

/// A write in parts.
#[derive(Debug)]
struct Upload {
    connection: Connection,
    path: Path,
    parts: Vec<PutPayload>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.push(data);
        let (connection, path) = (self.connection.clone(), self.path.clone());
        let send = async move {
            let fate = connection.begin(Call::Part, "part", &path).await;
            connection.end(fate, Ok(())).await
        };
        send.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let parts = std::mem::take(&mut self.parts);
        let whole: PutPayload = parts.iter().flatten().cloned().collect();
        self.connection.put_whole(&self.path, whole, PutMode::Overwrite).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}
