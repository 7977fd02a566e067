//! Where each chunk of the wanted files comes from: a file that is there already, or a record of
//! the bundle.
//!
//! Most of it is decided by whole runs: chunks of a xorb that a file of the base uses as well are
//! there. Of the others the hashes are looked up, among each other and among the base's, so that a
//! chunk travels once however it was packed. Of what is looked up there is a bound; beyond it a
//! chunk may travel though it is there, which is no harm.

use std::collections::HashMap;
use std::ops::Range;

use ballast_format::bundle::Run;
use ballast_format::hash::{ChunkHash, XorbHash};
use ballast_format::hash_tree::xorb_hash;
use ballast_format::limits::{MAX_XORB_BYTES, MAX_XORB_CHUNKS};
use ballast_format::manifest::Manifest;
use ballast_format::xorb::XorbFooter;
use ballast_node::hub::Hub;

use super::error::{Error, Result};

/// Chunks whose hashes are held: 64 GB of what is new, in some 60 MB of memory.
const MAX_HASHES: usize = 1 << 20;
/// Runs of the base's files that are held, in some 80 MB.
const MAX_BASE_RUNS: usize = 2_000_000;
/// Runs of one xorb that are held: files that share more than these are variants of each other.
const MAX_RUNS_OF_XORB: usize = 1024;
/// Bits of a hash that are held: two chunks that share them would make a file that does not pass
/// its import.
type Prefix = [u8; 16];

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a file that is there: which, and which of its chunks.
    Base(u32, u32),
    /// In a record: which, and which of its chunks.
    Record(u32, u32),
}

impl Place {
    /// The place of the chunk behind this one.
    fn after(self, chunks: u32) -> Self {
        match self {
            Self::Base(base, chunk) => Self::Base(base, chunk + chunks),
            Self::Record(record, chunk) => Self::Record(record, chunk + chunks),
        }
    }
}

/// A run of a xorb's chunks, and where they are.
#[derive(Clone, Debug)]
struct Placed {
    chunks: Range<u32>,
    place: Place,
}

/// A xorb of which chunks are wanted.
#[derive(Debug)]
struct Wanted {
    hash: XorbHash,
    /// In order, and apart.
    chunks: Vec<Range<u32>>,
    placed: Vec<Placed>,
}

/// Chunks that travel together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChunkRecord {
    /// The hash of the xorb that they make.
    pub(super) hash: XorbHash,
    /// Their serialized bytes.
    pub(super) bytes: u64,
    /// Where they are in the creator's store.
    pub(super) sources: Vec<(XorbHash, Range<u32>)>,
}

/// A run of chunks of a file of the base, in a xorb.
struct BaseRun {
    chunks: Range<u32>,
    base: u32,
    first: u32,
}

/// What is looked for.
#[derive(Default)]
pub(super) struct Lookup {
    wanted: Vec<Wanted>,
    by_hash: HashMap<XorbHash, usize>,
    base: HashMap<XorbHash, Vec<BaseRun>>,
    base_runs: usize,
}

/// Chunks that were looked up: in no place, until one is found.
type Seats = HashMap<Prefix, Option<Place>>;

impl Lookup {
    /// A file that is there, under this number.
    pub(super) fn add_base(&mut self, base: u32, manifest: &Manifest) {
        let mut first = 0_u32;
        for term in &manifest.terms {
            let count = term.chunks.end - term.chunks.start;
            let runs = self.base.entry(term.xorb).or_default();
            if self.base_runs < MAX_BASE_RUNS && runs.len() < MAX_RUNS_OF_XORB {
                self.base_runs += 1;
                runs.push(BaseRun { chunks: term.chunks.clone(), base, first });
            }
            // A file has at most 2^40 bytes, and a chunk one at least; chunks beyond are not
            // looked for.
            let Some(next) = first.checked_add(count) else { return };
            first = next;
        }
    }

    /// A file that is wanted.
    pub(super) fn add_wanted(&mut self, manifest: &Manifest) {
        for term in &manifest.terms {
            let at = *self.by_hash.entry(term.xorb).or_insert_with(|| {
                let (chunks, placed) = (Vec::new(), Vec::new());
                self.wanted.push(Wanted { hash: term.xorb, chunks, placed });
                self.wanted.len() - 1
            });
            let chunks = &mut self.wanted[at].chunks;
            match chunks.last_mut() {
                Some(last) if last.end == term.chunks.start => last.end = term.chunks.end,
                _ => chunks.push(term.chunks.clone()),
            }
            if chunks.len().is_power_of_two() && chunks.len() > 64 {
                merge(chunks);
            }
        }
    }

    /// Finds a place for every chunk. The records are numbered from `first_record` on, and none is
    /// longer than `most_bytes`.
    pub(super) async fn place(
        &mut self,
        hub: &Hub,
        first_record: u32,
        most_bytes: u64,
    ) -> Result<Vec<ChunkRecord>> {
        let mut seats = Seats::new();
        for wanted in &mut self.wanted {
            merge(&mut wanted.chunks);
            let footer = hub.carried_footer(&wanted.hash).await?;
            place_by_runs(wanted, self.base.get(&wanted.hash));
            for chunk in left(wanted).flatten() {
                if seats.len() < MAX_HASHES {
                    seats.entry(prefix(&footer.chunk_hash(chunk))).or_insert(None);
                }
            }
        }
        self.find_in_base(hub, &mut seats).await?;
        let mut packer = Packer { seats, records: Vec::new(), open: None, first_record };
        for at in 0..self.wanted.len() {
            let footer = hub.carried_footer(&self.wanted[at].hash).await?;
            packer.pack(&mut self.wanted[at], &footer, most_bytes)?;
        }
        packer.close();
        Ok(packer.records)
    }

    /// Looks for chunks among those of the base.
    async fn find_in_base(&self, hub: &Hub, seats: &mut Seats) -> Result<()> {
        if seats.is_empty() {
            return Ok(());
        }
        // In the same order each time, so that a bundle that is made again is the same.
        let mut xorbs: Vec<&XorbHash> = self.base.keys().collect();
        xorbs.sort_unstable();
        for xorb in xorbs {
            let footer = hub.carried_footer(xorb).await?;
            self.base[xorb].iter().for_each(|run| note_base(run, &footer, seats));
        }
        Ok(())
    }

    /// What a file is made of.
    pub(super) fn runs_of(&self, manifest: &Manifest) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        for term in &manifest.terms {
            let lost = || Error::refused("a chunk was not looked for");
            let wanted = self.by_hash.get(&term.xorb).ok_or_else(lost)?;
            let placed = &self.wanted[*wanted].placed;
            let mut next = term.chunks.start;
            let from = placed.partition_point(|placed| placed.chunks.end <= next);
            for Placed { chunks, place } in &placed[from..] {
                if next >= term.chunks.end || chunks.start > next {
                    break;
                }
                let end = chunks.end.min(term.chunks.end);
                append(&mut runs, place.after(next - chunks.start), end - next);
                next = end;
            }
            if next < term.chunks.end {
                return Err(lost());
            }
        }
        Ok(runs)
    }
}

/// Gives those chunks a place that a file of the base has.
fn note_base(run: &BaseRun, footer: &XorbFooter, seats: &mut Seats) {
    for chunk in run.chunks.clone() {
        if let Some(seat) = seats.get_mut(&prefix(&footer.chunk_hash(chunk))) {
            seat.get_or_insert(Place::Base(run.base, run.first + chunk - run.chunks.start));
        }
    }
}

fn prefix(hash: &ChunkHash) -> Prefix {
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// Adds a run to others; one that goes on where the last ends becomes part of it.
fn append(runs: &mut Vec<Run>, place: Place, count: u32) {
    let (Place::Base(number, first) | Place::Record(number, first)) = place;
    match (runs.last_mut(), place) {
        (Some(Run::Base(last, chunks)), Place::Base(..))
        | (Some(Run::Record(last, chunks)), Place::Record(..))
            if *last == number && chunks.end == first =>
        {
            chunks.end += count;
        }
        (_, Place::Base(..)) => runs.push(Run::Base(number, first..first + count)),
        (_, Place::Record(..)) => runs.push(Run::Record(number, first..first + count)),
    }
}

/// Puts runs into order, and those together that touch.
fn merge(runs: &mut Vec<Range<u32>>) {
    runs.sort_unstable_by_key(|run| run.start);
    let mut merged: Vec<Range<u32>> = Vec::with_capacity(runs.len());
    for run in runs.drain(..) {
        match merged.last_mut() {
            Some(last) if last.end >= run.start => last.end = last.end.max(run.end),
            _ => merged.push(run),
        }
    }
    *runs = merged;
}

/// Chunks that a file of the base uses from the same xorb.
fn place_by_runs(wanted: &mut Wanted, base: Option<&Vec<BaseRun>>) {
    let mut runs: Vec<&BaseRun> = base.into_iter().flatten().collect();
    runs.sort_unstable_by_key(|run| (run.chunks.start, run.base, run.first));
    for need in &wanted.chunks {
        let mut next = need.start;
        for run in &runs {
            let (start, end) = (run.chunks.start.max(next), run.chunks.end.min(need.end));
            if start < end {
                let place = Place::Base(run.base, run.first + start - run.chunks.start);
                wanted.placed.push(Placed { chunks: start..end, place });
                next = end;
            }
        }
    }
}

/// The wanted chunks that have no place yet.
fn left(wanted: &Wanted) -> impl Iterator<Item = Range<u32>> {
    let mut left = Vec::new();
    let mut placed = wanted.placed.iter().peekable();
    for need in &wanted.chunks {
        let mut next = need.start;
        while let Some(found) = placed.next_if(|placed| placed.chunks.start < need.end) {
            if next < found.chunks.start {
                left.push(next..found.chunks.start);
            }
            next = found.chunks.end;
        }
        if next < need.end {
            left.push(next..need.end);
        }
    }
    left.into_iter()
}

/// Chunks that are being put together.
struct Open {
    /// Which of the records they become.
    at: usize,
    chunks: Vec<(ChunkHash, u64)>,
    plain: u64,
}

/// Puts the chunks that travel into records.
struct Packer {
    seats: Seats,
    /// The one that is open has no hash yet.
    records: Vec<ChunkRecord>,
    open: Option<Open>,
    first_record: u32,
}

impl Packer {
    fn pack(&mut self, wanted: &mut Wanted, footer: &XorbFooter, most: u64) -> Result<()> {
        let left: Vec<Range<u32>> = left(wanted).collect();
        let all = 0..footer.chunk_count();
        let is_whole = left.first() == Some(&all) && footer.serialized_length() <= most;
        let mut new = Vec::new();
        for chunk in left.into_iter().flatten() {
            match self.seat_of(footer, chunk) {
                Some(place) => push(&mut wanted.placed, chunk, place),
                None => new.push(chunk),
            }
        }
        if is_whole && new.len() == footer.chunk_count() as usize {
            self.whole(wanted, footer);
        } else {
            for chunk in new {
                self.one(wanted, footer, chunk, most)?;
            }
        }
        wanted.placed.sort_unstable_by_key(|placed| placed.chunks.start);
        Ok(())
    }

    /// The number of one of the records.
    fn number(&self, at: usize) -> u32 {
        self.first_record.saturating_add(u32::try_from(at).unwrap_or(u32::MAX))
    }

    /// A xorb of which everything travels stays as it is.
    fn whole(&mut self, wanted: &mut Wanted, footer: &XorbFooter) {
        let (count, record) = (footer.chunk_count(), self.number(self.records.len()));
        for chunk in 0..count {
            self.seat(footer, chunk, Place::Record(record, chunk));
        }
        wanted.placed.push(Placed { chunks: 0..count, place: Place::Record(record, 0) });
        let (hash, bytes) = (footer.hash(), footer.serialized_length());
        self.records.push(ChunkRecord { hash, bytes, sources: vec![(hash, 0..count)] });
    }

    fn one(
        &mut self,
        wanted: &mut Wanted,
        footer: &XorbFooter,
        chunk: u32,
        most: u64,
    ) -> Result<()> {
        // The same chunk may have come up in this xorb before.
        if let Some(place) = self.seat_of(footer, chunk) {
            push(&mut wanted.placed, chunk, place);
            return Ok(());
        }
        let bytes = u64::from(footer.serialized_chunk_length(chunk));
        let plain = u64::from(footer.chunk_length(chunk));
        if bytes > most {
            return Err(Error::refused("a chunk is longer than a volume"));
        }
        let is_full = self.open.as_ref().is_some_and(|open| {
            open.chunks.len() == MAX_XORB_CHUNKS
                || open.plain + plain > MAX_XORB_BYTES as u64
                || self.records[open.at].bytes + bytes > most
        });
        if is_full {
            self.close();
        }
        let at = self.open.as_ref().map_or(self.records.len(), |open| open.at);
        let number = self.number(at);
        let open = self.open.get_or_insert_with(|| {
            let (hash, sources) = (XorbHash::ZERO, Vec::new());
            self.records.push(ChunkRecord { hash, bytes: 0, sources });
            Open { at, chunks: Vec::new(), plain: 0 }
        });
        let index = u32::try_from(open.chunks.len()).unwrap_or(u32::MAX);
        let place = Place::Record(number, index);
        open.chunks.push((footer.chunk_hash(chunk), plain));
        open.plain += plain;
        let record = &mut self.records[at];
        record.bytes += bytes;
        match record.sources.last_mut() {
            Some((xorb, chunks)) if *xorb == wanted.hash && chunks.end == chunk => chunks.end += 1,
            _ => record.sources.push((wanted.hash, chunk..chunk + 1)),
        }
        self.seat(footer, chunk, place);
        push(&mut wanted.placed, chunk, place);
        Ok(())
    }

    /// Where a chunk is, if that is known.
    fn seat_of(&self, footer: &XorbFooter, chunk: u32) -> Option<Place> {
        self.seats.get(&prefix(&footer.chunk_hash(chunk))).copied().flatten()
    }

    /// Remembers where a chunk is, if it is one of those that are looked up.
    fn seat(&mut self, footer: &XorbFooter, chunk: u32, place: Place) {
        if let Some(seat) = self.seats.get_mut(&prefix(&footer.chunk_hash(chunk))) {
            seat.get_or_insert(place);
        }
    }

    fn close(&mut self) {
        if let Some(Open { at, chunks, .. }) = self.open.take() {
            self.records[at].hash = xorb_hash(chunks);
        }
    }
}

/// Adds one chunk to runs that are placed.
fn push(placed: &mut Vec<Placed>, chunk: u32, place: Place) {
    if let Some(last) = placed.last_mut()
        && last.chunks.end == chunk
        && last.place.after(last.chunks.end - last.chunks.start) == place
    {
        last.chunks.end += 1;
        return;
    }
    placed.push(Placed { chunks: chunk..chunk + 1, place });
}

#[cfg(test)]
mod tests;
