//! Tallies: as they are, and as the fields of one with everything around them right.
#![no_main]

use ballast_format::codec::Format;
use ballast_format::tally::Tally;
use libfuzzer_sys::fuzz_target;

const FORMAT: Format = Format {
    what: "tally",
    magic: *b"BLSTTALY",
    version: 1,
    limit: usize::MAX,
    has_checksum: true,
};

fuzz_target!(|bytes: &[u8]| {
    let framed = FORMAT.encode(|to| to.array(bytes)).expect("no limit");
    for bytes in [bytes, &framed] {
        if let Ok(tally) = Tally::decode(bytes) {
            assert_eq!(tally.encode().expect("it was within the limit"), bytes);
        }
    }
});
