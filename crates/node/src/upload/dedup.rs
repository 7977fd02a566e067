//! Answers about chunks: "you need not send this, it is here, and this comes next to it".
//!
//! An answer names only xorbs of a file that the asker may read or uploaded, with chunk hashes
//! under a key of the asker's own that changes each day: they recognise what they have and learn
//! nothing else.

use std::collections::HashSet;
use std::sync::Arc;

use ballast_format::hash::{ChunkHash, XorbHash};
use ballast_format::manifest::Manifest;
use ballast_format::shard::encode_dedup_answer;
use ballast_format::xorb::XorbFooter;
use ballast_store::index::Table;
use ballast_store::index::schema::{self, ChunkRow};

use super::scope::TRIED_SCOPES;
use crate::access::Caller;
use crate::error::Result;
use crate::hub::Hub;

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// Chunks that one answer describes: 64 bytes each, 16 MB in all, a file of some 16 GB.
const ANSWER_CHUNKS: usize = 250_000;

impl Hub {
    /// The answer to a client's query about a chunk; nothing where there is nothing to say.
    pub async fn dedup_answer(
        &self,
        caller: &Caller,
        chunk: ChunkHash,
    ) -> Result<Option<Vec<u8>>> {
        let user = caller.user()?.user;
        let Some(row) = self.find_chunk(caller, &chunk).await? else { return Ok(None) };
        let Some(manifest) = self.manifest(&row.file).await? else { return Ok(None) };
        let footers = self.footers_around(&manifest, &row.xorb).await?;
        let now = self.env().now_ms() / 1000;
        let day = now / DAY_SECONDS;
        let key = self.secrets().key(&format!("dedup {user} {day}"));
        // Good until the end of the next day, so that no answer is short-lived.
        let expires = (day + 2) * DAY_SECONDS;
        let answer = self
            .pool()
            .run(move || {
                let footers: Vec<&XorbFooter> = footers.iter().map(Arc::as_ref).collect();
                encode_dedup_answer(&footers, &key, now, expires)
            })
            .await?;
        Ok(Some(answer))
    }

    /// Where the caller may find this chunk.
    pub(super) async fn find_chunk(
        &self,
        caller: &Caller,
        chunk: &ChunkHash,
    ) -> Result<Option<ChunkRow>> {
        let prefix = chunk.as_bytes();
        let rows = self.index().scan(Table::Chunk, prefix, None, TRIED_SCOPES).await?;
        for (key, row) in rows {
            let row = ChunkRow::decode(&row)?;
            if self.reaches(caller, &schema::scope_of(&key)?, row.until_ms) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// The footers of a file's xorbs, from one of them on, and then from the first; as many as fit
    /// into one answer. A xorb that is damaged is left out: what is not offered is sent.
    pub(super) async fn footers_around(
        &self,
        manifest: &Manifest,
        from: &XorbHash,
    ) -> Result<Vec<Arc<XorbFooter>>> {
        let start = manifest.terms.iter().position(|term| term.xorb == *from).unwrap_or(0);
        let (before, after) = manifest.terms.split_at(start);
        let mut seen = HashSet::new();
        let (mut footers, mut chunks) = (Vec::new(), 0);
        for term in after.iter().chain(before) {
            if chunks >= ANSWER_CHUNKS || !seen.insert(term.xorb) {
                continue;
            }
            let Ok(Some(copy)) = self.xorb_copy(&term.xorb).await else { continue };
            let Ok(footer) = self.footer(&copy).await else { continue };
            chunks += footer.chunk_count() as usize;
            footers.push(footer);
        }
        Ok(footers)
    }
}
