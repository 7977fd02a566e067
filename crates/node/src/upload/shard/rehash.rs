//! The SHA-256 of a file that is in the store as chunks: read, decode, hash, piece after piece.
//!
//! The next pieces are read while one is hashed. A run of chunks that a sparse file repeats
//! thousands of times is read and decoded once.

use std::collections::VecDeque;
use std::sync::Arc;

use ballast_format::hash::Sha256;
use ballast_format::manifest::{Manifest, Term};
use ballast_format::xorb::ChunkDecoder;
use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use sha2::Digest as _;

use super::turn::ShardSlot;
use crate::download::piece::{Piece, damaged, run_end};
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Serialized bytes that are read at once.
const PIECE_BYTES: u64 = 1 << 20;
/// Pieces that are read at once: the one that is hashed next, and one more.
const AHEAD: usize = 2;
/// Bytes that are worth a job on the pool.
const JOB_BYTES: u64 = 1 << 20;
/// Bytes after which a job makes way for others.
const MOST_JOB_BYTES: u64 = 16 << 20;
/// Terms that are gone through at once.
const TERMS_AT_ONCE: usize = 4096;

/// A piece, read, and how many times it follows itself in the file.
struct Run {
    piece: Piece,
    serialized: Bytes,
    times: u64,
    verify: bool,
}

impl Run {
    fn bytes(&self) -> u64 {
        self.piece.plain_bytes() * self.times
    }

    /// Takes a part of it that is small enough for one job; nothing if it is so itself.
    fn take_part(&mut self) -> Option<Self> {
        let most = (MOST_JOB_BYTES / self.piece.plain_bytes().max(1)).max(1);
        if self.times <= most {
            return None;
        }
        self.times -= most;
        Some(Self {
            piece: self.piece.clone(),
            serialized: self.serialized.clone(),
            times: most,
            verify: self.verify,
        })
    }

    fn hash(&self, sha256: &mut sha2::Sha256, decoder: &mut ChunkDecoder) -> Result<()> {
        let Piece { footer, chunks, .. } = &self.piece;
        let done = if self.times == 1 {
            let chunks = chunks.clone();
            decoder.decode_chunks(&self.serialized, footer, chunks, self.verify, |chunk| {
                sha256.update(chunk);
                Ok(())
            })
        } else {
            let decoded = self.piece.decode(&self.serialized, self.verify, decoder);
            decoded.map(|decoded| {
                for _ in 0..self.times {
                    for bytes in &decoded {
                        sha256.update(bytes);
                    }
                }
            })
        };
        done.map_err(|error| damaged(&self.piece, &error))
    }
}

impl Hub {
    /// Hashes the bytes that a file's terms make.
    pub(in crate::upload) async fn sha256_of(
        self: &Arc<Self>,
        manifest: &Manifest,
        slot: &mut ShardSlot<'_>,
    ) -> Result<Sha256> {
        let mut sha256 = sha2::Sha256::new();
        for terms in manifest.terms.chunks(TERMS_AT_ONCE) {
            sha256 = self.hash_terms(sha256, terms.into(), slot).await?;
        }
        Ok(Sha256::from_bytes(sha256.finalize().into()))
    }

    /// Goes on hashing with the bytes that these terms make.
    pub(in crate::upload) async fn hash_terms(
        self: &Arc<Self>,
        mut sha256: sha2::Sha256,
        terms: Arc<[Term]>,
        slot: &mut ShardSlot<'_>,
    ) -> Result<sha2::Sha256> {
        let pieces = Pieces { hub: Arc::clone(self), terms, next: 0, open: VecDeque::new() };
        let pieces = stream::try_unfold(pieces, |mut pieces| async move {
            Ok::<_, Error>(pieces.next().await?.map(|piece| (piece, pieces)))
        });
        let read = |(piece, times): (Piece, u64)| async move {
            let serialized = self.get_piece(&piece).await?;
            let sound = self.sound(&piece.copy, &piece.footer);
            let verify = !sound.has(piece.chunks.clone());
            Ok(Run { piece, serialized, times, verify })
        };
        let mut runs = Box::pin(pieces.map_ok(read).try_buffered(AHEAD));
        let (mut job, mut bytes) = (Vec::new(), 0);
        let mut next = runs.try_next().await?;
        while let Some(mut run) = next {
            while let Some(part) = run.take_part() {
                bytes += part.bytes();
                job.push(part);
                sha256 = self.hash_runs(sha256, std::mem::take(&mut job)).await?;
                slot.spend(std::mem::take(&mut bytes)).await?;
            }
            bytes += run.bytes();
            job.push(run);
            if bytes < JOB_BYTES {
                next = runs.try_next().await?;
                continue;
            }
            // What the page cache has is read on this thread, while another one hashes.
            let hashing = self.hash_runs(sha256, std::mem::take(&mut job));
            let (hashed, read) = tokio::join!(hashing, runs.try_next());
            (sha256, next) = (hashed?, read?);
            slot.spend(std::mem::take(&mut bytes)).await?;
        }
        self.hash_runs(sha256, job).await
    }

    async fn hash_runs(&self, mut sha256: sha2::Sha256, runs: Vec<Run>) -> Result<sha2::Sha256> {
        let mut decoder = self.caches.decoders.take();
        let job = move || {
            let mut failed = None;
            for run in &runs {
                if let Err(error) = run.hash(&mut sha256, &mut decoder) {
                    failed = Some((run.piece.copy, error));
                    break;
                }
            }
            (sha256, decoder, runs, failed)
        };
        let (sha256, decoder, runs, failed) = self.pool().run(job).await?;
        self.caches.decoders.give_back(decoder);
        if let Some((copy, error)) = failed {
            return Err(self.note_damage(&copy, error));
        }
        for run in runs.iter().filter(|run| run.verify) {
            let sound = self.sound(&run.piece.copy, &run.piece.footer);
            sound.add(run.piece.chunks.clone());
        }
        Ok(sha256)
    }
}

/// Along a file's terms, in pieces.
struct Pieces {
    hub: Arc<Hub>,
    terms: Arc<[Term]>,
    next: usize,
    /// What is left of the term before the next.
    open: VecDeque<Piece>,
}

impl Pieces {
    /// The next piece, and how many times it follows itself.
    async fn next(&mut self) -> Result<Option<(Piece, u64)>> {
        if let Some(piece) = self.open.pop_front() {
            return Ok(Some((piece, 1)));
        }
        let Some(term) = self.terms.get(self.next) else {
            return Ok(None);
        };
        let (copy, footer) = self.hub.needed_xorb(&term.xorb).await?;
        let chunks = term.chunks.clone();
        let mut end = run_end(&footer, chunks.start, chunks.end, PIECE_BYTES);
        let first = Piece::new(copy, &footer, chunks.start..end)?;
        if end == chunks.end {
            let same = self.terms[self.next..].iter();
            let times = same.take_while(|other| *other == term).count();
            self.next += times;
            return Ok(Some((first, times as u64)));
        }
        self.next += 1;
        while end < chunks.end {
            let start = end;
            end = run_end(&footer, start, chunks.end, PIECE_BYTES);
            self.open.push_back(Piece::new(copy, &footer, start..end)?);
        }
        Ok(Some((first, 1)))
    }
}
