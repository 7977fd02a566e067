//! The JSON of reconstructions, written piece by piece.
//!
//! A badly fragmented file of 100 GB has a hundred thousand terms and as many links; the document
//! is made while it is sent and is never whole in memory.

use std::fmt::Write as _;
use std::ops::Range;

use ballast_format::hash::FileHash;
use ballast_format::limits::MAX_RANGES;
use ballast_format::manifest::Term;
use ballast_node::download::Fetch;
use bytes::Bytes;

use super::fetch::Linker;

/// The size at which a piece is handed over.
const PIECE_BYTES: usize = 64 * 1024;

/// Which of the documents it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One link for each range.
    V1,
    /// Links that serve several ranges of a xorb.
    V2,
    /// As version 1, for several files.
    Batch,
}

/// What a document says.
pub(super) struct Document {
    pub(super) shape: Shape,
    pub(super) linker: Linker,
    /// Bytes to drop from the first term.
    pub(super) offset: u64,
    /// The terms of each file.
    pub(super) files: Vec<(FileHash, Vec<Term>)>,
    /// What to fetch, ordered by xorb and chunk, ranges of one xorb apart from each other.
    pub(super) fetches: Vec<Fetch>,
    pub(super) place: Place,
}

/// How far the document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing is.
    Start,
    /// Up to this term of this file.
    Terms(usize, usize),
    /// Up to this fetch.
    Fetches(usize),
    /// All is.
    End,
}

impl Iterator for Document {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut out = String::new();
        while out.len() < PIECE_BYTES && self.place != Place::End {
            // Writing to a `String` does not fail.
            let _ = self.step(&mut out);
        }
        if out.is_empty() { None } else { Some(Bytes::from(out)) }
    }
}

impl Document {
    /// Writes the next small bit.
    fn step(&mut self, out: &mut String) -> std::fmt::Result {
        match self.place {
            Place::Start => {
                match self.shape {
                    Shape::V1 | Shape::V2 => {
                        write!(out, "{{\"offset_into_first_range\":{},\"terms\":", self.offset)?;
                    }
                    Shape::Batch => out.push_str("{\"files\":{"),
                }
                self.place = Place::Terms(0, 0);
            }
            Place::Terms(file, term) => self.step_terms(out, file, term)?,
            Place::Fetches(first) => self.step_fetches(out, first)?,
            Place::End => {}
        }
        Ok(())
    }

    fn step_terms(&mut self, out: &mut String, file: usize, term: usize) -> std::fmt::Result {
        let Some((hash, terms)) = self.files.get(file) else {
            out.push_str(match self.shape {
                Shape::V1 => ",\"fetch_info\":{",
                Shape::V2 => ",\"xorbs\":{",
                Shape::Batch => "},\"fetch_info\":{",
            });
            self.place = Place::Fetches(0);
            return Ok(());
        };
        if term == 0 {
            if self.shape == Shape::Batch {
                write!(out, "{}\"{hash}\":", if file == 0 { "" } else { "," })?;
            }
            out.push('[');
        }
        let Some(Term { xorb, chunks, length }) = terms.get(term) else {
            out.push(']');
            self.place = Place::Terms(file + 1, 0);
            return Ok(());
        };
        let comma = if term == 0 { "" } else { "," };
        write!(out, "{comma}{{\"hash\":\"{xorb}\",\"unpacked_length\":{length},\"range\":")?;
        write_range(out, u64::from(chunks.start), u64::from(chunks.end))?;
        out.push('}');
        self.place = Place::Terms(file, term + 1);
        Ok(())
    }

    /// Writes the entry that begins with fetch `first`: one fetch, or in version 2 as many of the
    /// same copy as a link may serve.
    fn step_fetches(&mut self, out: &mut String, first: usize) -> std::fmt::Result {
        let before = first.checked_sub(1).and_then(|last| self.fetches.get(last));
        let Some(fetch) = self.fetches.get(first) else {
            out.push_str(if before.is_some() { "]}}" } else { "}}" });
            self.place = Place::End;
            return Ok(());
        };
        match before {
            Some(before) if before.xorb == fetch.xorb => out.push(','),
            Some(_) => write!(out, "],\"{}\":[", fetch.xorb)?,
            None => write!(out, "\"{}\":[", fetch.xorb)?,
        }
        let most = if self.shape == Shape::V2 { MAX_RANGES } else { 1 };
        let rest = &self.fetches[first..];
        let count = rest.iter().take(most).take_while(|other| other.copy == fetch.copy).count();
        let group = &rest[..count];
        let ranges: Vec<Range<u64>> = group.iter().map(|fetch| fetch.bytes.clone()).collect();
        let url = (self.linker)(fetch.copy, ranges);
        if self.shape == Shape::V2 {
            write!(out, "{{\"url\":\"{url}\",\"ranges\":[")?;
            for (index, fetch) in group.iter().enumerate() {
                out.push_str(if index == 0 { "{\"chunks\":" } else { ",{\"chunks\":" });
                write_chunks(out, fetch)?;
                out.push_str(",\"bytes\":");
                write_bytes(out, fetch)?;
                out.push('}');
            }
            out.push_str("]}");
        } else {
            out.push_str("{\"range\":");
            write_chunks(out, fetch)?;
            write!(out, ",\"url\":\"{url}\",\"url_range\":")?;
            write_bytes(out, fetch)?;
            out.push('}');
        }
        self.place = Place::Fetches(first + count);
        Ok(())
    }
}

/// Chunk ranges are half open.
fn write_chunks(out: &mut String, fetch: &Fetch) -> std::fmt::Result {
    write_range(out, u64::from(fetch.chunks.start), u64::from(fetch.chunks.end))
}

/// Byte ranges name their last byte.
fn write_bytes(out: &mut String, fetch: &Fetch) -> std::fmt::Result {
    write_range(out, fetch.bytes.start, fetch.bytes.end - 1)
}

fn write_range(out: &mut String, start: u64, end: u64) -> std::fmt::Result {
    write!(out, "{{\"start\":{start},\"end\":{end}}}")
}

/// Orders fetches and joins those that overlap or touch: clients key what they fetch by its first
/// chunk, and two ranges with one start would give them a wrong slice. `None` if ranges of
/// different copies of a xorb overlap, whose bytes can't be joined.
pub(super) fn joined(mut fetches: Vec<Fetch>) -> Option<Vec<Fetch>> {
    let key = |fetch: &Fetch| (fetch.xorb, fetch.chunks.start, fetch.chunks.end);
    fetches.sort_by_key(key);
    let mut joined: Vec<Fetch> = Vec::with_capacity(fetches.len());
    for fetch in fetches {
        match joined.last_mut().filter(|last| follows(last, &fetch)) {
            Some(last) if last.copy == fetch.copy => {
                last.chunks.end = last.chunks.end.max(fetch.chunks.end);
                last.bytes.end = last.bytes.end.max(fetch.bytes.end);
            }
            Some(last) if fetch.chunks.start < last.chunks.end => return None,
            _ => joined.push(fetch),
        }
    }
    Some(joined)
}

fn follows(last: &Fetch, next: &Fetch) -> bool {
    last.xorb == next.xorb && next.chunks.start <= last.chunks.end
}

#[cfg(test)]
mod tests;
