//! Files as lists of terms: what a shard proved, as we keep it.
//!
//! A shard object holds the manifests of the files that one upload registered, with who uploaded
//! them and when. Its front is a directory, so that a rebuild reads little; each manifest carries a
//! checksum, so that it can be read alone by its place. Layout: `docs/formats/shard-object.md`.

use std::ops::Range;

use crate::codec::{Encoder, Format};
use crate::error::{Error, Result};
use crate::hash::{ChunkHash, FileHash, Sha256, ShardHash, XorbHash};
use crate::id::UserId;
use crate::limits::{MAX_MANIFEST_BYTES, MAX_MANIFESTS, MAX_XORB_BYTES, MAX_XORB_CHUNKS};

const MANIFEST: Format = Format {
    what: "manifest",
    magic: *b"BLSTMANI",
    version: 1,
    limit: MAX_MANIFEST_BYTES,
    has_checksum: true,
};
/// The front of a shard object is a value of its own; the manifests follow it.
const SHARD: Format = Format {
    what: "shard object",
    magic: *b"BLSTSHRD",
    version: 1,
    limit: DIRECTORY_BYTES + MAX_MANIFESTS * PLACE_BYTES,
    has_checksum: true,
};

/// Bytes that say how long the directory of a shard object is.
pub const FRONT_BYTES: usize = Format::FRONT_BYTES;
/// Bytes of a directory without rows: uploader, time and the number of rows.
const DIRECTORY_BYTES: usize = Format::FRONT_BYTES + 16 + 8 + 4 + Format::CHECKSUM_BYTES;
/// Bytes of one directory row.
const PLACE_BYTES: usize = 32 + 32 + 8 + 8 + 4;
/// Bytes of one stored term: xorb, first chunk, end of chunks, end offset in the file.
const TERM_BYTES: usize = 32 + 4 + 4 + 8;
const SAMPLE_BYTES: usize = 32 + 32 + 4;

/// Names one manifest. A file's content can be put together in several ways; each shard object that
/// registered it holds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManifestId {
    /// The content.
    pub file: FileHash,
    /// The shard object.
    pub shard: ShardHash,
}

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
    /// Its first chunk, those whose hash is a multiple of 1,024, and those that a client marked.
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
            check_term(term)?;
            end += u64::from(term.length);
            ends.push(end);
        }
        if end != size {
            let reason = format!("its terms make {end} bytes, its size is {size}");
            return Err(Error::malformed(MANIFEST.what, reason));
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

    /// Where a term ends in the file.
    pub fn end_of(&self, term: usize) -> u64 {
        self.ends[term]
    }

    /// What keeping it in memory costs.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.terms.len() * (size_of::<Term>() + size_of::<u64>())
            + self.samples.len() * size_of::<Sample>()
    }

    /// The stored bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        MANIFEST.encode(|encoder| {
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
        })
    }

    /// Reads stored bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = MANIFEST.decode(bytes)?;
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

/// A term is a possible part of a possible xorb.
fn check_term(term: &Term) -> Result<()> {
    let fault = |reason| Err(Error::malformed(MANIFEST.what, reason));
    if term.chunks.is_empty() || term.length == 0 {
        return fault("a term is empty");
    }
    if term.chunks.end as usize > MAX_XORB_CHUNKS || term.length as usize > MAX_XORB_BYTES {
        return fault("a term is more than a xorb can hold");
    }
    Ok(())
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
        let bodies = self.manifests.iter().map(Manifest::encode).collect::<Result<Vec<_>>>()?;
        let mut offset = (DIRECTORY_BYTES + bodies.len() * PLACE_BYTES) as u64;
        let mut places = Vec::with_capacity(bodies.len());
        for (manifest, body) in self.manifests.iter().zip(&bodies) {
            let length = u32::try_from(body.len()).expect("a manifest's length has a limit");
            let Manifest { file, sha256, size, .. } = *manifest;
            places.push(ManifestPlace { file, sha256, size, offset, length });
            offset += u64::from(length);
        }
        let mut bytes = SHARD.encode(|encoder| {
            encoder.array(self.uploader.as_bytes());
            encoder.u64(self.time_ms);
            encoder.list(&places, encode_place);
        })?;
        for body in bodies {
            bytes.extend_from_slice(&body);
        }
        let hash = ShardHash::of(&bytes);
        Ok((bytes, hash, places))
    }
}

fn encode_place(encoder: &mut Encoder, place: &ManifestPlace) {
    encoder.array(place.file.as_bytes());
    encoder.array(place.sha256.as_bytes());
    encoder.u64(place.size);
    encoder.u64(place.offset);
    encoder.u32(place.length);
}

impl ShardDirectory {
    /// How many bytes at the front of a shard object make its directory, told by its first
    /// [`FRONT_BYTES`].
    pub fn front_length(front: &[u8]) -> Result<usize> {
        SHARD.length(front)
    }

    /// Reads the front of a shard object: at least as many bytes as
    /// [`front_length`](Self::front_length) says.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let length = SHARD.length(bytes)?;
        let front = bytes.get(..length).ok_or(Error::Truncated { what: SHARD.what })?;
        let mut decoder = SHARD.decode(front)?;
        let uploader = UserId::from_bytes(decoder.array()?);
        let time_ms = decoder.u64()?;
        let mut expected = length as u64;
        let places = decoder.list(PLACE_BYTES, |decoder| {
            let place = ManifestPlace {
                file: FileHash::from_bytes(decoder.array()?),
                sha256: Sha256::from_bytes(decoder.array()?),
                size: decoder.u64()?,
                offset: decoder.u64()?,
                length: decoder.u32()?,
            };
            if place.offset != expected {
                return Err(decoder.malformed("its manifests overlap or leave gaps"));
            }
            expected = place.offset.saturating_add(u64::from(place.length));
            Ok(place)
        })?;
        decoder.finish()?;
        Ok(Self { uploader, time_ms, places })
    }
}

#[cfg(test)]
mod tests;
