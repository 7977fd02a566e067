use proptest::prelude::*;

use super::*;

/// The first values of their kinds that were ever written; they must be readable for ever.
const KEPT: &[u8] = include_bytes!("../../../../tests/fixtures/cached-file-v1.bin");
const KEPT_HELD: &[u8] = include_bytes!("../../../../tests/fixtures/held-chunks-v1.bin");
const KEPT_PASS: &[u8] = include_bytes!("../../../../tests/fixtures/kept-pass-v1.bin");

fn file() -> CachedFile {
    let terms = vec![
        Term { xorb: XorbHash::from_bytes([7; 32]), chunks: 3..5, length: 30 },
        Term { xorb: XorbHash::from_bytes([8; 32]), chunks: 0..1, length: 5 },
    ];
    let chunk = |byte, length| (ChunkHash::from_bytes([byte; 32]), length);
    let chunks = [chunk(1, 10), chunk(2, 20), chunk(3, 5)];
    CachedFile::new(Sha256::from_bytes([9; 32]), terms, &chunks).expect("it fits")
}

fn held() -> HeldChunks {
    HeldChunks { sha256: Sha256::from_bytes([9; 32]), count: 11, bits: vec![0b1000_0101, 0b110] }
}

fn pass() -> KeptPass {
    KeptPass {
        sha256: Sha256::from_bytes([9; 32]),
        until_ms: 1_700_000_000_123,
        piece_bytes: 1 << 20,
        stripes: 8,
        ticket: vec![1, 2, 3],
        permits: vec![vec![4; 5], Vec::new()],
    }
}

#[test]
fn kept_bytes_are_written_and_read_today() {
    assert_eq!(file().encode().expect("small"), KEPT);
    assert_eq!(CachedFile::decode(KEPT).expect("kept"), file());
    assert_eq!(held().encode().expect("small"), KEPT_HELD);
    assert_eq!(HeldChunks::decode(KEPT_HELD).expect("kept"), held());
    assert_eq!(pass().encode().expect("small"), KEPT_PASS);
    assert_eq!(KeptPass::decode(KEPT_PASS).expect("kept"), pass());
}

#[test]
fn the_head_is_read_alone() {
    let length = CachedHead::length(&KEPT[..FRONT_BYTES]).expect("kept");
    assert_eq!(CachedHead::decode(&KEPT[..length]).expect("kept"), file().head);
}

#[test]
fn every_flipped_bit_is_seen() {
    for place in 0..KEPT.len() * 8 {
        let mut bytes = KEPT.to_vec();
        bytes[place / 8] ^= 1 << (place % 8);
        assert!(CachedFile::decode(&bytes).is_err(), "bit {place}");
    }
    for place in 0..KEPT_HELD.len() * 8 {
        let mut bytes = KEPT_HELD.to_vec();
        bytes[place / 8] ^= 1 << (place % 8);
        assert!(HeldChunks::decode(&bytes).is_err(), "bit {place}");
    }
    for place in 0..KEPT_PASS.len() * 8 {
        let mut bytes = KEPT_PASS.to_vec();
        bytes[place / 8] ^= 1 << (place % 8);
        assert!(KeptPass::decode(&bytes).is_err(), "bit {place}");
    }
}

#[test]
fn places_lead_to_chunks_and_back() {
    let file = file();
    assert_eq!((file.head.size, file.head.chunk_count()), (35, 3));
    assert_eq!(file.bytes_of(1..3), 10..35);
    assert_eq!(file.bytes_of(0..0), 0..0);
    assert_eq!([0, 9, 10, 30, 34].map(|at| file.chunk_at(at)), [0, 0, 1, 2, 2].map(Some));
    assert_eq!(file.chunk_at(35), None);
    assert_eq!((file.length_of(1), file.hash_of(1)), (20, ChunkHash::from_bytes([2; 32])));
    assert_eq!(file.head.chunks_of(1), 2..3);
    let places = [0, 1, 2, 3].map(|chunk| file.head.xorb_of(chunk));
    assert_eq!(places, [Some((0, 3)), Some((0, 4)), Some((1, 0)), None]);
}

#[test]
fn an_empty_file_has_no_chunks() {
    let empty = CachedFile::new(Sha256::ZERO, Vec::new(), &[]).expect("it is a file");
    assert_eq!(
        (empty.head.chunk_count(), empty.chunk_at(0), empty.bytes_of(0..0)),
        (0, None, 0..0)
    );
    assert_eq!(CachedFile::decode(&empty.encode().expect("small")).expect("own"), empty);
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let term = |chunks, length| Term { xorb: XorbHash::ZERO, chunks, length };
    let chunk = |length| (ChunkHash::ZERO, length);
    let largest = u32::try_from(MAX_CHUNK_BYTES).expect("small");
    let cases = [
        (vec![term(0..1, 5)], vec![]),
        (vec![term(0..1, 5)], vec![chunk(4)]),
        (vec![term(0..1, 5), term(1..2, 5)], vec![chunk(4), chunk(6)]),
        (vec![term(1..1, 5)], vec![chunk(5)]),
        (vec![term(0..1, 0)], vec![chunk(0)]),
        (vec![term(8192..8193, 5)], vec![chunk(5)]),
        (vec![term(0..1, largest + 1)], vec![chunk(largest + 1)]),
    ];
    for (terms, chunks) in cases {
        let refused = CachedFile::new(Sha256::ZERO, terms.clone(), &chunks);
        assert!(refused.is_err(), "{terms:?} {chunks:?}");
    }
    for (count, bits) in [(8, vec![]), (8, vec![1, 0]), (3, vec![0b1000]), (0, vec![0])] {
        let held = HeldChunks { sha256: Sha256::ZERO, count, bits };
        assert!(HeldChunks::decode(&held.encode().expect("small")).is_err(), "{held:?}");
    }
    for cut in [KeptPass { stripes: 0, ..pass() }, KeptPass { piece_bytes: 0, ..pass() }] {
        assert!(KeptPass::decode(&cut.encode().expect("small")).is_err(), "{cut:?}");
    }
}

proptest! {
    #[test]
    fn round_trip(lengths in prop::collection::vec(1_u32..70_000, 1..200), cut in 0_usize..200) {
        let chunk = |(byte, length): (u8, u32)| (ChunkHash::from_bytes([byte; 32]), length);
        let chunks: Vec<_> = (0..).zip(lengths.iter().copied()).map(chunk).collect();
        let terms = lengths.chunks(cut.max(1)).map(|lengths| Term {
            xorb: XorbHash::from_bytes([1; 32]),
            chunks: 2..2 + u32::try_from(lengths.len()).expect("few"),
            length: lengths.iter().sum(),
        });
        let file = CachedFile::new(Sha256::ZERO, terms.collect(), &chunks).expect("possible");
        let bytes = file.encode().expect("small");
        prop_assert_eq!(CachedFile::decode(&bytes).expect("own"), file);
    }

    #[test]
    fn noise_never_panics(noise: Vec<u8>) {
        prop_assert!(CachedFile::decode(&noise).is_err());
        prop_assert!(HeldChunks::decode(&noise).is_err());
        prop_assert!(KeptPass::decode(&noise).is_err());
    }
}
