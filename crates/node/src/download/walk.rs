//! Along a file's terms: what to read for a range of it, piece by piece.

use std::ops::Range;
use std::sync::Arc;

use ballast_format::manifest::Manifest;
use ballast_format::xorb::XorbFooter;
use ballast_store::keyspace::CopyName;

use super::piece::{Piece, run_end};
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Something to read, and the part of its chunks that is wanted.
pub(crate) struct Step {
    pub(crate) piece: Piece,
    pub(crate) wanted: Range<u64>,
}

/// A walk through the terms of a file that make a range of it.
pub(crate) struct Walk {
    hub: Arc<Hub>,
    manifest: Arc<Manifest>,
    next_term: usize,
    position: u64,
    end: u64,
    open: Option<Open>,
}

/// The term at hand, as far as it was not walked yet.
struct Open {
    copy: CopyName,
    footer: Arc<XorbFooter>,
    chunks: Range<u32>,
}

impl Walk {
    /// Begins at the start of the range.
    pub(crate) fn new(hub: Arc<Hub>, manifest: Arc<Manifest>, range: Range<u64>) -> Self {
        Self {
            hub,
            next_term: manifest.find(range.start).unwrap_or(manifest.terms.len()),
            manifest,
            position: range.start,
            end: range.end,
            open: None,
        }
    }

    /// The next step, of about so many serialized bytes; nothing at the end of the range.
    pub(crate) async fn next(&mut self, bytes: u64) -> Result<Option<Step>> {
        if self.position >= self.end {
            return Ok(None);
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open_term().await?,
        };
        // Where the term's next chunk begins in the file: not before the position, except for the
        // first one of the range, which may hold bytes that are not wanted.
        let term = self.next_term - 1;
        let after = self.manifest.start_of(term) + u64::from(self.manifest.terms[term].length);
        let left = open.footer.uncompressed_start(open.chunks.end)
            - open.footer.uncompressed_start(open.chunks.start);
        let start = after - u64::from(left);
        let last = self.last_chunk(&open, start);
        let end = run_end(&open.footer, open.chunks.start, last, bytes);
        let piece = Piece::new(open.copy, &open.footer, open.chunks.start..end)?;
        let length = piece.plain_bytes();
        let wanted = self.position - start..(self.end - start).min(length);
        self.position = start + wanted.end;
        open.chunks.start = end;
        if !open.chunks.is_empty() {
            self.open = Some(open);
        }
        Ok(Some(Step { piece, wanted }))
    }

    /// The end of those chunks of a term that the range needs, `start` being where the next one
    /// begins in the file.
    fn last_chunk(&self, open: &Open, start: u64) -> u32 {
        let base = open.footer.uncompressed_start(open.chunks.start);
        let needed = u64::from(base) + (self.end - start - 1);
        let holds_end = u32::try_from(needed).ok();
        let holds_end = holds_end.and_then(|offset| open.footer.chunk_at(offset));
        holds_end.map_or(open.chunks.end, |chunk| open.chunks.end.min(chunk + 1))
    }

    /// Opens the next term, without its chunks before the position.
    async fn open_term(&mut self) -> Result<Open> {
        let Some(term) = self.manifest.terms.get(self.next_term) else {
            let file = self.manifest.file;
            return Err(Error::corrupt(format!("`{file}` ends too early")));
        };
        let start = self.manifest.start_of(self.next_term);
        self.next_term += 1;
        let (copy, footer) = self.hub.needed_xorb(&term.xorb).await?;
        let length = footer.uncompressed_length(term.chunks.clone());
        if !length.is_ok_and(|length| length == u64::from(term.length)) {
            let what = format!("a manifest and the xorb `{}` do not agree", term.xorb);
            return Err(Error::corrupt(what));
        }
        let mut chunks = term.chunks.clone();
        let skipped = u32::try_from(self.position - start).unwrap_or(u32::MAX);
        let offset = footer.uncompressed_start(chunks.start).saturating_add(skipped);
        chunks.start = footer.chunk_at(offset).unwrap_or(chunks.start);
        Ok(Open { copy, footer, chunks })
    }
}
