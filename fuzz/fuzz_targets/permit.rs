//! Permits, and what a process keeps of its having joined: as they are, and as the fields of one with
//! everything around them right.
#![no_main]

use ballast_format::codec::Format;
use ballast_format::member::Member;
use ballast_format::permit::Permit;
use libfuzzer_sys::fuzz_target;

const PERMIT: Format = Format {
    what: "permit",
    magic: *b"BLSTPRMT",
    version: 1,
    limit: usize::MAX,
    has_checksum: false,
};
const MEMBER: Format =
    Format { what: "member", magic: *b"BLSTMEMB", has_checksum: true, ..PERMIT };

fuzz_target!(|bytes: &[u8]| {
    let framed = PERMIT.encode(|to| to.array(bytes)).expect("no limit");
    for bytes in [bytes, &framed] {
        if let Ok(permit) = Permit::decode(bytes) {
            assert_eq!(permit.encode().expect("it was within the limit"), bytes);
        }
    }
    let framed = MEMBER.encode(|to| to.array(bytes)).expect("no limit");
    for bytes in [bytes, &framed] {
        if let Ok(member) = Member::decode(bytes) {
            assert_eq!(member.encode().expect("it was within the limit"), bytes);
        }
    }
});
