//! Xorbs: theirs are proven and read by us, ours by them.

use std::io::Cursor;

use ballast_format::chunk::split;
use ballast_format::hash::{ChunkHash, XorbHash};
use ballast_format::xorb::{
    ChunkDecoder, Compression, XorbFooter, XorbValidator, XorbWriter, decompress,
};
use ballast_testkit::content::{bf16_weights, f32_weights, repetitive, splitmix};
use bytes::Bytes;
use proptest::prelude::*;
use xet_core_structures::merklehash::MerkleHash;
use xet_core_structures::xorb_object::{
    Chunk, CompressionScheme, RawXorbData, SerializedXorbObject, XorbObject, deserialize_chunks,
    reconstruct_xorb_with_footer,
};

const SCHEMES: [CompressionScheme; 4] = [
    CompressionScheme::None,
    CompressionScheme::LZ4,
    CompressionScheme::ByteGrouping4LZ4,
    CompressionScheme::Auto,
];

fn contents(length: usize) -> [Vec<u8>; 5] {
    [
        splitmix(1, length),
        bf16_weights(2, length),
        f32_weights(3, length),
        repetitive(4, length),
        vec![0; length],
    ]
}

fn their_xorb(content: &[u8], scheme: CompressionScheme, footer: bool) -> SerializedXorbObject {
    let chunks: Vec<_> =
        split(content).map(|chunk| Chunk::new(Bytes::copy_from_slice(chunk))).collect();
    let raw = RawXorbData::from_chunks(&chunks, vec![0]);
    SerializedXorbObject::from_xorb_with_compression(raw, scheme, footer, 32).expect("their own")
}

fn our_hash(theirs: MerkleHash) -> XorbHash {
    theirs.hex().parse().expect("the same form")
}

fn validate(body: &[u8], hash: XorbHash) -> XorbFooter {
    let mut validator = XorbValidator::new();
    for piece in body.chunks(512 << 10) {
        validator.feed(piece).expect("their own xorb");
    }
    validator.finish(hash).expect("their own xorb")
}

fn read(body: &[u8], footer: &XorbFooter) -> Vec<u8> {
    let mut content = Vec::new();
    let all = 0..footer.chunk_count();
    ChunkDecoder::new()
        .decode_chunks(body, footer, all, true, |chunk| {
            content.extend_from_slice(chunk);
            Ok(())
        })
        .expect("proven before");
    content
}

#[test]
fn their_xorbs_are_proven_and_read() {
    for content in contents(3 << 20) {
        for scheme in SCHEMES {
            let theirs = their_xorb(&content, scheme, false);
            let body = theirs.serialized_data.as_slice();
            let footer = validate(body, our_hash(theirs.hash));
            assert_eq!(footer.serialized_length(), body.len() as u64);
            assert_eq!(read(body, &footer), content, "{scheme}");
        }
    }
}

#[test]
fn footers_have_the_same_bytes() {
    for content in contents(1 << 20) {
        for scheme in SCHEMES {
            let theirs = their_xorb(&content, scheme, true);
            let whole = theirs.serialized_data.as_slice();
            let start = theirs.footer_start.expect("it was asked for");
            let start = usize::try_from(start).expect("short");
            let footer = validate(whole, our_hash(theirs.hash));
            assert_eq!(footer.encode(0), whole[start..]);
            assert_eq!(XorbFooter::decode(whole).expect("their own footer"), footer);
        }
    }
}

fn our_xorb(content: &[u8]) -> (Bytes, XorbFooter) {
    let mut writer = XorbWriter::new();
    for chunk in split(content) {
        writer.push(chunk, ChunkHash::of(chunk));
    }
    writer.finish()
}

#[test]
fn our_xorbs_are_proven_and_read_by_them() {
    for content in contents(3 << 20) {
        let (body, footer) = our_xorb(&content);
        let hash = MerkleHash::from_hex(&footer.hash().to_string()).expect("the same form");

        let (chunks, ends) = deserialize_chunks(&mut Cursor::new(&body)).expect("our own body");
        assert_eq!(chunks, content);
        assert_eq!(ends.len(), footer.chunk_count() as usize + 1);

        let whole = [&body[..], &footer.encode(0xfeed_beef)].concat();
        let object = XorbObject::validate_xorb_object(&mut Cursor::new(&whole), &hash)
            .expect("our own xorb")
            .expect("it has this hash");
        assert_eq!(object.get_all_bytes(&mut Cursor::new(&whole)).expect("proven"), content);
        for chunks in [0..1, 3..7, 0..footer.chunk_count()] {
            let ours = footer.byte_range(chunks.clone()).expect("in range");
            let theirs = object.get_byte_offset(chunks.start, chunks.end).expect("in range");
            assert_eq!(ours, u64::from(theirs.0)..u64::from(theirs.1));
            let ours = footer.range_hash(chunks.clone()).expect("in range").to_string();
            let theirs = object.generate_chunk_range_hash(chunks.start, chunks.end);
            assert_eq!(ours, theirs.expect("in range").hex());
        }

        let mut rebuilt = Vec::new();
        let (_, rebuilt_hash) =
            reconstruct_xorb_with_footer(&mut rebuilt, &body).expect("our own body");
        assert_eq!(rebuilt_hash, hash);
        assert_eq!(rebuilt, [&body[..], &footer.encode(0)].concat());
    }
}

fn decompressed(compression: Compression, payload: &[u8], length: usize) -> Vec<u8> {
    let length = u32::try_from(length).expect("short");
    let mut chunk = vec![1, 2, 3];
    decompress(compression, payload, length, &mut chunk).expect("their own payload");
    chunk
}

proptest! {
    #[test]
    fn their_payloads_of_any_length_are_decompressed(
        seed: u64,
        length in prop_oneof![1_usize..40, 1_usize..131_073],
        repeats: bool,
    ) {
        let content = if repeats { repetitive(seed, length) } else { splitmix(seed, length) };
        for (scheme, compression) in [
            (CompressionScheme::LZ4, Compression::Lz4),
            (CompressionScheme::ByteGrouping4LZ4, Compression::ByteGroupedLz4),
        ] {
            let payload = scheme.compress_from_slice(&content).expect("their own");
            prop_assert_eq!(&decompressed(compression, &payload, length), &content);
        }
    }

    #[test]
    fn our_xorbs_of_any_length_are_read_by_them(
        seed: u64,
        length in 1_usize..300_000,
        kind in 0..3,
    ) {
        let content = match kind {
            0 => splitmix(seed, length),
            1 => bf16_weights(seed, length),
            _ => repetitive(seed, length),
        };
        let (body, _) = our_xorb(&content);
        let (chunks, _) = deserialize_chunks(&mut Cursor::new(&body)).expect("our own body");
        prop_assert_eq!(chunks, content);
    }

    /// What we accept must be readable for every client.
    #[test]
    fn what_we_accept_they_decompress(
        seed: u64,
        length in 1_usize..5000,
        flips in prop::collection::vec((any::<usize>(), 0_u8..8), 1..4),
    ) {
        let content = repetitive(seed, length);
        for (scheme, compression) in [
            (CompressionScheme::LZ4, Compression::Lz4),
            (CompressionScheme::ByteGrouping4LZ4, Compression::ByteGroupedLz4),
        ] {
            let mut payload = scheme.compress_from_slice(&content).expect("their own").to_vec();
            for (at, bit) in &flips {
                let at = at % payload.len();
                payload[at] ^= 1 << bit;
            }
            let mut chunk = Vec::new();
            let length = u32::try_from(length).expect("short");
            if decompress(compression, &payload, length, &mut chunk).is_ok() {
                let theirs = scheme.decompress_from_slice(&payload).expect("we accept it");
                prop_assert_eq!(theirs.as_ref(), chunk.as_slice());
            }
        }
    }
}
