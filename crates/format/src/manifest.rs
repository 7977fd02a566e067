//! Files as lists of terms: what a shard proved, as we keep it.
//!
//! A shard object holds the manifests of the files that one upload registered, with who uploaded
//! them and when. Its front is a directory, so that a rebuild reads little; each manifest carries a
//! checksum, so that it can be read alone by its place. Layout: `docs/formats/shard-object.md`.

use std::ops::Range;

use crate::codec::{Decoder, Encoder};
use crate::error::{Error, Result};
use crate::hash::{ChunkHash, FileHash, Sha256, ShardHash, XorbHash};
use crate::id::UserId;
use crate::limits::{MAX_MANIFEST_BYTES, MAX_MANIFESTS};

const WHAT: &str = "manifest";
const SHARD: &str = "shard object";
const MAGIC: &[u8; 8] = b"BLSTSHRD";
const VERSION: u16 = 1;
const MANIFEST_MAGIC: &[u8; 4] = b"BLMF";
const CHECKSUM_BYTES: usize = 32;

/// Bytes of the fixed front of a shard object: read these to know how long its directory is.
pub const FRONT_BYTES: usize = 8 + 2 + 16 + 8 + 4;
/// Bytes of one directory row.
const PLACE_BYTES: usize = 32 + 32 + 8 + 8 + 4;
/// Bytes of one stored term: xorb, first chunk, end of chunks, end offset in the file.
const TERM_BYTES: usize = 32 + 4 + 4 + 8;
const SAMPLE_BYTES: usize = 32 + 32 + 4;

/// One step of a manifest: a run of a xorb's chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The xorb.
    pub xorb: XorbHash,
    /// Its chunks, half open.
    pub chunks: Range<u32>,
    /// Bytes that they make when decompressed.
    pub length: u32,
}

/// A chunk of a file that may answer a dedup query, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The chunk.
    pub chunk: ChunkHash,
    /// The xorb that holds it.
    pub xorb: XorbHash,
    /// Its index there.
    pub index: u32,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its name in Xet.
    pub file: FileHash,
    /// Its name in trees, computed by us from the bytes.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
    /// What it is made of, in order.
    pub terms: Vec<Term>,
    /// Its first chunk, and those whose hash is a multiple of 1,024.
    pub samples: Vec<Sample>,
    /// Where each term ends in the file.
    ends: Vec<u64>,
}

impl Manifest {
    /// A manifest of these terms; they must make as many bytes as the file has.
    pub fn new(
        file: FileHash,
        sha256: Sha256,
        size: u64,
        terms: Vec<Term>,
        samples: Vec<Sample>,
    ) -> Result<Self> {
        let mut end = 0;
        let mut ends = Vec::with_capacity(terms.len());
        for term in &terms {
            if term.chunks.is_empty() || term.length == 0 {
                return Err(Error::malformed(WHAT, "a term is empty"));
            }
            end += u64::from(term.length);
            ends.push(end);
        }
        if end != size {
            let reason = format!("its terms make {end} bytes, its size is {size}");
            return Err(Error::malformed(WHAT, reason));
        }
        Ok(Self { file, sha256, size, terms, samples, ends })
    }

    /// The term that holds this byte of the file; nothing past its end.
    pub fn find(&self, offset: u64) -> Option<usize> {
        let index = self.ends.partition_point(|end| *end <= offset);
        (index < self.terms.len()).then_some(index)
    }

    /// Where a term starts in the file.
    pub fn start_of(&self, term: usize) -> u64 {
        term.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// What keeping it in memory costs.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.terms.len() * (size_of::<Term>() + size_of::<u64>())
            + self.samples.len() * size_of::<Sample>()
    }

    /// The stored bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut encoder = Encoder::new();
        encoder.array(MANIFEST_MAGIC);
        encoder.array(self.file.as_bytes());
        encoder.array(self.sha256.as_bytes());
        encoder.u64(self.size);
        let terms: Vec<_> = self.terms.iter().zip(&self.ends).collect();
        encoder.list(&terms, |encoder, (term, end)| {
            encoder.array(term.xorb.as_bytes());
            encoder.u32(term.chunks.start);
            encoder.u32(term.chunks.end);
            encoder.u64(**end);
        });
        encoder.list(&self.samples, |encoder, sample| {
            encoder.array(sample.chunk.as_bytes());
            encoder.array(sample.xorb.as_bytes());
            encoder.u32(sample.index);
        });
        let mut bytes = encoder.finish();
        check(WHAT, bytes.len() + CHECKSUM_BYTES, MAX_MANIFEST_BYTES)?;
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        Ok(bytes)
    }

    /// Reads stored bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        check(WHAT, bytes.len(), MAX_MANIFEST_BYTES)?;
        let Some(split) = bytes.len().checked_sub(CHECKSUM_BYTES) else {
            return Err(Error::Truncated { what: WHAT });
        };
        let (bytes, checksum) = bytes.split_at(split);
        let actual = blake3::hash(bytes);
        if actual.as_bytes() != checksum {
            return Err(Error::malformed(WHAT, "its checksum is wrong"));
        }
        let mut decoder = Decoder::new(WHAT, bytes);
        if &decoder.array::<4>()? != MANIFEST_MAGIC {
            return Err(decoder.malformed("it does not begin as one"));
        }
        let file = FileHash::from_bytes(decoder.array()?);
        let sha256 = Sha256::from_bytes(decoder.array()?);
        let size = decoder.u64()?;
        let mut start = 0;
        let terms = decoder.list(TERM_BYTES, |decoder| {
            let xorb = XorbHash::from_bytes(decoder.array()?);
            let chunks = decoder.u32()?..decoder.u32()?;
            let end = decoder.u64()?;
            let length = end.checked_sub(start).and_then(|length| u32::try_from(length).ok());
            let length = length.ok_or_else(|| decoder.malformed("its terms are not in order"))?;
            start = end;
            Ok(Term { xorb, chunks, length })
        })?;
        let samples = decoder.list(SAMPLE_BYTES, |decoder| {
            Ok(Sample {
                chunk: ChunkHash::from_bytes(decoder.array()?),
                xorb: XorbHash::from_bytes(decoder.array()?),
                index: decoder.u32()?,
            })
        })?;
        decoder.finish()?;
        Self::new(file, sha256, size, terms, samples)
    }
}

/// Where a manifest lies in its shard object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestPlace {
    /// The file.
    pub file: FileHash,
    /// Its SHA-256.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
    /// Where its manifest starts.
    pub offset: u64,
    /// How long its manifest is.
    pub length: u32,
}

/// What one upload registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardObject {
    /// Who uploaded it.
    pub uploader: UserId,
    /// When, in unix milliseconds.
    pub time_ms: u64,
    /// The files.
    pub manifests: Vec<Manifest>,
}

/// The front of a shard object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardDirectory {
    /// Who uploaded it.
    pub uploader: UserId,
    /// When, in unix milliseconds.
    pub time_ms: u64,
    /// The files.
    pub places: Vec<ManifestPlace>,
}

impl ShardObject {
    /// The stored bytes, the name of the object that they make, and where each manifest lies.
    pub fn encode(&self) -> Result<(Vec<u8>, ShardHash, Vec<ManifestPlace>)> {
        check(SHARD, self.manifests.len(), MAX_MANIFESTS)?;
        let bodies = self.manifests.iter().map(Manifest::encode).collect::<Result<Vec<_>>>()?;
        let mut offset =
            (FRONT_BYTES + bodies.len() * PLACE_BYTES + CHECKSUM_BYTES) as u64;
        let mut places = Vec::with_capacity(bodies.len());
        for (manifest, body) in self.manifests.iter().zip(&bodies) {
            let length = u32::try_from(body.len()).expect("a manifest's length has a limit");
            let Manifest { file, sha256, size, .. } = *manifest;
            places.push(ManifestPlace { file, sha256, size, offset, length });
            offset += u64::from(length);
        }
        let mut encoder = Encoder::new();
        encoder.array(MAGIC);
        encoder.u16(VERSION);
        encoder.array(self.uploader.as_bytes());
        encoder.u64(self.time_ms);
        encoder.list(&places, |encoder, place| {
            encoder.array(place.file.as_bytes());
            encoder.array(place.sha256.as_bytes());
            encoder.u64(place.size);
            encoder.u64(place.offset);
            encoder.u32(place.length);
        });
        let mut bytes = encoder.finish();
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        for body in bodies {
            bytes.extend_from_slice(&body);
        }
        let hash = ShardHash::of(&bytes);
        Ok((bytes, hash, places))
    }
}

impl ShardDirectory {
    /// How many bytes at the front of a shard object make its directory, told by its first
    /// [`FRONT_BYTES`].
    pub fn front_length(front: &[u8]) -> Result<usize> {
        let (.., count) = read_front(&mut Decoder::new(SHARD, front))?;
        Ok(FRONT_BYTES + count * PLACE_BYTES + CHECKSUM_BYTES)
    }

    /// Reads the front of a shard object: at least as many bytes as
    /// [`front_length`](Self::front_length) says.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let length = Self::front_length(bytes)?;
        let Some(bytes) = bytes.get(..length) else {
            return Err(Error::Truncated { what: SHARD });
        };
        let (front, checksum) = bytes.split_at(length - CHECKSUM_BYTES);
        if blake3::hash(front).as_bytes() != checksum {
            return Err(Error::malformed(SHARD, "its directory's checksum is wrong"));
        }
        let mut decoder = Decoder::new(SHARD, front);
        let (uploader, time_ms, count) = read_front(&mut decoder)?;
        let mut places = Vec::with_capacity(count);
        let mut expected = length as u64;
        for _ in 0..count {
            let place = ManifestPlace {
                file: FileHash::from_bytes(decoder.array()?),
                sha256: Sha256::from_bytes(decoder.array()?),
                size: decoder.u64()?,
                offset: decoder.u64()?,
                length: decoder.u32()?,
            };
            if place.offset != expected {
                return Err(Error::malformed(SHARD, "its manifests overlap or leave gaps"));
            }
            expected = place.offset.saturating_add(u64::from(place.length));
            places.push(place);
        }
        decoder.finish()?;
        Ok(Self { uploader, time_ms, places })
    }
}

fn read_front(decoder: &mut Decoder<'_>) -> Result<(UserId, u64, usize)> {
    if &decoder.array::<8>()? != MAGIC {
        return Err(decoder.malformed("it does not begin as one"));
    }
    let version = decoder.u16()?;
    if version != VERSION {
        return Err(Error::UnknownVersion { what: SHARD, version: u64::from(version) });
    }
    let uploader = UserId::from_bytes(decoder.array()?);
    let time_ms = decoder.u64()?;
    let count = decoder.u32()? as usize;
    check(SHARD, count, MAX_MANIFESTS)?;
    Ok((uploader, time_ms, count))
}

fn check(what: &'static str, size: usize, limit: usize) -> Result<()> {
    if size > limit {
        return Err(Error::TooLarge { what, size: size as u64, limit: limit as u64 });
    }
    Ok(())
}
