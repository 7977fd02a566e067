//! Log entries: as they are, and as the fields behind a front that is right.
#![no_main]

use ballast_format::codec::Format;
use ballast_format::log::{AccountChange, AuditChange, CatalogueChange, Change, Entry, RepoChange};
use libfuzzer_sys::fuzz_target;

const fn format(version: u16) -> Format {
    let (what, magic, limit) = ("log entry", *b"BLSTLOGE", usize::MAX);
    Format { what, magic, version, limit, has_checksum: false }
}

fn check<C: Change>(bytes: &[u8]) {
    if let Ok(entry) = Entry::<C>::decode(bytes) {
        assert_eq!(entry.encode().expect("it was within the limits"), bytes);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let framed = |version| format(version).encode(|to| to.array(bytes)).expect("no limit");
    for bytes in [bytes, &framed(1), &framed(2)] {
        check::<RepoChange>(bytes);
        check::<CatalogueChange>(bytes);
        check::<AccountChange>(bytes);
        check::<AuditChange>(bytes);
    }
});
