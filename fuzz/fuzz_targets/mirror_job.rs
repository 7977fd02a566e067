//! Mirror jobs: as they are, and as the fields of one with everything around them right.
#![no_main]

use ballast_format::codec::Format;
use ballast_format::mirror_job::MirrorJob;
use libfuzzer_sys::fuzz_target;

const FORMAT: Format = Format {
    what: "mirror job",
    magic: *b"BLSTMJOB",
    version: 1,
    limit: usize::MAX,
    has_checksum: true,
};

fuzz_target!(|bytes: &[u8]| {
    let framed = FORMAT.encode(|to| to.array(bytes)).expect("no limit");
    for bytes in [bytes, &framed] {
        if let Ok(job) = MirrorJob::decode(bytes) {
            assert_eq!(job.encode().expect("it was within the limit"), bytes);
        }
    }
});
