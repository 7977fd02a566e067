//! Checking xorbs: every copy, every chunk of it.

use ballast_format::hash::XorbHash;
use ballast_format::xorb::XorbFooter;
use ballast_store::keyspace::{CopyKind, Key};

use super::{Check, Found};
use crate::error::Result;

/// Serialized bytes that are read at once.
const PIECE_BYTES: u64 = 4 << 20;

impl Check {
    /// Checks a xorb. Files are affected if no copy of it is sound; damage to one beside a sound
    /// one is named by itself.
    pub(super) async fn xorb(&mut self, xorb: &XorbHash) -> Result<Found> {
        if let Some(known) = self.xorbs.get(xorb) {
            return Ok(known.clone());
        }
        if self.passes_over(CopyKind::Xorb, xorb.as_bytes()) {
            return Ok(None);
        }
        let found = self.look_at_xorb(xorb).await?;
        self.xorbs.insert(*xorb, found.clone());
        Ok(found)
    }

    async fn look_at_xorb(&mut self, xorb: &XorbHash) -> Result<Found> {
        let known = self.hub.xorb_copy(xorb).await?;
        let known = known.or_else(|| self.hub.quarantine.copy_of(CopyKind::Xorb, *xorb.as_bytes()));
        let (mut is_sound, mut found) = (false, None);
        for listed in self.hub.store().copies(CopyKind::Xorb, *xorb.as_bytes()).await? {
            let Key::Copy(copy) = listed.key else {
                continue;
            };
            match self.hub.check_xorb_copy(&copy).await {
                Ok(bytes) => {
                    is_sound = true;
                    self.count(bytes).await?;
                }
                Err(error) => found = Some(self.copy_fault(&copy, error)?),
            }
        }
        if is_sound || found.is_some() {
            return Ok(found.filter(|_| !is_sound));
        }
        Ok(Some(match known {
            Some(copy) => {
                self.hub.distrust(&copy, "it is missing");
                self.damaged(&Key::Copy(copy), &"it is missing")
            }
            None => self.damaged(&format!("the xorb `{xorb}`"), &"it is missing"),
        }))
    }
}

/// The end of the chunks from `first` on that are read at once.
pub(super) fn piece_end(footer: &XorbFooter, first: u32) -> u32 {
    let (mut end, mut bytes) = (first, 0);
    while end < footer.chunk_count() && (end == first || bytes < PIECE_BYTES) {
        bytes += u64::from(footer.serialized_chunk_length(end));
        end += 1;
    }
    end
}
