//! Verifying: every byte of a bundle is read and compared with what was signed.
//!
//! A volume whose hash is right is sound. Of one whose hash is wrong each record is looked at, so
//! that what is damaged can be named.

use std::collections::BTreeSet;
use std::ops::Range;

use ballast_format::bundle::{RecordKind, VolumeHead};
use ballast_format::hash::{ObjectHash, XorbHash};
use ballast_format::object::{ObjectKind, hash_object};
use ballast_format::xorb::XorbValidator;
use ballast_node::pool::Pool;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::error::{Error, Result};
use super::folder::Volume;
use super::open::OpenBundle;
use crate::buffers::BUFFER_BYTES;

/// Bytes that are read at once.
const PIECE_BYTES: u64 = BUFFER_BYTES as u64;
/// Pieces that are read while one is hashed.
const AHEAD: usize = 4;

/// How a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeState {
    /// Every byte is what was signed.
    Sound,
    /// It is not there.
    Missing,
    /// Something in it is not what was signed.
    Damaged(String),
}

/// What came of looking at all of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The volumes, from the first to the last.
    pub volumes: Vec<VolumeState>,
    /// The records that can't be read, or hold something else.
    pub bad: BTreeSet<u32>,
    /// What is wrong with the bill of materials.
    pub materials: Option<String>,
    /// Bytes of volumes that were read.
    pub bytes: u64,
}

impl Verified {
    /// Whether all is well.
    pub fn is_sound(&self) -> bool {
        let mut volumes = self.volumes.iter();
        volumes.all(|volume| *volume == VolumeState::Sound) && self.materials.is_none()
    }
}

/// Reads everything. `heard` is told how many bytes of volumes were read.
pub async fn verify(bundle: &OpenBundle, heard: &dyn Fn(u64)) -> Result<Verified> {
    let materials = match bundle.check_materials().await {
        Err(Error::Damaged { reason, .. }) => Some(reason),
        checked => checked.map(|()| None)?,
    };
    let mut verified = Verified { materials, ..Verified::default() };
    for (number, sum) in (1..).zip(&bundle.statement.volumes) {
        let state = match bundle.volume(number).await {
            Ok(Some(volume)) => {
                let before = verified.bytes;
                let hash = hash_of(&volume, &|bytes| heard(before + bytes)).await;
                verified.bytes += volume.bytes;
                match hash {
                    Ok(hash) if hash == sum.hash => VolumeState::Sound,
                    found => {
                        let bad = bad_records(bundle, &volume, number).await?;
                        verified.bad.extend(bad);
                        let unread = found.err().map(|error| error.to_string());
                        VolumeState::Damaged(
                            unread.unwrap_or_else(|| "its hash is wrong".to_owned()),
                        )
                    }
                }
            }
            Ok(None) => {
                verified.bad.extend(bundle.records_of(number));
                VolumeState::Missing
            }
            Err(Error::Damaged { reason, .. }) => {
                verified.bad.extend(bundle.records_of(number));
                VolumeState::Damaged(reason)
            }
            Err(error) => return Err(error),
        };
        verified.volumes.push(state);
    }
    Ok(verified)
}

/// The BLAKE3 of a volume.
pub(super) async fn hash_of(volume: &Volume, heard: &dyn Fn(u64)) -> Result<[u8; 32]> {
    let mut pieces = Box::pin(read_pieces(volume, 0..volume.bytes));
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    let mut next = pieces.try_next().await?;
    while let Some(piece) = next {
        bytes += piece.len() as u64;
        let hashing = volume.pool().run(move || {
            hasher.update(&piece);
            hasher
        });
        let (hashed, read) = tokio::join!(hashing, pieces.try_next());
        (hasher, next) = (hashed?, read?);
        heard(bytes);
    }
    Ok(*hasher.finalize().as_bytes())
}

/// A part of a volume in pieces, some of them read ahead.
pub(super) fn read_pieces(
    volume: &Volume,
    range: Range<u64>,
) -> impl futures_util::Stream<Item = Result<Bytes>> + use<> {
    let starts = (0..range.end.saturating_sub(range.start).div_ceil(PIECE_BYTES))
        .map(move |number| range.start + number * PIECE_BYTES);
    let (volume, end) = (volume.clone(), range.end);
    stream::iter(starts)
        .map(move |start| {
            let volume = volume.clone();
            async move { volume.read(start..end.min(start + PIECE_BYTES)).await }
        })
        .buffered(AHEAD)
}

/// The records of a volume that are not what they must be.
pub(super) async fn bad_records(
    bundle: &OpenBundle,
    volume: &Volume,
    number: u32,
) -> Result<BTreeSet<u32>> {
    let mut bad = BTreeSet::new();
    for (at, range) in bundle.records_of(number).zip(ranges(volume)) {
        let record = &bundle.contents.records[at as usize];
        let is_sound = match record.kind {
            RecordKind::Chunks => {
                check_chunks(volume, range, XorbHash::from_bytes(record.hash)).await
            }
            RecordKind::Objects => check_objects(bundle, volume, range, at).await,
        };
        match is_sound {
            Ok(true) => {}
            Ok(false) | Err(Error::Damaged { .. }) => {
                bad.insert(at);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(bad)
}

/// Where the records of a volume are.
pub(super) fn ranges(volume: &Volume) -> impl Iterator<Item = Range<u64>> {
    let mut end = VolumeHead::BYTES as u64;
    volume.directory.records.iter().map(move |record| {
        let start = end;
        end += record.bytes;
        start..end
    })
}

/// Whether these bytes are the xorb of this name.
pub(super) async fn check_chunks(
    volume: &Volume,
    range: Range<u64>,
    xorb: XorbHash,
) -> Result<bool> {
    let mut pieces = Box::pin(read_pieces(volume, range));
    let mut validator = XorbValidator::new();
    while let Some(piece) = pieces.try_next().await? {
        let fed = volume.pool().run(move || validator.feed(&piece).map(|()| validator)).await?;
        match fed {
            Ok(fed) => validator = fed,
            Err(_) => return Ok(false),
        }
    }
    Ok(volume.pool().run(move || validator.finish(xorb).is_ok()).await?)
}

async fn check_objects(
    bundle: &OpenBundle,
    volume: &Volume,
    range: Range<u64>,
    record: u32,
) -> Result<bool> {
    let expected = objects_in(bundle, record);
    let content = volume.read(range).await?;
    Ok(are_objects(volume.pool(), expected, content).await?)
}

/// Which objects a record holds, with their lengths.
fn objects_in(bundle: &OpenBundle, record: u32) -> Vec<(ObjectHash, ObjectKind, usize)> {
    for repo in &bundle.contents.repos {
        let mut start = 0;
        for run in &repo.object_runs {
            let end = start + run.count as usize;
            if run.record == record {
                let objects = repo.objects[start..end].iter();
                return objects
                    .map(|object| (object.id, object.kind, object.length as usize))
                    .collect();
            }
            start = end;
        }
    }
    Vec::new()
}

async fn are_objects(
    pool: &Pool,
    expected: Vec<(ObjectHash, ObjectKind, usize)>,
    mut content: Bytes,
) -> ballast_node::Result<bool> {
    pool.run(move || {
        let all = expected.into_iter().all(|(id, kind, length)| {
            let is_there = length <= content.len();
            is_there && hash_object(kind, &content.split_to(length)).ok() == Some(id)
        });
        all && content.is_empty()
    })
    .await
}

#[cfg(test)]
mod tests {
    use ballast_format::bundle::{Directory, VolumeRecord};
    use ballast_format::hash::BundleHash;
    use ballast_testkit::content::splitmix;

    use super::super::folder::{Folder, volume_name};
    use super::*;

    /// What was read ahead once held all threads that the hashing waited for.
    #[tokio::test]
    async fn a_volume_is_hashed_with_one_thread() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(place.path(), &Pool::new(1));
        let content = splitmix(1, 30_000_000);
        let record =
            VolumeRecord { kind: RecordKind::Chunks, hash: [1; 32], bytes: content.len() as u64 };
        let head = VolumeHead { bundle: BundleHash::from_bytes([2; 32]), number: 1 };
        let tail = Directory { records: vec![record] }.encode().expect("small");
        let whole = [head.encode(), content, tail].concat();
        folder.write(&volume_name(1), whole.clone()).await.expect("written");
        let volume = folder.volume(1).await.expect("sound").expect("there");
        let hash = hash_of(&volume, &|_| ()).await.expect("read");
        assert_eq!(hash, *blake3::hash(&whole).as_bytes());
        assert_eq!(ranges(&volume).collect::<Vec<_>>(), [46..46 + 30_000_000]);
        let sound = check_chunks(&volume, 46..46 + 30_000_000, XorbHash::ZERO).await;
        assert!(!sound.expect("read"), "noise is no xorb");
    }
}
