//! A file of the cache while somebody uses it: what it is made of, and what of it is here.
//!
//! A chunk is *sound* when it was hashed since the file was opened, on its way in or from the disk,
//! and *claimed* when only the disk says that it is here. Nothing is handed out that is not sound:
//! what is claimed is hashed when it is read, and turns out to be one or to be missing.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ballast_format::cached_file::CachedFile;
use ballast_format::hash::{ChunkHash, Sha256, XorbHash};
use ballast_node::error::{Error, Result};
use ballast_node::pool::Pool;
use bytes::Bytes;
use sha2::Digest as _;
use tokio::sync::watch;

use super::bits::Bits;
use super::folder::on_disk;

/// The most bytes that are read at once.
pub const READ_BYTES: u64 = 1 << 20;
/// What arrived last is handed on from memory: so much of each file on its way.
const RECENT_BYTES: usize = 8 << 20;
/// How much a write hashes behind it at most, so that no write waits for long.
const SUMMED_AT_ONCE: u64 = 8 << 20;

/// How far a file is.
#[derive(Clone, Debug)]
pub enum Stage {
    /// It is on its way.
    Filling,
    /// All of it is here, and is what it must be.
    Whole,
    /// Nobody fetches it; why, if that is known.
    Resting(Option<Error>),
}

/// A file that somebody uses.
pub struct OpenFile {
    /// What it is made of.
    pub about: CachedFile,
    /// Its terms by their xorbs.
    by_xorb: Vec<u32>,
    content: File,
    held: Mutex<Held>,
    stage: watch::Sender<Stage>,
    recent: Mutex<Recent>,
    sum: Mutex<Sum>,
    wants: watch::Sender<Wants>,
}

/// What clients wait for.
#[derive(Debug, Default)]
pub struct Wants {
    chunks: BTreeMap<u64, Range<u32>>,
    next: u64,
}

impl Wants {
    /// The chunks that are waited for, by each who waits.
    pub fn chunks(&self) -> impl Iterator<Item = &Range<u32>> {
        self.chunks.values()
    }
}

/// Somebody waits for chunks, as long as this lives.
pub(super) struct Waiting {
    file: Arc<OpenFile>,
    number: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.file.wants.send_modify(|wants| {
            wants.chunks.remove(&self.number);
        });
    }
}

/// What is here of a file.
struct Held {
    sound: Bits,
    claimed: Bits,
}

/// What arrived last.
#[derive(Default)]
struct Recent {
    runs: VecDeque<(Range<u32>, Bytes)>,
    bytes: usize,
}

/// The SHA-256 of the file's front.
#[derive(Default)]
struct Sum {
    hasher: sha2::Sha256,
    chunk: u32,
}

/// What reading found.
pub enum Read {
    /// The bytes.
    Here(Bytes),
    /// Not all of these chunks are here.
    Missing,
    /// The disk gave back other bytes for these chunks than were written.
    Damaged(Range<u32>),
}

impl OpenFile {
    pub(super) fn new(about: CachedFile, content: File, claimed: Bits, stage: Stage) -> Arc<Self> {
        let terms = &about.head.terms;
        let mut by_xorb: Vec<u32> = (0..).take(terms.len()).collect();
        by_xorb.sort_by_key(|term| terms[*term as usize].xorb);
        let sound = Bits::none(about.head.chunk_count());
        Arc::new(Self {
            by_xorb,
            content,
            held: Mutex::new(Held { sound, claimed }),
            stage: watch::Sender::new(stage),
            recent: Mutex::default(),
            sum: Mutex::default(),
            wants: watch::Sender::default(),
            about,
        })
    }

    /// Its SHA-256.
    pub fn sha256(&self) -> Sha256 {
        self.about.head.sha256
    }

    /// How far it is, to wait for more: each chunk that arrives is told of.
    pub fn watch(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage.borrow().clone()
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        if !matches!(stage, Stage::Filling) {
            *lock(&self.recent) = Recent::default();
        }
        self.stage.send_replace(stage);
    }

    /// Says that a client waits for these chunks.
    pub(super) fn want(self: &Arc<Self>, chunks: Range<u32>) -> Waiting {
        let mut number = 0;
        self.wants.send_modify(|wants| {
            number = wants.next;
            wants.next += 1;
            wants.chunks.insert(number, chunks);
        });
        Waiting { file: Arc::clone(self), number }
    }

    /// What clients wait for.
    pub fn wants(&self) -> watch::Receiver<Wants> {
        self.wants.subscribe()
    }

    /// Whether a chunk is here, as far as is known.
    pub fn has(&self, chunk: u32) -> bool {
        let held = self.held();
        held.sound.has(chunk) || held.claimed.has(chunk)
    }

    /// The first chunk from `start` on, up to `end`, that is not as that one: here, or not.
    pub fn end_of_run(&self, start: u32, end: u32) -> u32 {
        let held = self.held();
        let is_here = |chunk| held.sound.has(chunk) || held.claimed.has(chunk);
        if !is_here(start) {
            let sound = held.sound.end_of_gap(start, end);
            return held.claimed.end_of_gap(start, sound);
        }
        let mut at = start;
        while at < end && is_here(at) {
            at = held.sound.end_of_run(at, end);
            at = held.claimed.end_of_run(at, end);
        }
        at
    }

    /// The first chunk from `start` on that is not here; the number of chunks if all are.
    pub fn next_missing(&self, start: u32) -> u32 {
        let count = self.about.head.chunk_count();
        if start < count && self.has(start) { self.end_of_run(start, count) } else { start }
    }

    /// Whether these chunks are here and were hashed.
    pub fn has_sound(&self, chunks: Range<u32>) -> bool {
        self.held().sound.has_all(chunks)
    }

    /// The first chunk from `start` on that is not here and hashed; the end if there is none.
    pub fn next_unsound(&self, start: u32, end: u32) -> u32 {
        self.held().sound.end_of_run(start, end)
    }

    /// The first chunk from `start` on that is here and hashed; the end if there is none.
    pub fn end_of_unsound(&self, start: u32, end: u32) -> u32 {
        self.held().sound.end_of_gap(start, end)
    }

    /// Whether all of them are.
    pub fn is_sound(&self) -> bool {
        self.held().sound.is_full()
    }

    /// How many bytes are here and were hashed.
    pub fn sound_bytes(&self) -> u64 {
        let (held, count) = (self.held(), self.about.head.chunk_count());
        let (mut at, mut bytes) = (held.sound.end_of_gap(0, count), 0);
        while at < count {
            let end = held.sound.end_of_run(at, count);
            let run = self.about.bytes_of(at..end);
            bytes += run.end - run.start;
            at = held.sound.end_of_gap(end, count);
        }
        bytes
    }

    /// Where the file has chunks of a xorb: each place in its list of chunks, with the xorb's chunk
    /// that is the first one there.
    pub fn places_of(&self, xorb: &XorbHash, chunks: &Range<u32>) -> Vec<(Range<u32>, u32)> {
        let terms = &self.about.head.terms;
        let start = self.by_xorb.partition_point(|term| terms[*term as usize].xorb < *xorb);
        let of_xorb = self.by_xorb[start..].iter().map(|term| *term as usize);
        let of_xorb = of_xorb.take_while(|term| terms[*term].xorb == *xorb);
        let places = of_xorb.filter_map(|term| {
            let there = &terms[term].chunks;
            let both = chunks.start.max(there.start)..chunks.end.min(there.end);
            let first = self.about.head.chunks_of(term).start;
            let place = |chunk: u32| first + (chunk - there.start);
            (!both.is_empty()).then(|| (place(both.start)..place(both.end), both.start))
        });
        places.collect()
    }

    /// Some chunks from `chunks.start` on, as many as are read at once and are here.
    pub fn readable(&self, chunks: &Range<u32>) -> Range<u32> {
        let end = self.end_of_run(chunks.start, chunks.end);
        chunks.start..self.within(chunks.start, end, READ_BYTES)
    }

    /// The end of the longest run from `start` on that has no more bytes than this, but a chunk.
    pub fn within(&self, start: u32, end: u32, bytes: u64) -> u32 {
        let limit = self.about.bytes_of(start..start + 1).start + bytes;
        let cut = self.about.chunk_at(limit);
        let cut = cut.unwrap_or_else(|| self.about.head.chunk_count());
        cut.clamp(start + 1, end.max(start + 1))
    }

    /// The bytes of consecutive chunks; at most [`READ_BYTES`], or one chunk.
    pub async fn read(self: &Arc<Self>, pool: &Pool, chunks: Range<u32>) -> Result<Read> {
        if let Some(bytes) = lock(&self.recent).find(&self.about, &chunks) {
            return Ok(Read::Here(bytes));
        }
        let file = Arc::clone(self);
        pool.run(move || file.read_now(chunks)).await?
    }

    /// The same, on a thread that may block.
    fn read_now(&self, chunks: Range<u32>) -> Result<Read> {
        let is_sound = {
            let held = self.held();
            let here = |chunk| held.sound.has(chunk) || held.claimed.has(chunk);
            if !chunks.clone().all(here) {
                return Ok(Read::Missing);
            }
            held.sound.has_all(chunks.clone())
        };
        let place = self.about.bytes_of(chunks.clone());
        let length = usize::try_from(place.end - place.start);
        let mut bytes = vec![0; length.map_err(|_| Error::internal("too much is read at once"))?];
        let read = self.content.read_exact_at(&mut bytes, place.start);
        read.map_err(|error| self.failed(&error))?;
        if is_sound {
            return Ok(Read::Here(Bytes::from(bytes)));
        }
        match self.first_wrong(&chunks, &bytes) {
            None => {
                self.held().sound.set(chunks);
                Ok(Read::Here(Bytes::from(bytes)))
            }
            Some(wrong) => {
                let mut held = self.held();
                held.sound.set(chunks.start..wrong);
                held.claimed.clear(wrong..wrong + 1);
                Ok(Read::Damaged(wrong..wrong + 1))
            }
        }
    }

    /// The first of these chunks that is not what it must be.
    fn first_wrong(&self, chunks: &Range<u32>, bytes: &[u8]) -> Option<u32> {
        let mut rest = bytes;
        chunks.clone().find(|chunk| {
            let length = self.about.length_of(*chunk) as usize;
            let Some((bytes, after)) = rest.split_at_checked(length) else { return true };
            rest = after;
            ChunkHash::of(bytes) != self.about.hash_of(*chunk)
        })
    }

    /// Hashes what the disk says is here, from a chunk on, as much as is read at once; where to go
    /// on.
    pub(super) fn believe(&self, start: u32) -> Result<u32> {
        let count = self.about.head.chunk_count();
        let chunks = {
            let held = self.held();
            let first = held.claimed.end_of_gap(start, count);
            let end = held.claimed.end_of_run(first, count);
            if first >= count {
                return Ok(count);
            }
            first..end
        };
        let chunks = chunks.start..self.within(chunks.start, chunks.end, READ_BYTES);
        match self.read_now(chunks.clone())? {
            Read::Damaged(wrong) => Ok(wrong.end),
            Read::Here(_) | Read::Missing => Ok(chunks.end),
        }
    }

    /// Writes chunks that were hashed, which are of one term, wherever the file has them; how many
    /// bytes are new.
    pub(super) fn write(&self, chunks: &Range<u32>, bytes: &Bytes) -> Result<u64> {
        let start = self.about.bytes_of(chunks.start..chunks.end);
        let (Some((term, first)), true) =
            (self.about.head.xorb_of(chunks.start), start.end - start.start == bytes.len() as u64)
        else {
            return Err(Error::internal("bytes of other chunks are written"));
        };
        let xorb = self.about.head.terms[term].xorb;
        let in_xorb = first..first + (chunks.end - chunks.start);
        let mut new = 0;
        for (place, from) in self.places_of(&xorb, &in_xorb) {
            let at = chunks.start + (from - first);
            let source = self.about.bytes_of(at..at + (place.end - place.start));
            let target = self.about.bytes_of(place.clone());
            let inside = source.start - start.start..source.end - start.start;
            let (Ok(from), Ok(to)) = (usize::try_from(inside.start), usize::try_from(inside.end))
            else {
                continue;
            };
            // A xorb's chunk is the same wherever a file has it, if what is said of the file is so.
            if target.end - target.start == inside.end - inside.start && to <= bytes.len() {
                new += self.write_at(&place, bytes.slice(from..to))?;
            }
        }
        self.stage.send_modify(|_| {});
        self.add_up(SUMMED_AT_ONCE)?;
        Ok(new)
    }

    fn write_at(&self, chunks: &Range<u32>, bytes: Bytes) -> Result<u64> {
        if self.held().sound.has_all(chunks.clone()) {
            return Ok(0);
        }
        let start = self.about.bytes_of(chunks.clone()).start;
        self.content.write_all_at(&bytes, start).map_err(|error| self.failed(&error))?;
        lock(&self.recent).push(chunks.clone(), bytes);
        let mut held = self.held();
        let missing = chunks.clone().filter(|chunk| !held.sound.has(*chunk));
        let new = missing.map(|chunk| u64::from(self.about.length_of(chunk))).sum();
        held.sound.set(chunks.clone());
        Ok(new)
    }

    /// Hashes the file's front as far as it is here, up to so many bytes.
    fn add_up(&self, most: u64) -> Result<()> {
        // Who comes while somebody does it leaves it to them, or to the next.
        let Ok(mut sum) = self.sum.try_lock() else { return Ok(()) };
        self.add_to(&mut sum, most)
    }

    fn add_to(&self, sum: &mut Sum, most: u64) -> Result<()> {
        let count = self.about.head.chunk_count();
        let mut done = 0;
        while done < most {
            let end = self.held().sound.end_of_run(sum.chunk, count);
            if end <= sum.chunk {
                break;
            }
            let chunks = sum.chunk..self.within(sum.chunk, end, READ_BYTES);
            let recent = lock(&self.recent).find(&self.about, &chunks).map(Read::Here);
            let Read::Here(bytes) = recent.map_or_else(|| self.read_now(chunks.clone()), Ok)?
            else {
                break;
            };
            sum.hasher.update(&bytes);
            sum.chunk = chunks.end;
            done += bytes.len() as u64;
        }
        Ok(())
    }

    /// The SHA-256 of all of it; nothing while something is missing.
    pub(super) fn total(&self) -> Result<Option<Sha256>> {
        let mut sum = lock(&self.sum);
        self.add_to(&mut sum, u64::MAX)?;
        if sum.chunk < self.about.head.chunk_count() {
            return Ok(None);
        }
        let hasher = std::mem::take(&mut *sum).hasher;
        Ok(Some(Sha256::from_bytes(hasher.finalize().into())))
    }

    /// What is here, to be written down.
    pub(super) fn claims(&self) -> Bits {
        let held = self.held();
        let mut all = held.sound.clone();
        let count = self.about.head.chunk_count();
        let mut at = held.claimed.end_of_gap(0, count);
        while at < count {
            let end = held.claimed.end_of_run(at, count);
            all.set(at..end);
            at = held.claimed.end_of_gap(end, count);
        }
        all
    }

    pub(super) fn content(&self) -> &File {
        &self.content
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }

    fn failed(&self, error: &io::Error) -> Error {
        on_disk(self.sha256().to_string().as_ref(), error)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recent {
    fn push(&mut self, chunks: Range<u32>, bytes: Bytes) {
        self.bytes += bytes.len();
        self.runs.push_back((chunks, bytes));
        while self.bytes > RECENT_BYTES
            && let Some((_, oldest)) = self.runs.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }

    fn find(&self, about: &CachedFile, chunks: &Range<u32>) -> Option<Bytes> {
        let has =
            |run: &&(Range<u32>, Bytes)| run.0.start <= chunks.start && chunks.end <= run.0.end;
        let (there, bytes) = self.runs.iter().rev().find(has)?;
        let first = about.bytes_of(there.clone()).start;
        let wanted = about.bytes_of(chunks.clone());
        let from = usize::try_from(wanted.start - first).ok()?;
        let to = usize::try_from(wanted.end - first).ok()?;
        Some(bytes.slice(from..to))
    }
}
