//! The body of a xorb upload, in pieces, and the footer at its end.
#![no_main]

use ballast_format::hash::XorbHash;
use ballast_format::xorb::{ChunkDecoder, XorbFooter, XorbValidator};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| {
    let (size, body) = input;
    let mut validator = XorbValidator::new();
    let is_taken = body
        .chunks(usize::from(size).max(1))
        .all(|piece| validator.feed(piece).is_ok());
    let length = usize::try_from(validator.serialized_length()).expect("within the body");
    assert!(length <= body.len());
    // The hash is not known before, so a body that passes is one that fails by its hash alone.
    let _ = validator.finish(XorbHash::ZERO);

    if is_taken && length > 0 {
        check_chunks(&body[..length]);
    }
    if let Ok(footer) = XorbFooter::decode(body) {
        let encoded = footer.encode(0);
        assert_eq!(
            XorbFooter::decode(&encoded).expect("our own footer"),
            footer
        );
        let all = 0..footer.chunk_count();
        let _ = ChunkDecoder::new().decode_chunks(body, &footer, all, true, |_| Ok(()));
    }
});

/// What was taken piece by piece is taken as a whole, and reads back.
fn check_chunks(body: &[u8]) {
    let mut validator = XorbValidator::new();
    validator.feed(body).expect("it was taken in pieces");
    let Err(ballast_format::Error::HashMismatch { actual, .. }) = validator.finish(XorbHash::ZERO)
    else {
        panic!("whole chunks fail by their hash alone");
    };
    let mut validator = XorbValidator::new();
    validator.feed(body).expect("it was taken before");
    let footer = validator
        .finish(actual.parse().expect("a hash"))
        .expect("it has this hash");
    let all = 0..footer.chunk_count();
    ChunkDecoder::new()
        .decode_chunks(body, &footer, all, true, |_| Ok(()))
        .expect("proven");
    let whole = [body, &footer.encode(1)].concat();
    assert_eq!(XorbFooter::decode(&whole).expect("our own footer"), footer);
}
