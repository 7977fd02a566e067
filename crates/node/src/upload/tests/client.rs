//! A Xet client: cuts and packs files, claims in a shard what they are made of, and lies on demand.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use ballast_format::chunk::split;
use ballast_format::hash::{ChunkHash, FileHash, RangeHash, Sha256, XorbHash};
use ballast_format::hash_tree::file_hash;
use ballast_format::xorb::{XorbFooter, XorbWriter};
use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};

use crate::access::{Caller, Repo};
use crate::download::ByteStream;
use crate::error::Result;
use crate::hub::Hub;
use crate::rig::{Rig, path, sha256};
use crate::upload::ShardPut;
use crate::upload::commit::Committed;

/// A xorb, ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Xorb {
    pub(crate) body: Bytes,
    pub(crate) footer: XorbFooter,
}

impl Xorb {
    /// All chunks of these contents.
    pub(crate) fn of(contents: &[&[u8]]) -> Self {
        let mut writer = XorbWriter::new();
        for chunk in contents.iter().flat_map(|content| split(content)) {
            writer.push(chunk, ChunkHash::of(chunk));
        }
        let (body, footer) = writer.finish();
        Self { body, footer }
    }

    pub(crate) fn hash(&self) -> XorbHash {
        self.footer.hash()
    }
}

/// What a shard says of a xorb.
#[derive(Clone, Debug)]
pub(crate) struct XorbClaim {
    pub(crate) hash: XorbHash,
    pub(crate) chunks: Vec<(ChunkHash, u32)>,
    /// Chunks that carry the mark of those worth asking about.
    pub(crate) marked: Vec<u32>,
}

impl XorbClaim {
    pub(crate) fn of(footer: &XorbFooter) -> Self {
        let chunks = 0..footer.chunk_count();
        let chunk = |index| (footer.chunk_hash(index), footer.chunk_length(index));
        Self { hash: footer.hash(), chunks: chunks.map(chunk).collect(), marked: Vec::new() }
    }
}

/// What a shard says of a part of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SegmentClaim {
    pub(crate) xorb: XorbHash,
    pub(crate) chunks: Range<u32>,
    pub(crate) length: u32,
    pub(crate) proof: RangeHash,
}

impl SegmentClaim {
    pub(crate) fn of(footer: &XorbFooter, chunks: Range<u32>) -> Self {
        let length = footer.uncompressed_length(chunks.clone()).expect("a run");
        Self {
            xorb: footer.hash(),
            length: u32::try_from(length).expect("a xorb is small"),
            proof: footer.range_hash(chunks.clone()).expect("a run"),
            chunks,
        }
    }
}

/// What a shard says of a file.
#[derive(Clone, Debug)]
pub(crate) struct FileClaim {
    pub(crate) hash: FileHash,
    pub(crate) sha256: Option<Sha256>,
    pub(crate) segments: Vec<SegmentClaim>,
    pub(crate) is_proven: bool,
}

/// One run of a client: files, and the xorbs that are new.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    places: HashMap<ChunkHash, (XorbHash, u32)>,
    footers: HashMap<XorbHash, XorbFooter>,
    pub(crate) xorbs: Vec<Xorb>,
    pub(crate) files: Vec<FileClaim>,
}

impl Session {
    /// A session of one file in one xorb.
    pub(crate) fn of(content: &[u8]) -> Self {
        let mut session = Self::default();
        session.add(content);
        session
    }

    /// Remembers the chunks of a xorb, as from an earlier session or an answer about a chunk.
    pub(crate) fn know(&mut self, footer: &XorbFooter) {
        for (index, chunk) in (0..).zip(footer.chunk_hashes()) {
            self.places.entry(*chunk).or_insert_with(|| (footer.hash(), index));
        }
        self.footers.insert(footer.hash(), footer.clone());
    }

    /// Adds a file; what is new of it goes into one xorb.
    pub(crate) fn add(&mut self, content: &[u8]) -> &mut FileClaim {
        self.add_all(&[content]);
        self.files.last_mut().expect("it was added just now")
    }

    /// Adds files; what is new of them goes into one xorb.
    pub(crate) fn add_all(&mut self, contents: &[&[u8]]) {
        let mut writer = XorbWriter::new();
        for chunk in contents.iter().flat_map(|content| split(content)) {
            let hash = ChunkHash::of(chunk);
            self.places.entry(hash).or_insert_with(|| {
                let index = writer.push(chunk, hash);
                (XorbHash::ZERO, index)
            });
        }
        if !writer.is_empty() {
            let (body, footer) = writer.finish();
            for (xorb, _) in self.places.values_mut() {
                if *xorb == XorbHash::ZERO {
                    *xorb = footer.hash();
                }
            }
            self.know(&footer);
            self.xorbs.push(Xorb { body, footer });
        }
        for content in contents {
            let claim = self.claim(content);
            self.files.push(claim);
        }
    }

    fn claim(&self, content: &[u8]) -> FileClaim {
        let mut runs: Vec<(XorbHash, Range<u32>)> = Vec::new();
        let mut leaves = Vec::new();
        for chunk in split(content) {
            let hash = ChunkHash::of(chunk);
            leaves.push((hash, chunk.len() as u64));
            let (xorb, index) = self.places[&hash];
            match runs.last_mut() {
                Some((of, run)) if *of == xorb && run.end == index => run.end += 1,
                _ => runs.push((xorb, index..index + 1)),
            }
        }
        let segment =
            |(xorb, run): (XorbHash, Range<u32>)| SegmentClaim::of(&self.footers[&xorb], run);
        FileClaim {
            hash: file_hash(leaves),
            sha256: Some(sha256(content)),
            segments: runs.into_iter().map(segment).collect(),
            is_proven: true,
        }
    }

    /// The shard of this session.
    pub(crate) fn shard(&self) -> Bytes {
        let claims = self.xorbs.iter().map(|xorb| XorbClaim::of(&xorb.footer));
        encode(&self.files, &claims.collect::<Vec<_>>())
    }

    /// Sends all xorbs.
    pub(crate) async fn send_xorbs(&self, hub: &Arc<Hub>, caller: &Caller) -> Result<()> {
        for xorb in &self.xorbs {
            put_xorb(hub, caller, xorb).await?;
        }
        Ok(())
    }

    /// Sends everything.
    pub(crate) async fn send(
        &self,
        hub: &Arc<Hub>,
        caller: &Caller,
        repo: &Repo,
    ) -> Result<ShardPut> {
        self.send_xorbs(hub, caller).await?;
        put_shard(hub, caller, repo, self.shard()).await
    }

    /// Sends everything and commits the first file.
    pub(crate) async fn commit(
        &self,
        rig: &Rig,
        caller: &Caller,
        repo: &Repo,
        place: &str,
    ) -> Committed {
        self.send(&rig.hub, caller, repo).await.expect("it is taken");
        let sha256 = self.files[0].sha256.expect("it was not taken away");
        commit(rig, caller, repo, place, sha256).await.expect("a commit")
    }
}

/// Commits a large file that is there.
pub(crate) async fn commit(
    rig: &Rig,
    caller: &Caller,
    repo: &Repo,
    place: &str,
    sha256: Sha256,
) -> Result<Committed> {
    let mut draft = rig.draft(caller, repo).await;
    draft.add_large(path(place), sha256, None).await?;
    draft.finish().await
}

/// A body, as it comes from a socket.
pub(crate) fn body(bytes: &Bytes) -> ByteStream {
    let pieces: Vec<_> = bytes.chunks(70_001).map(|piece| Ok(bytes.slice_ref(piece))).collect();
    Box::pin(stream::iter(pieces))
}

pub(crate) async fn put_xorb(hub: &Arc<Hub>, caller: &Caller, xorb: &Xorb) -> Result<bool> {
    let length = Some(xorb.body.len() as u64);
    hub.put_xorb(caller, xorb.hash(), length, body(&xorb.body)).await
}

pub(crate) async fn put_shard(
    hub: &Arc<Hub>,
    caller: &Caller,
    repo: &Repo,
    shard: Bytes,
) -> Result<ShardPut> {
    let turn = hub.shard_turn(caller).await?;
    hub.put_shard(caller, repo, turn, shard, &|_, _| ()).await
}

/// All bytes of a stream.
pub(crate) async fn all_of(bytes: ByteStream) -> Result<Vec<u8>> {
    let mut bytes = bytes;
    let mut all = Vec::new();
    while let Some(piece) = bytes.try_next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

const TAG: &[u8; 32] = b"HFRepoMetaData\0\x55\x69\x67\x45\x6a\x7b\x81\x57\x83\xa5\xbd\xd9\x5c\xcd\
                         \xd1\x4a\xa9";

/// A shard as clients post it: no tables, no footer.
pub(crate) fn encode(files: &[FileClaim], xorbs: &[XorbClaim]) -> Bytes {
    let mut out = TAG.to_vec();
    out.extend_from_slice(&2_u64.to_le_bytes());
    out.extend_from_slice(&0_u64.to_le_bytes());
    for file in files {
        let flags = u32::from(file.is_proven) << 31 | u32::from(file.sha256.is_some()) << 30;
        let count = file.segments.len().try_into().expect("few");
        record(&mut out, file.hash.as_bytes(), [flags, count, 0, 0]);
        for segment in &file.segments {
            let numbers = [0, segment.length, segment.chunks.start, segment.chunks.end];
            record(&mut out, segment.xorb.as_bytes(), numbers);
        }
        for segment in file.segments.iter().filter(|_| file.is_proven) {
            record(&mut out, segment.proof.as_bytes(), [0; 4]);
        }
        if let Some(sha256) = &file.sha256 {
            record(&mut out, &sha256.to_field(), [0; 4]);
        }
    }
    record(&mut out, &[0xff; 32], [0; 4]);
    for xorb in xorbs {
        let count = xorb.chunks.len().try_into().expect("few");
        let length = xorb.chunks.iter().map(|(_, length)| length).sum();
        record(&mut out, xorb.hash.as_bytes(), [0, count, length, 0]);
        let mut start = 0;
        for (index, (hash, length)) in (0..).zip(&xorb.chunks) {
            let flags = u32::from(xorb.marked.contains(&index)) << 31;
            record(&mut out, hash.as_bytes(), [start, *length, flags, 0]);
            start += length;
        }
    }
    record(&mut out, &[0xff; 32], [0; 4]);
    out.into()
}

fn record(out: &mut Vec<u8>, hash: &[u8; 32], numbers: [u32; 4]) {
    out.extend_from_slice(hash);
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

#[test]
fn the_shard_of_hello_world_is_the_one_of_a_client() {
    let shard = Session::of(b"hello world").shard();
    assert_eq!(shard.len(), 432);
    let digest = "e524ecb3f186ce5c28bb5d63338fa0f2f5d8b5311069ab23de7b4ea2c59ee11e";
    assert_eq!(sha256(&shard).to_string(), digest);
}
