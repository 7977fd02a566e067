//! What a Xet client makes of a file before it sends it, and of what it fetches.

use std::ops::Range;

use ballast_format::chunk::Chunker;
use ballast_format::hash::{ChunkHash, FileHash, RangeHash, Sha256, XorbHash};
use ballast_format::hash_tree;
use ballast_format::xorb::{ChunkHeader, XorbFooter, XorbWriter, decompress};
use sha2::{Digest as _, Sha256 as Hasher};

/// A file in one xorb.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The file.
    pub content: Vec<u8>,
    /// Its chunks, with their lengths.
    pub chunks: Vec<(ChunkHash, u32)>,
    /// The serialized chunks, as they are sent.
    pub xorb: Vec<u8>,
    /// The footer of that xorb.
    pub footer: XorbFooter,
    /// The hash over the chunks.
    pub file: FileHash,
    /// The digest of the content.
    pub sha256: Sha256,
}

/// The digest of some bytes.
pub fn sha256(content: &[u8]) -> Sha256 {
    Sha256::from_bytes(Hasher::digest(content).into())
}

/// Cuts, packs and hashes.
pub fn pack(content: &[u8]) -> Packed {
    let (mut chunks, mut writer, mut chunker) = (Vec::new(), XorbWriter::new(), Chunker::new());
    let mut rest = content;
    while !rest.is_empty() {
        let length = chunker.next_boundary(rest).unwrap_or(rest.len());
        let (chunk, after) = rest.split_at(length);
        let hash = ChunkHash::of(chunk);
        writer.push(chunk, hash);
        chunks.push((hash, u32::try_from(length).expect("chunks are small")));
        rest = after;
    }
    let (xorb, footer) = writer.finish();
    let leaves = chunks.iter().map(|(hash, length)| (*hash, u64::from(*length)));
    Packed {
        content: content.to_vec(),
        file: hash_tree::file_hash(leaves),
        sha256: sha256(content),
        chunks,
        xorb: xorb.to_vec(),
        footer,
    }
}

/// A file of a shard: segments of xorbs, and what proves them.
#[derive(Clone, Debug)]
pub struct ShardFile {
    /// The hash over its chunks.
    pub file: FileHash,
    /// What it is made of.
    pub segments: Vec<Segment>,
    /// The digest of its content.
    pub sha256: Sha256,
}

/// A stretch of a file.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The xorb that holds it.
    pub xorb: XorbHash,
    /// Its bytes.
    pub length: u32,
    /// Its chunks.
    pub chunks: Range<u32>,
    /// What shows that the sender knows them.
    pub proof: RangeHash,
}

impl Packed {
    /// The name of the xorb.
    pub fn hash(&self) -> XorbHash {
        self.footer.hash()
    }

    /// The file as a shard names it.
    pub fn as_shard_file(&self) -> ShardFile {
        let chunks = 0..self.footer.chunk_count();
        let segment = Segment {
            xorb: self.hash(),
            length: u32::try_from(self.content.len()).expect("small"),
            proof: self.footer.range_hash(chunks.clone()).expect("all chunks"),
            chunks,
        };
        ShardFile { file: self.file, segments: vec![segment], sha256: self.sha256 }
    }

    /// The shard of this one file.
    pub fn shard(&self) -> Vec<u8> {
        shard(&[self.as_shard_file()], &[self])
    }
}

const TAG: [u8; 32] = [
    0x48, 0x46, 0x52, 0x65, 0x70, 0x6f, 0x4d, 0x65, 0x74, 0x61, 0x44, 0x61, 0x74, 0x61, 0x00, 0x55,
    0x69, 0x67, 0x45, 0x6a, 0x7b, 0x81, 0x57, 0x83, 0xa5, 0xbd, 0xd9, 0x5c, 0xcd, 0xd1, 0x4a, 0xa9,
];

/// A shard as clients post it: no tables, no footer.
pub fn shard(files: &[ShardFile], xorbs: &[&Packed]) -> Vec<u8> {
    let mut out = TAG.to_vec();
    out.extend_from_slice(&2_u64.to_le_bytes());
    out.extend_from_slice(&0_u64.to_le_bytes());
    for file in files {
        record(&mut out, file.file.as_bytes(), [0xc000_0000, count(file.segments.len()), 0, 0]);
        for segment in &file.segments {
            let chunks = &segment.chunks;
            let numbers = [0, segment.length, chunks.start, chunks.end];
            record(&mut out, segment.xorb.as_bytes(), numbers);
        }
        for segment in &file.segments {
            record(&mut out, segment.proof.as_bytes(), [0; 4]);
        }
        record(&mut out, &file.sha256.to_field(), [0; 4]);
    }
    record(&mut out, &[0xff; 32], [0; 4]);
    for xorb in xorbs {
        let length = count(xorb.content.len());
        record(&mut out, xorb.hash().as_bytes(), [0, count(xorb.chunks.len()), length, 0]);
        let mut start = 0;
        for (hash, length) in &xorb.chunks {
            record(&mut out, hash.as_bytes(), [start, *length, 0, 0]);
            start += length;
        }
    }
    record(&mut out, &[0xff; 32], [0; 4]);
    out
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("small")
}

fn record(out: &mut Vec<u8>, hash: &[u8; 32], numbers: [u32; 4]) {
    out.extend_from_slice(hash);
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

/// The chunks that follow one another in fetched bytes of a xorb.
pub fn unpack(mut bytes: &[u8]) -> ballast_format::Result<Vec<Vec<u8>>> {
    let mut chunks = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk() {
        let header = ChunkHeader::decode(header)?;
        let (payload, behind) =
            rest.split_at_checked(header.compressed_length as usize).unwrap_or((rest, &[]));
        let mut chunk = Vec::new();
        decompress(header.compression, payload, header.uncompressed_length, &mut chunk)?;
        chunks.push(chunk);
        bytes = behind;
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_unpacks() -> ballast_format::Result<()> {
        let packed = pack(&crate::content::bf16_weights(1, 500_000));
        assert_eq!(unpack(&packed.xorb)?.concat(), packed.content);
        assert!(unpack(&packed.xorb[..packed.xorb.len() - 1]).is_err());
        Ok(())
    }

    #[test]
    fn the_shard_of_hello_world_is_the_reference_one() {
        let shard = pack(b"hello world").shard();
        assert_eq!(shard.len(), 432);
        assert_eq!(
            sha256(&shard).to_string(),
            "e524ecb3f186ce5c28bb5d63338fa0f2f5d8b5311069ab23de7b4ea2c59ee11e"
        );
    }
}
