//! The git objects that one commit adds, as one stored object.
//!
//! A pack in git's sense, with a layout of our own: contents back to back as they are, then a
//! directory that says what each is and where, then a footer of fixed length that leads to the
//! directory. One object is one range read away, and the whole is written as a stream. A pack is
//! named by the hash of its directory. Layout: `docs/formats/pack.md`.

use crate::codec::{Decoder, Encoder};
use crate::error::{Error, Result};
use crate::hash::{FileHash, ObjectHash, PackHash, Sha256, ShardHash};
use crate::limits::MAX_PACK_DIRECTORY_BYTES;
use crate::manifest::ManifestId;
use crate::object::{MAX_POINTER_BYTES, ObjectKind, Pointer};

const WHAT: &str = "pack";
const VERSION: u16 = 1;
/// The magic and the version.
const HEADER: &[u8; 10] = b"BLSTPACK\x01\x00";
const FOOTER_MAGIC: &[u8; 8] = b"BLSTPEND";

/// Bytes of the footer: the directory's hash and length, the version, and the end mark.
pub const FOOTER_BYTES: usize = 32 + 4 + 2 + 8;
/// Bytes of an object in the directory that is no pointer, the shortest.
const OBJECT_BYTES: usize = 20 + 1 + 8 + 8 + 1;
const LINK_BYTES: usize = 32 + 32 + 32 + 8;

/// Where an object lies in a pack, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedObject {
    /// Its git id.
    pub id: ObjectHash,
    /// What it is.
    pub kind: ObjectKind,
    /// Where its content starts in the pack.
    pub offset: u64,
    /// How long its content is.
    pub length: u64,
    /// The large file that it stands for, if it is a pointer.
    pub pointer: Option<Pointer>,
}

/// A large file that a commit names and the repo did not have before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLink {
    /// How trees name it.
    pub sha256: Sha256,
    /// Its content.
    pub file: FileHash,
    /// The shard object that holds the manifest by which this repo reads it.
    pub shard: ShardHash,
    /// Its size in bytes.
    pub size: u64,
}

impl FileLink {
    /// The manifest by which the repo reads it.
    pub fn manifest(&self) -> ManifestId {
        ManifestId { file: self.file, shard: self.shard }
    }
}

/// Everything in a pack but the contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackDirectory {
    /// The objects, in the order of their contents.
    pub objects: Vec<PackedObject>,
    /// The large files.
    pub links: Vec<FileLink>,
    /// The pack's name.
    pub hash: PackHash,
}

/// Keeps the books while a pack is being written.
#[derive(Debug)]
pub struct PackBuilder {
    objects: Vec<PackedObject>,
    links: Vec<FileLink>,
    offset: u64,
}

impl Default for PackBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl PackBuilder {
    /// A pack with nothing in it.
    pub fn new() -> Self {
        Self { objects: Vec::new(), links: Vec::new(), offset: HEADER.len() as u64 }
    }

    /// What the caller writes first.
    pub fn header(&self) -> &'static [u8] {
        HEADER
    }

    /// Notes an object whose content the caller writes next; returns where it starts.
    pub fn push(
        &mut self,
        id: ObjectHash,
        kind: ObjectKind,
        length: u64,
        pointer: Option<Pointer>,
    ) -> u64 {
        let offset = self.offset;
        self.objects.push(PackedObject { id, kind, offset, length, pointer });
        self.offset += length;
        offset
    }

    /// Notes a large file that the commit newly names.
    pub fn link(&mut self, link: FileLink) {
        self.links.push(link);
    }

    /// Whether no object was noted.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// What the caller writes last, and the directory.
    pub fn finish(self) -> Result<(Vec<u8>, PackDirectory)> {
        let mut encoder = Encoder::new();
        encoder.list(&self.objects, encode_object);
        encoder.list(&self.links, |encoder, link| {
            encoder.array(link.sha256.as_bytes());
            encoder.array(link.file.as_bytes());
            encoder.array(link.shard.as_bytes());
            encoder.u64(link.size);
        });
        let directory = encoder.finish();
        check_length(directory.len())?;
        let length = u32::try_from(directory.len()).expect("it was compared with a limit");
        let hash = PackHash::of(&directory);
        let mut tail = Encoder::new();
        tail.array(&directory);
        tail.array(hash.as_bytes());
        tail.u32(length);
        tail.u16(VERSION);
        tail.array(FOOTER_MAGIC);
        let directory = PackDirectory { objects: self.objects, links: self.links, hash };
        Ok((tail.finish(), directory))
    }
}

impl PackDirectory {
    /// Where the contents end and the directory begins.
    pub fn contents_end(&self) -> u64 {
        let last = self.objects.last();
        last.map_or(HEADER.len() as u64, |object| object.offset + object.length)
    }

    /// How many bytes at the end of a pack hold the directory and the footer, told by its last
    /// [`FOOTER_BYTES`].
    pub fn tail_length(footer: &[u8]) -> Result<usize> {
        Ok(Footer::decode(footer)?.directory_length + FOOTER_BYTES)
    }

    /// Reads the end of a pack of `total` bytes: exactly as many bytes as
    /// [`tail_length`](Self::tail_length) says.
    pub fn decode(tail: &[u8], total: u64) -> Result<Self> {
        let Some(split) = tail.len().checked_sub(FOOTER_BYTES) else {
            return Err(Error::Truncated { what: WHAT });
        };
        let (directory, footer) = tail.split_at(split);
        let footer = Footer::decode(footer)?;
        if footer.directory_length != directory.len() {
            return Err(Error::malformed(WHAT, "its directory has another length"));
        }
        let hash = PackHash::of(directory);
        if hash != footer.hash {
            return Err(Error::HashMismatch {
                what: "pack directory",
                expected: footer.hash.to_string(),
                actual: hash.to_string(),
            });
        }
        let contents_end = total.checked_sub(tail.len() as u64);
        let contents_end = contents_end.ok_or(Error::Truncated { what: WHAT })?;
        let mut decoder = Decoder::new(WHAT, directory);
        let objects = decoder.list(OBJECT_BYTES, decode_object)?;
        let links = decoder.list(LINK_BYTES, |decoder| {
            Ok(FileLink {
                sha256: Sha256::from_bytes(decoder.array()?),
                file: FileHash::from_bytes(decoder.array()?),
                shard: ShardHash::from_bytes(decoder.array()?),
                size: decoder.u64()?,
            })
        })?;
        decoder.finish()?;
        let mut expected = HEADER.len() as u64;
        for object in &objects {
            if object.offset != expected {
                return Err(Error::malformed(WHAT, "its contents overlap or leave gaps"));
            }
            let end = expected.checked_add(object.length).filter(|end| *end <= contents_end);
            expected = end.ok_or_else(|| Error::malformed(WHAT, "a content passes its end"))?;
        }
        if expected != contents_end {
            return Err(Error::malformed(WHAT, "its contents do not reach its directory"));
        }
        Ok(Self { objects, links, hash })
    }
}

struct Footer {
    directory_length: usize,
    hash: PackHash,
}

impl Footer {
    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(WHAT, bytes);
        let hash = PackHash::from_bytes(decoder.array()?);
        let length = decoder.u32()?;
        let version = decoder.u16()?;
        if &decoder.array::<8>()? != FOOTER_MAGIC {
            return Err(decoder.malformed("it does not end as one"));
        }
        if version != VERSION {
            return Err(Error::UnknownVersion { what: WHAT, version: u64::from(version) });
        }
        decoder.finish()?;
        let directory_length = length as usize;
        check_length(directory_length)?;
        Ok(Self { directory_length, hash })
    }
}

fn check_length(size: usize) -> Result<()> {
    if size > MAX_PACK_DIRECTORY_BYTES {
        let (size, limit) = (size as u64, MAX_PACK_DIRECTORY_BYTES as u64);
        return Err(Error::TooLarge { what: "pack directory", size, limit });
    }
    Ok(())
}

fn encode_object(encoder: &mut Encoder, object: &PackedObject) {
    encoder.array(object.id.as_bytes());
    encoder.u8(object.kind.to_byte());
    encoder.u64(object.offset);
    encoder.u64(object.length);
    encoder.option(object.pointer.as_ref(), |encoder, pointer| {
        encoder.array(pointer.sha256.as_bytes());
        encoder.u64(pointer.size);
    });
}

fn decode_object(decoder: &mut Decoder<'_>) -> Result<PackedObject> {
    let id = ObjectHash::from_bytes(decoder.array()?);
    let kind = decoder.u8()?;
    let kind = ObjectKind::from_byte(kind)
        .ok_or_else(|| decoder.malformed(format!("{kind} is no kind of object")))?;
    let (offset, length) = (decoder.u64()?, decoder.u64()?);
    let pointer = decoder.option(|decoder| {
        Ok(Pointer { sha256: Sha256::from_bytes(decoder.array()?), size: decoder.u64()? })
    })?;
    if pointer.is_some() && (kind != ObjectKind::Blob || length > MAX_POINTER_BYTES as u64) {
        return Err(decoder.malformed("what can't be a pointer is said to be one"));
    }
    Ok(PackedObject { id, kind, offset, length, pointer })
}

#[cfg(test)]
mod tests;
