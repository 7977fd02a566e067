//! The end of a pack: as it is, and as a directory with a footer that is right.
#![no_main]

use ballast_format::hash::PackHash;
use ballast_format::pack::{FOOTER_BYTES, PackBuilder, PackDirectory};
use libfuzzer_sys::fuzz_target;

fn check(tail: &[u8], total: u64) {
    let Some(start) = tail.len().checked_sub(FOOTER_BYTES) else {
        return;
    };
    let length = PackDirectory::tail_length(&tail[start..]);
    let Ok(directory) = PackDirectory::decode(tail, total) else {
        return;
    };
    assert_eq!(length.expect("the footer was decoded"), tail.len());
    let mut builder = PackBuilder::new();
    for object in &directory.objects {
        let offset = builder.push(object.id, object.kind, object.length, object.pointer);
        assert_eq!(offset, object.offset);
        assert!(offset + object.length + tail.len() as u64 <= total);
    }
    directory.links.iter().for_each(|link| builder.link(*link));
    let (again, same) = builder.finish().expect("it was within the limits");
    assert_eq!((again.as_slice(), same), (tail, directory));
}

fuzz_target!(|input: (u64, &[u8])| {
    let (total, bytes) = input;
    check(bytes, total);
    let length = u32::try_from(bytes.len()).expect("the fuzzer gives less");
    let tail = [
        bytes,
        PackHash::of(bytes).as_bytes(),
        &length.to_le_bytes(),
        b"\x01\x00BLSTPEND",
    ]
    .concat();
    check(&tail, total);
    // The one total that fits a directory of one object.
    if let Some(length) = bytes
        .get(4 + 20 + 1 + 8..)
        .and_then(|rest| rest.first_chunk())
    {
        let total = 10_u64.saturating_add(u64::from_le_bytes(*length));
        check(&tail, total.saturating_add(tail.len() as u64));
    }
    check(&tail, 10 + tail.len() as u64);
});
