//! What an upstream says of a commit: as it is, and as the fields of one with all around them right.
#![no_main]

use ballast_format::codec::Format;
use ballast_format::object::UpstreamCommit;
use libfuzzer_sys::fuzz_target;

const FORMAT: Format = Format {
    what: "upstream commit",
    magic: *b"BLSTUPCM",
    version: 1,
    limit: usize::MAX,
    has_checksum: true,
};

fuzz_target!(|bytes: &[u8]| {
    let framed = FORMAT.encode(|to| to.array(bytes)).expect("no limit");
    for bytes in [bytes, &framed] {
        if let Ok(commit) = UpstreamCommit::decode(bytes) {
            assert_eq!(commit.encode().expect("it was within the limit"), bytes);
            assert_eq!(commit.to_commit().tree, commit.tree);
        }
    }
});
