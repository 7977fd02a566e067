use proptest::prelude::*;

use super::*;
use crate::hash::{BundleHash, FileHash, ObjectHash, Sha256};
use crate::log::{Gating, Visibility};
use crate::name::{FilePath, RefName, RepoKind, RepoName};
use crate::object::{ObjectKind, Pointer};

/// The first of each version that was ever written; they must be readable for ever.
const CONTENTS: &[u8] = include_bytes!("../../../../tests/fixtures/bundle-contents-v2.bin");
const CONTENTS_V1: &[u8] = include_bytes!("../../../../tests/fixtures/bundle-contents-v1.bin");
const STATEMENT: &[u8] = include_bytes!("../../../../tests/fixtures/bundle-statement-v1.bin");
const VOLUME: &[u8] = include_bytes!("../../../../tests/fixtures/bundle-volume-v1.bin");
const RECEIPT: &[u8] = include_bytes!("../../../../tests/fixtures/receipt-v2.bin");
const RECEIPT_V1: &[u8] = include_bytes!("../../../../tests/fixtures/receipt-v1.bin");

fn commit(byte: u8) -> ObjectHash {
    ObjectHash::from_bytes([byte; 20])
}

fn name() -> RepoName {
    RepoName::parse("org/model").expect("a name")
}

fn contents() -> Contents {
    let sha256 = Sha256::from_bytes([7; 32]);
    let pointer = Pointer { sha256, size: 5000 };
    let length = u32::try_from(pointer.encode().len()).expect("short");
    let object =
        |byte, kind, length, pointer| CarriedObject { id: commit(byte), kind, length, pointer };
    Contents {
        records: vec![
            Record {
                volume: 1,
                kind: RecordKind::Objects,
                hash: [1; 32],
                bytes: 300 + u64::from(length),
            },
            Record { volume: 1, kind: RecordKind::Chunks, hash: [2; 32], bytes: 4008 },
            Record { volume: 2, kind: RecordKind::Chunks, hash: [3; 32], bytes: 90 },
        ],
        bases: vec![BaseFile {
            sha256: Sha256::from_bytes([8; 32]),
            file: FileHash::from_bytes([9; 32]),
        }],
        files: vec![CarriedFile {
            sha256,
            file: FileHash::from_bytes([10; 32]),
            size: 5000,
            runs: vec![Run::Record(1, 0..3), Run::Base(0, 70_000..70_001), Run::Record(2, 1..2)],
        }],
        repos: vec![CarriedRepo {
            kind: RepoKind::Model,
            name: name(),
            visibility: Visibility::Private,
            gating: Gating::Manual,
            description: Some("a line".to_owned()),
            sdk: None,
            license: Some("apache-2.0".to_owned()),
            upstream: None,
            revisions: vec![commit(4)],
            refs: vec![CarriedRef { name: RefName::main(), commit: commit(4) }],
            objects: vec![
                object(4, ObjectKind::Commit, 200, None),
                object(5, ObjectKind::Tree, 100, None),
                object(6, ObjectKind::Blob, length, Some(pointer)),
            ],
            object_runs: vec![ObjectRun { record: 0, count: 3 }],
            links: vec![0],
            paths: vec![NamedFile { path: FilePath::parse("w.bin").expect("a path"), file: 0 }],
            absent: vec![Pointer { sha256: Sha256::from_bytes([11; 32]), size: 70 }],
        }],
    }
}

fn statement() -> Statement {
    Statement {
        bundle: BundleHash::from_bytes([1; 32]),
        contents_bytes: 500,
        materials: [2; 32],
        creator: [3; 32],
        sequence: 1_764_000_000_000,
        created_ms: 1_764_000_000_001,
        previous: Some(BundleHash::from_bytes([4; 32])),
        volumes: vec![VolumeSum { bytes: 6000, hash: [5; 32], directory: [6; 32] }],
    }
}

fn signed() -> Vec<u8> {
    [statement().encode().expect("small"), vec![7; SIGNATURE_BYTES]].concat()
}

/// A volume whose records are of zeros.
fn volume() -> Vec<u8> {
    let head = VolumeHead { bundle: BundleHash::from_bytes([1; 32]), number: 2 };
    [head.encode(), vec![0; 15], directory().encode().expect("small")].concat()
}

fn directory() -> Directory {
    let record = |kind, bytes| VolumeRecord { kind, hash: [9; 32], bytes };
    Directory { records: vec![record(RecordKind::Objects, 5), record(RecordKind::Chunks, 10)] }
}

fn read_volume(bytes: &[u8]) -> crate::Result<(VolumeHead, Directory)> {
    let short = || crate::Error::Truncated { what: "bundle volume" };
    let head = bytes.get(..VolumeHead::BYTES).ok_or_else(short)?;
    let end = bytes.len().checked_sub(TAIL_BYTES).ok_or_else(short)?;
    let tail = Directory::tail_length(&bytes[end..])?;
    let start = bytes.len().checked_sub(tail).ok_or_else(short)?;
    let directory = Directory::decode(&bytes[start..], bytes.len() as u64)?;
    Ok((VolumeHead::decode(head)?, directory))
}

fn receipt() -> Receipt {
    let absent = vec![Sha256::from_bytes([11; 32])];
    let revision = Revision { kind: RepoKind::Dataset, name: name(), commit: commit(1), absent };
    Receipt {
        creator: [1; 32],
        bundle: BundleHash::from_bytes([2; 32]),
        sequence: 3,
        time_ms: 4,
        revisions: vec![revision],
    }
}

#[test]
fn kept_bytes_are_written_and_read_today() {
    assert_eq!(contents().encode().expect("small"), CONTENTS);
    assert_eq!(Contents::decode(CONTENTS).expect("kept"), contents());
    assert_eq!(signed(), STATEMENT);
    let read = SignedStatement::decode(STATEMENT).expect("kept");
    assert_eq!((read.statement, read.signature), (statement(), [7; SIGNATURE_BYTES]));
    assert_eq!(volume(), VOLUME);
    let (head, read) = read_volume(VOLUME).expect("kept");
    assert_eq!((head.number, read), (2, directory()));
    assert_eq!(receipt().encode().expect("small"), RECEIPT);
    assert_eq!(Receipt::decode(RECEIPT).expect("kept"), receipt());
}

#[test]
fn what_was_written_before_files_could_be_left_out_leaves_out_none() {
    let (mut first, mut older) = (contents(), receipt());
    first.repos[0].absent.clear();
    older.revisions[0].absent.clear();
    assert_eq!(Contents::decode(CONTENTS_V1).expect("kept"), first);
    assert_eq!(Receipt::decode(RECEIPT_V1).expect("kept"), older);
}

#[test]
fn a_volume_is_as_long_as_was_reckoned() {
    assert_eq!(volume().len() as u64, Directory::overhead_bytes(2) + 15);
}

#[test]
fn what_is_cut_anywhere_is_refused() {
    for end in 0..CONTENTS.len() {
        assert!(Contents::decode(&CONTENTS[..end]).is_err(), "{end}");
    }
    for end in 0..STATEMENT.len() {
        assert!(SignedStatement::decode(&STATEMENT[..end]).is_err(), "{end}");
    }
    for end in 0..VOLUME.len() {
        assert!(read_volume(&VOLUME[..end]).is_err(), "{end}");
    }
    for end in 0..RECEIPT.len() {
        assert!(Receipt::decode(&RECEIPT[..end]).is_err(), "{end}");
    }
}

/// What does not fit together, each with one thing that is wrong.
#[test]
fn numbers_of_what_is_not_there_are_refused() {
    type Change = fn(&mut Contents);
    let wrongs: [(&str, Change); 13] = [
        ("a volume is left out", |wrong| wrong.records[2].volume = 3),
        ("volumes go back", |wrong| (wrong.records[1].volume, wrong.records[2].volume) = (2, 1)),
        ("no first volume", |wrong| wrong.records[0].volume = 0),
        ("a run of objects", |wrong| wrong.files[0].runs[0] = Run::Record(0, 0..1)),
        ("a record that is not there", |wrong| wrong.files[0].runs[0] = Run::Record(3, 0..1)),
        ("an empty run", |wrong| wrong.files[0].runs[0] = Run::Record(1, 2..2)),
        ("a base that is not there", |wrong| wrong.files[0].runs[1] = Run::Base(1, 0..1)),
        ("a file without content", |wrong| wrong.files[0].runs.clear()),
        ("a link to nothing", |wrong| wrong.repos[0].links[0] = 1),
        ("an object too many", |wrong| wrong.repos[0].object_runs[0].count = 2),
        ("a carried file left out", |wrong| {
            wrong.repos[0].absent[0].sha256 = wrong.files[0].sha256;
        }),
        ("nothing left out", |wrong| wrong.repos[0].absent[0].size = 0),
        ("an object of another length", |wrong| wrong.repos[0].objects[0].length = 201),
    ];
    for (what, change) in wrongs {
        let mut wrong = contents();
        change(&mut wrong);
        let bytes = wrong.encode().expect("small");
        assert!(Contents::decode(&bytes).is_err(), "{what}");
    }
}

proptest! {
    #[test]
    fn noise_never_panics(noise: Vec<u8>) {
        drop((Contents::decode(&noise), SignedStatement::decode(&noise)));
        drop((read_volume(&noise), Receipt::decode(&noise)));
    }

    #[test]
    fn a_flipped_bit_is_refused_or_means_something_else(place in 0..CONTENTS.len() * 8) {
        let mut bytes = CONTENTS.to_vec();
        bytes[place / 8] ^= 1 << (place % 8);
        if let Ok(read) = Contents::decode(&bytes) {
            prop_assert_eq!(read.encode().expect("small"), bytes);
        }
    }

    #[test]
    fn a_flipped_bit_of_a_receipt_is_seen(place in 0..RECEIPT.len() * 8) {
        let mut bytes = RECEIPT.to_vec();
        bytes[place / 8] ^= 1 << (place % 8);
        prop_assert!(Receipt::decode(&bytes).is_err());
    }
}
