//! What the check of one shard may cost, shared by all of its files.
//!
//! A few bytes of a shard can name any number of chunks and bytes. What is named again costs less
//! (a sparse file repeats one run hundreds of thousands of times); what is named beyond the bounds
//! is refused. Samples beyond theirs are left out: they only help others to send less.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use ballast_format::hash::{RangeHash, XorbHash};
use ballast_format::limits::{MAX_SHARD_CHUNKS, MAX_SHARD_REHASHED_BYTES, MAX_SHARD_SAMPLES};
use ballast_format::shard::UploadShard;
use ballast_format::xorb::XorbFooter;
use quick_cache::sync::Cache;

use crate::error::{Error, Result};

/// Runs of chunks whose range hashes are kept for one shard: 6 MB.
const KEPT_RANGES: usize = 65_536;

/// What is left of it.
pub(super) struct Bounds {
    chunks: AtomicU64,
    rehashed: AtomicU64,
    samples: AtomicU64,
    ranges: Cache<(XorbHash, u32, u32), RangeHash>,
    /// The chunks that the client marks as worth asking about, by xorb and in order.
    marked: HashMap<XorbHash, Vec<u32>>,
}

impl Bounds {
    /// All of it.
    pub(super) fn of(shard: &UploadShard) -> Self {
        Self {
            chunks: AtomicU64::new(MAX_SHARD_CHUNKS),
            rehashed: AtomicU64::new(MAX_SHARD_REHASHED_BYTES),
            samples: AtomicU64::new(MAX_SHARD_SAMPLES),
            ranges: Cache::new(KEPT_RANGES),
            marked: marked(shard),
        }
    }

    /// So many chunks of a file are looked at.
    pub(super) fn take_chunks(&self, count: u64) -> Result<()> {
        take(&self.chunks, count, "the number of chunks that the shard names", MAX_SHARD_CHUNKS)
    }

    /// So many bytes of a file are hashed again.
    pub(super) fn take_bytes(&self, count: u64) -> Result<()> {
        let what = "the total of the shard's files that are new to you";
        take(&self.rehashed, count, what, MAX_SHARD_REHASHED_BYTES)
    }

    /// Whether one more sample may be kept.
    pub(super) fn take_sample(&self) -> bool {
        take_from(&self.samples, 1).is_some()
    }

    /// The hash over these chunks of a xorb, computed once for all segments that name them.
    pub(super) fn range_hash(&self, footer: &XorbFooter, chunks: &Range<u32>) -> Result<RangeHash> {
        let key = (footer.hash(), chunks.start, chunks.end);
        if let Some(known) = self.ranges.get(&key) {
            return Ok(known);
        }
        let hash = footer.range_hash(chunks.clone())?;
        self.ranges.insert(key, hash);
        Ok(hash)
    }

    /// Those of a xorb's chunks that the client marked, in order.
    pub(super) fn marked_in(&self, xorb: &XorbHash) -> &[u32] {
        self.marked.get(xorb).map_or(&[], Vec::as_slice)
    }
}

fn marked(shard: &UploadShard) -> HashMap<XorbHash, Vec<u32>> {
    let mut marked: HashMap<XorbHash, Vec<u32>> = HashMap::new();
    let mut left = MAX_SHARD_SAMPLES;
    for xorb in shard.xorbs().filter(|xorb| xorb.chunks().any(|chunk| chunk.is_eligible)) {
        let of_xorb = marked.entry(xorb.hash).or_default();
        // The same xorb again says the same again, or the shard is refused.
        if !of_xorb.is_empty() {
            continue;
        }
        for (index, _) in (0..).zip(xorb.chunks()).filter(|(_, chunk)| chunk.is_eligible) {
            if left == 0 {
                return marked;
            }
            left -= 1;
            of_xorb.push(index);
        }
    }
    marked
}

fn take(left: &AtomicU64, count: u64, what: &str, limit: u64) -> Result<()> {
    take_from(left, count).ok_or_else(|| {
        let used = limit - left.load(Ordering::Relaxed);
        Error::TooLarge { what: what.to_owned(), size: used.saturating_add(count), limit }
    })
}

fn take_from(left: &AtomicU64, count: u64) -> Option<()> {
    let order = Ordering::Relaxed;
    left.fetch_update(order, order, |left| left.checked_sub(count)).ok().map(|_| ())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::upload::tests::client::encode;

    fn bounds() -> Bounds {
        let shard: Bytes = encode(&[], &[]);
        Bounds::of(&UploadShard::parse(shard).expect("an empty one"))
    }

    #[test]
    fn what_is_left_is_shared_by_all_files() {
        let bounds = bounds();
        assert!(bounds.take_chunks(MAX_SHARD_CHUNKS - 5).is_ok());
        assert!(matches!(bounds.take_chunks(6), Err(Error::TooLarge { .. })));
        assert!(bounds.take_chunks(5).is_ok() && bounds.take_chunks(1).is_err());
        assert!(bounds.take_bytes(MAX_SHARD_REHASHED_BYTES).is_ok());
        assert!(matches!(bounds.take_bytes(1), Err(Error::TooLarge { .. })));
        let kept = (0..MAX_SHARD_SAMPLES + 10).filter(|_| bounds.take_sample()).count();
        assert_eq!(kept as u64, MAX_SHARD_SAMPLES);
    }
}
