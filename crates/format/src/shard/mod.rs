//! Shards as they travel: which files use which chunks, and in which xorbs these are.
//!
//! A client uploads a shard after its xorbs, and gets one as the answer to a question about a
//! chunk. Neither is stored as it is: what an upload proves is kept as manifests, and answers are
//! made from footers. Nothing a shard claims is believed here; it is only given a form in which it
//! can be checked.
//!
//! Both are records of 48 bytes: a header, the files, an end, the xorbs, an end. Answers add a
//! table to look up chunks and a footer of 200 bytes.

mod answer;
mod upload;

#[cfg(test)]
mod tests;

pub use answer::{Offer, encode_dedup_answer, encode_offers};
pub use upload::{Segment, UploadChunk, UploadFile, UploadShard, UploadXorb};

const TAG: [u8; 32] = *b"HFRepoMetaData\0\x55\x69\x67\x45\x6a\x7b\x81\x57\x83\xa5\xbd\xd9\x5c\xcd\
                         \xd1\x4a\xa9";
const VERSION: u64 = 2;
const FOOTER_BYTES: usize = 200;
const FOOTER_VERSION: u64 = 1;

const RECORD_BYTES: usize = 48;

/// What everything in a shard but its tables and footer is made of: a hash, then four numbers of
/// four bytes, whatever they mean.
type Record = [u8; RECORD_BYTES];

/// Stands in the place of a hash where a section ends.
const END: [u8; 32] = [0xff; 32];
