//! The shard that answers a question about a chunk.
//!
//! It names whole xorbs, with their chunks in order, so that the client can extend a match. Chunk
//! hashes are keyed: who does not have a chunk learns nothing of it. Chunks that are not offered
//! keep their places, under hashes and lengths that say nothing at all. Files are left out, since
//! whose they are is nobody's business.

use std::ops::Range;

use super::{END, FOOTER_BYTES, FOOTER_VERSION, RECORD_BYTES, TAG, VERSION};
use crate::xorb::XorbFooter;

/// One line of the table in which clients look up chunks.
const LOOKUP_BYTES: usize = 8 + 4 + 4;

/// A xorb of which some chunks, or all, are offered to a client.
#[derive(Clone, Debug)]
pub struct Offer<'a> {
    /// The xorb.
    pub xorb: &'a XorbFooter,
    /// The runs of chunks that are hidden, in order.
    pub hidden: Vec<Range<u32>>,
}

/// The answer that names these xorbs, with chunk hashes under `key`. Times are in seconds since
/// 1970. Use one key for many answers: clients keep an index for each key that they have seen.
pub fn encode_dedup_answer(
    xorbs: &[&XorbFooter],
    key: &[u8; 32],
    created: u64,
    expires: u64,
) -> Vec<u8> {
    let offers: Vec<_> = xorbs.iter().map(|xorb| Offer { xorb, hidden: Vec::new() }).collect();
    encode_offers(&offers, key, &[0; 32], created, expires)
}

/// The same of xorbs that are offered in part. What stands in the place of a hidden chunk's hash
/// is made with `veil`, which no client may know.
pub fn encode_offers(
    offers: &[Offer<'_>],
    key: &[u8; 32],
    veil: &[u8; 32],
    created: u64,
    expires: u64,
) -> Vec<u8> {
    let xorbs = || offers.iter().map(|offer| offer.xorb);
    let chunk_count: usize = xorbs().map(|xorb| xorb.chunk_hashes().len()).sum();
    let record_count = 3 + offers.len() + chunk_count;
    let mut bytes =
        Vec::with_capacity(record_count * RECORD_BYTES + chunk_count * LOOKUP_BYTES + FOOTER_BYTES);
    bytes.extend_from_slice(&TAG);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(FOOTER_BYTES as u64).to_le_bytes());
    push_record(&mut bytes, &END, [0; 4]);

    let xorbs_offset = bytes.len();
    let mut lookup = Vec::with_capacity(chunk_count);
    let mut record_index = 0;
    for offer in offers {
        push_xorb(&mut bytes, offer, key, veil, |truncated_hash, chunk_index| {
            lookup.push((truncated_hash, record_index, chunk_index));
        });
        record_index += 1 + offer.xorb.chunk_count();
    }
    push_record(&mut bytes, &END, [0; 4]);

    let lookup_offset = bytes.len();
    lookup.sort_unstable();
    for (truncated_hash, record_index, chunk_index) in &lookup {
        bytes.extend_from_slice(&truncated_hash.to_le_bytes());
        bytes.extend_from_slice(&record_index.to_le_bytes());
        bytes.extend_from_slice(&chunk_index.to_le_bytes());
    }

    let footer_offset = bytes.len();
    let places = [
        FOOTER_VERSION,
        RECORD_BYTES as u64,
        xorbs_offset as u64,
        // The tables of files and of xorbs are empty.
        lookup_offset as u64,
        0,
        lookup_offset as u64,
        0,
        lookup_offset as u64,
        lookup.len() as u64,
    ];
    push_numbers(&mut bytes, &places);
    bytes.extend_from_slice(key);
    push_numbers(&mut bytes, &[created, expires, 0, 0, 0, 0, 0, 0]);
    let stored_bytes = xorbs().map(|xorb| u64::from(xorb.total_length())).sum();
    push_numbers(&mut bytes, &[0, 0, stored_bytes, footer_offset as u64]);
    debug_assert_eq!(bytes.len(), footer_offset + FOOTER_BYTES);
    bytes
}

fn push_xorb(
    bytes: &mut Vec<u8>,
    offer: &Offer<'_>,
    key: &[u8; 32],
    veil: &[u8; 32],
    mut seen: impl FnMut(u64, u32),
) {
    let xorb = offer.xorb;
    let numbers = [0, xorb.chunk_count(), xorb.total_length(), 0];
    push_record(bytes, xorb.hash().as_bytes(), numbers);
    let mut hidden = offer.hidden.iter().peekable();
    for (index, chunk) in (0..).zip(xorb.chunk_hashes()) {
        while hidden.next_if(|run| run.end <= index).is_some() {}
        let run = hidden.peek().filter(|run| run.contains(&index));
        let (hash, start, length) = match run {
            None => {
                let start = xorb.uncompressed_start(index);
                (*chunk.keyed(key).as_bytes(), start, xorb.chunk_length(index))
            }
            Some(run) => {
                let (start, length) = veiled_place(xorb, run, index);
                (veiled_hash(xorb, index, veil), start, length)
            }
        };
        push_record(bytes, &hash, [start, length, 0, 0]);
        let first = hash.first_chunk().expect("a hash is longer than eight bytes");
        seen(u64::from_le_bytes(*first), index);
    }
}

/// Looks like a hash and depends on no content.
fn veiled_hash(xorb: &XorbFooter, index: u32, veil: &[u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(veil);
    hasher.update(xorb.hash().as_bytes());
    hasher.update(&index.to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// Where a hidden chunk would start, and its length, if all of its run were of one length: the
/// lengths of chunks tell what they are as surely as hashes do.
fn veiled_place(xorb: &XorbFooter, run: &Range<u32>, index: u32) -> (u32, u32) {
    let end = run.end.min(xorb.chunk_count());
    let first = xorb.uncompressed_start(run.start);
    let each = (xorb.uncompressed_start(end) - first) / (end - run.start);
    let start = first + each * (index - run.start);
    let next = if index + 1 == end { xorb.uncompressed_start(end) } else { start + each };
    (start, next - start)
}

fn push_record(bytes: &mut Vec<u8>, hash: &[u8; 32], numbers: [u32; 4]) {
    bytes.extend_from_slice(hash);
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
}

fn push_numbers(bytes: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
}
