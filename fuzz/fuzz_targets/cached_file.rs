//! What a node keeps beside a file of its cache: as it is, and with everything around it right.
#![no_main]

use ballast_format::cached_file::{CachedFile, HeldChunks, KeptPass};
use ballast_format::codec::Format;
use ballast_format::hash::ShardHash;
use libfuzzer_sys::fuzz_target;

const HELD: Format = Format {
    what: "list of held chunks",
    magic: *b"BLSTHELD",
    version: 1,
    limit: usize::MAX,
    has_checksum: true,
};
const HEAD: Format = Format { what: "cached file", magic: *b"BLSTCHED", ..HELD };
const PASS: Format = Format { what: "pass for a file", magic: *b"BLSTPASS", ..HELD };

fuzz_target!(|bytes: &[u8]| {
    let held = HELD.encode(|to| to.array(bytes)).expect("no limit");
    for bytes in [bytes, &held] {
        if let Ok(held) = HeldChunks::decode(bytes) {
            assert_eq!(held.encode().expect("it was within the limit"), bytes);
        }
    }
    let pass = PASS.encode(|to| to.array(bytes)).expect("no limit");
    for bytes in [bytes, &pass] {
        if let Ok(pass) = KeptPass::decode(bytes) {
            assert_eq!(pass.encode().expect("it was within the limit"), bytes);
        }
    }
    // The first two bytes say how many rows there are: the rest is the head's fields.
    let Some((count, rest)) = bytes.split_first_chunk::<2>() else { return };
    let rows = usize::from(u16::from_le_bytes(*count)) * 36;
    let Some((rows, fields)) = rest.split_at_checked(rows) else { return };
    let head = HEAD.encode(|to| {
        let (front, terms) = fields.split_at(fields.len().min(40));
        to.array(front);
        to.array(ShardHash::of(rows).as_bytes());
        to.array(terms);
    });
    let mut file = head.expect("no limit");
    file.extend_from_slice(rows);
    for bytes in [bytes, &file] {
        if let Ok(file) = CachedFile::decode(bytes) {
            assert_eq!(file.encode().expect("it was within the limit"), bytes);
        }
    }
});
