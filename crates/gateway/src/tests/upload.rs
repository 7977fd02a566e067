//! What a Xet client makes of a file before it sends it: chunks, a xorb, a shard.

use ballast_format::chunk::Chunker;
use ballast_format::hash::{ChunkHash, FileHash, RangeHash, Sha256, XorbHash};
use ballast_format::hash_tree;
use ballast_format::xorb::{XorbFooter, XorbWriter};
use sha2::{Digest as _, Sha256 as Hasher};

/// A file in one xorb.
pub(crate) struct Packed {
    pub(crate) content: Vec<u8>,
    pub(crate) chunks: Vec<(ChunkHash, u32)>,
    /// The serialized chunks, as they are sent.
    pub(crate) xorb: Vec<u8>,
    pub(crate) footer: XorbFooter,
    pub(crate) file: FileHash,
    pub(crate) sha256: Sha256,
}

pub(crate) fn sha256(content: &[u8]) -> Sha256 {
    Sha256::from_bytes(Hasher::digest(content).into())
}

/// Cuts, packs and hashes.
pub(crate) fn pack(content: &[u8]) -> Packed {
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
pub(crate) struct ShardFile {
    pub(crate) file: FileHash,
    pub(crate) segments: Vec<Segment>,
    pub(crate) sha256: Sha256,
}

pub(crate) struct Segment {
    pub(crate) xorb: XorbHash,
    pub(crate) length: u32,
    pub(crate) chunks: std::ops::Range<u32>,
    pub(crate) proof: RangeHash,
}

impl Packed {
    pub(crate) fn hash(&self) -> XorbHash {
        self.footer.hash()
    }

    pub(crate) fn as_shard_file(&self) -> ShardFile {
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
    pub(crate) fn shard(&self) -> Vec<u8> {
        shard(&[self.as_shard_file()], &[self])
    }
}

const TAG: [u8; 32] = [
    0x48, 0x46, 0x52, 0x65, 0x70, 0x6f, 0x4d, 0x65, 0x74, 0x61, 0x44, 0x61, 0x74, 0x61, 0x00, 0x55,
    0x69, 0x67, 0x45, 0x6a, 0x7b, 0x81, 0x57, 0x83, 0xa5, 0xbd, 0xd9, 0x5c, 0xcd, 0xd1, 0x4a, 0xa9,
];

/// A shard as clients post it: no tables, no footer.
pub(crate) fn shard(files: &[ShardFile], xorbs: &[&Packed]) -> Vec<u8> {
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

#[test]
fn the_shard_of_hello_world_is_the_reference_one() {
    let shard = pack(b"hello world").shard();
    assert_eq!(shard.len(), 432);
    assert_eq!(
        sha256(&shard).to_string(),
        "e524ecb3f186ce5c28bb5d63338fa0f2f5d8b5311069ab23de7b4ea2c59ee11e"
    );
}
