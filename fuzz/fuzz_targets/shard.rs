//! A shard as a client posts it.
#![no_main]

use ballast_format::shard::UploadShard;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(shard) = UploadShard::parse(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    let mut files = 0;
    for file in shard.files() {
        files += 1;
        assert_eq!(file.segments().count(), file.segment_count());
        assert_eq!(
            file.segments()
                .map(|part| u64::from(part.length))
                .sum::<u64>(),
            file.size()
        );
        if let Some(hashes) = file.range_hashes() {
            assert_eq!(hashes.count(), file.segment_count());
        }
    }
    assert_eq!(files, shard.file_count());
    let mut xorbs = 0;
    for xorb in shard.xorbs() {
        xorbs += 1;
        assert_eq!(
            xorb.chunks().map(|chunk| chunk.length).sum::<u32>(),
            xorb.length
        );
    }
    assert_eq!(xorbs, shard.xorb_count());
});
