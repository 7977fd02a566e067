use proptest::prelude::*;

use super::*;
use crate::object::hash_object;

/// The first pack that was ever written; it must be readable for ever.
const KEPT: &[u8] = include_bytes!("../../../../tests/fixtures/pack-v1.bin");

/// The whole pack, as a caller writes it.
fn write(
    contents: &[(ObjectKind, Vec<u8>)],
    links: &[FileLink],
) -> Result<(Vec<u8>, PackDirectory)> {
    let mut builder = PackBuilder::new();
    let mut pack = builder.header().to_vec();
    for (kind, content) in contents {
        let id = hash_object(*kind, content).expect("no collision");
        let pointer = Pointer::parse(content).filter(|_| *kind == ObjectKind::Blob);
        assert_eq!(builder.push(id, *kind, content.len() as u64, pointer), pack.len() as u64);
        pack.extend_from_slice(content);
    }
    for link in links {
        builder.link(*link);
    }
    let (tail, directory) = builder.finish()?;
    pack.extend_from_slice(&tail);
    Ok((pack, directory))
}

/// What a reader does with a stored pack.
fn read(pack: &[u8]) -> Result<PackDirectory> {
    let footer = pack.len().checked_sub(FOOTER_BYTES).ok_or(Error::Truncated { what: WHAT })?;
    let length = PackDirectory::tail_length(&pack[footer..])?;
    let start = pack.len().checked_sub(length).ok_or(Error::Truncated { what: WHAT })?;
    PackDirectory::decode(&pack[start..], pack.len() as u64)
}

fn sample() -> (Vec<(ObjectKind, Vec<u8>)>, Vec<FileLink>) {
    let sha256 = Sha256::from_bytes([7; 32]);
    let pointer = Pointer { sha256, size: 5_000_000_000 };
    let contents = vec![
        (ObjectKind::Blob, b"hello\n".to_vec()),
        (ObjectKind::Blob, Vec::new()),
        (ObjectKind::Blob, pointer.encode().into_bytes()),
        (ObjectKind::Tree, Vec::new()),
        (ObjectKind::Commit, b"not looked at".to_vec()),
    ];
    let (file, shard) = (FileHash::from_bytes([8; 32]), ShardHash::from_bytes([9; 32]));
    let link = FileLink { sha256, file, shard, size: 5_000_000_000 };
    (contents, vec![link])
}

#[test]
fn kept_bytes_are_written_and_read_today() {
    let (contents, links) = sample();
    let (pack, directory) = write(&contents, &links).expect("small");
    assert_eq!(pack, KEPT);
    assert_eq!(read(KEPT).expect("kept"), directory);
    assert_eq!(directory.links, links);
    assert_eq!(
        directory.hash.to_string(),
        "ab35e1fa60853f3503d1f8eb409732b9bbef61a2bacc65e79b147ca4749732ac"
    );
    for (object, (_, content)) in directory.objects.iter().zip(&contents) {
        let start = usize::try_from(object.offset).expect("small");
        assert_eq!(&KEPT[start..start + content.len()], content);
    }
}

#[test]
fn every_flipped_bit_behind_the_contents_is_seen() {
    let (contents, _) = sample();
    let tail = 10 + contents.iter().map(|(_, content)| content.len()).sum::<usize>();
    for bit in tail * 8..KEPT.len() * 8 {
        let mut pack = KEPT.to_vec();
        pack[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&pack).is_err(), "bit {bit}");
    }
}

#[test]
fn a_pack_of_another_length_is_refused() {
    let length = PackDirectory::tail_length(&KEPT[KEPT.len() - FOOTER_BYTES..]).expect("kept");
    let tail = &KEPT[KEPT.len() - length..];
    let total = KEPT.len() as u64;
    assert!(PackDirectory::decode(tail, total).is_ok());
    for other in [0, length as u64 - 1, total - 1, total + 1, u64::MAX] {
        assert!(PackDirectory::decode(tail, other).is_err(), "{other}");
    }
    assert!(PackDirectory::decode(&tail[1..], total).is_err());
}

#[test]
fn a_later_version_is_refused_as_such() {
    let mut footer = KEPT[KEPT.len() - FOOTER_BYTES..].to_vec();
    footer[36] = 2;
    let read = PackDirectory::tail_length(&footer);
    assert!(matches!(read, Err(Error::UnknownVersion { version: 2, .. })));
}

#[test]
fn a_directory_over_its_limit_is_neither_written_nor_asked_for() {
    let mut builder = PackBuilder::new();
    for _ in 0..=MAX_PACK_DIRECTORY_BYTES / OBJECT_BYTES {
        builder.push(ObjectHash::ZERO, ObjectKind::Blob, 0, None);
    }
    assert!(matches!(builder.finish(), Err(Error::TooLarge { .. })));
    let mut footer = KEPT[KEPT.len() - FOOTER_BYTES..].to_vec();
    footer[35] = 0x7f;
    assert!(matches!(PackDirectory::tail_length(&footer), Err(Error::TooLarge { .. })));
}

/// A pack with this directory and these contents, hashes and lengths all right.
fn with_directory(contents: &[u8], directory: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.array(HEADER);
    encoder.array(contents);
    encoder.array(directory);
    encoder.array(PackHash::of(directory).as_bytes());
    encoder.u32(u32::try_from(directory.len()).expect("small"));
    encoder.u16(VERSION);
    encoder.array(FOOTER_MAGIC);
    encoder.finish()
}

fn directory_of(objects: &[PackedObject]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.list(objects, encode_object);
    encoder.u32(0);
    encoder.finish()
}

#[test]
fn contents_that_overlap_leave_gaps_or_pass_the_end_are_refused() {
    let object = |offset, length| PackedObject {
        id: ObjectHash::ZERO,
        kind: ObjectKind::Blob,
        offset,
        length,
        pointer: None,
    };
    let read = |objects: &[PackedObject]| read(&with_directory(b"abcdef", &directory_of(objects)));
    assert!(read(&[object(10, 2), object(12, 4)]).is_ok());
    for wrong in [
        vec![],
        vec![object(10, 5)],
        vec![object(10, 7)],
        vec![object(10, u64::MAX)],
        vec![object(11, 5)],
        vec![object(10, 2), object(11, 5)],
        vec![object(10, 2), object(13, 3)],
        vec![object(12, 4), object(10, 2)],
    ] {
        assert!(read(&wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn only_a_short_blob_can_be_a_pointer() {
    let read = |kind, length: u16| {
        let pointer = Some(Pointer { sha256: Sha256::from_bytes([1; 32]), size: 1 });
        let length = u64::from(length);
        let object = PackedObject { id: ObjectHash::ZERO, kind, offset: 10, length, pointer };
        let contents = vec![0; usize::try_from(length).expect("small")];
        read(&with_directory(&contents, &directory_of(&[object])))
    };
    assert!(read(ObjectKind::Blob, 1024).is_ok());
    assert!(read(ObjectKind::Blob, 1025).is_err());
    assert!(read(ObjectKind::Tree, 100).is_err());
}

proptest! {
    #[test]
    fn round_trip(
        contents: Vec<(u8, Vec<u8>)>,
        links: Vec<([u8; 32], [u8; 32], [u8; 32], u64)>,
    ) {
        let object = |(kind, content)| {
            (ObjectKind::from_byte(kind % 3).expect("three kinds"), content)
        };
        let contents: Vec<_> = contents.into_iter().map(object).collect();
        let link = |(sha256, file, shard, size)| FileLink {
            sha256: Sha256::from_bytes(sha256),
            file: FileHash::from_bytes(file),
            shard: ShardHash::from_bytes(shard),
            size,
        };
        let links: Vec<_> = links.into_iter().map(link).collect();
        let (pack, directory) = write(&contents, &links).expect("small");
        prop_assert_eq!(read(&pack).expect("own"), directory);
    }

    #[test]
    fn noise_never_panics(noise: Vec<u8>, total: u64) {
        prop_assert!(read(&noise).is_err());
        let _ = PackDirectory::decode(&noise, total);
        let _ = read(&with_directory(&[], &noise));
    }
}
