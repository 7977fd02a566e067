//! Checking xorbs: every copy, every chunk of it.

use std::sync::Arc;

use ballast_format::hash::XorbHash;
use ballast_format::xorb::{ChunkDecoder, XorbFooter};
use ballast_store::keyspace::{CopyKind, CopyName, Key};

use super::{Check, Found};
use crate::error::{Error, Result};

/// Serialized bytes that are read at once.
const PIECE_BYTES: u64 = 1 << 20;

impl Check {
    /// Checks a xorb. Files are affected if the copy that is read for them is damaged; damage to
    /// another is named by itself.
    pub(super) async fn xorb(&mut self, xorb: &XorbHash) -> Result<Found> {
        if let Some(known) = self.xorbs.get(xorb) {
            return Ok(known.clone());
        }
        let found = self.look_at_xorb(xorb).await?;
        self.xorbs.insert(*xorb, found.clone());
        Ok(found)
    }

    async fn look_at_xorb(&mut self, xorb: &XorbHash) -> Result<Found> {
        let used = self.hub.xorb_copy(xorb).await?;
        let mut found: Option<Found> = None;
        for listed in self.hub.store().copies(CopyKind::Xorb, *xorb.as_bytes()).await? {
            let Key::Copy(copy) = listed.key else {
                continue;
            };
            let fault = match self.copy(&copy).await {
                Ok(bytes) => {
                    self.count(bytes).await?;
                    None
                }
                Err(error) => Some(self.fault(&listed.key, error)?),
            };
            if used == Some(copy) {
                found = Some(fault);
            }
        }
        if let Some(found) = found {
            return Ok(found);
        }
        Ok(Some(match used {
            Some(copy) => self.damaged(&Key::Copy(copy), &"it is missing"),
            None => self.damaged(&format!("the xorb `{xorb}`"), &"it is missing"),
        }))
    }

    /// Reads a copy from its first chunk to the end of its footer; its bytes.
    async fn copy(&self, copy: &CopyName) -> Result<u64> {
        let footer = self.hub.read_footer(copy).await?;
        let (mut first, mut decoder) = (0, ChunkDecoder::new());
        while first < footer.chunk_count() {
            let end = piece_end(&footer, first);
            let range = footer.byte_range(first..end)?;
            let piece = self.hub.store().get_range(&Key::Copy(*copy), range).await?;
            let shared = Arc::clone(&footer);
            let checking = self.hub.pool().run(move || {
                decoder.decode_chunks(&piece, &shared, first..end, true, |_| Ok(()))?;
                Ok(decoder)
            });
            decoder = checking.await?.map_err(|error: ballast_format::Error| {
                Error::corrupt(format!("among the chunks {first} to {end}: {error}"))
            })?;
            first = end;
        }
        Ok(footer.serialized_length())
    }
}

/// The end of the chunks from `first` on that are read at once.
fn piece_end(footer: &XorbFooter, first: u32) -> u32 {
    let (mut end, mut bytes) = (first, 0);
    while end < footer.chunk_count() && (end == first || bytes < PIECE_BYTES) {
        bytes += u64::from(footer.serialized_chunk_length(end));
        end += 1;
    }
    end
}
