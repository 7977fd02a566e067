//! Reading a file of the cache, as far as it is here and while it comes.

use std::ops::Range;
use std::sync::Arc;

use ballast_node::download::ByteStream;
use ballast_node::error::{Error, Result};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch;

use super::{Cache, OpenFile, Read, Stage};

/// How much of what a client waits for is asked for at once, out of order.
const WANTED_BYTES: u64 = 4 << 20;
/// When to ask again for a file that nobody fetches any more, in seconds.
const AGAIN_SECONDS: u64 = 2;

struct Reader {
    cache: Arc<Cache>,
    file: Arc<OpenFile>,
    stage: watch::Receiver<Stage>,
    at: u64,
    end: u64,
}

impl Cache {
    /// These bytes of a file, as they come. What is waited for is told to whoever fetches the file
    /// (`OpenFile::wants`).
    pub fn stream(self: &Arc<Self>, file: &Arc<OpenFile>, range: Range<u64>) -> ByteStream {
        let reader = Reader {
            cache: Arc::clone(self),
            file: Arc::clone(file),
            stage: file.watch(),
            at: range.start,
            end: range.end.min(file.about.head.size),
        };
        Box::pin(stream::try_unfold(reader, |mut reader| async move {
            Ok(reader.next().await?.map(|piece| (piece, reader)))
        }))
    }
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let about = &self.file.about;
        let Some(last) = self.end.checked_sub(1).filter(|last| *last >= self.at) else {
            return Ok(None);
        };
        let (Some(chunk), Some(last)) = (about.chunk_at(self.at), about.chunk_at(last)) else {
            return Ok(None);
        };
        loop {
            let stage = self.stage.borrow_and_update().clone();
            if self.file.has(chunk) {
                let run = self.file.readable(&(chunk..last + 1));
                match self.file.read(&self.cache.pool, run.clone()).await? {
                    Read::Here(bytes) => return Ok(Some(self.cut(&run, bytes))),
                    Read::Missing => {}
                    Read::Damaged(_) => self.cache.damaged(&self.file).await,
                }
                continue;
            }
            match stage {
                Stage::Filling => {}
                Stage::Resting(Some(error)) => return Err(error),
                Stage::Whole | Stage::Resting(None) => return Err(again()),
            }
            let wanted = chunk..self.file.within(chunk, last + 1, WANTED_BYTES);
            let _waiting = self.file.want(wanted);
            self.stage.changed().await.map_err(|_| again())?;
        }
    }

    /// What of a run was asked for and not read yet.
    fn cut(&mut self, run: &Range<u32>, bytes: Bytes) -> Bytes {
        let there = self.file.about.bytes_of(run.clone());
        let end = there.end.min(self.end);
        let inside = |place: u64| usize::try_from(place - there.start).unwrap_or(bytes.len());
        let cut = bytes.slice(inside(self.at)..inside(end));
        self.at = end;
        cut
    }
}

fn again() -> Error {
    let reason = "this file is not all here, and nobody fetches it now; ask again".to_owned();
    Error::Upstream { reason, retry_seconds: AGAIN_SECONDS }
}
