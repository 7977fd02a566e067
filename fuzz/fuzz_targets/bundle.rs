//! Every file of a bundle, and receipts: as they are, and with a checksum that is right.
#![no_main]

use ballast_format::bundle::{
    Contents, Directory, Receipt, SIGNATURE_BYTES, SignedStatement, VolumeHead,
};
use ballast_format::hash::BundleHash;
use libfuzzer_sys::fuzz_target;

/// What was read in an older version is written in the newest, and reads as the same.
fn is_newest(bytes: &[u8]) -> bool {
    bytes.get(8..10) == Some(&[2, 0])
}

fn check(bytes: &[u8]) {
    if let Ok(contents) = Contents::decode(bytes) {
        // A version that has more in it may be longer than there is room for.
        match contents.encode() {
            Ok(again) if is_newest(bytes) => assert_eq!(again, bytes),
            Ok(again) => assert_eq!(Contents::decode(&again).expect("it was written"), contents),
            Err(_) => assert!(!is_newest(bytes)),
        }
    }
    if let Ok(signed) = SignedStatement::decode(bytes) {
        let again = signed.statement.encode().expect("it was within the limits");
        assert_eq!(again, signed.signed);
        assert_eq!(again.len() + SIGNATURE_BYTES, bytes.len());
    }
    if let Ok(head) = VolumeHead::decode(bytes) {
        assert_eq!(head.encode(), bytes);
    }
    if let Ok(receipt) = Receipt::decode(bytes) {
        match receipt.encode() {
            Ok(again) if is_newest(bytes) => assert_eq!(again, bytes),
            Ok(again) => assert_eq!(Receipt::decode(&again).expect("it was written"), receipt),
            Err(_) => assert!(!is_newest(bytes)),
        }
    }
}

fuzz_target!(|input: (u64, &[u8])| {
    let (total, bytes) = input;
    check(bytes);
    let summed = [bytes, BundleHash::of(bytes).as_bytes()].concat();
    check(&summed);
    let length = u32::try_from(bytes.len()).expect("the fuzzer gives less");
    let tail = [&summed[..], &length.to_le_bytes(), b"\x01\x00BLSTBNDE"].concat();
    for total in [total, (VolumeHead::BYTES + tail.len()) as u64] {
        if let Ok(directory) = Directory::decode(&tail, total) {
            assert_eq!(directory.encode().expect("it was within the limits"), tail);
        }
    }
});
