//! The shard that answers a question about a chunk.
//!
//! It names whole xorbs, with their chunks in order, so that the client can extend a match. Chunk
//! hashes are keyed: who does not have a chunk learns nothing of it. Files are left out, since
//! whose they are is nobody's business.

use super::{END, FOOTER_BYTES, FOOTER_VERSION, RECORD_BYTES, TAG, VERSION};
use crate::xorb::XorbFooter;

/// One line of the table in which clients look up chunks.
const LOOKUP_BYTES: usize = 8 + 4 + 4;

/// The answer that names these xorbs, with chunk hashes under `key`. Times are in seconds since
/// 1970. Use one key for many answers: clients keep an index for each key that they have seen.
pub fn encode_dedup_answer(
    xorbs: &[&XorbFooter],
    key: &[u8; 32],
    created: u64,
    expires: u64,
) -> Vec<u8> {
    let chunk_count: usize = xorbs.iter().map(|xorb| xorb.chunk_hashes().len()).sum();
    let record_count = 3 + xorbs.len() + chunk_count;
    let mut bytes =
        Vec::with_capacity(record_count * RECORD_BYTES + chunk_count * LOOKUP_BYTES + FOOTER_BYTES);
    bytes.extend_from_slice(&TAG);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(FOOTER_BYTES as u64).to_le_bytes());
    push_record(&mut bytes, &END, [0; 4]);

    let xorbs_offset = bytes.len();
    let mut lookup = Vec::with_capacity(chunk_count);
    let mut record_index = 0;
    for xorb in xorbs {
        push_xorb(&mut bytes, xorb, key, |truncated_hash, chunk_index| {
            lookup.push((truncated_hash, record_index, chunk_index));
        });
        record_index += 1 + xorb.chunk_count();
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
    let stored_bytes = xorbs
        .iter()
        .map(|xorb| u64::from(xorb.total_length()))
        .sum();
    push_numbers(&mut bytes, &[0, 0, stored_bytes, footer_offset as u64]);
    debug_assert_eq!(bytes.len(), footer_offset + FOOTER_BYTES);
    bytes
}

fn push_xorb(
    bytes: &mut Vec<u8>,
    xorb: &XorbFooter,
    key: &[u8; 32],
    mut seen: impl FnMut(u64, u32),
) {
    let numbers = [0, xorb.chunk_count(), xorb.total_length(), 0];
    push_record(bytes, xorb.hash().as_bytes(), numbers);
    for (index, chunk) in (0..).zip(xorb.chunk_hashes()) {
        let keyed = chunk.keyed(key);
        let numbers = [
            xorb.uncompressed_start(index),
            xorb.chunk_length(index),
            0,
            0,
        ];
        push_record(bytes, keyed.as_bytes(), numbers);
        let first = keyed
            .as_bytes()
            .first_chunk()
            .expect("a hash is longer than eight bytes");
        seen(u64::from_le_bytes(*first), index);
    }
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
