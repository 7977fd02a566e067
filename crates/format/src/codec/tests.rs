use proptest::prelude::*;

use super::*;

const PLAIN: Format =
    Format { what: "thing", magic: *b"BLSTTHNG", version: 3, limit: 100, has_checksum: false };
const CHECKED: Format = Format { has_checksum: true, ..PLAIN };

#[test]
fn fields_are_little_endian_behind_their_lengths() {
    let mut encoder = Encoder::new();
    encoder.u8(1);
    encoder.u16(2);
    encoder.u32(3);
    encoder.u64(4);
    encoder.bool(true);
    encoder.array(b"ab");
    encoder.str("ü");
    encoder.option(Some(&7_u8), |encoder, value| encoder.u8(*value));
    encoder.option(None::<&u8>, |encoder, value| encoder.u8(*value));
    encoder.list(&[8_u16, 9], |encoder, value| encoder.u16(*value));
    let expected = b"\x01\x02\0\x03\0\0\0\x04\0\0\0\0\0\0\0\x01ab\x02\0\0\0\xc3\xbc\x01\x07\0\
                     \x02\0\0\0\x08\0\x09\0";
    assert_eq!(encoder.finish(), expected);
}

#[test]
fn a_count_that_the_bytes_left_cannot_hold_is_refused_before_anything_is_read() {
    let mut bytes = u32::MAX.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[0; 64]);
    let mut calls = 0;
    let read = Decoder::new("list", &bytes).list(1, |decoder| {
        calls += 1;
        decoder.u8()
    });
    assert!(matches!(read, Err(Error::Truncated { what: "list" })));
    assert_eq!(calls, 0);
    assert!(matches!(Decoder::new("bytes", &bytes).bytes(), Err(Error::Truncated { .. })));
}

#[test]
fn flags_other_than_zero_and_one_and_text_other_than_utf8_are_refused() {
    assert!(Decoder::new("flag", &[2]).bool().is_err());
    assert!(Decoder::new("option", &[2, 0]).option(Decoder::u8).is_err());
    assert!(Decoder::new("text", b"\x01\0\0\0\xff").str().is_err());
}

#[test]
fn a_value_begins_with_magic_version_and_length() {
    let bytes = PLAIN.encode(|encoder| encoder.u8(9)).expect("small");
    assert_eq!(bytes, b"BLSTTHNG\x03\0\x01\0\0\0\x09");
    assert_eq!(PLAIN.length(&bytes).expect("whole"), bytes.len());
    assert_eq!(PLAIN.length(&bytes[..Format::FRONT_BYTES]).expect("front"), bytes.len());
    let mut decoder = PLAIN.decode(&bytes).expect("whole");
    assert_eq!(decoder.u8().expect("a byte"), 9);
    decoder.finish().expect("nothing follows");
}

#[test]
fn another_magic_version_or_length_is_refused_as_what_it_is() {
    let bytes = PLAIN.encode(|encoder| encoder.u8(9)).expect("small");
    let with = |place: usize, byte| {
        let mut bytes = bytes.clone();
        bytes[place] = byte;
        PLAIN.decode(&bytes).map(drop)
    };
    assert!(matches!(with(0, b'b'), Err(Error::Malformed { .. })));
    assert!(matches!(with(8, 4), Err(Error::UnknownVersion { version: 4, .. })));
    assert!(matches!(with(9, 1), Err(Error::UnknownVersion { version: 259, .. })));
    assert!(matches!(with(10, 0), Err(Error::Malformed { .. })));
    assert!(matches!(with(10, 2), Err(Error::Truncated { .. })));
    assert!(matches!(with(13, 255), Err(Error::TooLarge { limit: 100, .. })));
    for length in 0..bytes.len() {
        assert!(matches!(PLAIN.decode(&bytes[..length]), Err(Error::Truncated { .. })));
    }
}

#[test]
fn the_limit_counts_every_byte() {
    let zeros = |count| PLAIN.encode(move |encoder| encoder.array(&vec![0; count])).map(drop);
    assert!(zeros(86).is_ok());
    assert!(matches!(zeros(87), Err(Error::TooLarge { size: 101, limit: 100, .. })));
    let zeros = |count| CHECKED.encode(move |encoder| encoder.array(&vec![0; count])).map(drop);
    assert!(zeros(54).is_ok());
    assert!(matches!(zeros(55), Err(Error::TooLarge { size: 101, .. })));
}

#[test]
fn a_checksum_sees_every_flipped_bit() {
    let bytes = CHECKED.encode(|encoder| encoder.str("hello")).expect("small");
    assert_eq!(bytes.len(), Format::FRONT_BYTES + 9 + Format::CHECKSUM_BYTES);
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(CHECKED.decode(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn a_value_too_short_for_its_checksum_is_refused() {
    for length in 0..Format::CHECKSUM_BYTES {
        let bytes = PLAIN.encode(|encoder| encoder.array(&vec![0; length])).expect("small");
        assert!(matches!(CHECKED.decode(&bytes), Err(Error::Truncated { .. })), "{length}");
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        numbers: (u8, u16, u32, u64, bool),
        text: String,
        option: Option<u64>,
        list: Vec<Vec<u8>>,
    ) {
        let mut encoder = Encoder::new();
        encoder.u8(numbers.0);
        encoder.u16(numbers.1);
        encoder.u32(numbers.2);
        encoder.u64(numbers.3);
        encoder.bool(numbers.4);
        encoder.str(&text);
        encoder.option(option.as_ref(), |encoder, value| encoder.u64(*value));
        encoder.list(&list, |encoder, bytes| encoder.bytes(bytes));
        let bytes = encoder.finish();

        let mut decoder = Decoder::new("test", &bytes);
        let read = (
            decoder.u8().expect("u8"),
            decoder.u16().expect("u16"),
            decoder.u32().expect("u32"),
            decoder.u64().expect("u64"),
            decoder.bool().expect("bool"),
        );
        prop_assert_eq!(read, numbers);
        prop_assert_eq!(decoder.str().expect("text"), text);
        prop_assert_eq!(decoder.option(Decoder::u64).expect("option"), option);
        let read = decoder.list(4, |decoder| Ok(decoder.bytes()?.to_vec()));
        prop_assert_eq!(read.expect("list"), list);
        decoder.finish().expect("nothing follows");
    }

    #[test]
    fn noise_never_panics(noise: Vec<u8>) {
        let _ = PLAIN.decode(&noise);
        let _ = CHECKED.decode(&noise);
        let mut decoder = Decoder::new("noise", &noise);
        let _ = decoder.list(1, |decoder| decoder.option(Decoder::str));
        prop_assert!(decoder.remaining() <= noise.len());
    }
}
