//! Condemned lists and ends of collections: as they are, and as the fields of one with everything
//! around them right.
#![no_main]

use ballast_format::codec::Format;
use ballast_format::gc::{Collected, CondemnedList};
use libfuzzer_sys::fuzz_target;

fn framed(magic: [u8; 8], fields: &[u8]) -> Vec<u8> {
    let format =
        Format { what: "gc", magic, version: 1, limit: usize::MAX, has_checksum: true };
    format.encode(|to| to.array(fields)).expect("no limit")
}

fuzz_target!(|bytes: &[u8]| {
    for bytes in [bytes, &framed(*b"BLSTGCLS", bytes)] {
        if let Ok(list) = CondemnedList::decode(bytes) {
            assert_eq!(list.encode().expect("it was within the limit"), bytes);
        }
    }
    for bytes in [bytes, &framed(*b"BLSTGCDN", bytes)] {
        if let Ok(done) = Collected::decode(bytes) {
            assert_eq!(done.encode().expect("it was within the limit"), bytes);
        }
    }
});
