//! Every file of a bundle, and receipts: as they are, and with a checksum that is right.
#![no_main]

use ballast_format::bundle::{
    Contents, Directory, Receipt, SIGNATURE_BYTES, SignedStatement, VolumeHead,
};
use ballast_format::hash::BundleHash;
use libfuzzer_sys::fuzz_target;

fn check(bytes: &[u8]) {
    if let Ok(contents) = Contents::decode(bytes) {
        assert_eq!(contents.encode().expect("it was within the limits"), bytes);
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
        assert_eq!(receipt.encode().expect("it was within the limits"), bytes);
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
