//! Log entries: as they are, and as the fields behind a front that is right.
#![no_main]

use ballast_format::codec::Format;
use ballast_format::log::{AccountChange, CatalogueChange, Change, Entry, RepoChange};
use libfuzzer_sys::fuzz_target;

const FORMAT: Format = Format {
    what: "log entry",
    magic: *b"BLSTLOGE",
    version: 1,
    limit: usize::MAX,
    has_checksum: false,
};

fn check<C: Change>(bytes: &[u8]) {
    if let Ok(entry) = Entry::<C>::decode(bytes) {
        assert_eq!(entry.encode().expect("it was within the limits"), bytes);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let framed = FORMAT.encode(|to| to.array(bytes)).expect("no limit");
    for bytes in [bytes, &framed] {
        check::<RepoChange>(bytes);
        check::<CatalogueChange>(bytes);
        check::<AccountChange>(bytes);
    }
});
