//! Shards that are small and cost much: paid for once, or refused.

use std::ops::Range;

use ballast_format::hash::{ChunkHash, FileHash};
use ballast_format::hash_tree::file_hash;
use ballast_format::limits::{MAX_SHARD_CHUNKS, MAX_XORB_CHUNKS};
use ballast_format::manifest::ManifestId;
use ballast_format::xorb::XorbWriter;
use ballast_testkit::content::splitmix;

use super::client::{
    FileClaim, SegmentClaim, Session, Xorb, XorbClaim, encode, put_shard, put_xorb,
};
use crate::error::{Error, Result};
use crate::rig::Rig;
use crate::upload::is_sample;

/// A chunk that clients ask about wherever it stands.
fn sample_chunk() -> Vec<u8> {
    let mut contents = (0..).map(|seed| splitmix(seed, 16));
    let found = contents.find(|content| is_sample(&ChunkHash::of(content)));
    found.expect("one in 1024 is one")
}

/// A xorb of one chunk, over and over.
fn xorb_of(chunk: &[u8], times: usize) -> Xorb {
    let mut writer = XorbWriter::new();
    for _ in 0..times {
        writer.push(chunk, ChunkHash::of(chunk));
    }
    let (body, footer) = writer.finish();
    Xorb { body, footer }
}

fn file_of(xorb: &Xorb, runs: Vec<Range<u32>>) -> FileClaim {
    let length = |index| u64::from(xorb.footer.chunk_length(index));
    let leaves = runs.iter().cloned().flatten();
    let leaves = leaves.map(|index| (xorb.footer.chunk_hash(index), length(index)));
    FileClaim {
        hash: file_hash(leaves),
        sha256: None,
        segments: runs.into_iter().map(|run| SegmentClaim::of(&xorb.footer, run)).collect(),
        is_proven: true,
    }
}

#[tokio::test]
async fn a_sample_that_is_named_again_and_again_is_kept_once() -> Result<()> {
    let rig = Rig::start().await;
    let repo = rig.repo(&rig.admin, "admin/model").await;
    let xorb = xorb_of(&sample_chunk(), MAX_XORB_CHUNKS);
    put_xorb(&rig.hub, &rig.admin, &xorb).await?;
    let all = 0..xorb.footer.chunk_count();
    let file = file_of(&xorb, vec![all; 8]);
    let shard = encode(std::slice::from_ref(&file), &[]);
    let put = put_shard(&rig.hub, &rig.admin, &repo, shard).await?;
    let id = ManifestId { file: file.hash, shard: put.hash.expect("it was stored") };
    let manifest = rig.hub.needed_manifest(&id).await?;
    assert_eq!(manifest.samples.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_shard_that_names_more_chunks_than_any_file_has_is_refused() -> Result<()> {
    let rig = Rig::start().await;
    let repo = rig.repo(&rig.admin, "admin/model").await;
    let xorb = xorb_of(b"x", MAX_XORB_CHUNKS);
    put_xorb(&rig.hub, &rig.admin, &xorb).await?;
    let segment = SegmentClaim::of(&xorb.footer, 0..xorb.footer.chunk_count());
    let times = MAX_SHARD_CHUNKS / MAX_XORB_CHUNKS as u64 + 1;
    let file = FileClaim {
        hash: FileHash::from_bytes([1; 32]),
        sha256: None,
        segments: vec![segment; usize::try_from(times).expect("small")],
        is_proven: true,
    };
    let shard = encode(&[file], &[]);
    assert!(shard.len() < 1 << 20, "{} bytes", shard.len());
    let put = put_shard(&rig.hub, &rig.admin, &repo, shard).await;
    assert!(matches!(put, Err(Error::TooLarge { .. })));
    Ok(())
}

#[tokio::test]
async fn what_a_client_marks_answers_queries() -> Result<()> {
    let rig = Rig::start().await;
    let repo = rig.repo(&rig.admin, "admin/model").await;
    let session = Session::of(&splitmix(1, 900_000));
    let footer = &session.xorbs[0].footer;
    let (marked, other) = (footer.chunk_hash(3), footer.chunk_hash(4));
    assert!(!is_sample(&marked) && !is_sample(&other), "another content is needed");
    session.send_xorbs(&rig.hub, &rig.admin).await?;
    let claim = XorbClaim { marked: vec![3], ..XorbClaim::of(footer) };
    put_shard(&rig.hub, &rig.admin, &repo, encode(&session.files, &[claim])).await?;
    assert!(rig.hub.dedup_answer(&rig.admin, None, marked).await?.is_some());
    assert!(rig.hub.dedup_answer(&rig.admin, None, other).await?.is_none());
    Ok(())
}
