//! The payload of one chunk, in either compressed scheme.
#![no_main]

use ballast_format::xorb::{Compression, decompress};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u32, bool, u8, &[u8])| {
    let (length, is_grouped, shape, payload) = input;
    let length = length % 140_000;
    let compression = if is_grouped {
        Compression::ByteGroupedLz4
    } else {
        Compression::Lz4
    };
    // Headers carry a checksum that is hard to guess, so some are given.
    let headers: [&[u8]; 4] = [
        &[],
        &[0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82],
        &[0x04, 0x22, 0x4d, 0x18, 0x60, 0x50, 0xfb],
        &[0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0xc0],
    ];
    let payload = [headers[usize::from(shape) % 4], payload].concat();
    let mut chunk = Vec::new();
    if decompress(compression, &payload, length, &mut chunk).is_ok() {
        assert_eq!(chunk.len(), length as usize);
    }
});
