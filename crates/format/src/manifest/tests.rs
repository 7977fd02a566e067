use proptest::prelude::*;

use super::*;

/// The first shard object that was ever written; it must be readable for ever.
const KEPT: &[u8] = include_bytes!("../../../../tests/fixtures/shard-object-v1.bin");

fn xorb(byte: u8) -> XorbHash {
    XorbHash::from_bytes([byte; 32])
}

fn term(byte: u8, chunks: Range<u32>, length: u32) -> Term {
    Term { xorb: xorb(byte), chunks, length }
}

fn manifest(byte: u8, terms: Vec<Term>, samples: Vec<Sample>) -> Manifest {
    let size = terms.iter().map(|term| u64::from(term.length)).sum();
    let (file, sha256) = (FileHash::from_bytes([byte; 32]), Sha256::from_bytes([byte + 1; 32]));
    Manifest::new(file, sha256, size, terms, samples).expect("valid")
}

fn sample_object() -> ShardObject {
    let sample = |index| Sample { chunk: ChunkHash::from_bytes([60; 32]), xorb: xorb(50), index };
    let terms = vec![
        term(50, 0..1, 8192),
        term(51, 7..8192, 67_108_864),
        term(50, 0..1, 8192),
        term(52, 3..5, 1),
    ];
    let manifests = vec![
        manifest(1, terms, vec![sample(0), sample(8191)]),
        manifest(3, Vec::new(), Vec::new()),
        manifest(5, vec![term(53, 0..1, 10)], vec![sample(0)]),
    ];
    ShardObject { uploader: UserId::from_bytes([9; 16]), time_ms: 1_700_000_000_123, manifests }
}

#[test]
fn kept_bytes_are_written_and_read_today() {
    let object = sample_object();
    let (bytes, hash, places) = object.encode().expect("small");
    assert_eq!(bytes, KEPT);
    assert_eq!(hash, ShardHash::of(KEPT));
    assert_eq!(
        hash.to_string(),
        "3e3bfa75cf50f730e774262fb5cea3bdfae031f0df6c54c8d48b3272aa047b9c"
    );
    let length = ShardDirectory::front_length(&KEPT[..FRONT_BYTES]).expect("kept");
    let directory = ShardDirectory::decode(&KEPT[..length]).expect("kept");
    assert_eq!(ShardDirectory::decode(KEPT).expect("more than the front"), directory);
    assert_eq!(directory.uploader, object.uploader);
    assert_eq!(directory.time_ms, object.time_ms);
    assert_eq!(directory.places, places);
    for (place, manifest) in places.iter().zip(&object.manifests) {
        let start = usize::try_from(place.offset).expect("small");
        let bytes = &KEPT[start..start + place.length as usize];
        assert_eq!(&Manifest::decode(bytes).expect("kept"), manifest);
        assert_eq!(place.file, manifest.file);
        assert_eq!(place.sha256, manifest.sha256);
        assert_eq!(place.size, manifest.size);
    }
}

#[test]
fn every_flipped_bit_is_seen() {
    let length = ShardDirectory::front_length(KEPT).expect("kept");
    let places = ShardDirectory::decode(KEPT).expect("kept").places;
    for bit in 0..length * 8 {
        let mut bytes = KEPT[..length].to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(ShardDirectory::decode(&bytes).is_err(), "bit {bit}");
    }
    let start = usize::try_from(places[0].offset).expect("small");
    let kept = &KEPT[start..start + places[0].length as usize];
    for bit in 0..kept.len() * 8 {
        let mut bytes = kept.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Manifest::decode(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn later_versions_are_refused_as_such() {
    let mut bytes = KEPT.to_vec();
    bytes[8] = 2;
    let read = ShardDirectory::front_length(&bytes);
    assert!(matches!(read, Err(Error::UnknownVersion { version: 2, .. })));
    let mut bytes = sample_object().manifests[0].encode().expect("small");
    bytes[8] = 2;
    assert!(matches!(Manifest::decode(&bytes), Err(Error::UnknownVersion { version: 2, .. })));
}

#[test]
fn a_front_that_is_cut_or_too_long_is_refused() {
    let length = ShardDirectory::front_length(KEPT).expect("kept");
    for cut in 0..length {
        assert!(matches!(ShardDirectory::decode(&KEPT[..cut]), Err(Error::Truncated { .. })));
    }
    let mut bytes = KEPT.to_vec();
    bytes[10..14].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(ShardDirectory::decode(&bytes), Err(Error::TooLarge { .. })));
}

#[test]
fn places_that_overlap_or_leave_gaps_are_refused() {
    let (_, _, places) = sample_object().encode().expect("small");
    let read = |places: &[ManifestPlace]| {
        let bytes = SHARD.encode(|encoder| {
            encoder.array(&[9; 16]);
            encoder.u64(0);
            encoder.list(places, encode_place);
        });
        ShardDirectory::decode(&bytes.expect("small"))
    };
    assert!(read(&places).is_ok());
    for wrong in [-1, 1] {
        let mut places = places.clone();
        places[1].offset = places[1].offset.strict_add_signed(wrong);
        assert!(read(&places).is_err());
    }
    assert!(read(&places[..2]).is_err(), "offsets count from the end of the directory");
}

#[test]
fn the_term_of_an_offset_is_found() {
    let manifest = manifest(1, vec![term(1, 0..1, 3), term(2, 0..1, 1), term(3, 0..1, 4)], vec![]);
    let found: Vec<_> = (0..9).map(|offset| manifest.find(offset)).collect();
    let expected = [0, 0, 0, 1, 2, 2, 2, 2].map(Some);
    assert_eq!(found, [expected.as_slice(), &[None]].concat());
    assert_eq!(manifest.find(u64::MAX), None);
    assert_eq!([0, 1, 2].map(|term| manifest.start_of(term)), [0, 3, 4]);
    let empty = self::manifest(1, vec![], vec![]);
    assert_eq!(empty.find(0), None);
}

#[test]
fn impossible_terms_are_refused() {
    let new = |size, terms| {
        let (file, sha256) = (FileHash::from_bytes([1; 32]), Sha256::from_bytes([2; 32]));
        Manifest::new(file, sha256, size, terms, vec![])
    };
    assert!(new(5, vec![term(1, 0..8192, 5)]).is_ok());
    assert!(new(4, vec![term(1, 0..1, 5)]).is_err());
    assert!(new(6, vec![term(1, 0..1, 5)]).is_err());
    assert!(new(0, vec![term(1, 0..1, 0)]).is_err());
    assert!(new(5, vec![term(1, 3..3, 5)]).is_err());
    assert!(new(5, vec![term(1, 0..8193, 5)]).is_err());
    assert!(new(67_108_865, vec![term(1, 0..8192, 67_108_865)]).is_err());
    #[expect(clippy::reversed_empty_ranges, reason = "what a damaged manifest may say")]
    let reversed = new(5, vec![term(1, 5..3, 5)]);
    assert!(reversed.is_err());
}

#[test]
fn a_manifest_of_a_sparse_file_of_60_gb_is_written_and_read() {
    let count = 500_000;
    let terms = (0..count).map(|index| term(1, index % 8192..index % 8192 + 1, 120_000)).collect();
    let manifest = manifest(1, terms, vec![]);
    assert_eq!(manifest.size, 60_000_000_000);
    let bytes = manifest.encode().expect("within the limit");
    assert_eq!(bytes.len(), 14 + 72 + 4 + 48 * count as usize + 4 + 32);
    let read = Manifest::decode(&bytes).expect("own");
    assert_eq!(read, manifest);
    assert_eq!(read.find(59_999_999_999), Some(count as usize - 1));
    assert_eq!(read.find(60_000_000_000), None);
}

#[test]
fn too_many_manifests_are_not_written() {
    let manifests = vec![manifest(1, vec![], vec![]); MAX_MANIFESTS + 1];
    let object = ShardObject { uploader: UserId::from_bytes([0; 16]), time_ms: 0, manifests };
    assert!(matches!(object.encode(), Err(Error::TooLarge { .. })));
}

fn a_manifest() -> impl Strategy<Value = Manifest> {
    let term = (any::<[u8; 32]>(), 0..8192_u32, 1..=67_108_864_u32)
        .prop_flat_map(|(xorb, start, length)| {
            (Just(xorb), Just(start), start + 1..=8192, Just(length))
        })
        .prop_map(|(xorb, start, end, length)| Term {
            xorb: XorbHash::from_bytes(xorb),
            chunks: start..end,
            length,
        });
    let sample = any::<([u8; 32], [u8; 32], u32)>().prop_map(|(chunk, xorb, index)| Sample {
        chunk: ChunkHash::from_bytes(chunk),
        xorb: XorbHash::from_bytes(xorb),
        index,
    });
    let terms = proptest::collection::vec(term, 0..20);
    (any::<u8>(), terms, proptest::collection::vec(sample, 0..5))
        .prop_map(|(byte, terms, samples)| manifest(byte / 2, terms, samples))
}

proptest! {
    #[test]
    fn round_trip(manifests in proptest::collection::vec(a_manifest(), 0..5), time_ms: u64) {
        let object = ShardObject { uploader: UserId::from_bytes([7; 16]), time_ms, manifests };
        let (bytes, _, places) = object.encode().expect("small");
        let directory = ShardDirectory::decode(&bytes).expect("own");
        prop_assert_eq!(&directory.places, &places);
        let mut end = ShardDirectory::front_length(&bytes).expect("own");
        for (place, manifest) in places.iter().zip(&object.manifests) {
            let start = usize::try_from(place.offset).expect("small");
            prop_assert_eq!(start, end);
            end = start + place.length as usize;
            prop_assert_eq!(&Manifest::decode(&bytes[start..end]).expect("own"), manifest);
        }
        prop_assert_eq!(end, bytes.len());
    }

    #[test]
    fn find_agrees_with_looking_at_each_term(manifest in a_manifest(), share in 0.0..1.1) {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "any offset within and a little beyond will do"
        )]
        let offset = (manifest.size as f64 * share) as u64;
        let covers = |term: &usize| {
            let start = manifest.start_of(*term);
            (start..start + u64::from(manifest.terms[*term].length)).contains(&offset)
        };
        prop_assert_eq!(manifest.find(offset), (0..manifest.terms.len()).find(covers));
    }

    #[test]
    fn noise_never_panics(noise: Vec<u8>) {
        prop_assert!(Manifest::decode(&noise).is_err());
        prop_assert!(ShardDirectory::decode(&noise).is_err());
        // And noise where fields are, all around it being right.
        let _ = Manifest::decode(&MANIFEST.encode(|to| to.array(&noise)).expect("small"));
        let _ = ShardDirectory::decode(&SHARD.encode(|to| to.array(&noise)).expect("small"));
    }
}
