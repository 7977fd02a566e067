//! Xorbs as a whole: vectors of real clients, round trips, and bodies that lie.

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::chunk::split;
use crate::content::{bf16_weights, f32_weights, repetitive, splitmix};
use crate::hash::{ChunkHash, XorbHash};
use crate::limits::{MAX_CHUNK_BYTES, MAX_XORB_BYTES, MAX_XORB_CHUNKS};
use crate::{Error, Result};

/// One serialized chunk.
fn serialized(compression: Compression, payload: &[u8], length: usize) -> Vec<u8> {
    let header = ChunkHeader {
        compressed_length: u32::try_from(payload.len()).expect("short"),
        compression,
        uncompressed_length: u32::try_from(length).expect("short"),
    };
    [header.encode().as_slice(), payload].concat()
}

fn stored(chunk: &[u8]) -> Vec<u8> {
    serialized(Compression::None, chunk, chunk.len())
}

/// All chunks of `content`, not compressed, and their hash.
fn stored_xorb(content: &[u8]) -> (Vec<u8>, XorbHash) {
    let body: Vec<_> = split(content).flat_map(stored).collect();
    (body, hash_of(content))
}

fn hash_of(content: &[u8]) -> XorbHash {
    let chunks = split(content).map(|chunk| (ChunkHash::of(chunk), chunk.len() as u64));
    crate::hash_tree::xorb_hash(chunks)
}

fn written(content: &[u8]) -> (Vec<u8>, XorbFooter) {
    let mut writer = XorbWriter::new();
    for (index, chunk) in (0..).zip(split(content)) {
        assert!(!writer.is_full_for(chunk.len()));
        assert_eq!(writer.push(chunk, ChunkHash::of(chunk)), index);
    }
    assert_eq!(writer.len(), content.len());
    let (serialized, footer) = writer.finish();
    (serialized.to_vec(), footer)
}

fn validate(body: &[u8], hash: XorbHash) -> Result<XorbFooter> {
    validate_in_pieces(body, hash, body.len().max(1))
}

fn validate_in_pieces(body: &[u8], hash: XorbHash, size: usize) -> Result<XorbFooter> {
    let mut validator = XorbValidator::new();
    for piece in body.chunks(size) {
        validator.feed(piece)?;
    }
    let length = validator.serialized_length();
    let footer = validator.finish(hash)?;
    assert_eq!(footer.serialized_length(), length);
    Ok(footer)
}

fn content_of(bytes: &[u8], footer: &XorbFooter) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    ChunkDecoder::new().decode_chunks(bytes, footer, 0..footer.chunk_count(), true, |chunk| {
        content.extend_from_slice(chunk);
        Ok(())
    })?;
    Ok(content)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn bytes_of_a_small_xorb_are_those_of_clients() {
    let (body, footer) = written(b"hello world");
    let expected = concat!(
        "000b0000000b000068656c6c6f20776f726c64",
        "584554424c4f4201119f359d8b37394e0213441f7a559081d97ba0cf5f4ea519b151e66f460bf56c",
        "58424c424853480001000000119f359d8b37394e0213441f7a559081d97ba0cf5f4ea519b151e66f460bf56c",
        "58424c42424e4401010000001300000",
        "00b000000",
        "010000005c0000003000000000000000000000000000000000000000",
        "84000000",
    );
    assert_eq!(hex(&[body.as_slice(), &footer.encode(0)].concat()), expected);
}

#[test]
fn bytes_of_a_xorb_of_random_content_are_those_of_clients() {
    let (body, footer) = written(&splitmix(42, 500_000));
    assert_eq!(body.len(), 500_064);
    assert_eq!(
        hex(&Sha256::digest(&body)),
        "1c7131af560299c519b731babcc5948466f267c041cca0b13a804895a778140a"
    );
    assert_eq!(
        footer.hash().to_string(),
        "b42e5f55b621d1bc456a8eea4ffd7602110b87a9687b90773fd9154ff88d2221"
    );
    let whole = [body.as_slice(), &footer.encode(0)].concat();
    assert_eq!(whole.len(), 500_480);
    assert_eq!(
        hex(&Sha256::digest(&whole)),
        "8693005b333ede58f7b16a9259079ea7495fbd229f2aa1bb956adcc9557e67f5"
    );
    assert_eq!(whole[whole.len() - 4..], [0x9c, 1, 0, 0]);
    assert_eq!(XorbFooter::decode(&whole).expect("valid"), footer);
}

#[test]
fn footers_answer_for_ranges_of_chunks() {
    let content = splitmix(42, 500_000);
    let (_, footer) = written(&content);
    let lengths: Vec<_> = split(&content).map(<[u8]>::len).collect();
    assert_eq!(footer.chunk_count(), 8);
    assert_eq!(footer.total_length(), 500_000);
    assert_eq!(footer.byte_range(0..8).expect("all"), 0..500_064);
    let start: usize = lengths[..2].iter().sum();
    let length: usize = lengths[2..5].iter().sum();
    let (start, length) = (start as u64 + 16, length as u64);
    assert_eq!(footer.byte_range(2..5).expect("some"), start..start + length + 24);
    assert_eq!(footer.uncompressed_length(2..5).expect("some"), length);
    assert_eq!(footer.chunk_length(2) as usize, lengths[2]);
    assert_eq!(
        footer.range_hash(0..8).expect("all").to_string(),
        "8a7d2946dd372b3e9acc01309ade82f51b0dfab016073cc41841ea522a39e492"
    );
    for index in 0..8 {
        let (start, end) = (footer.uncompressed_start(index), footer.uncompressed_start(index + 1));
        assert_eq!((footer.chunk_at(start), footer.chunk_at(end - 1)), (Some(index), Some(index)));
    }
    assert_eq!(footer.chunk_at(500_000), None);
    let empty = std::ops::Range { start: 5, end: 5 };
    let reversed = std::ops::Range { start: 5, end: 4 };
    for wrong in [empty, reversed, 0..9, 8..9, 0..u32::MAX] {
        assert!(footer.byte_range(wrong.clone()).is_err(), "{wrong:?}");
        assert!(footer.uncompressed_length(wrong.clone()).is_err(), "{wrong:?}");
        assert!(footer.range_hash(wrong.clone()).is_err(), "{wrong:?}");
    }
}

#[test]
fn chunks_of_a_range_are_read_without_the_others() {
    let content = repetitive(1, 400_000);
    let (body, footer) = written(&content);
    let chunks: Vec<_> = split(&content).collect();
    assert!(chunks.len() > 5);
    let place = footer.byte_range(2..5).expect("some");
    let bytes = &body[usize::try_from(place.start).expect("short")..];
    let bytes = &bytes[..usize::try_from(place.end - place.start).expect("short")];
    for verify in [true, false] {
        let mut read = Vec::new();
        ChunkDecoder::new()
            .decode_chunks(bytes, &footer, 2..5, verify, |chunk| {
                read.push(chunk.to_vec());
                Ok(())
            })
            .expect("valid");
        assert_eq!(read, chunks[2..5]);
    }
    let refused =
        |range| ChunkDecoder::new().decode_chunks(bytes, &footer, range, true, |_| Ok(()));
    assert!(refused(2..6).is_err(), "the bytes are too few");
    assert!(refused(3..6).is_err(), "these are other chunks");
}

#[test]
fn an_error_of_the_sink_ends_reading() {
    let (body, footer) = written(&repetitive(1, 400_000));
    let mut calls = 0;
    let result = ChunkDecoder::new().decode_chunks(&body, &footer, 0..5, true, |_| {
        calls += 1;
        Err(Error::malformed("sink", "it is full"))
    });
    assert!(result.is_err(), "the bytes are too many");
    assert_eq!(calls, 0);
    let all = 0..footer.chunk_count();
    let result = ChunkDecoder::new().decode_chunks(&body, &footer, all, true, |_| {
        calls += 1;
        Err(Error::malformed("sink", "it is full"))
    });
    assert_eq!((result.is_err(), calls), (true, 1));
}

#[test]
fn a_stored_chunk_that_changed_is_found_when_verified() {
    let (mut body, footer) = written(&splitmix(9, 200_000));
    let last = body.len() - 1;
    body[last] ^= 1;
    let read = |verify| {
        let all = 0..footer.chunk_count();
        ChunkDecoder::new().decode_chunks(&body, &footer, all, verify, |_| Ok(()))
    };
    assert!(matches!(read(true), Err(Error::HashMismatch { .. })));
    assert!(read(false).is_ok(), "it was not asked for");
}

#[test]
fn a_chunk_without_its_footer_is_what_it_is_expected_to_be_or_an_error() {
    let content = [splitmix(10, 100_000), repetitive(11, 100_000)].concat();
    let (body, footer) = written(&content);
    let (mut rest, mut again) = (body.as_slice(), Vec::new());
    let mut decoder = ChunkDecoder::new();
    for index in 0..footer.chunk_count() {
        let (hash, length) = (footer.chunk_hash(index), footer.chunk_length(index));
        let before = rest;
        for (hash, length) in [(ChunkHash::ZERO, length), (hash, length + 1)] {
            assert!(decoder.decode_next(&mut { before }, hash, length).is_err());
        }
        let cut = &before[..footer.serialized_chunk_length(index) as usize - 1];
        assert!(decoder.decode_next(&mut { cut }, hash, length).is_err());
        again.extend_from_slice(decoder.decode_next(&mut rest, hash, length).expect("sound"));
    }
    assert!(rest.is_empty() && again == content);
    assert!(decoder.decode_next(&mut rest, ChunkHash::ZERO, 1).is_err(), "there is no more");
}

#[test]
fn the_scheme_fits_the_content() {
    let schemes = |content: &[u8]| {
        let (body, footer) = written(content);
        let mut at = 0;
        let mut counts = [0; 3];
        for index in 0..footer.chunk_count() {
            counts[body[at + 4] as usize] += 1;
            at += footer.serialized_chunk_length(index) as usize;
        }
        (counts, body.len())
    };
    let (counts, _) = schemes(&splitmix(1, 1 << 20));
    assert_eq!((counts[1], counts[2]), (0, 0), "random bytes stay as they are");
    let (counts, length) = schemes(&repetitive(1, 1 << 20));
    assert_eq!((counts[0], counts[2]), (0, 0), "text is compressed");
    assert!(length < 700_000, "{length}");
    let (counts, length) = schemes(&bf16_weights(1, 1 << 20));
    assert_eq!((counts[0], counts[1]), (0, 0), "weights are grouped");
    assert!(length < 950_000, "{length}");
    let (counts, length) = schemes(&f32_weights(1, 1 << 20));
    assert!(counts[1] == 0 && counts[2] > 4 * counts[0], "larger ones where it pays");
    assert!(length < 1_010_000, "{length}");
    let (counts, length) = schemes(&vec![0; 1 << 20]);
    assert_eq!((counts[0], counts[2]), (0, 0), "and zeros are next to nothing");
    assert!(length < 10_000, "{length}");
}

#[test]
fn clients_bodies_pass() {
    let content = splitmix(42, 500_000);
    let (body, hash) = stored_xorb(&content);
    let footer = validate(&body, hash).expect("valid");
    assert_eq!(content_of(&body, &footer).expect("valid"), content);
}

#[test]
fn a_footer_behind_the_chunks_must_agree() {
    let content = splitmix(42, 500_000);
    let (body, hash) = stored_xorb(&content);
    let footer = validate(&body, hash).expect("valid");
    let old = old_footer(&footer);
    for good in [footer.encode(0), footer.encode(0xdead_beef), old.clone()] {
        let whole = [body.as_slice(), &good].concat();
        assert_eq!(validate(&whole, hash).expect("it agrees"), footer);
        assert_eq!(validate_in_pieces(&whole, hash, 3).expect("it agrees"), footer);
        for length in 1..good.len() {
            assert!(validate(&whole[..whole.len() - length], hash).is_err(), "{length} cut off");
        }
        assert!(validate(&[whole.as_slice(), &[0]].concat(), hash).is_err());
        assert!(validate(&[whole.as_slice(), &good].concat(), hash).is_err());
    }
    for (good, free) in [(footer.encode(0), 4), (old, 16)] {
        let nonce = good.len() - 20..good.len() - 20 + free;
        for at in (0..good.len()).filter(|at| !nonce.contains(at)) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let whole = [body.as_slice(), &bad].concat();
            assert!(validate(&whole, hash).is_err(), "bit flipped in byte {at}");
        }
    }
}

/// A footer of version 0, written down field by field.
fn old_footer(footer: &XorbFooter) -> Vec<u8> {
    let mut bytes = b"XETBLOB\0".to_vec();
    bytes.extend_from_slice(footer.hash().as_bytes());
    bytes.extend_from_slice(&footer.chunk_count().to_le_bytes());
    for index in 0..footer.chunk_count() {
        let end = footer.byte_range(0..index + 1).expect("in range").end;
        bytes.extend_from_slice(&u32::try_from(end).expect("short").to_le_bytes());
    }
    for hash in footer.chunk_hashes() {
        bytes.extend_from_slice(hash.as_bytes());
    }
    bytes.extend_from_slice(&[0; 16]);
    let length = u32::try_from(bytes.len()).expect("short");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes
}

#[test]
fn a_body_of_another_hash_is_refused() {
    let (body, _) = stored_xorb(b"some content");
    let (_, other) = stored_xorb(b"other content");
    assert!(matches!(validate(&body, other), Err(Error::HashMismatch { .. })));
}

#[test]
fn a_body_without_chunks_is_refused() {
    assert!(validate(b"", XorbHash::ZERO).is_err());
    let (_, footer) = written(b"some content");
    assert!(validate(&footer.encode(0), footer.hash()).is_err(), "a footer only");
}

#[test]
fn a_body_that_is_cut_short_is_refused() {
    let content = repetitive(3, 30_000);
    let (body, hash) = stored_xorb(&content);
    for length in (0..body.len()).step_by(97).chain(body.len() - 9..body.len()) {
        assert!(validate(&body[..length], hash).is_err(), "{length}");
    }
    let behind = [body.as_slice(), &[0]].concat();
    assert!(validate(&behind, hash).is_err(), "a byte behind the last chunk");
}

#[test]
fn a_wrong_length_in_a_header_is_refused_though_the_hash_fits() {
    let content = repetitive(4, 8000);
    let hash = hash_of(&content);
    let mut frame = Vec::new();
    let length = frame::encode(&content, &mut frame, &mut lz4_flex::block::CompressTable::large());
    let frame = &frame[..length];
    let body = |length| serialized(Compression::Lz4, frame, length);
    assert!(validate(&body(8000), hash).is_ok());
    for wrong in [1, 7999, 8001, MAX_CHUNK_BYTES] {
        assert!(validate(&body(wrong), hash).is_err(), "{wrong}");
    }
    let padded = serialized(Compression::Lz4, &[frame, &[0]].concat(), 8000);
    assert!(validate(&padded, hash).is_err(), "a byte behind the frame");
}

#[test]
fn a_compressed_chunk_that_is_no_shorter_than_a_plain_one_is_refused() {
    // Eight bytes, stored in a frame of their own.
    let content = b"8 bytes.";
    let frame =
        [&[0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82][..], &[8, 0, 0, 0x80], content, &[0; 4]];
    let body = serialized(Compression::Lz4, &frame.concat(), content.len());
    let mut decoded = Vec::new();
    decompress(Compression::Lz4, &body[8..], 8, &mut decoded).expect("who reads it takes it");
    assert_eq!(decoded, content);
    assert!(validate(&body, hash_of(content)).is_err());
    assert!(validate(&stored(content), hash_of(content)).is_ok());
}

#[test]
fn after_an_error_nothing_is_accepted() {
    let (body, hash) = stored_xorb(b"some content");
    let mut validator = XorbValidator::new();
    assert!(validator.feed(&[9; 8]).is_err());
    assert!(validator.feed(&body).is_err());
    assert!(validator.finish(hash).is_err());
}

#[test]
fn more_chunks_than_the_limit_are_refused() {
    let mut validator = XorbValidator::new();
    let chunk = stored(b"x");
    for _ in 0..MAX_XORB_CHUNKS {
        validator.feed(&chunk).expect("under the limit");
    }
    let error = validator.feed(&chunk).expect_err("one over the limit");
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[test]
fn more_bytes_than_the_limit_are_refused() {
    let mut validator = XorbValidator::new();
    let chunk = stored(&vec![1; MAX_CHUNK_BYTES]);
    for _ in 0..MAX_XORB_BYTES / MAX_CHUNK_BYTES {
        validator.feed(&chunk).expect("under the limit");
    }
    assert_eq!(validator.serialized_length(), 67_108_864 + 8 * 512, "over 64 MiB, and allowed");
    let error = validator.feed(&stored(b"x")).expect_err("one byte over the limit");
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[test]
fn a_full_xorb_is_full() {
    let mut writer = XorbWriter::new();
    let (chunk, hash) = (b"x", ChunkHash::of(b"x"));
    for index in 0..8192 {
        assert!(!writer.is_full_for(1));
        assert_eq!(writer.push(chunk, hash), index);
    }
    assert!(writer.is_full_for(1));
    let (body, footer) = writer.finish();
    assert_eq!(footer.encode(0).len(), crate::limits::MAX_XORB_FOOTER_BYTES);
    assert_eq!(validate(&body, footer.hash()).expect("valid"), footer);
    assert_eq!(footer.memory_bytes(), size_of::<XorbFooter>() + 8192 * 40);
}

#[test]
fn footers_that_contradict_themselves_are_refused() {
    let (_, footer) = written(&repetitive(5, 300_000));
    let good = footer.encode(7);
    assert_eq!(XorbFooter::decode(&good).expect("valid"), footer);
    let nonce = good.len() - 20..good.len() - 16;
    // Ends in the serialized object may be any that grow; all else is fixed by the hash.
    let count = footer.chunk_count() as usize;
    let serialized_ends = 40 + 12 + 32 * count + 12;
    let serialized_ends = serialized_ends..serialized_ends + 4 * count;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x80;
        let is_free = nonce.contains(&at) || serialized_ends.contains(&at);
        assert!(is_free || XorbFooter::decode(&bad).is_err(), "bit flipped in byte {at}");
    }
    for length in 0..good.len() {
        assert!(XorbFooter::decode(&good[good.len() - length..]).is_err(), "{length}");
    }
    let mut bad = good.clone();
    bad[serialized_ends.start + 3] = 1;
    assert!(XorbFooter::decode(&bad).is_err(), "the first chunk ends behind the second");
    for wrong in [0, 91, 92, 131, 133, 92 + 40 * 8193, u32::MAX] {
        assert!(XorbFooter::footer_length(wrong.to_le_bytes()).is_err(), "{wrong}");
    }
    assert_eq!(XorbFooter::footer_length(132_u32.to_le_bytes()).expect("one chunk"), 136);
}

fn arbitrary_content() -> impl Strategy<Value = Vec<u8>> {
    (any::<u64>(), 1_usize..300_000, 0..3).prop_map(|(seed, length, kind)| match kind {
        0 => splitmix(seed, length),
        1 => bf16_weights(seed, length),
        _ => repetitive(seed, length),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_is_valid_and_reads_back(content in arbitrary_content(), nonce: u32) {
        let (body, footer) = written(&content);
        prop_assert_eq!(footer.hash(), hash_of(&content));
        let proven = validate(&body, footer.hash()).expect("own xorb");
        prop_assert_eq!(&proven, &footer);
        prop_assert_eq!(content_of(&body, &footer).expect("own xorb"), content);
        let whole = [body.as_slice(), &footer.encode(nonce)].concat();
        prop_assert_eq!(&XorbFooter::decode(&whole).expect("own footer"), &footer);
        prop_assert_eq!(validate(&whole, footer.hash()).expect("own xorb"), footer);
    }

    #[test]
    fn pieces_do_not_matter(
        content in arbitrary_content(),
        size in prop_oneof![1_usize..20, 1_usize..200_000],
        with_footer: bool,
    ) {
        let (mut body, footer) = written(&content);
        if with_footer {
            body.extend(footer.encode(1));
        }
        prop_assert_eq!(validate_in_pieces(&body, footer.hash(), size).expect("own xorb"), footer);
    }

    #[test]
    fn noise_is_refused_without_panic(
        noise in prop::collection::vec(any::<u8>(), 0..2000),
        start in prop_oneof![Just(Vec::new()), Just(b"XETBLOB".to_vec()), Just(stored(b"x"))],
        size in 1_usize..100,
    ) {
        let body = [start, noise].concat();
        prop_assert!(validate_in_pieces(&body, XorbHash::ZERO, size).is_err());
        prop_assert!(XorbFooter::decode(&body).is_err());
    }

    #[test]
    fn a_flipped_bit_is_found_in_any_body(
        content in arbitrary_content(),
        at: usize,
        bit in 0_u8..8,
    ) {
        let (mut body, footer) = written(&content);
        let at = at % body.len();
        body[at] ^= 1 << bit;
        let proven = validate(&body, footer.hash());
        // A flip within a compressed payload may leave the content as it was; then it is valid.
        if let Ok(proven) = proven {
            prop_assert_eq!(content_of(&body, &proven).expect("proven"), content);
        }
    }
}
