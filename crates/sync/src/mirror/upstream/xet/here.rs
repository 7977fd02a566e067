//! What is here of the xorbs that an upstream names.
//!
//! Only xorbs that a file used as a whole are here under their names; what else came was packed
//! anew. But a file has the same chunks everywhere, and the upstream says of a file that is here
//! which of its xorbs these are in: such a range is read here and not fetched. That an upstream
//! says so is not believed; whoever stores the file hashes it (ADR 20).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use ballast_format::hash::{FileHash, XorbHash};
use ballast_format::manifest::ManifestId;
use ballast_node::access::Repo;
use ballast_node::error::Result;
use ballast_node::hub::Hub;
use ballast_node::pool::Pool;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::Door;
use super::plan::WireTerms;
use crate::mirror::upstream::Upstream;
use crate::mirror::upstream::error::Error;

/// Files that the upstream is asked about for one that is fetched, and how many at once.
const MOST_FILES: usize = 8;
const ASKED_AT_ONCE: usize = 4;
/// Ranges that are remembered for one file that is fetched, and of one xorb: a few MiB, and a term
/// is found among few.
const MOST_SPANS: usize = 100_000;
const MOST_SPANS_OF_ONE: usize = 64;

/// Files of a repo that are here and resemble one that is fetched.
#[derive(Clone)]
pub(in crate::mirror) struct Here {
    hub: Arc<Hub>,
    files: Vec<ManifestId>,
}

impl Here {
    /// What may help with a file of so many bytes; nothing if the repo has nothing like it.
    pub(in crate::mirror) async fn of(
        hub: &Arc<Hub>,
        repo: &Repo,
        size: u64,
    ) -> Result<Option<Self>> {
        let files = hub.mirrored_like(repo, size, MOST_FILES).await?;
        Ok((!files.is_empty()).then(|| Self { hub: Arc::clone(hub), files }))
    }

    /// Asks in which xorbs these files are there. What can't be told is fetched.
    pub(super) async fn spans(
        &self,
        upstream: &Upstream,
        pool: &Pool,
        door: &Door,
        is_old: bool,
    ) -> Spans {
        // Made one by one: they begin when their turn comes.
        let mut asks = Vec::new();
        for ManifestId { file, .. } in self.files.iter().copied() {
            asks.push(async move { (file, upstream.told(door, is_old, file, None).await) });
        }
        let mut answers = stream::iter(asks).buffered(ASKED_AT_ONCE);
        let mut bodies = Vec::new();
        while let Some((file, told)) = answers.next().await {
            match told {
                Ok(body) => bodies.extend(body.map(|body| (file, body))),
                Err(error) => tracing::debug!(%file, %error, "of a file nothing can be used again"),
            }
        }
        let parse = move || {
            let mut spans = Spans::default();
            for (file, body) in bodies {
                let terms = serde_json::from_slice::<WireTerms>(&body).ok();
                if let Some(ranges) = terms.and_then(|terms| terms.ranges()) {
                    spans.learn(file, ranges.into_iter());
                }
            }
            spans
        };
        // A hub that is being stopped fetches nothing either.
        pool.run(parse).await.unwrap_or_default()
    }

    /// The bytes of some chunks of one of these files.
    pub(super) async fn read(
        &self,
        file: FileHash,
        chunks: Range<u64>,
    ) -> std::result::Result<Vec<Bytes>, Error> {
        let gone = || Error::unavailable("what was here is gone");
        let id = self.files.iter().find(|id| id.file == file).ok_or_else(gone)?;
        let read = self.hub.carried_run(id, chunks).await;
        let read = read.map_err(|error| Error::unavailable(format!("what is here: {error}")))?;
        read.ok_or_else(gone)
    }
}

/// Chunks of a xorb that are here as chunks of a file.
struct Span {
    chunks: Range<u32>,
    file: FileHash,
    /// The first of them, counted from the file's first.
    first: u64,
}

/// All that is known to be here, by the upstream's xorbs.
#[derive(Default)]
pub(super) struct Spans {
    of: HashMap<XorbHash, Vec<Span>>,
    count: usize,
}

impl Spans {
    /// Learns of what a file is made there that is here.
    pub(super) fn learn(
        &mut self,
        file: FileHash,
        terms: impl Iterator<Item = (XorbHash, Range<u32>)>,
    ) {
        let mut first = 0;
        for (xorb, chunks) in terms {
            let count = u64::from(chunks.end - chunks.start);
            let spans = self.of.entry(xorb).or_default();
            let known = spans.len();
            match spans.last_mut() {
                // Two terms that are one behind the other, there and here.
                Some(last)
                    if last.file == file
                        && last.chunks.end == chunks.start
                        && last.first + u64::from(chunks.start - last.chunks.start) == first =>
                {
                    last.chunks.end = chunks.end;
                }
                _ if self.count < MOST_SPANS && known < MOST_SPANS_OF_ONE => {
                    spans.push(Span { chunks, file, first });
                    self.count += 1;
                }
                _ => {}
            }
            first += count;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Where all of these chunks of a xorb are here.
    pub(super) fn find(
        &self,
        xorb: &XorbHash,
        chunks: &Range<u32>,
    ) -> Option<(FileHash, Range<u64>)> {
        let has = |s: &&Span| s.chunks.start <= chunks.start && chunks.end <= s.chunks.end;
        let span = self.of.get(xorb)?.iter().find(has)?;
        let start = span.first + u64::from(chunks.start - span.chunks.start);
        Some((span.file, start..start + u64::from(chunks.end - chunks.start)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xorb(byte: u8) -> XorbHash {
        XorbHash::from_bytes([byte; 32])
    }

    #[test]
    fn chunks_are_found_where_a_file_that_is_here_has_them() {
        let (old, older) = (FileHash::from_bytes([1; 32]), FileHash::from_bytes([2; 32]));
        let mut spans = Spans::default();
        assert!(spans.is_empty());
        // Chunks 0 to 9, 20 to 24 and 10 to 19 of one xorb, with 5 of another between.
        let terms = [(xorb(7), 0..10), (xorb(8), 3..8), (xorb(7), 20..25), (xorb(7), 10..20)];
        spans.learn(old, terms.into_iter());
        spans.learn(older, [(xorb(7), 5..22)].into_iter());
        assert_eq!(spans.find(&xorb(7), &(2..4)), Some((old, 2..4)));
        assert_eq!(spans.find(&xorb(8), &(3..8)), Some((old, 10..15)));
        assert_eq!(spans.find(&xorb(7), &(21..25)), Some((old, 16..20)));
        assert_eq!(spans.find(&xorb(7), &(11..20)), Some((old, 21..30)));
        assert_eq!(spans.find(&xorb(7), &(8..22)), Some((older, 3..17)), "across two terms");
        assert_eq!(spans.find(&xorb(7), &(24..26)), None);
        assert_eq!(spans.find(&xorb(9), &(0..1)), None);
    }

    #[test]
    fn terms_that_follow_each_other_there_and_here_are_one() {
        let file = FileHash::from_bytes([1; 32]);
        let mut spans = Spans::default();
        spans.learn(file, [(xorb(7), 0..3), (xorb(7), 3..9), (xorb(7), 0..2)].into_iter());
        assert_eq!(spans.find(&xorb(7), &(1..8)), Some((file, 1..8)));
        assert_eq!(spans.count, 2);
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let file = FileHash::from_bytes([1; 32]);
        let mut spans = Spans::default();
        spans.learn(file, (0..1000).map(|n| (xorb(7), 2 * n..2 * n + 1)));
        assert_eq!(spans.count, MOST_SPANS_OF_ONE);
    }
}
