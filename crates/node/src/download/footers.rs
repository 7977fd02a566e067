//! Where the chunks of a copy lie: its footer, and which of its chunks were found sound since the
//! start.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ballast_format::limits::MAX_XORB_CHUNKS;
use ballast_format::xorb::XorbFooter;
use ballast_store::keyspace::{CopyName, Key};

use crate::error::{Error, Result};
use crate::hub::Hub;

/// Bytes at a xorb's end that are read first: the footer of one that is cut as usual.
const LIKELY_TAIL: u64 = 64 * 1024;
const WORDS: usize = MAX_XORB_CHUNKS / 64;

/// Which chunks of one copy were hashed since the start.
pub(crate) struct Sound {
    chunks: Box<[AtomicU64]>,
}

impl Sound {
    fn new(chunks: u32) -> Self {
        let words = (chunks as usize).div_ceil(64).min(WORDS);
        Self { chunks: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Whether all of these were.
    pub(crate) fn has(&self, chunks: Range<u32>) -> bool {
        self.words(chunks).all(|(word, bits)| word.load(Ordering::Relaxed) & bits == bits)
    }

    /// All of these were hashed just now.
    pub(crate) fn add(&self, chunks: Range<u32>) {
        for (word, bits) in self.words(chunks) {
            word.fetch_or(bits, Ordering::Relaxed);
        }
    }

    /// The words that hold these chunks' bits, with the bits.
    fn words(&self, chunks: Range<u32>) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let (start, end) = (chunks.start as usize, chunks.end as usize);
        let words = start / 64..end.div_ceil(64).min(self.chunks.len());
        words.map(move |index| {
            let low = start.saturating_sub(index * 64).min(63);
            let high = (end - index * 64).min(64);
            let bits = (u64::MAX << low) & (u64::MAX >> (64 - high));
            (&self.chunks[index], bits)
        })
    }
}

impl Hub {
    /// A copy's footer.
    pub(crate) async fn footer(&self, copy: &CopyName) -> Result<Arc<XorbFooter>> {
        if let Some(footer) = self.caches.footers.get(copy) {
            return Ok(footer);
        }
        let footer = self.read_footer(copy).await?;
        self.caches.footers.insert(*copy, Arc::clone(&footer));
        Ok(footer)
    }

    /// A copy's footer, as it is stored now.
    pub(crate) async fn read_footer(&self, copy: &CopyName) -> Result<Arc<XorbFooter>> {
        let key = Key::Copy(*copy);
        let damaged = |error: ballast_format::Error| Error::corrupt(format!("`{key}`: {error}"));
        let (mut tail, total) = self.store().get_tail(&key, LIKELY_TAIL).await?;
        let last = tail.last_chunk().copied();
        let last = last.ok_or_else(|| Error::corrupt(format!("`{key}` is cut short")))?;
        let length = XorbFooter::footer_length(last).map_err(damaged)?;
        if length > tail.len() {
            tail = self.store().get_tail(&key, length as u64).await?.0;
        }
        let footer = XorbFooter::decode(&tail).map_err(damaged)?;
        let whole = footer.serialized_length() + length as u64 == total;
        if !whole || footer.hash().as_bytes() != &copy.hash {
            return Err(Error::corrupt(format!("`{key}` is not the xorb that it is named")));
        }
        Ok(Arc::new(footer))
    }

    /// Which chunks of a copy were found sound since the start.
    pub(crate) fn sound(&self, copy: &CopyName, footer: &XorbFooter) -> Arc<Sound> {
        let new = || Ok::<_, std::convert::Infallible>(Arc::new(Sound::new(footer.chunk_count())));
        match self.caches.sound.get_or_insert_with(copy, new) {
            Ok(sound) => sound,
            Err(never) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_chunks_are_remembered_one_by_one() {
        let sound = Sound::new(300);
        sound.add(60..70);
        assert!(sound.has(60..70) && sound.has(64..65));
        assert!(!sound.has(59..61) && !sound.has(69..71) && !sound.has(0..300));
        sound.add(0..300);
        assert!(sound.has(0..300) && sound.has(299..300));
    }
}
