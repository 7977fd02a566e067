//! Files for tests, and what they are made of.

use std::ops::Range;

use ballast_format::cached_file::CachedFile;
use ballast_format::hash::{ChunkHash, Sha256, XorbHash};
use ballast_format::manifest::Term;
use ballast_testkit::content::splitmix;
use bytes::Bytes;
use sha2::Digest as _;

/// How long each chunk of a sample is.
pub(crate) const CHUNK: u32 = 1000;

/// A file, and what it is made of.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) content: Vec<u8>,
    pub(crate) about: CachedFile,
}

impl Sample {
    /// A file of so many chunks, so many of them in each xorb.
    pub(crate) fn new(seed: u64, chunks: u32, in_xorb: u32) -> Self {
        let content = splitmix(seed, (chunks * CHUNK) as usize);
        let hashes = hashes(&content);
        let mut terms = Vec::new();
        for (number, first) in (0_u8..).zip((0..chunks).step_by(in_xorb as usize)) {
            let count = in_xorb.min(chunks - first);
            let mut xorb = [number; 32];
            xorb[..8].copy_from_slice(&seed.to_le_bytes());
            let xorb = XorbHash::from_bytes(xorb);
            terms.push(Term { xorb, chunks: 0..count, length: count * CHUNK });
        }
        Self::of(content, terms, &hashes)
    }

    pub(crate) fn of(content: Vec<u8>, terms: Vec<Term>, chunks: &[(ChunkHash, u32)]) -> Self {
        let sha256 = Sha256::from_bytes(sha2::Sha256::digest(&content).into());
        let about = CachedFile::new(sha256, terms, chunks).expect("it is possible");
        Self { content, about }
    }

    /// The same with other chunks in this place, which lie in a xorb of their own.
    pub(crate) fn with_new(&self, new: Range<u32>, seed: u64) -> Self {
        let mut content = self.content.clone();
        let place = (new.start * CHUNK) as usize..(new.end * CHUNK) as usize;
        let length = place.len();
        content[place].copy_from_slice(&splitmix(seed, length));
        let (old, _) = self.parts();
        let mut terms = Vec::new();
        let mut first = 0;
        for term in old {
            let end = first + (term.chunks.end - term.chunks.start);
            let part = |from: u32, to: u32| Term {
                xorb: term.xorb,
                chunks: from - first + term.chunks.start..to - first + term.chunks.start,
                length: (to - from) * CHUNK,
            };
            if first < new.start.min(end) {
                terms.push(part(first, new.start.min(end)));
            }
            if (first..end).contains(&new.start) {
                let xorb = XorbHash::from_bytes([0xee; 32]);
                let chunks = 0..new.end - new.start;
                let length = chunks.end * CHUNK;
                terms.push(Term { xorb, chunks, length });
            }
            if new.end.max(first) < end {
                terms.push(part(new.end.max(first), end));
            }
            first = end;
        }
        let hashes = hashes(&content);
        Self::of(content, terms, &hashes)
    }

    pub(crate) fn parts(&self) -> (Vec<Term>, Vec<(ChunkHash, u32)>) {
        let chunks = 0..self.about.head.chunk_count();
        let chunk = |chunk| (self.about.hash_of(chunk), self.about.length_of(chunk));
        (self.about.head.terms.clone(), chunks.map(chunk).collect())
    }

    pub(crate) fn sha256(&self) -> Sha256 {
        self.about.head.sha256
    }

    pub(crate) fn bytes(&self, chunks: Range<u32>) -> Bytes {
        let place = (chunks.start * CHUNK) as usize..(chunks.end * CHUNK) as usize;
        Bytes::copy_from_slice(&self.content[place])
    }

    pub(crate) fn xorbs(&self) -> Vec<XorbHash> {
        self.about.head.terms.iter().map(|term| term.xorb).collect()
    }
}

fn hashes(content: &[u8]) -> Vec<(ChunkHash, u32)> {
    content.chunks(CHUNK as usize).map(|chunk| (ChunkHash::of(chunk), CHUNK)).collect()
}
